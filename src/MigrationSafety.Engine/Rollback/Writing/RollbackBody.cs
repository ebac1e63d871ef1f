using System.Text;

namespace MigrationSafety.Engine.Rollback.Writing;

/// <summary>Writes statements of a rollback with their comments, as a runner other than psql takes them.</summary>
internal static class RollbackBody
{
    internal const string Unbounded = "-- It may take long, and nothing here can lift a bound: connect with statement_timeout = 0 (from PostgreSQL 17 on with transaction_timeout = 0 too) where the role, the database or the server has another.\n";

    internal const string Timeout = "SET LOCAL lock_timeout = '500ms';";

    /// <summary>Statements for one transaction that the runner, or the text around, opens.</summary>
    internal static string InTransaction(RollbackSegment segment)
    {
        StringBuilder text = new();
        if (segment.Runs)
        {
            text.AppendLf(Timeout);
        }

        Append(text, segment, (t, sql) => t.Append(sql).AppendLf(";"));
        if (!segment.Runs && segment.Statements.Any(s => s.Statement.Reversibility != Reversibility.NotNeeded))
        {
            // The tool would note a migration as taken back of which everything is there.
            text.AppendLf("DO $$ BEGIN RAISE EXCEPTION 'Nothing of this migration is taken back: see the comments in the file.'; END $$;");
        }

        return text.ToString();
    }

    /// <summary>Statements that run one by one in one session.</summary>
    /// <param name="segments">Statements.</param>
    /// <param name="end">What ends each of them.</param>
    internal static string OneByOne(IEnumerable<RollbackSegment> segments, string end = ";")
    {
        StringBuilder text = new();

        // What can be in no transaction works for long; cut off, CONCURRENTLY leaves an invalid index.
        text.AppendLf("SET statement_timeout = 0" + end);
        foreach (RollbackSegment segment in segments)
        {
            if (segment.Runs)
            {
                // CONCURRENTLY that runs into a time-out leaves an invalid index, and while it waits it stops no read and no write.
                text.AppendLf((segment.Transactional ? "SET lock_timeout = '500ms'" : "SET lock_timeout = 0") + end);
            }

            Append(text, segment, (t, sql) => t.Append(sql).AppendLf(end));
        }

        return text.AppendLf("RESET lock_timeout" + end).AppendLf("RESET statement_timeout" + end).ToString();
    }

    /// <summary>Statements alone, each written by a function.</summary>
    internal static string Each(RollbackSegment segment, Action<StringBuilder, string> write)
    {
        StringBuilder text = new();
        Append(text, segment, write);
        return text.ToString();
    }

    /// <summary>Statements that can be in no transaction, and in no message with others, one of which could lift a bound.</summary>
    internal static string Alone(RollbackSegment segment) => (segment.Runs ? Unbounded : "") + Each(segment, (text, sql) => text.Append(sql).AppendLf(";"));

    /// <summary>Lines as comments.</summary>
    internal static string Comments(IEnumerable<string> lines)
    {
        StringBuilder text = new();
        foreach (string line in lines)
        {
            RollbackText.Comment(text, Tame(line));
        }

        return text.ToString();
    }

    private static void Append(StringBuilder text, RollbackSegment segment, Action<StringBuilder, string> write)
    {
        foreach (NumberedStatement statement in segment.Statements)
        {
            foreach (string? comment in RollbackText.CommentsOf(statement.Statement, statement.Number))
            {
                RollbackText.Comment(text, comment is null ? null : Tame(comment));
            }

            if (statement.Number is not null)
            {
                write(text, statement.Statement.Reversal!);
            }
        }
    }

    /// <summary>Takes out of a comment what a tool would take for its own: goose's annotations, Flyway's placeholders, Liquibase's reference to another changeset.</summary>
    private static string Tame(string comment) => comment
        .Replace("+goose", "goose", StringComparison.Ordinal)
        .Replace("${", "$ {", StringComparison.Ordinal)
        .Replace("changesetid", "changeset id", StringComparison.OrdinalIgnoreCase);
}
