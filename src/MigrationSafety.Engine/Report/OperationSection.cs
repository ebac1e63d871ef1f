namespace MigrationSafety.Engine.Report;

/// <summary>The part of the report about one operation: facts, pictures, steps.</summary>
internal sealed class OperationSection
{
    private const int MostRows = 40;
    private const int MostSteps = 200;
    private const int MostWaits = 30;

    private readonly HtmlWriter _html;
    private readonly MigrationOperation _operation;
    private readonly string _anchor;
    private readonly string _number;
    private readonly MigrationStep[] _bookkeeping;
    private readonly MigrationStep[] _steps;
    private readonly TimeSpan _length;

    internal OperationSection(HtmlWriter html, MigrationOperation operation, string anchor, string number)
    {
        _html = html;
        _operation = operation;
        _anchor = anchor;
        _number = number;
        MigrationStep[] own = [.. operation.Steps.Where(IsBookkeeping)];
        // Where an operation came no further, they are what it did.
        _bookkeeping = own.Length < operation.Steps.Length ? own : [];
        _steps = _bookkeeping.Length == 0 ? operation.Steps : [.. operation.Steps.Where(step => !IsBookkeeping(step))];
        // What was recorded by several clocks may end a little after the end.
        _length = new[] { operation.Duration, TimeSpan.FromMilliseconds(1) }
            .Concat(operation.Steps.Where(step => step.StartedAt is not null).Select(step => Since(step.StartedAt!.Value) + step.Duration))
            .Max();
    }

    internal void Write()
    {
        (string word, string kind) = MigrationReport.Outcome(_operation.Outcome);
        _html.Open("section", ("id", _anchor));
        _html.Open("div", ("class", "head")).Element("h2", null, _number + MigrationReport.Cut(_operation.Action, 300)).Element("span", $"badge {kind}", word).Close();
        _html.Element("p", "sub", $"{_operation.Target} · {MigrationReport.Place(_operation)}");
        Facts();
        Error();
        Timeline();
        Plots();
        Waits();
        Steps();
        _html.Close();
    }

    /// <summary>What made this module's own records, before the work: no table of the application is touched, and nothing is to be taken back.</summary>
    private static bool IsBookkeeping(MigrationStep step) =>
        step is { LockMode: TableLockMode.None, Objects.Length: 0, Reversibility: Reversibility.NotNeeded, State: not StepState.Failed }
        && step.Sql.StartsWith("create ", StringComparison.Ordinal) && step.Sql.Contains("migration_safety", StringComparison.Ordinal);

    private TimeSpan Since(DateTimeOffset time) => time > _operation.StartedAt ? time - _operation.StartedAt : TimeSpan.Zero;

    private void Facts()
    {
        string? machine = string.Join(" on ", new[] { _operation.SystemUser, _operation.ComputerName }.Where(part => !string.IsNullOrEmpty(part)));
        _html.Open("dl", ("class", "facts"));
        MigrationReport.Fact(_html, "Began", MigrationReport.Time(_operation.StartedAt));
        MigrationReport.Fact(_html, "Ended", _operation.FinishedAt is { } end ? MigrationReport.Time(end) : _operation.Outcome == OperationOutcome.Running ? "not yet: it still runs" : "no end was recorded");
        MigrationReport.Fact(_html, "Took", Durations.Text(_operation.Duration));
        MigrationReport.Fact(_html, "Waited for others", MigrationReport.Waited(_operation.WaitTime));
        MigrationReport.Fact(_html, "Tried again", MigrationReport.Times(_operation.Retries));
        MigrationReport.Fact(_html, "Rows changed", _operation.Rows is { } rows ? Scale.Text($"{rows:N0}") : null);
        MigrationReport.Fact(_html, "Between batches", BetweenBatches());
        MigrationReport.Fact(_html, "Role", _operation.User);
        MigrationReport.Fact(_html, "Run by", machine);
        MigrationReport.Fact(_html, "Client", _operation.ClientAddress);
        MigrationReport.Fact(_html, "Program", _operation.Application);
        MigrationReport.Fact(_html, "Number in the log", _operation.Id > 0 ? $"{_operation.Id}" : null);
        _html.Close();
    }

    /// <summary>Time in which no batch was at work: less than all but the batches' own where several worked at once, therefore at least.</summary>
    private string? BetweenBatches()
    {
        TimeSpan all = _operation.Samples.Aggregate(TimeSpan.Zero, (sum, sample) => sum + sample.Interval);
        TimeSpan between = all - _operation.Samples.Aggregate(TimeSpan.Zero, (sum, sample) => sum + ((sample.BatchTime ?? TimeSpan.Zero) * sample.Batches));
        return _operation.Samples.Any(sample => sample.Batches > 0) && between > TimeSpan.Zero
            ? Scale.Text($"at least {Durations.Text(between)} of {Durations.Text(all)} ({100 * between / all:0} %)")
            : null;
    }

