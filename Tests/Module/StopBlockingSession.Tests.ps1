BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $null = Invoke-Sql 'create table orders (id int primary key); insert into orders values (1)'
    $session = Connect-MigrationDatabase (Get-TestUri)

    # A root and somebody who waits for it; both are gone when the test closes them.
    function Start-Wait([string] $Setting = 'select 1', [switch] $Busy) {
        $script:root = (Invoke-Sql -Connection root "begin; lock table orders; $Setting; select pg_backend_pid() as pid" | Select-Object -Last 1).pid
        if ($Busy) { $null = Invoke-Sql -Connection root 'select pg_sleep(600)' -Background }
        $script:reader = (Invoke-Sql -Connection reader 'select * from orders' -Background).pid
        Wait-Until { (Get-SqlValue "select count(*) from pg_locks where pid = $reader and not granted") -gt 0 }
        if ($Busy) { Wait-Until { (Get-SqlValue "select count(*) from pg_stat_activity where pid = $root and query like '%pg_sleep%' and state = 'active'") -gt 0 } }
    }
    function Get-Own { Get-BlockingLock | Where-Object Database -EQ $TestDatabase }
}

AfterAll {
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase
}

Describe 'Stop-BlockingSession' {
    AfterEach {
        foreach ($name in 'reader', 'root') { try { Close-Sql $name } catch { Write-Verbose "$_" } }
    }

    It 'shows who would be stopped and does nothing with -WhatIf' {
        Start-Wait
        Get-Own | Stop-BlockingSession -Mode Terminate -WhatIf | Should -BeNullOrEmpty
        (Get-Own).Pid | Should -Be $root, $reader
        $text = (Invoke-TestProcess "Import-Module '$ManifestPath'; `$null = Connect-MigrationDatabase '$(Get-TestUri)'; Get-BlockingLock -Pid $root | Stop-BlockingSession -Mode Terminate -WhatIf").Output -replace '\s+', ' '
        $text | Should -Match "Terminate.* on target .*pid $root \(user $($TestServer.User), application 'root', idle in transaction, transaction open for .*, select .*\); 1 session would be freed"
    }

    It 'says that cancelling does nothing for an idle transaction, and ends it where asked' {
        Start-Wait
        $result = Get-Own | Stop-BlockingSession -Confirm:$false -WarningAction SilentlyContinue
        $result.Outcome, $result.Pid | Should -Be 'NotStopped', $root
        $result.Note | Should -Match 'Terminate'
        $result = Get-Own | Stop-BlockingSession -Mode Escalate -Confirm:$false
        $result.Outcome, $result.FreedPid | Should -Be 'Freed', $reader
        $result.Statement | Should -Be "select pg_catalog.pg_terminate_backend($root)"
        Get-SqlValue "select count(*) from pg_stat_activity where pid = $root" | Should -Be 0
    }

    It 'cancels a statement that runs, by pid' {
        Start-Wait -Busy
        $result = Stop-BlockingSession -Pid $root -Confirm:$false
        $result.Outcome, $result.FreedPid | Should -Be 'Freed', $reader
        $result.Statement | Should -Be "select pg_catalog.pg_cancel_backend($root)"
        Get-SqlValue "select count(*) from pg_stat_activity where pid = $root" | Should -Be 1
    }

    It 'leaves a session alone that is not the one which was listed' {
        Start-Wait
        $row = Get-Own | Select-Object -First 1
        $made = [MigrationSafety.BlockingLock] @{ Pid = $root; BackendStart = $row.BackendStart.AddSeconds(-5); Server = $row.Server; Port = $row.Port; Timestamp = $row.Timestamp }
        { $made | Stop-BlockingSession -Mode Terminate -Confirm:$false } | Should -Throw -ErrorId 'SessionReplaced,*'
        Get-SqlValue "select count(*) from pg_stat_activity where pid = $root" | Should -Be 1
    }

    It 'takes rows from a job or a file, on their own server alone' {
        Start-Wait
        $rows = [System.Management.Automation.PSSerializer]::Deserialize([System.Management.Automation.PSSerializer]::Serialize(@(Get-Own)))
        $rows[0].Pid | Should -Be $root
        $elsewhere = [System.Management.Automation.PSSerializer]::Deserialize([System.Management.Automation.PSSerializer]::Serialize($rows[0]))
        $elsewhere.Port = 1
        { $elsewhere | Stop-BlockingSession -Mode Terminate -Confirm:$false } | Should -Throw -ErrorId 'OtherServer,*'
        { Get-Item / | Stop-BlockingSession -Mode Terminate -Confirm:$false } | Should -Throw -ErrorId 'NoBlockingLock,*'
        $text = [System.Management.Automation.PSSerializer]::Deserialize([System.Management.Automation.PSSerializer]::Serialize($rows[0]))
        $text.BackendStart = "$($text.BackendStart)"
        { $text | Stop-BlockingSession -Mode Terminate -Confirm:$false } | Should -Throw -ErrorId 'BackendStartLost,*'
        $job = Start-Job -ArgumentList $ManifestPath, (Get-TestUri), $root { Import-Module $args[0]; Get-BlockingLock -Session $args[1] -Pid $args[2] | Where-Object Depth -eq 0 }
        $rows = @($job | Receive-Job -Wait -AutoRemoveJob)
        $rows[0].BackendStart.UtcTicks | Should -Be (Get-Own | Select-Object -First 1).BackendStart.UtcTicks
        $result = $rows | Stop-BlockingSession -Mode Terminate -Confirm:$false
        $result.Outcome, $result.Ended, $result.FreedPid | Should -Be 'Freed', $true, $reader
    }

    It 'goes to the session in which the row was listed' {
        Start-Wait
        $other = Connect-MigrationDatabase (Get-TestUri 'postgres')
        try {
            $result = Get-BlockingLock -Session $session -Pid $root | Stop-BlockingSession -Mode Terminate -Confirm:$false
            $result.Outcome, $result.Database | Should -Be 'Freed', $TestDatabase
        }
        finally { $other | Disconnect-MigrationDatabase; $null = Connect-MigrationDatabase (Get-TestUri) }
    }

    It 'asks, and where nobody can answer does nothing' {
        Start-Wait
        $run = Invoke-TestProcess "`$ErrorActionPreference = 'Stop'; Import-Module '$ManifestPath'; Stop-BlockingSession -Session '$(Get-TestUri)' -Pid $root -Mode Terminate"
        $run.ExitCode | Should -Not -Be 0
        Get-SqlValue "select count(*) from pg_stat_activity where pid = $root" | Should -Be 1
    }

    It 'has a table that fits 80 columns' {
        Start-Wait
        $text = Get-Own | Stop-BlockingSession -Confirm:$false -WarningAction SilentlyContinue | Format-Table | Out-String -Width 80
        (($text -split '\r?\n') | Measure-Object -Property Length -Maximum).Maximum | Should -BeLessOrEqual 80
        $text | Should -Match "(?m)^$root\s+NotStopped\s+no\s+0\s"
        $text | Should -Match '-Mode'
        $text | Should -Not -Match '#ERR'
    }

    It 'does not touch operations of this module without -Force' {
        Start-Wait "set application_name = 'MigrationSafety/indexbuild'"
        $result = Get-Own | Stop-BlockingSession -Mode Terminate -Confirm:$false -WarningAction SilentlyContinue
        $result.Outcome | Should -Be 'NotStopped'
        $result.Note | Should -Match 'session of this module.*-Force'
        (Get-Own | Stop-BlockingSession -Mode Terminate -Force -Confirm:$false).Outcome | Should -Be 'Freed'
    }

    It 'says how a prepared transaction ends, and ends it where asked' {
        $gid = "stop_$TestDatabase"
        $null = Invoke-Sql "begin; lock table orders; prepare transaction '$gid'"
        $script:reader = (Invoke-Sql -Connection reader 'select * from orders' -Background).pid
        Wait-Until { (Get-SqlValue "select count(*) from pg_locks where pid = $reader and not granted") -gt 0 }
        $row = Get-BlockingLock -RootOnly | Where-Object Gid -EQ $gid
        ($row | Stop-BlockingSession -Mode Terminate -Confirm:$false -WarningAction SilentlyContinue).Note | Should -Match "ROLLBACK PREPARED '$gid'"
        $result = $row | Stop-BlockingSession -RollbackPrepared -Confirm:$false
        $result.Outcome, $result.FreedPid | Should -Be 'Freed', $reader
        Get-SqlValue "select count(*) from pg_prepared_xacts where gid = '$gid'" | Should -Be 0
    }
}
