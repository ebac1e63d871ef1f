@{
    RootModule             = 'MigrationSafety.psm1'
    ModuleVersion          = '0.1.0'
    GUID                   = '6f0c1b52-6a39-4a2e-9a42-0d7c1b2f8e57'
    Author                 = 'MigrationSafety contributors'
    CompanyName            = 'MigrationSafety contributors'
    Copyright              = '(c) MigrationSafety contributors. MIT licence.'
    Description            = 'Schema and data changes on live PostgreSQL databases: nobody waits, nothing is lost, everything can be undone or says beforehand that it cannot.'
    PowerShellVersion      = '7.4'
    CompatiblePSEditions   = @('Core')
    FormatsToProcess       = @('MigrationSafety.Format.ps1xml')
    FunctionsToExport      = @()
    AliasesToExport        = @()
    VariablesToExport      = @()
    CmdletsToExport        = @(
        'Compare-SchemaSnapshot'
        'Connect-MigrationDatabase'
        'Disconnect-MigrationDatabase'
        'Export-MigrationReport'
        'Get-Backfill'
        'Get-BlockingLock'
        'Get-InvalidIndex'
        'Get-MigrationHistory'
        'Get-MigrationProgress'
        'Get-MigrationSession'
        'Get-SchemaSnapshot'
        'Invoke-SafeIndexBuild'
        'Invoke-SafeIndexDrop'
        'Invoke-SafeIndexRebuild'
        'New-RollbackScript'
        'Remove-Backfill'
        'Resume-Backfill'
        'Start-Backfill'
        'Stop-Backfill'
        'Stop-BlockingSession'
        'Test-Backfill'
        'Test-RollbackScript'
    )
    PrivateData            = @{
        PSData = @{
            Tags         = @('PostgreSQL', 'Database', 'Migration', 'Schema', 'Index', 'Backfill', 'Lock', 'Rollback', 'PSEdition_Core')
            ReleaseNotes = 'See CHANGELOG.md.'
        }
    }
}
