using System.Diagnostics;
using System.Globalization;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Progress;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Spectre.Console;

namespace MigrationSafety.Sandbox.Scenarios;

/// <summary>Watches operations from beginning to end and compares what was said with what turned out to be true; measures what looking costs.</summary>
internal sealed class ProgressScenario : Scenario
{
    private const int Sessions = 500;
    private const string Build = "build";
    private const double Near = 0.25;

    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(100);

    internal override string Name => "progress";

    internal override string Summary => "how right percentages and times are, over --rows rows, and what looking costs; --part chooses";

    internal override IReadOnlyList<string> Parts => [Build, "backfill", "vacuum", "rewrite", "copy", "cost"];

    internal override async Task RunAsync(Bench bench, SandboxOptions options, CancellationToken cancellationToken)
    {
        string rows = options.Rows.ToString(CultureInfo.InvariantCulture);
        MigrationSession session = await SessionFactory.ConnectAsync(new() { Text = bench.Shop.Uri }, bench.Screen, cancellationToken);
        EngineSession engine = EngineSession.Of(session);
        bench.Screen.Say($"Fills a table of {options.Rows:N0} rows.");
        foreach (string sql in (string[])
            [
                "create table events (id bigint generated always as identity primary key, customer int, token uuid, mail text, note text, at timestamptz) with (autovacuum_enabled = off)",
                $"insert into events (customer, token, mail, note, at) select (random() * 1e9)::int, gen_random_uuid(), md5(i::text) || '@example.org', repeat(md5(i::text), 3), now() - random() * interval '1000 days' from generate_series(1, {rows}) i",
                "vacuum analyze events",
            ])
        {
            await bench.Shop.ExecuteAsync(sql, cancellationToken);
        }

        Task Sql(string sql) => bench.Shop.ExecuteAsync(sql, cancellationToken);
        // Through the module, which logs how long each phase takes; then it is gone again.
        async Task LearnAsync(string name, params string[] columns)
        {
            await Sql($"drop index if exists {name}");
            IndexBuildPlan plan = await IndexBuilder.PlanAsync(engine, new() { Table = "events", Name = name, Column = columns }, bench.Screen, cancellationToken);
            await OperationLog.RunAsync(plan, bench.Screen, sink => IndexBuilder.RunAsync(plan, sink, cancellationToken), cancellationToken);
            await Sql($"drop index {name}");
        }

        async Task BackfillAsync()
        {
            BackfillPlan plan = await Backfill.PlanAsync(engine, new() { Table = "events", Set = [new("tier", "case when customer % 10 = 0 then 'gold' else 'basic' end")] }, bench.Screen, cancellationToken);
            await Backfill.RunAsync(plan, bench.Screen, cancellationToken);
        }

        // Which nobody sees any more: the application's reports keep their snapshots for seconds, and a VACUUM would leave them.
        async Task DeadRowsAsync()
        {
            await Sql("update events set customer = customer + 1 where id % 4 = 0");
            string now = (await bench.Shop.ScalarAsync<string>("select pg_current_xact_id()::xid::text", cancellationToken))!;
            await Wait.UntilAsync(
                () => bench.Shop.ScalarAsync<bool>($"select not exists (select from pg_stat_activity where age(backend_xmin) > age('{now}'::xid))", cancellationToken),
                "the snapshots from before the update to go",
                TimeSpan.FromMinutes(2),
                cancellationToken);
        }

        const string Customer = "create index concurrently events_customer on events (customer)";
        const string Note = "create index concurrently events_note on events (lower(note), mail)";
        Watched[] operations =
        [
            new(Build, "CREATE INDEX CONCURRENTLY (int4)", "CREATE INDEX*", null, () => Sql(Customer), Promised: true),
            new(Build, "    when one was logged", "CREATE INDEX*", () => LearnAsync("events_customer", "customer"), () => Sql(Customer), Promised: true),
            new(Build, "CREATE INDEX CONCURRENTLY (text)", "CREATE INDEX*", null, () => Sql(Note), Promised: true),
            new(Build, "    when one was logged", "CREATE INDEX*", () => LearnAsync("events_note", "lower(note)", "mail"), () => Sql(Note), Promised: true),
            new(Build, "CREATE INDEX (text)", "CREATE INDEX*", null, () => Sql("create index events_mail on events (mail)"), Promised: true),
            new(Build, "REINDEX INDEX CONCURRENTLY (text)", "REINDEX*", null, () => Sql("reindex index concurrently events_note"), Promised: true),
            new("backfill", "Backfill", "BACKFILL", () => Sql("alter table events add column tier text"), BackfillAsync, Promised: true),
            new("vacuum", "VACUUM", "VACUUM", DeadRowsAsync, () => Sql("vacuum events"), Promised: false),
            new("rewrite", "VACUUM FULL", "VACUUM FULL", null, () => Sql("vacuum full events"), Promised: false),
            new("rewrite", "CLUSTER", "CLUSTER", null, () => Sql("cluster events using events_customer"), Promised: false),
            new("rewrite", "ALTER TABLE, rewrite", "ALTER TABLE", null, () => Sql("alter table events alter column customer type bigint"), Promised: false),
            new("copy", "COPY TO", "COPY TO", null, () => Sql("copy events to '/dev/null'"), Promised: false),
        ];
        Table table = new Table()
            .Border(bench.Screen.Interactive ? TableBorder.Simple : TableBorder.Ascii)
            .Title("What was said at ten moments beside what turned out to be true\n(error of Percent in points; error of Remaining from a third of the way on, and how many are off by more, but by less than the time from one look to the next)")
            .AddColumn("Operation");
        foreach (string column in (string[])["Took", "Percent: mean", "worst", "Remaining: mean", "worst", "within 25%", "or a look", "Confidence"])
        {
            table.AddColumn(new TableColumn(column).RightAligned());
        }

        foreach (Watched watched in operations)
        {
            if (!options.Has(watched.Part))
            {
                // What is asked for needs the indexes.
                await (watched is { Part: Build, Before: null } ? watched.Run() : Task.CompletedTask);
                continue;
            }

            bench.Screen.Begin(watched.Name.Trim());
            await (watched.Before?.Invoke() ?? Task.CompletedTask);
            // What was written before is not to be flushed meanwhile.
            await Sql("checkpoint");
            Accuracy accuracy = await MeasureAsync(engine, watched.Operation, watched.Run, bench.Screen, cancellationToken);
            bench.Screen.End();
            table.AddRow(watched.Name, Screen.Text(accuracy.Took), Points(accuracy.Percent.Average()), Points(accuracy.Percent.Max()), Share(accuracy.Remaining.Average()), Share(accuracy.Remaining.Max()), $"{accuracy.Remaining.Count(error => error <= Near)} of {accuracy.Remaining.Count}", accuracy.WithinLook.ToString(CultureInfo.InvariantCulture), accuracy.Confidence);
            if (watched.Promised && accuracy.Percent.Average() >= 10)
            {
                bench.Broken.Add($"What it says is what the server did: {watched.Name.Trim()} was {Points(accuracy.Percent.Average())} points off.");
            }
        }

        bench.Drawings.Add(table);
        if (options.Has("cost"))
        {
            await CostAsync(bench, engine, cancellationToken);
        }

        await SessionFactory.DisconnectAsync(session);
    }

