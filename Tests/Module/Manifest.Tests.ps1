BeforeAll {
    . $PSScriptRoot/common.ps1
    $bin = Join-Path (Split-Path $ManifestPath) 'bin' 'net8.0'
    $assembly = [MigrationSafety.LoadContext]::Initialize()
    $manifest = Import-PowerShellDataFile $ManifestPath
}

Describe 'The manifest' {
    It 'is valid' {
        (Test-ModuleManifest $ManifestPath).Name | Should -Be 'MigrationSafety'
    }

    It 'exports what the assembly has, and nothing else' {
        $attribute = [System.Management.Automation.CmdletAttribute]
        $cmdlets = $assembly.GetExportedTypes() | ForEach-Object { $_.GetCustomAttributes($attribute, $false) } | ForEach-Object { "$($_.VerbName)-$($_.NounName)" } | Sort-Object
        $cmdlets.Count | Should -BeGreaterOrEqual 8
        $manifest.CmdletsToExport | Sort-Object | Should -Be $cmdlets
        (Get-Module MigrationSafety).ExportedCommands.Keys | Sort-Object | Should -Be $cmdlets
        @($manifest.FunctionsToExport) + $manifest.AliasesToExport + $manifest.VariablesToExport | Should -BeNullOrEmpty
    }

    It 'has the version of the assemblies' {
        foreach ($name in 'MigrationSafety', 'MigrationSafety.Engine', 'MigrationSafety.Module') {
            [version] $version = [System.Reflection.AssemblyName]::GetAssemblyName((Join-Path $bin "$name.dll")).Version
            "$($version.ToString(3))" | Should -Be $manifest.ModuleVersion
            (Get-Item (Join-Path $bin "$name.dll")).VersionInfo.ProductVersion -replace '\+.*' | Should -Be $manifest.ModuleVersion
        }
    }

    It 'asks for the PowerShell that the assemblies are built for' {
        [version] $manifest.PowerShellVersion | Should -Be ([version] '7.4')
        $manifest.CompatiblePSEditions | Should -Be 'Core'
    }

    It 'names files that are there' {
        foreach ($file in @($manifest.RootModule) + $manifest.FormatsToProcess) {
            Join-Path (Split-Path $ManifestPath) $file | Should -Exist
        }
    }
}

Describe 'The bin folder' {
    It 'has no assembly of PowerShell itself' {
        Get-ChildItem $bin -Recurse -Include System.Management.Automation.dll, Microsoft.PowerShell*.dll, PowerShellStandard*.dll | Should -BeNullOrEmpty
    }

    It 'has each assembly once' {
        Get-ChildItem $bin -Recurse -Filter *.dll | Group-Object Name | Where-Object Count -GT 1 | Should -BeNullOrEmpty
    }

    It 'has the assemblies that are needed, and no others' {
        (Get-ChildItem $bin -Recurse -Filter *.dll).Name | Sort-Object | Should -Be @(
            'Microsoft.Extensions.DependencyInjection.Abstractions.dll'
            'Microsoft.Extensions.Logging.Abstractions.dll'
            'MigrationSafety.dll'
            'MigrationSafety.Engine.dll'
            'MigrationSafety.Module.dll'
            'Npgsql.dll'
            'System.Diagnostics.DiagnosticSource.dll'
        )
    }
}

Describe 'What users see' {
    It 'has no type of Npgsql or the engine in a parameter or an output' {
        $foreign = foreach ($command in Get-Command -Module MigrationSafety) {
            foreach ($parameter in $command.Parameters.Values) {
                $type = $parameter.ParameterType
                while ($type.HasElementType) { $type = $type.GetElementType() }
                foreach ($part in @($type) + $type.GetGenericArguments()) {
                    if ($part.Assembly.GetName().Name -match '^(Npgsql|MigrationSafety\.Engine|Microsoft\.Extensions)') { "$command -$($parameter.Name): $part" }
                }
            }

            foreach ($output in $command.OutputType) {
                if ($output.Name -match '^(Npgsql|MigrationSafety\.Engine)') { "$command returns $($output.Name)" }
            }
        }
        $foreign | Should -BeNullOrEmpty
    }

    It 'comes from an assembly without a dependency' {
        $references = [MigrationSafety.MigrationSession].Assembly.GetReferencedAssemblies().Name
        $references | Where-Object { $_ -notmatch '^(System\.|netstandard|mscorlib)' -or $_ -eq 'System.Management.Automation' } | Should -BeNullOrEmpty
    }
}
