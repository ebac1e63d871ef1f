BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $other = New-TestDatabase -Another
    foreach ($database in $TestDatabase, $other) {
        $null = Invoke-Sql -Database $database 'create table orders (id bigint primary key, tier text, note text); insert into orders select i, ''t'' || i, null from generate_series(1, 2000) i'
    }

    $uri = Get-TestUri
    $otherUri = Get-TestUri $other
    $dead = "$uri".Replace(":$($TestServer.Port)/", ':1/')

    # Somebody waits, so that Get-BlockingLock has rows on this server; in another database, or index builds would wait for that snapshot.
    $null = Invoke-Sql -Database postgres -Connection locker 'select pg_advisory_lock(1)'
    $null = Invoke-Sql -Database postgres -Connection waiter 'select pg_advisory_lock(1)' -Background

    # Those two, whoever else waits on the server meanwhile.
    filter Select-Waiter { if ($_ -is [MigrationSafety.BlockingLock] -and $_.Database -eq 'postgres') { $_ } }

    # An index build that cannot end as long as this writer is there.
    function Suspend-Build { $null = Invoke-Sql -Connection writer 'begin; update orders set note = note where id = 1' }
    function Resume-Build { Close-Sql writer }
    function Get-Build { Get-ModuleActivity | Where-Object query -Like 'create*index*' }
}

AfterAll {
    foreach ($name in 'locker', 'waiter', 'writer') { Close-Sql $name }
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase $other
    Remove-TestDatabase
}

Describe 'Several sessions' {
    AfterEach { Get-MigrationSession | Disconnect-MigrationDatabase }

    It 'come by pipe, as sessions and as texts' {
        $session = Connect-MigrationDatabase $uri
        @($session, $otherUri | Get-BlockingLock | Select-Waiter).Count | Should -Be 4
    }

    It 'come as an array, with a limit to how many run at once' {
        @(Get-BlockingLock -Session $uri, $otherUri, $uri -ThrottleLimit 1 | Select-Waiter).Count | Should -Be 6
        @(Get-BlockingLock -Session $uri, $otherUri, $uri -ThrottleLimit 3 | Select-Waiter).Count | Should -Be 6
    }

    It 'run side by side up to the limit' {
        Suspend-BlockingLock
        Suspend-BlockingLock $other
        try {
            $powershell = New-TestPowerShell
            $running = $powershell.AddScript('param($a, $b) Get-BlockingLock -Session $a, $b -ThrottleLimit 2').AddArgument($uri).AddArgument($otherUri).BeginInvoke()
            Wait-Until { (Get-ModuleActivity) -and (Get-ModuleActivity $other) } 'both sessions to be at work'
        }
        finally {
            Resume-BlockingLock
            Resume-BlockingLock $other
        }

        @($powershell.EndInvoke($running) | Select-Waiter).Count | Should -Be 4
        $powershell.Dispose()
    }

    It 'wait for their turn beyond the limit' {
        Suspend-BlockingLock
        try {
            $powershell = New-TestPowerShell
            $running = $powershell.AddScript('param($a, $b) Get-BlockingLock -Session $a, $b -ThrottleLimit 1 -Verbose 4>&1').AddArgument($uri).AddArgument($otherUri).BeginInvoke()
            Wait-Until { Get-ModuleActivity } 'the first session to be at work'
            Get-ModuleActivity $other | Should -BeNullOrEmpty
        }
        finally { Resume-BlockingLock }

        @($powershell.EndInvoke($running) | Select-Waiter).Count | Should -Be 4
        $powershell.Dispose()
    }

    It 'do not stop for one that fails: an error for each input' {
        $rows = $dead, 'nonsense', $uri | Get-BlockingLock -ErrorAction SilentlyContinue -ErrorVariable failures
        @($rows | Select-Waiter).Count | Should -Be 2
        ($failures.FullyQualifiedErrorId | Sort-Object) -replace ',.*' | Should -Be 'ConnectionRefused', 'ConnectionTextInvalid'
    }

    It 'stop for one that fails with -ErrorAction Stop' {
        { $dead, $uri | Get-BlockingLock -ErrorAction Stop } | Should -Throw -ErrorId 'ConnectionRefused,*'
    }

    It 'are not taken from objects that are none' {
        { [pscustomobject]@{ Table = 'orders'; Column = 'tier' } | Get-BlockingLock } | Should -Throw -ErrorId 'InputObjectNotBound,*'
        { Get-BlockingLock -Session $null } | Should -Throw -ErrorId 'ParameterArgumentValidationError,*'
        { Get-BlockingLock -Session @() } | Should -Throw -ErrorId 'ParameterArgumentValidationError,*'
        { Get-BlockingLock -Session '' } | Should -Throw -ErrorId 'CannotConvertArgument*'
    }

    It 'that a cmdlet opened are closed when it ends' {
        $null = Get-BlockingLock -Session $otherUri
        Wait-Until { (Get-SqlValue -Database postgres "select count(*) from pg_stat_activity where datname = '$other' and application_name like 'MigrationSafety%'") -eq 0 }
    }
}

