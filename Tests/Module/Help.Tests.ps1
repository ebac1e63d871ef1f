BeforeDiscovery {
    $commands = (Import-PowerShellDataFile -LiteralPath "$PSScriptRoot/../../MigrationSafety.psd1").CmdletsToExport
}

BeforeAll {
    . $PSScriptRoot/common.ps1
    $helpFile = Join-Path $RepositoryRoot 'en-US' 'MigrationSafety.Module.dll-Help.xml'
    $maml = @{}
    foreach ($command in ([xml] (Get-Content -Raw -LiteralPath $helpFile)).helpItems.command) { $maml[$command.details.name] = $command }

    # Parameters as the command itself declares them, for a parameter set or for all.
    function Get-DeclaredParameter([string] $Command, [string] $Set) {
        $common = [System.Management.Automation.Cmdlet]::CommonParameters
        (Get-Command $Command).ParameterSets | Where-Object { -not $Set -or $_.Name -eq $Set } | ForEach-Object { $_.Parameters } |
            Where-Object Name -NotIn $common | Sort-Object -Property Name -Unique
    }

    function Get-Pipeline($Parameter) {
        if ($Parameter.ValueFromPipeline) { 'True (ByValue)' } elseif ($Parameter.ValueFromPipelineByPropertyName) { 'True (ByPropertyName)' } else { 'False' }
    }
}

Describe 'The help file' {
    It 'stands beside the manifest, as it is in the sources' {
        (Get-FileHash $helpFile).Hash | Should -Be (Get-FileHash (Join-Path $RepositoryRoot 'src/en-US/MigrationSafety.Module.dll-Help.xml')).Hash
    }

    It 'is about the exported commands and no others' {
        $maml.Keys | Sort-Object | Should -Be ((Get-Command -Module MigrationSafety).Name | Sort-Object)
    }
}

Describe 'about_MigrationSafety' {
    It 'is found by Get-Help' {
        Get-Help about_MigrationSafety | Out-String | Should -BeLike '*EXPAND AND CONTRACT*'
    }

    It 'fits 80 columns' {
        Get-Content (Join-Path $RepositoryRoot 'src/en-US/about_MigrationSafety.help.txt') | Where-Object Length -GT 80 | Should -BeNullOrEmpty
    }

    It 'names only commands and parameters that there are' {
        $text = Get-Content -Raw (Join-Path $RepositoryRoot 'src/en-US/about_MigrationSafety.help.txt')
        $known = (Get-Command -Module MigrationSafety).Name
        [regex]::Matches($text, '\b[A-Z][a-z]+-(Migration\w+|Safe\w+|Backfill|Blocking\w+|Rollback\w+)').Value | Sort-Object -Unique | Should -BeIn $known
    }
}

Describe 'The README' {
    It 'shows the runbook as it is' {
        $null = (Get-Content -Raw (Join-Path $RepositoryRoot 'README.md')) -match '(?s)```powershell\n(.*?)```'
        $script = Get-Content (Join-Path $RepositoryRoot 'Tests/Sandbox/runbook.ps1')
        # Only what comes from the script's parameters is written out: module, database, files.
        $own = '^(Import-Module|Connect-MigrationDatabase|.*New-RollbackScript.* -OutputPath|.*Export-MigrationReport -Path) '
        $Matches[1].TrimEnd() -split '\n' | Where-Object { $_ -notmatch $own -and $_ -cnotin $script } | Should -BeNullOrEmpty
    }
}

