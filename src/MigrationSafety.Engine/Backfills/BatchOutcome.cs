namespace MigrationSafety.Engine.Backfills;

/// <summary>What a batch of a range did, as the server committed it.</summary>
/// <param name="Changed">Rows updated.</param>
/// <param name="AtEnd">Whether it reached the end of the range.</param>
/// <param name="Passed">Rows passed, matching or not; by blocks an estimate.</param>
/// <param name="ServerTime">Time that the server took.</param>
/// <param name="Whole">Whether it was as large as was asked for: the end of a turn or of the range cuts it short.</param>
internal sealed record BatchOutcome(long Changed, bool AtEnd, long Passed, TimeSpan ServerTime, bool Whole);

/// <summary>What a batch of single rows did, as the server committed it.</summary>
/// <param name="Changed">Rows updated.</param>
/// <param name="State">The backfill's state; null where its record is gone.</param>
/// <param name="ServerTime">Time that the server took.</param>
/// <param name="Done">Numbers of those that were changed, from 1 in the order in which they were given; null where all were.</param>
/// <param name="Kept">Numbers of those that it locked and that were not changed all the same; null where that was not asked.</param>
internal sealed record PlacesOutcome(long Changed, string? State, TimeSpan ServerTime, long[]? Done, long[]? Kept);

/// <summary>What came of trying the change on some rows.</summary>
/// <param name="Locked">Rows that match and were free.</param>
/// <param name="Changed">Those of them that were changed.</param>
/// <param name="Same">Keys of those that match as before, in words.</param>
internal sealed record SampleOutcome(long Locked, long Changed, IReadOnlyList<string> Same)
{
    internal SampleOutcome With(SampleOutcome other) => new(Locked + other.Locked, Changed + other.Changed, [.. Same, .. other.Same]);
}

/// <summary>The rows of a piece of a range that match.</summary>
/// <param name="Places">Where they lie.</param>
/// <param name="From">The checkpoint before the piece.</param>
/// <param name="To">The checkpoint after it.</param>
/// <param name="AtEnd">Whether that is the end of the range.</param>
internal sealed record PieceOfRange(RowPlace[] Places, string[]? From, string[] To, bool AtEnd);
