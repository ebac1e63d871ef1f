using System.Runtime.CompilerServices;
using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Progress;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;
using static MigrationSafety.Tests.Engine.Support.ProgressLooks;

namespace MigrationSafety.Tests.Engine;

/// <summary>What is waited for is over when its statement is: not when the view that shows it changes, or shows nothing for a while.</summary>
public sealed class ProgressWaitTests(Servers servers)
{
    // A gate stands still at the last row while somebody holds its advisory lock; the first takes a transaction's id, too.
    private const string Things = """
        create table things (id int, v text);
        insert into things select i, repeat('x', 100) from generate_series(1, 100) i;
        create table others (id int);
        insert into others select generate_series(1, 100);
        create function gate(i int) returns int immutable language plpgsql as
            'begin if i = 100 then perform pg_catalog.pg_current_xact_id(); perform pg_catalog.pg_advisory_xact_lock_shared(42); end if; return i; end';
        create function gate_behind(i int) returns int volatile language plpgsql as
            'begin if i = 100 then perform pg_catalog.pg_advisory_xact_lock_shared(43); end if; return i; end';
        """;

    private const string Close = "select pg_advisory_xact_lock(42)";
    private const string CloseBehind = "select pg_advisory_xact_lock(43)";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task An_alter_that_builds_an_index_on_its_way_is_one(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Things);
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        await using LockHolder reading = await LockHolder.HoldAsync(bench.Database, "lock table things in access share mode");
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
        await using LockHolder behind = await LockHolder.HoldAsync(bench.Database, CloseBehind);
        await using ProgressReader reader = new(bench.Session, new() { Pid = connection.ProcessID });
        Task alter = connection.ExecuteAsync("alter table things add constraint one exclude using btree (gate(id) with =), add constraint positive check (gate_behind(id) > 0)", Token);
        await UntilAsync(reader, bench, p => p.BlockedBy.Contains(reading.Pid));
        Waiting waiting = await Waiting.StartAsync(bench.Session, new() { Pid = connection.ProcessID });

        await reading.CommitAsync(Token);
        Assert.Equal("CREATE INDEX", (await UntilAsync(reader, bench, p => p.BlockedBy.Contains(gate.Pid))).Operation);
        await waiting.LooksAgainAsync();
        Assert.Empty(waiting.Ended);
        Waiting late = await Waiting.StartAsync(bench.Session, new() { Pid = connection.ProcessID });
        Waiting building = await Waiting.StartAsync(bench.Session, new() { Pid = connection.ProcessID, Operations = ["CREATE INDEX"] });

        await gate.CommitAsync(Token);
        Assert.Equal("ALTER TABLE", (await UntilAsync(reader, bench, p => p.BlockedBy.Contains(behind.Pid))).Operation);
        foreach (Waiting each in new[] { waiting, late, building })
        {
            await each.LooksAgainAsync();
            Assert.Empty(each.Ended);
        }

