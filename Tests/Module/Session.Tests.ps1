BeforeAll {
    . $PSScriptRoot/common.ps1
    $null = New-TestDatabase
    $keyValue = "host=$($TestServer.Host) port=$($TestServer.Port) user=$($TestServer.User) dbname=$TestDatabase password='$($TestServer.Password)'"
    $credential = [pscredential]::new($TestServer.User, ($TestServer.Password | ForEach-Object { $secure = [securestring]::new(); foreach ($c in "$_".ToCharArray()) { $secure.AppendChar($c) }; $secure }))
    $environment = 'PGHOST', 'PGPORT', 'PGDATABASE', 'PGUSER', 'PGPASSWORD', 'PGSERVICE', 'PGSERVICEFILE', 'PGPASSFILE', 'PGCONNECT_TIMEOUT'
}

AfterAll {
    Get-MigrationSession | Disconnect-MigrationDatabase
    Remove-TestDatabase
}

Describe 'Connect-MigrationDatabase' {
    AfterEach {
        Get-MigrationSession | Disconnect-MigrationDatabase
        foreach ($name in $environment) { Remove-Item "Env:$name" -ErrorAction Ignore }
    }

    Context 'What names a database' {
        It 'takes a key=value text' {
            $session = Connect-MigrationDatabase $keyValue
            $session | Should -BeOfType MigrationSafety.MigrationSession
            $session.Server, $session.Port, $session.Database, $session.User, "$($session.State)" |
                Should -Be $TestServer.Host, $TestServer.Port, $TestDatabase, $TestServer.User, 'Open'
            $session.ServerVersion.Major | Should -Be ([Math]::Floor([int] (Get-SqlValue "select current_setting('server_version_num')") / 10000))
        }

        It 'takes a key=value text as Npgsql writes it' {
            (Connect-MigrationDatabase "Host=$($TestServer.Host);Port=$($TestServer.Port);Username=$($TestServer.User);Database=$TestDatabase;Password=$($TestServer.Password)").Database | Should -Be $TestDatabase
        }

        It 'takes a URI' {
            (Connect-MigrationDatabase -Connection (Get-TestUri)).Database | Should -Be $TestDatabase
        }

        It 'takes texts from the pipeline, one session each' {
            $sessions = (Get-TestUri), $keyValue | Connect-MigrationDatabase
            $sessions.Count | Should -Be 2
            $sessions[0].Id | Should -Not -Be $sessions[1].Id
        }

        It 'takes a service from the service file' {
            $env:PGSERVICEFILE = Join-Path $TestDrive 'services.conf'
            Set-Content $env:PGSERVICEFILE "[shop]", "host=$($TestServer.Host)", "port=$($TestServer.Port)", "user=$($TestServer.User)", "dbname=$TestDatabase", "password=$($TestServer.Password)"
            (Connect-MigrationDatabase 'service=shop').Database | Should -Be $TestDatabase
            $env:PGSERVICE = 'shop'
            (Connect-MigrationDatabase).Database | Should -Be $TestDatabase
        }

        It 'takes the libpq environment where nothing is given' {
            $env:PGHOST, $env:PGPORT, $env:PGDATABASE, $env:PGUSER, $env:PGPASSWORD = $TestServer.Host, $TestServer.Port, $TestDatabase, $TestServer.User, $TestServer.Password
            "$(Connect-MigrationDatabase)" | Should -Be "$($TestServer.User)@$($TestServer.Host):$($TestServer.Port)/$TestDatabase"
        }

        It 'takes the password file' {
            $env:PGPASSFILE = Join-Path $TestDrive 'passwords'
            Set-Content $env:PGPASSFILE "$($TestServer.Host):$($TestServer.Port):*:$($TestServer.User):$($TestServer.Password)"
            if (-not $IsWindows) { chmod 600 $env:PGPASSFILE }
            (Connect-MigrationDatabase -Server $TestServer.Host -Port $TestServer.Port -Database $TestDatabase -Credential ([pscredential]::new($TestServer.User, [securestring]::new()))).State | Should -Be Open
        }

        It 'takes a credential, and server, port and database as parameters' {
            $session = Connect-MigrationDatabase -Server $TestServer.Host -Port $TestServer.Port -Database $TestDatabase -Credential $credential
            "$session" | Should -Be "$($TestServer.User)@$($TestServer.Host):$($TestServer.Port)/$TestDatabase"
        }

        It 'lets parameters win over the text' {
            (Connect-MigrationDatabase "host=localhost.invalid port=1 user=nobody dbname=nowhere" -Server $TestServer.Host -Port $TestServer.Port -Database $TestDatabase -Credential $credential).Database | Should -Be $TestDatabase
        }

        It 'takes server, port and database from objects by property name' {
            $rows = "Server,Port,Database", "$($TestServer.Host),$($TestServer.Port),$TestDatabase", "$($TestServer.Host),$($TestServer.Port),postgres" | ConvertFrom-Csv
            ($rows | Connect-MigrationDatabase -Credential $credential).Database | Should -Be $TestDatabase, 'postgres'
        }
    }

    Context 'What goes wrong' {
        It 'names the error: <Id>' -ForEach @(
            @{ Id = 'PasswordRejected'; Category = 'AuthenticationError'; Text = { $keyValue -replace "password='.*'", 'password=wrong' } }
            @{ Id = 'PasswordMissing'; Category = 'AuthenticationError'; Text = { $keyValue -replace "password='.*'" } }
            @{ Id = 'DatabaseNotFound'; Category = 'ObjectNotFound'; Text = { $keyValue -replace 'dbname=\S+', 'dbname=no_such_database' } }
            @{ Id = 'PasswordRejected'; Category = 'AuthenticationError'; Text = { $keyValue -replace 'user=\S+', 'user=no_such_role' } }
            @{ Id = 'ConnectionRefused'; Category = 'ConnectionError'; Text = { $keyValue -replace 'port=\S+', 'port=1' } }
            @{ Id = 'HostNotFound'; Category = 'ConnectionError'; Text = { $keyValue -replace 'host=\S+', 'host=no-such-host.invalid' } }
            @{ Id = 'ConnectionTextInvalid'; Category = 'InvalidArgument'; Text = { 'nonsense' } }
            @{ Id = 'ServiceNotFound'; Category = 'ObjectNotFound'; Text = { 'service=no_such_service' } }
        ) {
            if ($Id -like 'Password*' -and -not (Test-PasswordAsked)) {
                Set-ItResult -Skipped -Because 'the server asks for no password'
            }

            $failure = { Connect-MigrationDatabase (& $Text) } | Should -Throw -PassThru -ErrorId "$Id,MigrationSafety.Module.Commands.ConnectMigrationDatabaseCommand"
            "$($failure.CategoryInfo.Category)" | Should -Be $Category
            $failure.Exception | Should -BeOfType MigrationSafety.MigrationException
            $failure.ErrorDetails.RecommendedAction | Should -Not -BeNullOrEmpty
            $failure.ErrorDetails.Message | Should -Be $failure.Exception.Message
        }

        It 'goes on with the next text' {
            $sessions = 'nonsense', (Get-TestUri) | Connect-MigrationDatabase -ErrorAction SilentlyContinue -ErrorVariable failures
            $sessions.Database | Should -Be $TestDatabase
            $failures.Count | Should -Be 1
        }

        It 'refuses a number as a duration' {
            { Connect-MigrationDatabase (Get-TestUri) -ConnectTimeout 10 } | Should -Throw '*number with a unit*'
        }
    }

    Context 'Secrets' {
        It 'shows a password nowhere' {
            $secret = "hush'hush $([guid]::NewGuid().ToString('n'))"
            $name = "hush_$([guid]::NewGuid().ToString('n').Substring(0, 8))"
            $null = Invoke-Sql "create role $name login password '$($secret -replace "'", "''")'"
            try {
                $texts = "host=$($TestServer.Host) port=$($TestServer.Port) user=$name dbname=$TestDatabase password='$($secret -replace "'", "\'")'",
                    "postgresql://${name}:$([uri]::EscapeDataString($secret))@$($TestServer.Host):$($TestServer.Port)/$TestDatabase"
                $good = [pscredential]::new($name, (ConvertTo-SecureString $secret -AsPlainText -Force))
                $said = @(
                    foreach ($text in $texts) { Connect-MigrationDatabase $text -Verbose -Debug *>&1 }
                    Connect-MigrationDatabase -Server $TestServer.Host -Port $TestServer.Port -Database $TestDatabase -Credential $good -Verbose -Debug *>&1
                    # The connection opens, and what comes after fails; and it does not open at all.
                    foreach ($text in $texts) {
                        $moved = $text.Replace($TestDatabase, 'no_such_database')
                        Connect-MigrationDatabase $moved -Verbose -Debug -ErrorAction Continue *>&1
                        Get-BlockingLock -Session $moved -Verbose -Debug -ErrorAction Continue *>&1
                        Get-BlockingLock -Session $text -Verbose -Debug *>&1
                        $moved = $text.Replace("$($TestServer.Port)", '1')
                        Connect-MigrationDatabase $moved -Verbose -Debug -ErrorAction Continue *>&1
                        $moved = "$text=broken&"
                        Connect-MigrationDatabase $moved -Verbose -Debug -ErrorAction Continue *>&1
                    }
                    Connect-MigrationDatabase "port=x password='$($secret -replace "'", "\'")'" -ErrorAction Continue *>&1 | ForEach-Object { $_.Exception.ToString(); $_.ErrorDetails }
                )
                ($said | Where-Object { $_ -is [MigrationSafety.MigrationSession] }).Count | Should -Be 3
                ($said | Where-Object { $_ -is [System.Management.Automation.ErrorRecord] }).Count | Should -BeGreaterThan 5
                $everything = ($said | Out-String -Width 4000) + ($said | Format-List * -Force | Out-String -Width 4000) +
                    ($said | ForEach-Object { if ($_.Exception) { $_.Exception.ToString() } } | Out-String -Width 4000) +
                    ($said | Where-Object { $_ -is [MigrationSafety.MigrationSession] } | ConvertTo-Json -Depth 10) +
                    ($said | Where-Object { $_ -is [MigrationSafety.MigrationSession] } | ConvertTo-Csv | Out-String) +
                    [System.Management.Automation.PSSerializer]::Serialize(($said | Where-Object { $_ -is [MigrationSafety.MigrationSession] }), 10)
                $everything | Should -Not -BeNullOrEmpty
                foreach ($form in $secret, [uri]::EscapeDataString($secret), $secret.Split(' ')[1]) {
                    $everything.Contains($form) | Should -BeFalse -Because "the password must not show, in whatever form: $form"
                }
            }
            finally {
                Get-MigrationSession | Disconnect-MigrationDatabase
                $null = Invoke-Sql "drop role $name"
            }
        }

        It 'gives a session no property but the known ones' {
            $known = 'ConnectedAt', 'Database', 'Id', 'IsStandby', 'Port', 'Server', 'ServerVersion', 'State', 'User'
            (Connect-MigrationDatabase (Get-TestUri)).psobject.Properties.Name | Sort-Object | Should -Be $known
        }
    }
}

