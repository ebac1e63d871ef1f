using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>The statements about the table as a whole, with all that inherits from it.</summary>
internal sealed class BackfillQueries
{
    private readonly BackfillDefinition _definition;

    internal BackfillQueries(BackfillDefinition definition) => _definition = definition;

    /// <summary>How many rows match.</summary>
    internal string Count => $"select pg_catalog.count(*) from {Rows} where {Predicate}";

    /// <summary>How many rows there are.</summary>
    internal string All => $"select pg_catalog.count(*) from {Rows}";

    /// <summary>How many rows there are, how many of them are the backfill's as far as that can be told, and how many match.</summary>
    internal string CountAll => _definition.Kind == BackfillKind.Insert
        // What is missing by a join: asked row by row it would take the target's index as often as there are rows.
        ? $"select a.rows, a.own, ({Count}) from (select pg_catalog.count(*) as rows, pg_catalog.count(*) filter (where {BackfillStatements.ConditionOf(_definition)}) as own from {Rows}) a"
        : $"select pg_catalog.count(*), pg_catalog.count(*), pg_catalog.count(*) filter (where {Predicate}) from {Rows}";

    /// <summary>
    /// Of the rows that do not match (of those that were copied), all or a sample of $1 percent of the blocks: how many, how many have another value than the expressions give, some of those.
    /// </summary>
    /// <param name="types">The columns' types.</param>
    /// <param name="sampled">Whether it is a sample.</param>
    /// <param name="examples">How many of those.</param>
    internal string Compare(IReadOnlyDictionary<string, string> types, bool sampled, int examples)
    {
        // As texts: not every type has an equality, and the assignment's cast must not look like a difference.
        string differs = string.Join(" or ", _definition.Set.Select((column, i) =>
            $"{(_definition.Into is null ? $"{Name}.{SqlName.Quote(column.Name)}" : $"msb_to{i + 1}")}::text is distinct from ((\n{column.Expression}\n)::{types[column.Name]})::text"));
        IReadOnlyList<KeyColumn> key = _definition.IsTree ? [] : _definition.Leaves[0].Key;
        string row = key.Count > 0
            ? $"'(' || {SqlName.Literal(string.Join(", ", key.Select(column => SqlName.QuoteIfNeeded(column.Name))))} || ') = (' || pg_catalog.concat_ws(', ', {string.Join(", ", key.Select(column => $"{Name}.{SqlName.Quote(column.Name)}"))}) || ')'"
            : $"{Name}.tableoid::pg_catalog.regclass::text || ' ctid ' || {Name}.ctid::text";
        return $"""
            select pg_catalog.count(*), pg_catalog.count(*) filter (where msb_differs), (pg_catalog.array_agg(msb_row) filter (where msb_row is not null))[1:{examples}]
            from (select {differs} as msb_differs, case when {differs} then {row} end as msb_row
                  from {Rows}{(sampled ? " tablesample system ($1)" : "")}{(_definition.Into is { } into ? $" join {into.WithValues} on {into.Match}" : "")}
                  where {(_definition.Into is null ? $"not {Predicate}" : BackfillStatements.ConditionOf(_definition))}) as msb_compared
            """;
    }

    /// <summary>A sample of $1 percent of the blocks, as far as they hold rows: table, number, rows, rows that match.</summary>
    internal string Sample => $"""
        select {Name}.tableoid, ({Name}.ctid::text::point)[0]::int8, pg_catalog.count(*), pg_catalog.count(*) filter (where {Predicate})
        from {Rows} tablesample system ($1)
        group by 1, 2
        """;

    /// <summary>Physical places of $1 rows that match, with their table; of a sample of $2 percent of the blocks any rows, as different as they are, of all blocks the first.</summary>
    /// <param name="sampled">Whether from a sample: where most rows are done, a look at all would pass them all.</param>
    internal string PickSample(bool sampled) => $"select tableoid, ctid::text from {Rows}{(sampled ? " tablesample system ($2)" : "")} where {Predicate}{(sampled ? " order by pg_catalog.random()" : "")} limit $1";

    /// <summary>
    /// Finds all rows that match, by table, place and version, in one snapshot, and keeps them on the server without holding that snapshot: whatever moves afterwards
    /// cannot hide from it; with the key, where all parts have the same. Rows that failed and were not changed since are left out.
    /// </summary>
    internal string DeclareSweep => $"""
        declare msb_sweep no scroll cursor with hold for
        select tableoid, ctid::text, xmin::text, {(SweptKey.Length > 0 ? $"array[{string.Join(", ", SweptKey.Select(column => SqlName.Quote(column) + "::text"))}]" : "null")}::text from {Rows}
        where {Predicate}
          and not exists (select from {BackfillStore.Errors} msb_e where msb_e.backfill = {SqlName.Literal(_definition.Name)} and not msb_e.again
                          and msb_e.relation = {Name}.tableoid and msb_e.place = {Name}.ctid::text and msb_e.version = {Name}.xmin::text)
        """;

    /// <summary>The columns of the key that a sweep notes; none where the parts have not all the same.</summary>
    internal string[] SweptKey => _definition.Leaves.Count > 0 && _definition.Leaves.All(leaf => leaf.KeyNames.SequenceEqual(_definition.Leaves[0].KeyNames)) ? _definition.Leaves[0].KeyNames : [];

    /// <summary>Sets the columns to NULL again.</summary>
    internal string Reset => BlockReversal.Sql(
        _definition.Table.Sql,
        _definition.Table.Display,
        _definition.IsTree,
        Filled,
        ReversalBatches.LockClause(_definition),
        $"update only %1$s set {ReversalBatches.Escaped(Nulls)} where ctid = any ($1) returning ({ReversalBatches.Escaped(Filled)}) as msb_still",
        "rows are locked, were filled again meanwhile, or a trigger fills them (run this again)",
        fatal: "not_null_violation");

    private string Nulls => string.Join(", ", _definition.Set.Select(column => $"{SqlName.Quote(column.Name)} = null"));

    private string Filled => string.Join(" or ", _definition.Set.Select(column => $"{SqlName.Quote(column.Name)} is not null"));

    private string Rows => $"{(_definition.IsTree ? "" : "only ")}{_definition.Table.Sql}{(_definition.ShardOf is null ? "" : $" as {Name}")}";

    private string Name => _definition.ShardOf is { } name ? SqlName.Quote(name) : _definition.Table.Sql;

    private string Predicate => BackfillStatements.PredicateOf(_definition);
}
