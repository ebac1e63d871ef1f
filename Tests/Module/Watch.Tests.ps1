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

    It 'refuses an interval that makes no sense' {
        { Get-BlockingLock -Watch -Interval 10ms } | Should -Throw -ErrorId 'InvalidInterval,*'
        { Get-BlockingLock -Interval 10s } | Should -Throw -ErrorId 'InvalidInterval,*'
    }

    It 'draws over itself in a terminal, of any size, and leaves the last view' -Skip:(-not $hasTerminal) {
        if (Test-InterruptIgnored) {
            Set-ItResult -Skipped -Because 'this process ignores SIGINT, and so would the one it starts'
            return
        }

        $script = Join-Path $TestDrive 'watch.ps1'
        Set-Content -LiteralPath $script -Value @"
`$PSStyle.OutputRendering = 'Host'
Import-Module '$ManifestPath'
`$null = Connect-MigrationDatabase '$(Get-TestUri)'
Get-BlockingLock -Watch -Interval 100ms
"@
        $start = [System.Diagnostics.ProcessStartInfo]::new('script')
        # The leader of the terminal takes the Ctrl-C as a person's keyboard sends it.
        foreach ($argument in '-qfec', "stty rows 10 cols 90; exec '$((Get-Process -Id $PID).Path)' -NoProfile -File '$script'", '/dev/null') { $start.ArgumentList.Add($argument) }
        $start.RedirectStandardOutput = $start.RedirectStandardInput = $true
        $start.Environment['TERM'] = 'xterm-256color'
        $process = [System.Diagnostics.Process]::Start($start)
        try {
            $text = [System.Text.StringBuilder]::new()
            $buffer = [char[]]::new(4096)
            $frames = { [regex]::Matches("$text", '\e\[\?2026h\e\[H').Count }
            $read = $null
            $pump = {
                if (-not $read) { Set-Variable read $process.StandardOutput.ReadAsync($buffer, 0, $buffer.Length) -Scope 1 }
                if ($read.Wait(50)) { $count = $read.Result; $null = $text.Append($buffer, 0, $count); Set-Variable read $null -Scope 1; $count } else { -1 }
            }
            Wait-Until { $null = . $pump; (& $frames) -ge 3 } 'three drawings'
            $process.StandardInput.Write([char] 3)
            $process.StandardInput.Flush()
            Wait-Until { (. $pump) -eq 0 } 'the end of the process'
        }
        finally {
            if (-not $process.HasExited) { $process.Kill($true) }
            $process.Dispose()
        }

        "$text" | Should -Match '\e\[\?1049h'
        # The frames move the cursor home and clear what they do not write; none scrolls, none is higher than the terminal.
        foreach ($frame in [regex]::Matches("$text", '(?s)\e\[\?2026h(.*?)\e\[\?2026l')) {
            ($frame.Groups[1].Value -split "`r`n").Count | Should -BeLessOrEqual 10
            $frame.Groups[1].Value | Should -Match "$root\s"
        }
        $after = ("$text" -split '\e\[\?1049l')[-1]
        $after | Should -Match "$root\s+1\s"
        $after | Should -Match "└ $reader\s"
        $after | Should -Not -Match '\e\[\?2026h'
    }
}
