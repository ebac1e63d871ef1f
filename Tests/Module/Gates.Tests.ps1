BeforeDiscovery {
    . $PSScriptRoot/common.ps1
    $commands = Get-Command -Module MigrationSafety | ForEach-Object { @{ Name = $_.Name; Command = $_ } }
    # What scripts rely on: a name that is gone or new here is a change of the contract.
    $contract = @(
        @{ Type = 'BackfillResult'; Names = 'Archive', 'Batches', 'Database', 'Duration', 'Errors', 'Name', 'OperationId', 'Outcome', 'Port', 'Remaining', 'Resumed', 'Rows', 'RowsPerSecond', 'Schema', 'Server', 'Steps', 'Strategy', 'Table', 'TotalRows' }
        @{ Type = 'BackfillStatus'; Names = 'Action', 'Archive', 'Database', 'Done', 'ErrorRows', 'Errors', 'FinishedAt', 'LastError', 'MaxErrors', 'Name', 'Percent', 'Port', 'Remaining', 'RemainingTime', 'RowsPerSecond', 'Schema', 'SearchPath', 'Server', 'StartedAt', 'State', 'Strategy', 'Sweep', 'Table', 'TargetBatchTime', 'Throttle', 'TimeZone', 'UpdatedAt', 'User', 'WaitingFor', 'WaitingSince', 'Where', 'Workers', 'WorkersWanted' }
        @{ Type = 'BackfillWorkerStatus'; Names = 'Application', 'Batches', 'ClientAddress', 'Heartbeat', 'Number', 'Pid', 'Rows', 'StartedAt', 'User' }
        @{ Type = 'BackfillError'; Names = 'Again', 'FailedAt', 'Key', 'KeyColumn', 'Message', 'Place', 'SqlState', 'Table' }
        @{ Type = 'BackfillTestResult'; Names = 'Compared', 'Database', 'Detail', 'Different', 'DifferentRow', 'Duration', 'Errors', 'Matching', 'Name', 'Passed', 'Port', 'Rows', 'RowsExpected', 'Schema', 'Server', 'State', 'Table' }
        @{ Type = 'BlockingLock'; Names = 'Application', 'BackendStart', 'BackendType', 'BlockedCount', 'BlockingPid', 'ClientAddress', 'Database', 'Depth', 'Gid', 'HeldMode', 'IdleTime', 'IsDeadlock', 'IsRoot', 'LockType', 'Pid', 'Port', 'PreventsWraparound', 'Query', 'Relation', 'RequestedMode', 'RootPid', 'Server', 'State', 'Timestamp', 'TransactionAge', 'User', 'WaitTime' }
        @{ Type = 'BlockingSessionResult'; Names = 'Application', 'BackendStart', 'Database', 'Duration', 'Ended', 'FreedPid', 'Gid', 'Note', 'Outcome', 'Pid', 'Port', 'Query', 'Server', 'Statement', 'User' }
        @{ Type = 'IndexBuildResult'; Names = 'Attempts', 'Database', 'Definition', 'Duration', 'Error', 'LockWaitTime', 'Name', 'OperationId', 'Outcome', 'Port', 'QueueWaitTime', 'Schema', 'Server', 'SizeBytes', 'SnapshotWaitTime', 'Steps', 'Table', 'WaitTime', 'WriterWaitTime' }
        @{ Type = 'IndexDropResult'; Names = 'Attempts', 'Database', 'Definition', 'Duration', 'Name', 'OperationId', 'Outcome', 'Port', 'Schema', 'Server', 'SizeBytes', 'Steps', 'Table', 'WaitTime' }
        @{ Type = 'IndexRebuildResult'; Names = 'Attempts', 'Database', 'Definition', 'Duration', 'EstimatedBloatPercent', 'Name', 'OperationId', 'Outcome', 'Port', 'Reason', 'Schema', 'Server', 'SizeBytes', 'SizeBytesBefore', 'Steps', 'Table', 'WaitTime' }
        @{ Type = 'InvalidIndex'; Names = 'Advice', 'Database', 'Definition', 'Detail', 'MissingPartition', 'Name', 'Original', 'PaidByWrites', 'Pid', 'Port', 'Reason', 'Repair', 'Schema', 'Server', 'SizeBytes', 'Table', 'Unique' }
        @{ Type = 'MigrationOperation'; Names = 'Action', 'Application', 'BackendStart', 'ClientAddress', 'ComputerName', 'Database', 'Duration', 'ErrorId', 'FinishedAt', 'Id', 'Message', 'Operation', 'Outcome', 'Phases', 'Pid', 'Port', 'RecommendedAction', 'Retries', 'Reversibility', 'Rows', 'Samples', 'Schema', 'Server', 'SqlState', 'StartedAt', 'Steps', 'SystemUser', 'Table', 'Target', 'User', 'WaitTime' }
        @{ Type = 'OperationPhase'; Names = 'Command', 'Duration', 'Name', 'StartedAt', 'Target', 'Total', 'WaitTime' }
        @{ Type = 'OperationSample'; Names = 'Batches', 'BatchTime', 'Interval', 'Lag', 'LagBytes', 'LongestBatch', 'Rows', 'Time' }
        @{ Type = 'MigrationProgress'; Names = 'Application', 'BlockedBy', 'Confidence', 'Counters', 'Database', 'Done', 'Elapsed', 'EstimatedEnd', 'Index', 'Name', 'Operation', 'Percent', 'Phase', 'PhaseCount', 'PhaseNumber', 'PhasePercent', 'Pid', 'Port', 'Query', 'Rate', 'Remaining', 'Server', 'Target', 'Timestamp', 'Total', 'Unit', 'User', 'WaitingFor' }
        @{ Type = 'ProgressResult'; Names = 'Application', 'Database', 'Detail', 'Elapsed', 'EndedAt', 'Index', 'Name', 'Operation', 'Outcome', 'Pid', 'Port', 'Query', 'Server', 'Target', 'User' }
        @{ Type = 'MigrationSession'; Names = 'ConnectedAt', 'Database', 'Id', 'IsStandby', 'Port', 'Server', 'ServerVersion', 'State', 'User' }
        @{ Type = 'MigrationStep'; Names = 'Attempts', 'Cost', 'Duration', 'LockMode', 'LockWaits', 'Objects', 'Purpose', 'Reversal', 'ReversalNote', 'Reversibility', 'Sql', 'StartedAt', 'State', 'Transactional' }
        @{ Type = 'LockWait'; Names = 'Blockers', 'Cause', 'Queued', 'Start', 'WaitTime' }
        @{ Type = 'LockBlocker'; Names = 'Application', 'BackendStart', 'BackendType', 'ClientAddress', 'Granted', 'IsAutovacuum', 'Mode', 'Pid', 'PreventsWraparound', 'Query', 'Relation', 'State', 'TransactionAge', 'User' }
        @{ Type = 'RollbackDifference'; Names = 'Existing', 'Generated', 'Kind', 'Line', 'Note' }
        @{ Type = 'RollbackScript'; Names = 'BeforePath', 'BeforeText', 'Differences', 'ExistingPath', 'Files', 'Format', 'InputFormat', 'Path', 'Reversibility', 'Source', 'Statements', 'Text', 'Warnings' }
        @{ Type = 'LostValue'; Names = 'Column', 'Rows', 'Sampled', 'Table' }
        @{ Type = 'RollbackTestPhase'; Names = 'Duration', 'File', 'Line', 'Message', 'Outcome', 'SqlState', 'Stage', 'Statement', 'Statements' }
        @{ Type = 'RollbackTestResult'; Names = 'CopyOf', 'Database', 'Differences', 'Duration', 'LostValues', 'Notes', 'Path', 'Phases', 'Port', 'Proved', 'RepeatDifferences', 'Rollback', 'SampledRows', 'Server' }
        @{ Type = 'SchemaDifference'; Names = 'Change', 'Database', 'Difference', 'Identity', 'Kind', 'Port', 'Property', 'Reference', 'Server' }
        @{ Type = 'SchemaObject'; Names = 'Identity', 'Kind', 'Parent', 'Properties', 'Schema' }
        @{ Type = 'SchemaProperty'; Names = 'Name', 'Value' }
        @{ Type = 'SchemaSnapshot'; Names = 'Database', 'Objects', 'Path', 'Port', 'Server', 'ServerVersion', 'TakenAt' }
        @{ Type = 'RollbackStatement'; Names = 'EstimatedRows', 'LockMode', 'Line', 'Note', 'Objects', 'Reversal', 'Reversibility', 'Statement', 'Transactional' }
    )
}

