using System.Globalization;
using System.Xml.Linq;
using MigrationSafety.Engine.Report;
using MigrationSafety.Tests.Engine.Support;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>The report, as text and in a real browser.</summary>
public sealed class ReportTests
{
    private static readonly DateTimeOffset s_start = new(2026, 11, 21, 5, 0, 0, TimeSpan.Zero);

    /// <summary>Texts that would do harm, or be unreadable, if they came through as they are.</summary>
    private const string Evil = "<script>window.harm = 1</script><img src=x onerror=\"harm=1\">'\"&amp;</code></pre></style>\0\u001b[31m\u202Eevil";

    internal static MigrationStep Step(string sql, double at, double seconds, StepState state = StepState.Done, params LockWait[] waits) => new()
    {
        Sql = sql,
        Purpose = "Build the index orders_tier_idx concurrently",
        LockMode = TableLockMode.ShareUpdateExclusive,
        Objects = ["\"public\".\"orders\""],
        Transactional = false,
        Cost = StepCost.BuildsIndex,
        Reversal = "DROP INDEX CONCURRENTLY IF EXISTS public.orders_tier_idx",
        Reversibility = Reversibility.Reversible,
        State = state,
        Attempts = 1,
        StartedAt = s_start.AddSeconds(at),
        Duration = TimeSpan.FromSeconds(seconds),
        LockWaits = waits,
    };

    internal static LockWait Blocked(double at, double seconds, int pid) => new()
    {
        Start = s_start.AddSeconds(at),
        WaitTime = TimeSpan.FromSeconds(seconds),
        Queued = true,
        Blockers = [new LockBlocker { Pid = pid, User = "reporting", Application = "nightly-report", State = "idle in transaction", TransactionAge = TimeSpan.FromMinutes(7), Query = "select count(*) from orders", Mode = "RowExclusiveLock", Granted = true, Relation = "public.orders" }],
    };

    internal static MigrationOperation Index(double seconds = 40) => new()
    {
        Id = 41,
        Operation = "IndexBuild",
        Target = "public.orders",
        Schema = "public",
        Table = "orders",
        Action = "Build index orders_tier_idx",
        Outcome = OperationOutcome.Succeeded,
        StartedAt = s_start,
        FinishedAt = s_start.AddSeconds(seconds),
        Duration = TimeSpan.FromSeconds(seconds),
        WaitTime = TimeSpan.FromSeconds(10),
        User = "deploy",
        SystemUser = "ada",
        ComputerName = "runner-3",
        Application = "MigrationSafety 0.1.0, pwsh",
        Steps = [Step("CREATE INDEX CONCURRENTLY orders_tier_idx ON public.orders (tier)", 0, seconds, StepState.Done, Blocked(4, 10, 4711))],
        Phases =
        [
            new OperationPhase { Command = "CREATE INDEX CONCURRENTLY", Name = "waiting for writers before build", StartedAt = s_start.AddSeconds(1), Duration = TimeSpan.FromSeconds(13), WaitTime = TimeSpan.FromSeconds(10) },
            new OperationPhase { Command = "CREATE INDEX CONCURRENTLY", Name = "building index: scanning table", StartedAt = s_start.AddSeconds(14), Duration = TimeSpan.FromSeconds(16), Total = 12000 },
            new OperationPhase { Command = "CREATE INDEX CONCURRENTLY", Name = "index validation: scanning table", StartedAt = s_start.AddSeconds(30), Duration = TimeSpan.FromSeconds(10) },
        ],
        Server = "db.example.com",
        Port = 5432,
        Database = "shop",
    };

