using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

public sealed class SessionTests(Servers servers)
{
    [Theory, EachMajor]
    public async Task A_session_knows_its_server(int major)
    {
        await using TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, TestContext.Current.CancellationToken);
        MigrationSession session = await SessionFactory.ConnectAsync(new() { Text = db.ConnectionString }, new RecordingSink(), TestContext.Current.CancellationToken);
        Assert.Equal(db.Name, session.Database);
        Assert.Equal("postgres", session.User);
        Assert.Equal(db.Server.Port, session.Port);
        Assert.Equal(db.Server.Version, session.ServerVersion);
        Assert.False(session.IsStandby);
        await SessionFactory.DisconnectAsync(session);
        Assert.Equal(SessionState.Closed, session.State);
        Assert.Equal("SessionClosed", Assert.Throws<MigrationException>(() => EngineSession.Of(session)).ErrorId);
    }
}
