namespace MigrationSafety.Engine.Indexes;

/// <summary>A relation that has the wanted name, or an index that has the wanted definition (<c>pg_class</c>, <c>pg_index</c>).</summary>
/// <param name="Oid">Oid.</param>
/// <param name="Name">Name, as in the catalog; the schema is that of the table.</param>
/// <param name="Kind">relkind.</param>
/// <param name="HasName">It has the wanted name.</param>
/// <param name="HasDefinition">It is an index of the wanted table and definition.</param>
/// <param name="Valid">indisvalid, indisready and indislive: queries use it and writes keep it up.</param>
/// <param name="Definition"><c>pg_get_indexdef</c>; null where it is no index.</param>
/// <param name="SizeBytes"><c>pg_relation_size</c>.</param>
internal sealed record IndexEntry(uint Oid, string Name, char Kind, bool HasName, bool HasDefinition, bool Valid, string? Definition, long SizeBytes);

/// <summary>What was found for a request: the table, its columns, the name, and what is there already.</summary>
internal sealed record IndexSituation
{
    internal required Execution.TableReference Table { get; init; }

    /// <summary>Columns, as in the catalog.</summary>
    internal required string[] Columns { get; init; }

    internal required bool Unique { get; init; }

    /// <summary>Name of the index, as in the catalog.</summary>
    internal required string Name { get; init; }

    /// <summary>An index of this name and definition.</summary>
    internal IndexEntry? Existing { get; init; }

    /// <summary>Indexes of the same definition under other names.</summary>
    internal IReadOnlyList<IndexEntry> Twins { get; init; } = [];

    /// <summary>Schema and name, for people and for SQL.</summary>
    internal string Display => $"{Sql.SqlName.QuoteIfNeeded(Table.Schema)}.{Sql.SqlName.QuoteIfNeeded(Name)}";

    /// <summary>What the steps are, in view of what is there.</summary>
    internal IReadOnlyList<MigrationStep> Steps() => Existing switch
    {
        null => [CreateStep()],
        { Valid: true } => [],
        _ => [DropStep(), CreateStep()],
    };

    internal MigrationStep CreateStep() => new()
    {
        Sql = CreateSql(),
        Purpose = $"Build index {Display}",
        LockMode = TableLockMode.ShareUpdateExclusive,
        Objects = [Table.Display],
        Transactional = false,
        Cost = StepCost.BuildsIndex,
        Reversal = $"DROP INDEX CONCURRENTLY IF EXISTS {Display}",
        Reversibility = Reversibility.Reversible,
    };

    internal MigrationStep DropStep() => new()
    {
        Sql = $"DROP INDEX CONCURRENTLY IF EXISTS {Display}",
        Purpose = $"Drop the invalid leftover {Display}",
        LockMode = TableLockMode.ShareUpdateExclusive,
        Objects = [Table.Display, Display],
        Transactional = false,
        Cost = StepCost.Instant,
        Reversibility = Reversibility.NotNeeded,
        ReversalNote = "An index that was never finished: no query used it.",
    };

    internal string CreateSql() =>
        $"CREATE {(Unique ? "UNIQUE " : "")}INDEX CONCURRENTLY {Sql.SqlName.QuoteIfNeeded(Name)} ON {Table.Display} ({string.Join(", ", Columns.Select(Sql.SqlName.QuoteIfNeeded))})";
}