Describe 'Streams' {
    BeforeAll {
        $session = Connect-MigrationDatabase $uri
        $null = Invoke-Sql @'
create function say() returns event_trigger language plpgsql as 'begin raise notice ''a word from the server''; end';
create event trigger say on ddl_command_start execute function say()
'@
    }

    AfterAll {
        $null = Invoke-Sql 'drop event trigger say; drop function say()'
        $session | Disconnect-MigrationDatabase
    }

    AfterEach { $null = Invoke-Sql 'drop index if exists orders_tier_idx' }

    It 'have a NOTICE in verbose and the SQL in debug' {
        $said = Invoke-SafeIndexBuild orders tier -Verbose -Debug *>&1
        ($said | Where-Object { $_ -is [System.Management.Automation.VerboseRecord] }).Message | Should -Contain 'NOTICE: a word from the server'
        ($said | Where-Object { $_ -is [System.Management.Automation.DebugRecord] }).Message -match '^create index concurrently' | Should -Not -BeNullOrEmpty
        ($said | Where-Object { $_ -is [MigrationSafety.IndexBuildResult] }).Name | Should -Be 'orders_tier_idx'
    }

    It 'have nothing but the result where nothing more is asked for' {
        $said = @(Invoke-SafeIndexBuild orders tier *>&1 | Where-Object { $_ -isnot [System.Management.Automation.ProgressRecord] })
        $said.Count | Should -Be 1
        $said[0] | Should -BeOfType MigrationSafety.IndexBuildResult
    }

    It 'have progress while it works, and its end' {
        Suspend-Build
        $powershell = New-TestPowerShell
        $running = $powershell.AddScript('param($uri) Invoke-SafeIndexBuild orders tier -Session $uri').AddArgument($uri).BeginInvoke()
        try {
            Wait-Until { $powershell.Streams.Progress | Where-Object { $_.Activity -like '*orders*' -and $_.RecordType -eq 'Processing' } } 'a progress record'
        }
        finally { Resume-Build }

        $powershell.EndInvoke($running).Name | Should -Be 'orders_tier_idx'
        $powershell.Streams.Progress[-1].RecordType | Should -Be 'Completed'
        $powershell.Dispose()
    }

    It 'have warnings that -WarningVariable sees' {
        $null = Invoke-Sql 'create index twin on orders (tier)'
        $null = Invoke-SafeIndexBuild orders tier -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -BeLike '*twin*'
        $null = Invoke-Sql 'drop index twin'
    }
}

Describe 'A downstream command that wants no more' {
    It 'ends the work on the server' {
        Suspend-BlockingLock $other
        try {
            # The first session has rows at once; the second would wait until its statement times out after 15 s.
            $clock = [System.Diagnostics.Stopwatch]::StartNew()
            $row = $uri, $otherUri | Get-BlockingLock | Select-Object -First 1
            $row | Should -BeOfType MigrationSafety.BlockingLock
            $clock.Elapsed.TotalSeconds | Should -BeLessThan 12
            Wait-Until { -not (Get-ModuleActivity $other) } 'the statement to be gone'
        }
        finally { Resume-BlockingLock $other }
    }
}

