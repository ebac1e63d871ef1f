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
    public override ValueTask<IReadOnlyCollection<ITheoryDataRow>> GetData(MethodInfo testMethod, DisposalTracker disposalTracker) =>
        new([.. PostgresClusters.RequestedMajors.Select(m => new TheoryDataRow<int>(m))]);

    public override bool SupportsDiscoveryEnumeration() => true;
}