    private void Error()
    {
        if (_operation.Outcome == OperationOutcome.Interrupted)
        {
            _html.Open("div", ("class", "error")).Element("p", null, "Its client went away before the end: nobody recorded one. The same command run again finishes the work.").Close();
        }
        else if (_operation.Message is { } message)
        {
            _html.Open("div", ("class", "error")).Element("p", null, message);
            _html.Element("p", "meta", string.Join(" · ", new[] { _operation.ErrorId, _operation.SqlState is { } state ? $"SQLSTATE {state}" : null, _operation.RecommendedAction }.Where(part => !string.IsNullOrEmpty(part))));
            _html.Close();
        }
    }

    private void Timeline()
    {
        (MigrationStep Step, int Number)[] ran = [.. _steps.Select((step, i) => (step, i + 1)).Where(numbered => numbered.step.StartedAt is not null)];
        if (ran.Length > 0)
        {
            (MigrationStep Step, int Number)[] drawn = [.. ran.OrderByDescending(numbered => numbered.Step.Duration).Take(MostRows).OrderBy(numbered => numbered.Number)];
            BarRows.Draw(
                _html,
                "Steps in time",
                _length,
                [.. drawn.Select(numbered => Row(numbered.Step, numbered.Number))],
                ran.Length > drawn.Length ? $"{ran.Length - drawn.Length} shorter steps are not drawn." : null);
            Legend(drawn.Select(numbered => numbered.Step));
        }

        if (_operation.Phases.Length > 0)
        {
            Phases();
        }
    }

    private BarRow Row(MigrationStep step, int number)
    {
        TimeSpan from = Since(step.StartedAt!.Value);
        TimeSpan to = step.State == StepState.Planned || (step.State is StepState.Failed or StepState.Cancelled && step.Duration == TimeSpan.Zero) ? _length : from + step.Duration;
        List<Bar> bars = [new(from, to, StateKind(step), $"{StateWord(step)} after {Durations.Text(to - from)}")];
        bars.AddRange(step.LockWaits.Select(wait => new Bar(Since(wait.Start), Since(wait.Start) + wait.WaitTime, "wait", $"waited {Durations.Text(wait.WaitTime)}")));
        return new BarRow($"{number}. {MigrationReport.Cut(step.Purpose, 90)}", Durations.Text(to - from), bars, $"{_anchor}-step-{number}");
    }

    private void Legend(IEnumerable<MigrationStep> steps)
    {
        bool interrupted = steps.Any(IsInterrupted);
        string[] kinds = [.. steps.Select(StateKind).Concat(steps.Any(step => step.LockWaits.Length > 0) ? ["wait"] : []).Distinct()];
        if (kinds is ["done"])
        {
            return;
        }

        _html.Open("ul", ("class", "legend"));
        foreach (string kind in kinds)
        {
            _html.Open("li").Open("i", ("class", kind)).Close().Text(kind switch { "done" => "at work", "failed" => interrupted ? "interrupted" : "failed", "wait" => "others in the way", _ => "skipped or given up" }).Close();
        }

        _html.Close();
    }

    private void Phases()
    {
        var phases = _operation.Phases
            .GroupBy(phase => (phase.Target, phase.Name))
            .Select(group => (
                Name: group.Key.Target is null || _operation.Phases.Select(phase => phase.Target).Distinct().Count() == 1 ? group.Key.Name : $"{group.Key.Name}, {group.Key.Target}",
                Time: group.Aggregate(TimeSpan.Zero, (sum, phase) => sum + phase.Duration),
                Bars: group.Select(phase => new Bar(
                    Since(phase.StartedAt),
                    Since(phase.StartedAt) + phase.Duration,
                    phase.Name.StartsWith("waiting", StringComparison.Ordinal) ? "wait" : "done",
                    Durations.Text(phase.Duration)))))
            .ToArray();
        var drawn = phases.OrderByDescending(phase => phase.Time).Take(MostRows / 2).ToHashSet();
        BarRows.Draw(
            _html,
            "Phases",
            _length,
            [.. phases.Where(drawn.Contains).Select(phase => new BarRow(phase.Name, Durations.Text(phase.Time), [.. phase.Bars]))],
            phases.Length > drawn.Count ? $"{phases.Length - drawn.Count} shorter phases are not drawn." : null);
    }

