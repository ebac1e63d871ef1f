using System.Reflection;
using MigrationSafety.Tests.Postgres;
using Xunit;
using Xunit.Sdk;
using Xunit.v3;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>Runs a theory once for each major of PostgreSQL that this run asks for; the first parameter is the major.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class EachMajorAttribute : DataAttribute
{
    /// <summary>Whether the oldest and the newest will do: for what is slow and the same on all of them, as the network and this client are, so that a run of all majors stays short.</summary>
    public bool OnlyEdges { get; set; }

    public override ValueTask<IReadOnlyCollection<ITheoryDataRow>> GetData(MethodInfo testMethod, DisposalTracker disposalTracker)
    {
        IReadOnlyList<int> majors = PostgresClusters.RequestedMajors;
        return new([.. majors.Where(major => !OnlyEdges || major == majors[0] || major == majors[^1]).Select(major => new TheoryDataRow<int>(major))]);
    }

    public override bool SupportsDiscoveryEnumeration() => true;
}
