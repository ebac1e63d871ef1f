BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $session = Connect-MigrationDatabase (Get-TestUri)
    function Get-Empty { Get-SqlValue 'select count(*) from orders where tier is null' }
    function Get-Catalog { (Invoke-Sql "select oid::int8, relname from pg_class where oid >= 16384 order by 1" | ConvertTo-Json) }
}

AfterAll {
    Close-Sql writer
    Get-Job | Remove-Job -Force
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase
}

Describe 'Start-Backfill' {
    BeforeEach {
        $null = Invoke-Sql @'
drop schema if exists migration_safety cascade;
drop table if exists orders;
create table orders (id bigint primary key, price int not null, tier text, total int);
insert into orders select i, i from generate_series(1, 20000) i
'@
    }

    Context 'Input' {
        It 'takes parameters' {
            $result = Start-Backfill -Table orders -Set @{ tier = "'standard'" }
            $result | Should -BeOfType MigrationSafety.BackfillResult
            $result.Schema, $result.Table, "$($result.Outcome)", $result.Resumed, $result.Rows, $result.TotalRows, $result.Remaining, $result.Server, $result.Database |
                Should -Be 'public', 'orders', 'Completed', $false, 20000, 20000, 0, $TestServer.Host, $TestDatabase
            $result.Batches | Should -BeGreaterThan 1
            Get-Empty | Should -Be 0
        }

        It 'takes several columns, expressions of the row and a condition' {
            $result = Start-Backfill orders ([ordered]@{ tier = "'s' || id"; total = 'price * 2' }) 'tier is null and id <= 100' -Name first_hundred
            $result.Name | Should -Be 'first_hundred'
            $result.Rows | Should -Be 100
            Get-SqlValue "select count(*) from orders where tier = 's' || id and total = price * 2" | Should -Be 100
        }

        It 'takes objects by property name' {
            $rows = [pscustomobject]@{ Table = 'orders'; Set = @{ tier = "'a'" } }, [pscustomobject]@{ Table = 'public.orders'; Set = @{ total = 'price' } }
            ($rows | Start-Backfill).Rows | Should -Be 20000, 20000
        }

        It 'takes objects that were JSON, and amounts as text' {
            $config = '[{ "Table": "orders", "Set": { "tier": "''j''", "total": "price" }, "Where": "tier is null", "MaxSlotLag": "2GB" }]' | ConvertFrom-Json
            ($config | Start-Backfill -MaxSlotLag $config.MaxSlotLag -MaxArchiveLag '64MB' -MaxWalRate '1GB').Rows | Should -Be 20000
            Get-SqlValue "select count(*) from orders where tier = 'j' and total = price" | Should -Be 20000
            Get-SqlValue "select array_to_string(set_columns, ',') from migration_safety.backfill" | Should -Be 'tier,total'
            Get-SqlValue "select throttle->>'slot_lag' from migration_safety.backfill" | Should -Be 2147483648
            $null = Invoke-Sql 'drop table if exists copied; create table copied (id bigint primary key, total int)'
            (Start-Backfill orders -InsertInto copied -Select ('{ "total": "price * 2" }' | ConvertFrom-Json)).Rows | Should -Be 20000
            Get-SqlValue 'select sum(total - id * 2)::int8 from copied' | Should -Be 0
        }

        It 'takes a strategy and a number of workers' {
            $result = Start-Backfill orders @{ tier = "'a'" } -Strategy Key -Workers 3
            "$($result.Strategy)", $result.Rows | Should -Be 'Key', 20000
            "$((Start-Backfill orders @{ total = 'price' } -Workers 2).Strategy)" | Should -Be 'Block'
            { Start-Backfill orders @{ tier = "'a'" } -Workers 0 } | Should -Throw -ErrorId 'ParameterArgumentValidationError,*'
        }

        It 'looks into another table' {
            $null = Invoke-Sql "drop table if exists levels; create table levels (price int primary key, name text); insert into levels select i, 'level ' || i from generate_series(1, 100) i"
            $result = Start-Backfill orders @{ tier = 'l.name' } -From 'levels l' -Where 'orders.price = l.price and orders.tier is null'
            $result.Rows, $result.Remaining | Should -Be 100, 0
            Get-SqlValue "select count(*) from orders where tier = 'level ' || price" | Should -Be 100
        }

        It 'deletes rows, and says what is missing' {
            $result = Start-Backfill orders -Delete -Where 'id > 15000' -Workers 2 -Confirm:$false
            $result.Name, $result.Rows | Should -Be 'public.orders.delete', 5000
            Get-SqlValue 'select count(*) from orders' | Should -Be 15000
            { Start-Backfill orders -Delete -ErrorAction Stop } | Should -Throw -ErrorId 'WhereMissing,*'
            { Start-Backfill orders -Set @{ tier = "'a'" } -Delete -Where 'id = 1' } | Should -Throw -ErrorId 'AmbiguousParameterSet,*'
        }

        It 'keeps what it overwrites, and the rollback puts it back' {
            $null = Invoke-Sql 'update orders set total = -1 where id <= 100'
            $result = Start-Backfill orders @{ total = 'price' } -Where 'total = -1' -KeepOldValues
            $result.Archive | Should -BeLike 'migration_safety.kept_*_orders_total'
            (Get-Backfill $result.Name).Archive | Should -Be $result.Archive
            $rollback = $result | New-RollbackScript
            "$($rollback.Statements[0].Reversibility)" | Should -Be 'Reversible'
            # What is recorded tells the same, later and elsewhere.
            (Get-Backfill $result.Name | New-RollbackScript).Statements[0].Reversal | Should -Be $rollback.Statements[0].Reversal
            $null = Invoke-Sql 'update orders set total = 5000 where id = 7'
            $null = Invoke-Sql $rollback.Statements[0].Reversal
            Get-SqlValue 'select count(*) from orders where total = -1' | Should -Be 99
            Get-SqlValue 'select total from orders where id = 7' | Should -Be 5000
            Remove-Backfill $result.Name -WarningVariable warnings -WarningAction SilentlyContinue
            "$warnings" | Should -BeLike "*$($result.Archive)*"
            Get-SqlValue "select count(*) from $($result.Archive)" | Should -Be 1
        }

        It 'drops what was kept when told' {
            $result = Start-Backfill orders -Delete -Where 'id > 19000' -KeepOldValues
            Remove-Backfill $result.Name -DropArchive -WhatIf
            Get-SqlValue "select count(*) from $($result.Archive)" | Should -Be 1000
            Remove-Backfill $result.Name -DropArchive -Confirm:$false
            Get-SqlValue "select to_regclass('$($result.Archive)')::text" | Should -BeNullOrEmpty
        }

        It 'copies rows into another table' {
            $null = Invoke-Sql 'drop table if exists orders_new; create table orders_new (id bigint primary key, price int, total int not null, tier text default ''none'')'
            $result = Start-Backfill orders -InsertInto orders_new -Select @{ total = 'price * 2'; tier = $null } -Where 'id <= 5000' -Workers 2
            $result.Rows, $result.Remaining, $result.Archive | Should -Be 5000, 0, $null
            Get-SqlValue "select count(*) from orders_new where total = price * 2 and tier = 'none'" | Should -Be 5000
            (Get-Backfill $result.Name).Action | Should -BeLike 'insert into public.orders_new (id, price, total)*'
            (Test-Backfill $result.Name -Comparison All).Passed | Should -BeTrue
            $rollback = $result | New-RollbackScript
            $null = Invoke-Sql $rollback.Statements[0].Reversal
            Get-SqlValue 'select count(*) from orders_new' | Should -Be 0
            # Into a table with rows: the keys of what was copied tell them apart.
            $null = Invoke-Sql 'insert into orders_new (id, total) values (-1, 0)'
            $keyed = Start-Backfill orders -InsertInto orders_new -Select @{ total = 'price * 2' } -Where 'id <= 5' -Name keyed
            Get-Backfill keyed | Out-String -Width 200 | Should -BeLike "*keys in $($keyed.Archive)*"
            Remove-Backfill keyed -WarningVariable warned -WarningAction SilentlyContinue
            "$warned" | Should -BeLike "What keyed kept remains in $($keyed.Archive).*"
        }

        It 'refuses what does not go together: <_>' -ForEach @(
            "orders -Set @{ tier = '1' } -InsertInto o"
            'orders -Delete -InsertInto o'
            "orders -InsertInto o -From 'x'"
            'orders -InsertInto o -KeepOldValues'
            "orders -Set @{ tier = '1' } -Select @{ a = 'b' }"
        ) {
            { Invoke-Expression "Start-Backfill $_ -Where true" } | Should -Throw -ErrorId 'AmbiguousParameterSet,*'
        }

        It 'passes over as many rows as may be refused' {
            $result = Start-Backfill orders @{ total = '1 / (id - 5)' } -MaxErrors 1 -WarningVariable warnings -WarningAction SilentlyContinue
            "$($result.Outcome)", $result.Rows, $result.Errors, $result.Remaining | Should -Be 'CompletedWithErrors', 19999, 1, 1
            Get-Backfill | Out-String -Width 80 | Should -Match 'With errors\s+100'
            "$warnings" | Should -BeLike '*Get-Backfill -IncludeError*'
            Get-SqlValue 'select key[1] from migration_safety.backfill_error' | Should -Be '5'
        }

        It 'takes sessions from the pipeline' {
            ((Get-TestUri) | Start-Backfill orders @{ tier = "'a'" }).Database | Should -Be $TestDatabase
        }

        It 'works on the database that a piped result is about' {
            $other = New-TestDatabase -Another
            try {
                $null = Invoke-Sql -Database $other 'create table orders (id bigint primary key, tier text); insert into orders select i from generate_series(1, 100) i'
                $results = (Get-TestUri $other), $session | Invoke-SafeIndexBuild orders tier | Start-Backfill -Set @{ tier = "'standard'" }
                $results.Database | Sort-Object | Should -Be ($TestDatabase, $other | Sort-Object)
                ($results | Where-Object Database -EQ $other).Rows | Should -Be 100
                ($results | Where-Object Database -EQ $TestDatabase).Rows | Should -Be 20000
            }
            finally { Remove-TestDatabase $other }
        }
    }

    Context 'Again' {
        It 'finds nothing to do after the end' {
            $null = Start-Backfill orders @{ tier = "'standard'" }
            $again = Start-Backfill orders @{ tier = "'standard'" }
            "$($again.Outcome)", $again.Rows | Should -Be 'AlreadyCompleted', 0
            $null = $again | New-RollbackScript -WarningVariable warnings -WarningAction SilentlyContinue
            "$warnings" | Should -BeLike '*not taken back by the script*It was there before this run*'
        }

        It 'goes on where a stopped one was' {
            # A row that is held keeps it from the end.
            $null = Invoke-Sql -Connection writer 'begin; update orders set price = price where id = 15000'
            $job = Start-Backfill orders @{ tier = "'standard'" } -AsJob -TargetBatchTime 20ms
            Wait-Until { (Get-Empty) -lt 15000 } 'some batches to be done'
            Stop-Job $job
            "$($job.State)" | Should -Be 'Stopped'
            Get-ModuleActivity | Should -BeNullOrEmpty
            $left = Get-Empty
            $left | Should -BeGreaterThan 0
            Close-Sql writer
            $result = Start-Backfill orders @{ tier = "'standard'" }
            $result.Resumed | Should -BeTrue
            $result.Rows | Should -Be $left
            $result.TotalRows | Should -Be 20000
            Get-Empty | Should -Be 0
        }
    }

    Context 'Where data goes' {
        BeforeAll {
            function Invoke-Own([string] $Script) { Invoke-TestProcess "Import-Module '$ManifestPath'; `$null = Connect-MigrationDatabase '$(Get-TestUri)'; $Script" }
        }

        It 'asks: <Script>' -ForEach @(
            @{ Script = "Start-Backfill orders -Delete -Where 'id > 15000'" }
            @{ Script = 'Remove-Backfill kept -DropArchive' }
        ) {
            $archive = (Start-Backfill orders -Delete -Where 'id > 19000' -KeepOldValues -Name kept).Archive
            $left = { Get-SqlValue "select (select count(*) from orders) + (select count(*) from $archive)" }
            $run = Invoke-Own $Script
            $run.Output -replace '[\s|]+', ' ' | Should -Match 'NonInteractive.*-Confirm:\$false says yes'
            & $left | Should -Be 20000
            (Invoke-Own "`$ConfirmPreference = 'Medium'; $Script").Output | Should -Match 'NonInteractive'
            (Invoke-Own "$Script -WhatIf").Output | Should -Match 'What if:'
            & $left | Should -Be 20000
            # As whoever sits before it: no, then yes.
            foreach ($answer in 'n', 'y') {
                $asked = "Import-Module '$ManifestPath'", "`$null = Connect-MigrationDatabase '$(Get-TestUri)'", $Script, $answer |
                    & (Get-Process -Id $PID).Path -NoProfile -Command - 2>&1 | Out-String
                $asked | Should -BeLike '*`[Y`] Yes*'
                if ($answer -eq 'n') { & $left | Should -Be 20000 }
            }
            "$(Get-SqlValue 'select count(*) from orders') $(Get-SqlValue "select to_regclass('$archive') is null")" | Should -Be $(if ($Script -like 'Start*') { '15000 False' } else { '19000 True' })
        }

        It 'asks nobody who wants no question, and for nothing else' {
            $run = Invoke-Own @'
$ErrorActionPreference = 'Stop'
(Start-Backfill orders -Delete -Where 'id > 19000' -KeepOldValues).Outcome
(Start-Backfill orders @{ tier = "'a'" } -Where 'tier is null').Outcome
Remove-Backfill public.orders.tier -DropArchive
(Start-Backfill orders -Delete -Where 'id > 18000' -Name a -Confirm:$false).Rows
Remove-Backfill public.orders.delete -DropArchive -Confirm:$false
$ConfirmPreference = 'None'
(Start-Backfill orders -Delete -Where 'id > 17000' -Name b).Rows
'@
            $run.ExitCode | Should -Be 0 -Because $run.Output
            $run.Output -split '\s+' -ne '' | Should -Be 'Completed', 'Completed', '1000', '1000'
        }
    }

    Context '-WhatIf' {
        It 'changes nothing and returns nothing' {
            $before = Get-Catalog
            Start-Backfill orders @{ tier = "'standard'" } -WhatIf 6>&1 | Should -BeNullOrEmpty
            Get-Catalog | Should -Be $before
            Get-Empty | Should -Be 20000
        }

        It 'tells strategy, reason and estimate' {
            $run = Invoke-TestProcess "Import-Module '$ManifestPath'; Start-Backfill orders @{ tier = `"'standard'`" } -Strategy Key -Workers 2 -SampleBatch 3 -Session '$(Get-TestUri)' -WhatIf"
            $run.Output | Should -Match 'strategy: Key along orders_pkey \(id\), as asked for'
            $run.Output | Should -Match 'estimate: 20,000 of 20,000 rows; with 2 workers about .* MB of WAL'
            $run.Output | Should -Match 'measured by 3 batches with [\d,]+ rows, which were rolled back'
            $run.Output | Should -Not -Match 'create table'
        }

        It 'prints SQL and lock' {
            $run = Invoke-TestProcess "Import-Module '$ManifestPath'; Start-Backfill orders @{ tier = `"'standard'`" } -Session '$(Get-TestUri)' -WhatIf"
            $run.Output | Should -Match 'What if:.*public\.orders'
            # The block itself would push the rest off the screen.
            $run.Output | Should -Match 'taken back by: a block of SQL, which -Verbose shows'
            $run.Output | Should -Not -Match 'loop'
            $run = Invoke-TestProcess "Import-Module '$ManifestPath'; Start-Backfill orders @{ tier = `"'standard'`" } -Session '$(Get-TestUri)' -WhatIf -Verbose"
            $run.Output | Should -Match '(?s)is taken back by: .*loop'
            $run.Output | Should -Match '(?s)update only "?public"?\."?orders"?\s+set "?tier"? ='
            $run.Output | Should -Match 'ROW EXCLUSIVE on "?public"?\."?orders"?, changes rows in batches'
        }
    }

    Context 'What goes wrong' {
        It 'is told by its id: <Id>' -ForEach @(
            @{ Id = 'TableNotFound'; Category = 'ObjectNotFound'; Parameters = @{ Table = 'order'; Set = @{ tier = "'a'" } } }
            @{ Id = 'ColumnNotFound'; Category = 'ObjectNotFound'; Parameters = @{ Table = 'orders'; Set = @{ teir = "'a'" } } }
            @{ Id = 'InvalidSet'; Category = 'InvalidArgument'; Parameters = @{ Table = 'orders'; Set = @{ tier = 5 } } }
            @{ Id = 'InvalidSet'; Category = 'InvalidArgument'; Parameters = @{ Table = 'orders'; Set = 'tier = 5' } }
            @{ Id = 'UniqueIndexMissing'; Category = 'NotImplemented'; Parameters = @{ Table = 'orders'; Set = @{ id = 'id + 1' }; Where = 'true'; Strategy = 'Key' } }
            @{ Id = 'InvalidData'; Category = 'InvalidData'; Parameters = @{ Table = 'orders'; Set = @{ total = '1 / (id - 5)' } } }
            @{ Id = 'PredicateStaysTrue'; Category = 'InvalidArgument'; Parameters = @{ Table = 'orders'; Set = @{ tier = "'a'" }; Where = 'price > 0' } }
            @{ Id = 'SyntaxError'; Category = 'InvalidArgument'; Parameters = @{ Table = 'orders'; Set = @{ tier = "'a'" }; Where = 'price >' } }
        ) {
            $failure = { Start-Backfill @Parameters } | Should -Throw -PassThru -ErrorId "$Id,MigrationSafety.Module.Commands.StartBackfillCommand"
            "$($failure.CategoryInfo.Category)" | Should -Be $Category
            $failure.ErrorDetails.RecommendedAction | Should -Not -BeNullOrEmpty
            Get-Empty | Should -Be 20000
        }
    }

    Context 'A text without SQL quotation marks' {
        It 'is refused, and the advice shows how to write it' {
            $failure = { Start-Backfill orders @{ tier = 'standard' } } | Should -Throw -PassThru -ErrorId 'ColumnNotFound,*'
            $failure.ErrorDetails.RecommendedAction | Should -BeLike "*`"'standard'`"*"
        }
    }

    Context 'The table' {
        It 'shows name, outcome and rows within 80 columns' {
            $result = Start-Backfill orders @{ tier = "'standard'" } -Name fill_tier
            $text = $result | Format-Table | Out-String -Width 80
            $text | Should -Match 'fill_tier\s+Completed\s+20,000\s+0\s+\d\d:\d\d:\d\d\.\d\s'
            $text | Should -Match ([regex]::Escape(('{0:N0}' -f 20000)))
            $text | Should -Not -Match '#ERR'
        }

        It 'shows what is done before the next command fails' {
            $run = Invoke-TestProcess "`$ErrorActionPreference = 'Stop'; Import-Module '$ManifestPath'; Start-Backfill orders @{ tier = `"'standard'`" } -Session '$(Get-TestUri)'; Start-Backfill nosuch @{ tier = '1' } -Session '$(Get-TestUri)'"
            $run.Output | Should -Match 'public\.orders\.tier\s+Completed\s'
            $run.ExitCode | Should -Be 1
        }
    }

    Context 'A hashtable in the place of a condition' {
        It 'is refused by name' {
            { Start-Backfill orders @{ tier = "'x'" } -Delete -Confirm:$false } | Should -Throw '*-Where: a Hashtable is no condition*-Set*'
            { Start-Backfill orders @{ tier = "'x'" } -Where @{ a = 1 } -Confirm:$false } | Should -Throw '*-Where: a Hashtable is no condition*'
        }
    }
}
