BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $folder = Join-Path $TestDrive 'migrations'
    $null = New-Item -ItemType Directory $folder
    Set-Content (Join-Path $folder '001_tier.sql') 'alter table orders add column tier text;'
    Set-Content -LiteralPath (Join-Path $folder '002_index[1].sql') 'create index concurrently orders_tier_idx on orders (tier);'
    Set-Content (Join-Path $folder '003_table.up.sql') 'create table extra (id int primary key);'
    $tool = Join-Path $TestDrive 'tool'
    $null = New-Item -ItemType Directory $tool
    Set-Content (Join-Path $tool '1_tier.sql') "-- migrate:up`ncreate index concurrently i on orders (tier);`n-- migrate:down transaction:false`ndrop index i;"
    Set-Content (Join-Path $tool '2_extra.up.sql') 'create table extra (id int);'
    Set-Content (Join-Path $tool '2_extra.down.sql') '-- nothing'
    Set-Content (Join-Path $tool '3_both.sql') "-- migrate:up`n-- +goose Up`ncreate table t (a int);`n-- migrate:down"
}

AfterAll {
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase
}

Describe 'New-RollbackScript' {
    Context 'Input' {
        It 'takes a path, without any server' {
            $script = New-RollbackScript "$folder/001_tier.sql"
            $script | Should -BeOfType MigrationSafety.RollbackScript
            $script.Source | Should -Be '001_tier.sql'
            $script.Text | Should -BeLike '*ALTER TABLE*orders*DROP COLUMN*tier*'
            "$($script.Reversibility)" | Should -Be 'ReversibleWithDataLoss'
            $script.Statements | Should -HaveCount 1
            $script.Statements[0].Line | Should -Be 1
        }

        It 'takes wildcards, a literal path, and files from the pipeline' {
            New-RollbackScript -Path "$folder/*.sql" | Should -HaveCount 3
            $text = New-RollbackScript -Sql "-- migrate:up`ncreate table made (id int);`n-- migrate:down`n"
            $text.Text | Should -BeLike '*drop table if exists*made*'
            "$($text.InputFormat)" | Should -Be 'Dbmate'
            (New-RollbackScript -LiteralPath "$folder/002_index[1].sql").Text | Should -BeLike '*DROP INDEX CONCURRENTLY*orders_tier_idx*'
            (Get-ChildItem $folder | New-RollbackScript).Source | Should -Be '001_tier.sql', '002_index[1].sql', '003_table.up.sql'
            "$folder/001_tier.sql" | New-RollbackScript | Should -HaveCount 1
        }

        It 'takes the path from the current location' {
            Push-Location $folder
            try { (New-RollbackScript 001_tier.sql).Source | Should -Be '001_tier.sql' }
            finally { Pop-Location }
        }

        It 'asks the catalog where there is a session' {
            $null = Invoke-Sql 'create table orders (id int, old text default ''x'')'
            $file = Join-Path $TestDrive 'drop.sql'
            Set-Content $file 'create index on orders (old);'
            (New-RollbackScript $file -Session (Get-TestUri)).Text | Should -BeLike '*orders_old_idx*'
            $null = Invoke-Sql 'drop table orders'
        }
    }

    Context 'Files of migration tools' {
        It 'are told from what is in them, and what they cannot do is warned of' {
            $script = New-RollbackScript "$tool/1_tier.sql" -WarningVariable warnings -WarningAction SilentlyContinue
            "$($script.InputFormat)" | Should -Be 'Dbmate'
            $script.ExistingPath | Should -Be (Join-Path $tool '1_tier.sql')
            "$($script.Differences.Kind)" | Should -Be 'Different'
            $script.Differences[0].Line | Should -Be 4
            $script.Warnings | Should -HaveCount 1
            $warnings | Should -HaveCount 2
            "$($warnings[0])" | Should -BeLike '1_tier.sql: Line 2: *will fail*transaction:false*'
            "$($warnings[1])" | Should -BeLike '*differs from this one in 1 point: see Differences.'
            $script.Differences | Format-Table | Out-String -Width 80 | Should -Match 'Different +4 drop index i'
        }

        It 'are passed over where they are the rollback of another' {
            $scripts = Get-ChildItem "$tool/2*" | New-RollbackScript -WarningAction SilentlyContinue -Verbose 4>&1
            ($scripts | Where-Object { $_ -is [MigrationSafety.RollbackScript] }).Source | Should -Be '2_extra.up.sql'
            "$($scripts | Where-Object { $_ -is [System.Management.Automation.VerboseRecord] })" | Should -BeLike '*2_extra.down.sql is the rollback of 2_extra.up.sql*'
        }

        It 'with a rollback of comments have none' {
            $script = New-RollbackScript "$tool/2_extra.up.sql" -WarningAction SilentlyContinue
            $script.Warnings | Should -BeLike '*2_extra.down.sql holds no statement: it takes nothing back.'
            $script.ExistingPath | Should -BeNullOrEmpty
            $script.Differences | Should -BeNullOrEmpty
        }

        It 'are read as the user says' {
            "$((New-RollbackScript "$tool/3_both.sql" -InputFormat Dbmate -WarningAction SilentlyContinue).InputFormat)" | Should -Be 'Dbmate'
        }
    }

    Context 'Output' {
        It 'is written to a file, or to a folder under the name of the migration' {
            $target = Join-Path $TestDrive 'undo.sql'
            $script = New-RollbackScript "$folder/001_tier.sql" -OutputPath $target
            $script.Path | Should -Be $target
            Get-Content $target -Raw | Should -Be $script.Text
            $target = Join-Path $TestDrive 'undo'
            $written = New-RollbackScript "$folder/*.sql" -OutputPath "$target/"
            (Get-ChildItem $target).Name | Should -Be '001_tier.down.sql', '002_index[1].down.sql', '003_table.down.sql'
            ($written.Path | Split-Path -Leaf) | Should -Be (Get-ChildItem $target).Name
        }

        It 'is written in the layout of a tool, the migration kept' {
            $target = Join-Path $TestDrive 'dbmate'
            $null = New-Item -ItemType Directory $target
            Copy-Item "$tool/1_tier.sql" $target
            $call = @{ Path = "$target/1_tier.sql"; Format = 'Dbmate'; OutputPath = "$target/"; WarningAction = 'SilentlyContinue' }
            { New-RollbackScript @call } | Should -Throw -ErrorId 'FileExists,*'
            $null = New-RollbackScript @call -Force -WhatIf
            Get-Content "$target/1_tier.sql" | Should -HaveCount 4
            $script = New-RollbackScript @call -Force
            $script.Files | Should -Be (Join-Path $target '1_tier.sql')
            $lines = Get-Content "$target/1_tier.sql"
            $lines[0..1] | Should -Be '-- migrate:up', 'create index concurrently i on orders (tier);'
            $lines[-1] | Should -Be 'drop index concurrently if exists i;'
            Get-Content "$target/1_tier.sql" -Raw | Should -Be $script.Text
            # The name of the migration tells the rest: a second run finds no difference.
            (New-RollbackScript "$target/1_tier.sql" -WarningAction SilentlyContinue).Differences | Should -BeNullOrEmpty
        }

        It 'is several files where the tool needs them' {
            $file = Join-Path $TestDrive 'V7__mixed.sql'
            Set-Content $file "create table t7 (a int);`ncreate index concurrently i7 on orders (tier);"
            $script = New-RollbackScript $file -Format Flyway -OutputPath "$TestDrive/fly/" -WarningAction SilentlyContinue
            $script.Files | Split-Path -Leaf | Should -Be 'U7__mixed.sql', 'U7__mixed.sql.conf'
            Get-Content $script.Files[1] | Should -Be 'executeInTransaction=false'
            "$($script.Format)" | Should -Be 'Flyway'
            $script.Warnings[-1] | Should -BeLike '*transactional.lock*'
            (New-RollbackScript "$folder/001_tier.sql" -Format Sqitch -OutputPath "$TestDrive/app/revert/" -WarningAction SilentlyContinue).Files |
                Should -Be (Join-Path $TestDrive 'app/revert/tier.sql'), (Join-Path $TestDrive 'app/deploy/tier.sql')
        }

        It 'keeps what would be lost, with a script to run before the migration' {
            $null = Invoke-Sql 'create table keeping (id int primary key, note text); insert into keeping values (1, ''x'')'
            $file = Join-Path $TestDrive 'keep.sql'
            Set-Content $file 'alter table keeping drop column note;'
            $target = Join-Path $TestDrive 'keep.down.sql'
            $script = New-RollbackScript $file -PreserveData -OutputPath $target -Session (Get-TestUri)
            $script.BeforePath | Should -Be (Join-Path $TestDrive 'keep.before.sql')
            Get-Content $script.BeforePath -Raw | Should -Be $script.BeforeText
            $script.BeforeText | Should -BeLike '*create table if not exists migration_safety.kept_*select id, note from only public.keeping*'
            "$($script.Reversibility)" | Should -Be 'Reversible'
            { New-RollbackScript $file -PreserveData -OutputPath (Join-Path $TestDrive 'other.down.sql') } | Should -Throw -ErrorId 'NoSession,MigrationSafety.Module.Commands.NewRollbackScriptCommand'
            $lossy = New-RollbackScript $file -Session (Get-TestUri)
            $lossy.BeforeText | Should -BeNullOrEmpty
            "$($lossy.Reversibility)" | Should -Be 'ReversibleWithDataLoss'
            $null = Invoke-Sql 'drop table keeping'
        }

        It 'is not written over a file without -Force' {
            $target = Join-Path $TestDrive 'there.sql'
            Set-Content $target 'mine'
            { New-RollbackScript "$folder/001_tier.sql" -OutputPath $target } | Should -Throw -ErrorId 'FileExists,MigrationSafety.Module.Commands.NewRollbackScriptCommand'
            Get-Content $target | Should -Be 'mine'
            $null = New-RollbackScript "$folder/001_tier.sql" -OutputPath $target -Force
            Get-Content $target -Raw | Should -BeLike '*DROP COLUMN*'
        }

        It 'is not written outside of the file system' {
            { New-RollbackScript "$folder/001_tier.sql" -OutputPath env:undo.sql } | Should -Throw -ErrorId 'PathIsNoFile,MigrationSafety.Module.Commands.NewRollbackScriptCommand'
            { New-RollbackScript -LiteralPath env:PATH } | Should -Throw -ErrorId 'PathIsNoFile,*'
            [IO.Path]::GetFullPath('undo.sql') | Should -Not -Exist
        }

        It 'is not written with -WhatIf' {
            $target = Join-Path $TestDrive 'never.sql'
            (New-RollbackScript "$folder/001_tier.sql" -OutputPath $target -WhatIf).Path | Should -BeNullOrEmpty
            Test-Path $target | Should -BeFalse
        }

        It 'has a view with the text' {
            $text = New-RollbackScript "$folder/001_tier.sql" | Format-List | Out-String -Width 80
            $text | Should -Match 'ReversibleWithDataLoss'
            $text | Should -Match 'DROP COLUMN'
            # Wrapped, not cut: the statement is what the reader needs.
        (New-RollbackScript "$folder/001_tier.sql").Statements | Format-Table | Out-String -Width 80 | ForEach-Object { $_ -replace '\s' } | Should -Match 'drop.*column.*tier'
        }
    }

    Context 'What goes wrong' {
        It 'is told by its id: <Id>' -ForEach @(
            @{ Id = 'FileNotFound'; Category = 'ObjectNotFound'; Call = { New-RollbackScript "$folder/nothing.sql" } }
            @{ Id = 'FileNotFound'; Category = 'ObjectNotFound'; Call = { New-RollbackScript -LiteralPath "$folder/nothing.sql" } }
            @{ Id = 'InputNotUnderstood'; Category = 'InvalidArgument'; Call = { 5 | New-RollbackScript } }
            @{ Id = 'FormatAmbiguous'; Category = 'InvalidArgument'; Call = { New-RollbackScript "$TestDrive/tool/3_both.sql" } }
            @{ Id = 'FormatNotFound'; Category = 'InvalidArgument'; Call = { New-RollbackScript "$folder/001_tier.sql" -InputFormat Goose } }
            @{ Id = 'IsRollback'; Category = 'InvalidArgument'; Call = { New-RollbackScript "$TestDrive/tool/2_extra.down.sql" } }
            @{ Id = 'SeveralScripts'; Category = 'InvalidArgument'; Call = { New-RollbackScript "$folder/*.sql" -OutputPath "$TestDrive/one.sql" } }
            @{ Id = 'SeveralSessions'; Category = 'InvalidArgument'; Call = { New-RollbackScript "$folder/001_tier.sql" -Session 'a=b', 'c=d' } }
        ) {
            $failure = { & $Call } | Should -Throw -PassThru -ErrorId "$Id,MigrationSafety.Module.Commands.NewRollbackScriptCommand"
            "$($failure.CategoryInfo.Category)" | Should -Be $Category
        }

        It 'does not stop the next file' {
            $scripts = "$folder/nothing.sql", "$folder/001_tier.sql" | New-RollbackScript -ErrorAction SilentlyContinue -ErrorVariable failures
            $scripts.Source | Should -Be '001_tier.sql'
            $failures | Should -HaveCount 1
        }
    }
}