        await behind.CommitAsync(Token);
        await alter;
        foreach ((Waiting each, string operation) in new[] { (waiting, "ALTER TABLE"), (late, "ALTER TABLE"), (building, "CREATE INDEX") })
        {
            await each.EndsAsync();
            ProgressResult result = Assert.Single(each.Ended);
            Assert.Equal((operation, "public.things", ProgressOutcome.Finished), (result.Operation, result.Target, result.Outcome));
        }
    }

    [Theory, EachMajor]
    public async Task An_alter_that_is_rolled_back_is_told_once(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Things);
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
        await using LockHolder behind = await LockHolder.HoldAsync(bench.Database, CloseBehind);
        await using ProgressReader reader = new(bench.Session, new() { Table = "things" });
        Task alter = connection.ExecuteAsync("alter table things add constraint one exclude using btree (gate(id) with =), add constraint positive check (gate_behind(id) > 0)", Token);
        await UntilAsync(reader, bench, p => p.BlockedBy.Contains(gate.Pid));
        Waiting waiting = await Waiting.StartAsync(bench.Session, new() { Table = "things" });
        await gate.CommitAsync(Token);
        await UntilAsync(reader, bench, p => p.BlockedBy.Contains(behind.Pid));
        await bench.Database.ExecuteAsync($"select pg_cancel_backend({connection.ProcessID})", Token);
        await Assert.ThrowsAsync<PostgresException>(() => alter);
        await waiting.EndsAsync();
        Assert.Equal(("public.things", ProgressOutcome.Failed), (Assert.Single(waiting.Ended).Target, waiting.Ended[0].Outcome));
    }

    [Theory, EachMajor]
    public async Task An_analyze_that_waits_for_its_next_table_goes_on(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Things + "create index things_gate on things (gate(id))");
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
        await using LockHolder reading = await LockHolder.HoldAsync(bench.Database, "lock table others in share update exclusive mode");
        await using ProgressReader reader = new(bench.Session, new() { Pid = connection.ProcessID });
        Task analyze = connection.ExecuteAsync("analyze things, others", Token);
        await UntilAsync(reader, bench, p => p is { Operation: "ANALYZE", Target: "public.things" } && p.BlockedBy.Contains(gate.Pid));
        Waiting waiting = await Waiting.StartAsync(bench.Session, new() { Pid = connection.ProcessID });
        Waiting table = await Waiting.StartAsync(bench.Session, new() { Table = "things" });

        await gate.CommitAsync(Token);
        await Wait.UntilAsync(() => waiting.Ended.Count > 0, "the end of the first table", cancellationToken: Token);
        Assert.Equal(("public.things", ProgressOutcome.Finished), (waiting.Ended[0].Target, waiting.Ended[0].Outcome));
        // The statement has left the table that was asked for.
        await table.EndsAsync();
        Assert.Equal("public.things", Assert.Single(table.Ended).Target);

        // No view of the server's shows it, yet it is there: who watches sees what it waits for.
        MigrationProgress between = await UntilAsync(reader, bench, p => p.BlockedBy.Contains(reading.Pid));
        Assert.Equal(("ANALYZE", "waiting for a lock", null, $"lock of pid {reading.Pid}"), (between.Operation, between.Phase, between.Percent, between.WaitingFor));
        Assert.True(ProgressReader.Ends(between));
        await waiting.LooksAgainAsync();
        await reading.CommitAsync(Token);
        await analyze;
        await waiting.EndsAsync();
        Assert.Equal(waiting.Ended.Select(result => result.Target).Distinct(), waiting.Ended.Select(result => result.Target));
        Assert.Empty(await reader.ReadAsync(bench.Sink, Token));
    }

    [Theory, EachMajor]
    public async Task A_reindex_of_a_schema_commits_table_by_table(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Things + "create index things_gate on things (gate(id)); create index others_id on others (id)");
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
        await using LockHolder writing = await LockHolder.HoldAsync(bench.Database, "lock table others in row exclusive mode");
        await using ProgressReader reader = new(bench.Session, new() { Pid = connection.ProcessID });
        Task reindex = connection.ExecuteAsync("reindex schema public", Token);
        await UntilAsync(reader, bench, p => p.BlockedBy.Contains(gate.Pid));
        Waiting waiting = await Waiting.StartAsync(bench.Session, new() { Pid = connection.ProcessID });
        await gate.CommitAsync(Token);
        await UntilAsync(reader, bench, p => p.BlockedBy.Contains(writing.Pid));
        // That table is done, whatever becomes of the other.
        await Wait.UntilAsync(() => waiting.Ended.Count > 0, "the end of the first index", cancellationToken: Token);
        Assert.Equal(("public.things_gate", ProgressOutcome.Finished), (waiting.Ended[0].Index, waiting.Ended[0].Outcome));
        await waiting.LooksAgainAsync();
        await writing.CommitAsync(Token);
        await reindex;
        await waiting.EndsAsync();
        Assert.All(waiting.Ended, result => Assert.Equal("REINDEX", result.Operation));
        // An empty index is built before anybody looks: of that the server keeps no record.
        Assert.All(waiting.Ended.Skip(1), result => Assert.True(result.Outcome is ProgressOutcome.Finished or ProgressOutcome.Ended, result.Detail));
    }

    [Theory, EachMajor]
    public async Task What_was_queued_and_then_shown_by_its_view_is_one(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Things);
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
        await using LockHolder writing = await LockHolder.HoldAsync(bench.Database, "lock table things in row exclusive mode");
        await using ProgressReader reader = new(bench.Session, new() { Pid = connection.ProcessID });
        Task build = connection.ExecuteAsync("create index things_gate on things (gate(id))", Token);
        await UntilAsync(reader, bench, p => p.BlockedBy.Contains(writing.Pid));
        Waiting waiting = await Waiting.StartAsync(bench.Session, new() { Pid = connection.ProcessID });
        await writing.CommitAsync(Token);
        await UntilAsync(reader, bench, p => p.BlockedBy.Contains(gate.Pid));
        await waiting.LooksAgainAsync();
        await gate.CommitAsync(Token);
        await build;
        await waiting.EndsAsync();

        ProgressResult result = Assert.Single(waiting.Ended);
        Assert.Equal(("CREATE INDEX", "public.things", ProgressOutcome.Finished), (result.Operation, result.Target, result.Outcome));
    }

    [Theory, EachMajor]
    public async Task A_concurrent_reindex_of_a_table_with_toast_is_one(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Things + "create index things_gate on things (gate(id));");
        foreach (bool cancel in (bool[])[true, false])
        {
            await using LockHolder writing = await LockHolder.HoldAsync(bench.Database, "insert into things values (0)");
            await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
            await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
            await using ProgressReader reader = new(bench.Session, new() { Pid = connection.ProcessID });
            Task reindex = connection.ExecuteAsync("reindex table concurrently things", Token);
            // There the view shows the old index of the table's TOAST table.
            await UntilAsync(reader, bench, p => p.Phase == "waiting for writers before build");
            OperationTrack track = Assert.Single(reader.Tracker.Running);
            Waiting waiting = await Waiting.StartAsync(bench.Session, new() { Pid = connection.ProcessID });
            if (cancel)
            {
                await bench.Database.ExecuteAsync($"select pg_cancel_backend({connection.ProcessID})", Token);
                await Assert.ThrowsAsync<PostgresException>(() => reindex);
            }
            else
            {
                await writing.CommitAsync(Token);
                await UntilAsync(reader, bench, p => p.BlockedBy.Contains(gate.Pid));
                Assert.Same(track, Assert.Single(reader.Tracker.Running));
                await waiting.LooksAgainAsync();
                Assert.Empty(waiting.Ended);
                await gate.CommitAsync(Token);
                await reindex;
            }

            await waiting.EndsAsync();
            Assert.Equal(("REINDEX CONCURRENTLY", cancel ? ProgressOutcome.Failed : ProgressOutcome.Finished), (Assert.Single(waiting.Ended).Operation, waiting.Ended[0].Outcome));
        }
    }

    [Theory, EachMajor]
    public async Task One_transaction_of_several_is_no_proof(int major)
    {
        await using IndexBench here = await IndexBench.CreateAsync(servers, major, "create table orders (id int)");
        await using IndexBench there = await IndexBench.CreateAsync(servers, major, Things);
        await using LockHolder old = await LockHolder.HoldAsync(there.Database, "set transaction isolation level repeatable read", "select 1");
        await using LockHolder gate = await LockHolder.HoldAsync(there.Database, Close);
        await using NpgsqlConnection connection = await there.Database.OpenAsync(Token);
        await using ProgressReader reader = new(here.Session, new() { Pid = connection.ProcessID });
        Task build = connection.ExecuteAsync("create index concurrently on things (gate(id))", Token);
        await UntilAsync(reader, here, p => p.BlockedBy.Contains(gate.Pid));
        Assert.NotNull(Assert.Single(reader.Tracker.Running).Transaction);
        Waiting waiting = await Waiting.StartAsync(here.Session, new() { Pid = connection.ProcessID });
        await gate.CommitAsync(Token);
        await UntilAsync(reader, here, p => p.BlockedBy.Contains(old.Pid));
        await waiting.LooksAgainAsync();
        await there.Database.ExecuteAsync($"select pg_cancel_backend({connection.ProcessID})", Token);
        await Assert.ThrowsAsync<PostgresException>(() => build);
        await waiting.EndsAsync();
        Assert.Equal(ProgressOutcome.Ended, Assert.Single(waiting.Ended).Outcome);
    }

    [Theory, EachMajor]
    public async Task A_transaction_that_the_server_has_lost_is_told(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Things);
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        // As before a crash, or on the server that another took the place of: here it is yet to come.
        ProgressSample sample = new()
        {
            View = "copy",
            Pid = int.MaxValue,
            Counters = new(StringComparer.Ordinal) { ["command"] = "COPY FROM" },
            Facts = new(StringComparer.Ordinal),
            Database = bench.Database.Name,
            Xid = "2000000000",
        };
        OperationTrack track = new(LearntPhases.None);
        track.Add(sample, DateTime.UtcNow, (MigrationSession)RuntimeHelpers.GetUninitializedObject(typeof(MigrationSession)), 2_000_000_001);
        Assert.Equal(ProgressOutcome.Vanished, (await ProgressEnds.OfAsync(connection, track, Token)).Outcome);
    }

    [Theory, EachMajor]
    public async Task What_an_earlier_build_left_behind_is_none_of_this_one(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Things + "create index things_id on things (id); create index things_gate on things (gate(id));");
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
        // Cancelled there, each leaves an index that is not valid.
        foreach (string sql in new[] { "create index concurrently things_left on things (gate(id))", "reindex index concurrently things_gate" })
        {
            await using NpgsqlConnection doomed = await bench.Database.OpenAsync(Token);
            Task left = doomed.ExecuteAsync(sql, Token);
            await using ProgressReader building = new(bench.Session, new() { Pid = doomed.ProcessID });
            await UntilAsync(building, bench, p => p.BlockedBy.Contains(gate.Pid));
            await bench.Database.ExecuteAsync($"select pg_cancel_backend({doomed.ProcessID})", Token);
            await Assert.ThrowsAsync<PostgresException>(() => left);
        }

        Assert.Equal(2, await bench.Database.ScalarAsync<long>("select count(*) from pg_index where indrelid = 'things'::regclass and not indisvalid", Token));
        await using ProgressReader reader = new(bench.Session, new() { Table = "things" });
        Task<int> reindex = bench.Database.ExecuteAsync("reindex table concurrently things", Token);
        await UntilAsync(reader, bench, p => p.BlockedBy.Contains(gate.Pid));
        // Of two indexes, the first is built.
        OperationState state = Assert.Single(reader.Tracker.Running).State;
        Assert.Equal((18, 1), (state.Parts.Count, state.Part / 6));
        await gate.CommitAsync(Token);
        await reindex;
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Who_locks_the_log_holds_no_answer_up(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Things);
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        await OperationStore.EnsureAsync(connection, Token);
        await connection.ExecuteAsync("set application_name = 'MigrationSafety/index'", Token);
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
        Task build = connection.ExecuteAsync("create index things_gate on things (gate(id))", Token);
        await using ProgressReader reader = new(bench.Session, new() { Pid = connection.ProcessID });
        await UntilAsync(reader, bench, p => p.BlockedBy.Contains(gate.Pid));
        Waiting waiting = await Waiting.StartAsync(bench.Session, new() { Pid = connection.ProcessID });
        await using LockHolder locked = await LockHolder.HoldAsync(bench.Database, $"lock table {OperationStore.Table} in access exclusive mode");
        await gate.CommitAsync(Token);
        await build;
        await waiting.EndsAsync();
        ProgressResult result = Assert.Single(waiting.Ended);
        Assert.Equal(ProgressOutcome.Ended, result.Outcome);
        Assert.StartsWith("Somebody locks", result.Detail, StringComparison.Ordinal);
    }

    /// <summary>Somebody who waits, and has looked at least once.</summary>
    private sealed class Waiting
    {
        private readonly RecordingSink _sink = new();
        private readonly Task _task;

        private Waiting(EngineSession session, ProgressFilter filter) => _task = ProgressWait.RunAsync(session, filter, TimeSpan.FromMilliseconds(50), Ended.Add, _sink, null, Token);

        internal List<ProgressResult> Ended { get; } = [];

        internal static async Task<Waiting> StartAsync(EngineSession session, ProgressFilter filter)
        {
            Waiting waiting = new(session, filter);
            await waiting.LooksAgainAsync();
            return waiting;
        }

        /// <summary>Until it has looked twice more: what one look may have begun before, the other has not.</summary>
        internal async Task LooksAgainAsync()
        {
            int before = _sink.ProgressRecords.Count;
            await Wait.UntilAsync(() => _task.IsCompleted || _sink.ProgressRecords.Count >= before + 2, "two looks", cancellationToken: Token);
            Assert.False(_task.IsCompleted, $"It waits no more: {string.Join("; ", Ended)}");
        }

        internal Task EndsAsync() => _task.WaitAsync(TimeSpan.FromSeconds(30), Token);
    }
}
