using System.Diagnostics;
using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.History;

/// <summary>What an operation tells its sink, kept for its record and passed on. Calls come from any thread.</summary>
internal sealed class OperationRecorder : IOperationSink
{
    // A step that waited for hours met many; the longest waits tell the story.
    private const int MostWaits = 100;
    private const int MostPhases = 1000;

    private readonly IOperationSink _sink;
    private readonly string _location;
    private readonly object _lock = new();
    private readonly List<MigrationStep> _steps;
    private readonly List<OperationPhase> _phases = [];
    private readonly SampleSeries _samples = new();
    private readonly Dictionary<int, OpenPhase> _open = [];
    private long _stepChanges;
    private long _sampleChanges;

    internal OperationRecorder(OperationPlan plan, IOperationSink sink)
    {
        _sink = sink;
        _location = plan.Session.Info.ToString();
        _steps = [.. plan.Steps];
    }

    /// <summary>Counts what happened to steps and phases: another number, another record.</summary>
    internal long StepChanges => Interlocked.Read(ref _stepChanges);

    /// <summary>Counts what happened to the samples.</summary>
    internal long SampleChanges => Interlocked.Read(ref _sampleChanges);

    /// <summary>Rows changed so far; null where no batch was committed.</summary>
    internal long? Rows
    {
        get
        {
            lock (_lock)
            {
                return _samples.Batches > 0 ? _samples.Rows : null;
            }
        }
    }

    public void Verbose(string message) => _sink.Verbose(message);

    public void Debug(string message) => _sink.Debug(message);

    public void Warning(string message) => _sink.Warning(message);

    public void Progress(OperationProgress progress) => _sink.Progress(progress with { Location = _location });

    public void Record(OperationEvent happened)
    {
        lock (_lock)
        {
            switch (happened)
            {
                case StepEvent step:
                    Note(step.Step);
                    Interlocked.Increment(ref _stepChanges);
                    break;
                case PhaseEvent phase:
                    Note(phase);
                    break;
                case PhaseEndEvent end when _open.Remove(end.Worker, out OpenPhase? over):
                    Extend(over);
                    Interlocked.Increment(ref _stepChanges);
                    break;
                case BatchEvent batch:
                    _samples.Add(batch);
                    Interlocked.Increment(ref _sampleChanges);
                    break;
            }
        }

        _sink.Record(happened);
    }

    /// <summary>How far the standbys are behind right now.</summary>
    internal void NoteLag(TimeSpan? lag, long? bytes)
    {
        lock (_lock)
        {
            _samples.Lag(lag, bytes);
            Interlocked.Increment(ref _sampleChanges);
        }
    }

    /// <summary>The record as it is now.</summary>
    /// <param name="final">The steps as the operation's result or error has them; null where it has none.</param>
    /// <param name="given">What becomes of a step that had begun and has no end: it was given up with the operation; null while that runs.</param>
    internal OperationRecord Snapshot(IReadOnlyList<MigrationStep>? final, StepState? given)
    {
        lock (_lock)
        {
            foreach (OpenPhase open in _open.Values)
            {
                Extend(open);
            }

            IEnumerable<MigrationStep> steps = final is { Count: > 0 } ? final : _steps;
            return new OperationRecord(
                [.. steps.Select(step => Bounded(given is { } state && step is { State: StepState.Planned, StartedAt: not null } ? step with { State = state } : step))],
                [.. _phases],
                _samples.All(),
                _samples.Batches,
                Rows,
                _open.Values.Select(open => _phases[open.Index].Name).FirstOrDefault() ?? _steps.Find(step => step is { State: StepState.Planned, StartedAt: not null })?.Purpose);
        }
    }

    private static MigrationStep Bounded(MigrationStep step) => step.LockWaits.Length <= MostWaits
        ? step
        : step with { LockWaits = [.. step.LockWaits.OrderByDescending(wait => wait.WaitTime).Take(MostWaits).OrderBy(wait => wait.Start)] };

    private void Note(MigrationStep step)
    {
        int known = _steps.FindLastIndex(other => other.Sql == step.Sql);
        if (known < 0)
        {
            // Not planned: a leftover that was found on the way. Before those that are still to come.
            int next = _steps.FindIndex(other => other.State == StepState.Planned && other.StartedAt is null);
            _steps.Insert(next < 0 ? _steps.Count : next, step);
            return;
        }

        // Tried again as a whole: its first start and what it met before stay.
        MigrationStep before = _steps[known];
        _steps[known] = before.State is StepState.Failed or StepState.Cancelled && step.State != StepState.Planned
            ? step with
            {
                StartedAt = before.StartedAt,
                Attempts = before.Attempts + step.Attempts,
                Duration = before.Duration + step.Duration,
                LockWaits = [.. before.LockWaits, .. step.LockWaits],
            }
            : before.State is StepState.Failed or StepState.Cancelled ? before : step;
    }

