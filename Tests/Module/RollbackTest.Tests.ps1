BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $null = Invoke-Sql 'create table orders (id int primary key, note text); insert into orders select i, i::text from generate_series(1, 5) as i'
    $folder = Join-Path $TestDrive 'migrations'
    $null = New-Item -ItemType Directory $folder
    Set-Content (Join-Path $folder '001_tier.up.sql') 'alter table orders add column tier text;'
    Set-Content (Join-Path $folder '001_tier.down.sql') 'alter table orders drop column tier;'
    Set-Content (Join-Path $folder '002_note.sql') 'alter table orders drop column note;'
    Set-Content (Join-Path $TestDrive 'global.sql') 'create role nobody;'
    function Get-Scratch { Get-SqlValue "select count(*) from pg_database where datname like 'migration\_safety\_scratch\_%'" }
}

AfterAll {
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase
}

Describe 'Test-RollbackScript' {
    It 'proves the rollback that a migration has' {
        $result = Test-RollbackScript "$folder/001_tier.up.sql" -Session (Get-TestUri)
        $result | Should -BeOfType MigrationSafety.RollbackTestResult
        $result.Proved | Should -BeTrue
        $result.Rollback | Should -BeLike '*001_tier.down.sql'
        "$($result.Phases.Outcome)" | Should -Be 'Succeeded Succeeded Succeeded Succeeded'
        Get-Scratch | Should -Be 0
    }

    It 'takes files from the pipeline, rollbacks among them' {
        $results = Get-ChildItem $folder/001* | Test-RollbackScript -Session (Get-TestUri)
        $results | Should -HaveCount 1
        $results.Proved | Should -BeTrue
    }

    It 'takes a rollback from the pipeline, a file, and says what does not come back' {
        $rollback = New-RollbackScript "$folder/001_tier.up.sql" -Session (Get-TestUri)
        ($rollback | Test-RollbackScript -Path "$folder/001_tier.up.sql" -Session (Get-TestUri)).Proved | Should -BeTrue
        $down = Join-Path $TestDrive 'note.sql'
        Set-Content $down 'alter table orders add column note text;'
        $lost = Test-RollbackScript -LiteralPath "$folder/002_note.sql" -RollbackPath $down -From (Get-TestUri) -Session (Get-TestUri) -SampleRow 3
        $lost.Proved | Should -BeFalse
        $lost.Differences | Should -BeNullOrEmpty
        "$($lost.LostValues)" | Should -Be 'public.orders.note: 3 of 3 values'
        $lost | Out-String | Should -BeLike '*Lost*public.orders.note: 3 of 3 values*'
    }

    It 'is a job with -AsJob, and drops its database when that is stopped' {
        $results = Get-ChildItem $folder/00?_*.sql | Test-RollbackScript -Session (Get-TestUri) -AsJob | Receive-Job -Wait -AutoRemoveJob
        $results | Should -HaveCount 2
        $results[0].Proved | Should -BeTrue
        Set-Content (Join-Path $TestDrive 'slow.sql') 'select pg_sleep(600);'
        $job = Test-RollbackScript (Join-Path $TestDrive 'slow.sql') -Session (Get-TestUri) -AsJob
        try {
            $until = [datetime]::UtcNow.AddSeconds(60)
            while ((Get-SqlValue "select count(*) from pg_stat_activity where query like 'select pg_sleep(600)%'") -eq 0) {
                [datetime]::UtcNow | Should -BeLessThan $until
                Start-Sleep -Milliseconds 50
            }

            Get-Scratch | Should -Be 1
            $job | Stop-Job
            "$($job.State)" | Should -Be 'Stopped'
            Get-Scratch | Should -Be 0
        } finally {
            $job | Remove-Job -Force
        }
    }

    It 'makes nothing with -WhatIf' {
        Test-RollbackScript "$folder/001_tier.up.sql" -Session (Get-TestUri) -WhatIf | Should -BeNullOrEmpty
        Get-Scratch | Should -Be 0
    }

    It 'says what is wrong: <Id>' -ForEach @(
        @{ Id = 'GlobalStatement'; Arguments = { @{ Path = "$TestDrive/global.sql" } } }
        @{ Id = 'TemplateNotFound'; Arguments = { @{ Path = "$folder/002_note.sql"; Template = 'nowhere' } } }
        @{ Id = 'TemplateAndFrom'; Arguments = { @{ Path = "$folder/002_note.sql"; Template = 'nowhere'; From = Get-TestUri } } }
        @{ Id = 'SeveralMigrations'; Arguments = { @{ Path = "$folder/*.sql"; RollbackPath = "$folder/001_tier.down.sql" } } }
        @{ Id = 'SeveralSessions'; Arguments = { @{ Path = "$folder/002_note.sql"; Session = (Get-TestUri), (Get-TestUri) } } }
        @{ Id = 'FileNotFound'; Arguments = { @{ Path = "$folder/nothing.sql" } } }
    ) {
        $parameters = & $Arguments
        if (-not $parameters.Session) { $parameters.Session = Get-TestUri }
        { Test-RollbackScript @parameters -ErrorAction Stop } | Should -Throw -ErrorId "$Id*"
        Get-Scratch | Should -Be 0
    }
}