BeforeAll {
    . $PSScriptRoot/common.ps1
    $common = [System.Management.Automation.PSCmdlet]::CommonParameters + [System.Management.Automation.PSCmdlet]::OptionalCommonParameters
    $types = @{
        Session       = [MigrationSafety.SessionArgument[]]
        Credential    = [pscredential]
        ThrottleLimit = [int]
        AsJob         = [switch]
        LockTimeout   = [MigrationSafety.Duration]
        RetryFor      = [MigrationSafety.Duration]
        WaitFor       = [MigrationSafety.Duration]
        Watch         = [switch]
        Interval      = [MigrationSafety.Duration]
        Table         = [string]
        Schema        = [string]
        Name          = [string]
        Path          = [string[]]
        LiteralPath   = [string[]]
        InputObject   = [psobject]
        Force         = [switch]
        PassThru      = [switch]
    }
}

Describe 'Every command' {
    It 'is named with an approved verb and a singular noun: <Name>' -ForEach $commands {
        (Get-Verb).Verb | Should -Contain $Command.Verb
        $Command.Noun | Should -Not -Match '[^su]s$'
    }

    It 'says what it returns: <Name>' -ForEach $commands {
        $Command.OutputType | Should -Not -BeNullOrEmpty
        foreach ($output in $Command.OutputType | Where-Object Name -NotIn 'System.Void', 'System.IO.FileInfo') {
            $output.Type | Should -Not -BeNullOrEmpty
            $output.Type.Assembly.GetName().Name | Should -BeIn 'MigrationSafety', 'MigrationSafety.Module'
        }
    }

    It 'completes the names of the database: <Name>' -ForEach $commands {
        foreach ($parameter in $Command.Parameters.Values | Where-Object Name -In 'Table', 'Schema', 'Column') {
            $parameter.Attributes.Type.Name | Should -Contain "$($parameter.Name)NameCompleter" -Because "-$($parameter.Name)"
        }
    }

    It 'has the parameters that all have, with the same types: <Name>' -ForEach $commands {
        foreach ($parameter in $Command.Parameters.Values | Where-Object { $types.ContainsKey($_.Name) }) {
            # Disconnect takes open sessions alone, not texts; Export writes one file, as Export-Csv does.
            $wanted = if ($Name -eq 'Disconnect-MigrationDatabase') { [MigrationSafety.MigrationSession[]] } elseif ($Name -like 'Export-*' -and $parameter.Name -in 'Path', 'LiteralPath') { [string] } else { $types[$parameter.Name] }
            $parameter.ParameterType | Should -Be $wanted -Because "-$($parameter.Name)"
        }

        if ($Name -notlike '*-MigrationDatabase' -and $Name -notin 'Get-MigrationSession', 'Export-MigrationReport') {
            $Command.Parameters.Keys | Should -Contain 'Session'
            $Command.Parameters.Keys | Should -Contain 'Credential'
            $Command.Parameters['Credential'].Attributes.TypeId.Name | Should -Contain 'CredentialAttribute'
        }
    }

    It 'asks before it changes something, and only then: <Name>' -ForEach $commands {
        $changes = $Command.Verb -notin 'Get', 'Connect', 'Disconnect', 'Compare' -and $Name -ne 'Test-Backfill'
        $Command.Parameters.ContainsKey('WhatIf') | Should -Be $changes
        $Command.Parameters.ContainsKey('Confirm') | Should -Be $changes
    }

    It 'has the parameters of a long operation where it is one: <Name>' -ForEach $commands {
        $long = $Command.OutputType.Name -contains 'MigrationSafety.Module.Pipeline.MigrationJob'
        $Command.Parameters.ContainsKey('AsJob') | Should -Be $long
        foreach ($parameter in 'LockTimeout', 'RetryFor') {
            # In a scratch database nobody is in the way, and nobody waits.
            $Command.Parameters.ContainsKey($parameter) | Should -Be ($long -and $Name -ne 'Test-RollbackScript')
        }

        if ($Command.Parameters['Session'] -and $Command.Parameters.ContainsKey('ThrottleLimit')) {
            $Command.Parameters['Session'].Attributes.ValueFromPipeline | Should -Contain $true
        }
    }

    It 'takes objects by property name where it is about tables: <Name>' -ForEach $commands {
        if ($Command.Parameters.ContainsKey('Table') -and $Command.Parameters['Table'].Attributes.Mandatory -contains $true) {
            foreach ($parameter in 'Table', 'Schema') {
                $Command.Parameters[$parameter].Attributes.ValueFromPipelineByPropertyName | Should -Contain $true -Because "-$parameter"
            }
            # The Name of a result names an index here and a backfill there.
            $Command.Parameters['Name'].Attributes.ValueFromPipelineByPropertyName | Should -Not -Contain $true
        }
    }

    It 'has parameter names in the singular and in Pascal case: <Name>' -ForEach $commands {
        # A number of workers has no singular.
        foreach ($parameter in $Command.Parameters.Keys | Where-Object { $_ -notin $common -and $_ -ne 'ParallelWorkers' }) {
            $parameter | Should -MatchExactly '^[A-Z][A-Za-z]+$'
            # Counts are of many, and so is what a switch keeps.
            if ($parameter -notin 'Workers', 'MaxErrors', 'KeepOldValues') { $parameter | Should -Not -Match '[^su]s$' }
        }
    }
}

