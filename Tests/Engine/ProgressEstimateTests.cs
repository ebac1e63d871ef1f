using System.Runtime.CompilerServices;
using System.Text.Json;
using MigrationSafety.Engine.Progress;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>
/// What is said of operations as they were recorded on real servers (2,000,000 rows of 200 bytes, a look every 50 or 100 ms, Recordings/*.json): the counters as the views gave
/// them, and how long it took in the end.
/// </summary>
public sealed class ProgressEstimateTests
{
    private static readonly DateTime s_start = new(2026, 1, 1, 0, 0, 0, DateTimeKind.Utc);

    // Of the index on (lower(note), mail).
    private static readonly IndexSize s_wide = IndexSize.Of(slowKey: true, rows: 2_000_000, blocks: 44_356, tableRows: 2_000_000, tableBlocks: 52_632);

    public static TheoryData<string> Recordings => [.. Directory.GetFiles(Path.Combine(AppContext.BaseDirectory, "Recordings")).Select(file => Path.GetFileNameWithoutExtension(file)).Order(StringComparer.Ordinal)];

    [Theory, MemberData(nameof(Recordings))]
    public void A_recorded_operation_is_told_its_percent_and_its_end(string name)
    {
        Recording recording = Recording.Read(name);
        List<Moment> said = recording.Replay(LearntPhases.None);
        Assert.InRange(PercentError(said), 0, 7);
        Assert.InRange(RemainingError(said), 0, 0.35);
        AssertNeverBackwards(said);
    }

    [Theory, MemberData(nameof(Recordings))]
    public void Who_begins_to_look_later_is_told_nearly_as_well(string name)
    {
        Recording recording = Recording.Read(name);
        List<Moment> said = recording.Replay(LearntPhases.None, from: recording.Took / 4);
        Assert.InRange(PercentError(said), 0, 10);
        Assert.InRange(RemainingError(said), 0, 0.6);
        AssertNeverBackwards(said);
    }

    [Theory]
    [InlineData("14-vacuum", 1)]
    [InlineData("18-vacuum", 1)]
    [InlineData("14-vacuum", 400)]
    [InlineData("18-vacuum", 400)]
    public void A_vacuum_that_is_slowed_down_is_told_its_end_by_its_age_at_a_single_look(string name, double slower)
    {
        Recording recording = Recording.Read(name);
        // Two looks, as many seconds apart as a single one takes; the counter may not have moved.
        foreach (double at in (double[])[0.1, 0.25, 0.4])
        {
            double moment = at * recording.Took;
            Moment said = recording.Slower(slower, [moment, moment + (0.4 / slower)]);
            // In the indexes nothing was counted before 17: there it may be anywhere.
            double factor = said.Said.Done is null ? 6 : 2.5;
            Assert.InRange(said.Said.Remaining!.Value.TotalSeconds, said.Left / factor, said.Left * factor);
            Assert.Equal(ProgressConfidence.Assumed, said.Said.Confidence);
        }
    }