Describe 'Ctrl-C' {
    AfterEach {
        Resume-BlockingLock
        Resume-Build
        $null = Invoke-Sql 'drop index if exists orders_tier_idx'
    }

    It 'cancels a statement on the server within a second' {
        Suspend-BlockingLock
        # The best of three: this machine may be busy with other tests.
        $best = foreach ($attempt in 1..3) {
            $powershell = New-TestPowerShell
            $null = $powershell.AddScript('param($uri) Get-BlockingLock -Session $uri').AddArgument($uri).BeginInvoke()
            Wait-Until { Get-ModuleActivity } 'the statement to run'
            $clock = [System.Diagnostics.Stopwatch]::StartNew()
            $stopping = $powershell.BeginStop($null, $null)
            Wait-Until { -not (Get-ModuleActivity) } 'the statement to be gone'
            $clock.Elapsed.TotalMilliseconds
            $powershell.EndStop($stopping)
            $powershell.InvocationStateInfo.State | Should -Be 'Stopped'
            $powershell.Dispose()
        }
        ($best | Measure-Object -Minimum).Minimum | Should -BeLessThan 1000
    }

    It 'ends an index build, and what is left behind is said' {
        Suspend-Build
        $powershell = New-TestPowerShell
        $null = $powershell.AddScript('param($uri) Invoke-SafeIndexBuild orders tier -Session $uri').AddArgument($uri).BeginInvoke()
        Wait-Until { Get-Build } 'the build to run'
        $powershell.Stop()
        Get-Build | Should -BeNullOrEmpty
        # The writer keeps the leftover from being removed; a second call finishes.
        Get-SqlValue "select indisvalid from pg_index where indexrelid = to_regclass('orders_tier_idx')" | Should -Be $false
        Resume-Build
        "$((Invoke-SafeIndexBuild orders tier -Session $uri).Outcome)" | Should -Be 'Rebuilt'
        $powershell.Dispose()
    }

    It 'reaches the server from a real signal' -Skip:$IsWindows {
        $out = Join-Path $TestDrive 'out.txt'
        $script = Join-Path $TestDrive 'wait.ps1'
        Set-Content $script "Import-Module '$ManifestPath'; Invoke-SafeIndexBuild orders tier -Session '$uri' -LockTimeout 400ms"
        Suspend-Build
        $process = Start-Process -FilePath (Get-Process -Id $PID).Path -ArgumentList '-NoProfile', '-File', $script -RedirectStandardOutput $out -RedirectStandardError "$out.err" -PassThru
        Wait-Until { Get-Build } 'the build to run'
        if (Test-InterruptIgnored $process.Id) {
            Stop-Process -Id $process.Id
            Resume-Build
            Wait-Until { -not (Get-Build) }
            Set-ItResult -Skipped -Because 'this process was started with SIGINT ignored'
            return
        }

        kill -INT $process.Id
        Wait-Until { -not (Get-Build) } 'the build to be gone'
        Wait-Until { $process.HasExited } 'the process to end'
        (Get-Content $out, "$out.err" -Raw) -join '' | Should -BeLike '*WARNING*orders_tier_idx*is left*'
    }
}

