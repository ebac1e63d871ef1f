using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.History;

/// <summary>Batches and lag over time in a bounded number of stretches: where they become too many, two and two are put together.</summary>
internal sealed class SampleSeries
{
    internal const int Most = 300;

    private static readonly TimeSpan s_shortest = TimeSpan.FromSeconds(1);

    private readonly TimeProvider _clock;
    private readonly List<Stretch> _done = [];
    private readonly long _start;
    private readonly DateTimeOffset _startTime;
    private TimeSpan _width = s_shortest;
    private Stretch _current;

    internal SampleSeries(TimeProvider? clock = null)
    {
        _clock = clock ?? TimeProvider.System;
        _start = _clock.GetTimestamp();
        _startTime = _clock.GetLocalNow();
        _current = new Stretch(TimeSpan.Zero, TimeSpan.Zero, 0, 0, TimeSpan.Zero, TimeSpan.Zero, null, null);
    }

    internal long Rows { get; private set; }

    internal long Batches { get; private set; }

    internal void Add(BatchEvent batch)
    {
        Rows += batch.Rows;
        Batches++;
        Extend(_current with
        {
            Rows = _current.Rows + batch.Rows,
            Batches = _current.Batches + 1,
            BatchTime = _current.BatchTime + batch.Time,
            Longest = batch.Time > _current.Longest ? batch.Time : _current.Longest,
        });
    }

    internal void Lag(TimeSpan? lag, long? bytes) => Extend(_current with { Lag = Greater(_current.Lag, lag), LagBytes = Greater(_current.LagBytes, bytes) });

    internal OperationSample[] All() => [.. _done.Append(_current).Where(stretch => stretch.Length > TimeSpan.Zero).Select(Sample)];

    private static T? Greater<T>(T? left, T? right)
        where T : struct, IComparable<T> => left is null || (right is { } r && r.CompareTo(left.Value) > 0) ? right : left;

    private void Extend(Stretch current)
    {
        TimeSpan now = _clock.GetElapsedTime(_start);
        _current = current with { Length = now - current.From };
        if (_current.Length < _width)
        {
            return;
        }

        _done.Add(_current);
        _current = new Stretch(now, TimeSpan.Zero, 0, 0, TimeSpan.Zero, TimeSpan.Zero, null, null);
        if (_done.Count < Most)
        {
            return;
        }

        Stretch[] pairs = [.. _done.Chunk(2).Select(pair => pair.Aggregate((left, right) => left.With(right)))];
        _done.Clear();
        _done.AddRange(pairs);
        _width *= 2;
    }

    private OperationSample Sample(Stretch stretch) => new()
    {
        Time = _startTime + stretch.From + stretch.Length,
        Interval = stretch.Length,
        Rows = stretch.Rows,
        Batches = stretch.Batches,
        BatchTime = stretch.Batches > 0 ? stretch.BatchTime / stretch.Batches : null,
        LongestBatch = stretch.Batches > 0 ? stretch.Longest : null,
        Lag = stretch.Lag,
        LagBytes = stretch.LagBytes,
    };

    private sealed record Stretch(TimeSpan From, TimeSpan Length, long Rows, long Batches, TimeSpan BatchTime, TimeSpan Longest, TimeSpan? Lag, long? LagBytes)
    {
        internal Stretch With(Stretch next) => new(
            From,
            Length + next.Length,
            Rows + next.Rows,
            Batches + next.Batches,
            BatchTime + next.BatchTime,
            Longest > next.Longest ? Longest : next.Longest,
            Greater(Lag, next.Lag),
            Greater(LagBytes, next.LagBytes));
    }
}
