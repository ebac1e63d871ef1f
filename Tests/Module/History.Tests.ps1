BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $null = Invoke-Sql 'create table orders (id bigint primary key, tier text, n int); insert into orders select i from generate_series(1, 20000) i; create table items (id bigint primary key, a int, b int)'
    $session = Connect-MigrationDatabase (Get-TestUri)
    function Test-Log { Get-SqlValue "select to_regclass('migration_safety.operation') is not null" }
}

AfterAll {
    Get-Job | Remove-Job -Force
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase
}

Describe 'Get-MigrationHistory' {
    It 'finds nothing, and makes nothing, where nothing was done' {
        Get-MigrationHistory | Should -BeNullOrEmpty
        Invoke-SafeIndexBuild orders tier -WhatIf 6>&1 | Should -BeNullOrEmpty
        Start-Backfill orders @{ tier = "'a'" } -WhatIf 6>&1 | Should -BeNullOrEmpty
        Test-Log | Should -BeFalse
    }

    It 'shows what was done, oldest first' {
        $index = Invoke-SafeIndexBuild orders tier
        $null = Start-Backfill orders @{ tier = "'a'" } -AsJob | Receive-Job -Wait -AutoRemoveJob
        { Invoke-SafeIndexBuild orders tier -Unique -Name unique_tier } | Should -Throw -ErrorId 'DuplicateKey,*'

        $history = Get-MigrationHistory
        $history | Should -BeOfType MigrationSafety.MigrationOperation
        $history.Operation | Should -Be 'IndexBuild', 'Backfill', 'IndexBuild'
        $history.Outcome | Should -Be 'Succeeded', 'Succeeded', 'Failed'
        $history.Id | Should -Be 1, 2, 3
        $history[0].Steps.Sql | Should -Be $index.Steps.Sql
        $history[1].Rows | Should -Be 20000
        ($history[1].Samples | Measure-Object Rows -Sum).Sum | Should -Be 20000
        $history[2].ErrorId, $history[2].SqlState | Should -Be 'DuplicateKey', '23505'
        $history[0].Server, $history[0].Port, $history[0].Database | Should -Be $TestServer.Host, $TestServer.Port, $TestDatabase
        $history[0].SystemUser | Should -Be ([Environment]::UserName)
        $history[0].Application | Should -BeLike 'MigrationSafety *, *'
    }

    It 'picks by -<Name>' -ForEach @(
        @{ Name = 'Table'; Parameters = @{ Table = 'orders' }; Found = 1, 2, 3 }
        @{ Name = 'Table, which is gone'; Parameters = @{ Table = 'public.items' }; Found = @() }
        @{ Name = 'Operation'; Parameters = @{ Operation = 'index*' }; Found = 1, 3 }
        @{ Name = 'Operation of two kinds'; Parameters = @{ Operation = 'Backfill', 'IndexDrop' }; Found = 2 }
        @{ Name = 'Operation, where % is no wildcard'; Parameters = @{ Operation = '%*' }; Found = @() }
        @{ Name = 'Outcome'; Parameters = @{ Outcome = 'Failed', 'Interrupted' }; Found = 3 }
        @{ Name = 'Since'; Parameters = @{ Since = [datetime]::Now.AddHours(1) }; Found = @() }
        @{ Name = 'Until'; Parameters = @{ Until = [datetime]::Now.AddHours(1) }; Found = 1, 2, 3 }
        @{ Name = 'Last'; Parameters = @{ Last = 2 }; Found = 2, 3 }
        @{ Name = 'Last of an outcome'; Parameters = @{ Last = 1; Outcome = 'Succeeded' }; Found = 2 }
        @{ Name = 'Id'; Parameters = @{ Id = 3, 1 }; Found = 1, 3 }
        @{ Name = 'Id of another outcome'; Parameters = @{ Id = 3, 1; Outcome = 'Failed' }; Found = 3 }
    ) {
        @((Get-MigrationHistory @Parameters).Id) | Should -Be $Found
    }

    It 'is an error where what is named is not there: <Id>, <Message>' -ForEach @(
        @{ Id = 'OperationNotFound'; Message = '*no entry 99, 98*'; Found = 1; Parameters = @{ Id = 99, 1, 98 } }
        @{ Id = 'OperationUnknown'; Message = 'IndexBuld is no*'; Found = 0; Parameters = @{ Operation = 'IndexBuld' } }
        @{ Id = 'TableNotFound'; Message = '*no table nothing*'; Found = 0; Parameters = @{ Table = 'nothing' } }
        @{ Id = 'TableKindNotSupported'; Message = '*is an index*'; Found = 0; Parameters = @{ Table = 'orders_pkey' } }
    ) {
        $failures = $null
        Get-MigrationHistory @Parameters -ErrorAction SilentlyContinue -ErrorVariable failures | Should -HaveCount $Found
        $failures | Should -HaveCount 1
        $failures[0].FullyQualifiedErrorId | Should -BeLike "$Id,*"
        $failures[0].ErrorDetails.Message | Should -BeLike $Message
    }

    It 'says Running of what runs and Interrupted of what was killed' {
        $null = Invoke-Sql -Connection writer 'begin; update items set a = 1; insert into items values (0)'
        $script = Join-Path ([IO.Path]::GetTempPath()) "$([guid]::NewGuid()).ps1"
        Set-Content $script "Import-Module '$ManifestPath'; Invoke-SafeIndexBuild items a -Session '$(Get-TestUri)'"
        $client = Start-Process (Get-Process -Id $PID).Path -ArgumentList '-NoProfile', '-NonInteractive', '-File', $script -PassThru
        try {
            Wait-Until { Get-MigrationHistory items | Where-Object { $_.Outcome -eq 'Running' -and $_.Steps.StartedAt } } 'the build to be recorded with its step'
            (Get-MigrationHistory -Outcome Running).FinishedAt | Should -BeNullOrEmpty
            $client.Kill()
            Wait-Until { Get-MigrationHistory items -Outcome Interrupted } 'the death of the client to be noticed'
        }
        finally {
            if (-not $client.HasExited) { $client.Kill() }
            Remove-Item $script
        }
        $killed = Get-MigrationHistory items
        $killed.FinishedAt | Should -BeNullOrEmpty
        $killed.Steps[0].State | Should -Be 'Failed'
        Close-Sql writer
        # What it may have left is taken back too.
        ($killed | New-RollbackScript).Text | Should -BeLike '*DROP INDEX CONCURRENTLY IF EXISTS public.items_a_idx*'
        (Invoke-SafeIndexBuild items a).Outcome | Should -BeIn 'Built', 'Rebuilt', 'AlreadyValid'
    }

    It 'says Cancelled of a job that was stopped' {
        $null = Invoke-Sql -Connection writer 'begin; update items set a = 1; insert into items values (0)'
        $job = Invoke-SafeIndexBuild items b -AsJob
        Wait-Until { Get-MigrationHistory items -Outcome Running } 'the build to be recorded'
        Stop-Job $job
        (Get-MigrationHistory items -Last 1).Outcome | Should -Be 'Cancelled'
        Close-Sql writer
    }

    It 'goes through New-RollbackScript, as the results did' {
        $rollback = Get-MigrationHistory -Id 1, 2 | New-RollbackScript
        $rollback | Should -HaveCount 1
        $rollback.Statements.Reversal | Should -Contain 'DROP INDEX CONCURRENTLY IF EXISTS public.orders_tier_idx'
        $rollback.Statements[0].Statement | Should -BeLike '*update*' -Because 'the backfill was last'
    }

    It 'makes the same script in whatever order, and how often, operations come' {
        $forward = (Get-MigrationHistory -Id 1, 2 | New-RollbackScript).Text
        (@(Get-MigrationHistory -Id 2) + @(Get-MigrationHistory -Id 1) + @(Get-MigrationHistory -Id 2) | New-RollbackScript).Text | Should -BeExactly $forward
    }

    It 'keeps servers on one host apart' {
        $operations = @(Get-MigrationHistory -Id 1) + @(Get-MigrationHistory -Id 2)
        # As if it had come from the server on the next port.
        [MigrationSafety.MigrationOperation].GetProperty('Port').SetValue($operations[1], $operations[1].Port + 1)
        $operations | New-RollbackScript | Should -HaveCount 2
    }

    It 'finds the entry of a result, and of each alone' {
        $index = Invoke-SafeIndexBuild orders n
        $fill = Start-Backfill orders @{ n = '1' } -Where 'n is null'
        $drop = Invoke-SafeIndexDrop orders_n_idx -Confirm:$false
        $failed = Invoke-SafeIndexBuild orders n -Unique -Name unique_n -ErrorAction SilentlyContinue
        $found = $failed, $drop, $index, $fill | Get-MigrationHistory -ThrottleLimit 1
        $found.Operation | Should -Be 'IndexBuild', 'IndexDrop', 'IndexBuild', 'Backfill'
        $found.Outcome | Should -Be 'Failed', 'Succeeded', 'Succeeded', 'Succeeded'
        $found.Id | Should -Be $failed.OperationId, $drop.OperationId, $index.OperationId, $fill.OperationId
        ($found[3] | Get-MigrationHistory).Id | Should -Be $fill.OperationId
        { $index | Get-MigrationHistory -Id 999 } | Should -Throw -ErrorId 'OperationNotFound,*'
    }

    It 'stands for its session in a pipeline, and takes sessions from one' {
        (Get-MigrationHistory -Id 2 | Get-MigrationHistory -Id 1).Id | Should -Be 1
        (Get-TestUri), $session | Get-MigrationHistory -Id 1 | Should -HaveCount 2
    }

    It 'completes kinds of operation' {
        ([System.Management.Automation.CommandCompletion]::CompleteInput('Get-MigrationHistory -Operation indexb', 36, $null)).CompletionMatches.CompletionText | Should -Be 'IndexBuild'
    }

    It 'has a table within 80 columns' {
        $text = Get-MigrationHistory | Format-Table | Out-String -Width 80
        (($text -split '\r?\n') | Measure-Object -Property Length -Maximum).Maximum | Should -BeLessOrEqual 80
        $text | Should -Match 'Succeeded +public\.orders: Build index'
        $text | Should -Not -Match '#ERR'
    }
}