    internal static MigrationOperation Fill(int samples, bool withGaps = false, bool withOutlier = false, bool withLag = true)
    {
        Random random = new(7);
        List<OperationSample> list = [];
        for (int i = 0; i < samples; i++)
        {
            // A gap: nobody looked between the two.
            if (withGaps && i > samples / 3 && i < samples / 2)
            {
                continue;
            }

            double batch = withOutlier && i == samples * 3 / 4 ? 12 : 0.22 + (0.06 * random.NextDouble());
            list.Add(new OperationSample
            {
                Time = s_start.AddSeconds(60 + i + 1),
                Interval = TimeSpan.FromSeconds(1),
                Rows = 70_000 + (long)(20_000 * random.NextDouble()),
                Batches = 4,
                BatchTime = TimeSpan.FromSeconds(batch),
                LongestBatch = TimeSpan.FromSeconds(batch * 1.3),
                Lag = withLag ? TimeSpan.FromSeconds(0.1 + (2.0 * i / samples) + random.NextDouble()) : null,
                LagBytes = withLag ? (long)(5e6 * random.NextDouble()) : null,
            });
        }

        return Index() with
        {
            Id = 42,
            Operation = "Backfill",
            Action = "Backfill tier = case when amount >= 900 then 'gold' when amount >= 500 then 'silver' else 'basic' end where tier is null",
            StartedAt = s_start.AddSeconds(60),
            FinishedAt = s_start.AddSeconds(60 + samples),
            Duration = TimeSpan.FromSeconds(samples),
            Rows = list.Sum(sample => sample.Rows),
            Retries = 3,
            Phases = [],
            Steps =
            [
                Step("UPDATE ONLY public.orders SET tier = 'basic' WHERE tier IS NULL", 60, samples, StepState.Done, Blocked(60 + (samples * 0.35), samples * 0.1, 815)) with
                {
                    Purpose = "Set tier where it is null, in batches along (id)",
                    Cost = StepCost.UpdatesRows,
                    LockMode = TableLockMode.RowExclusive,
                    Reversal = "UPDATE public.orders SET tier = NULL",
                    ReversalNote = "Sets tier to NULL in every row, also where it had a value before.",
                    Reversibility = Reversibility.ReversibleWithDataLoss,
                    Attempts = samples * 4,
                },
            ],
            Samples = [.. list],
        };
    }

    internal static MigrationOperation Failure() => Index(8) with
    {
        Id = 43,
        Action = $"Build unique index on {Evil}",
        Outcome = OperationOutcome.Failed,
        StartedAt = s_start.AddSeconds(500),
        FinishedAt = s_start.AddSeconds(508),
        ErrorId = "DuplicateKey",
        SqlState = "23505",
        Message = $"could not create unique index: {Evil}",
        RecommendedAction = "Find and clean up the duplicates.",
        User = Evil,
        ComputerName = Evil,
        Phases = [],
        Steps = [Step($"CREATE UNIQUE INDEX CONCURRENTLY x ON t (a) /* {Evil} {new string('w', 300)} */", 500, 8, StepState.Failed, Blocked(501, 2, 99) with { Blockers = [new LockBlocker { Pid = 99, Application = Evil, Query = Evil }] }) with { Purpose = Evil, ReversalNote = Evil }],
    };

    [Theory]
    [InlineData("All 2 succeeded", OperationOutcome.Succeeded, OperationOutcome.Succeeded)]
    [InlineData("1 of 2 was stopped", OperationOutcome.Cancelled, OperationOutcome.Succeeded)]
    [InlineData("1 of 2 did not succeed", OperationOutcome.Cancelled, OperationOutcome.Interrupted)]
    [InlineData("Still running", OperationOutcome.Cancelled, OperationOutcome.Running)]
    [InlineData("Cancelled", OperationOutcome.Cancelled)]
    public void What_was_stopped_did_not_fail(string verdict, params OperationOutcome[] outcomes)
    {
        string html = MigrationReport.Write("Release 12", [.. outcomes.Select((outcome, i) => Index() with { Id = i, Outcome = outcome })], s_start);
        XElement badge = XDocument.Parse(html).Descendants().First(e => e.Attribute("class")?.Value.StartsWith("badge", StringComparison.Ordinal) == true);
        Assert.Equal(verdict, badge.Value);
    }

    [Fact]
    public void A_step_of_an_operation_that_was_interrupted_did_not_fail()
    {
        MigrationOperation gone = Index() with { Outcome = OperationOutcome.Interrupted, Steps = [Step("SELECT 1", 0, 5, StepState.Failed), Step("CREATE INDEX CONCURRENTLY x ON t (a)", 10, 30, StepState.Failed)] };
        string html = MigrationReport.Write("Release 12", [gone], s_start);
        Assert.Contains("Interrupted after 30.0 s", html, StringComparison.Ordinal);
        Assert.Equal(["Failed", "Interrupted"], Parse(html).Descendants().Where(e => e.Attribute("class")?.Value.StartsWith("badge", StringComparison.Ordinal) == true).TakeLast(2).Select(badge => badge.Value));
    }

