using System.Data;
using Npgsql;

namespace MigrationSafety.Sandbox;

/// <summary>
/// The application: point reads, inserts, updates and short transactions on several connections, and a report or a forgotten
/// transaction that stays open for seconds. Every statement is timed.
/// </summary>
internal sealed class Traffic : IAsyncDisposable
{
    private const int WebConnections = 4;
    private const int CheckoutConnections = 2;

    private readonly Shop _shop;
    private readonly CancellationTokenSource _stop = new();
    private readonly List<Task> _loops = [];
    private long _highestId;
    private volatile int _longOpen;
    private volatile bool _writesTier;

    private Traffic(Shop shop)
    {
        _shop = shop;
        _highestId = shop.Rows;
    }

    internal StatementLog Log { get; } = new();

    /// <summary>The release of the application that writes the new column has been rolled out.</summary>
    internal bool WritesTier
    {
        get => _writesTier;
        set => _writesTier = value;
    }

    /// <summary>How long its long transactions stay open; null for some seconds.</summary>
    internal TimeSpan? LongLasts { get; set; }

    /// <summary>Begins, and returns when all connections are at work.</summary>
    internal static async Task<Traffic> StartAsync(Shop shop, CancellationToken cancellationToken)
    {
        Traffic traffic = new(shop);
        try
        {
            for (int i = 0; i < WebConnections; i++)
            {
                await traffic.RunAsync("shop-web", traffic.WebAsync, cancellationToken);
            }

            for (int i = 0; i < CheckoutConnections; i++)
            {
                await traffic.RunAsync("shop-checkout", traffic.CheckoutAsync, cancellationToken);
            }

            await traffic.RunAsync("shop-report", traffic.LongAsync, cancellationToken);
            return traffic;
        }
        catch
        {
            await traffic.DisposeAsync();
            throw;
        }
    }

    /// <summary>Returns when a transaction that stays open for seconds has just begun.</summary>
    internal async Task LongTransactionAsync(CancellationToken cancellationToken)
    {
        int seen = _longOpen;
        while (_longOpen == seen && !_loops[^1].IsCompleted)
        {
            await Task.Delay(20, cancellationToken);
        }
    }

    /// <summary>Lets the statements that are under way come to their end, and stops.</summary>
    internal async Task StopAsync()
    {
        await _stop.CancelAsync();
        await Task.WhenAll(_loops);
    }

    public async ValueTask DisposeAsync()
    {
        await StopAsync();
        _stop.Dispose();
    }

    private async Task RunAsync(string application, Func<NpgsqlConnection, CancellationToken, Task> loop, CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = new(_shop.ApplicationConnectionString(application));
        await connection.OpenAsync(cancellationToken);
        _loops.Add(Task.Run(() => LoopAsync(application, connection, loop), CancellationToken.None));
    }

    private async Task LoopAsync(string application, NpgsqlConnection connection, Func<NpgsqlConnection, CancellationToken, Task> loop)
    {
        await using (connection)
        {
            while (!_stop.IsCancellationRequested)
            {
                try
                {
                    await loop(connection, _stop.Token);
                }
                catch (OperationCanceledException) when (_stop.IsCancellationRequested)
                {
                    return;
                }
                catch (PostgresException e)
                {
                    // The application would show an error page and go on; the sandbox counts it.
                    Log.Fail($"{application}: {e.SqlState} {e.MessageText} {e.Detail}".TrimEnd());
                }
                catch (NpgsqlException e)
                {
                    Log.Fail($"{application}: the connection is lost: {e.Message}");
                    return;
                }
            }
        }
    }

    /// <summary>One web request: mostly a point read, sometimes an insert or an update.</summary>
    private async Task WebAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        switch (Random.Shared.Next(10))
        {
            case < 7:
                await TimedAsync("point read", connection, "select id, status, amount, note from orders where id = $1", [AnyId()]);
                break;
            case < 9:
                await TimedAsync("update", connection, "update orders set status = $2, updated_at = now() where id = $1", [AnyId(), "paid"]);
                break;
            default:
                await InsertAsync(connection);
                break;
        }

