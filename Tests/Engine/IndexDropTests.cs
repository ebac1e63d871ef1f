using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Rollback;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

public sealed class IndexDropTests(Servers servers)
{
    private const string Orders = """
        create table orders (id int primary key, tier text, note text);
        insert into orders select i, 'tier ' || i % 7, 'note ' || i from generate_series(1, 1000) i;
        create index ix on orders (tier);
        analyze orders
        """;

    private const string Reader = "lock table orders in access share mode";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static IndexDropRequest Request => new() { Name = "ix" };

    [Theory, EachMajor]
    public async Task An_index_is_dropped_and_the_second_run_finds_it_gone(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        IndexDropPlan plan = await IndexDropper.PlanAsync(bench.Session, Request, bench.Sink, Token);
        MigrationStep step = Assert.Single(plan.Steps);
        Assert.Equal("DROP INDEX CONCURRENTLY IF EXISTS public.ix", step.Sql);
        Assert.Equal("CREATE INDEX CONCURRENTLY ix ON public.orders USING btree (tier)", step.Reversal);
        Assert.Equal((TableLockMode.ShareUpdateExclusive, false, Reversibility.Reversible), (step.LockMode, step.Transactional, step.Reversibility));
        Assert.Equal(["ix:valid"], await bench.IndexesAsync("ix"));

        IndexDropResult result = await IndexDropper.RunAsync(plan, bench.Sink, Token);
        Assert.Equal(
            (IndexDropOutcome.Dropped, "public", "orders", "ix", "CREATE INDEX ix ON public.orders USING btree (tier)", 1),
            (result.Outcome, result.Schema, result.Table, result.Name, result.Definition, result.Attempts));
        Assert.True(result.SizeBytes > 0);
        Assert.Equal(StepState.Done, Assert.Single(result.Steps).State);
        Assert.Empty(await bench.IndexesAsync("ix"));
        Assert.Empty(bench.Sink.Warnings);
        await bench.AssertNothingHeldAsync();

        IndexDropResult again = await DropAsync(bench, Request with { Name = "i" });
        Assert.Equal((IndexDropOutcome.AlreadyGone, 0), (again.Outcome, again.Attempts));
        Assert.Contains("There is no index i in database", Assert.Single(bench.Sink.Warnings), StringComparison.Ordinal);
    }

    [Theory, EachMajor]
    public async Task The_way_back_restores_all_that_belonged_to_it(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            """
            create schema own;
            create function own.f(text) returns text immutable language sql as 'select upper($1)';
            create collation own.c from "C";
            create table own."Orders" (id int, tier text, note text);
            create unique index "My ix" on own."Orders" (own.f(tier) collate own.c desc, id) include (note) with (fillfactor = 70) where own.f(tier) <> 'it''s';
            comment on index own."My ix" is 'it''s ours';
            alter index own."My ix" alter column 1 set statistics 250;
            create index clustering on own."Orders" (note);
            alter table own."Orders" cluster on clustering;
            alter index own."My ix" depends on extension plpgsql;
            set search_path = own
            """);
        // A role's search_path must not leak into the way back.
        await bench.Database.ExecuteAsync($"alter database \"{bench.Database.Name}\" set search_path = own", Token);
        bench.Database.DataSource.Clear();
        EngineSession session = await bench.SessionAsync(db => db.ConnectionString);
        const string State = """
            select pg_get_indexdef(c.oid) || obj_description(c.oid, 'pg_class') || i.indisclustered || i.indisunique || c.reloptions::text || a.attstattarget
                   || (select string_agg(refobjid::text, ',') from pg_depend where objid = c.oid and deptype = 'x')
            from pg_class c join pg_index i on i.indexrelid = c.oid join pg_attribute a on a.attrelid = c.oid and a.attnum = 1 where c.relname = 'My ix'
            """;
        string before = (await bench.Database.ScalarAsync<string>(State, Token))!;
        IndexDropResult result = await IndexDropper.RunAsync(await IndexDropper.PlanAsync(session, new() { Name = "\"My ix\"" }, bench.Sink, Token), bench.Sink, Token);
        Assert.Null(await bench.Database.ScalarAsync<string>(State, Token));
        Assert.Contains("duplicates are accepted", result.Steps[0].ReversalNote, StringComparison.Ordinal);