    [Fact]
    public void What_comes_from_outside_comes_out_as_text_alone()
    {
        XDocument page = Parse(MigrationReport.Write(Evil, [Failure()], s_start));
        Assert.DoesNotContain(page.Descendants(), element => element.Name.LocalName is "script" or "img" or "link" or "iframe" or "object" or "form");
        Assert.All(page.Descendants().Attributes(), attribute => Assert.False(attribute.Name.LocalName.StartsWith("on", StringComparison.OrdinalIgnoreCase) || attribute.Name.LocalName is "src"));
        Assert.All(page.Descendants().Attributes("href"), attribute => Assert.StartsWith("#", attribute.Value, StringComparison.Ordinal));
        string seen = Evil.Replace("\0", "[U+0000]", StringComparison.Ordinal).Replace("\u001b", "[U+001B]", StringComparison.Ordinal).Replace("\u202E", "[U+202E]", StringComparison.Ordinal);
        Assert.Equal(seen, page.Descendants("title").First().Value);
        Assert.Contains(page.Descendants("code"), code => code.Value.Contains(seen, StringComparison.Ordinal));
        Assert.Contains(page.Descendants("dd"), fact => fact.Value == seen);
        Assert.Single(page.Descendants("style"));
    }

    [Fact]
    public void It_says_who_did_what_when_and_how_it_is_taken_back()
    {
        string text = Parse(MigrationReport.Write("Change 1234", [Index(), Fill(60)], s_start)).Root!.Value;
        foreach (string part in new[]
        {
            "Change 1234", "All 2 succeeded", "shop on db.example.com:5432", "2026-11-21 05:00:00 UTC", "deploy", "ada on runner-3", "40.0 s", "3 times",
            "CREATE INDEX CONCURRENTLY orders_tier_idx ON public.orders (tier)", "DROP INDEX CONCURRENTLY IF EXISTS public.orders_tier_idx",
            "building index: scanning table", "pid 4711, nightly-report", "transaction open for 7 min 0 s", "can be taken back, with a loss of data",
        })
        {
            Assert.Contains(part, text, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void The_order_is_that_in_which_they_began_however_they_come()
    {
        Assert.Equal(MigrationReport.Write("Change", [Index(), Fill(10)], s_start), MigrationReport.Write("Change", [Fill(10), Index(), Fill(10)], s_start));
    }

    [Fact]
    public void What_still_runs_has_to_be_taken_back_too()
    {
        MigrationOperation running = Index() with { Outcome = OperationOutcome.Running, FinishedAt = null, Steps = [Index().Steps[0] with { State = StepState.Planned, Duration = TimeSpan.Zero }] };
        XDocument page = Parse(MigrationReport.Write("x", [running], s_start));
        Assert.Contains(page.Descendants("dd"), fact => fact.Value == "not before its end; then: can be taken back");
        Assert.Contains(page.Descendants("dd"), fact => fact.Value == "not yet: it still runs");
        XElement back = page.Descendants("section").Single(section => (string?)section.Attribute("id") == "way-back");
        Assert.Contains("Still running: Build index orders_tier_idx.", back.Value, StringComparison.Ordinal);
        Assert.Contains("\nDROP INDEX CONCURRENTLY IF EXISTS public.orders_tier_idx;", back.Value, StringComparison.Ordinal);
        Assert.DoesNotContain("nothing to take back", page.Root!.Value, StringComparison.OrdinalIgnoreCase);

        // Of one that was stopped, what did not run stays out.
        string stopped = Parse(MigrationReport.Write("x", [running with { Outcome = OperationOutcome.Cancelled, Steps = [Index().Steps[0] with { State = StepState.Planned, StartedAt = null }] }], s_start)).Root!.Value;
        Assert.Contains("nothing to take back", stopped, StringComparison.Ordinal);
    }

    [Fact]
    public void What_the_module_made_for_itself_does_not_stand_before_the_work()
    {
        MigrationStep schema = new() { Sql = "create schema if not exists migration_safety", Purpose = "Create the schema for checkpoints", Reversibility = Reversibility.NotNeeded, State = StepState.Done, StartedAt = s_start.AddSeconds(60) };
        MigrationOperation fill = Fill(60);
        XDocument page = Parse(MigrationReport.Write("x", [fill with { Steps = [schema, .. fill.Steps] }], s_start));
        XElement first = page.Descendants("figure").First().Descendants("a").First();
        Assert.Equal("1. Set tier where it is null, in batches along (id)", first.Value);
        Assert.Single(page.Descendants("li"), item => item.Attribute("id")?.Value.StartsWith("operation-1-step-", StringComparison.Ordinal) == true);
        XElement folded = Assert.Single(page.Descendants("details"));
        Assert.Null(folded.Attribute("open"));
        Assert.Contains(schema.Sql, folded.Value, StringComparison.Ordinal);

        // What failed is the story, and what is all of an operation is its work.
        Assert.Empty(Parse(MigrationReport.Write("x", [fill with { Steps = [schema with { State = StepState.Failed }, .. fill.Steps] }], s_start)).Descendants("details"));
        page = Parse(MigrationReport.Write("x", [fill with { Steps = [schema] }], s_start));
        Assert.Empty(page.Descendants("details"));
        Assert.Equal("1. Create the schema for checkpoints", page.Descendants("figure").First().Descendants("a").First().Value);
    }

    [Fact]
    public void It_says_how_long_no_batch_was_at_work()
    {
        OperationSample sample = new() { Time = s_start.AddSeconds(70), Interval = TimeSpan.FromSeconds(10), Rows = 500, Batches = 4, BatchTime = TimeSpan.FromSeconds(0.5) };
        XDocument Page(params OperationSample[] samples) => Parse(MigrationReport.Write("x", [Fill(2) with { Samples = samples }], s_start));
        Assert.Contains(Page(sample).Descendants("dd"), fact => fact.Value == "at least 8.0 s of 10.0 s (80 %)");
        // Of several workers at once it cannot be told.
        Assert.DoesNotContain(Page(sample with { Batches = 30 }).Descendants("dt"), name => name.Value == "Between batches");
        Assert.DoesNotContain(Parse(MigrationReport.Write("x", [Index()], s_start)).Descendants("dt"), name => name.Value == "Between batches");
    }

    [Fact]
    public void Bars_are_as_long_as_what_they_stand_for()
    {
        XDocument page = Parse(MigrationReport.Write("x", [Index()], s_start));
        XElement bar = Assert.Single(page.Descendants("rect"), rect => (string?)rect.Attribute("class") == "done" && Width(rect) == 1000);
        XElement wait = bar.ElementsAfterSelf("rect").Single();
        Assert.Equal(("wait", 100.0, 250.0), ((string)wait.Attribute("class")!, (double)wait.Attribute("x")!, Width(wait)));
        // 16 of 40 seconds.
        Assert.Contains(page.Descendants("rect"), rect => Math.Abs(Width(rect) - 400) < 0.01 && (double)rect.Attribute("x")! == 350);
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(100, 100)]
    [InlineData(5000, 240)]
    public void A_plot_has_as_many_steps_as_can_be_told_apart(int samples, int steps)
    {
        XElement edge = Paths(Fill(samples), "Throughput").Edge;
        Assert.Equal(steps, Count(edge, 'H'));
        Assert.Equal(1, Count(edge, 'M'));
        // None is beyond the edges.
        Assert.All(((string)edge.Attribute("d")!).Split('M', 'V', 'H', ',').Where(part => part.Length > 0), number => Assert.InRange(double.Parse(number, CultureInfo.InvariantCulture), 0, 1000));
    }

    [Fact]
    public void A_gap_stays_a_gap_and_an_outlier_does_not_flatten_the_rest()
    {
        Assert.Equal(2, Count(Paths(Fill(300, withGaps: true), "Throughput").Edge, 'M'));

        (XElement figure, XElement edge) = Paths(Fill(200, withOutlier: true), "Time of a batch");
        Assert.Single(figure.Descendants("span"), span => (string?)span.Attribute("class") == "beyond");
        Assert.Contains("15.6 s", figure.Value, StringComparison.Ordinal);
        // The others use the height: their averages of 0.22 to 0.28 s are well above the lower edge.
        double[] heights = [.. ((string)edge.Attribute("d")!).Split('V').Skip(1).Select(part => 100 - double.Parse(part[..part.IndexOf('H', StringComparison.Ordinal)], CultureInfo.InvariantCulture))];
        Assert.InRange(heights.Average(), 40, 100);
    }

    [Fact]
    public void Heights_match_the_values()
    {
        MigrationOperation fill = Fill(2) with
        {
            Samples =
            [
                new OperationSample { Time = s_start.AddSeconds(61), Interval = TimeSpan.FromSeconds(1), Rows = 500, Batches = 1, BatchTime = TimeSpan.FromSeconds(0.1) },
                new OperationSample { Time = s_start.AddSeconds(62), Interval = TimeSpan.FromSeconds(1), Rows = 1000, Batches = 1, BatchTime = TimeSpan.FromSeconds(0.1) },
            ],
        };
        Assert.Equal("M0,50H500V0H1000", (string?)Paths(fill, "Throughput").Edge.Attribute("d"));
    }

    [Fact]
    public void Many_steps_and_waits_stay_a_report_that_can_be_read()
    {
        MigrationOperation many = Index() with
        {
            Steps = [.. Enumerable.Range(0, 2000).Select(i => Step($"CREATE INDEX i{i}", i * 0.02, 0.02, StepState.Done, Blocked(i * 0.02, 0.01, i + 1)))],
        };
        string html = MigrationReport.Write("x", [many], s_start);
        Assert.InRange(html.Length, 0, 2_000_000);
        Assert.Contains("1960 shorter steps are not drawn", html, StringComparison.Ordinal);
        Assert.Contains("1800 more steps are in the log", html, StringComparison.Ordinal);
    }

    [Fact]
    public void Many_operations_stay_a_report_that_can_be_read()
    {
        MigrationOperation[] many = [.. Enumerable.Range(1, 1000).Select(i => Index() with { Id = i, StartedAt = s_start.AddMinutes(i), Outcome = i == 7 ? OperationOutcome.Failed : OperationOutcome.Succeeded })];
        string html = MigrationReport.Write("x", many, s_start);
        Assert.InRange(html.Length, 0, 3_000_000);
        XDocument page = Parse(html);
        string[] told = [.. page.Descendants("section").Select(section => (string?)section.Attribute("id")).OfType<string>().Where(id => id.StartsWith("operation-", StringComparison.Ordinal))];
        Assert.Equal(["operation-7", .. Enumerable.Range(802, 199).Select(i => $"operation-{i}")], told);
        Assert.Contains("960 shorter operations are not drawn", html, StringComparison.Ordinal);
        Assert.Contains("800 more operations", html, StringComparison.Ordinal);
        // What is linked is there.
        Assert.Empty(page.Descendants("a").Attributes("href").Select(link => link.Value).Except(page.Descendants().Attributes("id").Select(id => $"#{id.Value}")));
    }

    [Fact]
    public void Its_times_are_those_of_the_operations_across_a_change_of_the_clocks()
    {
        DateTimeOffset summer = new(2026, 7, 1, 9, 0, 0, TimeSpan.FromHours(2));
        string text = Parse(MigrationReport.Write("x", [Index() with { StartedAt = summer }], new DateTimeOffset(2026, 12, 1, 9, 0, 0, TimeSpan.FromHours(1)))).Root!.Value;
        Assert.Contains("2026-07-01 09:00:00 +02:00", text, StringComparison.Ordinal);
        Assert.DoesNotContain("08:00:00 +01:00", text, StringComparison.Ordinal);
    }

    [Fact]
    public void A_text_is_cut_between_characters()
    {
        Assert.Equal("abc…", MigrationReport.Cut("abc\U0001F418def", 4));
        Assert.Contains("[U+061C]", MigrationReport.Write("a\u061Cb", [Index()], s_start), StringComparison.Ordinal);
    }

    private static XDocument Parse(string html) => XDocument.Parse(html, LoadOptions.PreserveWhitespace);

    private static double Width(XElement rect) => (double)rect.Attribute("width")!;

    private static int Count(XElement path, char command) => ((string)path.Attribute("d")!).Count(c => c == command);

    private static (XElement Figure, XElement Edge) Paths(MigrationOperation operation, string title)
    {
        XDocument page = Parse(MigrationReport.Write("x", [operation], s_start));
        XElement figure = page.Descendants("figure").Single(figure => figure.Descendants("title").FirstOrDefault()?.Value.StartsWith(title, StringComparison.Ordinal) == true);
        return (figure, figure.Descendants("path").Single(path => (string?)path.Attribute("class") == "edge"));
    }
}