Describe 'The runbook' {
    It 'is one pipe: build, fill, and the script that takes all back' {
        $null = Invoke-Sql 'create table orders (id bigint primary key, tier text); insert into orders select i from generate_series(1, 3000) i'
        $null = Connect-MigrationDatabase (Get-TestUri)
        $results = & {
            Invoke-SafeIndexBuild orders tier
            Start-Backfill orders @{ tier = "'standard'" }
        }
        $results | Should -HaveCount 2
        Get-SqlValue 'select count(*) from orders where tier is null' | Should -Be 0
        $script = $results | New-RollbackScript
        $script | Should -HaveCount 1
        @($script.Statements | Where-Object Reversal) | Should -HaveCount 2
        # Not the statement of one batch.
        $script.Text | Should -Match "(?m)^-- 1\. Takes back backfill public\.orders\.tier of public\.orders, 3,000 rows done: Set tier = 'standard'"
        # The checkpoints of other backfills are not this migration's to drop.
        @($script.Statements.Reversal) -match 'migration_safety' | Should -BeNullOrEmpty
        foreach ($statement in $script.Statements | Where-Object Reversal) { $null = Invoke-Sql $statement.Reversal }
        Get-SqlValue "select to_regclass('orders_tier_idx')::text" | Should -BeNullOrEmpty
    }
}