Describe 'A job' {
    BeforeAll { $session = Connect-MigrationDatabase $uri }

    AfterAll { $session | Disconnect-MigrationDatabase }

    AfterEach {
        Resume-Build
        Get-Job | Remove-Job -Force
        $null = Invoke-Sql 'drop index if exists orders_tier_idx'
    }

    It 'gives its result to Receive-Job, once' {
        $job = Invoke-SafeIndexBuild orders tier -AsJob
        $job.PSJobTypeName | Should -Be 'MigrationSafety'
        $job.Command | Should -Be 'Invoke-SafeIndexBuild'
        $job.Location | Should -Be "$session"
        (Get-Job -Id $job.Id).InstanceId | Should -Be $job.InstanceId
        "$(($job | Wait-Job).State)" | Should -Be 'Completed'
        $job.HasMoreData | Should -BeTrue
        (Receive-Job $job -Keep).Name | Should -Be 'orders_tier_idx'
        $job.HasMoreData | Should -BeTrue
        ($job | Receive-Job) | Should -BeOfType MigrationSafety.IndexBuildResult
        $job.HasMoreData | Should -BeFalse
        Receive-Job $job | Should -BeNullOrEmpty
        Remove-Job $job
        Get-Job | Should -BeNullOrEmpty
    }

    It 'works with -Wait and -AutoRemoveJob' {
        (Invoke-SafeIndexBuild orders tier -AsJob | Receive-Job -Wait -AutoRemoveJob).Name | Should -Be 'orders_tier_idx'
        Get-Job | Should -BeNullOrEmpty
    }

    It 'is Failed when its work failed, with the error there' {
        # Two transactions later the table is gone: planned well, run badly.
        $null = Invoke-Sql 'create table doomed (id int primary key, a int); insert into doomed select i, 1 from generate_series(1, 10) i'
        $job = Invoke-SafeIndexBuild doomed a -Unique -AsJob
        $null = $job | Wait-Job
        "$($job.State)" | Should -Be 'Failed'
        $failure = { Receive-Job $job -ErrorAction Stop } | Should -Throw -PassThru
        $failure.FullyQualifiedErrorId | Should -BeLike 'DuplicateKey*'
        "$($failure.CategoryInfo.Category)" | Should -Be 'InvalidData'
        $failure.ErrorDetails.RecommendedAction | Should -Not -BeNullOrEmpty
        $null = Invoke-Sql 'drop table doomed'
    }

    It 'says what it does while it runs' {
        Suspend-Build
        $job = Invoke-SafeIndexBuild orders tier -AsJob
        Wait-Until { $job.StatusMessage } 'a status'
        "$($job.State)" | Should -Be 'Running'
        ($job | Format-Table | Out-String -Width 200) | Should -BeLike '*Running*'
        Wait-Until { $job.Progress.Count -gt 0 } 'progress'
        Resume-Build
        "$(($job | Wait-Job).State)" | Should -Be 'Completed'
        ($job | Receive-Job).Name | Should -Be 'orders_tier_idx'
    }

    It 'is Stopped by Stop-Job, on the server too' {
        Suspend-Build
        $job = Invoke-SafeIndexBuild orders tier -AsJob
        Wait-Until { Get-Build } 'the build to run'
        Stop-Job $job
        Get-Build | Should -BeNullOrEmpty
        "$($job.State)" | Should -Be 'Stopped'
        $job.Warning -match 'is left' | Should -Not -BeNullOrEmpty
    }

    It 'that is removed by force ends on the server' {
        Suspend-Build
        $job = Invoke-SafeIndexBuild orders tier -AsJob
        Wait-Until { Get-Build } 'the build to run'
        Remove-Job $job -Force
        Get-Build | Should -BeNullOrEmpty
        Get-Job | Should -BeNullOrEmpty
    }

    It 'of several sessions has the results of each' {
        $job = Invoke-SafeIndexBuild orders tier -Session $uri, $otherUri -AsJob
        $results = $job | Receive-Job -Wait
        $results.Database | Sort-Object | Should -Be ($TestDatabase, $other | Sort-Object)
        $null = Invoke-Sql -Database $other 'drop index orders_tier_idx'
    }

    It 'that runs on texts closes its connections at the end' {
        $null = Invoke-SafeIndexBuild orders tier -Session $otherUri -AsJob | Receive-Job -Wait
        Wait-Until { (Get-SqlValue -Database postgres "select count(*) from pg_stat_activity where datname = '$other' and application_name like 'MigrationSafety%'") -eq 0 }
        $null = Invoke-Sql -Database $other 'drop index orders_tier_idx'
    }

    It 'shows no password' {
        $job = Invoke-SafeIndexBuild orders tier -Session $uri -AsJob -Verbose
        $null = $job | Wait-Job
        ($job | Format-List * -Force | Out-String -Width 4000) + ($job | Receive-Job *>&1 | Out-String -Width 4000) | Should -Not -BeLike "*$($TestServer.Password)*"
    }
}

Describe 'Runspaces' {
    It 'work side by side, each with its session' {
        $results = $uri, $otherUri | ForEach-Object -Parallel {
            Import-Module $using:ManifestPath
            $session = Connect-MigrationDatabase $_
            foreach ($i in 1..5) { $null = Get-BlockingLock }
            (Get-MigrationSession -Current).Database
            Disconnect-MigrationDatabase
        }
        $results | Sort-Object | Should -Be ($TestDatabase, $other | Sort-Object)
    }
}

Describe 'A scheduled task' {
    It 'ends with 0 when all went well' {
        $run = Invoke-TestProcess "`$ErrorActionPreference = 'Stop'; Import-Module '$ManifestPath'; (Get-BlockingLock -Session '$uri' | Where-Object Database -EQ postgres).Count"
        $run.Output.Trim() | Should -Be '2'
        $run.ExitCode | Should -Be 0
    }

    It 'ends with 1 at the first error with -ErrorAction Stop, which is printed with its advice' {
        $run = Invoke-TestProcess "Import-Module '$ManifestPath'; Get-BlockingLock -Session '$dead' -ErrorAction Stop; 'not reached'"
        $run.ExitCode | Should -Be 1
        $run.Output | Should -Not -BeLike '*not reached*'
        $run.Output | Should -BeLike '*Nothing listens on*'
        $run.Output | Should -BeLike '*Recommendation:*'
    }

    It 'goes on after an error without it, and `$? tells' {
        $run = Invoke-TestProcess "Import-Module '$ManifestPath'; Get-BlockingLock -Session '$dead'; exit [int] (`$? ? 0 : 3)"
        $run.ExitCode | Should -Be 3
    }

    It 'is not asked anything' {
        $null = Invoke-Sql 'drop index if exists orders_tier_idx'
        $run = Invoke-TestProcess "`$ErrorActionPreference = 'Stop'; Import-Module '$ManifestPath'; (Invoke-SafeIndexBuild orders tier -Session '$uri').Name"
        $run.Output.Trim() | Should -Be 'orders_tier_idx'
        $run.ExitCode | Should -Be 0
    }
}