Describe 'The properties of what is returned' {
    It 'are the known ones: <Type>' -ForEach $contract {
        $found = ("MigrationSafety.$Type" -as [type]).GetProperties([System.Reflection.BindingFlags] 'Public, Instance').Name
        $found | Sort-Object | Should -Be ($Names | Sort-Object)
    }

    It 'can be serialised: <Type>' -ForEach $contract {
        foreach ($property in ("MigrationSafety.$Type" -as [type]).GetProperties([System.Reflection.BindingFlags] 'Public, Instance')) {
            $of = $property.PropertyType
            # A dictionary from names to numbers and texts stays one.
            if ($of -eq [System.Collections.Generic.Dictionary[string, object]]) { continue }
            if ($of.IsArray) { $of = $of.GetElementType() }
            $of = [System.Nullable]::GetUnderlyingType($of) ?? $of
            $good = $of.IsPrimitive -or $of.IsEnum -or $of -in [string], [timespan], [datetimeoffset], [version] -or $of.Name -in $contract.Type
            $good -or $of.Namespace -eq 'MigrationSafety' | Should -BeTrue -Because "$($property.Name) is a $of"
        }
    }

    It 'are all covered by this list' {
        $returned = (Get-Command -Module MigrationSafety).OutputType.Type | Where-Object { $_ -and $_.Namespace -eq 'MigrationSafety' } | ForEach-Object Name | Sort-Object -Unique
        $listed = @(
            'BackfillResult'
            'BackfillStatus'
            'BackfillTestResult'
            'BlockingLock'
            'BlockingSessionResult'
            'IndexBuildResult'
            'IndexDropResult'
            'IndexRebuildResult'
            'InvalidIndex'
            'MigrationOperation'
            'MigrationProgress'
            'MigrationSession'
            'ProgressResult'
            'RollbackScript'
            'RollbackTestResult'
            'SchemaDifference'
            'SchemaSnapshot'
        )
        $returned | Should -Be $listed
    }
}
