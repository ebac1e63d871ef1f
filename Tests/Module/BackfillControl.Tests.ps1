BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $session = Connect-MigrationDatabase (Get-TestUri)
    function Wait-Until([scriptblock] $Condition) {
        $until = [datetime]::UtcNow.AddSeconds(60)
        while (-not (& $Condition)) {
            if ([datetime]::UtcNow -gt $until) { throw "waited in vain for $Condition" }
            Start-Sleep -Milliseconds 50
        }
    }
}

AfterAll {
    Get-Job | Remove-Job -Force
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase
}

Describe 'Backfills from elsewhere' {
    BeforeEach {
        $null = Invoke-Sql @'
drop schema if exists migration_safety cascade;
drop table if exists orders;
create table orders (id bigint primary key, price int not null, tier text, total int);
insert into orders select i, i from generate_series(1, 20000) i
'@
    }

    It 'are listed, stopped, taken up by name alone and proved' {
        Get-Backfill | Should -BeNullOrEmpty
        $job = Start-Backfill orders @{ tier = "'s'" } -MaxRowsPerSecond 200 -MaxReplicationLag 1min, '64MB' -Window '00:00-23:59 UTC' -AsJob
        Wait-Until { (Get-Backfill).Done -gt 0 -or (Get-Backfill).WaitingFor }
        $running = Get-Backfill public.orders.*
        "$($running.State)", $running.Name, $running.Table, $running.Workers.Count | Should -Be 'Running', 'public.orders.tier', 'orders', 1
        { Remove-Backfill public.orders.tier -ErrorAction Stop } | Should -Throw -ErrorId 'BackfillRunning,*'
        $stopped = $running | Stop-Backfill
        "$($stopped.State)", $stopped.Workers.Count | Should -Be 'Paused', 0
        "$((Get-MigrationHistory -Operation BackfillStop).Outcome)" | Should -Be 'Succeeded'
        "$(($job | Receive-Job -Wait -WarningAction SilentlyContinue).Outcome)" | Should -Be 'Paused'
        Get-MigrationHistory -Operation Backfill | ForEach-Object { "$($_.Outcome) $($_.ErrorId)" } | Should -Be 'Cancelled BackfillStopped'
        { Remove-Backfill public.orders.tier -ErrorAction Stop } | Should -Throw -ErrorId 'BackfillUnfinished,*'
        (Test-Backfill public.orders.tier).Passed | Should -BeFalse

        $result = Get-Backfill -State Paused | Resume-Backfill -MaxRowsPerSecond 0 -Workers 2
        "$($result.Outcome)", $result.Resumed, $result.TotalRows | Should -Be 'Completed', $true, 20000
        # What was not given is as before.
        Get-SqlValue "select throttle->>'window' from migration_safety.backfill" | Should -Be '00:00-23:59 UTC'
        Get-SqlValue "select throttle->>'replication_lag_time' from migration_safety.backfill" | Should -Be '00:01:00'
        Get-SqlValue "select throttle->>'replication_lag_bytes' from migration_safety.backfill" | Should -Be 67108864
        Get-SqlValue "select throttle->>'rows_per_second' from migration_safety.backfill" | Should -BeNullOrEmpty
        $null = Invoke-Sql 'update orders set tier = null where id = 7'
        (Resume-Backfill public.orders.tier -Window $null).Rows | Should -Be 1
        Get-SqlValue "select throttle->>'window' from migration_safety.backfill" | Should -BeNullOrEmpty
        $test = Get-Backfill | Test-Backfill -Comparison All
        $test.Passed, $test.Matching, $test.Compared, $test.Different, $test.Rows | Should -Be $true, 0, 20000, 0, 20000
        # The size of a sample asks for one.
        (Test-Backfill public.orders.tier -SampleSize 20000).Compared | Should -BeGreaterThan 0
    }

    It 'that are done are removed with what is recorded, and nothing else' {
        $null = Start-Backfill orders @{ tier = "'s'" }
        Remove-Backfill public.orders.tier -WhatIf
        Get-Backfill | Should -HaveCount 1
        Get-Backfill | Remove-Backfill | Should -BeNullOrEmpty
        Get-Backfill | Should -BeNullOrEmpty
        $removal = Get-MigrationHistory -Operation BackfillRemoval
        "$($removal.Outcome)", $removal.Target, "$($removal.Steps[0].State)" | Should -Be 'Succeeded', 'public.orders', 'Done'
        Get-SqlValue "select count(*) from orders where tier = 's'" | Should -Be 20000
        foreach ($command in 'Get-Backfill', 'Stop-Backfill', 'Resume-Backfill', 'Remove-Backfill', 'Test-Backfill') {
            { & $command nothing -ErrorAction Stop } | Should -Throw -ErrorId 'BackfillNotFound,*' -Because $command
        }
        Get-Backfill noth* | Should -BeNullOrEmpty
    }

    It 'say who stopped them when the same command takes them up' {
        $job = Start-Backfill orders @{ tier = "'s'" } -MaxRowsPerSecond 200 -AsJob
        Wait-Until { (Get-Backfill).Done -gt 0 }
        "$((Stop-Backfill public.orders.tier).State)" | Should -Be 'Paused'
        $null = $job | Receive-Job -Wait -WarningAction SilentlyContinue
        (Start-Backfill orders @{ tier = "'s'" } -WarningVariable warned -WarningAction SilentlyContinue).TotalRows | Should -Be 20000
        "$warned" | Should -Match "^public.orders.tier was stopped \(Stop-Backfill\) by $($session.User) \($([Environment]::UserName) on $([Environment]::MachineName)\) at \d{4}-"
    }

    It 'show the numbers, and behind them the reason' {
        $job = Start-Backfill orders @{ tier = "'s'" } -MaxRowsPerSecond 500 -HealthQuery 'select count(*) < 1000 from orders where tier is not null' -AsJob
        Wait-Until { $job.StatusMessage -like '*paused*' }
        $job.StatusMessage | Should -Match '^[\d,]+ of about 20,000 rows, [\d,]+/s; paused: the health query says no'
        $job.Progress[-1].StatusDescription | Should -Be $job.StatusMessage
        Stop-Job $job
    }

    It 'say in a job which database they speak of' {
        $other = New-TestDatabase -Another
        try {
            $null = Invoke-Sql -Database $other 'create table orders (id bigint primary key, tier text); insert into orders select i from generate_series(1, 100) i'
            $job = $session, (Get-TestUri $other) | Start-Backfill orders @{ tier = "'s'" } -HealthQuery 'select false' -AsJob
            Wait-Until { $job.StatusMessage }
            $job.StatusMessage | Should -Match "/($TestDatabase|$other)\S*: "
            Stop-Job $job
        }
        finally { Remove-TestDatabase $other }
    }

    It 'changes nothing under -WhatIf' {
        $null = Start-Backfill orders @{ total = '1 / (id - 5)' } -MaxErrors 1 -WarningAction SilentlyContinue
        $before = Get-Backfill | ConvertTo-Json
        Stop-Backfill public.orders.total -WhatIf | Should -BeNullOrEmpty
        Resume-Backfill public.orders.total -WhatIf | Should -BeNullOrEmpty
        Remove-Backfill public.orders.total -WhatIf | Should -BeNullOrEmpty
        Get-Backfill | ConvertTo-Json | Should -Be $before
        Get-SqlValue 'select count(*) from orders where total is null' | Should -Be 1
    }

    It 'have the rows that were refused, which alone are tried again' {
        $null = Start-Backfill orders @{ total = '1 / (id - 5)' } -MaxErrors 1 -WarningAction SilentlyContinue
        $status = Get-Backfill -IncludeError
        "$($status.State)", $status.Errors | Should -Be 'CompletedWithErrors', 1
        "$($status.ErrorRows)" | Should -BeLike 'public.orders (id) = (5): division by zero*'
        (Get-Backfill).ErrorRows | Should -BeNullOrEmpty
        $null = Invoke-Sql 'update orders set id = -5 where id = 5'
        $again = $status | Resume-Backfill
        "$($again.Outcome)", $again.Rows, $again.Errors | Should -Be 'Completed', 1, 0
        (Get-Backfill).Errors | Should -Be 0
    }

    It 'are refused limits that are none' {
        { Start-Backfill orders @{ tier = "'s'" } -MaxReplicationLag 10 } | Should -Throw '*no lag*'
        { Start-Backfill orders @{ tier = "'s'" } -MaxReplicationLag 10s, 64MB } | Should -Throw '*quotation marks*'
        { Start-Backfill orders @{ tier = "'s'" } -Window 22-5 } | Should -Throw '*no window*'
        { Start-Backfill orders @{ tier = "'s'" } -HealthQuery 'select 1' -ErrorAction Stop } | Should -Throw -ErrorId 'HealthQueryInvalid,*'
        { Start-Backfill orders @{ tier = "'s'" } -Window '22:00-05:00 Mars' -ErrorAction Stop } | Should -Throw -ErrorId 'TimeZoneUnknown,*'
        Get-Backfill | Should -BeNullOrEmpty
    }

    It 'fit 80 and 160 columns, with the reason to wait in whole' {
        $null = Start-Backfill orders @{ tier = "'s'" } -Name done
        $job = Start-Backfill orders @{ total = 'price' } -HealthQuery 'select false' -AsJob
        Wait-Until { (Get-Backfill public.orders.total -ErrorAction Ignore).WaitingFor }
        foreach ($width in 80, 160) {
            $text = Get-Backfill | Out-String -Width $width
            ($text -split '\r?\n' | Measure-Object Length -Maximum).Maximum | Should -BeLessOrEqual $width
            ($text -replace '\s+') | Should -BeLike '*paused:thehealthquerysaysno,since*'
            $text | Should -Match 'Running'
        }
        (Get-MigrationProgress orders).WaitingFor | Should -Be 'throttle: paused: the health query says no'
        $job.StatusMessage | Should -BeLike '*paused: the health query says no*'
        Stop-Job $job
        Wait-Until { "$((Get-Backfill public.orders.total).State)" -eq 'Interrupted' }
        (Get-Backfill public.orders.total).WaitingFor | Should -BeNullOrEmpty
        Remove-Backfill public.orders.total -Force
    }
}
