using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Rollback.Proof;

/// <summary>Runs a section statement by statement, as its tool or psql does, until one fails.</summary>
internal static class ScriptRunner
{
    internal static async Task<RollbackTestPhase> RunAsync(
        RollbackTestStage stage, NpgsqlConnection connection, MigrationSection section, IOperationSink sink, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        int done = 0;
        RollbackTestPhase Phase(RollbackTestOutcome outcome) => new() { Stage = stage, Outcome = outcome, Statements = done, Duration = Stopwatch.GetElapsedTime(start) };
        foreach (MigrationPart part in section.LastFirst ? section.Parts.Reverse() : section.Parts)
        {
            SqlStatement[] statements = [.. section.Of(part)];
            // Several statements in one message are one transaction too.
            bool wrapped = part.Mode == RunnerMode.Wrapped || (part.Mode == RunnerMode.OneMessage && statements.Length > 1 && statements.All(s => s.Control == TransactionControl.None));
            if (wrapped)
            {
                await ExecuteAsync(connection, "begin", sink, cancellationToken).ConfigureAwait(false);
            }

            for (int i = 0; i < statements.Length; i++)
            {
                SqlStatement statement = statements[i];
                if (statement.Kind != SqlStatementKind.Sql)
                {
                    continue;
                }

                try
                {
                    if (i + 1 < statements.Length && statements[i + 1].Kind == SqlStatementKind.CopyData)
                    {
                        await CopyAsync(connection, statement.Text, statements[i + 1].Text, sink, cancellationToken).ConfigureAwait(false);
                    }
                    else
                    {
                        await ExecuteAsync(connection, statement.Text, sink, cancellationToken).ConfigureAwait(false);
                    }

                    done++;
                }
                catch (PostgresException e) when (!cancellationToken.IsCancellationRequested)
                {
                    return Phase(RollbackTestOutcome.Failed) with
                    {
                        File = section.Path,
                        Line = statement.Line,
                        Statement = statement.Text,
                        SqlState = e.SqlState,
                        Message = ServerErrors.Words(e),
                    };
                }
            }

            if (wrapped)
            {
                try
                {
                    await ExecuteAsync(connection, "commit", sink, cancellationToken).ConfigureAwait(false);
                }
                catch (PostgresException e) when (!cancellationToken.IsCancellationRequested)
                {
                    // Deferred constraints speak up only now.
                    return Phase(RollbackTestOutcome.Failed) with { File = section.Path, Line = statements.LastOrDefault()?.Line, Statement = "commit", SqlState = e.SqlState, Message = ServerErrors.Words(e) };
                }
            }
        }

        // psql gives up what is open when it ends.
        await using NpgsqlBatch open = new(connection) { BatchCommands = { new("select pg_catalog.pg_current_xact_id_if_assigned() is not null and pg_catalog.transaction_timestamp() <> pg_catalog.statement_timestamp()") } };
        if (await open.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) is true)
        {
            return Phase(RollbackTestOutcome.Failed) with { File = section.Path, Line = section.Script.Statements[^1].Line, Statement = section.Script.Statements[^1].Text, Message = "The script ends inside a transaction: nothing of it would be kept." };
        }

        return Phase(RollbackTestOutcome.Succeeded);
    }

    /// <summary>Sends a statement as it is: the driver would look for parameters and semicolons in it.</summary>
    internal static async Task ExecuteAsync(NpgsqlConnection connection, string sql, IOperationSink sink, CancellationToken cancellationToken)
    {
        sink.Debug(sql);
        await using NpgsqlBatch batch = new(connection) { BatchCommands = { new(sql) } };
        await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    private static async Task CopyAsync(NpgsqlConnection connection, string sql, string data, IOperationSink sink, CancellationToken cancellationToken)
    {
        sink.Debug(sql);
        TextWriter writer = await connection.BeginTextImportAsync(sql, cancellationToken).ConfigureAwait(false);
        await using (writer.ConfigureAwait(false))
        {
            await writer.WriteAsync(data.AsMemory(), cancellationToken).ConfigureAwait(false);
        }
    }
}
