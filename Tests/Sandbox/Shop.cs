using System.Globalization;
using MigrationSafety.Tests.Postgres;
using Npgsql;

namespace MigrationSafety.Sandbox;

/// <summary>The database that is migrated: customers and their orders, on a server of the sandbox's own.</summary>
internal sealed class Shop : IAsyncDisposable
{
    private readonly PostgresServer _server;

    private Shop(PostgresServer server, int rows)
    {
        _server = server;
        Rows = rows;
        ConnectionString = server.ConnectionString(Database);
        Admin = NpgsqlDataSource.Create(new NpgsqlConnectionStringBuilder(ConnectionString) { ApplicationName = "sandbox", CommandTimeout = 0 });
    }

    internal static string Database => "shop";

    /// <summary>Rows of orders at the start.</summary>
    internal int Rows { get; }

    internal int Customers => CustomersOf(Rows);

    internal Version Version => _server.Version;

    /// <summary>For Npgsql, as the superuser.</summary>
    internal string ConnectionString { get; }

    /// <summary>For libpq and the cmdlets, as the superuser.</summary>
    internal string Uri => _server.Uri(Database);

    /// <summary>The sandbox's own questions.</summary>
    internal NpgsqlDataSource Admin { get; }

    internal string Host => _server.Host;

    internal int Port => _server.Port;

    /// <summary>Starts a server and fills its tables.</summary>
    internal static async Task<Shop> OpenAsync(int major, int rows, Screen screen, CancellationToken cancellationToken)
    {
        // fsync is on: the application's figures are to be those of a server that keeps what it promised.
        PostgresServerOptions options = new()
        {
            Durable = true,
            SharedBuffers = "256MB",
            // The scenario progress opens 500.
            MaxConnections = 600,
            // A server in use has old WAL segments to write to; new ones would have to be made while the application waits.
            Settings = new Dictionary<string, string> { ["max_wal_size"] = "4GB", ["min_wal_size"] = "4GB" },
        };
        PostgresServer server = await PostgresServer.StartAsync(major, options, cancellationToken);
        try
        {
            screen.Say($"PostgreSQL {server.Version} on port {server.Port}.");
            await using (NpgsqlDataSource postgres = NpgsqlDataSource.Create(server.ConnectionString()))
            {
                await ExecuteAsync(postgres, $"create database {Database}", cancellationToken);
            }

            Shop shop = new(server, rows);
            await shop.FillAsync(screen, cancellationToken);
            return shop;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    /// <summary>A connection string of the application.</summary>
    internal string ApplicationConnectionString(string application) => new NpgsqlConnectionStringBuilder(ConnectionString)
    {
        Username = "shop",
        ApplicationName = application,
        Pooling = false,
        CommandTimeout = 0,
        IncludeErrorDetail = true,
    }.ConnectionString;

    internal Task ExecuteAsync(string sql, CancellationToken cancellationToken) => ExecuteAsync(Admin, sql, cancellationToken);

    /// <summary>The first column of the first row.</summary>
    internal async Task<T> ScalarAsync<T>(string sql, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = Admin.CreateCommand(sql);
        return (T)(await command.ExecuteScalarAsync(cancellationToken))!;
    }

    /// <summary>The first column of all rows, as text.</summary>
    internal async Task<IReadOnlyList<string>> LinesAsync(string sql, CancellationToken cancellationToken)
    {
        List<string> lines = [];
        await using NpgsqlCommand command = Admin.CreateCommand(sql);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
        {
            lines.Add(reader.GetString(0));
        }

        return lines;
    }

    public async ValueTask DisposeAsync()
    {
        await Admin.DisposeAsync();
        await _server.DisposeAsync();
    }

    private static int CustomersOf(int rows) => Math.Max(1000, rows / 20);

    private static async Task ExecuteAsync(NpgsqlDataSource source, string sql, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = source.CreateCommand(sql);
        command.CommandTimeout = 0;
        await command.ExecuteNonQueryAsync(cancellationToken);
    }

    private async Task FillAsync(Screen screen, CancellationToken cancellationToken)
    {
        screen.Say(string.Create(CultureInfo.InvariantCulture, $"Filling orders with {Rows:N0} rows."));
        string customers = Customers.ToString(CultureInfo.InvariantCulture);
        string rows = Rows.ToString(CultureInfo.InvariantCulture);
        // revision counts how often a row was written by a backfill; the application never touches it.
        await ExecuteAsync(
            $"""
            create role shop login;
            create table customers (
                id bigint generated by default as identity primary key,
                name text not null,
                orders_placed integer not null default 0
            );
            create table orders (
                id bigint generated by default as identity primary key,
                customer_id bigint not null,
                status text not null default 'new',
                amount numeric(10, 2) not null,
                note text not null default '',
                created_at timestamptz not null default now(),
                updated_at timestamptz,
                revision integer not null default 0
            );
            insert into customers (id, name) select i, 'Customer ' || i from generate_series(1, {customers}) i;
            insert into orders (id, customer_id, status, amount, note, created_at)
            select i, 1 + (i * 7919::bigint) % {customers}, (array['new', 'paid', 'sent', 'done'])[1 + i % 4], (i * 31::bigint % 100000) / 100.0,
                   'Order ' || i, now() - i * interval '1 second'
            from generate_series(1, {rows}) i;
            select setval(pg_get_serial_sequence('customers', 'id'), {customers}), setval(pg_get_serial_sequence('orders', 'id'), {rows});
            alter table orders add constraint orders_customer_fk foreign key (customer_id) references customers (id);
            create index orders_customer_idx on orders (customer_id);
            grant select, insert, update, delete on customers, orders to shop;
            """,
            cancellationToken);
        await ExecuteAsync("vacuum (analyze) orders", cancellationToken);
        await ExecuteAsync("vacuum (analyze) customers", cancellationToken);
        await ExecuteAsync("checkpoint", cancellationToken);
    }
}
