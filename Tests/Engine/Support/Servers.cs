using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

[assembly: AssemblyFixture(typeof(Servers))]

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>The servers of the whole run.</summary>
public sealed class Servers : IAsyncDisposable
{
    /// <summary>One a major, started when a test first asks for it.</summary>
    public PostgresClusters Clusters { get; } = new();

    public ValueTask DisposeAsync() => Clusters.DisposeAsync();
}
