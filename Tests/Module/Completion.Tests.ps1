BeforeAll {
    . $PSScriptRoot/common.ps1
    New-TestDatabase
    $null = Invoke-Sql @'
create schema sales;
create schema "Odd Schema";
create table orders (id int primary key, "Tier" text, "it's" int, status text);
create table order_items (id int primary key);
create table "Order" (id int primary key);
create table sales.orders_archive (id int primary key, closed_on date);
create table "Odd Schema"."a table" (id int);
create view orders_view as select 1 as one;
'@
    function Complete([string] $Line) {
        (TabExpansion2 $Line $Line.Length).CompletionMatches
    }
    $script:Other = New-TestDatabase -Another
    $null = Invoke-Sql -Database $Other 'create table elsewhere (id int primary key)'
    $session = Connect-MigrationDatabase (Get-TestUri)
}

AfterAll {
    $session | Disconnect-MigrationDatabase
    Remove-TestDatabase
    Remove-TestDatabase $Other
}

Describe 'Completion of live names' {
    It 'offers the tables that begin so, those of the search_path bare' {
        (Complete 'Start-Backfill -Table ord').CompletionText | Should -Be @("'""Order""'", 'order_items', 'orders', 'sales.orders_archive')
        (Complete 'Start-Backfill -Table orders')[0].ToolTip | Should -BeLike 'table public*'
    }

    It 'offers other schemas with their name, and all with the schema where one is typed' {
        (Complete 'Start-Backfill -Table sales.').CompletionText | Should -Be 'sales.orders_archive'
        (Complete 'Start-Backfill -Schema sales -Table or').CompletionText | Should -Be 'orders_archive'
    }

    It 'quotes twice where a name needs it: for SQL and for PowerShell' {
        (Complete 'Start-Backfill -Table a').CompletionText | Should -Be "'""Odd Schema"".""a table""'"
        (Complete "Start-Backfill -Table '""Or").CompletionText | Should -Contain "'""Order""'"
        (Complete 'Start-Backfill -Table "Or').CompletionText | Should -Contain "'""Order""'"
        (Complete "Start-Backfill -Table 'order_").CompletionText | Should -Be "'order_items'"
    }

    It 'offers the columns of the table that is named' {
        (Complete 'Invoke-SafeIndexBuild -Table orders -Column ').CompletionText | Should -Be 'id', "'""Tier""'", "'""it''s""'", 'status'
        (Complete 'Invoke-SafeIndexBuild -Table orders_archive -Schema sales -Column cl').CompletionText | Should -Be 'closed_on'
        (Complete 'Invoke-SafeIndexBuild orders st').CompletionText | Should -Be 'status'
    }

    It 'offers what can be run: what it completes is found' {
        $text = (Complete 'Start-Backfill -Table a').CompletionText
        Invoke-Expression "Start-Backfill -Table $text -Set @{ id = '1' } -WhatIf -ErrorAction SilentlyContinue -ErrorVariable found" | Out-Null
        $found.FullyQualifiedErrorId | Should -Not -Match 'TableNotFound|InvalidName'
    }

    It 'offers schemas and recorded backfills' {
        (Complete 'Start-Backfill -Schema s').CompletionText | Should -Be 'sales'
        @(Complete 'Start-Backfill -Name ').Count | Should -Be 0
        $null = Start-Backfill -Table orders -Set @{ status = "'new'" }
        (Complete 'Start-Backfill -Name pub').CompletionText | Should -Be 'public.orders.status'
    }

    It 'offers what may run on a server, in quotation marks where they are needed' {
        (Complete 'Get-MigrationProgress -Operation vac').CompletionText | Should -Be 'VACUUM', "'VACUUM FULL'"
        (Complete "Get-MigrationProgress -Operation 'create index c").CompletionText | Should -Be "'CREATE INDEX CONCURRENTLY'"
    }

    It 'looks in the database that the line names' {
        $global:completionUri = Get-TestUri $Other
        try { (Complete 'Start-Backfill -Session $completionUri -Table el').CompletionText | Should -Be 'elsewhere' }
        finally { Remove-Variable -Name completionUri -Scope Global }
    }

    It 'is silent and soon back where nobody answers' {
        # Takes connections and never says a word.
        $silent = [System.Net.Sockets.TcpListener]::new([ipaddress]::Loopback, 0)
        $silent.Start()
        try {
            $before = $Error.Count
            $took = Measure-Command { $script:offered = @(Complete "Start-Backfill -Session 'host=127.0.0.1 port=$($silent.LocalEndpoint.Port) connect_timeout=30' -Table or") }
            $offered.CompletionText | Should -Not -Contain 'orders'
            $Error.Count | Should -Be $before
            $took.TotalSeconds | Should -BeLessThan 10
        }
        finally { $silent.Stop() }
    }
}