Describe 'Help of <_>' -ForEach $commands {
    BeforeAll {
        $name = $_
        $help = $maml[$name]
    }

    It 'is found by Get-Help' {
        (Get-Help $name).Synopsis | Should -Be $help.details.description.para
        $help.details.description.para | Should -Not -BeNullOrEmpty
    }

    It 'describes each parameter as it is declared' {
        $declared = Get-DeclaredParameter $name
        $help.parameters.parameter.name | Sort-Object | Should -Be $declared.Name
        foreach ($parameter in $declared) {
            $described = $help.parameters.parameter | Where-Object name -EQ $parameter.Name
            $attributes = (Get-Command $name).Parameters[$parameter.Name].Attributes
            $because = "-$($parameter.Name) is declared so"
            $described.description.para | Should -Not -BeNullOrEmpty -Because $because
            $described.required | Should -Be "$($parameter.IsMandatory)" -Because $because
            $described.position | Should -Be $(if ($parameter.Position -lt 0) { 'named' } else { "$($parameter.Position)" }) -Because $because
            $described.pipelineInput | Should -Be (Get-Pipeline $parameter) -Because $because
            $described.aliases | Should -Be $(if ($parameter.Aliases.Count) { $parameter.Aliases -join ', ' } else { 'none' }) -Because $because
            $described.globbing | Should -Be "$($attributes.TypeId -contains [SupportsWildcards])" -Because $because
            $type = [System.Nullable]::GetUnderlyingType($parameter.ParameterType) ?? $parameter.ParameterType
            $described.type.name | Should -Be $type.FullName -Because $because
            $described.parameterValue.InnerText | Should -Be $type.Name -Because $because
        }
    }

    It 'states the defaults that the command has' {
        $cmdlet = [Activator]::CreateInstance((Get-Command $name).ImplementingType)
        foreach ($parameter in $help.parameters.parameter) {
            $default = $cmdlet.($parameter.name)
            if ($default -is [MigrationSafety.Duration]) {
                ([MigrationSafety.Duration] $parameter.defaultValue).Value | Should -Be $default.Value -Because "-$($parameter.name) has this default"
            } elseif ($default -is [int]) {
                $parameter.defaultValue | Should -Be "$default" -Because "-$($parameter.name) has this default"
            }
        }
    }

    It 'has the syntax of each parameter set' {
        $sets = (Get-Command $name).ParameterSets
        @($help.syntax.syntaxItem).Count | Should -Be $sets.Count
        foreach ($set in $sets) {
            $expected = (Get-DeclaredParameter $name $set.Name).Name -join ' '
            @($help.syntax.syntaxItem | ForEach-Object { ($_.parameter.name | Sort-Object) -join ' ' }) | Should -Contain $expected
        }
        foreach ($parameter in $help.syntax.syntaxItem.parameter) {
            $described = $help.parameters.parameter | Where-Object name -EQ $parameter.name
            foreach ($attribute in 'required', 'position', 'pipelineInput', 'globbing', 'variableLength', 'aliases') {
                $parameter.$attribute | Should -Be $described.$attribute -Because "-$($parameter.name) is described so"
            }
        }
    }

    It 'names the types that the command returns' {
        $types = (Get-Command $name).OutputType.Type | ForEach-Object { if ($_ -eq [void]) { 'None' } else { $_.FullName } }
        $help.returnValues.returnValue.type.name | Should -Be $types
    }

    It 'has two examples at least, one of them a pipeline, that fit the command' {
        $examples = @($help.examples.example)
        $examples.Count | Should -BeGreaterOrEqual 2
        $pipelines = 0
        foreach ($example in $examples) {
            $errors = $null
            $ast = [System.Management.Automation.Language.Parser]::ParseInput($example.code, [ref] $null, [ref] $errors)
            $errors | Should -BeNullOrEmpty
            $example.remarks.para | Should -Not -BeNullOrEmpty
            $pipelines += @($ast.FindAll({ $args[0] -is [System.Management.Automation.Language.PipelineAst] -and $args[0].PipelineElements.Count -gt 1 }, $true)).Count
            $calls = @($ast.FindAll({ $args[0] -is [System.Management.Automation.Language.CommandAst] }, $true))
            @($calls | ForEach-Object { $_.GetCommandName() }) | Should -Contain $name
            foreach ($call in $calls) {
                $command = Get-Command $call.GetCommandName() -ErrorAction Ignore
                if ($command.ModuleName -eq 'MigrationSafety') {
                    $call.CommandElements | Where-Object { $_ -is [System.Management.Automation.Language.CommandParameterAst] -and $_.ParameterName -notin $command.Parameters.Keys } |
                        Should -BeNullOrEmpty
                }
            }
        }
        $pipelines | Should -BeGreaterThan 0
    }

    It 'links to what there is' {
        foreach ($link in $help.relatedLinks.navigationLink.linkText) {
            Get-Help $link -ErrorAction Stop | Should -Not -BeNullOrEmpty
        }
    }
}