    private void Plots()
    {
        OperationSample[] samples = [.. _operation.Samples.Where(sample => sample.Interval > TimeSpan.Zero)];
        (TimeSpan, TimeSpan)[] waits = [.. _operation.Steps.SelectMany(step => step.LockWaits).Select(wait => (Since(wait.Start), Since(wait.Start) + wait.WaitTime))];
        _html.Open("div", ("class", "plots"));
        if (samples.Sum(sample => sample.Batches) > 0)
        {
            double seconds = samples.Sum(sample => sample.Interval.TotalSeconds);
            Plot("Throughput, rows per second", samples, sample => Same(sample.Rows / sample.Interval.TotalSeconds), Scale.Count, Scale.Count(samples.Sum(sample => sample.Rows) / seconds), waits);
            double work = samples.Sum(sample => (sample.BatchTime ?? TimeSpan.Zero).TotalSeconds * sample.Batches);
            Plot(
                "Time of a batch",
                samples,
                sample => sample.BatchTime is { } time ? (time.TotalSeconds, (sample.LongestBatch ?? time).TotalSeconds) : null,
                Scale.Seconds,
                Scale.Seconds(work / samples.Sum(sample => sample.Batches)),
                waits);
        }

        if (samples.Any(sample => sample.Lag > TimeSpan.Zero))
        {
            Plot("Lag of the slowest standby", samples, sample => sample.Lag is { } lag ? Same(lag.TotalSeconds) : null, Scale.Seconds, null, waits);
        }

        if (samples.Any(sample => sample.LagBytes > 0))
        {
            Plot("WAL that the slowest standby had to replay", samples, sample => sample.LagBytes is { } bytes ? Same(bytes) : null, Scale.Bytes, null, waits);
        }

        _html.Close();
        if (samples.Length > 0)
        {
            _html.Element("p", "note", $"The line is the average, the lighter area behind it the greatest value.{(waits.Length > 0 ? " Shaded: others were in the way." : "")}{(BetweenBatches() is null ? "" : " Between batches it was paused or kept small by its throttle, waited for others or its window, or was on its way to the server; the log does not tell these apart.")}");
        }
    }

    private static (double, double)? Same(double value) => (value, value);

    private void Plot(
        string title,
        OperationSample[] samples,
        Func<OperationSample, (double Value, double Most)?> value,
        Func<double, string> words,
        string? average,
        (TimeSpan, TimeSpan)[] waits)
    {
        SeriesPoint[] points =
        [
            .. samples.Select(sample => (Sample: sample, Value: value(sample))).Where(pair => pair.Value is not null)
                .Select(pair => new SeriesPoint(Since(pair.Sample.Time - pair.Sample.Interval), Since(pair.Sample.Time), pair.Value!.Value.Value, pair.Value.Value.Most)),
        ];
        SeriesPlot.Draw(_html, title, _length, points, words, average, waits);
    }

    private void Waits()
    {
        LockWait[] waits = [.. _operation.Steps.SelectMany(step => step.LockWaits)];
        if (waits.Length == 0)
        {
            return;
        }

        var blockers = waits
            .SelectMany(wait => wait.Blockers.Select(blocker => (Wait: wait, Blocker: blocker)))
            .GroupBy(pair => (pair.Blocker.Pid, pair.Blocker.BackendStart, Gid: pair.Blocker.Pid == 0 ? pair.Blocker.Query : null))
            .Select(group => (
                Who: Who(group.Last().Blocker),
                group.Last().Blocker,
                Time: group.Aggregate(TimeSpan.Zero, (sum, pair) => sum + pair.Wait.WaitTime),
                Bars: group.Select(pair => new Bar(Since(pair.Wait.Start), Since(pair.Wait.Start) + pair.Wait.WaitTime, "wait", $"{Durations.Text(pair.Wait.WaitTime)} after {Durations.Text(Since(pair.Wait.Start))}")).ToArray()))
            .OrderByDescending(blocker => blocker.Time)
            .ToArray();
        var drawn = blockers.Take(MostWaits).ToArray();
        BarRows.Draw(
            _html,
            "Who was in the way",
            _length,
            [.. drawn.Select(blocker => new BarRow(blocker.Who, Durations.Text(blocker.Time), blocker.Bars))],
            blockers.Length > drawn.Length ? $"{blockers.Length - drawn.Length} others, for a shorter time, are not drawn." : null);
        _html.Open("ol", ("class", "list"));
        foreach (var blocker in drawn)
        {
            LockBlocker it = blocker.Blocker;
            _html.Open("li").Element("div", null, blocker.Who);
            _html.Element("div", "meta", string.Join(" · ", new[]
            {
                it.User is null ? null : $"user {it.User}",
                it.ClientAddress,
                it.State ?? it.BackendType,
                it.TransactionAge is { } age ? $"transaction open for {Durations.Text(age)}" : null,
                it.Mode is null ? null : $"{(it.Granted ? "held" : "awaited")} {it.Mode}{(it.Relation is null ? "" : $" on {it.Relation}")}",
            }.Where(part => !string.IsNullOrEmpty(part))));
            if (!string.IsNullOrEmpty(it.Query))
            {
                _html.Open("pre").Open("code").Text(it.Query).Close().Close();
            }

            _html.Close();
        }

        _html.Close();
    }

