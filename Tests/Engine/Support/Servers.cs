using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

[assembly: AssemblyFixture(typeof(Servers))]

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>The servers of the whole run.</summary>
public sealed class Servers : IAsyncDisposable
{
    private readonly PostgresClusters _secure = new(new() { Authentication = PostgresAuthentication.Scram, Tls = PostgresTls.Valid });

    /// <summary>One a major, started when a test first asks for it; everybody may come in.</summary>
    public PostgresClusters Clusters { get; } = new();

    /// <summary>One a major with passwords and TLS; skips the test where somebody else runs the server.</summary>
    public async Task<PostgresServer> GetSecureAsync(int major)
    {
        PostgresServer server = await _secure.GetAsync(major);
        Assert.SkipWhen(server.IsExternal, $"{PostgresClusters.ServerVariable} names a server whose passwords and certificates are not the tests' own.");
        return server;
    }

    public async ValueTask DisposeAsync()
    {
        await _secure.DisposeAsync();
        await Clusters.DisposeAsync();
    }
}
