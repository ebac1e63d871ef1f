BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $null = Invoke-Sql 'create table orders (id int primary key); create table items (id int primary key)'
    $session = Connect-MigrationDatabase (Get-TestUri)
    # A reader behind an ALTER that waits behind a reader: the root, and a chain of two.
    $root = (Invoke-Sql -Connection root 'begin; select * from orders; select pg_backend_pid() as pid').pid
    $alter = (Invoke-Sql -Connection alter 'alter table orders add column a int' -Background).pid
    Wait-Until { (Get-SqlValue "select count(*) from pg_locks where pid = $alter and not granted") -gt 0 }
    $reader = (Invoke-Sql -Connection reader 'select * from orders' -Background).pid
    Wait-Until { (Get-SqlValue "select count(*) from pg_locks where pid = $reader and not granted") -gt 0 }
}

AfterAll {
    foreach ($name in 'reader', 'alter', 'root') { Close-Sql $name }
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase
}

Describe 'Get-BlockingLock' {
    It 'shows who waits for whom, roots first' {
        $rows = Get-BlockingLock | Where-Object Database -EQ $TestDatabase
        $rows | ForEach-Object { $_ | Should -BeOfType MigrationSafety.BlockingLock }
        $rows.Pid | Should -Be $root, $alter, $reader
        $rows.Depth | Should -Be 0, 1, 2
        $rows.IsRoot | Should -Be $true, $false, $false
        $rows[0].BlockedCount | Should -Be 2
        $rows[0].BlockingPid | Should -BeNullOrEmpty
        $rows[1].BlockingPid | Should -Be $root
        $rows[1].RequestedMode, $rows[1].Relation | Should -Be 'AccessExclusiveLock', 'public.orders'
        $rows[2].BlockingPid | Should -Be $alter
        $rows[2].WaitTime | Should -BeGreaterThan ([timespan]::Zero)
        $rows.Server | Select-Object -Unique | Should -Be $TestServer.Host
    }

    It 'takes sessions from the pipeline, and credentials for texts' {
        ($session | Get-BlockingLock | Where-Object Database -EQ $TestDatabase).Count | Should -Be 3
        $password = [securestring]::new()
        foreach ($c in "$($TestServer.Password)".ToCharArray()) { $password.AppendChar($c) }
        $rows = "host=$($TestServer.Host) port=$($TestServer.Port) dbname=$TestDatabase" | Get-BlockingLock -Credential ([pscredential]::new($TestServer.User, $password))
        ($rows | Where-Object Database -EQ $TestDatabase).Count | Should -Be 3
        { Get-BlockingLock -Session $session -Credential ([pscredential]::new('x', $password)) } | Should -Throw -ErrorId 'CredentialWithSession,*'
    }

    It 'changes nothing' {
        (Get-Command Get-BlockingLock).Parameters.ContainsKey('WhatIf') | Should -BeFalse
        $null = Get-BlockingLock
        Get-SqlValue "select count(*) from pg_namespace where nspname = 'migration_safety'" | Should -Be 0
    }

    It 'has a table that shows the tree within 80 columns' {
        $text = Get-BlockingLock | Where-Object Database -EQ $TestDatabase | Format-Table | Out-String -Width 80
        $lines = $text -split '\r?\n'
        ($lines | Measure-Object -Property Length -Maximum).Maximum | Should -BeLessOrEqual 80
        $text | Should -Match "(?m)^$root\s+2"
        $text | Should -Match "(?m)^└ $alter\s"
        $text | Should -Match "(?m)^  └ $reader\s"
        $text | Should -Not -Match '#ERR'
    }
}
