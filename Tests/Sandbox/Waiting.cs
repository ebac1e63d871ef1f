using MigrationSafety.Tests.Postgres;
using Npgsql;

namespace MigrationSafety.Sandbox;

/// <summary>A session whose statement waits for a lock, until what it waits for goes away or it is disposed of.</summary>
internal sealed class Waiting : IAsyncDisposable
{
    private readonly NpgsqlConnection _connection;
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _running;

    private Waiting(NpgsqlConnection connection, string sql)
    {
        _connection = connection;
        _running = RunAsync(sql);
    }

    internal static async Task<Waiting> StartAsync(NpgsqlConnection connection, string sql, TestDatabase observer, CancellationToken cancellationToken)
    {
        Waiting waiting = new(connection, sql);
        string pid = $"{connection.ProcessID}";
        await Wait.UntilAsync(
            async () => await observer.ScalarAsync<bool>($"select exists (select from pg_locks l join pg_stat_activity a using (pid) where not l.granted and {pid} in (a.pid, a.leader_pid))", cancellationToken),
            $"{sql} waits",
            cancellationToken: cancellationToken);
        return waiting;
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await _connection.DisposeAsync();
        _stop.Dispose();
    }

    private async Task RunAsync(string sql)
    {
        await using NpgsqlCommand command = new(sql, _connection) { CommandTimeout = 0 };
        await command.ExecuteNonQueryAsync(_stop.Token);
    }
}