    private static string Points(double value) => value.ToString("0.0", CultureInfo.InvariantCulture);

    private static string Share(double value) => value.ToString("0%", CultureInfo.InvariantCulture);

    /// <summary>What is watched, and what has to be there first.</summary>
    private sealed record Watched(string Part, string Name, string Operation, Func<Task>? Before, Func<Task> Run, bool Promised);

    private sealed record Accuracy(TimeSpan Took, List<double> Percent, List<double> Remaining, int WithinLook, string Confidence);

    /// <summary>By time of work: how long it waits for a transaction of the application is not the operation's to know.</summary>
    private static async Task<Accuracy> MeasureAsync(EngineSession session, string operation, Func<Task> run, Screen screen, CancellationToken cancellationToken)
    {
        await using ProgressReader reader = new(session, new() { Table = "events", Operations = [operation] });
        await reader.ReadAsync(screen, cancellationToken);
        List<(TimeSpan At, MigrationProgress Said)> samples = [];
        TimeSpan worked = TimeSpan.Zero;
        DateTimeOffset last = DateTimeOffset.UtcNow;
        bool waits = true;
        Task work = run();
        Task<DateTimeOffset> ended = work.ContinueWith(_ => DateTimeOffset.UtcNow, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
        while (!work.IsCompleted)
        {
            IReadOnlyList<MigrationProgress> seen = await reader.ReadAsync(screen, cancellationToken);
            MigrationProgress? said = seen.FirstOrDefault(progress => progress.Phase != "interrupted");
            // The server's clock is this machine's, and what is said is of the moment at which it was read there.
            DateTimeOffset now = said?.Timestamp ?? DateTimeOffset.UtcNow;
            bool waited = waits;
            waits = said is null || said.BlockedBy.Length > 0;
            // A wait begins, or ends, somewhere between two looks.
            worked += (now - last) * (waits && waited ? 0 : waits || waited ? 0.5 : 1);
            last = now;
            if (!waits)
            {
                samples.Add((worked, said!));
            }

            await Task.WhenAny(work, Task.Delay(s_look, cancellationToken));
        }

        // To the moment at which it ended, not to the look before it.
        worked += (await ended - last) * (waits ? 0.5 : 1);
        await work;
        if (samples.Count == 0)
        {
            throw new InvalidOperationException($"{operation} was over before it was seen: more --rows.");
        }

        TimeSpan end = worked;
        List<double> percent = [];
        List<double> remaining = [];
        int withinLook = 0;
        foreach (double moment in Enumerable.Range(0, 10).Select(i => 0.05 + (i * 0.1)))
        {
            (TimeSpan at, MigrationProgress said) = samples.MinBy(sample => Math.Abs((sample.At / end) - moment));
            double truth = at / end;
            percent.Add(Math.Abs((said.Percent ?? 0) - (100 * truth)));
            if (truth >= 1.0 / 3)
            {
                // Nothing said is all wrong.
                double error = said.Remaining is { } left ? Math.Abs((left - (end - at)) / (end - at)) : 1;
                remaining.Add(error);
                withinLook += error > Near && error * (end - at) < s_look ? 1 : 0;
            }

            screen.Verbose(string.Create(CultureInfo.InvariantCulture, $"{operation} at {100 * truth:0}%: said {said.Percent:0.0}% {said.Phase}, {said.Remaining?.TotalSeconds:0.00} s left, true {(end - at).TotalSeconds:0.00} s"));
        }

        return new Accuracy(end, percent, remaining, withinLook, string.Join(", ", samples.Select(sample => sample.Said.Confidence).Distinct()));
    }

    private static async Task CostAsync(Bench bench, EngineSession session, CancellationToken cancellationToken)
    {
        const int Looks = 300;
        bench.Screen.Begin($"Looking, with {Sessions} sessions");
        List<NpgsqlConnection> others = [];
        try
        {
            for (int i = 0; i < Sessions; i++)
            {
                NpgsqlConnection other = new(bench.Shop.ApplicationConnectionString($"idle {i}"));
                others.Add(other);
                await other.OpenAsync(cancellationToken);
                // In a transaction, with locks.
                await using NpgsqlCommand command = new("begin; select from orders where false", other);
                await command.ExecuteNonQueryAsync(cancellationToken);
            }

            await using ProgressReader reader = new(session, new());
            Task build = bench.Shop.ExecuteAsync("create index events_cost on events (note)", cancellationToken);
            await reader.ReadAsync(bench.Screen, cancellationToken);
            int backend = await bench.Shop.ScalarAsync<int>("select pid from pg_stat_activity where application_name = 'MigrationSafety/progress' order by backend_start desc limit 1", cancellationToken);
            List<double> times = [];
            int seen = 0;
            // What the traffic uses is to be left out.
            TimeSpan alone = Process.GetCurrentProcess().TotalProcessorTime;
            await Task.Delay(TimeSpan.FromSeconds(2), cancellationToken);
            double traffic = (Process.GetCurrentProcess().TotalProcessorTime - alone).TotalMilliseconds / 2000;
            long begun = Stopwatch.GetTimestamp();
            double? serverBefore = ProcessorTime(backend);
            TimeSpan before = Process.GetCurrentProcess().TotalProcessorTime;
            for (int i = 0; i < Looks; i++)
            {
                long start = Stopwatch.GetTimestamp();
                seen += (await reader.ReadAsync(bench.Screen, cancellationToken)).Count;
                times.Add(Stopwatch.GetElapsedTime(start).TotalMilliseconds);
            }

            double used = ((Process.GetCurrentProcess().TotalProcessorTime - before).TotalMilliseconds - (traffic * Stopwatch.GetElapsedTime(begun).TotalMilliseconds)) / Looks;
            string server = ProcessorTime(backend) - serverBefore is { } spent ? string.Create(CultureInfo.InvariantCulture, $"{spent / Looks:0.0} ms of processor time of the server; ") : "";
            await build;
            times.Sort();
            bench.Screen.Say(string.Create(
                CultureInfo.InvariantCulture,
                $"A look with {Sessions} sessions in transactions: {times[Looks / 2]:0.0} ms there and back (p95 {times[Looks * 95 / 100]:0.0} ms), {seen / (double)Looks:0.0} operations seen; {server}{used:0.0} ms of processor time of the client: {used / 10:0.00}% of a core at one look a second."));
        }
        finally
        {
            foreach (NpgsqlConnection other in others)
            {
                await other.DisposeAsync();
            }

            bench.Screen.End();
        }
    }

    /// <summary>Milliseconds that a process has used, however busy the machine is; null where the system does not tell.</summary>
    private static double? ProcessorTime(int pid)
    {
        string path = $"/proc/{pid}/stat";
        if (!File.Exists(path))
        {
            return null;
        }

        // Fields 14 and 15, in hundredths of a second; the name in brackets before them may hold blanks.
        string[] fields = File.ReadAllText(path).Split(')')[^1].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return 10.0 * (long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture));
    }
}
