using System.Reflection;
using MigrationSafety.Tests.Postgres;
using Xunit;
using Xunit.Sdk;
using Xunit.v3;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>
/// Runs a theory for the majors of PostgreSQL that this run asks for; the first parameter is the major. Where none are named, on the oldest, the newest and one between, by the theory's
/// name: each major meets a share of all tests, and a run of all of them stays short.
/// </summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class EachMajorAttribute : DataAttribute
{
    /// <summary>Whether the oldest and the newest will do: for what is slow and the same on all of them, as the network and this client are, so that a run of all majors stays short.</summary>
    public bool OnlyEdges { get; set; }

    /// <summary>Whether each of them is wanted: for what the server shows in other ways from major to major.</summary>
    public bool OnEach { get; set; }

    public override ValueTask<IReadOnlyCollection<ITheoryDataRow>> GetData(MethodInfo testMethod, DisposalTracker disposalTracker)
    {
        IReadOnlyList<int> majors = PostgresClusters.RequestedMajors;
        int between = majors.Count > 2 ? majors[1 + (testMethod.Name.Sum(c => c) % (majors.Count - 2))] : majors[0];
        bool Runs(int major) => major == majors[0] || major == majors[^1] || (!OnlyEdges && (OnEach || PostgresClusters.AreMajorsNamed || major == between));
        return new([.. majors.Where(Runs).Select(major => new TheoryDataRow<int>(major))]);
    }

    public override bool SupportsDiscoveryEnumeration() => true;
}