Describe 'The current session' {
    AfterEach { Get-MigrationSession | Disconnect-MigrationDatabase }

    It 'is the one that was connected last' {
        $first = Connect-MigrationDatabase (Get-TestUri)
        $second = Connect-MigrationDatabase (Get-TestUri)
        (Get-MigrationSession).Id | Should -Be $first.Id, $second.Id
        (Get-MigrationSession -Current).Id | Should -Be $second.Id
        $second | Disconnect-MigrationDatabase
        (Get-MigrationSession -Current).Id | Should -Be $first.Id
    }

    It 'is used where no session is given' {
        $null = Connect-MigrationDatabase (Get-TestUri)
        Get-BlockingLock -Debug 5>&1 | Should -Not -BeNullOrEmpty
    }

    It 'is found by its id, also by property name' {
        $session = Connect-MigrationDatabase (Get-TestUri)
        Get-MigrationSession $session.Id | Should -Be $session
        [pscustomobject]@{ Id = $session.Id } | Get-MigrationSession | Should -Be $session
        { Get-MigrationSession -Id 99999 } | Should -Throw -ErrorId 'SessionNotFound,MigrationSafety.Module.Commands.GetMigrationSessionCommand'
    }

    It 'is nothing where none is open' {
        Get-MigrationSession -Current | Should -BeNullOrEmpty
        Get-MigrationSession | Should -BeNullOrEmpty
        { Disconnect-MigrationDatabase } | Should -Throw -ErrorId 'NoCurrentSession,MigrationSafety.Module.Commands.DisconnectMigrationDatabaseCommand'
    }

    It 'belongs to its runspace alone' {
        $here = Connect-MigrationDatabase (Get-TestUri)
        $powershell = New-TestPowerShell
        try {
            $powershell.AddScript('Get-MigrationSession').Invoke() | Should -BeNullOrEmpty
            $powershell.Commands.Clear()
            $there = $powershell.AddScript('param($uri) Connect-MigrationDatabase $uri').AddArgument((Get-TestUri)).Invoke()
            $there[0].Id | Should -Not -Be $here.Id
            (Get-MigrationSession).Id | Should -Be $here.Id
            (Get-MigrationSession -Current).Id | Should -Be $here.Id
            $powershell.Commands.Clear()
            $powershell.AddScript('Disconnect-MigrationDatabase').Invoke()
        }
        finally { $powershell.Dispose() }
    }
}

