BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $null = Invoke-Sql 'create table orders (id bigint primary key, tier text); insert into orders select i from generate_series(1, 20000) i; create table items (id bigint primary key, a int, b int, c int, d int, e int, f int, g int, h int)'
    $session = Connect-MigrationDatabase (Get-TestUri)
    $writer = (Invoke-Sql -Connection writer 'begin; update orders set id = id where id = 15000; update items set id = id where id = 1; insert into items values (0); select pg_backend_pid() as pid').pid
}

AfterAll {
    Get-Job | Remove-Job -Force
    Close-Sql writer
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase
}

Describe 'Get-MigrationProgress' {
    # Each build has a column of its own: the writer keeps what a stopped one left from being removed.
    AfterEach { Get-Job | Remove-Job -Force }

    It 'is empty where nothing runs' {
        Get-MigrationProgress | Where-Object Database -EQ $TestDatabase | Should -BeNullOrEmpty
        Get-MigrationProgress -Table items -Wait -Verbose 4>&1 | Should -BeLike 'Nothing runs now that could be waited for*'
    }

    It 'shows an index build, and whom it waits for' {
        $null = Invoke-SafeIndexBuild items a -AsJob
        Wait-Until { Get-MigrationProgress -Table items | Where-Object BlockedBy } 'the build to wait'
        $row = Get-MigrationProgress | Where-Object Target -EQ 'public.items'
        $row | Should -BeOfType MigrationSafety.MigrationProgress
        $row.Operation | Should -BeLike 'CREATE INDEX*'
        $row.BlockedBy | Should -Be $writer
        $row.WaitingFor | Should -BeLike "*$writer*"
        $row.Database, $row.Server | Should -Be $TestDatabase, $TestServer.Host
        $row.Elapsed | Should -BeGreaterThan ([timespan]::Zero)
        (Get-MigrationProgress -Pid $row.Pid).Pid | Should -Be $row.Pid
        Get-MigrationProgress -Pid 1 | Should -BeNullOrEmpty
        Get-MigrationProgress -Table orders | Should -BeNullOrEmpty
    }

    It 'shows a backfill with the rows that are done' {
        $job = Start-Backfill orders @{ tier = "'a'" } -AsJob -TargetBatchTime 20ms
        Wait-Until { Get-MigrationProgress -Table orders | Where-Object Done -GT 0 } 'the backfill to be under way'
        $row = Get-MigrationProgress -Table orders
        $row.Operation | Should -BeLike '*Backfill*'
        $row.Done | Should -BeLessOrEqual 20000
        $row.Unit | Should -Not -BeNullOrEmpty
        Stop-Job $job
    }

    It 'goes on to the cmdlets of a backfill, and to those of its database' {
        $null = Invoke-Sql 'create table filled (id bigint primary key, tier text); insert into filled select i from generate_series(1, 20000) i'
        $null = Start-Backfill filled @{ tier = "'a'" } -Name 'fill it' -AsJob -MaxRowsPerSecond 1000
        Wait-Until { Get-MigrationProgress -Table filled | Where-Object Done -GT 0 } 'the backfill to be under way'
        $row = Get-MigrationProgress -Table filled
        $row.Name | Should -Be 'fill it'
        ($row | Get-Backfill).Name | Should -Be 'fill it'
        ($row | Get-MigrationHistory filled).Outcome | Should -Be 'Running'
        ($row | Stop-Backfill -Confirm:$false).State | Should -Be 'Paused'
        ($row | Resume-Backfill -MaxRowsPerSecond 0 -Confirm:$false).Outcome | Should -Be 'Completed'
        $row | Remove-Backfill -Confirm:$false
    }

    It 'is taken by name of the operation, in one shape that a job keeps' {
        $null = Invoke-SafeIndexBuild items d -AsJob
        Wait-Until { Get-MigrationProgress -Table items -Operation 'create index*' | Where-Object BlockedBy } 'the build to wait'
        Get-MigrationProgress -Table items -Operation VACUUM, BACKFILL | Should -BeNullOrEmpty
        $row = Get-MigrationProgress -Table items -Operation 'create index*'
        $row.Percent | Should -BeGreaterOrEqual 0
        $row.Confidence | Should -BeOfType MigrationSafety.ProgressConfidence
        $row.Port | Should -Be $TestServer.Port
        $row.Remaining | Should -BeNullOrEmpty -Because 'nobody can tell how long the writer stays'
        $row.Counters.lockers_total | Should -Be 1
        $text = [System.Management.Automation.PSSerializer]::Serialize($row, 3)
        [System.Management.Automation.PSSerializer]::Deserialize($text).Counters['lockers_total'] | Should -Be 1
    }

    It 'watches until nothing is left' {
        $started = Invoke-SafeIndexBuild items e -AsJob
        Wait-Until { Get-MigrationProgress -Table items | Where-Object BlockedBy } 'the build to wait'
        $first = Get-MigrationProgress -Table items -Watch -Interval 100ms | Select-Object -First 2
        $first.Target | Should -Be 'public.items', 'public.items'
        $first[1].Percent | Should -BeGreaterOrEqual $first[0].Percent
        $first[1].Timestamp | Should -BeGreaterThan $first[0].Timestamp
        Stop-Job $started
        # Ends by itself.
        $null = @(Get-MigrationProgress -Table items -Watch -Interval 100ms)
        Get-MigrationProgress -Table items | Should -BeNullOrEmpty
    }

    It 'waits, with progress records, and says how it ended' {
        $started = Invoke-SafeIndexBuild items f -AsJob
        Wait-Until { Get-MigrationProgress -Table items | Where-Object BlockedBy } 'the build to wait'
        $powershell = New-TestPowerShell
        try {
            $null = $powershell.AddScript('param($uri) Get-MigrationProgress items -Wait -Interval 100ms -Session $uri').AddArgument((Get-TestUri))
            $running = $powershell.BeginInvoke()
            Wait-Until { $powershell.Streams.Progress.Count -gt 0 } 'a progress record'
            $powershell.Streams.Progress[0].Activity | Should -Match '^CREATE INDEX CONCURRENTLY public\.items'
            $powershell.Streams.Progress[0].StatusDescription | Should -Match "^Waits for .*$writer"
            Stop-Job $started
            $result = $powershell.EndInvoke($running)
            $result | Should -BeOfType MigrationSafety.ProgressResult
            $result.Target | Should -Be 'public.items'
            $result.Outcome | Should -BeIn 'Cancelled', 'Failed'
            $result.Detail | Should -Not -BeNullOrEmpty
        }
        finally { $powershell.Dispose() }
    }

    It 'waits for all sessions, however few are asked at once' {
        $other = New-TestDatabase -Another
        $powershell = New-TestPowerShell
        try {
            $null = Invoke-Sql -Database $other 'create table things (id int)'
            $null = Invoke-Sql -Database $other -Connection 'other writer' 'begin; insert into things values (1)'
            foreach ($build in @{ Database = $TestDatabase; Connection = 'build'; Sql = 'create index concurrently on items (id)' }, @{ Database = $other; Connection = 'other build'; Sql = 'create index concurrently on things (id)' }) {
                $null = Invoke-Sql @build -Background
            }
            Wait-Until { @(Get-MigrationProgress -Operation 'create index*' | Where-Object BlockedBy).Count -eq 2 } 'both builds to wait'
            $results = [System.Management.Automation.PSDataCollection[psobject]]::new()
            $null = $powershell.AddScript('param($a, $b) $a, $b | Get-MigrationProgress -Operation "create index*" -Wait -Interval 100ms -ThrottleLimit 1').AddArgument((Get-TestUri)).AddArgument((Get-TestUri $other))
            $running = $powershell.BeginInvoke([System.Management.Automation.PSDataCollection[psobject]]::new(), $results)
            Wait-Until { @($powershell.Streams.Progress | ForEach-Object ActivityId | Select-Object -Unique).Count -eq 2 } 'both to be waited for'
            Close-Sql 'other writer'
            Wait-Until { $results.Count -gt 0 } 'the second to be told while the first goes on'
            $results[0].Database, $results[0].Outcome | Should -Be $other, 'Finished'
            $running.IsCompleted | Should -BeFalse
        }
        finally {
            $powershell.Dispose()
            foreach ($name in 'other writer', 'build', 'other build') { Close-Sql $name }
            Remove-TestDatabase $other
        }
    }

    It 'watches on where it could not look at everything' {
        $null = Invoke-Sql -Connection locker 'begin; lock table migration_safety.operation'
        $powershell = New-TestPowerShell
        try {
            $rows = [System.Management.Automation.PSDataCollection[psobject]]::new()
            $null = $powershell.AddScript('param($uri) Get-MigrationProgress items -Watch -Interval 100ms -Session $uri').AddArgument((Get-TestUri))
            $null = $powershell.BeginInvoke([System.Management.Automation.PSDataCollection[psobject]]::new(), $rows)
            Wait-Until { $powershell.Streams.Warning.Count -gt 0 } 'the warning'
            $null = Invoke-Sql -Connection build 'create index concurrently on items (id)' -Background
            Wait-Until { $rows.Count -gt 0 -or $powershell.InvocationStateInfo.State -ne 'Running' } 'what begins afterwards'
            $rows[0].Target | Should -Be 'public.items'
        }
        finally {
            $powershell.Dispose()
            foreach ($name in 'locker', 'build') { Close-Sql $name }
        }
    }

    It 'refuses to watch and wait at once, and an interval without either' {
        { Get-MigrationProgress -Watch -Wait } | Should -Throw -ErrorId 'WatchOrWait*'
        { Get-MigrationProgress -Interval 1s } | Should -Throw -ErrorId 'InvalidInterval*'
        { Get-MigrationProgress nothing -ErrorAction Stop } | Should -Throw -ErrorId 'TableNotFound*'
        { Get-MigrationProgress items_pkey -ErrorAction Stop } | Should -Throw -ErrorId 'TableKindNotSupported*'
        { Get-MigrationProgress -Operation vacuum, 'CRATE INDEX' } | Should -Throw -ErrorId 'OperationUnknown*'
        Get-MigrationProgress -Table items -Operation vacuum, 'CRATE*', 'index drop', 'Drop Index Concurrently', 'select into' | Should -BeNullOrEmpty
    }

    It 'takes sessions from the pipeline' {
        $null = Invoke-SafeIndexBuild items b -AsJob
        Wait-Until { $session | Get-MigrationProgress -Table items } 'the build to run'
        (Get-TestUri), $session | Get-MigrationProgress -Table items | Should -HaveCount 1
    }

    It 'shows what sessions with one server see once, by the session of its database' {
        $null = Invoke-SafeIndexBuild items g -AsJob
        Wait-Until { Get-MigrationProgress -Table items } 'the build to run'
        $other = Connect-MigrationDatabase (Get-TestUri postgres)
        try {
            $alone = $other | Get-MigrationProgress -Operation 'create index*' | Where-Object Database -EQ $TestDatabase
            $alone.Target | Should -Match '^\d+$' -Because 'names are in its own database'
            { $alone | Get-MigrationHistory } | Should -Throw -ErrorId 'OtherDatabase,*'
            foreach ($sessions in ($other, $session), ($session, $other)) {
                $sessions | Get-MigrationProgress -Operation 'create index*' | Where-Object Database -EQ $TestDatabase | ForEach-Object Target | Should -Be 'public.items'
                $seen = $sessions | Get-MigrationProgress -Operation 'create index*' -Watch -Interval 100ms | Where-Object Database -EQ $TestDatabase | Select-Object -First 2
                $seen[0].Timestamp | Should -Not -Be $seen[1].Timestamp
            }
        }
        finally { $other | Disconnect-MigrationDatabase }
    }

    It 'has a table within 80 columns' {
        $null = Invoke-SafeIndexBuild items c -AsJob
        Wait-Until { Get-MigrationProgress -Table items | Where-Object BlockedBy } 'the build to wait'
        $text = Get-MigrationProgress -Table items | Format-Table | Out-String -Width 80
        (($text -split '\r?\n') | Measure-Object -Property Length -Maximum).Maximum | Should -BeLessOrEqual 80
        $text | Should -Match "CREATE INDEX CONC.+ public\.items.+waits for $writer"
        foreach ($width in 80, 160) {
            $view = Get-MigrationProgress -Table items | Out-String -Width $width
            (($view -split '\r?\n') | Measure-Object -Property Length -Maximum).Maximum | Should -BeLessOrEqual $width
            $view | Should -Match '\[[#.]{20}\]'
            $view | Should -Match 'waits for transaction of pid'
            $view | Should -Not -Match '#ERR'
        }
        $text | Should -Not -Match '#ERR'
    }

    It 'gives the rows of a watch to a table at once' {
        $null = Invoke-SafeIndexBuild items h -AsJob
        Wait-Until { Get-MigrationProgress -Table items | Where-Object BlockedBy } 'the build to wait'
        $powershell = New-TestPowerShell
        try {
            $lines = [System.Management.Automation.PSDataCollection[psobject]]::new()
            $null = $powershell.AddScript('param($uri) Get-MigrationProgress items -Watch -Interval 100ms -Session $uri | Format-Table | Out-String -Stream -Width 80').AddArgument((Get-TestUri))
            $running = $powershell.BeginInvoke([System.Management.Automation.PSDataCollection[psobject]]::new(), $lines)
            # Going through it would wait for the end.
            Wait-Until { "$($lines.ReadAll())" -match 'public\.items' } 'a row while the build goes on'
            $running.IsCompleted | Should -BeFalse
        }
        finally { $powershell.Dispose() }
    }

    It 'says within 80 columns how an operation ended' {
        $type = [MigrationSafety.ProgressResult]
        $row = [Runtime.CompilerServices.RuntimeHelpers]::GetUninitializedObject($type)
        $values = @{ Pid = 1234567; Operation = 'CREATE INDEX CONCURRENTLY'; Index = 'public.orders_note'; Outcome = [MigrationSafety.ProgressOutcome]::Vanished; Elapsed = [timespan]'1.02:03:04'; Detail = 'its session is gone' }
        foreach ($name in $values.Keys) { $type.GetProperty($name).SetValue($row, $values[$name]) }
        $text = $row | Out-String -Width 80
        $text | Should -Match '1234567 Vanished  +1\.02:03 CREATE INDEX.+ public\.orders.+ its session is'
        (($text -split '\r?\n') | Measure-Object -Property Length -Maximum).Maximum | Should -BeLessOrEqual 80
    }

    It 'fits a narrow terminal without breaking a word' {
        $type = [MigrationSafety.MigrationProgress]
        $row = [Runtime.CompilerServices.RuntimeHelpers]::GetUninitializedObject($type)
        $values = @{
            Operation = 'CREATE INDEX CONCURRENTLY'; Index = 'public.orders_note'; Percent = 62.6; PhaseNumber = 3; PhaseCount = 8; Phase = 'index validation: scanning table'
            Done = 9172535L; Total = 9220755L; Unit = 'blocks'; Rate = 1016990.0; Pid = 1860; Elapsed = [timespan]'00:00:09'; Remaining = [timespan]'00:00:05'
            Database = 'shop'; Server = 'db-prod-01.internal.example.com'; Port = 5433; WaitingFor = 'throttle: ' + 'others are at work on the server; ' * 4
        }
        foreach ($name in $values.Keys) { $type.GetProperty($name).SetValue($row, $values[$name]) }
        $lines = @($row | Out-String -Width 79 -Stream)

        $lines.Trim() | Should -Contain '1,016,990/s'
        $lines.Trim() | Should -Contain 'shop@db-prod-01.internal.example.com:5433'
        $words = -split ($lines -join ' ')
        ($words | Where-Object { $_ -like 'server*' }).Count | Should -Be 4
        ($lines | Measure-Object -Property Length -Maximum).Maximum | Should -BeLessThan 80
    }
}
