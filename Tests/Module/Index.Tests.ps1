BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $null = Invoke-Sql @'
create schema shop;
create table orders (id bigint primary key, tier text, note text);
insert into orders select i, 't' || i % 3, 'n' || i from generate_series(1, 5000) i;
create table shop.items (id bigint primary key, "Odd Name" text)
'@
    $session = Connect-MigrationDatabase (Get-TestUri)
    function Get-Catalog { (Invoke-Sql "select c.oid::int8, c.relname, c.relkind::text, n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname not like 'pg\_%' and n.nspname <> 'information_schema' order by 1" | ConvertTo-Json) }
    function Remove-Index {
        foreach ($row in Invoke-Sql "select indexrelid::regclass::text as name from pg_index where not indisprimary and indrelid in ('orders'::regclass, 'shop.items'::regclass)") {
            $null = Invoke-Sql "drop index $($row.name)"
        }
    }
}

AfterAll {
    Close-Sql writer
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase
}

Describe 'Invoke-SafeIndexBuild' {
    AfterEach { Remove-Index }

    Context 'Input' {
        It 'takes parameters' {
            $result = Invoke-SafeIndexBuild -Table orders -Column tier, note -Name by_tier
            $result | Should -BeOfType MigrationSafety.IndexBuildResult
            $result.Schema, $result.Table, $result.Name, "$($result.Outcome)", $result.Server, $result.Database |
                Should -Be 'public', 'orders', 'by_tier', 'Built', $TestServer.Host, $TestDatabase
            $result.SizeBytes | Should -BeGreaterThan 0
            $result.Attempts | Should -Be 1
            Get-SqlValue "select pg_get_indexdef('by_tier'::regclass)" | Should -Be $result.Definition
            Get-SqlValue "select indisvalid and indisready and not indisunique from pg_index where indexrelid = 'by_tier'::regclass" | Should -Be $true
        }

        It 'takes a schema and names that need quotes' {
            (Invoke-SafeIndexBuild items '"Odd Name"' -Schema shop -Unique).Schema | Should -Be 'shop'
            Get-SqlValue "select indisunique from pg_index where indrelid = 'shop.items'::regclass and not indisprimary" | Should -Be $true
        }

        It 'takes rows of a CSV by property name' {
            $results = 'Table,Column', 'orders,tier', 'orders,note', 'shop.items,id' | ConvertFrom-Csv | Invoke-SafeIndexBuild
            # Tables are built side by side, the indexes of one in their order.
            $results | Where-Object Table -EQ orders | ForEach-Object Name | Should -Be 'orders_tier_idx', 'orders_note_idx'
            $results | Where-Object Table -EQ items | ForEach-Object Name | Should -Be 'items_id_idx'
        }

        It 'takes sessions from the pipeline' {
            $other = New-TestDatabase -Another
            try {
                $null = Invoke-Sql -Database $other 'create table orders (id int, tier text)'
                ($session, (Get-TestUri $other) | Invoke-SafeIndexBuild orders tier).Database | Sort-Object | Should -Be ($TestDatabase, $other | Sort-Object)
            }
            finally { Remove-TestDatabase $other }
        }
    }

    Context 'Statements' {
        BeforeAll {
            $file = Join-Path $TestDrive 'naive.sql'
            Set-Content -LiteralPath $file "-- naive`nBEGIN;`nCREATE INDEX IF NOT EXISTS by_note ON orders (lower(note), id DESC) WHERE tier = 't1';`nCREATE UNIQUE INDEX ON shop.items (id);`nCOMMIT;"
        }

        It 'come as a text' {
            $results = Invoke-SafeIndexBuild -Definition 'create index on orders (tier); create index on shop.items (id)'
            $results.Name | Sort-Object | Should -Be 'items_id_idx', 'orders_tier_idx'
        }

        It 'come as texts from the pipeline' {
            $results = 'create index on orders (tier)', 'CREATE INDEX ON orders (note)' | Invoke-SafeIndexBuild
            $results.Name | Should -Be 'orders_tier_idx', 'orders_note_idx'
        }

        It 'come from files: <How>' -ForEach @(
            @{ How = 'Get-ChildItem'; Run = { Get-ChildItem $file | Invoke-SafeIndexBuild } }
            @{ How = '-Path'; Run = { Invoke-SafeIndexBuild -Path (Join-Path $TestDrive 'n*.sql') } }
            @{ How = '-LiteralPath'; Run = { Invoke-SafeIndexBuild -LiteralPath $file } }
            @{ How = '-Path, and the session from the pipeline'; Run = { $session | Invoke-SafeIndexBuild -Path $file } }
        ) {
            $results = & $Run
            $results.Name | Sort-Object | Should -Be 'by_note', 'items_id_idx'
            Get-SqlValue "select pg_get_indexdef('by_note'::regclass)" |
                Should -Be "CREATE INDEX by_note ON public.orders USING btree (lower(note), id DESC) WHERE (tier = 't1'::text)"
        }

        It 'are refused as a whole where one is something else: <Text>' -ForEach @(
            @{ Text = 'create index on orders (tier); alter table orders add x int'; Said = '*line 1: alter table*' }
            @{ Text = 'create index on only orders (tier)'; Said = '*ONLY*' }
            @{ Text = 'create index on orders (tier) nonsense'; Said = '*nonsense*' }
            @{ Text = 'create index on orders (tier'; Said = '*no CREATE INDEX*' }
        ) {
            $failure = { Invoke-SafeIndexBuild -Definition $Text } | Should -Throw -PassThru -ErrorId 'NotAnIndex,*'
            $failure.Exception.Message | Should -BeLike $Said
            Get-SqlValue "select count(*) from pg_index where indrelid = 'orders'::regclass" | Should -Be 1
        }
    }

    Context 'All of CREATE INDEX' {
        It 'has a parameter' {
            $result = Invoke-SafeIndexBuild orders 'lower(note)', 'id desc' -Include tier -Where "tier = 't1'" -Unique -With @{ fillfactor = 80 } -Name all_of_it -MaintenanceWorkMem 64MB -ParallelWorkers 0
            $result.Definition | Should -Be "CREATE UNIQUE INDEX all_of_it ON public.orders USING btree (lower(note), id DESC) INCLUDE (tier) WITH (fillfactor='80') WHERE (tier = 't1'::text)"
            (Invoke-SafeIndexBuild orders tier -Method hash).Definition | Should -BeLike '*USING hash (tier)'
        }

        It 'reaches the partitions' {
            $null = Invoke-Sql 'create table parts (a int, b text) partition by list (a); create table parts1 partition of parts for values in (1); create table parts2 partition of parts for values in (2)'
            try {
                $run = Invoke-TestProcess "Import-Module '$ManifestPath'; Invoke-SafeIndexBuild parts b -Session '$(Get-TestUri)' -WhatIf"
                $run.Output | Should -Match 'CREATE INDEX parts_b_idx ON ONLY public\.parts'
                $run.Output | Should -Match 'ALTER INDEX public\.parts_b_idx ATTACH PARTITION public\.parts2_b_idx'
                $result = Invoke-SafeIndexBuild parts b
                "$($result.Outcome)" | Should -Be 'Built'
                Get-SqlValue "select count(*) from pg_partition_tree('parts_b_idx') t join pg_index i on i.indexrelid = t.relid where i.indisvalid" | Should -Be 3
                ($result | New-RollbackScript).Text | Should -BeLike '*DROP INDEX IF EXISTS public.parts_b_idx*'
            }
            finally { $null = Invoke-Sql 'drop table parts' }
        }
    }

    Context 'Outcome' {
        It 'does nothing where the index is there and valid' {
            $null = Invoke-SafeIndexBuild orders tier
            $before = Get-Catalog
            "$((Invoke-SafeIndexBuild orders tier).Outcome)" | Should -Be 'AlreadyValid'
            Get-Catalog | Should -Be $before
        }

        It 'rebuilds what an interrupted build left' {
            $null = Invoke-Sql 'insert into orders values (0, ''t'', ''n1'')'
            { Invoke-Sql 'create unique index concurrently orders_note_idx on orders (note)' } | Should -Throw '*could not create unique index*'
            Get-SqlValue "select indisvalid from pg_index where indexrelid = 'orders_note_idx'::regclass" | Should -Be $false
            $null = Invoke-Sql 'delete from orders where id = 0'
            "$((Invoke-SafeIndexBuild orders note -Unique).Outcome)" | Should -Be 'Rebuilt'
            Get-SqlValue "select indisvalid and indisunique from pg_index where indexrelid = 'orders_note_idx'::regclass" | Should -Be $true
        }

        It 'has the steps that ran, which make a rollback' {
            $script = Invoke-SafeIndexBuild orders tier | New-RollbackScript
            $script | Should -BeOfType MigrationSafety.RollbackScript
            $script.Text | Should -BeLike '*DROP INDEX CONCURRENTLY*orders_tier_idx*'
        }
    }

    Context 'Side by side' {
        It 'tables are built, and the indexes of one table one after the other' {
            $null = Invoke-Sql -Connection writer "begin isolation level repeatable read; select 1"
            try {
                $job = 'Table,Column', 'orders,tier', 'orders,note', 'shop.items,id' | ConvertFrom-Csv | Invoke-SafeIndexBuild -AsJob
                Wait-Until { (Get-SqlValue "select count(*) from pg_stat_progress_create_index where phase = 'waiting for old snapshots'") -eq 2 } 'two builds at once'
                Get-SqlValue "select count(distinct relid) from pg_stat_progress_create_index" | Should -Be 2
            }
            finally { Close-Sql writer }
            ($job | Receive-Job -Wait -AutoRemoveJob).Name | Sort-Object | Should -Be 'items_id_idx', 'orders_note_idx', 'orders_tier_idx'
        }

        It 'are as many as -ThrottleLimit says' {
            $null = Invoke-Sql -Connection writer "begin isolation level repeatable read; select 1"
            try {
                $job = 'Table,Column', 'orders,tier', 'shop.items,id' | ConvertFrom-Csv | Invoke-SafeIndexBuild -AsJob -ThrottleLimit 1
                Wait-Until { (Get-SqlValue "select count(*) from pg_stat_progress_create_index where phase = 'waiting for old snapshots'") -eq 1 } 'a build'
                (Get-ModuleActivity | Where-Object query -Like 'CREATE INDEX*').Count | Should -Be 1
            }
            finally { Close-Sql writer }
            ($job | Receive-Job -Wait -AutoRemoveJob).Count | Should -Be 2
        }
    }

    Context '-WhatIf' {
        It 'changes nothing and returns nothing' {
            $before = Get-Catalog
            Invoke-SafeIndexBuild orders tier -WhatIf 6>&1 | Should -BeNullOrEmpty
            Invoke-SafeIndexBuild orders tier -AsJob -WhatIf 6>&1 | Should -BeNullOrEmpty
            Get-Job | Should -BeNullOrEmpty
            Get-Catalog | Should -Be $before
        }

        It 'prints SQL, lock and reversal' {
            $run = Invoke-TestProcess "Import-Module '$ManifestPath'; Invoke-SafeIndexBuild orders tier -Session '$(Get-TestUri)' -WhatIf"
            $run.Output | Should -Match 'What if:.*public\.orders'
            $run.Output | Should -Match 'CREATE INDEX CONCURRENTLY orders_tier_idx ON public\.orders'
            $run.Output | Should -Match 'SHARE UPDATE EXCLUSIVE on public\.orders'
            $run.Output | Should -Match 'DROP INDEX CONCURRENTLY'
            $run.ExitCode | Should -Be 0
        }
    }

    Context 'Who is in the way' {
        It 'is shown with the plan, and ended where that is asked for' {
            $null = Invoke-Sql -Connection writer 'begin; update orders set note = note where id = 1'
            $writer = Get-SqlValue "select pid from pg_stat_activity where application_name = 'writer'"
            try {
                $run = Invoke-TestProcess "Import-Module '$ManifestPath'; Invoke-SafeIndexBuild orders tier -Session '$(Get-TestUri)' -WhatIf"
                $run.Output | Should -Match 'Estimate: '
                $run.Output | Should -Match "Would wait for pid $writer "
                $result = Invoke-SafeIndexBuild orders tier -BlockerAction Terminate -BlockerGracePeriod 300ms -WarningVariable warnings -WarningAction SilentlyContinue
                "$($result.Outcome)" | Should -Be 'Built'
                $result.WriterWaitTime | Should -BeGreaterThan ([timespan]::Zero)
                "$warnings" | Should -BeLike "*asked the server to end pid $writer *"
            }
            finally { Close-Sql writer }
        }
    }

    Context '-Confirm' {
        It 'asks after it has shown the plan, so that the question is not scrolled away' -Skip:$IsWindows {
            $run = "Import-Module '$ManifestPath'; Invoke-SafeIndexBuild orders tier -Session '$(Get-TestUri)' -Confirm" |
                & (Get-Process -Id $PID).Path -NoProfile -Command - 2>&1 | Out-String
            $run | Should -Match '(?s)CREATE INDEX CONCURRENTLY orders_tier_idx.*Build index orders_tier_idx on public\.orders\s+\(.*\)\?'
            Get-SqlValue "select to_regclass('orders_tier_idx')::text" | Should -BeNullOrEmpty
        }
    }

    Context 'What goes wrong' {
        It 'is told by its id: <Id>' -ForEach @(
            @{ Id = 'TableNotFound'; Category = 'ObjectNotFound'; Parameters = @{ Table = 'order'; Column = 'tier' }; Text = '*"order"*' }
            @{ Id = 'ColumnNotFound'; Category = 'ObjectNotFound'; Parameters = @{ Table = 'orders'; Column = 'teir' }; Text = '*teir*' }
            @{ Id = 'SchemaContradicts'; Category = 'InvalidArgument'; Parameters = @{ Table = 'shop.items'; Column = 'id'; Schema = 'public' }; Text = '*shop.items*' }
            @{ Id = 'DuplicateKey'; Category = 'InvalidData'; Parameters = @{ Table = 'orders'; Column = 'tier'; Unique = $true }; Text = '*tier*' }
            @{ Id = 'InvalidLockTimeout'; Category = 'InvalidArgument'; Parameters = @{ Table = 'orders'; Column = 'tier'; LockTimeout = '0s' }; Text = '*1ms*' }
        ) {
            $failure = { Invoke-SafeIndexBuild @Parameters } | Should -Throw -PassThru -ErrorId "$Id,MigrationSafety.Module.Commands.InvokeSafeIndexBuildCommand"
            "$($failure.CategoryInfo.Category)" | Should -Be $Category
            "$($failure.Exception.Message) $($failure.ErrorDetails.RecommendedAction)" | Should -BeLike $Text
            Get-SqlValue "select count(*) from pg_index where not indisvalid" | Should -Be 0
        }

        It 'is a result too, which has failed' {
            $result = Invoke-SafeIndexBuild orders tier -Unique -SkipDuplicateCheck -ErrorAction SilentlyContinue -ErrorVariable failures
            "$($result.Outcome)", $result.Name, $failures.Count | Should -Be 'Failed', 'orders_tier_idx', 1
            $result.Error | Should -Be $failures[0].Exception.Message
            $result.Steps.Count | Should -BeGreaterThan 0
        }

        It 'does not stop the next row' {
            $rows = [pscustomobject]@{ Table = 'nothing'; Column = 'a' }, [pscustomobject]@{ Table = 'orders'; Column = 'tier' }
            $results = $rows | Invoke-SafeIndexBuild -ErrorAction SilentlyContinue -ErrorVariable failures
            $results.Name | Should -Be 'orders_tier_idx'
            $failures.Count | Should -Be 1
        }

        It 'refuses a number as a duration and says what to write' {
            { Invoke-SafeIndexBuild orders tier -RetryFor 10 } | Should -Throw "*'10' is not a duration*10min*"
            { Invoke-SafeIndexBuild orders tier -RetryFor ([timespan]::FromSeconds(-1)) } | Should -Throw '*negative*'
        }

        It 'ends after -WaitFor with the transaction that was waited for' {
            $null = Invoke-Sql -Connection writer 'begin; update orders set note = note where id = 1'
            try {
                $failure = { Invoke-SafeIndexBuild orders tier -WaitFor 1s -RetryFor 1s } | Should -Throw -PassThru
                "$($failure.CategoryInfo.Category)" | Should -BeIn 'OperationTimeout', 'ResourceBusy'
                $failure.Exception.Blockers.Application | Should -Contain 'writer'
            }
            finally { Close-Sql writer }

            "$((Invoke-SafeIndexBuild orders tier).Outcome)" | Should -BeIn 'Built', 'Rebuilt'
        }
    }

    Context 'The table' {
        It 'shows name, outcome and size within 80 columns' {
            $text = Invoke-SafeIndexBuild orders tier | Format-Table | Out-String -Width 80
            $text | Should -Match 'orders_tier_idx\s.*Built\s'
            $text | Should -Match '\d+ kB'
            $text | Should -Not -Match '#ERR'
        }
    }
}