        RollbackScript script = RollbackGenerator.FromSteps("drop", result.Steps);
        Assert.StartsWith("CREATE UNIQUE INDEX CONCURRENTLY \"My ix\" ON own.\"Orders\"", script.Statements[0].Reversal, StringComparison.Ordinal);
        Assert.Equal(TableLockMode.ShareUpdateExclusive, script.Statements[1].LockMode);
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        await connection.ExecuteAsync("set search_path = public", Token);
        foreach (RollbackStatement statement in script.Statements)
        {
            await connection.ExecuteAsync(statement.Reversal!, Token);
        }

        Assert.Equal(before, await bench.Database.ScalarAsync<string>(State, Token));

        IndexDropResult clustering = await IndexDropper.RunAsync(await IndexDropper.PlanAsync(session, new() { Name = "clustering" }, bench.Sink, Token), bench.Sink, Token);
        foreach (RollbackStatement statement in RollbackGenerator.FromSteps("drop", clustering.Steps).Statements)
        {
            Assert.Equal(TableLockMode.ShareUpdateExclusive, statement.LockMode);
            await connection.ExecuteAsync(statement.Reversal!, Token);
        }

        Assert.True(await bench.Database.ScalarAsync<bool>("select indisclustered from pg_index where indexrelid = 'own.clustering'::regclass", Token));
    }

    [Theory, EachMajor]
    public async Task The_tablespace_comes_back_before_the_condition(int major)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using IndexBench bench = await IndexBench.CreateAsync(server, Orders);
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        await connection.ExecuteAsync("set allow_in_place_tablespaces = on", Token);
        await connection.ExecuteAsync("create tablespace fast location ''", Token);
        await bench.Database.ExecuteAsync("create index iy on orders (note) with (fillfactor = 80) tablespace fast where id > 5", Token);
        IndexDropResult result = await DropAsync(bench, new() { Name = "iy" });
        Assert.Equal("CREATE INDEX CONCURRENTLY iy ON public.orders USING btree (note) WITH (fillfactor='80') TABLESPACE fast WHERE (id > 5)", result.Steps[0].Reversal);
        await bench.Database.ExecuteAsync(result.Steps[0].Reversal!, Token);
    }

    [Theory, EachMajor]
    public async Task What_something_depends_on_is_refused_and_the_proper_way_is_told(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            Orders + """
            ; create unique index referred on orders (note);
            create table notes (note text constraint notes_fk references orders (note), period int4range, unique (note), constraint "No overlap" exclude using gist (period with &&));
            alter table notes alter note set not null; create unique index identity on notes (note); alter table notes replica identity using index identity;
            create table parts (a int, b int) partition by range (a); create table part1 partition of parts for values from (0) to (10); create index parent on parts (b)
            """);
        await RefusedAsync("IndexBacksConstraint", "orders_pkey", "backs the primary key orders_pkey of public.orders", "ALTER TABLE public.orders DROP CONSTRAINT orders_pkey");
        await RefusedAsync("IndexBacksConstraint", "notes_note_key", "unique constraint", "DROP CONSTRAINT notes_note_key");
        await RefusedAsync("IndexBacksConstraint", "No overlap", "exclusion constraint \"No overlap\"", "DROP CONSTRAINT \"No overlap\"");
        await RefusedAsync("IndexBacksConstraint", "referred", "foreign key notes_fk of public.notes", "ALTER TABLE public.notes DROP CONSTRAINT notes_fk");
        await RefusedAsync("IndexIsReplicaIdentity", "identity", "replica identity of public.notes", "REPLICA IDENTITY DEFAULT");
        await RefusedAsync("IndexIsAttached", "part1_b_idx", "attached to public.parent", "Drop public.parent");
        await RefusedAsync("IndexIsPartitioned", "parent", "cannot drop it concurrently", "DROP INDEX public.parent takes ACCESS EXCLUSIVE");
        await RefusedAsync("IndexKindNotSupported", "pg_catalog.pg_class_oid_index", "system catalog", "your own");
        await RefusedAsync("NotAnIndex", "orders", "no index", "index");
        string toast = (await bench.Database.ScalarAsync<string>("select indexrelid::regclass::text from pg_index i join pg_class t on t.reltoastrelid = i.indrelid where t.relname = 'orders'", Token))!;
        await RefusedAsync("IndexKindNotSupported", toast, "toast table of public.orders", "goes with its table");
        Assert.Equal("SchemaContradicts", (await Assert.ThrowsAsync<MigrationException>(() => DropAsync(bench, new() { Name = "public.ix", Schema = "own" }))).ErrorId);

        await using TestRole stranger = await TestRole.CreateAsync(bench.Database);
        EngineSession session = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, stranger.Name));
        MigrationException denied = await Assert.ThrowsAsync<MigrationException>(() => IndexDropper.PlanAsync(session, new() { Name = "public.ix" }, bench.Sink, Token));
        Assert.Equal(("InsufficientPrivilege", MigrationErrorKind.Permission), (denied.ErrorId, denied.Kind));

        async Task RefusedAsync(string id, string name, string message, string advice)
        {
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => DropAsync(bench, new() { Name = name.Contains(' ', StringComparison.Ordinal) ? $"\"{name}\"" : name }));
            Assert.Equal(id, e.ErrorId);
            Assert.Contains(message, e.Message, StringComparison.Ordinal);
            Assert.Contains(advice, e.RecommendedAction, StringComparison.Ordinal);
        }
    }

    [Theory, EachMajor]
    public async Task An_index_that_was_used_lately_or_serves_a_foreign_key_is_warned_of(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            Orders + "; create table items (a int, order_id int constraint items_fk references orders, b int); create index lonely on items (order_id); create index other on items (a)");
        await using (NpgsqlConnection connection = new(bench.Database.ConnectionString + ";Pooling=false"))
        {
            await connection.OpenAsync(Token);
            await connection.ExecuteAsync("set enable_seqscan = off; select count(*) from orders where tier = 'tier 1'", Token);
        }

        await Wait.UntilAsync(async () => await bench.Database.ScalarAsync<long>("select pg_stat_get_numscans('ix'::regclass)", Token) > 0, "the scan to be counted", cancellationToken: Token);
        await IndexDropper.PlanAsync(bench.Session, Request, bench.Sink, Token);
        string used = Assert.Single(bench.Sink.Warnings);
        Assert.Contains(major >= 16 ? "public.ix was last used by a query" : "public.ix was used by queries", used, StringComparison.Ordinal);

        await IndexDropper.PlanAsync(bench.Session, new() { Name = "other" }, bench.Sink, Token);
        Assert.Single(bench.Sink.Warnings);
        await IndexDropper.PlanAsync(bench.Session, new() { Name = "lonely" }, bench.Sink, Token);
        Assert.Contains("foreign key items_fk: without it, each DELETE in public.orders reads all of public.items", bench.Sink.Warnings.Last(), StringComparison.Ordinal);
        await bench.Database.ExecuteAsync("create index better on items (order_id, b)", Token);
        await IndexDropper.PlanAsync(bench.Session, new() { Name = "lonely" }, bench.Sink, Token);
        Assert.Equal(2, bench.Sink.Warnings.Count);
    }

    [Theory, EachMajor]
    public async Task Old_transactions_are_awaited_while_the_index_still_serves(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, Reader);
        await Wait.UntilAsync(async () => await bench.Database.ScalarAsync<bool>($"select clock_timestamp() - xact_start > '0.5 s' from pg_stat_activity where pid = {old.Pid}", Token), "the transaction to be an old one", cancellationToken: Token);
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => DropAsync(bench, Request with { Options = new() { WaitFor = TimeSpan.FromSeconds(0.5) } }));
        Assert.Equal(("WaitedTooLong", MigrationErrorKind.Timeout), (e.ErrorId, e.Kind));
        Assert.Contains("Nothing was changed: the index serves on", e.Message, StringComparison.Ordinal);
        Assert.Equal(old.Pid, Assert.Single(e.Blockers).Pid);
        Assert.Equal(["ix:valid"], await bench.IndexesAsync("ix"));

        int told = bench.Sink.ProgressRecords.Count;
        Task<IndexDropResult> drop = DropAsync(bench, Request);
        await Wait.UntilAsync(() => bench.Sink.ProgressRecords.Skip(told).Any(p => p.Activity == "Dropping index public.ix" && p.CurrentOperation?.Contains($"pid {old.Pid} ", StringComparison.Ordinal) == true), "the wait to be told", cancellationToken: Token);
        Assert.Equal(["ix:valid"], await bench.IndexesAsync("ix"));
        await old.CommitAsync(Token);
        IndexDropResult result = await drop;
        Assert.Equal(IndexDropOutcome.Dropped, result.Outcome);
        Assert.True(result.WaitTime > TimeSpan.Zero);
        Assert.Contains(result.Steps[0].LockWaits, wait => !wait.Queued && wait.Blockers.Any(blocker => blocker.Pid == old.Pid));
    }

    [Theory, EachMajor]
    public async Task An_interrupted_drop_is_finished_with_its_way_back(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await bench.LeaveInvalidAsync("drop index concurrently ix", Reader);
        Assert.Equal(["ix:invalid"], await bench.IndexesAsync("ix"));
        IndexDropResult result = await DropAsync(bench, Request);
        Assert.Equal(IndexDropOutcome.Dropped, result.Outcome);
        Assert.Equal(("CREATE INDEX CONCURRENTLY ix ON public.orders USING btree (tier)", Reversibility.Reversible), (result.Steps[0].Reversal, result.Steps[0].Reversibility));
        Assert.Empty(await bench.IndexesAsync("ix"));
    }

    [Theory, EachMajor]
    public async Task Leftovers_go_without_a_way_back_those_of_toast_tables_too(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await bench.LeaveInvalidAsync("reindex table concurrently orders");
        await Assert.ThrowsAsync<PostgresException>(() => bench.Database.ExecuteAsync("create unique index concurrently failed on orders (tier)", Token));
        IReadOnlyList<InvalidIndex> found = await InvalidIndexReader.ReadAsync(bench.Session, null, null, bench.Sink, Token);
        Assert.Equal(4, found.Count);
        foreach (InvalidIndex leftover in found)
        {
            IndexDropResult result = await DropAsync(bench, new() { Name = leftover.Name, Schema = leftover.Schema });
            Assert.Equal((IndexDropOutcome.Dropped, Reversibility.NotNeeded, null), (result.Outcome, result.Steps[0].Reversibility, result.Steps[0].Reversal));
        }

        Assert.Empty(await InvalidIndexReader.ReadAsync(bench.Session, null, null, bench.Sink, Token));
        Assert.Equal(["ix:valid", "orders_pkey:valid"], await bench.IndexesAsync("ix", "orders_pkey"));
    }

    [Theory, EachMajor]
    public async Task An_index_that_somebody_builds_is_awaited_and_one_that_takes_its_name_is_spared(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        Task<int> build = bench.Database.ExecuteAsync("create index concurrently iy on orders (note)", Token);
        await bench.UntilPhaseAsync("waiting for old snapshots");
        MigrationException busy = await Assert.ThrowsAsync<MigrationException>(() => DropAsync(bench, new() { Name = "iy", Options = new() { WaitFor = TimeSpan.FromSeconds(0.3) } }));
        Assert.Equal("IndexBeingBuilt", busy.ErrorId);
        await old.CommitAsync(Token);
        await build;

        IndexDropPlan plan = await IndexDropper.PlanAsync(bench.Session, new() { Name = "iy" }, bench.Sink, Token);
        await bench.Database.ExecuteAsync("drop index iy; create index iy on orders (id, note)", Token);
        IndexDropResult gone = await IndexDropper.RunAsync(plan, bench.Sink, Token);
        Assert.Equal((IndexDropOutcome.AlreadyGone, StepState.Skipped, "CREATE INDEX CONCURRENTLY iy ON public.orders USING btree (note)"), (gone.Outcome, gone.Steps[0].State, gone.Steps[0].Reversal));
        Assert.Equal(["iy:valid"], await bench.IndexesAsync("iy"));
    }

    [Theory, EachMajor]
    public async Task What_becomes_of_the_index_while_old_transactions_are_awaited_counts(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + "; alter table orders alter note set not null; create unique index iy on orders (note)");
        // Whoever is awaited does it, so that it is done when the wait ends.
        await using (LockHolder old = await OldAsync())
        {
            Task<IndexDropResult> drop = await AwaitingAsync(Request);
            await old.Connection.ExecuteAsync("alter index ix rename to elsewhere; create index ix on orders (note, tier)", Token);
            await old.CommitAsync(Token);
            IndexDropResult result = await drop;
            Assert.Equal((IndexDropOutcome.Dropped, "elsewhere"), (result.Outcome, result.Name));
            Assert.Equal("DROP INDEX CONCURRENTLY IF EXISTS public.elsewhere", Assert.Single(result.Steps).Sql);
            Assert.Equal(["ix:valid"], await bench.IndexesAsync("ix", "elsewhere"));
        }

        await using (LockHolder old = await OldAsync())
        {
            Task<IndexDropResult> drop = await AwaitingAsync(Request);
            await old.Connection.ExecuteAsync("drop index ix; create index ix on orders (id, tier)", Token);
            await old.CommitAsync(Token);
            IndexDropResult result = await drop;
            Assert.Equal((IndexDropOutcome.AlreadyGone, StepState.Skipped), (result.Outcome, result.Steps[0].State));
            Assert.Equal(["ix:valid"], await bench.IndexesAsync("ix"));
        }

        await using (LockHolder old = await OldAsync())
        {
            Task<IndexDropResult> drop = await AwaitingAsync(Request with { Name = "iy" });
            await old.Connection.ExecuteAsync("alter table orders replica identity using index iy", Token);
            await old.CommitAsync(Token);
            Assert.Equal("IndexIsReplicaIdentity", (await Assert.ThrowsAsync<MigrationException>(() => drop)).ErrorId);
            Assert.Equal(["iy:valid"], await bench.IndexesAsync("iy"));
        }

        async Task<LockHolder> OldAsync()
        {
            LockHolder holder = await LockHolder.HoldAsync(bench.Database, Reader);
            await Wait.UntilAsync(async () => await bench.Database.ScalarAsync<bool>($"select clock_timestamp() - xact_start > '0.5 s' from pg_stat_activity where pid = {holder.Pid}", Token), "the transaction to be an old one", cancellationToken: Token);
            return holder;
        }

        async Task<Task<IndexDropResult>> AwaitingAsync(IndexDropRequest request)
        {
            int told = bench.Sink.ProgressRecords.Count;
            Task<IndexDropResult> drop = DropAsync(bench, request);
            await Wait.UntilAsync(() => drop.IsCompleted || bench.Sink.ProgressRecords.Skip(told).Any(p => p.Status == "not begun"), "the old transaction to be awaited", cancellationToken: Token);
            return drop;
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Behind_somebodys_exclusive_lock_the_question_ends_and_names_him(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            Orders + """
            ; create table parts (a int, b int) partition by range (a);
            create table part1 partition of parts for values from (0) to (10);
            create table part2 partition of parts for values from (10) to (20);
            create index parent on only parts (b);
            create index sub on part1 (b);
            alter index parent attach partition sub
            """);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "lock table orders in access exclusive mode", "reindex index sub");
        Task<MigrationException>[] refused =
        [
            Assert.ThrowsAsync<MigrationException>(() => IndexDropper.PlanAsync(bench.Session, Request, bench.Sink, Token)),
            Assert.ThrowsAsync<MigrationException>(() => IndexRebuilder.FindAsync(bench.Session, new() { Name = "ix" }, bench.Sink, Token)),
            Assert.ThrowsAsync<MigrationException>(() => InvalidIndexReader.ReadAsync(bench.Session, null, null, bench.Sink, Token)),
        ];
        foreach (MigrationException e in await Task.WhenAll(refused))
        {
            Assert.Equal(("LockNotAvailable", MigrationErrorKind.Busy), (e.ErrorId, e.Kind));
            Assert.Equal(holder.Pid, Assert.Single(e.Blockers.DistinctBy(blocker => blocker.Pid)).Pid);
        }
    }

    [Theory, EachMajor]
    public async Task What_a_rebuild_left_beside_an_index_that_does_not_serve_keeps_its_way_back(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await bench.LeaveInvalidAsync("create index concurrently ix_ccold on orders (tier)");
        MigrationStep beside = Assert.Single((await IndexDropper.PlanAsync(bench.Session, new() { Name = "ix_ccold" }, bench.Sink, Token)).Steps);
        Assert.Equal((Reversibility.NotNeeded, null, "What a rebuild of ix left; that index serves on."), (beside.Reversibility, beside.Reversal, beside.ReversalNote));
        await bench.LeaveInvalidAsync("drop index concurrently ix", Reader);
        MigrationStep alone = Assert.Single((await IndexDropper.PlanAsync(bench.Session, new() { Name = "ix_ccold" }, bench.Sink, Token)).Steps);
        Assert.Equal((Reversibility.Reversible, "CREATE INDEX CONCURRENTLY ix_ccold ON public.orders USING btree (tier)"), (alone.Reversibility, alone.Reversal));
        Assert.DoesNotContain("serves on", alone.ReversalNote, StringComparison.Ordinal);
        IndexRebuildPlan rebuild = await IndexRebuilder.PlanAsync(bench.Session, new() { Name = "ix" }, Assert.Single(await IndexRebuilder.FindAsync(bench.Session, new() { Name = "ix" }, bench.Sink, Token)), bench.Sink, Token);
        Assert.Equal(2, rebuild.Steps.Count);
        Assert.DoesNotContain("serves on", rebuild.Steps[0].ReversalNote, StringComparison.Ordinal);
    }

    private static async Task<IndexDropResult> DropAsync(IndexBench bench, IndexDropRequest request, CancellationToken? cancellationToken = null) =>
        await IndexDropper.RunAsync(await IndexDropper.PlanAsync(bench.Session, request, bench.Sink, Token), bench.Sink, cancellationToken ?? Token);
}
