BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $null = Invoke-Sql @'
create schema shop;
create table orders (id bigint primary key, tier text);
insert into orders select i, 't' || i % 3 from generate_series(1, 1000) i;
create table shop."Items" (id bigint, name text);
insert into shop."Items" values (1, 'a'), (1, 'a')
'@
    foreach ($statement in 'create unique index concurrently orders_tier_key on orders (tier)', 'create unique index concurrently "Items key" on shop."Items" (id)') {
        { Invoke-Sql $statement } | Should -Throw '*could not create unique index*'
    }

    $session = Connect-MigrationDatabase (Get-TestUri)
}

AfterAll {
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase
}

Describe 'Get-InvalidIndex' {
    It 'finds them all, with names as SQL writes them' {
        $found = Get-InvalidIndex
        $found | Should -BeOfType MigrationSafety.InvalidIndex
        $found.Name | Should -Be 'orders_tier_key', '"Items key"'
        $found[1].Schema, $found[1].Table, "$($found[1].Reason)", "$($found[1].Repair)", $found[1].Unique, $found[1].PaidByWrites | Should -Be 'shop', '"Items"', 'FailedUniqueBuild', 'Rebuild', $true, $false
        $found[1].Advice | Should -BeLike "*Invoke-SafeIndexDrop -Schema shop -Name '`"Items key`"'"
    }

    It 'takes a table, a schema, and sessions from the pipeline' {
        (Get-InvalidIndex orders).Name | Should -Be 'orders_tier_key'
        (Get-InvalidIndex -Schema shop).Name | Should -Be '"Items key"'
        (Get-InvalidIndex Items -Schema shop).Name | Should -Be '"Items key"'
        ($session | Get-InvalidIndex).Database | Should -Be $TestDatabase, $TestDatabase
        Get-TestUri | Get-InvalidIndex orders | Should -HaveCount 1
    }

    It 'is told by its id: <Id>' -ForEach @(
        @{ Id = 'TableNotFound'; Parameters = @{ Table = 'nothing' } }
        @{ Id = 'SchemaNotFound'; Parameters = @{ Schema = 'nowhere' } }
    ) {
        { Get-InvalidIndex @Parameters } | Should -Throw -ErrorId "$Id,MigrationSafety.Module.Commands.GetInvalidIndexCommand"
    }

    It 'shows the reason and the repair within 80 columns' {
        $text = Get-InvalidIndex | Out-String -Width 80
        $text | Should -Match 'orders_tier_key\s+FailedUniqueBuild\s+Rebuild'
        $text | Should -Not -Match '#ERR'
        $text -split '\r?\n' | Where-Object Length -GT 80 | Should -BeNullOrEmpty
    }
}
