using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>A session whose statement waits for a lock.</summary>
internal sealed class Waiter : IAsyncDisposable
{
    private readonly NpgsqlConnection _connection;
    private readonly NpgsqlCommand _command;
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _running;

    private Waiter(NpgsqlConnection connection, string sql)
    {
        _connection = connection;
        _command = new NpgsqlCommand(sql, connection);
        _running = _command.ExecuteNonQueryAsync(_stop.Token);
    }

    internal int Pid => _connection.ProcessID;

    internal static async Task<Waiter> StartAsync(TestDatabase db, string sql)
    {
        Waiter waiter = new(await db.OpenAsync(TestContext.Current.CancellationToken), sql);
        await Wait.UntilAsync(
            async () => await db.ScalarAsync<long>($"select count(*) from pg_locks where not granted and pid = {waiter.Pid}") > 0, sql + " waits", cancellationToken: TestContext.Current.CancellationToken);
        return waiter;
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await _command.DisposeAsync();
        await _connection.DisposeAsync();
        _stop.Dispose();
    }
}
