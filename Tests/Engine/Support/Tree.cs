using MigrationSafety.Engine.Locks;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>The tree of a whole server, as the cmdlet gets it.</summary>
internal static class Tree
{
    internal static async Task<IReadOnlyList<BlockingLock>> ReadAsync(TestDatabase db, BlockingLockFilter? filter = null, string? user = null, RecordingSink? sink = null)
    {
        sink ??= new RecordingSink();
        string text = user is null ? db.ConnectionString : db.Server.ConnectionString(db.Name, user);
        EngineSession session = EngineSession.Of(await SessionFactory.ConnectAsync(new ConnectRequest { Text = text }, sink, TestContext.Current.CancellationToken));
        try
        {
            return await BlockingLockReader.ReadAsync(session, filter ?? new(), sink, TestContext.Current.CancellationToken);
        }
        finally
        {
            await SessionFactory.DisconnectAsync(session.Info);
        }
    }
}
