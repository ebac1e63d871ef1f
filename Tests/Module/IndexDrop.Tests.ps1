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
    function Test-Index([string] $Name) { $null -ne (Get-SqlValue "select to_regclass('$Name')::text") }
}

AfterAll {
    Close-Sql reader
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase
}

Describe 'Invoke-SafeIndexDrop' {
    BeforeEach {
        $null = Invoke-Sql 'drop index if exists ix, shop."Ix 1"; create index ix on orders (tier); create index "Ix 1" on shop.items ("Odd Name")'
    }

    Context 'Input' {
        It 'takes parameters' {
            $result = Invoke-SafeIndexDrop ix
            $result | Should -BeOfType MigrationSafety.IndexDropResult
            $result.Schema, $result.Table, $result.Name, "$($result.Outcome)", $result.Server, $result.Port, $result.Database |
                Should -Be 'public', 'orders', 'ix', 'Dropped', $TestServer.Host, $TestServer.Port, $TestDatabase
            $result.SizeBytes | Should -BeGreaterThan 0
            Test-Index ix | Should -BeFalse
        }

        It 'takes rows of a CSV by property name' {
            ('Schema,Name', 'public,ix', 'shop,"""Ix 1"""' | ConvertFrom-Csv | Invoke-SafeIndexDrop).Name | Should -Be 'ix', '"Ix 1"'
            Test-Index 'shop."Ix 1"' | Should -BeFalse
        }

        It 'takes what Get-InvalidIndex finds' {
            { Invoke-Sql 'create unique index concurrently failed on orders (tier)' } | Should -Throw '*could not create unique index*'
            (Get-InvalidIndex | Invoke-SafeIndexDrop).Name | Should -Be 'failed'
            Get-InvalidIndex | Should -BeNullOrEmpty
        }

        It 'takes what was built, in the database where it was built' {
            $other = New-TestDatabase -Another
            try {
                $null = Invoke-Sql -Database $other 'create table orders (id int, tier text)'
                $results = Invoke-SafeIndexBuild orders tier -Name made -Session (Get-TestUri $other), $session
                # Text sessions are closed with their cmdlet: the open one alone can be gone on with.
                ($results | Where-Object Database -EQ $TestDatabase | Invoke-SafeIndexDrop).Database | Should -Be $TestDatabase
                Get-SqlValue -Database $other "select to_regclass('made')::text" | Should -Be 'made'
            }
            finally { Remove-TestDatabase $other }
        }
    }

    Context 'Outcome' {
        It 'makes a rollback that builds the index again' {
            $dropped = Invoke-SafeIndexDrop ix
            $script = $dropped | New-RollbackScript
            $script.Text | Should -BeLike '*CREATE INDEX CONCURRENTLY ix ON public.orders USING btree (tier)*'
            $null = Invoke-Sql $script.Statements[0].Reversal
            Get-SqlValue "select pg_get_indexdef('ix'::regclass)" | Should -Be $dropped.Definition
        }

        It 'warns of an index that is not there, and goes on' {
            $result = Invoke-SafeIndexDrop nothing -WarningVariable warnings -WarningAction SilentlyContinue
            "$($result.Outcome)", $result.Name, $result.Table | Should -Be 'AlreadyGone', 'nothing', $null
            $warnings | Should -BeLike '*no index nothing*'
        }
    }

    Context '-WhatIf and -AsJob' {
        It 'prints the plan and changes nothing' {
            $run = Invoke-TestProcess "Import-Module '$ManifestPath'; Invoke-SafeIndexDrop ix -Session '$(Get-TestUri)' -WhatIf"
            $run.Output | Should -Match 'DROP INDEX CONCURRENTLY IF EXISTS public\.ix'
            $run.Output | Should -Match 'taken back by: CREATE INDEX CONCURRENTLY ix'
            $run.ExitCode | Should -Be 0
            Test-Index ix | Should -BeTrue
        }

        It 'runs as a job' {
            "$((Invoke-SafeIndexDrop ix -AsJob | Receive-Job -Wait -AutoRemoveJob).Outcome)" | Should -Be 'Dropped'
        }
    }

    Context 'What goes wrong' {
        It 'is told by its id: <Id>' -ForEach @(
            @{ Id = 'IndexBacksConstraint'; Category = 'InvalidOperation'; Parameters = @{ Name = 'orders_pkey' }; Text = '*ALTER TABLE public.orders DROP CONSTRAINT orders_pkey*' }
            @{ Id = 'NotAnIndex'; Category = 'InvalidArgument'; Parameters = @{ Name = 'orders' }; Text = '*orders is no index*' }
            @{ Id = 'SchemaContradicts'; Category = 'InvalidArgument'; Parameters = @{ Name = 'shop.ix'; Schema = 'public' }; Text = '*shop.ix*' }
        ) {
            $failure = { Invoke-SafeIndexDrop @Parameters } | Should -Throw -PassThru -ErrorId "$Id,MigrationSafety.Module.Commands.InvokeSafeIndexDropCommand"
            "$($failure.CategoryInfo.Category)" | Should -Be $Category
            "$($failure.Exception.Message) $($failure.ErrorDetails.RecommendedAction)" | Should -BeLike $Text
        }

        It 'ends after -WaitFor with the transaction that was waited for, and the index serves on' {
            $null = Invoke-Sql -Connection reader 'begin; lock table orders in access share mode'
            try {
                Wait-Until { Get-SqlValue "select clock_timestamp() - xact_start > '0.5 s' from pg_stat_activity where application_name = 'reader'" }
                $failure = { Invoke-SafeIndexDrop ix -WaitFor 500ms } | Should -Throw -PassThru
                $failure.FullyQualifiedErrorId | Should -BeLike 'WaitedTooLong,*'
                $failure.Exception.Blockers.Application | Should -Contain 'reader'
                Get-SqlValue "select indisvalid from pg_index where indexrelid = 'ix'::regclass" | Should -BeTrue
            }
            finally { Close-Sql reader }
        }

        It 'is finished by the same command after kill -9 of the client' {
            $null = Invoke-Sql -Connection reader 'begin; lock table orders in access share mode'
            $client = $null
            # Connections of this process stay in its pool, with what they asked last.
            $own = Get-SqlValue "select coalesce(string_agg(pid::text, ','), '0') from pg_stat_activity where application_name = 'MigrationSafety/observer'"
            try {
                $client = Start-Process (Get-Process -Id $PID).Path -PassThru -ArgumentList '-NoProfile', '-NonInteractive', '-Command', "`"Import-Module '$ManifestPath'; Invoke-SafeIndexDrop ix -Session '$(Get-TestUri)'`""
                # Half dropped: what was open when it began was let go, and another took its place.
                Wait-Until { Get-SqlValue "select count(*) from pg_stat_activity where datname = '$TestDatabase' and application_name = 'MigrationSafety/observer' and pid not in ($own)" }
                $null = Invoke-Sql -Connection later 'begin; lock table orders in access share mode'
                Close-Sql reader
                Wait-Until { -not (Get-SqlValue "select indisvalid from pg_index where indexrelid = 'ix'::regclass") }
                $client.Kill()
                (Get-InvalidIndex).Name | Should -Be 'ix'
            }
            finally {
                if ($client -and -not $client.HasExited) { $client.Kill() }
                Close-Sql reader
                Close-Sql later
            }

            $result = Invoke-SafeIndexDrop ix -WarningAction SilentlyContinue
            "$($result.Outcome)" | Should -BeIn 'Dropped', 'AlreadyGone'
            Get-InvalidIndex | Should -BeNullOrEmpty
            Test-Index ix | Should -BeFalse
        }
    }

    Context 'The table' {
        It 'shows name, outcome and size within 80 columns' {
            $text = Invoke-SafeIndexDrop ix | Format-Table | Out-String -Width 80
            $text | Should -Match 'ix\s.*Dropped\s'
            $text | Should -Match '\d+ kB'
            $text | Should -Not -Match '#ERR'
        }
    }
}
