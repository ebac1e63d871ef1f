using MigrationSafety.Engine.Sessions;

namespace MigrationSafety.Engine.Execution;

/// <summary>What an operation is going to do, before it does anything: what <c>-WhatIf</c> shows and what is then run.</summary>
public abstract record OperationPlan
{
    /// <summary>Kind of operation, as the log names it: <c>IndexBuild</c> for an <c>IndexBuildPlan</c>.</summary>
    public string Operation => GetType().Name is var name && name.EndsWith("Plan", StringComparison.Ordinal) ? name[..^4] : name;

    /// <summary>Session in which it was made and will run.</summary>
    public required EngineSession Session { get; init; }

    /// <summary>What it does, such as <c>Build index orders_tier_idx</c>.</summary>
    public required string Action { get; init; }

    /// <summary>The table, as <c>schema.name</c>.</summary>
    public required string Target { get; init; }

    /// <summary>The steps, in order.</summary>
    public required IReadOnlyList<MigrationStep> Steps { get; init; }
}
