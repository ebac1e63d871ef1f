using MigrationSafety.Engine.Sessions;

namespace MigrationSafety.Engine.Execution;

/// <summary>What an operation is going to do, before it does anything: what <c>-WhatIf</c> shows and what is then run.</summary>
public abstract record OperationPlan
{
    /// <summary>Every kind of operation that there is, by the name that the log has for it.</summary>
    public static IReadOnlyList<string> Operations { get; } =
        [.. typeof(OperationPlan).Assembly.GetTypes().Where(type => type.IsSubclassOf(typeof(OperationPlan)) && !type.IsAbstract).Select(NameOf).Order(StringComparer.Ordinal)];

    /// <summary>Kind of operation, as the log names it: <c>IndexBuild</c> for an <c>IndexBuildPlan</c>.</summary>
    public string Operation => NameOf(GetType());

    /// <summary>Session in which it was made and will run.</summary>
    public required EngineSession Session { get; init; }

    /// <summary>What it does, such as <c>Build index orders_tier_idx</c>.</summary>
    public required string Action { get; init; }

    /// <summary>The table, as <c>schema.name</c>.</summary>
    public required string Target { get; init; }

    /// <summary>The steps, in order.</summary>
    public required IReadOnlyList<MigrationStep> Steps { get; init; }

    /// <summary>What else is to be known before it begins, a sentence each: estimates, and who would be in the way.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];

    private static string NameOf(Type plan) => plan.Name.EndsWith("Plan", StringComparison.Ordinal) ? plan.Name[..^4] : plan.Name;
}
