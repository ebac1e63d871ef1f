BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $null = Invoke-Sql 'create table orders (id bigint primary key, tier text); insert into orders select i from generate_series(1, 20000) i; create table items (id bigint primary key, a int, b int, c int)'
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

    It 'takes sessions from the pipeline' {
        $null = Invoke-SafeIndexBuild items b -AsJob
        Wait-Until { $session | Get-MigrationProgress -Table items } 'the build to run'
        (Get-TestUri), $session | Get-MigrationProgress -Table items | Should -HaveCount 2
    }

    It 'has a table within 80 columns' {
        $null = Invoke-SafeIndexBuild items c -AsJob
        Wait-Until { Get-MigrationProgress -Table items | Where-Object BlockedBy } 'the build to wait'
        $text = Get-MigrationProgress -Table items | Format-Table | Out-String -Width 80
        (($text -split '\r?\n') | Measure-Object -Property Length -Maximum).Maximum | Should -BeLessOrEqual 80
        $text | Should -Match 'items'
        $text | Should -Not -Match '#ERR'
    }
}
