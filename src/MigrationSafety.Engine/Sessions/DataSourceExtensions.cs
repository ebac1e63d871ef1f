using Npgsql;

namespace MigrationSafety.Engine.Sessions;

/// <summary>What Npgsql's data source leaves to be wished for.</summary>
internal static class DataSourceExtensions
{
    /// <summary>
    /// Opens a connection, and gives up at once when told to: while Npgsql waits for the first answers of a server it does not look at its token.
    /// </summary>
    internal static async Task<NpgsqlConnection> OpenPromptlyAsync(this NpgsqlDataSource dataSource, CancellationToken cancellationToken)
    {
        Task<NpgsqlConnection> opening = dataSource.OpenConnectionAsync(cancellationToken).AsTask();
        try
        {
            return await opening.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            // It ends by itself within the connect timeout; what it then has is closed, and how it failed is of no interest any more.
            _ = opening.ContinueWith(
                o => o.IsCompletedSuccessfully ? o.Result.DisposeAsync().AsTask() : Task.FromResult(o.Exception),
                CancellationToken.None,
                TaskContinuationOptions.None,
                TaskScheduler.Default);
            throw;
        }
    }
}