Describe 'Export-MigrationReport' {
    BeforeAll { $folder = Join-Path ([IO.Path]::GetTempPath()) "report $([guid]::NewGuid()) [1]" }

    AfterAll { Remove-Item -LiteralPath $folder -Recurse -ErrorAction Ignore }

    It 'writes one file, and makes its folder' {
        $file = Get-MigrationHistory -Id 1, 2 | Export-MigrationReport (Join-Path $folder 'change.html') -Title 'Change <1>' -PassThru
        $file | Should -BeOfType System.IO.FileInfo
        $file.FullName | Should -Be (Join-Path $folder 'change.html')
        $text = [IO.File]::ReadAllText($file.FullName)
        $text | Should -BeLike '<!DOCTYPE html>*</html>'
        $text | Should -BeLike '*<title>Change &lt;1&gt;</title>*'
        $text | Should -BeLike '*CREATE INDEX CONCURRENTLY orders_tier_idx*Time of a batch*DROP INDEX CONCURRENTLY IF EXISTS public.orders_tier_idx*'
        [IO.File]::ReadAllBytes($file.FullName)[0] | Should -Be ([byte][char] '<')
    }

    It 'leaves a file that exists, unless it is forced' {
        $path = Join-Path $folder 'change.html'
        $before = [IO.File]::ReadAllText($path)
        { Get-MigrationHistory -Id 1 | Export-MigrationReport $path } | Should -Throw -ErrorId 'FileExists,*'
        Get-MigrationHistory -Id 1 | Export-MigrationReport $path -Force -WhatIf 6>&1 | Should -BeNullOrEmpty
        [IO.File]::ReadAllText($path) | Should -Be $before
        Get-MigrationHistory -Id 1 | Export-MigrationReport $path -Force | Should -BeNullOrEmpty
        [IO.File]::ReadAllText($path) | Should -Not -Be $before
    }

    It 'takes an array, and a path as it is written' {
        $path = Join-Path $folder '[2].html'
        Export-MigrationReport -LiteralPath $path -InputObject (Get-MigrationHistory -Id 1, 2)
        [IO.File]::ReadAllText($path) | Should -BeLike '*All 2 succeeded*'
    }

    It 'takes what a job and a file return, whole' {
        $operations = Get-MigrationHistory -Id 1, 2
        $paths = 'here', 'job', 'file' | ForEach-Object { Join-Path $folder "$_.html" }
        $operations | Export-MigrationReport $paths[0]
        Start-Job -ArgumentList $ManifestPath, (Get-TestUri) { Import-Module $args[0]; Get-MigrationHistory -Id 1, 2 -Session $args[1] } | Receive-Job -Wait -AutoRemoveJob | Export-MigrationReport $paths[1]
        $operations | Export-Clixml -LiteralPath "$folder/history.xml"
        Import-Clixml -LiteralPath "$folder/history.xml" | Export-MigrationReport $paths[2]
        $reports = $paths | ForEach-Object { [IO.File]::ReadAllText($_) -replace '(?s)<footer.*' }
        $reports[1] | Should -BeExactly $reports[0]
        $reports[2] | Should -BeExactly $reports[0]
        (Import-Clixml -LiteralPath "$folder/history.xml" | New-RollbackScript).Statements.Reversal | Should -Contain 'DROP INDEX CONCURRENTLY IF EXISTS public.orders_tier_idx'

        $cut = Import-Clixml -LiteralPath "$folder/history.xml" | Select-Object -First 1
        $cut.Steps = @('Build index orders_tier_idx')
        { $cut | Export-MigrationReport $paths[2] -Force } | Should -Throw -ErrorId 'InputNotUnderstood,*'
    }

    It 'is an error where there is nothing to report, or something else: <Id>' -ForEach @(
        @{ Id = 'NothingToReport'; Work = { Get-MigrationHistory -Last 1 -Operation IndexRebuild | Export-MigrationReport "$folder/none.html" } }
        @{ Id = 'InputNotUnderstood'; Work = { 'change' | Export-MigrationReport "$folder/none.html" } }
        @{ Id = 'PathIsNoFile'; Work = { Get-MigrationHistory -Id 1 | Export-MigrationReport env:none.html } }
        @{ Id = 'PathIsFolder'; Work = { Get-MigrationHistory -Id 1 | Export-MigrationReport $folder } }
        @{ Id = 'OutputNotWritten'; Work = { Get-MigrationHistory -Id 1 | Export-MigrationReport "$folder/change.html/none.html" } }
    ) {
        $Work | Should -Throw -ErrorId "$Id,MigrationSafety.Module.Commands.ExportMigrationReportCommand"
        Test-Path -LiteralPath "$folder/none.html", ([IO.Path]::GetFullPath('none.html')) | Should -Be $false, $false
    }
}
