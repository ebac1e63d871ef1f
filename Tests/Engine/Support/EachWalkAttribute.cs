using System.Reflection;
using MigrationSafety.Tests.Postgres;
using Xunit;
using Xunit.Sdk;
using Xunit.v3;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>
/// Runs a theory with a major, a strategy and a number of workers: on the newest major with all of them, on each other one with one, so that a run of all majors stays short.
/// </summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class EachWalkAttribute : DataAttribute
{
    private static readonly (BackfillStrategy Strategy, int Workers)[] s_walks = [(BackfillStrategy.Key, 4), (BackfillStrategy.Block, 4), (BackfillStrategy.Key, 1), (BackfillStrategy.Block, 1)];

    /// <summary>Whether the oldest and the newest major will do, as for <see cref="EachMajorAttribute.OnlyEdges"/>.</summary>
    public bool OnlyEdges { get; set; }

    public override ValueTask<IReadOnlyCollection<ITheoryDataRow>> GetData(MethodInfo testMethod, DisposalTracker disposalTracker)
    {
        IReadOnlyList<int> all = PostgresClusters.RequestedMajors;
        int[] majors = [.. all.Where(major => !OnlyEdges || major == all[0] || major == all[^1])];
        return new([.. majors.SelectMany(major => (major == majors.Max() ? s_walks : [s_walks[major % s_walks.Length]])
            .Select(walk => new TheoryDataRow<int, BackfillStrategy, int>(major, walk.Strategy, walk.Workers)))]);
    }

    public override bool SupportsDiscoveryEnumeration() => true;
}
