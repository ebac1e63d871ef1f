using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Indexes;

/// <summary>What an index is, apart from its name and table, in the server's own words: two of the same index are equal in every part that counts.</summary>
internal sealed record IndexDefinition
{
    internal bool Unique { get; init; }

    internal string Method { get; init; } = "btree";

    /// <summary>Keys, with what is not the default of collation, operator class and order.</summary>
    internal required string[] Elements { get; init; }

    internal string[] Include { get; init; } = [];

    internal bool NullsNotDistinct { get; init; }

    /// <summary>Storage parameters; they make no other index.</summary>
    internal string? With { get; init; }

    /// <summary>Tablespace; it makes no other index.</summary>
    internal string? Tablespace { get; init; }

    internal string? Where { get; init; }

    /// <summary>What the columns of the index are called in the catalog (INCLUDE's too): its name is made of them.</summary>
    internal string[] ColumnNames { get; init; } = [];

    /// <summary>The keys without collation, operator class and order.</summary>
    internal string[] Keys { get; init; } = [];

    /// <summary>The collation by which each key is compared, as in SQL; null for that of the column, or none.</summary>
    internal string?[] Collations { get; init; } = [];

    /// <summary>Whether an operator class calls other values equal than the type's default does.</summary>
    internal bool OwnEquality { get; init; }

    /// <summary>From <c>pg_get_indexdef</c>.</summary>
    internal static IndexDefinition Parse(string indexdef)
    {
        CreateIndex parsed = StatementParser.Parse(SqlScript.Parse(indexdef, psql: false).Statements[0]) as CreateIndex
            ?? throw new InvalidOperationException($"The server describes an index in a way that is not understood: {indexdef}");
        return new IndexDefinition
        {
            Unique = parsed.Unique,
            Method = parsed.Method ?? "btree",
            Elements = [.. parsed.Elements.Select(element => element.Source.Text)],
            Include = [.. parsed.Include.Select(element => element.Source.Text)],
            NullsNotDistinct = parsed.NullsNotDistinct,
            With = parsed.With,
            Where = parsed.Predicate?.Text,
        };
    }

    /// <summary>Whether it is the same index to queries and writers. Storage parameters and tablespace may differ.</summary>
    internal bool IsSame(IndexDefinition other) =>
        Unique == other.Unique
        && Method == other.Method
        && NullsNotDistinct == other.NullsNotDistinct
        && Where == other.Where
        && Elements.Select(Unquoted).SequenceEqual(other.Elements.Select(Unquoted))
        && Include.Select(Unquoted).SequenceEqual(other.Include.Select(Unquoted));

    /// <summary>The statement that makes it.</summary>
    /// <param name="name">Name, as in the catalog.</param>
    /// <param name="table">Table, as in SQL.</param>
    /// <param name="concurrently">CONCURRENTLY.</param>
    /// <param name="only">ONLY: a partitioned table's own index.</param>
    internal string CreateSql(string name, string table, bool concurrently = true, bool only = false) =>
        $"CREATE {(Unique ? "UNIQUE " : "")}INDEX {(concurrently ? "CONCURRENTLY " : "")}{SqlName.QuoteIfNeeded(name)} ON {(only ? "ONLY " : "")}{table}"
        + $"{(Method == "btree" ? "" : $" USING {Method}")} ({string.Join(", ", Elements)})"
        + $"{(Include.Length == 0 ? "" : $" INCLUDE ({string.Join(", ", Include)})")}{(NullsNotDistinct ? " NULLS NOT DISTINCT" : "")}"
        + $"{(With is null ? "" : $" WITH ({With})")}{(Tablespace is null ? "" : $" TABLESPACE {Tablespace}")}{(Where is null ? "" : $" WHERE {Where}")}";

    /// <summary>The storage parameters in an order that can be compared.</summary>
    internal string StorageKey() => With is null ? "" : string.Join(',', With.Split(',', StringSplitOptions.TrimEntries).Order(StringComparer.Ordinal));

    // Which words need quotation marks differs from server to server.
    private static string Unquoted(string element)
    {
        SqlToken[] tokens = [.. SqlLexer.Tokens(element, psql: false)];
        return tokens is [{ Kind: SqlTokenKind.Word or SqlTokenKind.QuotedName } only] && SqlReader.NameOf(element, only) is { } name ? SqlName.Quote(name) : element;
    }
}
