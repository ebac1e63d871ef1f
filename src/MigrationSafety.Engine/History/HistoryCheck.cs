using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.History;

/// <summary>Tells a filter that fits nothing from one that is wrong.</summary>
public static class HistoryCheck
{
    /// <summary>Looks whether what a filter names is there, where little was found.</summary>
    /// <param name="session">Session.</param>
    /// <param name="filter">Filter.</param>
    /// <param name="found">What it found.</param>
    /// <param name="sink">Notices.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException">
    /// <c>OperationNotFound</c>: the log has no entry of that number; <c>OperationUnknown</c>: nothing records such a kind; <c>TableNotFound</c>, <c>TableKindNotSupported</c>: neither the log nor the database knows such a table.
    /// </exception>
    public static async Task RunAsync(EngineSession session, HistoryFilter filter, IReadOnlyList<MigrationOperation> found, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(filter);
        ArgumentNullException.ThrowIfNull(found);
        ArgumentNullException.ThrowIfNull(sink);
        long[] missing = [.. filter.Id.Except(found.Select(operation => operation.Id))];
        if (missing.Length > 0)
        {
            // What another part of the filter leaves out is there all the same.
            IReadOnlyList<MigrationOperation> there = await HistoryReader.ReadAsync(session, new HistoryFilter { Id = missing }, sink, cancellationToken).ConfigureAwait(false);
            long[] unknown = [.. missing.Except(there.Select(operation => operation.Id))];
            if (unknown.Length > 0)
            {
                throw new MigrationException(
                    "OperationNotFound",
                    MigrationErrorKind.NotFound,
                    $"The log of {session.Info.Database} has no entry {string.Join(", ", unknown)}.",
                    "Look what it holds: Get-MigrationHistory. Each database counts its own.")
                {
                    Target = string.Join(", ", unknown),
                };
            }
        }

        if (found.Count == 0 && filter.Operation.FirstOrDefault(name => name.IndexOfAny(['*', '?']) < 0 && !OperationPlan.Operations.Contains(name, StringComparer.OrdinalIgnoreCase)) is { } operationName)
        {
            throw new MigrationException(
                "OperationUnknown",
                MigrationErrorKind.InvalidInput,
                $"{operationName} is no kind of operation that is recorded.",
                $"There are {string.Join(", ", OperationPlan.Operations)}.")
            {
                Target = operationName,
            };
        }

        if (filter.Table is { } table && found.Count == 0
            && (await HistoryReader.ReadAsync(session, new HistoryFilter { Table = table, Last = 1 }, sink, cancellationToken).ConfigureAwait(false)).Count == 0)
        {
            try
            {
                await using NpgsqlConnection connection = await session.OpenAsync("history", sink, cancellationToken).ConfigureAwait(false);
                _ = (await TableReference.FindAnyAsync(connection, table, null, cancellationToken).ConfigureAwait(false)).AsTable();
            }
            catch (NpgsqlException e)
            {
                throw ServerErrors.Translate(e, "Reading the history", table);
            }
        }
    }
}