    private static string Who(LockBlocker blocker) =>
        $"{(blocker.Pid == 0 ? "prepared transaction" : $"pid {blocker.Pid}")}{(string.IsNullOrEmpty(blocker.Application) ? blocker.BackendType is null ? "" : $", {blocker.BackendType}" : $", {blocker.Application}")}";

    private void Steps()
    {
        if (_operation.Steps.Length == 0)
        {
            _html.Element("p", "note", "There was nothing to do.");
            return;
        }

        _html.Element("h3", null, "Steps and what takes them back");
        _html.Open("ol", ("class", "list"));
        foreach ((MigrationStep step, int number) in _steps.Take(MostSteps).Select((step, i) => (step, i + 1)))
        {
            Step(step, number);
        }

        _html.Close();
        if (_steps.Length > MostSteps)
        {
            _html.Element("p", "note", $"{_steps.Length - MostSteps} more steps are in the log: (Get-MigrationHistory -Id {_operation.Id}).Steps.");
        }

        if (_bookkeeping.Length > 0)
        {
            _html.Open("details").Element("summary", "note", $"Before them, this module made what it keeps its own records in: {string.Join("; ", _bookkeeping.Select(step => step.Purpose))}");
            foreach (MigrationStep step in _bookkeeping)
            {
                _html.Open("pre").Open("code").Text(step.Sql).Close().Close();
                if (step.ReversalNote is not null)
                {
                    _html.Element("p", "note", step.ReversalNote);
                }
            }

            _html.Close();
        }
    }

    private void Step(MigrationStep step, int number)
    {
        _html.Open("li", ("id", $"{_anchor}-step-{number}"));
        _html.Open("div", ("class", "head")).Open("span").Text($"{number}. {step.Purpose}").Close().Element("span", $"badge {StateColour(step)}", StateWord(step)).Close();
        string objects = step.Objects.Length == 0 ? "" : $" on {string.Join(", ", step.Objects)}";
        _html.Element("div", "meta", string.Join(" · ", new[]
        {
            step.LockMode == TableLockMode.None ? "no table lock" : Execution.LockModes.SqlText(step.LockMode) + objects,
            step.State is StepState.Done or StepState.Failed or StepState.Cancelled ? Durations.Text(step.Duration) : null,
            step.Cost == StepCost.UpdatesRows ? step.Attempts > 0 ? Scale.Text($"{step.Attempts:N0} batches sent") : null : step.Attempts > 1 ? $"{step.Attempts} attempts" : null,
            step.LockWaits.Length > 0 ? $"waited {Durations.Text(step.LockWaits.Aggregate(TimeSpan.Zero, (sum, wait) => sum + wait.WaitTime))}" : null,
        }.Where(part => part is not null)));
        _html.Open("pre").Open("code").Text(step.Sql).Close().Close();
        if (step.Reversal is not null)
        {
            _html.Element("p", "back", "Taken back by");
            _html.Open("pre").Open("code").Text(step.Reversal).Close().Close();
        }

        if (step.ReversalNote is not null)
        {
            _html.Element("p", "note", step.ReversalNote);
        }

        _html.Close();
    }

    private static string StateKind(MigrationStep step) => step.State switch
    {
        StepState.Done or StepState.Planned => "done",
        StepState.Failed => "failed",
        _ => "ended",
    };

    private static string StateColour(MigrationStep step) => step.State switch
    {
        StepState.Done => "good",
        StepState.Failed => "bad",
        StepState.Planned when step.StartedAt is not null => "busy",
        _ => "idle",
    };

    /// <summary>Whether it lasted until its client was last heard of, so that it failed at nothing.</summary>
    private bool IsInterrupted(MigrationStep step) =>
        _operation.Outcome == OperationOutcome.Interrupted && step is { State: StepState.Failed, StartedAt: { } start } && Since(start) + step.Duration >= _operation.Duration;

    private string StateWord(MigrationStep step) => step.State switch
    {
        StepState.Done => "Done",
        StepState.Failed => IsInterrupted(step) ? "Interrupted" : "Failed",
        StepState.Skipped => "Skipped",
        StepState.Cancelled => "Cancelled",
        _ => step.StartedAt is null ? "Not run" : "Running",
    };
}
