#!/usr/bin/env pwsh
#Requires -Version 7.4
<#
.SYNOPSIS
    Build, Test, Sandbox and Package for people with PowerShell; a thin caller of dotnet.
.DESCRIPTION
    Build    builds everything; afterwards Import-Module ./MigrationSafety.psd1 works in place.
    Test     runs `dotnet test`, the Pester suite included.
    Sandbox  runs the sandbox, then opens a PowerShell with the module imported and connected to its server.
    Package  stages the module in out/MigrationSafety/<version> and makes out/MigrationSafety.<version>.nupkg of it.
.EXAMPLE
    ./build.ps1 Sandbox --rows 100000
.EXAMPLE
    ./build.ps1 Package
    Publish-PSResource -NupkgPath ./out/MigrationSafety.0.1.0.nupkg -ApiKey $key
#>
[CmdletBinding()]
param(
    [Parameter(Position = 0)]
    [ValidateSet('Build', 'Test', 'Sandbox', 'Package')]
    [string] $Task = 'Build',

    # Debug; Release for Package.
    [ValidateSet('Debug', 'Release')]
    [string] $Configuration = $Task -eq 'Package' ? 'Release' : 'Debug',

    # Where Package puts what it makes.
    [string] $OutputPath = (Join-Path $PSScriptRoot 'out'),

    # Further arguments of `dotnet build`, `dotnet test` or the sandbox.
    [Parameter(ValueFromRemainingArguments)]
    [string[]] $ArgumentList = @()
)

$ErrorActionPreference = 'Stop'

# Arguments with a colon need quotation marks: PowerShell would make two of each.
function Invoke-Dotnet {
    dotnet @args
    if ($LASTEXITCODE) { throw "dotnet $($args[0]) failed with exit code $LASTEXITCODE." }
}

# What a user needs and nothing else: no symbols, no XML documentation, no tests.
function New-ModuleFolder([string] $Path) {
    if (Test-Path -LiteralPath $Path) { Remove-Item -LiteralPath $Path -Recurse -Force }
    $null = New-Item -ItemType Directory -Path $Path, "$Path/bin/net8.0", "$Path/en-US"

    # Built beside the folder, not in ./bin: a PowerShell may have the module loaded from there.
    $build = Join-Path $OutputPath 'build'
    Invoke-Dotnet build src/MigrationSafety.Module --configuration $Configuration "-p:ModuleOutput=$build/" '-nodeReuse:false' '-p:UseSharedCompilation=false' '-v:quiet' '-clp:NoSummary' -nologo
    Copy-Item -Path "$build/net8.0/*.dll" -Destination "$Path/bin/net8.0"
    Remove-Item -LiteralPath $build -Recurse -Force

    Copy-Item -Path src/en-US/* -Destination "$Path/en-US"
    Copy-Item -Path MigrationSafety.psd1, MigrationSafety.psm1, MigrationSafety.Format.ps1xml, LICENSE, THIRD-PARTY-NOTICES.md, CHANGELOG.md -Destination $Path
}

# The layout and the tags that Publish-PSResource gives a module's package.
function New-ModulePackage([string] $Folder, [hashtable] $Manifest) {
    $text = { [System.Security.SecurityElement]::Escape($args[0]) }
    $data = $Manifest.PrivateData.PSData
    $tags = @($data.Tags) + 'PSModule' + 'PSIncludes_Cmdlet' + ($Manifest.CmdletsToExport | ForEach-Object { "PSCmdlet_$_"; "PSCommand_$_" })
    $nuspec = Join-Path $OutputPath 'MigrationSafety.nuspec'
    Set-Content -LiteralPath $nuspec -Encoding utf8NoBOM -Value @"
<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://schemas.microsoft.com/packaging/2011/08/nuspec.xsd">
  <metadata>
    <id>MigrationSafety</id>
    <version>$($Manifest.ModuleVersion)</version>
    <authors>$(& $text $Manifest.Author)</authors>
    <owners>$(& $text $Manifest.CompanyName)</owners>
    <license type="expression">MIT</license>
    <requireLicenseAcceptance>false</requireLicenseAcceptance>
    <description>$(& $text $Manifest.Description)</description>
    <releaseNotes>$(& $text $data.ReleaseNotes)</releaseNotes>
    <copyright>$(& $text $Manifest.Copyright)</copyright>
    <tags>$(& $text ($tags -join ' '))</tags>
  </metadata>
  <files>
    <file src="$([System.IO.Path]::GetRelativePath($OutputPath, $Folder))/**" target="" />
  </files>
</package>
"@
    # Said only if it fails: NuGet's advice is for libraries, whose assemblies lie under lib/. A module's lie where the module wants them.
    $said = dotnet pack $nuspec --output $OutputPath 2>&1
    if ($LASTEXITCODE) { throw "dotnet pack failed with exit code ${LASTEXITCODE}:`n$($said -join "`n")" }
    Remove-Item -LiteralPath $nuspec
}

$OutputPath = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($OutputPath)
Push-Location $PSScriptRoot
try {
    switch ($Task) {
        'Build' { Invoke-Dotnet build --configuration $Configuration @ArgumentList }
        'Test' { Invoke-Dotnet test --configuration $Configuration @ArgumentList }
        'Sandbox' {
            Invoke-Dotnet build --configuration $Configuration '-v:quiet' -nologo
            Invoke-Dotnet run --project Tests/Sandbox --configuration $Configuration --no-build -- --shell @ArgumentList
        }
        'Package' {
            $manifest = Import-PowerShellDataFile -LiteralPath MigrationSafety.psd1
            $folder = Join-Path $OutputPath 'MigrationSafety' $manifest.ModuleVersion
            New-ModuleFolder $folder
            New-ModulePackage $folder $manifest
            Get-Item -LiteralPath $folder, (Join-Path $OutputPath "MigrationSafety.$($manifest.ModuleVersion).nupkg")
        }
    }
} finally {
    Pop-Location
}
