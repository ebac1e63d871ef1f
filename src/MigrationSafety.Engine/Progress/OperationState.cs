namespace MigrationSafety.Engine.Progress;

/// <summary>A part of an operation, and how much of its work it is beside the other parts.</summary>
/// <param name="Name">Beginning of the server's name of the phase.</param>
/// <param name="Share">Work, in any unit that is the same for all parts; 0 for waiting, of which nobody can tell how long it takes.</param>
internal sealed record OperationPart(string Name, double Share);

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
