namespace MigrationSafety;

/// <summary>How an existing rollback differs from the one that was made.</summary>
public enum RollbackDifferenceKind
{
    /// <summary>The existing rollback lacks the statement.</summary>
    Missing,

    /// <summary>The existing rollback alone has the statement.</summary>
    Additional,

    /// <summary>Both have it, in different forms.</summary>
    Different,

    /// <summary>Both have it, at different places of the order.</summary>
    Order,
}

/// <summary>A difference between a migration's existing rollback and the one that was made; statements are compared by what they say, not by their text.</summary>
public sealed record RollbackDifference
{
    /// <summary>Kind.</summary>
    public required RollbackDifferenceKind Kind { get; init; }

    /// <summary>The statement that was made; null where the existing rollback alone has it.</summary>
    public string? Generated { get; init; }

    /// <summary>The existing statement; null where it is missing there.</summary>
    public string? Existing { get; init; }

    /// <summary>Line of the existing statement in its file, from 1; null where it is missing there.</summary>
    public int? Line { get; init; }

    /// <summary>What the difference does.</summary>
    public string? Note { get; init; }

    /// <inheritdoc />
    public override string ToString() => Kind switch
    {
        RollbackDifferenceKind.Missing => $"missing: {Generated}",
        RollbackDifferenceKind.Additional => $"line {Line}, additional: {Existing}",
        _ => $"line {Line}: {Existing}; made: {Generated}. {Note}",
    };
}
