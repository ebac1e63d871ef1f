using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Execution;

/// <summary>
/// Sends statements as they are. Npgsql cuts the text of a command at each semicolon that its own reader sees, those of a BEGIN ATOMIC body too (npgsql issue 4445), and
/// leaves the commands of a batch alone (pull request 6298): so the text is cut here, where the grammar is known.
/// </summary>
internal static class StatementBatch
{
    /// <summary>A batch of the statements of a text, which are one transaction as they would be in one message.</summary>
    internal static NpgsqlBatch Of(NpgsqlConnection connection, string sql)
    {
        NpgsqlBatch batch = new(connection);
        foreach (SqlStatement statement in SqlScript.Parse(sql, psql: false).Statements)
        {
            batch.BatchCommands.Add(new NpgsqlBatchCommand(statement.Text));
        }

        return batch;
    }
}