        await Task.Delay(Random.Shared.Next(3, 14), cancellationToken);
    }

    /// <summary>
    /// A short transaction over a customer and two orders that lie near each other. The orders are taken from the higher to the lower, so that
    /// two of the application's own never meet crosswise, but one of them and a batch that goes upwards may.
    /// </summary>
    private async Task CheckoutAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        long id = AnyId();
        await using (NpgsqlTransaction transaction = await connection.BeginTransactionAsync(CancellationToken.None))
        {
            await TimedAsync("update customer", connection, "update customers set orders_placed = orders_placed + 1 where id = $1", [1L + Random.Shared.Next(_shop.Customers)]);
            await InsertAsync(connection);
            await TimedAsync("update in transaction", connection, "update orders set status = $2, updated_at = now() where id = $1", [id, "sent"]);
            await Task.Delay(Random.Shared.Next(1, 5), CancellationToken.None);
            await TimedAsync("update in transaction", connection, "update orders set status = $2, updated_at = now() where id = $1", [Math.Max(1, id - Random.Shared.Next(1, 500)), "sent"]);
            await TimedAsync("commit", connection, transaction.CommitAsync);
        }

        await Task.Delay(Random.Shared.Next(5, 25), cancellationToken);
    }

    /// <summary>Now a writer that forgets to commit, now a report on one snapshot, now a reader that stays idle in its transaction.</summary>
    private async Task LongAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        foreach (int kind in Enumerable.Range(0, 3))
        {
            IsolationLevel isolation = kind == 1 ? IsolationLevel.RepeatableRead : IsolationLevel.ReadCommitted;
            await using (NpgsqlTransaction transaction = await connection.BeginTransactionAsync(isolation, cancellationToken))
            {
                if (kind == 0)
                {
                    await TimedAsync("update", connection, "update orders set status = $2, updated_at = now() where id = $1", [AnyId(), "held"]);
                }
                else
                {
                    await TimedAsync("report", connection, "select sum(amount) from orders where id between $1 and $1 + 1000", [AnyId()]);
                }

                _longOpen++;
                await Task.Delay(LongLasts ?? TimeSpan.FromMilliseconds(Random.Shared.Next(2000, 4500)), cancellationToken);
                await TimedAsync("point read", connection, "select id, status, amount, note from orders where id = $1", [AnyId()]);
                await TimedAsync("commit", connection, transaction.CommitAsync);
            }

            await Task.Delay(Random.Shared.Next(1000, 3000), cancellationToken);
        }
    }

    private async Task InsertAsync(NpgsqlConnection connection)
    {
        bool tier = WritesTier;
        decimal amount = Random.Shared.Next(100_000) / 100m;
        string sql = tier
            ? $"insert into orders (customer_id, amount, note, tier) select $1, amount, $3, {Migration.TierExpression} from (values ($2::numeric)) as v (amount) returning id"
            : "insert into orders (customer_id, amount, note) values ($1, $2, $3) returning id";
        object? id = await TimedAsync("insert", connection, sql, [1L + Random.Shared.Next(_shop.Customers), amount, "New order"]);
        long seen;
        while ((seen = Interlocked.Read(ref _highestId)) < (long)id! && Interlocked.CompareExchange(ref _highestId, (long)id, seen) != seen)
        {
            // Another connection was faster: compare again.
        }
    }

    private long AnyId() => 1 + Random.Shared.NextInt64(Interlocked.Read(ref _highestId));

    private Task<object?> TimedAsync(string kind, NpgsqlConnection connection, string sql, object[] values)
    {
        // Not cancellable: a statement that was cut off would tell nothing about how long it took.
        return TimedAsync(kind, connection, async () =>
        {
            await using NpgsqlCommand command = new(sql, connection);
            foreach (object value in values)
            {
                command.Parameters.Add(new NpgsqlParameter { Value = value });
            }

            return await command.ExecuteScalarAsync(CancellationToken.None);
        });
    }

    private async Task TimedAsync(string kind, NpgsqlConnection connection, Func<CancellationToken, Task> statement) =>
        await TimedAsync<object?>(kind, connection, async () =>
        {
            await statement(CancellationToken.None);
            return null;
        });

    private async Task<T> TimedAsync<T>(string kind, NpgsqlConnection connection, Func<Task<T>> statement)
    {
        int pid = connection.ProcessID;
        DateTimeOffset start = Log.Begin(pid);
        try
        {
            return await statement();
        }
        finally
        {
            Log.End(kind, pid, start);
        }
    }
}
