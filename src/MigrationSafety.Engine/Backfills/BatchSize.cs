using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Backfills;

/// <summary>How many rows a batch looks at: few at first, then as many as fit into the wanted time.</summary>
internal sealed class BatchSize
{
    private const int First = 500;
    private const int Greatest = 100_000;

    // Until it is known.
    private static readonly TimeSpan s_assumed = TimeSpan.FromMicroseconds(10);

    private readonly int _most;
    private readonly TimeSpan _target;
    private readonly IOperationSink _sink;
    private TimeSpan _ofRow = s_assumed;
    private int _said;

    internal BatchSize(int? most, TimeSpan target, IOperationSink sink)
    {
        _most = Math.Min(most ?? Greatest, Greatest);
        _target = target;
        _sink = sink;
        Rows = _said = Math.Min(First, _most);
    }

    internal int Rows { get; private set; }

    internal bool IsSmallest => Rows == 1;

    /// <summary>A batch of this size took so long.</summary>
    /// <param name="time">Time.</param>
    /// <param name="changed">Rows that it changed, of those it looked at.</param>
    internal void Took(TimeSpan time, long changed)
    {
        double factor = Math.Clamp(_target / (time + TimeSpan.FromMicroseconds(1)), 0.5, 2);
        bool dense = changed > Rows / 2;
        if (dense)
        {
            _ofRow = time / changed;
        }

        // Within a tenth it is right: timings scatter.
        if (factor is < 0.9 or > 1.1)
        {
            // Up at least by one: half of one row is none. Where few rows match, no more than could be changed in time: the next ones may all match.
            double most = dense ? _most : Math.Max(Rows, _target / _ofRow);
            Change(factor > 1 ? Math.Min(Math.Ceiling(Rows * factor), most) : Rows * factor);
        }
    }

    /// <summary>A batch of this size was taken back.</summary>
    internal void Divide(int by) => Change((double)Rows / by);

    /// <summary>No more than this for now.</summary>
    internal void Limit(int rows) => Change(Math.Min(Rows, rows));

    private void Change(double rows)
    {
        Rows = (int)Math.Clamp(rows, 1, _most);
        if (Rows >= 2L * _said || 2L * Rows <= _said)
        {
            _sink.Verbose($"A batch looks at {Counts.Rows(Rows)} now.");
            _said = Rows;
        }
    }
}
