BeforeDiscovery {
    $hasTerminal = [bool] (Get-Command script -CommandType Application -ErrorAction Ignore) -and $IsLinux
}

BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $null = Invoke-Sql 'create table orders (id int primary key)'
    $null = Connect-MigrationDatabase (Get-TestUri)
    $root = (Invoke-Sql -Connection root 'begin; lock table orders; select pg_backend_pid() as pid').pid
    $reader = (Invoke-Sql -Connection reader 'select * from orders' -Background).pid
    Wait-Until { (Get-SqlValue "select count(*) from pg_locks where pid = $reader and not granted") -gt 0 }

    # What a command writes to a terminal of that size: until there are as many drawings and Ctrl-C ends it; without them until it ends by itself.
    function Get-TerminalText([string] $Command, [int] $Rows, [int] $Columns, [int] $Drawings) {
        $script = Join-Path $TestDrive 'watch.ps1'
        $typescript = Join-Path $TestDrive "$([guid]::NewGuid()).typescript"
        Set-Content -LiteralPath $script -Value @"
`$PSStyle.OutputRendering = 'Host'
Import-Module '$ManifestPath'
`$null = Connect-MigrationDatabase '$(Get-TestUri)'
$Command
"@
        $start = [System.Diagnostics.ProcessStartInfo]::new('script')
        # The leader of the terminal takes the Ctrl-C as a person's keyboard sends it.
        foreach ($argument in '-qfec', "stty rows $Rows cols $Columns; exec '$((Get-Process -Id $PID).Path)' -NoProfile -File '$script'", $typescript) { $start.ArgumentList.Add($argument) }
        $start.RedirectStandardOutput = $start.RedirectStandardInput = $true
        $start.Environment['TERM'] = 'xterm-256color'
        $process = [System.Diagnostics.Process]::Start($start)
        try {
            $null = $process.StandardOutput.ReadToEndAsync()
            if ($Drawings) {
                Wait-Until { [regex]::Matches("$(Get-Content -LiteralPath $typescript -Raw -ErrorAction Ignore)", '\e\[\?2026l').Count -ge $Drawings } "$Drawings drawings"
                $process.StandardInput.Write([char] 3)
                $process.StandardInput.Flush()
            }
            Wait-Until { $process.HasExited } 'the end of the process'
        }
        finally {
            if (-not $process.HasExited) { $process.Kill($true) }
            $process.Dispose()
        }
        Get-Content -LiteralPath $typescript -Raw
    }
}

AfterAll {
    foreach ($name in 'reader', 'root') { Close-Sql $name }
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase
}

