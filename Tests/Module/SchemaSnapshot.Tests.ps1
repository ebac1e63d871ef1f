BeforeAll {
    . $PSScriptRoot/common.ps1
    New-TestDatabase
    $null = Invoke-Sql 'create schema app; create table app.t (id int primary key, note text); create table kept (id int)'
    $script:Other = New-TestDatabase -Another
    $null = Invoke-Sql -Database $Other 'create schema app; create table app.t (id int primary key, note varchar(10)); create table kept (id int)'
    $session = Connect-MigrationDatabase (Get-TestUri)
}

AfterAll {
    $session | Disconnect-MigrationDatabase
    Remove-TestDatabase
    Remove-TestDatabase $Other
}

Describe 'Get-SchemaSnapshot' {
    It 'gives the objects of the current session' {
        $snapshot = Get-SchemaSnapshot
        $snapshot | Should -BeOfType MigrationSafety.SchemaSnapshot
        $snapshot.Database | Should -Be $TestDatabase
        ($snapshot.Objects | Where-Object { $_.Kind -eq 'table column' -and $_.Identity -eq 'app.t.note' }).Properties.Where{ $_.Name -eq 'Type' }.Value | Should -Be 'text'
        (Get-SchemaSnapshot -IncludeSchema app).Objects.Schema | Sort-Object -Unique | Should -Be 'app'
        (Get-SchemaSnapshot -ExcludeSchema a*).Objects.Schema | Should -Not -Contain 'app'
    }

    It 'writes a file, never over another' {
        $path = Join-Path $TestDrive 'one.json'
        (Get-SchemaSnapshot -OutputPath $path).Path | Should -Be $path
        { Get-SchemaSnapshot -OutputPath $path -ErrorAction Stop } | Should -Throw -ErrorId 'FileExists*'
        { Get-SchemaSnapshot -OutputPath $path -Force -ErrorAction Stop } | Should -Not -Throw
        Compare-SchemaSnapshot $path | Should -BeNullOrEmpty
    }

    It 'writes where a drive of PowerShell leads, and nowhere else' {
        (Get-SchemaSnapshot -OutputPath TestDrive:/drive.json).Path | Should -Be (Join-Path (Get-PSDrive TestDrive).Root 'drive.json')
        Compare-SchemaSnapshot TestDrive:/drive.json | Should -BeNullOrEmpty
        { Get-SchemaSnapshot -OutputPath env:snapshot.json } | Should -Throw -ErrorId 'PathIsNoFile,MigrationSafety.Module.Commands.GetSchemaSnapshotCommand'
        { Get-SchemaSnapshot -OutputPath nodrive:/snapshot.json } | Should -Throw -ErrorId 'PathIsNoFile,*'
        { Compare-SchemaSnapshot env:snapshot.json } | Should -Throw -ErrorId 'PathIsNoFile,*'
        [IO.Path]::GetFullPath('snapshot.json') | Should -Not -Exist
    }

    It 'writes a file for each database into a folder' {
        $null = (Get-TestUri), (Get-TestUri $Other) | Get-SchemaSnapshot -OutputPath "$TestDrive/all/"
        (Get-ChildItem "$TestDrive/all").Count | Should -Be 2
        Get-ChildItem "$TestDrive/all" | ForEach-Object { Compare-SchemaSnapshot $_ -Difference $_ } | Should -BeNullOrEmpty
        $null = (Get-TestUri), (Get-TestUri $Other) | Get-SchemaSnapshot -OutputPath "$TestDrive/single.json" -ErrorAction SilentlyContinue -ErrorVariable several
        $several.FullyQualifiedErrorId | Should -BeLike 'SeveralSnapshots*'
    }
}

Describe 'Compare-SchemaSnapshot' {
    It 'tells the difference of two databases, of files and of snapshots alike' {
        $here = Get-SchemaSnapshot -OutputPath "$TestDrive/here.json" -Force
        foreach ($reference in $here, "$TestDrive/here.json", $session, (Get-TestUri)) {
            $difference = Compare-SchemaSnapshot $reference (Get-TestUri $Other)
            $difference | Should -BeOfType MigrationSafety.SchemaDifference
            $difference.Property | Should -Be 'Type'
            $difference.Reference, $difference.Difference | Should -Be 'text', 'character varying(10)'
            $difference.Database | Should -Be $Other
        }
    }

    It 'holds sessions from the pipeline against one reference' {
        $found = (Get-TestUri), (Get-TestUri $Other) | Compare-SchemaSnapshot (Get-SchemaSnapshot)
        $found.Database | Should -Be $Other
        Get-TestUri $Other | Compare-SchemaSnapshot (Get-SchemaSnapshot) -ExcludeProperty type | Should -BeNullOrEmpty
        Get-TestUri $Other | Compare-SchemaSnapshot (Get-SchemaSnapshot) -ExcludeSchema app | Should -BeNullOrEmpty
    }

    It 'says what is wrong with a reference before it connects' {
        Set-Content "$TestDrive/odd.json" '[1]'
        { Compare-SchemaSnapshot "$TestDrive/odd.json" } | Should -Throw -ErrorId 'SnapshotInvalid*'
        { Compare-SchemaSnapshot "$TestDrive/none.json" } | Should -Throw -ErrorId 'FileNotRead*'
    }
}
