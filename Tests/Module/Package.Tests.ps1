BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $version = (Import-PowerShellDataFile -LiteralPath $ManifestPath).ModuleVersion
    $out = Join-Path $TestDrive 'out'
    $said = & (Join-Path $PSHOME 'pwsh') -NoProfile -NonInteractive -File (Join-Path $RepositoryRoot 'build.ps1') Package -OutputPath $out 2>&1
    if ($LASTEXITCODE) { throw "build.ps1 Package failed:`n$($said -join "`n")" }
    $folder = Join-Path $out 'MigrationSafety' $version
    $package = Join-Path $out "MigrationSafety.$version.nupkg"
    $files = Get-ChildItem -LiteralPath $folder -Recurse -File -Force | ForEach-Object { [System.IO.Path]::GetRelativePath($folder, $_.FullName).Replace('\', '/') } | Sort-Object

    $unpacked = Join-Path $TestDrive 'unpacked'
    [System.IO.Compression.ZipFile]::ExtractToDirectory($package, $unpacked)
    $nuspec = ([xml] (Get-Content -Raw -LiteralPath (Join-Path $unpacked 'MigrationSafety.nuspec'))).package.metadata
}

AfterAll {
    Remove-TestDatabase
}

Describe 'build.ps1 Package' {
    It 'leaves the folder and the package, and nothing else' {
        Get-ChildItem -LiteralPath $out -Force | ForEach-Object Name | Sort-Object | Should -Be 'MigrationSafety', "MigrationSafety.$version.nupkg"
    }

    It 'stages exactly what a user needs' {
        $files | Should -Be @(
            'bin/net8.0/Microsoft.Extensions.DependencyInjection.Abstractions.dll'
            'bin/net8.0/Microsoft.Extensions.Logging.Abstractions.dll'
            'bin/net8.0/MigrationSafety.dll'
            'bin/net8.0/MigrationSafety.Engine.dll'
            'bin/net8.0/MigrationSafety.Module.dll'
            'bin/net8.0/Npgsql.dll'
            'bin/net8.0/System.Diagnostics.DiagnosticSource.dll'
            'CHANGELOG.md'
            'en-US/about_MigrationSafety.help.txt'
            'en-US/MigrationSafety.Module.dll-Help.xml'
            'LICENSE'
            'MigrationSafety.Format.ps1xml'
            'MigrationSafety.psd1'
            'MigrationSafety.psm1'
            'THIRD-PARTY-NOTICES.md'
        )
    }

    It 'names each library that is not ours in the notices' {
        $notices = Get-Content -Raw -LiteralPath (Join-Path $folder 'THIRD-PARTY-NOTICES.md')
        foreach ($library in $files -like 'bin/*' -notlike '*/MigrationSafety*') {
            $notices | Should -Match ([regex]::Escape([System.IO.Path]::GetFileNameWithoutExtension($library)))
        }
    }

    It 'has one version number' {
        $nuspec.version | Should -Be $version
        foreach ($assembly in Get-ChildItem (Join-Path $folder 'bin/net8.0/MigrationSafety*.dll')) {
            [System.Reflection.AssemblyName]::GetAssemblyName($assembly.FullName).Version.ToString(3) | Should -Be $version
        }
        Get-Content -Raw (Join-Path $folder 'CHANGELOG.md') | Should -Match "## \[$([regex]::Escape($version))\]"
    }

    It 'tells nothing about the machine that built it' {
        $places = @($RepositoryRoot, [Environment]::GetFolderPath('UserProfile'), "$TestDrive", [System.IO.Path]::GetTempPath()) |
            ForEach-Object { $_.TrimEnd('/', '\') } | Where-Object Length -GT 1
        foreach ($file in Get-ChildItem -LiteralPath $unpacked -Recurse -File -Force | Where-Object { $_.Name -notmatch '^(Npgsql|Microsoft\.|System\.)' }) {
            $bytes = [System.IO.File]::ReadAllBytes($file.FullName)
            foreach ($text in [System.Text.Encoding]::UTF8.GetString($bytes), [System.Text.Encoding]::Unicode.GetString($bytes)) {
                foreach ($place in $places) {
                    $text.Contains("$place/") -or $text.Contains("$place\") | Should -BeFalse -Because "$($file.Name) is to hold no path such as $place"
                }
            }
        }
    }

    It 'packs the staged files at the root, as PowerShell Gallery has them' {
        $entries = Get-ChildItem -LiteralPath $unpacked -Recurse -File -Force | ForEach-Object { [System.IO.Path]::GetRelativePath($unpacked, $_.FullName).Replace('\', '/') }
        $entries | Where-Object { $_ -notmatch '^(_rels/|package/|\[Content_Types\]\.xml$|MigrationSafety\.nuspec$)' } | Sort-Object | Should -Be $files
        foreach ($file in $files) {
            (Get-FileHash -LiteralPath (Join-Path $unpacked $file)).Hash | Should -Be (Get-FileHash -LiteralPath (Join-Path $folder $file)).Hash
        }
    }

    It 'says in the nuspec what the manifest says' {
        $manifest = Import-PowerShellDataFile -LiteralPath $ManifestPath
        $nuspec.id, $nuspec.authors, $nuspec.description, $nuspec.copyright | Should -Be 'MigrationSafety', $manifest.Author, $manifest.Description, $manifest.Copyright
        $tags = $nuspec.tags -split ' '
        'PSModule', 'PSEdition_Core', 'PSIncludes_Cmdlet' | Should -BeIn $tags
        $manifest.CmdletsToExport.ForEach({ "PSCmdlet_$_" }) | Should -BeIn $tags
        $nuspec.dependencies | Should -BeNullOrEmpty
    }

    It 'imports and works in a fresh PowerShell' {
        $env:MIGRATIONSAFETY_TEST_PACKAGE = "$out"
        try {
            $answer = & (Join-Path $PSHOME 'pwsh') -NoProfile -NonInteractive -Command {
                $ErrorActionPreference = 'Stop'
                $env:PSModulePath = $env:MIGRATIONSAFETY_TEST_PACKAGE + [System.IO.Path]::PathSeparator + $env:PSModulePath
                $session = Connect-MigrationDatabase $args[0]
                $null = Get-BlockingLock
                $null = Get-MigrationProgress
                Disconnect-MigrationDatabase
                @{
                    Base     = (Get-Module MigrationSafety).ModuleBase
                    Version  = "$((Get-Module MigrationSafety).Version)"
                    Database = $session.Database
                    Help     = (Get-Help Start-Backfill).Synopsis
                }
            } -args (Get-TestUri)
        } finally {
            Remove-Item Env:MIGRATIONSAFETY_TEST_PACKAGE
        }
        $LASTEXITCODE | Should -Be 0
        $answer.Base | Should -Be $folder
        $answer.Version | Should -Be $version
        $answer.Database | Should -Be $TestDatabase
        $answer.Help | Should -BeLike 'Fills columns*'
    }
}
