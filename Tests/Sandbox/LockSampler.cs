using System.Diagnostics;
using Npgsql;

namespace MigrationSafety.Sandbox;

/// <summary>A statement of the application that the server saw waiting for a lock of ours, or for somebody who waited for one.</summary>
internal sealed record WaitForUs
{
    internal required int Pid { get; init; }

    /// <summary>When the statement began, by the server's clock.</summary>
    internal required DateTimeOffset QueryStart { get; init; }

    internal required string Application { get; init; }

    internal required string Query { get; init; }

    /// <summary>What it waited for: mode, lock, and which of our operations.</summary>
    internal required string For { get; init; }

    /// <summary>When it was last seen waiting.</summary>
    internal DateTimeOffset Seen { get; set; }

    /// <summary>How long it was seen waiting for us.</summary>
    internal TimeSpan Waited { get; set; }

    /// <summary>From the last sample that saw it to the first that did not: it may have waited on in there.</summary>
    internal TimeSpan Unseen { get; set; }
}

/// <summary>Asks the server every few milliseconds who waits for whom, and adds up what the application waits for us.</summary>
internal sealed class LockSampler : IAsyncDisposable
{
    private static readonly TimeSpan s_every = TimeSpan.FromMilliseconds(25);

    private readonly NpgsqlConnection _connection;
    private readonly CancellationTokenSource _stop = new();
    private readonly Lock _lock = new();
    private readonly Dictionary<(int Pid, DateTimeOffset QueryStart), WaitForUs> _waits = [];
    private readonly List<(DateTimeOffset At, TimeSpan Length)> _gaps = [];
    private Task _loop = Task.CompletedTask;
    private HashSet<WaitForUs> _waiting = [];

    private LockSampler(NpgsqlConnection connection) => _connection = connection;

    internal static async Task<LockSampler> StartAsync(Shop shop, CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = new(new NpgsqlConnectionStringBuilder(shop.ConnectionString) { ApplicationName = "sandbox-sampler", Pooling = false }.ConnectionString);
        await connection.OpenAsync(cancellationToken);
        LockSampler sampler = new(connection);
        sampler._loop = Task.Run(sampler.LoopAsync, CancellationToken.None);
        return sampler;
    }

    /// <summary>Whether sampling goes on. A sampler that broke off proves nothing.</summary>
    internal Exception? Failure => _loop.Exception?.InnerException;

    /// <summary>The statements that were seen waiting for us between the two.</summary>
    internal IReadOnlyList<WaitForUs> Between(DateTimeOffset start, DateTimeOffset end)
    {
        lock (_lock)
        {
            return [.. _waits.Values.Where(wait => wait.Seen >= start && wait.QueryStart <= end)];
        }
    }

