# What every test file begins with: the module as users get it, and SQL on the test server.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$script:RepositoryRoot = (Resolve-Path "$PSScriptRoot/../..").Path
$global:ManifestPath = Join-Path $RepositoryRoot 'MigrationSafety.psd1'
if (-not (Get-Module MigrationSafety)) {
    Import-Module $ManifestPath
}

# Where the server is, in parts: .Host .Port .User .Password
$global:TestServer = & {
    $uri = [uri] $env:MIGRATIONSAFETY_TEST_URI
    $user, $password = $uri.UserInfo -split ':', 2 | ForEach-Object { [uri]::UnescapeDataString($_) }
    [pscustomobject]@{ Host = $uri.Host; Port = $uri.Port; User = $user; Password = $password }
}

# Runs SQL; rows come back as objects. With -Connection the connection stays open until Close-Sql; with -Background the answer does not wait.
function global:Invoke-Sql {
    param([Parameter(Mandatory)] [string] $Sql, [string] $Database = $global:TestDatabase, [string] $Connection, [switch] $Background)
    $request = @{ database = $Database; sql = $Sql; background = [bool] $Background }
    if ($Connection) { $request.connection = $Connection }
    $answer = Invoke-RestMethod -Uri $env:MIGRATIONSAFETY_TEST_SQL -Method Post -Body ($request | ConvertTo-Json) -ContentType 'application/json; charset=utf-8' -TimeoutSec 120
    if ($answer.error) { throw "SQL failed: $($answer.error)`n$Sql" }
    $answer.rows
}

# What a query says, as a value.
function global:Get-SqlValue {
    param([Parameter(Mandatory)] [string] $Sql, [string] $Database = $global:TestDatabase)
    Invoke-Sql -Database $Database $Sql | ForEach-Object { $_.psobject.Properties.Value } | Select-Object -First 1
}

function global:Close-Sql {
    param([Parameter(Mandatory)] [string] $Connection)
    $answer = Invoke-RestMethod -Uri $env:MIGRATIONSAFETY_TEST_SQL -Method Post -Body (@{ connection = $Connection } | ConvertTo-Json) -ContentType 'application/json; charset=utf-8' -TimeoutSec 120
    if ($answer.error) { throw "Closing $Connection failed: $($answer.error)" }
}

# A database of its own for each file; the first is the default of Invoke-Sql and Get-TestUri.
function global:New-TestDatabase {
    param([switch] $Another)
    $name = 'pester_' + [guid]::NewGuid().ToString('n').Substring(0, 12)
    $null = Invoke-Sql -Database postgres "create database $name"
    if (-not $Another) { $global:TestDatabase = $name }
    $name
}

function global:Remove-TestDatabase {
    param([string] $Database = $global:TestDatabase)
    $null = Invoke-Sql -Database postgres "drop database if exists $Database with (force)"
}

function global:Get-TestUri {
    param([string] $Database = $global:TestDatabase)
    $env:MIGRATIONSAFETY_TEST_URI.Replace('%7B0%7D', $Database)
}

# A password that the server refuses is an error only where it asks for one: a server named by MIGRATIONSAFETY_TEST_SERVER may not.
function global:Test-PasswordAsked {
    try {
        Connect-MigrationDatabase "host=$($TestServer.Host) port=$($TestServer.Port) user=$($TestServer.User) dbname=postgres password=surely-wrong" | Disconnect-MigrationDatabase
        $false
    }
    catch { $true }
}

# Waits for a condition, never for time.
function global:Wait-Until {
    param([Parameter(Mandatory)] [scriptblock] $Condition, [string] $What = $Condition, [int] $Seconds = 30)
    $deadline = [datetime]::UtcNow.AddSeconds($Seconds)
    while (-not (& $Condition)) {
        if ([datetime]::UtcNow -gt $deadline) { throw "Waited $Seconds s in vain for: $What" }
        Start-Sleep -Milliseconds 50
    }
}

# Whether a process ignores SIGINT: one that a shell put into the background may, and its children with it.
function global:Test-InterruptIgnored {
    param([int] $Id = $PID)
    (Test-Path "/proc/$Id/status") -and [bool] ([Convert]::ToUInt64(((Get-Content "/proc/$Id/status") -match '^SigIgn')[0].Split()[1], 16) -band 2)
}

# Statements of the module that run on the server now.
function global:Get-ModuleActivity {
    param([string] $Database = $global:TestDatabase)
    Invoke-Sql -Database postgres "select pid, application_name, state, query from pg_stat_activity where datname = '$Database' and application_name like 'MigrationSafety/%' and state <> 'idle'"
}

# Makes Get-BlockingLock wait in this database, until Close-Sql: it reads pg_prepared_xacts.
function global:Suspend-BlockingLock {
    param([string] $Database = $global:TestDatabase)
    $null = Invoke-Sql -Database $Database -Connection "suspend-$Database" 'set allow_system_table_mods = on; begin; alter view pg_catalog.pg_prepared_xacts set (security_barrier = false)'
}

function global:Resume-BlockingLock {
    param([string] $Database = $global:TestDatabase)
    Close-Sql "suspend-$Database"
}

# A second runspace with the module; the caller disposes of it.
function global:New-TestPowerShell {
    $powershell = [powershell]::Create()
    $null = $powershell.AddScript('param($path) $ErrorActionPreference = "Stop"; Import-Module $path').AddArgument($ManifestPath).Invoke()
    $powershell.Commands.Clear()
    $powershell
}

# A process of its own: what it wrote, and its exit code.
function global:Invoke-TestProcess {
    param([Parameter(Mandatory)] [string] $Script, [string[]] $Argument = @())
    $path = Join-Path ([System.IO.Path]::GetTempPath()) "$([guid]::NewGuid()).ps1"
    Set-Content -LiteralPath $path -Value $Script
    try {
        $output = & (Get-Process -Id $PID).Path -NoProfile -NonInteractive -File $path @Argument 2>&1 | Out-String
        [pscustomobject]@{ Output = $output; ExitCode = $LASTEXITCODE }
    }
    finally { Remove-Item -LiteralPath $path }
}
