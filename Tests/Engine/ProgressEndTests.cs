using MigrationSafety.Engine.Progress;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;
using static MigrationSafety.Tests.Engine.Support.ProgressLooks;

namespace MigrationSafety.Tests.Engine;

/// <summary>How operations of others ended, as far as the server tells.</summary>
public sealed class ProgressEndTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_is_waited_for_is_told_how_it_ended(int major)
    {
        await using IndexBench bench = await GatedAsync(servers, major);
        await bench.Database.ExecuteAsync("create table moved (id int, v text)", Token);
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        int pid = connection.ProcessID;

        (string Sql, string Operation, bool Cancel, ProgressOutcome Outcome)[] cases =
        [
            ("create index concurrently things_v on things (gate_always(id))", "CREATE INDEX CONCURRENTLY", false, ProgressOutcome.Finished),
            ("create index concurrently things_w on things (gate_always(id))", "CREATE INDEX CONCURRENTLY", true, ProgressOutcome.Failed),
            ("create index things_x on things (gate_always(id))", "CREATE INDEX", true, ProgressOutcome.Failed),
            ("drop index things_w; alter table things add column a int default gate(10000)", "ALTER TABLE", false, ProgressOutcome.Finished),
            ("alter table things add column b int default gate(10000)", "ALTER TABLE", true, ProgressOutcome.Failed),
            ("create table copied as select gate(id) as id from things", "CREATE TABLE AS", false, ProgressOutcome.Finished),
            ("vacuum full things", "VACUUM FULL", false, ProgressOutcome.Finished),
            ("vacuum full things", "VACUUM FULL", true, ProgressOutcome.Failed),
            ("reindex index things_v", "REINDEX", false, ProgressOutcome.Finished),
        ];
        foreach ((string sql, string operation, bool cancel, ProgressOutcome outcome) in cases)
        {
            await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
            Task work = connection.ExecuteAsync(sql, Token);
            await using (ProgressReader reader = new(bench.Session, new() { Pid = pid }))
            {
                await UntilAsync(reader, bench, p => p.Operation == operation && p.BlockedBy.Contains(gate.Pid));
            }

            List<ProgressResult> ended = [];
            RecordingSink sink = new();
            Task waiting = ProgressWait.RunAsync(bench.Session, new() { Pid = pid }, TimeSpan.FromMilliseconds(100), ended.Add, sink, null, Token);
            await Wait.UntilAsync(() => sink.ProgressRecords.Count > 0, "progress", cancellationToken: Token);
            if (cancel)
            {
                await bench.Database.ExecuteAsync($"select pg_cancel_backend({pid})", Token);
                await Assert.ThrowsAsync<PostgresException>(() => work);
            }

            await gate.CommitAsync(Token);
            await (cancel ? Task.CompletedTask : work);
            await waiting;
            ProgressResult result = ended[0];
            Assert.Equal((sql, operation, outcome), (sql, result.Operation, result.Outcome));
            Assert.Equal((operation == "CREATE TABLE AS" ? "copied" : "public.things", pid), (result.Target, result.Pid));
            if (sql.Contains("index things_", StringComparison.Ordinal) && !sql.StartsWith("drop", StringComparison.Ordinal))
            {
                // That of a plain CREATE INDEX by its statement alone.
                Assert.Contains($"index {(sql.Contains("concurrently", StringComparison.Ordinal) ? "concurrently " : "")}{result.Index?["public.".Length..]}", sql, StringComparison.Ordinal);
            }
        }

        // Nothing proves how a COPY TO ended, and a transaction that is open yet can be rolled back.
        List<ProgressResult> last = [];
        NpgsqlConnection doomed = new(new NpgsqlConnectionStringBuilder(bench.Database.ConnectionString) { Pooling = false }.ConnectionString);
        await doomed.OpenAsync(Token);
        TextReader export = await doomed.BeginTextExportAsync("copy things to stdout", Token);
        await using (ProgressReader reader = new(bench.Session, new() { Pid = doomed.ProcessID }))
        {
            await UntilAsync(reader, bench, p => p.Operation == "COPY TO");
        }

        RecordingSink looking = new();
        Task until = ProgressWait.RunAsync(bench.Session, new() { Pid = doomed.ProcessID }, TimeSpan.FromMilliseconds(100), last.Add, looking, null, Token);
        await Wait.UntilAsync(() => looking.ProgressRecords.Count > 0, "progress", cancellationToken: Token);
        await bench.Database.ExecuteAsync($"select pg_terminate_backend({doomed.ProcessID})", Token);
        await until;
        // Of a client that went away with all that it wanted, and of one that did not, the server knows no more.
        Assert.Equal(ProgressOutcome.Ended, Assert.Single(last).Outcome);
        Assert.Contains("Last seen: ", last[0].Detail, StringComparison.Ordinal);
        export.Dispose();
        await doomed.DisposeAsync();
    }

    [Theory, EachMajor]
    public async Task A_concurrent_drop_waits_for_transactions_and_ends_as_the_catalog_says(int major)
    {
        await using IndexBench bench = await GatedAsync(servers, major);
        await bench.Database.ExecuteAsync("create index things_v on things (v)", Token);
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        foreach (bool cancel in (bool[])[true, false])
        {
            await using LockHolder reading = await LockHolder.HoldAsync(bench.Database, "lock table things in access share mode");
            Task drop = connection.ExecuteAsync("drop index concurrently things_v", Token);
            await using (ProgressReader reader = new(bench.Session, new() { Table = "things" }))
            {
                MigrationProgress seen = await UntilAsync(reader, bench, p => p.BlockedBy.Length > 0);
                Assert.Equal(("DROP INDEX CONCURRENTLY", "public.things", "public.things_v"), (seen.Operation, seen.Target, seen.Index));
                Assert.Equal(("waiting for old transactions", $"transaction of pid {reading.Pid}"), (seen.Phase, seen.WaitingFor));
            }

            List<ProgressResult> ended = [];
            RecordingSink sink = new();
            Task waiting = ProgressWait.RunAsync(bench.Session, new() { Pid = connection.ProcessID }, TimeSpan.FromMilliseconds(100), ended.Add, sink, null, Token);
            await Wait.UntilAsync(() => sink.ProgressRecords.Count > 0, "progress", cancellationToken: Token);
            if (cancel)
            {
                await bench.Database.ExecuteAsync($"select pg_cancel_backend({connection.ProcessID})", Token);
                await Assert.ThrowsAsync<PostgresException>(() => drop);
            }

            await reading.CommitAsync(Token);
            await (cancel ? Task.CompletedTask : drop);
            await waiting;
            Assert.Equal((cancel ? ProgressOutcome.Failed : ProgressOutcome.Finished, "public.things_v"), (Assert.Single(ended).Outcome, ended[0].Index));
        }
    }

    [Theory, EachMajor]
    public async Task The_next_statement_of_a_session_is_not_waited_for(int major)
    {
        await using IndexBench bench = await GatedAsync(servers, major);
        await bench.Database.ExecuteAsync("create table moved (id int); insert into moved values (1)", Token);
        await using LockHolder reading = await LockHolder.HoldAsync(bench.Database, "lock table things in access share mode");
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
        NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        int pid = connection.ProcessID;
        async Task WorkAsync()
        {
            await using (connection)
            {
                await connection.ExecuteAsync("alter table moved add column n int default gate(10000)", Token);
                await connection.ExecuteAsync("alter table things add column n int", Token);
            }
        }

        Task work = WorkAsync();
        await using ProgressReader reader = new(bench.Session, new() { Pid = pid });
        await UntilAsync(reader, bench, p => p.BlockedBy.Contains(gate.Pid));
        List<ProgressResult> ended = [];
        RecordingSink sink = new();
        Task waiting = ProgressWait.RunAsync(bench.Session, new() { Pid = pid }, TimeSpan.FromMilliseconds(100), ended.Add, sink, null, Token);
        await Wait.UntilAsync(() => sink.ProgressRecords.Count > 0, "progress", cancellationToken: Token);
        await gate.CommitAsync(Token);
        await UntilAsync(reader, bench, p => p.BlockedBy.Contains(reading.Pid));
        await waiting.WaitAsync(TimeSpan.FromSeconds(30), Token);
        Assert.Equal("public.moved", Assert.Single(ended).Target);
        await reading.CommitAsync(Token);
        await work;
    }
}
