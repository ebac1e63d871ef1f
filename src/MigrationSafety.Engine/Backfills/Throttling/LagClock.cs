namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>
/// How long ago the primary was where a standby is now, from the looks so far. The server's own measure (replay_lag) stands still while a standby replays nothing,
/// which is when it matters most.
/// </summary>
internal sealed class LagClock
{
    private const int Most = 4096;

    private readonly List<(DateTimeOffset Time, long Wal)> _looks = [];

    internal void Add(DateTimeOffset time, long wal)
    {
        // An idle server: the first look at a place tells how long it has been there, more of them tell nothing.
        if (_looks.Count > 0 && _looks[^1].Wal == wal)
        {
            return;
        }

        if (_looks.Count == Most)
        {
            // Half as many, over as long a time.
            int place = 0;
            _looks.RemoveAll(_ => place++ % 2 == 1);
        }

        _looks.Add((time, wal));
    }

    /// <summary>The lag of who has come to a place; no more than the time since the first look.</summary>
    internal TimeSpan Of(long replayed, DateTimeOffset now)
    {
        int first = _looks.FindIndex(look => look.Wal > replayed);
        return first < 0 ? TimeSpan.Zero : now - _looks[first].Time;
    }
}