    private void Note(PhaseEvent seen)
    {
        if (_open.TryGetValue(seen.Worker, out OpenPhase? open))
        {
            Extend(open);
            OperationPhase last = _phases[open.Index];
            if (last.Name == seen.Phase && last.Command == seen.Command && (last.Target ?? seen.Target) == (seen.Target ?? last.Target))
            {
                _phases[open.Index] = last with { Target = last.Target ?? seen.Target, Total = seen.Total is { } total ? Math.Max(last.Total ?? 0, total) : last.Total };
                open.Waits = seen.Waits;
                return;
            }

            _open.Remove(seen.Worker);
        }

        if (_phases.Count < MostPhases)
        {
            _open[seen.Worker] = new OpenPhase(_phases.Count) { Seen = Stopwatch.GetTimestamp(), Waits = seen.Waits };
            _phases.Add(new OperationPhase { Command = seen.Command, Target = seen.Target, Name = seen.Phase, StartedAt = DateTimeOffset.Now, Total = seen.Total });
            Interlocked.Increment(ref _stepChanges);
        }
    }

    /// <summary>The time between two looks belongs to what was seen at the first of them.</summary>
    private void Extend(OpenPhase open)
    {
        TimeSpan since = Stopwatch.GetElapsedTime(open.Seen);
        open.Seen = Stopwatch.GetTimestamp();
        OperationPhase phase = _phases[open.Index];
        _phases[open.Index] = phase with { Duration = phase.Duration + since, WaitTime = phase.WaitTime + (open.Waits ? since : TimeSpan.Zero) };
    }

    /// <summary>The phase that one of the workers is in.</summary>
    private sealed class OpenPhase(int index)
    {
        internal int Index { get; } = index;

        internal long Seen { get; set; }

        internal bool Waits { get; set; }
    }
}

/// <summary>What is written of an operation while it runs and at its end. Times are this client's.</summary>
/// <param name="Steps">Steps.</param>
/// <param name="Phases">Phases.</param>
/// <param name="Samples">Samples.</param>
/// <param name="Batches">Batches committed.</param>
/// <param name="Rows">Rows changed; null where no batch was committed.</param>
/// <param name="Phase">What it is at: the phase of one of its workers, or the purpose of its step; null where it is at neither.</param>
internal sealed record OperationRecord(MigrationStep[] Steps, OperationPhase[] Phases, OperationSample[] Samples, long Batches, long? Rows, string? Phase)
{
    /// <summary>How often something was tried again. Of batches, each was sent once at least.</summary>
    internal long Retries => Steps.Sum(step => step.Cost == StepCost.UpdatesRows ? Math.Max(0, step.Attempts - Batches) : Math.Max(0, step.Attempts - 1));

    /// <summary>Time in which others were in the way, or had the turn; of several workers that wait at once it counts once.</summary>
    internal TimeSpan WaitTime
    {
        get
        {
            IEnumerable<(DateTimeOffset From, TimeSpan Length)> waits = Steps.SelectMany(step => step.LockWaits).Select(wait => (wait.Start, wait.WaitTime))
                .Concat(Phases.Where(phase => phase.Command is null).Select(phase => (phase.StartedAt, phase.WaitTime)));
            TimeSpan sum = TimeSpan.Zero;
            DateTimeOffset until = DateTimeOffset.MinValue;
            foreach ((DateTimeOffset from, TimeSpan length) in waits.OrderBy(wait => wait.From))
            {
                DateTimeOffset begin = from > until ? from : until;
                DateTimeOffset end = from + length;
                if (end > begin)
                {
                    sum += end - begin;
                    until = end;
                }
            }

            return sum;
        }
    }

    /// <summary>The same with all times by another clock.</summary>
    /// <param name="skew">How much later that clock is.</param>
    internal OperationRecord By(TimeSpan skew) => this with
    {
        Steps = [.. Steps.Select(step => step with { StartedAt = step.StartedAt + skew, LockWaits = [.. step.LockWaits.Select(wait => wait with { Start = wait.Start + skew })] })],
        Phases = [.. Phases.Select(phase => phase with { StartedAt = phase.StartedAt + skew })],
        Samples = [.. Samples.Select(sample => sample with { Time = sample.Time + skew })],
    };
}
