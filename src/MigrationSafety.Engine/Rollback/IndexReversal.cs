using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes CREATE INDEX back.</summary>
internal static class IndexReversal
{
    internal static IEnumerable<RollbackStatement> Reverse(Reversing r, CreateIndex create)
    {
        (ForwardStatement forward, ScriptNames names) = (r.Forward, r.Names);
        ResolvedName table = names.Existing(create.Table, forward.Path);
        if (!table.Known)
        {
            yield return forward.Unknown($"In which schema of the script's search_path {create.Table} is cannot be told from the text: connect, or write the schema.");
            yield break;
        }

        string name = create.Name ?? r.Chooser.Index(table.Name, create.ElementNames);
        QualifiedName index = table.Name with { Name = name };
        if (create.Name is not null)
        {
            r.Chooser.TakeRelation(index.Schema, name);
        }

        if (names.Made(table.Name) is not null)
        {
            names.Make(ObjectKind.Index, index, true);
            yield return forward.NotNeeded($"The index goes with the table {table.Name}, which this script makes.");
            yield break;
        }

        // A partitioned table's index cannot be dropped CONCURRENTLY; ONLY is written for such tables alone.
        bool partitioned = table.Relation is { Kind: 'p' } || (create.Only && table.Relation is null);
        string sql = $"drop index {(partitioned ? "" : "concurrently ")}if exists {index}";
        bool there = index.Schema is { } schema && names.Catalog?.HasRelation(schema, name) == true && names.StillThere(ObjectKind.Index, index);
        bool ifNotExists = create.IfNotExists || r.Optional;
        if (ifNotExists && names.Catalog is null)
        {
            yield return forward.Unknown(
                $"{r.Whether} {index} was there before cannot be told from the text. Connect before the migration runs, or run this only if the migration made it.",
                sql);
            yield break;
        }

        if (ifNotExists && there)
        {
            yield return forward.NotNeeded($"{index} exists in {names.Catalog!.Database}: {r.OnlyIfMissing} does nothing there, and the index must stay. (If the migration has run already, it may be its own.)");
            yield break;
        }

        if (names.Make(ObjectKind.Index, index, true).Fate.Dropped)
        {
            yield return forward.NotNeeded($"The script drops the index {index} itself.");
            yield break;
        }

        // The lock under which the column goes is held anyway; CONCURRENTLY would only need a transaction, or a file, of its own.
        if (names.Find(ObjectKind.Table, table.Name) is { } script && create.Elements.FirstOrDefault(e => e.Column is { } column && script.Adds(column)) is { } added)
        {
            yield return forward.NotNeeded($"The index goes with the column {SqlName.QuoteIfNeeded(added.Column!)}, which this script adds.");
            yield break;
        }

        yield return forward.By(
            sql,
            lossy: false,
            partitioned ? TableLockMode.AccessExclusive : TableLockMode.ShareUpdateExclusive,
            [table.Name],
            [
                create.Name is null ? RollbackPlanner.GuessedName : null,
                there && create.Name is not null ? $"{index} exists already: the migration has run, or will fail here." : null,
                partitioned ? "The indexes of the partitions go with it." : null,
                create.Concurrently && forward.Statement.InTransaction ? "The migration fails here: CREATE INDEX CONCURRENTLY cannot run inside a transaction." : null,
                Missing(names, table),
            ]);
    }

    /// <summary>A note where the table is not to be found.</summary>
    internal static string? Missing(ScriptNames names, ResolvedName table) =>
        names.Catalog is { } catalog && table.Relation is null && names.Made(table.Name) is null && names.StillThere(ObjectKind.Table, table.Name)
            ? $"{table.Name} is not in {catalog.Database} now."
            : null;
}