    /// <summary>The longest time between two samples in that span.</summary>
    internal TimeSpan LongestGap(DateTimeOffset start, DateTimeOffset end)
    {
        lock (_lock)
        {
            return _gaps.Where(gap => gap.At >= start && gap.At <= end).Select(gap => gap.Length).DefaultIfEmpty().Max();
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _loop.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await _connection.DisposeAsync();
        _stop.Dispose();
    }

    private async Task LoopAsync()
    {
        // One statement, so that pg_stat_activity is one snapshot. waitstart tells when a wait began between two samples.
        const string Query = """
            select pg_catalog.clock_timestamp(), l.pid, l.waitstart, a.query_start, a.application_name, pg_catalog.left(a.query, 300),
                   l.mode || ' on ' || coalesce(l.relation::pg_catalog.regclass::text, l.locktype), pg_catalog.pg_blocking_pids(l.pid),
                   (select coalesce(pg_catalog.array_agg(o.pid), '{}') from pg_catalog.pg_stat_activity o where o.application_name like 'MigrationSafety/%'),
                   (select coalesce(pg_catalog.array_agg(o.application_name), '{}') from pg_catalog.pg_stat_activity o where o.application_name like 'MigrationSafety/%')
            from (values (1)) as one
            left join (pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid) on not l.granted
            """;
        await using NpgsqlCommand command = new(Query, _connection);
        await command.PrepareAsync();
        DateTimeOffset? previous = null;
        while (!_stop.IsCancellationRequested)
        {
            long begun = Stopwatch.GetTimestamp();
            List<Waiter> waiters = [];
            Dictionary<int, string> ours = [];
            DateTimeOffset now = default;
            await using (NpgsqlDataReader reader = await command.ExecuteReaderAsync())
            {
                while (await reader.ReadAsync())
                {
                    now = Time(reader, 0);
                    if (reader.IsDBNull(1))
                    {
                        continue;
                    }

                    int[] pids = reader.GetFieldValue<int[]>(8);
                    string[] names = reader.GetFieldValue<string[]>(9);
                    for (int i = 0; i < pids.Length; i++)
                    {
                        ours[pids[i]] = names[i];
                    }

                    waiters.Add(new Waiter(
                        reader.GetInt32(1),
                        reader.IsDBNull(2) ? null : Time(reader, 2),
                        reader.IsDBNull(3) ? now : Time(reader, 3),
                        reader.IsDBNull(4) ? "" : reader.GetString(4),
                        reader.IsDBNull(5) ? "" : reader.GetString(5),
                        reader.GetString(6),
                        reader.GetFieldValue<int[]>(7)));
                }
            }

            Take(now, previous ?? now, waiters, ours);
            previous = now;
            TimeSpan pause = s_every - Stopwatch.GetElapsedTime(begun);
            if (pause > TimeSpan.Zero)
            {
                await Task.Delay(pause, CancellationToken.None);
            }
        }
    }

    private void Take(DateTimeOffset now, DateTimeOffset previous, List<Waiter> waiters, Dictionary<int, string> ours)
    {
        lock (_lock)
        {
            if (now - previous > s_every * 2)
            {
                _gaps.Add((now, now - previous));
            }

            HashSet<WaitForUs> waiting = [];
            foreach (Waiter waiter in waiters.Where(waiter => waiter.Application.StartsWith("shop-", StringComparison.Ordinal)))
            {
                if (Culprit(waiter, waiters, ours) is not { } culprit)
                {
                    continue;
                }

                if (!_waits.TryGetValue((waiter.Pid, waiter.QueryStart), out WaitForUs? wait))
                {
                    wait = new WaitForUs { Pid = waiter.Pid, QueryStart = waiter.QueryStart, Application = waiter.Application, Query = waiter.Query, For = $"{waiter.Lock}, {ours[culprit]}" };
                    _waits.Add((waiter.Pid, waiter.QueryStart), wait);
                }

                // What came before the last sample has been counted then, or was no wait for us.
                DateTimeOffset since = waiter.WaitStart is { } start && start > previous ? start : waiter.QueryStart > previous ? waiter.QueryStart : previous;
                wait.Waited += now > since ? now - since : TimeSpan.Zero;
                wait.Seen = now;
                wait.Unseen = TimeSpan.Zero;
                waiting.Add(wait);
            }

            foreach (WaitForUs ended in _waiting.Where(wait => !waiting.Contains(wait)))
            {
                ended.Unseen = now - ended.Seen;
            }

            _waiting = waiting;
        }
    }

    /// <summary>Which of our backends the waiter waits for, also through others that wait themselves.</summary>
    private static int? Culprit(Waiter waiter, List<Waiter> waiters, Dictionary<int, string> ours)
    {
        HashSet<int> seen = [waiter.Pid];
        Queue<int> next = new(waiter.Blockers);
        while (next.TryDequeue(out int pid))
        {
            if (ours.ContainsKey(pid))
            {
                return pid;
            }

            if (seen.Add(pid) && waiters.Find(other => other.Pid == pid) is { } between)
            {
                foreach (int blocker in between.Blockers)
                {
                    next.Enqueue(blocker);
                }
            }
        }

        return null;
    }

    private static DateTimeOffset Time(NpgsqlDataReader reader, int ordinal) => new(reader.GetDateTime(ordinal), TimeSpan.Zero);

    private sealed record Waiter(int Pid, DateTimeOffset? WaitStart, DateTimeOffset QueryStart, string Application, string Query, string Lock, int[] Blockers);
}