Describe '-Watch' {
    It 'gives a pipe the objects of each look with its time, and ends with the pipe' {
        $rows = Get-BlockingLock -Watch -Interval 100ms | Where-Object Database -EQ $TestDatabase | Select-Object -First 6
        $rows.Pid | Should -Be $root, $reader, $root, $reader, $root, $reader
        $rows[0].Timestamp | Should -BeOfType datetimeoffset
        $rows[1].Timestamp | Should -Be $rows[0].Timestamp
        ($rows.Timestamp | Select-Object -Unique).Count | Should -Be 3
        Get-ModuleActivity | Should -BeNullOrEmpty
    }

    It 'gives a variable objects too, and stops at once' {
        $powershell = New-TestPowerShell
        try {
            $null = $powershell.AddScript('param($uri) $x = Get-BlockingLock -Session $uri -Watch -Interval 1h -Debug').AddArgument((Get-TestUri))
            $running = $powershell.BeginInvoke()
            Wait-Until { $powershell.Streams.Debug.Count -gt 0 -and -not (Get-ModuleActivity) }
            $clock = [System.Diagnostics.Stopwatch]::StartNew()
            $powershell.Stop()
            $clock.Elapsed.TotalSeconds | Should -BeLessThan 20
            $running.IsCompleted | Should -BeTrue
        }
        finally { $powershell.Dispose() }
    }

    It 'says what is the matter once and goes on with the others' {
        $other = New-TestDatabase -Another
        $rows = [System.Collections.Generic.List[object]]::new()
        try {
            $powershell = New-TestPowerShell
            $null = $powershell.AddScript('param($a, $b, $rows) $a, $b | Get-BlockingLock -Watch -Interval 100ms -ErrorAction Continue | ForEach-Object { $rows.Add($_) }').AddArgument((Get-TestUri)).AddArgument((Get-TestUri $other)).AddArgument($rows)
            $null = $powershell.BeginInvoke()
            Wait-Until { $rows.Count -ge 8 }
            Remove-TestDatabase $other
            Wait-Until { $powershell.Streams.Error.Count -gt 0 -or $powershell.InvocationStateInfo.State -ne 'Running' }
            $powershell.InvocationStateInfo.Reason | Should -BeNullOrEmpty
            $before = $rows.Count
            Wait-Until { $rows.Count -gt $before + 20 }
            # Enumerated, it would wait for the end.
            $powershell.Streams.Error.Count | Should -Be 1
            $powershell.Streams.Error[0].FullyQualifiedErrorId | Should -Be 'DatabaseNotFound,MigrationSafety.Module.Commands.GetBlockingLockCommand'
            $powershell.Stop()
        }
        finally { $powershell.Dispose() }
    }

    It 'waits out a connection that is lost' {
        $rows = [System.Collections.Generic.List[object]]::new()
        $powershell = New-TestPowerShell
        try {
            $null = $powershell.AddScript('param($uri, $rows) Get-BlockingLock -Session $uri -Watch -Interval 100ms -ErrorAction Continue | ForEach-Object { $rows.Add($_) }').AddArgument((Get-TestUri)).AddArgument($rows)
            $null = $powershell.BeginInvoke()
            Wait-Until {
                $null = Get-SqlValue "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and application_name like 'MigrationSafety/%'"
                $powershell.Streams.Error.Count -gt 0
            } 'a look to fail'
            $powershell.Streams.Error[0].CategoryInfo.Category | Should -Be ConnectionError
            $before = $rows.Count
            Wait-Until { $rows.Count -gt $before + 8 } 'looks after it'
            $powershell.Stop()
        }
        finally { $powershell.Dispose() }
    }

    It 'ends where waiting mends nothing, and goes on with the others' {
        { Get-MigrationProgress nothing -Watch } | Should -Throw -ErrorId 'TableNotFound,*'
        { Get-BlockingLock nothing -Watch } | Should -Throw -ErrorId 'TableNotFound,*'
        $other = New-TestDatabase -Another
        try {
            $rows = (Get-TestUri $other), (Get-TestUri) | Get-BlockingLock orders -Watch -Interval 100ms -ErrorAction SilentlyContinue -ErrorVariable said | Select-Object -First 6
            $rows.Pid | Should -Be $root, $reader, $root, $reader, $root, $reader
            $said | Should -HaveCount 1
            $said[0].FullyQualifiedErrorId | Should -BeLike 'TableNotFound,*'
        }
        finally { Remove-TestDatabase $other }
    }

    It 'goes on with the others while one does not answer' {
        $other = New-TestDatabase -Another
        $rows = [System.Collections.Concurrent.ConcurrentBag[object]]::new()
        $powershell = New-TestPowerShell
        try {
            $null = $powershell.AddScript('param($uris, $rows) $uris | Get-BlockingLock -Watch -Interval 100ms | ForEach-Object { $rows.Add($_) }').AddArgument(@((Get-TestUri $other), (Get-TestUri))).AddArgument($rows)
            Suspend-BlockingLock $other
            $null = $powershell.BeginInvoke()
            # One that waited for the other would take ten seconds a look.
            Wait-Until { @($rows.Timestamp | Select-Object -Unique).Count -ge 15 } 'looks at the one that answers'
        }
        finally {
            Resume-BlockingLock $other
            $powershell.Stop()
            $powershell.Dispose()
            Remove-TestDatabase $other
        }
        Get-ModuleActivity $other | Should -BeNullOrEmpty
    }

    It 'refuses an interval that makes no sense' {
        { Get-BlockingLock -Watch -Interval 10ms } | Should -Throw -ErrorId 'InvalidInterval,*'
        { Get-BlockingLock -Watch -Interval 99d } | Should -Throw -ErrorId 'InvalidInterval,*'
        { Get-BlockingLock -Interval 10s } | Should -Throw -ErrorId 'InvalidInterval,*'
    }

    It 'draws over itself in a terminal, of any size, and leaves the last view' -Skip:(-not $hasTerminal) {
        if (Test-InterruptIgnored) {
            Set-ItResult -Skipped -Because 'this process ignores SIGINT, and so would the one it starts'
            return
        }

        $text = Get-TerminalText 'Get-BlockingLock -Watch -Interval 100ms' 10 90 -Drawings 3
        $text | Should -Match '\e\[\?1049h'
        # The frames move the cursor home and clear what they do not write; none scrolls, none is higher than the terminal.
        foreach ($frame in [regex]::Matches($text, '(?s)\e\[\?2026h(.*?)\e\[\?2026l')) {
            ($frame.Groups[1].Value -split "`r`n").Count | Should -BeLessOrEqual 10
            $frame.Groups[1].Value | Should -Match "$root\s"
        }
        $after = ($text -split '\e\[\?1049l')[-1]
        $after | Should -Match "$root\s+1\s"
        $after | Should -Match "└ $reader\s"
        $after | Should -Not -Match '\e\[\?2026h'
    }

    It 'shows five operations in a terminal of 80 x 24, interrupted ones last' -Skip:(-not $hasTerminal) {
        if (Test-InterruptIgnored) {
            Set-ItResult -Skipped -Because 'this process ignores SIGINT, and so would the one it starts'
            return
        }

        $names = 1..4 | ForEach-Object { "watched_$_" }
        try {
            $null = Invoke-Sql (($names | ForEach-Object { "create table $_ (id int)" }) -join ';')
            foreach ($name in 'halted', 'watched_5') { $null = Invoke-Sql "create table $name (id bigint primary key, tier text); insert into $name select i from generate_series(1, 20000) i" }
            $null = Invoke-Sql -Connection writer "begin; update halted set id = id where id = 15000; update watched_5 set id = id where id = 15000; $(($names | ForEach-Object { "insert into $_ values (1)" }) -join ';')"
            # The server tells them in the order in which they began.
            $halted, $null = foreach ($name in 'halted', 'watched_5') {
                Start-Backfill $name @{ tier = "'a'" } -AsJob -TargetBatchTime 20ms
                Wait-Until { (Get-MigrationProgress $name).Done -gt 0 } 'the backfill to be under way'
            }
            Stop-Job $halted
            Wait-Until { (Get-MigrationProgress halted).Phase -eq 'interrupted' } 'the backfill to be interrupted'
            foreach ($name in $names) { $null = Invoke-Sql -Connection $name "create index concurrently on $name (id)" -Background }
            Wait-Until { @(Get-MigrationProgress | Where-Object Target -In $names.ForEach({ "public.$_" }) | Where-Object BlockedBy).Count -eq 4 } 'the builds to wait'
            $text = Get-TerminalText 'Get-MigrationProgress -Watch -Interval 100ms' 24 80 -Drawings 3
        }
        finally {
            foreach ($name in @('writer') + $names) { Close-Sql $name }
            Get-Job | Remove-Job -Force
        }

        foreach ($frame in [regex]::Matches($text, '(?s)\e\[\?2026h(.*?)\e\[\?2026l')) {
            $lines = $frame.Groups[1].Value -split "`r`n"
            $lines.Count | Should -BeLessOrEqual 24
            $shown = @($lines | Select-String 'watched_\d|halted' | ForEach-Object { $_.Matches[0].Value })
            $shown | Sort-Object -Unique | Should -Be (@('halted') + $names + 'watched_5')
            $shown[-1] | Should -Be halted
            # As much of it in full as there is room for.
            $lines -match 'so far' | Should -Not -BeNullOrEmpty
            $lines -match '^    pid \d+, waits for transaction' | Should -Not -BeNullOrEmpty
        }
    }

    It 'leaves room for what it finds, however many sessions fail' -Skip:(-not $hasTerminal) {
        if (Test-InterruptIgnored) {
            Set-ItResult -Skipped -Because 'this process ignores SIGINT, and so would the one it starts'
            return
        }

        $other = New-TestDatabase -Another
        try {
            $text = Get-TerminalText "Get-BlockingLock orders -Session (@(1..10 | ForEach-Object { Connect-MigrationDatabase '$(Get-TestUri $other)' }) + (Connect-MigrationDatabase '$(Get-TestUri)')) -Watch -Interval 100ms" 24 80 -Drawings 2
        }
        finally { Remove-TestDatabase $other }
        foreach ($frame in [regex]::Matches($text, '(?s)\e\[\?2026h(.*?)\e\[\?2026l')) {
            $lines = $frame.Groups[1].Value -split "`r`n"
            $lines.Count | Should -BeLessOrEqual 24
            @($lines -match 'There is no table').Count | Should -Be 7
            $lines -match 'and 3 more' | Should -HaveCount 1
            $lines -match "$root\s" | Should -Not -BeNullOrEmpty
        }
    }

    It 'leaves the terminal with the error that ended it' -Skip:(-not $hasTerminal) {
        $after = ((Get-TerminalText 'Get-MigrationProgress nothing -Watch' 24 80) -split '\e\[\?1049l')[-1]
        $after -replace '\e\[[0-9;]*m' | Should -Match '\| There is no table nothing'
    }
}
