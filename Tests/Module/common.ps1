# What every test file begins with: the module as users get it, and SQL on the test server.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$script:RepositoryRoot = (Resolve-Path "$PSScriptRoot/../..").Path
$script:ManifestPath = Join-Path $RepositoryRoot 'MigrationSafety.psd1'
if (-not (Get-Module MigrationSafety)) {
    Import-Module $ManifestPath
}

# Runs SQL; rows come back as objects. With -Connection the connection stays open until Close-Sql; with -Background the answer does not wait.
function global:Invoke-Sql {
    param([Parameter(Mandatory)] [string] $Sql, [string] $Database = $global:TestDatabase, [string] $Connection, [switch] $Background)
    $request = @{ database = $Database; sql = $Sql; background = [bool] $Background }
    if ($Connection) { $request.connection = $Connection }
    $answer = Invoke-RestMethod -Uri $env:MIGRATIONSAFETY_TEST_SQL -Method Post -Body ($request | ConvertTo-Json) -ContentType 'application/json; charset=utf-8'
    if ($answer.error) { throw "SQL failed: $($answer.error)`n$Sql" }
    $answer.rows
}

function global:Close-Sql {
    param([Parameter(Mandatory)] [string] $Connection)
    $null = Invoke-RestMethod -Uri $env:MIGRATIONSAFETY_TEST_SQL -Method Post -Body (@{ connection = $Connection } | ConvertTo-Json)
}

# A database of its own for each file.
function global:New-TestDatabase {
    $global:TestDatabase = 'pester_' + [guid]::NewGuid().ToString('n').Substring(0, 12)
    $null = Invoke-Sql -Database postgres "create database $global:TestDatabase"
    $global:TestDatabase
}

function global:Remove-TestDatabase {
    $null = Invoke-Sql -Database postgres "drop database if exists $global:TestDatabase with (force)"
}

function global:Get-TestUri {
    param([string] $Database = $global:TestDatabase)
    $env:MIGRATIONSAFETY_TEST_URI.Replace('{0}', $Database).Replace('%7B0%7D', $Database)
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
