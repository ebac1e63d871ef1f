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
    private readonly ConcurrentDictionary<string, NpgsqlConnection> _named = new();
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
        foreach (NpgsqlConnection connection in _named.Values)
        {
            await connection.DisposeAsync();
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
        catch (Exception e) when (e is NpgsqlException or JsonException)
        {
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
            if (_named.TryRemove(request.Connection, out NpgsqlConnection? closing))
            {
                await closing.DisposeAsync();
            }

            return [];
        }

        if (!_named.TryGetValue(request.Connection, out NpgsqlConnection? named))
        {
            named = _named[request.Connection] = await OpenAsync(request);
        }

        Task<List<Dictionary<string, object?>>> reading = ReadAsync(named, request.Sql);
        return request.Background ? [new() { ["pid"] = named.ProcessID }] : await reading;
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

    private sealed record Request(string? Database, string? Sql, string? Connection, bool Background);
}
