namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>
/// Pauses within a batch, so that it leaves processor and disk to others every fraction of a millisecond rather than after a quarter of a second: at the same rows a second, far fewer of
/// their statements have to queue behind it.
/// </summary>
/// <param name="Chance">Of a pause after a row.</param>
/// <param name="Seconds">How long each is.</param>
internal readonly record struct BatchPace(double Chance, double Seconds)
{
    private const double LeastBurst = 0.0002;
    // What pg_sleep takes at least, whatever less it is asked for.
    private const double LeastPause = 0.002;
    private const double Oversleep = 1.05;

    internal static BatchPace None => default;

    internal bool IsPaced => Chance > 0;

    /// <summary>The pauses that leave a share of the time to work.</summary>
    /// <param name="speed">That share: from above 0 to 1.</param>
    /// <param name="ofRow">How long a row takes without them.</param>
    internal static BatchPace Of(double speed, TimeSpan ofRow)
    {
        if (speed >= 1)
        {
            return None;
        }

        double row = Math.Max(ofRow.TotalSeconds, 1e-6);
        double pauses = (1 / speed) - 1;
        double rows = Math.Max(1, Math.Max(LeastBurst, LeastPause / pauses) / row);
        return new BatchPace(1 / rows, Math.Max(LeastPause, Math.Round(rows * row * pauses, 3)));
    }

    /// <summary>How long the pauses of so many rows are, about.</summary>
    internal TimeSpan Pauses(long rows) => TimeSpan.FromSeconds(rows * Chance * Seconds * Oversleep);
}
