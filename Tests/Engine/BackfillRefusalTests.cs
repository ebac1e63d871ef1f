using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What is refused before anything changes, and what of a row that only the run meets.</summary>
public sealed class BackfillRefusalTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task Another_definition_under_the_same_name_is_refused(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, BackfillBench.Orders);
        await bench.RunAsync(BackfillBench.Request("orders", "tier", "'standard'"));

        MigrationException e = await bench.FailsAsync(BackfillBench.Request("orders", "tier", "'basic'", "tier = 'standard'"));

        Assert.Equal("DefinitionDiffers", e.ErrorId);
        Assert.Contains("'standard'", e.Message, StringComparison.Ordinal);
        Assert.Contains("'basic'", e.Message, StringComparison.Ordinal);
        Assert.Contains("Remove-Backfill", e.RecommendedAction, StringComparison.Ordinal);
        BackfillResult named = await bench.RunAsync(BackfillBench.Request("orders", "tier", "'basic'", "tier = 'standard'") with { Name = "to basic" });
        Assert.Equal(5000, named.Rows);
        Assert.Equal(Reversibility.Irreversible, named.Steps[^1].Reversibility);
        Assert.Null(named.Steps[^1].Reversal);
    }

    [Theory, EachMajor]
    public async Task A_predicate_that_stays_true_is_refused_before_anything_changes(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, BackfillBench.Orders);

        foreach (BackfillRequest request in (BackfillRequest[])
        [
            BackfillBench.Request("orders", "tier", "'standard'", "id > 0"),
            BackfillBench.Request("orders", "tier", "nullif(note, note)"),
            BackfillBench.Request("orders", "tier", "case when id % 2 = 0 then 'even' end"),
        ])
        {
            MigrationException e = await bench.FailsAsync(request);
            Assert.Equal("PredicateStaysTrue", e.ErrorId);
            Assert.Equal(MigrationErrorKind.InvalidInput, e.Kind);
        }

        Assert.Equal(5000, await bench.ScalarAsync<long>("select count(*) from orders where tier is null"));
        Assert.False(await bench.StateExistsAsync());
        await bench.UntilNothingHeldAsync();
    }

    [Theory, EachMajor]
    public async Task A_row_for_which_the_predicate_stays_true_is_changed_by_nothing(int major)
    {
        // Too few for the trial to meet one of them, whatever it picks: that would be refused before.
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, v int, n int not null default 0);
            insert into t select i from generate_series(1, 60000) i;
            analyze t
            """);
        BackfillRequest request = BackfillBench.Request("t", "v", "case when id % 30000 <> 17 then id end", "v is null") with { Set = [new("v", "case when id % 30000 <> 17 then id end"), new("n", "n + 1")], Workers = 2 };

        MigrationException stays = await bench.FailsAsync(request);

        Assert.Equal(("PredicateStaysTrue", MigrationErrorKind.InvalidInput), (stays.ErrorId, stays.Kind));
        Assert.Contains("17)", stays.Message, StringComparison.Ordinal);
        Assert.Equal(0, await bench.ScalarAsync<long>("select count(*) from t where n > 1 or (v is null and n > 0)"));

        BackfillResult result = await bench.RunAsync(request with { MaxErrors = 2 });

        Assert.Equal((BackfillOutcome.CompletedWithErrors, 59_998L, 2L, 2L), (result.Outcome, result.TotalRows, result.Errors, result.Remaining));
        Assert.Equal(59_998, await bench.ScalarAsync<long>("select count(*) from t where v = id and n = 1"));
        Assert.Equal("17:0 30017:0", await bench.ScalarAsync<string>("select string_agg(id || ':' || n, ' ' order by id) from t where v is null"));
        Assert.Equal(2, await bench.ScalarAsync<long>("select count(*) from migration_safety.backfill_error where message like 'The condition (v is null) is still true after the update%'"));
    }

    [Theory, EachMajor]
    public async Task What_is_wrong_is_said_before_anything_changes(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, BackfillBench.Orders + """
            create table no_key (a int, b int); insert into no_key values (1);
            create table made (id int primary key, a int, twice int generated always as (a * 2) stored, ident int generated always as identity);
            insert into made values (1, 1);
            create table strict (id int primary key, v int check (v < 100), w int not null default 0, u int unique); insert into strict (id) values (1), (2);
            create table parted (at int, v int) partition by range (at); create table parted_1 partition of parted for values from (0) to (10);
            create foreign data wrapper nowhere; create server elsewhere foreign data wrapper nowhere;
            create table mixed (at int, v int) partition by range (at); create foreign table mixed_1 partition of mixed for values from (0) to (10) server elsewhere;
            """);

        async Task Expect(string id, BackfillRequest request, string? part = null)
        {
            MigrationException e = await bench.FailsAsync(request);
            Assert.True(e.ErrorId == id, $"{e.ErrorId}: {e.Message}");
            Assert.NotEmpty(e.RecommendedAction);
            if (part is not null)
            {
                Assert.Contains(part, e.Message + e.RecommendedAction, StringComparison.Ordinal);
            }
        }

        await Expect("TableNotFound", BackfillBench.Request("nothing", "tier", "1"));
        await Expect("ColumnNotFound", BackfillBench.Request("orders", "tear", "1"), "tier");
        await Expect("ColumnNotFound", BackfillBench.Request("orders", "\"Tier\"", "1"), "Did you mean tier");
        await Expect("ColumnNotFound", BackfillBench.Request("orders", "tier", "nothing_like_it"), "nothing_like_it");
        await Expect("FunctionNotFound", BackfillBench.Request("orders", "tier", "no_function(note)"));
        await Expect("TypeMismatch", BackfillBench.Request("strict", "v", "'{}'::jsonb"));
        await Expect("SyntaxError", BackfillBench.Request("orders", "tier", "1 +"));
        await Expect("SyntaxError", BackfillBench.Request("orders", "tier", "'x'), note = ('y'"));
        await Expect("SyntaxError", BackfillBench.Request("orders", "tier", "coalesce(note, 'y'"));
        await Expect("SyntaxError", BackfillBench.Request("orders", "tier", "$1"), "parameter");
        await Expect("SyntaxError", BackfillBench.Request("orders", "tier", "'x' /*"), "not closed");
        await Expect("SyntaxError", BackfillBench.Request("orders", "tier", "'x'); drop table orders; --"));
        await Expect("SyntaxError", BackfillBench.Request("orders", "tier", "'x'", "tier is null) is true); delete from orders; --"));
        await Expect("ExpressionEmpty", BackfillBench.Request("orders", "tier", " "));
        await Expect("WhereEmpty", BackfillBench.Request("orders", "tier", "'x'", " "));
        await Expect("WhereMissing", BackfillBench.Request("strict", "w", "1"));
        await Expect("SetMissing", new BackfillRequest { Table = "orders", Set = [] });
        await Expect("ColumnTwice", new BackfillRequest { Table = "orders", Set = [new("tier", "'a'"), new("TIER", "'b'")] });
        await Expect("BatchInvalid", BackfillBench.Request("orders", "tier", "'x'", batchSize: 0));
        await Expect("BatchInvalid", BackfillBench.Request("orders", "tier", "'x'") with { TargetBatchTime = TimeSpan.FromDays(30) }, "10 min");
        await Expect("UniqueIndexMissing", BackfillBench.Request("no_key", "b", "1") with { Strategy = BackfillStrategy.Key }, "Invoke-SafeIndexBuild");
        await Expect("UniqueIndexMissing", BackfillBench.Request("made", "id", "id + 1", "id < 0") with { Strategy = BackfillStrategy.Key });
        await Expect("WorkersInvalid", BackfillBench.Request("orders", "tier", "'x'") with { Workers = 0 });
        await Expect("NullValue", BackfillBench.Request("strict", "w", "nullif(w, 0)", "w = 0"), "The expression for w gives NULL for this row, or a trigger does: give it a value with coalesce()");
        await Expect("MaxErrorsInvalid", BackfillBench.Request("orders", "tier", "'x'") with { MaxErrors = -1 });
        await Expect("PartitionKeySet", BackfillBench.Request("parted", "at", "at + 1", "at < 0"));
        await Expect("TableKindNotSupported", BackfillBench.Request("mixed", "v", "1"), "foreign table");
        await Expect("ColumnGenerated", BackfillBench.Request("made", "twice", "1", "a = 1"));
        await Expect("ColumnGenerated", BackfillBench.Request("made", "ident", "1", "a = 1"));
        await Expect("CheckViolated", BackfillBench.Request("strict", "v", "1000"));
        await Expect("DuplicateKey", BackfillBench.Request("strict", "u", "1"));
        await Expect("InvalidData", BackfillBench.Request("strict", "v", "1 / (id - 1)"));
        Assert.False(await bench.StateExistsAsync());
        Assert.Equal(5000, await bench.ScalarAsync<long>("select count(*) from orders where tier is null"));
    }

    [Theory, EachMajor]
    public async Task What_the_role_may_not_is_said_with_the_grant(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, BackfillBench.Orders);
        await using TestRole role = await TestRole.CreateAsync(bench.Database);
        EngineSession session = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, role.Name));
        BackfillRequest request = BackfillBench.Request("orders", "tier", "'x'");

        Assert.Equal("InsufficientPrivilege", (await bench.FailsAsync(request, session)).ErrorId);

        await bench.Database.ExecuteAsync($"grant select, update on orders to {role.Name}", Token);
        MigrationException missing = await bench.FailsAsync(request, session);
        Assert.Equal("StateSchemaMissing", missing.ErrorId);
        Assert.Contains($"GRANT CREATE ON DATABASE {bench.Database.Name} TO {role.Name}", missing.RecommendedAction, StringComparison.Ordinal);

        // Made by somebody else: what is missing now is another grant, and the one that the advice names is enough.
        await bench.RunAsync(BackfillBench.Request("orders", "note", "'x'", "id < 0"));
        MigrationException denied = await bench.FailsAsync(request, session);
        Assert.Equal("StateSchemaDenied", denied.ErrorId);
        await bench.Database.ExecuteAsync(denied.RecommendedAction[denied.RecommendedAction.IndexOf("GRANT", StringComparison.Ordinal)..], Token);
        Assert.Equal(5000, (await bench.RunAsync(request, session: session)).Rows);

        await bench.Database.ExecuteAsync($"update orders set tier = null; alter table orders enable row level security; create policy even on orders to {role.Name} using (id % 2 = 0)", Token);
        Assert.Equal("InsufficientPrivilege", (await bench.FailsAsync(request, session)).ErrorId);
    }

    [Theory, EachMajor]
    public async Task A_refused_row_that_is_mended_before_the_end_is_done_and_no_error(int major)
    {
        foreach ((BackfillStrategy strategy, bool keep) in ((BackfillStrategy, bool)[])[(BackfillStrategy.Block, false), (BackfillStrategy.Key, true)])
        {
            await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
                create table t (id int primary key, note text, v int, key text, place text);
                insert into t select i, case when i % 500 = 0 then 'x' else i::text end from generate_series(1, 2000) i
                """);
            // 500 is just being mended, 1000 deleted; 1500 is mended while these are waited for, 2000 stays what it is.
            await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "update t set note = '500' where id = 500", "delete from t where id = 1000");

            Task<BackfillResult> run = bench.RunAsync(BackfillBench.Request("t", "v", "note::int") with { MaxErrors = 4, Strategy = strategy, KeepOldValues = keep });
            await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.StartsWith("2 rows that the server refused are just being changed", StringComparison.Ordinal)), "the end to wait for two rows", cancellationToken: Token);
            Assert.False(run.IsCompleted);
            Assert.Equal(4, await bench.ScalarAsync<long>("select count(*) from migration_safety.backfill_error"));
            await bench.Database.ExecuteAsync("update t set note = '1500' where id = 1500", Token);
            await holder.CommitAsync(Token);
            BackfillResult result = await run;

            Assert.Equal((BackfillOutcome.CompletedWithErrors, 1998L, 1L, 1L), (result.Outcome, result.Rows, result.Errors, result.Remaining));
            Assert.Equal("2000", await bench.ScalarAsync<string>("select key[1] from migration_safety.backfill_error"));
            Assert.Equal(1998, await bench.ScalarAsync<long>("select count(*) from t where v = id"));
            Assert.Contains("3 rows were changed or deleted since the server refused them; sweeps again.", bench.Sink.VerboseMessages);
        }
    }

    [Theory, EachMajor]
    public async Task Another_row_at_the_place_of_a_refused_one_is_done(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int); insert into t select i from generate_series(1, 4) i; create table u (id int primary key, v int)");
        await bench.RunAsync(BackfillBench.Request("u", "v", "1"));
        // As VACUUM FULL leaves it: what was recorded of row 2 has the place and the version of row 4 now.
        await bench.Database.ExecuteAsync(
            """
            create function moved() returns trigger language plpgsql as $$
            begin
                insert into migration_safety.backfill_error (backfill, relation, relation_name, place, version, key_columns, key, sqlstate, message)
                select b.name, 't'::regclass, 't', r.ctid::text, r.xmin::text, '{id}', '{2}', '22000', 'refused' from migration_safety.backfill b, t r where b.name = 'moved' and r.id = 4;
                return new;
            end $$;
            create trigger moved before update on t for each row when (old.id = 1) execute function moved()
            """,
            Token);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from t where id = 4 for update");

        Task<BackfillResult> run = bench.RunAsync(BackfillBench.Request("t", "v", "id") with { Name = "moved", MaxErrors = 4 });
        await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("of which 1 were locked", StringComparison.Ordinal)), "the sweep to meet the locked row", cancellationToken: Token);
        Assert.False(run.IsCompleted);
        await holder.CommitAsync(Token);
        BackfillResult result = await run;

        Assert.Equal((BackfillOutcome.Completed, 4L, 0L, 0L), (result.Outcome, result.Rows, result.Errors, result.Remaining));
        Assert.Equal(4, await bench.ScalarAsync<long>("select count(*) from t where v = id"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_standby_is_refused_and_waited_for_where_it_takes_over(int major)
    {
        await using PostgresServer primary = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using BackfillBench bench = await BackfillBench.CreateAsync(primary, BackfillBench.Orders);
        await using PostgresServer standby = await primary.StartStandbyAsync(cancellationToken: Token);
        EngineSession session = await bench.SessionAsync(db => standby.ConnectionString(db.Name));

        Assert.Equal("PrimaryRequired", (await bench.FailsAsync(BackfillBench.Request("orders", "tier", "'x'"), session)).ErrorId);

        EngineSession readOnly = await bench.SessionAsync(db => db.ConnectionString + ";Options=-c default_transaction_read_only=on");
        Assert.Equal("ReadOnly", (await bench.FailsAsync(BackfillBench.Request("orders", "tier", "'x'"), readOnly)).ErrorId);

        // A failover: the name leads to the standby some seconds before that is promoted.
        await using TcpProxy proxy = TcpProxy.Start(primary);
        await using NpgsqlConnection promoted = new(standby.ConnectionString(bench.Database.Name));
        await promoted.OpenAsync(Token);
        Task<BackfillResult> run = bench.RunAsync(
            BackfillBench.Request("orders", "tier", "'x'", batchSize: 50) with { Throttle = new() { RowsPerSecond = 2000 } }, session: await bench.SessionAsync(proxy.ConnectionString));
        await bench.UntilBatchesAsync(3, run);
        proxy.RedirectTo(standby);
        await Wait.UntilAsync(
            () => run.IsCompleted || bench.Sink.VerboseMessages.Count(m => m.Contains("may not write", StringComparison.Ordinal)) > 1, "the standby to be tried twice", cancellationToken: Token);
        Assert.False(run.IsCompleted);
        await promoted.ExecuteAsync("select pg_promote()", Token);

        BackfillResult result = await run;
        Assert.Equal((BackfillOutcome.Completed, 5000L), (result.Outcome, result.TotalRows));
        await using NpgsqlCommand left = new("select count(*) from orders where tier is null", promoted);
        Assert.Equal(0L, await left.ExecuteScalarAsync(Token));
    }
}
