#Requires -Version 7.4
<#
.SYNOPSIS
Builds an index on orders.tier, fills the column, proves that no row is left, and writes the rollback: on a live database.

.DESCRIPTION
The column comes from the migration tool of the application, which has run 001_add_tier.sql. What this script does may be run again at any
time: it finishes what is not finished, and finds the rest done. It asks nothing and ends with exit code 0 when all is done.

.EXAMPLE
pwsh -NonInteractive -File runbook.ps1 postgresql://postgres@db.example.com/shop

.EXAMPLE
./runbook.ps1
The database comes from the environment: PGHOST, PGDATABASE, PGUSER, PGSERVICE ...
#>
[CmdletBinding()]
param(
    # Key=value string, postgresql:// URI or service=NAME; what it leaves out comes from the libpq environment.
    [Parameter(Position = 0)]
    [string] $Connection,

    # The migration that the application's tool has run.
    [string] $Path = (Join-Path $PSScriptRoot '001_add_tier.sql'),

    # Where the rollback scripts go.
    [string] $RollbackFolder = '.'
)

$ErrorActionPreference = 'Stop'
Import-Module ([IO.Path]::Combine($PSScriptRoot, '..', '..', 'MigrationSafety.psd1'))

$database = if ($Connection) { @{ Connection = $Connection } } else { @{} }
Connect-MigrationDatabase @database

# Who is in whose way before we begin?
Get-BlockingLock

# Stops nobody. What an interrupted run left invalid is removed and built anew.
$index = Invoke-SafeIndexBuild -Table orders -Column tier
$index

# In batches, each with a checkpoint from which the next run goes on. As a job, so that there is time to look on.
$tier = "case when amount >= 900 then 'gold' when amount >= 500 then 'silver' else 'basic' end"
$job = Start-Backfill -Table orders -Set @{ tier = $tier } -AsJob
while (-not (Wait-Job -Job $job -Timeout 5)) {
    Get-MigrationProgress
}
$backfill = Receive-Job -Job $job -Wait -AutoRemoveJob
$backfill

# The server has counted again at the end: it is not the script that believes it is done.
if ($backfill.Remaining -gt 0) {
    throw "$($backfill.Remaining) rows of orders are not filled: the application still writes rows without a tier."
}

# The way back, last step first: index and backfill from what was done, the column from its migration.
# Written by the run that did the work: a later one finds all done, and leaves open whose it is.
$down = Join-Path $RollbackFolder '002_fill_tier.down.sql'
if (-not (Test-Path $down)) { $index, $backfill | New-RollbackScript -OutputPath $down }
New-RollbackScript -Path $Path -OutputPath (Join-Path $RollbackFolder '001_add_tier.down.sql') -Force

# What was done, for the change ticket.
Get-MigrationHistory -Table orders | Export-MigrationReport -Path (Join-Path $RollbackFolder '002_fill_tier.html') -Title 'Fill orders.tier' -Force

Disconnect-MigrationDatabase
