namespace MigrationSafety.Engine.Progress;

/// <summary>A part of an operation, and how much of its work it is beside the other parts.</summary>
/// <param name="Name">Beginning of the server's name of the phase.</param>
/// <param name="Share">Work, in any unit that is the same for all parts; 0 for waiting, of which nobody can tell how long it takes.</param>
internal sealed record OperationPart(string Name, double Share)
{
    /// <summary>Parts of one kind are quick or slow together; those of another, on the same server, less so.</summary>
    internal int Kind { get; init; }

    /// <summary>Of a part that reads what it and the next part sort.</summary>
    internal SortFeed? Sort { get; init; }
}

/// <summary>A part that reads for a sort: memory is filled, then sorted, over and over; what is left over then, and the merging, is the next part.</summary>
/// <param name="Reading">Reading alone, as a fraction of both parts' shares.</param>
/// <param name="Merging">Merging what was sorted in pieces, as far as the next part does that, as such a fraction.</param>
/// <param name="Run">How much of what is read fills the memory of the sort: 1 and more where all of it fits.</param>
internal sealed record SortFeed(double Reading, double Merging, double Run);

/// <summary>How far shares that are seconds are to be trusted.</summary>
/// <param name="Prior">How much it takes to believe that this operation is quicker or slower as a whole: what one finished part weighs is 1.</param>
/// <param name="Variance">Of the logarithm of one part's time, when the pace of the others is known.</param>
internal sealed record Trust(double Prior, double Variance)
{
    /// <summary>Whether it is slowed down on purpose: then its age tells how much, however long that is.</summary>
    internal bool Slowed { get; init; }
}

/// <summary>What a sample says of an operation by itself, without those before it.</summary>
internal sealed record OperationState
{
    internal required string Operation { get; init; }

    internal string? Phase { get; init; }

    internal int? PhaseNumber { get; init; }

    internal int? PhaseCount { get; init; }

    internal long? Done { get; init; }

    internal long? Total { get; init; }

    internal string? Unit { get; init; }

    /// <summary>All its parts; phases, or parts of phases. Empty where nothing is known of the whole.</summary>
    internal IReadOnlyList<OperationPart> Parts { get; init; } = [];

    /// <summary>The part in work.</summary>
    internal int Part { get; init; }

    /// <summary>How much of the part is done, 0 to 1; null where nothing is counted in it.</summary>
    internal double? Within { get; init; }

    /// <summary>What <see cref="Within"/> will be when the piece in work is done, where whole pieces are counted (one index of several); null where the counter moves by itself.</summary>
    internal double? WithinNext { get; init; }

    /// <summary>The same parts over again for other objects (partitions): how many are done, and how many there are.</summary>
    internal (long Done, long Total) Rounds { get; init; } = (0, 1);

    /// <summary>What the shares of the parts rest on.</summary>
    internal ProgressConfidence Basis { get; init; } = ProgressConfidence.Assumed;

    /// <summary>Where the shares of the parts are seconds: how far they are to be trusted.</summary>
    internal Trust? Seconds { get; init; }

    /// <summary>Whether <see cref="Total"/> is an estimate of the server's.</summary>
    internal bool Estimated { get; init; }

    /// <summary>A stream, which never ends by itself.</summary>
    internal bool Endless { get; init; }

    /// <summary>What slows it down on purpose, or keeps it from working, beside what the server's wait events tell.</summary>
    internal string? Waiting { get; init; }

    /// <summary>Work of all parts of one round.</summary>
    internal double Shares => Parts.Sum(part => part.Share);

    /// <summary>Done and total as a fraction; null where either is not known.</summary>
    internal static double? Fraction(long? done, long? total) => done is { } d && total is { } t and > 0 ? Math.Clamp((double)d / t, 0, 1) : null;
}
