namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>How long the change of a row takes, over the last batches without pauses.</summary>
internal sealed class RowCost
{
    // What a statement takes besides its rows.
    private static readonly TimeSpan s_ofStatement = TimeSpan.FromMilliseconds(2);
    private const double Fading = 0.9;
    private const double Least = 1e-6;

    // Until it is known.
    private double _rows = 500;
    private double _seconds = 0.005;

    /// <summary>Estimated.</summary>
    internal TimeSpan OfRow => TimeSpan.FromSeconds(Math.Max(Least, _seconds / _rows));

    /// <summary>A batch was committed.</summary>
    /// <param name="time">How long it took.</param>
    /// <param name="rows">Rows that it changed.</param>
    internal void Took(TimeSpan time, long rows)
    {
        if (rows > 0 && time > s_ofStatement)
        {
            _rows = (Fading * _rows) + rows;
            _seconds = (Fading * _seconds) + (time - s_ofStatement).TotalSeconds;
        }
    }
}
