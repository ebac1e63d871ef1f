# Two worlds: MigrationSafety.dll (types that users see) goes into PowerShell's own context, everything else into the module's.
$importModule = Get-Command -Name Import-Module -Module Microsoft.PowerShell.Core
if (-not ('MigrationSafety.LoadContext' -as [type])) {
    $library = [System.IO.Path]::Combine($PSScriptRoot, 'bin', 'net8.0', 'MigrationSafety.dll')
    if (-not [System.IO.File]::Exists($library)) {
        throw "MigrationSafety is not built: $library is missing. Run 'dotnet build' or './build.ps1 Build' in $PSScriptRoot first."
    }
    $null = [System.Reflection.Assembly]::LoadFrom($library)
}

$cmdlets = & $importModule -Assembly ([MigrationSafety.LoadContext]::Initialize()) -PassThru

# Steps, waits and samples reach a report whole, also through a job, a remote session or a file; two levels would be left of them.
Update-TypeData -TypeName MigrationSafety.MigrationOperation -SerializationDepth 8 -Force
# When a backend started, to the microsecond, tells it from another that has its pid by now.
Update-TypeData -TypeName MigrationSafety.BlockingLock -SerializationDepth 2 -Force

# A forced re-import finds the assembly's module in a cache and exports nothing from this one (PowerShell issue 20710): add the cmdlets again.
if ($cmdlets) {
    $addExportedCmdlet = [psmoduleinfo].GetMethod('AddExportedCmdlet', [System.Reflection.BindingFlags] 'Instance, NonPublic')
    foreach ($cmdlet in $cmdlets.ExportedCmdlets.Values) {
        $addExportedCmdlet.Invoke($ExecutionContext.SessionState.Module, @(, $cmdlet))
    }
}