    [Fact]
    public void A_counter_that_stands_while_pieces_are_sorted_does_not_move_the_end()
    {
        foreach (string name in new[] { "14-create-index-text", "18-create-index-text", "18-create-index-concurrently-text" })
        {
            List<Moment> said = [.. Recording.Read(name).Replay(LearntPhases.None).SkipWhile(moment => moment.Truth < 1.0 / 3)];
            // The end that is told, from one look to the next of the phase that counts, moves by less than half of what is left.
            foreach ((Moment before, Moment after) in said.Zip(said.Skip(1)).Where(pair => pair.Second.Said.Phase == "building index: scanning table"))
            {
                double moved = after.At + after.Said.Remaining!.Value.TotalSeconds - before.At - before.Said.Remaining!.Value.TotalSeconds;
                Assert.True(Math.Abs(moved) < before.Left / 2, $"{name} at {after.At:0.00} s: the end moved by {moved:0.00} s, {after.Left:0.00} s are left.");
            }
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void A_log_of_a_slower_and_wider_index_of_the_table_does_no_harm(double slower)
    {
        Recording other = Recording.Read("18-create-index-concurrently-text");
        LearntPhases learnt = new([.. other.Phases().Select(phase => new LearntPhases.Build("public.events", "public.another", s_wide, phase.Name, phase.Seconds * slower, 1))]);
        List<Moment> said = Recording.Read("18-create-index-text").Replay(learnt);
        Assert.All(said, moment => Assert.Equal(ProgressConfidence.Learnt, moment.Said.Confidence));
        Assert.InRange(RemainingError(said), 0, 0.25);
        AssertNeverBackwards(said);
    }

    [Theory]
    [InlineData("18-create-index-concurrently-text", 1, 0.2)]
    [InlineData("18-create-index-concurrently-text", 2, 0.35)]
    // Sorted in pieces of 8 MB, which neither the server's settings nor the counter tell of: the log does.
    [InlineData("18-create-index-concurrently-small-memory", 1, 0.25)]
    [InlineData("18-create-index-concurrently-small-memory", 2, 0.35)]
    public void A_log_of_the_index_is_believed_and_its_pace_is_not(string name, double slower, double error)
    {
        Recording recording = Recording.Read(name);
        List<Moment> said = recording.Replay(recording.Learnt(slower));
        Assert.InRange(RemainingError(said), 0, error);
        AssertNeverBackwards(said);
    }

    [Fact]
    public void An_index_that_counts_nothing_while_it_is_validated_is_told_by_time()
    {
        static bool Validates(string? phase) => phase == "index validation: scanning index";
        List<Moment> said = Recording.Read("18-create-index-concurrently-text").Replay(LearntPhases.None, change: counters =>
        {
            if (Validates(counters["phase"] as string))
            {
                (counters["blocks_done"], counters["blocks_total"]) = (0L, 0L);
            }
        });
        Moment before = said.TakeWhile(moment => !Validates(moment.Said.Phase)).Last();
        Moment[] validating = [.. said.Where(moment => Validates(moment.Said.Phase))];

        Assert.True(validating.Length > 2);
        Assert.All(validating, moment => Assert.InRange(moment.Said.Remaining!.Value, TimeSpan.Zero, 1.2 * before.Said.Remaining!.Value));
        AssertNeverBackwards(said);
    }

    [Fact]
    public void A_part_that_has_hardly_begun_is_not_taken_for_a_slow_one()
    {
        // 4.7 s left where 0.8 were: half a look is as long as it may have lasted, and not a part of a hundred that was done in it.
        Recording recording = Recording.Read("18-create-index-concurrently-text");
        foreach (LearntPhases learnt in new[] { LearntPhases.None, recording.Learnt() })
        {
            foreach (long done in new[] { 0L, 300L })
            {
                bool first = true;
                List<Moment> said = recording.Replay(learnt, change: counters =>
                {
                    if (counters["phase"] is "index validation: scanning index")
                    {
                        (counters["blocks_done"], first) = (first ? done : counters["blocks_done"], false);
                    }
                });
                Moment begun = said.First(moment => moment.Said.Phase == "index validation: scanning index");
                Assert.InRange(begun.Said.Remaining!.Value.TotalSeconds, 0.7 * begun.Left, 1.6 * begun.Left);
            }
        }
    }

    [Theory]
    [InlineData(1.5)]
    [InlineData(2)]
    [InlineData(3.5)]
    [InlineData(5)]
    public void A_build_of_seconds_is_told_its_end_by_the_log_of_another_one_as_short(double took)
    {
        List<double> errors = [];
        foreach (Recording recording in new[] { "text", "small-memory", "sorted" }.Select(keys => Recording.Read("18-create-index-concurrently-" + keys)))
        {
            double faster = recording.Took / took;
            for (int i = 0; i < 25; i++)
            {
                // Whoever looks and whoever wrote the log began at other moments of their interval.
                errors.AddRange(RemainingErrors(recording.Replay(recording.Learnt(i / 5 * 0.02, faster), faster: faster, first: i % 5 * 0.02)));
            }
        }

        Assert.InRange(errors.Count(error => error <= 0.25) / (double)errors.Count, 0.75, 1);
    }

    [Theory]
    // Memory is full and empty again between two looks.
    [InlineData("18-create-index-concurrently-small-memory", 5, 0.75)]
    // Twice as quick as assumed.
    [InlineData("18-create-index-concurrently-sorted", 2, 0.6)]
    public void A_build_on_another_machine_is_told_its_end_without_a_log(string name, double took, double share)
    {
        Recording recording = Recording.Read(name);
        double[] errors = [.. Enumerable.Range(0, 5).SelectMany(i => RemainingErrors(recording.Replay(LearntPhases.None, faster: recording.Took / took, first: i * 0.02)))];
        Assert.InRange(errors.Count(error => error <= 0.25) / (double)errors.Length, share, 1);
    }

    [Theory]
    [InlineData("18-create-index-concurrently-text", 3.8)]
    [InlineData("18-create-index-text", 2.3)]
    [InlineData("14-create-index-text", 1.5)]
    [InlineData("18-create-index-concurrently-text", 6.1)]
    public void Who_begins_to_look_while_it_sorts_is_not_told_of_the_reading_again(string name, double from)
    {
        Moment first = Recording.Read(name).Replay(LearntPhases.None, from)[0];
        Assert.Contains("sorting", first.Said.Phase, StringComparison.Ordinal);
        Assert.InRange(first.Said.Remaining!.Value.TotalSeconds, first.Left / 2, first.Left * 2);
    }

    [Theory]
    [InlineData("18-create-index-concurrently-sorted", 0.5)]
    [InlineData("14-create-index-text", 1.85)]
    [InlineData("14-vacuum", 1)]
    public void The_next_of_many_whose_age_is_known_is_told_its_end_wherever_it_is_first_seen(string name, double from)
    {
        Recording recording = Recording.Read(name);
        List<Moment> said = recording.Replay(LearntPhases.None, from, began: s_start);
        Assert.InRange(said[0].Said.Remaining!.Value.TotalSeconds, said[0].Left / 2, said[0].Left * 2);
        AssertNeverBackwards(said);
    }

    [Fact]
    public void While_what_was_loaded_is_flushed_the_time_since_tells()
    {
        MigrationProgress[] flushing = [.. Recording.Read("14-create-index-text").Replay(LearntPhases.None).Select(moment => moment.Said).Where(said => said.PhasePercent is 100 && said.Phase!.EndsWith("loading tuples in tree", StringComparison.Ordinal))];
        Assert.Equal(2, flushing.Length);
        Assert.InRange(flushing[1].Remaining!.Value, TimeSpan.Zero, 0.8 * flushing[0].Remaining!.Value);
    }

    [Fact]
    public void Measured_is_said_once_the_counter_says_more_than_what_was_assumed()
    {
        MigrationProgress[] last = [.. Recording.Read("18-create-index-concurrently-text").Replay(LearntPhases.None).Select(moment => moment.Said).Where(said => said.Phase == "index validation: scanning table")];
        Assert.Equal(ProgressConfidence.Assumed, last[0].Confidence);
        Assert.Equal(ProgressConfidence.Measured, last[^1].Confidence);
    }

    /// <summary>Points, in the mean of ten moments.</summary>
    private static double PercentError(List<Moment> said) =>
        Enumerable.Range(0, 10).Select(i => said.MinBy(moment => Math.Abs(moment.Truth - 0.05 - (i * 0.1)))!).Average(moment => Math.Abs(moment.Said.Percent!.Value - (100 * moment.Truth)));

    /// <summary>As a fraction of the truth, in the mean from a third of the way on.</summary>
    private static double RemainingError(List<Moment> said) => RemainingErrors(said).Average();

    private static IEnumerable<double> RemainingErrors(List<Moment> said) =>
        Enumerable.Range(3, 7).Select(i => said.MinBy(moment => Math.Abs(moment.Truth - 0.05 - (i * 0.1)))!).Select(moment => Math.Abs(moment.Said.Remaining!.Value.TotalSeconds - moment.Left) / moment.Left);

    private static void AssertNeverBackwards(List<Moment> said)
    {
        double[] percents = [.. said.Select(moment => moment.Said.Percent!.Value)];
        Assert.Equal(percents.Order(), percents);
        Assert.InRange(percents[^1], 0, 100);
    }

    private sealed record Moment(double At, double Took, MigrationProgress Said)
    {
        internal double Truth => At / Took;

        internal double Left => Took - At;
    }

    private sealed class Recording(JsonElement root)
    {
        internal double Took { get; } = root.GetProperty("took").GetDouble();

        internal static Recording Read(string name) => new(JsonDocument.Parse(File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "Recordings", name + ".json"))).RootElement);

        /// <summary>What is said at each look, or at looks 100 ms apart from a <paramref name="first"/> on of a build that is so many times <paramref name="faster"/>.</summary>
        internal List<Moment> Replay(LearntPhases learnt, double from = 0, Action<Dictionary<string, object>>? change = null, DateTime? began = null, double faster = 1, double? first = null)
        {
            OperationTrack track = new(learnt, began);
            // Names of the server alone are taken from it.
            MigrationSession session = (MigrationSession)RuntimeHelpers.GetUninitializedObject(typeof(MigrationSession));
            List<(double At, ProgressSample Sample)> samples = [.. (first is { } offset ? Looks(offset, faster) : Samples()).Where(sample => sample.At >= from)];
            samples.ForEach(sample => change?.Invoke(sample.Sample.Counters));
            return [.. samples.Select(sample => new Moment(sample.At, Took / faster, track.Add(sample.Sample, s_start + TimeSpan.FromSeconds(sample.At), session, 1000)))];
        }

        /// <summary>What is said at the last of some moments of an operation that is slowed down by a cost delay.</summary>
        internal Moment Slower(double factor, double[] moments)
        {
            OperationTrack track = new(LearntPhases.None);
            MigrationSession session = (MigrationSession)RuntimeHelpers.GetUninitializedObject(typeof(MigrationSession));
            List<(double At, ProgressSample Sample)> samples = [.. Samples()];
            return moments.Select(moment =>
            {
                (double at, ProgressSample sample) = samples.Last(sample => sample.At <= moment);
                sample = sample with { Elapsed = TimeSpan.FromSeconds(factor * (sample.Elapsed!.Value.TotalSeconds + moment - at)), WaitEvent = "VacuumDelay" };
                return new Moment(factor * moment, factor * Took, track.Add(sample, s_start + TimeSpan.FromSeconds(factor * moment), session, 1000));
            }).Last();
        }

        /// <summary>The log of this build.</summary>
        internal LearntPhases Learnt(double slower = 1) => Log(Samples(), slower);

        /// <summary>The log of this build by looks 100 ms apart from a first one on, had it been so many times as fast.</summary>
        internal LearntPhases Learnt(double first, double faster) => Log(Looks(first, faster), 1);

        /// <summary>Seconds of each phase.</summary>
        internal IEnumerable<(string Name, double Seconds)> Phases() => Phases(Samples());

        private static LearntPhases Log(IEnumerable<(double At, ProgressSample Sample)> samples, double slower) =>
            new([.. Phases(samples).Select(phase => new LearntPhases.Build("public.events", "public.x", null, phase.Name, phase.Seconds * slower, 1))]);

        private static IEnumerable<(string Name, double Seconds)> Phases(IEnumerable<(double At, ProgressSample Sample)> looks)
        {
            List<(double At, ProgressSample Sample)> samples = [.. looks];
            return samples.Zip(samples.Skip(1)).GroupBy(pair => pair.First.Sample.Text("phase")!).Select(phase => (phase.Key, phase.Sum(pair => pair.Second.At - pair.First.At)));
        }

        private IEnumerable<(double At, ProgressSample Sample)> Looks(double first, double faster)
        {
            (double At, ProgressSample Sample)[] samples = [.. Samples()];
            for (double at = first; at < Took / faster; at += 0.1)
            {
                (double was, ProgressSample sample) = samples.MinBy(sample => Math.Abs((sample.At / faster) - at));
                yield return (was / faster, sample with { Elapsed = sample.Elapsed / faster });
            }
        }

        private IEnumerable<(double At, ProgressSample Sample)> Samples()
        {
            string[] columns = [.. root.GetProperty("columns").EnumerateArray().Select(column => column.GetString()!)];
            foreach (JsonElement[] values in root.GetProperty("samples").EnumerateArray().Select(sample => sample.EnumerateArray().ToArray()))
            {
                Dictionary<string, object> counters = columns.Zip(values).Skip(3).ToDictionary(pair => pair.First, pair => Value(pair.Second), StringComparer.Ordinal);
                if (root.GetProperty("command").GetString() is { } command)
                {
                    counters["command"] = command;
                }

                Dictionary<string, object> facts = root.GetProperty("facts").EnumerateObject().ToDictionary(fact => fact.Name, fact => Value(fact.Value), StringComparer.Ordinal);
                facts["workers"] = values[2].GetInt64();
                yield return (values[1].GetDouble(), new ProgressSample
                {
                    View = root.GetProperty("view").GetString()!,
                    Pid = 1,
                    User = "postgres",
                    Query = root.GetProperty("statement").GetString(),
                    Counters = counters,
                    Facts = facts,
                    Elapsed = TimeSpan.FromSeconds(values[0].GetDouble()),
                });
            }
        }

        private static object Value(JsonElement value) => value.ValueKind == JsonValueKind.Number ? value.GetInt64() : value.GetString()!;
    }
}
