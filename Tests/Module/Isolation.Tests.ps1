BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $work = "(Connect-MigrationDatabase '$(Get-TestUri)').Database; `$null = Get-BlockingLock; Disconnect-MigrationDatabase"
    function Get-Lines { param($Run) ($Run.Output -split '\r?\n' | Where-Object { $_ }) }
}

AfterAll { Remove-TestDatabase }

Describe 'In a process of its own' {
    It 'works although an older Microsoft.Extensions.Logging.Abstractions is loaded' {
        $older = $env:MIGRATIONSAFETY_TEST_OLDER_LOGGING
        if (-not $older) { Set-ItResult -Skipped -Because 'only dotnet test brings an older assembly' }
        $run = Invoke-TestProcess @"
`$ErrorActionPreference = 'Stop'
`$older = [System.Reflection.Assembly]::LoadFrom('$older')
Import-Module '$ManifestPath'
$work
`$loaded = [AppDomain]::CurrentDomain.GetAssemblies() | Where-Object { `$_.GetName().Name -eq 'Microsoft.Extensions.Logging.Abstractions' }
`$loaded | ForEach-Object { "`$(`$_.GetName().Version.Major) in `$([System.Runtime.Loader.AssemblyLoadContext]::GetLoadContext(`$_).Name)" } | Sort-Object
"@
        $run.ExitCode | Should -Be 0 -Because $run.Output
        $lines = Get-Lines $run
        $lines[0] | Should -Be $TestDatabase
        $lines | Should -Contain '6 in Default'
        $lines -match '^(8|9|10) in MigrationSafety$' | Should -Not -BeNullOrEmpty
    }

    It 'loads engine and Npgsql into the module''s own context' {
        $run = Invoke-TestProcess @"
`$ErrorActionPreference = 'Stop'
Import-Module '$ManifestPath'
$work
[AppDomain]::CurrentDomain.GetAssemblies() | Where-Object { `$_.GetName().Name -match '^(Npgsql|MigrationSafety)' } |
    ForEach-Object { "`$(`$_.GetName().Name): `$([System.Runtime.Loader.AssemblyLoadContext]::GetLoadContext(`$_).Name)" } | Sort-Object
"@
        (Get-Lines $run) | Select-Object -Skip 1 | Should -Be 'MigrationSafety: Default', 'MigrationSafety.Engine: MigrationSafety', 'MigrationSafety.Module: MigrationSafety', 'Npgsql: MigrationSafety'
    }

    It 'has its cmdlets after a forced import, twice' {
        $run = Invoke-TestProcess @"
`$ErrorActionPreference = 'Stop'
Import-Module '$ManifestPath'
foreach (`$i in 1..2) {
    Import-Module '$ManifestPath' -Force
    (Get-Command -Module MigrationSafety).Count
    (Get-Module MigrationSafety).ExportedCmdlets.Count
    $work
}
"@
        $count = (Get-Command -Module MigrationSafety).Count
        Get-Lines $run | Should -Be $count, $count, $TestDatabase, $count, $count, $TestDatabase -Because $run.Output
    }

    It 'has no cmdlets after Remove-Module, and all again after the next import' {
        $run = Invoke-TestProcess @"
`$ErrorActionPreference = 'Stop'
Import-Module '$ManifestPath'
Remove-Module MigrationSafety
@(Get-Command Get-BlockingLock -ErrorAction Ignore | Where-Object Source -eq MigrationSafety).Count
Import-Module '$ManifestPath'
(Get-Command -Module MigrationSafety).Count
$work
"@
        Get-Lines $run | Should -Be 0, (Get-Command -Module MigrationSafety).Count, $TestDatabase -Because $run.Output
    }

    It 'keeps the views after a forced import' {
        $run = Invoke-TestProcess @"
Import-Module '$ManifestPath'; Import-Module '$ManifestPath' -Force
Connect-MigrationDatabase '$(Get-TestUri)' | Format-Table | Out-String -Width 160
"@
        $run.Output | Should -Match 'primary\s+Open'
    }

    It 'keeps the session over a forced import' {
        $run = Invoke-TestProcess @"
`$ErrorActionPreference = 'Stop'
Import-Module '$ManifestPath'
`$null = Connect-MigrationDatabase '$(Get-TestUri)'
Import-Module '$ManifestPath' -Force
`$null = Get-BlockingLock
(Get-MigrationSession -Current).Database
"@
        Get-Lines $run | Should -Be $TestDatabase -Because $run.Output
    }

    It 'works in a second runspace' {
        $run = Invoke-TestProcess @"
`$ErrorActionPreference = 'Stop'
Import-Module '$ManifestPath'
$work
`$second = [powershell]::Create().AddScript({ param(`$path, `$uri) `$ErrorActionPreference = 'Stop'; Import-Module `$path; `$null = Connect-MigrationDatabase `$uri; `$null = Get-BlockingLock; (Get-MigrationSession).Database })
`$second.AddArgument('$ManifestPath').AddArgument('$(Get-TestUri)').Invoke()
"@
        Get-Lines $run | Should -Be $TestDatabase, $TestDatabase -Because $run.Output
    }

    It 'works in ForEach-Object -Parallel, imported there first' {
        $run = Invoke-TestProcess @"
`$ErrorActionPreference = 'Stop'
1..4 | ForEach-Object -ThrottleLimit 4 -Parallel {
    Import-Module '$ManifestPath'
    `$null = Connect-MigrationDatabase '$(Get-TestUri)'
    `$null = Get-BlockingLock
    (Get-MigrationSession).Count
    Disconnect-MigrationDatabase
}
"@
        Get-Lines $run | Should -Be 1, 1, 1, 1 -Because $run.Output
    }

    It 'writes nothing when it is imported' {
        (Invoke-TestProcess "Import-Module '$ManifestPath' *>&1").Output | Should -BeNullOrEmpty
    }

    It 'imports by name and by version from a module path' {
        $run = Invoke-TestProcess @"
`$null = New-Item -ItemType Directory '$TestDrive/modules' -Force
`$null = New-Item -ItemType SymbolicLink '$TestDrive/modules/MigrationSafety' -Target '$(Split-Path $ManifestPath)'
`$env:PSModulePath = '$TestDrive/modules' + [System.IO.Path]::PathSeparator + `$env:PSModulePath
(Get-Command Get-BlockingLock).Source
Get-BlockingLock -Session '$(Get-TestUri)'
(Get-Module MigrationSafety).Name
Remove-Item '$TestDrive/modules/MigrationSafety'
"@
        Get-Lines $run | Should -Be 'MigrationSafety', 'MigrationSafety' -Because $run.Output
    }
}
