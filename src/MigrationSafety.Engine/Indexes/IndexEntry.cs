namespace MigrationSafety.Engine.Indexes;

/// <summary>A relation that has the wanted name, or an index that has the wanted definition (<c>pg_class</c>, <c>pg_index</c>).</summary>
/// <param name="Oid">Oid.</param>
/// <param name="Name">Name, as in the catalog; the schema is that of the table.</param>
/// <param name="Kind">relkind.</param>
/// <param name="HasDefinition">It is an index of the wanted table and definition.</param>
/// <param name="Valid">indisvalid, indisready and indislive: queries use it and writes keep it up.</param>
/// <param name="Definition"><c>pg_get_indexdef</c>; null where it is no index.</param>
/// <param name="SizeBytes"><c>pg_relation_size</c>; of a partitioned index that of all its parts.</param>
/// <param name="Parent">The partitioned index that it is attached to; null where it is to none.</param>
/// <param name="Storage">Its storage parameters, in an order that can be compared.</param>
internal sealed record IndexEntry(uint Oid, string Name, char Kind, bool HasDefinition, bool Valid, string? Definition, long SizeBytes, uint? Parent, string Storage);

/// <summary>What was found for a wanted index: the table, the name, and what is there already.</summary>
internal sealed record IndexSituation
{
    internal required Execution.TableReference Table { get; init; }

    internal required IndexDefinition Definition { get; init; }

    /// <summary>Name of the index, as in the catalog.</summary>
    internal required string Name { get; init; }

    /// <summary>An index of this name and definition.</summary>
    internal IndexEntry? Existing { get; init; }

    /// <summary>Indexes of the same definition under other names.</summary>
    internal IReadOnlyList<IndexEntry> Twins { get; init; } = [];

    /// <summary>Schema and name, for people and for SQL.</summary>
    internal string Display => DisplayOf(Name);

    /// <summary>What the steps are, in view of what is there.</summary>
    /// <exception cref="MigrationException"><c>IndexNotValid</c>: what is there is invalid and a part of a partitioned index, so that it cannot be replaced.</exception>
    internal IReadOnlyList<MigrationStep> Steps() => Existing switch
    {
        null => [CreateStep()],
        { Valid: true } => [],
        { Parent: not null } => throw InvalidPart(),
        _ => [DropStep(), CreateStep()],
    };

    /// <summary>Schema and name of another index of the table.</summary>
    internal string DisplayOf(string name) => $"{Sql.SqlName.QuoteIfNeeded(Table.Schema)}.{Sql.SqlName.QuoteIfNeeded(name)}";

    internal MigrationStep CreateStep() => Table.Kind == 'p' ? CreateParentStep() : new()
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

    private MigrationException InvalidPart() => new(
        "IndexNotValid",
        MigrationErrorKind.InvalidState,
        $"{Display} is not valid, and it is a part of an index on the partitioned table: PostgreSQL can neither drop it alone nor detach it.",
        $"Invoke-SafeIndexRebuild -Name {Display} builds it anew; then run this command again.")
    {
        Target = Display,
    };

    private MigrationStep CreateParentStep() => new()
    {
        Sql = CreateSql(),
        Purpose = $"Make index {Display} of the partitioned table, without its partitions",
        LockMode = TableLockMode.Share,
        Objects = [Table.Display],
        Transactional = true,
        Cost = StepCost.Instant,
        Reversal = $"DROP INDEX IF EXISTS {Display}",
        Reversibility = Reversibility.Reversible,
        ReversalNote = "PostgreSQL drops a partitioned index and its parts at once, not CONCURRENTLY: under ACCESS EXCLUSIVE on the table and all its partitions, for an instant.",
    };

    internal string CreateSql() => Definition.CreateSql(Name, Table.Display, concurrently: Table.Kind != 'p', only: Table.Kind == 'p');
}
