using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using MigrationSafety.Tests.Postgres;
using Npgsql;

namespace MigrationSafety.Tests.Module;

/// <summary>
/// Lets a Pester file run SQL without a PostgreSQL client in PowerShell: POST { database, sql, connection?, background? }, rows come back as JSON.
/// A named connection stays open, so that a test can hold locks; with background the answer does not wait for the statement.
/// </summary>
internal sealed class SqlBridge : IAsyncDisposable
{
    private readonly PostgresServer _server;
    private readonly HttpListener _listener;
    private readonly ConcurrentDictionary<string, Named> _named = new();
    private readonly Task _loop;

    private SqlBridge(PostgresServer server, HttpListener listener, string address)
    {
        _server = server;
        _listener = listener;
        Address = address;
        _loop = ServeAsync();
    }

    internal string Address { get; }

    internal static SqlBridge Start(PostgresServer server)
    {
        using TcpListener probe = new(IPAddress.Loopback, 0);
        probe.Start();
        int port = ((IPEndPoint)probe.LocalEndpoint).Port;
        probe.Stop();
        string address = $"http://127.0.0.1:{port}/";
        HttpListener listener = new() { Prefixes = { address } };
        listener.Start();
        return new SqlBridge(server, listener, address);
    }

    public async ValueTask DisposeAsync()
    {
        _listener.Stop();
        await _loop;
        _listener.Close();
        foreach (Named named in _named.Values)
        {
            await named.DisposeAsync();
        }
    }

    private async Task ServeAsync()
    {
        while (_listener.IsListening)
        {
            HttpListenerContext context;
            try
            {
                context = await _listener.GetContextAsync();
            }
            catch (Exception e) when (e is HttpListenerException or ObjectDisposedException)
            {
                // Stopped.
                return;
            }

            _ = AnswerAsync(context);
        }
    }

    private async Task AnswerAsync(HttpListenerContext context)
    {
        object answer;
        try
        {
            Request request = (await JsonSerializer.DeserializeAsync<Request>(context.Request.InputStream, JsonSerializerOptions.Web))!;
            answer = new { rows = await RunAsync(request) };
        }
        catch (Exception e)
        {
            // Whatever it was: without an answer the test would wait for ever.
            answer = new { error = e.Message };
        }

        context.Response.ContentType = "application/json; charset=utf-8";
        await JsonSerializer.SerializeAsync(context.Response.OutputStream, answer);
        context.Response.Close();
    }

    private async Task<List<Dictionary<string, object?>>> RunAsync(Request request)
    {
        if (request.Connection is null)
        {
            await using NpgsqlConnection connection = await OpenAsync(request);
            return await ReadAsync(connection, request.Sql!);
        }

        if (request.Sql is null)
        {
            if (_named.TryRemove(request.Connection, out Named? closing))
            {
                await closing.DisposeAsync();
            }

            return [];
        }

        if (!_named.TryGetValue(request.Connection, out Named? named))
        {
            named = _named[request.Connection] = new Named(await OpenAsync(request), _server);
        }

        // One statement after the other; the failure of one that ran in the background shows here.
        await named.Running;
        Task<List<Dictionary<string, object?>>> reading = ReadAsync(named.Connection, request.Sql);
        if (!request.Background)
        {
            return await reading;
        }

        named.Running = reading;
        return [new() { ["pid"] = named.Connection.ProcessID }];
    }

    private async Task<NpgsqlConnection> OpenAsync(Request request)
    {
        NpgsqlConnection connection = new(new NpgsqlConnectionStringBuilder(_server.ConnectionString(request.Database ?? "postgres"))
        {
            Pooling = false,
            ApplicationName = request.Connection ?? "test",
            CommandTimeout = 0,
        }.ConnectionString);
        await connection.OpenAsync();
        return connection;
    }

    private static async Task<List<Dictionary<string, object?>>> ReadAsync(NpgsqlConnection connection, string sql)
    {
        List<Dictionary<string, object?>> rows = [];
        await using NpgsqlCommand command = new(sql, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync();
        do
        {
            while (await reader.ReadAsync())
            {
                rows.Add(Enumerable.Range(0, reader.FieldCount).ToDictionary(reader.GetName, i => reader.IsDBNull(i) ? null : reader.GetValue(i)));
            }
        }
        while (await reader.NextResultAsync());

        return rows;
    }

    private sealed class Named(NpgsqlConnection connection, PostgresServer server) : IAsyncDisposable
    {
        internal NpgsqlConnection Connection { get; } = connection;

        internal Task Running { get; set; } = Task.CompletedTask;

        public async ValueTask DisposeAsync()
        {
            // A connection cannot be closed while a statement runs on it.
            while (!Running.IsCompleted)
            {
                // Not its own connection string: that of an open connection has no password any more.
                using NpgsqlConnection other = new(server.ConnectionString());
                await other.OpenAsync();
                using NpgsqlCommand cancel = new("select pg_cancel_backend($1)", other) { Parameters = { new() { Value = Connection.ProcessID } } };
                await cancel.ExecuteNonQueryAsync();
                await Task.WhenAny(Running, Task.Delay(100));
            }

            // What the statement in the background ended with was the test's to ask for.
            await Running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            await Connection.DisposeAsync();
        }
    }

    private sealed record Request(string? Database, string? Sql, string? Connection, bool Background);
}
