BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $null = Invoke-Sql @'
create schema shop;
create table orders (id bigint primary key, tier text, note text);
insert into orders select i, 't' || i % 3, 'n' || i from generate_series(1, 5000) i;
create index ix on orders (tier);
create table shop.items (id bigint primary key, "Odd Name" text);
create index "Ix 1" on shop.items ("Odd Name");
analyze
'@
    $session = Connect-MigrationDatabase (Get-TestUri)
    function Add-Leftover([string] $Statement) {
        $null = Invoke-Sql -Connection old 'begin isolation level repeatable read; select 1'
        $null = Invoke-Sql -Connection left "set lock_timeout = '50ms'"
        { Invoke-Sql -Connection left $Statement } | Should -Throw '*lock timeout*'
        Close-Sql left
        Close-Sql old
    }
}

AfterAll {
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase
}

Describe 'Invoke-SafeIndexRebuild' {
    Context 'Input' {
        It 'takes a name' {
            $oid = Get-SqlValue "select 'ix'::regclass::oid::int8"
            $result = Invoke-SafeIndexRebuild ix
            $result | Should -BeOfType MigrationSafety.IndexRebuildResult
            $result.Schema, $result.Table, $result.Name, "$($result.Outcome)", $result.Server, $result.Port, $result.Database |
                Should -Be 'public', 'orders', 'ix', 'Rebuilt', $TestServer.Host, $TestServer.Port, $TestDatabase
            Get-SqlValue "select 'ix'::regclass::oid::int8" | Should -Not -Be $oid
        }

        It 'takes a table, and a schema' {
            (Invoke-SafeIndexRebuild -Table orders).Name | Select-Object -First 2 | Should -Be 'ix', 'orders_pkey'
            (Invoke-SafeIndexRebuild -Schema shop | Where-Object Schema -EQ shop).Name | Should -Be '"Ix 1"', 'items_pkey'
        }

        It 'repairs what Get-InvalidIndex finds' {
            Add-Leftover 'create index concurrently half on orders (note)'
            "$((Get-InvalidIndex | Invoke-SafeIndexRebuild).Outcome)" | Should -Be 'Repaired'
            Get-InvalidIndex | Should -BeNullOrEmpty
        }

        It 'removes what a rebuild left, and leaves the index alone' {
            Add-Leftover 'reindex index concurrently ix'
            $results = Get-InvalidIndex | Invoke-SafeIndexRebuild
            $results.Name, "$($results.Outcome)" | Should -Be 'ix_ccnew', 'LeftoverRemoved'
            Get-InvalidIndex | Should -BeNullOrEmpty
        }

        It 'takes settings, and runs as a job' {
            "$((Invoke-SafeIndexRebuild ix -MaintenanceWorkMem 8MB -ParallelWorkers 0 -AsJob | Receive-Job -Wait -AutoRemoveJob).Outcome)" | Should -Be 'Rebuilt'
        }
    }

    Context '-MinimumBloatPercent' {
        It 'passes over what is not empty enough, and says why' {
            $result = Invoke-SafeIndexRebuild ix -MinimumBloatPercent 90
            "$($result.Outcome)" | Should -Be 'Skipped'
            $result.Reason | Should -BeLike '*by estimate: less than 90%*'
            $result.EstimatedBloatPercent | Should -BeLessThan 90
        }
    }

    Context '-WhatIf' {
        It 'prints the plan and changes nothing' {
            Add-Leftover 'reindex index concurrently ix'
            $run = Invoke-TestProcess "Import-Module '$ManifestPath'; Invoke-SafeIndexRebuild ix -Session '$(Get-TestUri)' -WhatIf"
            $run.Output | Should -Match '(?s)DROP INDEX CONCURRENTLY IF EXISTS public\.ix_ccnew.*REINDEX INDEX CONCURRENTLY public\.ix'
            $run.ExitCode | Should -Be 0
            (Get-InvalidIndex).Name | Should -Be 'ix_ccnew'
            (Invoke-SafeIndexRebuild ix).Steps | Should -HaveCount 2
        }
    }

    Context 'What goes wrong' {
        It 'is told by its id: <Id>' -ForEach @(
            @{ Id = 'NothingNamed'; Category = 'InvalidArgument'; Parameters = @{}; Text = '*-Name*-Table*-Schema*' }
            @{ Id = 'IndexNotFound'; Category = 'ObjectNotFound'; Parameters = @{ Name = 'orders_pke' }; Text = '*Did you mean public.orders_pkey*' }
            @{ Id = 'TableNotFound'; Category = 'ObjectNotFound'; Parameters = @{ Table = 'nothing' }; Text = '*nothing*' }
            @{ Id = 'SchemaNotFound'; Category = 'ObjectNotFound'; Parameters = @{ Schema = 'nowhere' }; Text = '*nowhere*' }
        ) {
            $failure = { Invoke-SafeIndexRebuild @Parameters } | Should -Throw -PassThru -ErrorId "$Id,MigrationSafety.Module.Commands.InvokeSafeIndexRebuildCommand"
            "$($failure.CategoryInfo.Category)" | Should -Be $Category
            "$($failure.Exception.Message) $($failure.ErrorDetails.RecommendedAction)" | Should -BeLike $Text
        }

        It 'is finished by the same command after kill -9 of the client' {
            $null = Invoke-Sql -Connection old 'begin isolation level repeatable read; select 1'
            $client = $null
            try {
                $client = Start-Process (Get-Process -Id $PID).Path -PassThru -ArgumentList '-NoProfile', '-NonInteractive', '-Command', "`"Import-Module '$ManifestPath'; Invoke-SafeIndexRebuild ix -Session '$(Get-TestUri)'`""
                Wait-Until { Get-SqlValue "select count(*) from pg_stat_progress_create_index where datname = '$TestDatabase' and phase = 'waiting for old snapshots'" }
                $client.Kill()
            }
            finally {
                if ($client -and -not $client.HasExited) { $client.Kill() }
                Close-Sql old
            }

            "$((Invoke-SafeIndexRebuild ix -WarningAction SilentlyContinue).Outcome)" | Should -BeIn 'Rebuilt', 'Skipped'
            Get-InvalidIndex | Should -BeNullOrEmpty
            Get-SqlValue "select indisvalid from pg_index where indexrelid = 'ix'::regclass" | Should -BeTrue
        }
    }

    Context 'The table' {
        It 'shows name, outcome and sizes' {
            $text = Invoke-SafeIndexRebuild ix | Format-Table | Out-String -Width 120
            $text | Should -Match 'ix\s.*Rebuilt\s.*\d+ kB\s+\d+ kB\s+~\d+%'
            $text | Should -Not -Match '#ERR'
        }
    }
}