Describe 'Disconnect-MigrationDatabase' {
    AfterEach { Get-MigrationSession | Disconnect-MigrationDatabase }

    It 'closes the current session, with its connections on the server' {
        $session = Connect-MigrationDatabase (Get-TestUri)
        Get-SqlValue "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'MigrationSafety%'" | Should -BeGreaterThan 0
        Disconnect-MigrationDatabase
        "$($session.State)" | Should -Be 'Closed'
        Get-MigrationSession | Should -BeNullOrEmpty
        Wait-Until { (Get-SqlValue "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'MigrationSafety%'") -eq 0 }
    }

    It 'closes those that are piped, and one that is closed already' {
        $sessions = (Get-TestUri), (Get-TestUri) | Connect-MigrationDatabase
        $sessions | Disconnect-MigrationDatabase
        $sessions | Disconnect-MigrationDatabase
        $sessions.State | Should -Be 'Closed', 'Closed'
    }

    It 'leaves a session that every cmdlet refuses' {
        $session = Connect-MigrationDatabase (Get-TestUri)
        Disconnect-MigrationDatabase
        $failure = { Get-BlockingLock -Session $session } | Should -Throw -PassThru -ErrorId 'SessionClosed,MigrationSafety.Module.Commands.GetBlockingLockCommand'
        "$($failure.CategoryInfo.Category)" | Should -Be 'InvalidOperation'
        $failure.TargetObject | Should -Be "$session"
    }
}

Describe 'The table of sessions' {
    It 'has a row for each, with its role and version' {
        $session = Connect-MigrationDatabase (Get-TestUri)
        $text = $session | Format-Table | Out-String -Width 160
        $text | Should -Match ([regex]::Escape($TestDatabase))
        $text | Should -Match "primary\s+Open"
        $text | Should -Match ([regex]::Escape("$($session.ServerVersion)"))
        $session | Disconnect-MigrationDatabase
    }
}
