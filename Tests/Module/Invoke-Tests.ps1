# Runs Pester files and writes, for the test project that called it, one record a test case.
param(
    [Parameter(Mandatory)] [string[]] $Path,
    [string] $ResultPath
)

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
Import-Module Pester -MinimumVersion 5.5

$configuration = New-PesterConfiguration
$configuration.Run.Path = $Path
$configuration.Run.PassThru = $true
$configuration.Output.Verbosity = 'Detailed'
$run = Invoke-Pester -Configuration $configuration

if ($ResultPath) {
    @{
        Tests        = @(foreach ($test in $run.Tests) {
                @{
                    Line   = $test.StartLine
                    Name   = $test.ExpandedPath
                    Result = "$($test.Result)"
                    Error  = ($test.ErrorRecord | ForEach-Object { "$_`n$(($_.ScriptStackTrace -split '\r?\n' | Where-Object { $_ -notmatch 'Pester\.psm?1' }) -join "`n")" }) -join "`n"
                }
            })
        FailedBlocks = @(foreach ($block in @($run.FailedBlocks) + @($run.FailedContainers)) { "$($block.Name): $($block.ErrorRecord)" })
    } | ConvertTo-Json -Depth 5 | Set-Content -LiteralPath $ResultPath
}
exit [int] ($run.Result -ne 'Passed')
