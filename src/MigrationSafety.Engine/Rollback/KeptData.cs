using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>Keeps what UPDATE, DELETE, MERGE and TRUNCATE lose, or says why that cannot be.</summary>
internal static class KeptData
{
    /// <summary>What brings the rows or values of a statement back, or why they are not kept; null where nobody asked to keep them.</summary>
    internal static async Task<List<RollbackStatement>?> TryKeepAsync(Reversing r, ParsedStatement parsed)
    {
        if (r.Archive is not { } archive || r.Catalog is null)
        {
            return null;
        }

        switch (parsed)
        {
            case Truncate truncate:
                return await TruncatedAsync(r, archive, truncate).ConfigureAwait(false);
            case DataStatement data:
                List<RollbackStatement> result = [];
                foreach (DataStatement writing in data.All.Where(s => s is not Query))
                {
                    // What a statement in WITH gives to another cannot be read beforehand.
                    bool alone = ReferenceEquals(writing, data) && data.With.All(w => w.Statement is Query);
                    string? why = Reads(data, writing, alone) is { } read ? $"it reads {read}, which another part of the statement gives it" : null;
                    result.InsertRange(0, await KeptAsync(r, archive, writing, alone ? data.WithClause : default, why).ConfigureAwait(false));
                }

                return result;
            default:
                return null;
        }
    }

    private static async Task<List<RollbackStatement>> KeptAsync(Reversing r, DataArchive archive, DataStatement data, SqlFragment with, string? why)
    {
        RollbackStatement Lost(string reason)
        {
            RollbackStatement lost = DataReversal.Reverse(r, new StatementEffect(EffectKind.WritesRows, data.Tag, null, []), data);
            return lost with { Note = $"{lost.Note} Not kept: {reason}." };
        }

        if (data is Insert insert)
        {
            return [DataReversal.Reverse(r, new StatementEffect(EffectKind.WritesRows, data.Tag, insert.Table, []), data)];
        }

        (QualifiedName target, bool only) = data switch { Update u => (u.Table, u.Only), Delete d => (d.Table, d.Only), _ => (data.Targets[0], false) };
        ResolvedName table = r.Names.Existing(target, r.Forward.Path);
        if (why is null && (!table.Known || r.Names.BeforeScript(ObjectKind.Table, table.Name) != table.Name || Parts(data).Append(with).Any(p => NamesWhatIsMade(r, p))))
        {
            why = "it names something that the migration itself makes or renames, and cannot be asked beforehand";
        }

        if ((why ?? (table.Relation is { } there ? Unkept(there, data, only) : $"{table.Name} is not there now")) is { } reason)
        {
            return [Lost(reason)];
        }

        CatalogRelation relation = table.Relation!;
        string prefix = with.IsEmpty ? "" : with.Text + " ";
        string alias = SqlName.QuoteIfNeeded(data.Alias!);
        string source = $"{(only ? "only " : "")}{table.Name}{(data.Alias == target.Name ? "" : $" as {alias}")}";
        switch (data)
        {
            case Update update:
            {
                string[] columns = [.. update.Assignments.SelectMany(a => a.Columns).Distinct()];
                string query = prefix + Select([.. relation.Key, .. columns], alias, source, update.From, update.Predicate);
                QualifiedName kept = archive.Keep(r, table.Name, string.Join('_', columns), query);
                return [DataArchive.Values(r, kept, table.Name, relation, relation.Key.Select(k => (k, k)), columns.Select(c => (c, c)), false, "The values from before; what has been written there since is lost.")];
            }

            case Delete delete:
            {
                QualifiedName kept = archive.Keep(r, table.Name, "", prefix + Select(relation.StoredColumns, alias, source, delete.Using, delete.Predicate));
                string? others = await FollowersAsync(r, table.Name).ConfigureAwait(false);
                return [DataArchive.Rows(r, kept, table.Name, relation, others is null, others is null ? "The rows that were deleted." : $"The rows that were deleted; what their foreign keys delete or change in {others} does not come back.")];
            }

            case Merge merge:
            {
                MergeAction[] losing = [.. merge.Actions.Where(a => a.Command is "update" or "delete")];
                List<RollbackStatement> result = [];
                if (losing.Length > 0)
                {
                    string when = Array.Exists(losing, a => a.Condition is null) ? "" : $" where {string.Join(" or ", losing.Select(a => $"({a.Condition!.Value.Text})"))}";
                    string query = $"{prefix}{SelectRows(relation.StoredColumns, alias, source)} in (select {alias}.tableoid, {alias}.ctid from {source} join {merge.Source.Text} on {merge.Predicate.Text}{when})";
                    QualifiedName kept = archive.Keep(r, table.Name, "", query);
                    result.Add(DataArchive.RowsOver(r, kept, table.Name, relation, false, "The rows as they were; what has been written there since is lost."));
                }

                if (Array.Exists([.. merge.Actions], a => a.Command == "insert"))
                {
                    result.Insert(0, r.Forward.Irreversible("MERGE adds rows: which ones only the server finds out when it runs. What it changes and deletes is kept."));
                }

                return result;
            }

            default:
                return [Lost($"{data.Tag} is not kept")];
        }
    }

    /// <summary>Why the rows or values of a statement cannot be kept; null where they can.</summary>
    private static string? Unkept(CatalogRelation relation, DataStatement data, bool only)
    {
        string name = new QualifiedName(relation.Schema, relation.Name).ToString();
        if (relation.Kind is not ('r' or 'p'))
        {
            return $"{name} is no table";
        }

        if (relation.HasChildren && !only)
        {
            return $"other tables inherit from {name}, and their rows are written too: write a statement for each of them, with ONLY";
        }

        string? changed = data switch
        {
            Update update => update.Assignments.SelectMany(a => a.Columns).FirstOrDefault(relation.Key.Contains),
            Merge merge => merge.Actions.Where(a => a.Command == "update").SelectMany(a => a.Columns).FirstOrDefault(relation.Key.Contains),
            _ => null,
        };
        return data is Merge { Actions: var actions } && actions.Any(a => a.BySource && a.Command is ("update" or "delete")) ? "rows that have no match in the source are written, which are not told apart here"
            : changed is not null ? $"it changes {SqlName.QuoteIfNeeded(changed)}, which is of the key by which a row of {name} would be found again"
            : data is Delete ? null
            : relation is { Key.Count: 0 } ? $"{name} has neither a primary key nor a unique index over NOT NULL columns, by which a row would be found again"
            : null;
    }

    private static async Task<List<RollbackStatement>> TruncatedAsync(Reversing r, DataArchive archive, Truncate truncate)
    {
        List<RollbackStatement> Lost(string reason) => [r.Forward.Irreversible($"TRUNCATE TABLE removes rows: the text does not hold them. Not kept: {reason}.")];
        ResolvedName[] tables = [.. truncate.Tables.Select(t => r.Names.Existing(t.Name, r.Forward.Path))];
        if (Array.Exists(tables, t => !t.Known || r.Names.BeforeScript(ObjectKind.Table, t.Name) != t.Name))
        {
            return Lost("it names something that the migration itself makes or renames, and cannot be asked beforehand");
        }

        if (Array.Find(tables, t => t.Relation is not { Kind: 'r' or 'p' }) is { } missing)
        {
            return Lost($"{missing.Name} is not there now, or is no table");
        }

        // Tables that inherit and partitions are emptied too, and with CASCADE whatever refers to one of them.
        TruncatedTables emptied = await TruncatedTables.FindAsync(r.Catalog!, tables.Select((t, i) => (t.Name, truncate.Tables[i].Only)), truncate.Cascade, r.CancellationToken).ConfigureAwait(false);
        IReadOnlyList<QualifiedName> all = emptied.InOrder;
        await r.Catalog!.KnowAsync(all, r.CancellationToken).ConfigureAwait(false);
        List<RollbackStatement> result = [.. emptied.Foreign.SelectMany(f => Lost($"{f} is a foreign table, whose rows are another server's"))];
        foreach (QualifiedName name in all)
        {
            CatalogRelation relation = r.Names.Catalog!.Find(name.Schema!, name.Name)!;
            QualifiedName kept = archive.Keep(r, name, "", $"select * from only {name}");
            result.Add(DataArchive.Rows(r, kept, name, relation, true, "The rows."));
        }

        return truncate.RestartIdentity ? [.. result, .. await RestartedAsync(r, all).ConfigureAwait(false)] : result;
    }

    /// <summary>The sequences of the columns of tables, where they stood.</summary>
    private static async Task<List<RollbackStatement>> RestartedAsync(Reversing r, IReadOnlyList<QualifiedName> tables)
    {
        IReadOnlyList<string> sequences = await r.Catalog!.ListAsync(
            $"""
            select distinct format('%I.%I', n.nspname, s.relname)
            from pg_catalog.pg_depend d
            join pg_catalog.pg_class s on s.oid = d.objid and s.relkind = 'S'
            join pg_catalog.pg_namespace n on n.oid = s.relnamespace
            where d.classid = 'pg_catalog.pg_class'::regclass and d.refclassid = 'pg_catalog.pg_class'::regclass and d.deptype in ('a', 'i') and d.refobjsubid > 0
              and d.refobjid = any (array[{string.Join(", ", tables.Select(t => $"{new ObjectReference(ObjectKind.Table, t).Find().Oid}::oid"))}]::oid[])
            order by 1
            """,
            r.CancellationToken).ConfigureAwait(false);
        List<RollbackStatement> result = [];
        foreach (string sequence in sequences)
        {
            result.AddRange(await PropertyReversal.ReverseAsync(r, ObjectNames.Parse(ObjectKind.Sequence, sequence), [DefinitionProperty.SequencePosition], "It goes back to where the sequence stood when this script was made; move it on where rows have come since.").ConfigureAwait(false));
        }

        return result;
    }

    /// <summary>The tables in which foreign keys delete or change rows when a table's own, or its partitions', are deleted, and so on from there; null where none does.</summary>
    private static async Task<string?> FollowersAsync(Reversing r, QualifiedName table)
    {
        IReadOnlyList<string> followers = await r.Catalog!.ListAsync(
            $"""
            with recursive loses (oid) as (
                select {new ObjectReference(ObjectKind.Table, table).Find().Oid}::oid
                union
                select next.oid
                from loses l
                cross join lateral (
                    select h.inhrelid from pg_catalog.pg_inherits h join pg_catalog.pg_class c on c.oid = h.inhrelid and c.relispartition where h.inhparent = l.oid
                    union all
                    select k.conrelid from pg_catalog.pg_constraint k where k.contype = 'f' and k.confdeltype = 'c' and k.confrelid = l.oid
                ) as next (oid)
            )
            select distinct format('%I.%I', n.nspname, c.relname)
            from loses l
            join pg_catalog.pg_constraint k on k.contype = 'f' and k.confdeltype in ('c', 'n', 'd') and k.confrelid = l.oid
            join pg_catalog.pg_class c on c.oid = case when k.conparentid = 0 then k.conrelid else coalesce(pg_catalog.pg_partition_root(k.conrelid)::oid, k.conrelid) end
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            order by 1
            """,
            r.CancellationToken).ConfigureAwait(false);
        return followers.Count == 0 ? null : string.Join(" and ", followers);
    }

    /// <summary>A part of WITH that a statement reads though it cannot be asked beforehand; null where there is none.</summary>
    private static string? Reads(DataStatement whole, DataStatement writing, bool alone)
    {
        if (alone)
        {
            return null;
        }

        HashSet<string> names = [.. whole.With.Select(w => w.Name)];
        return Parts(writing).SelectMany(Words).FirstOrDefault(names.Contains);
    }

    /// <summary>The parts of a statement that tell which rows it writes.</summary>
    private static SqlFragment[] Parts(DataStatement data) => data switch
    {
        Update u => [u.From ?? default, u.Predicate ?? default],
        Delete d => [d.Using ?? default, d.Predicate ?? default],
        Merge m => [m.Source, m.Predicate, .. m.Actions.Select(a => a.Condition ?? default)],
        _ => [],
    };

    private static IEnumerable<string> Words(SqlFragment part) => part.IsEmpty ? [] : part.Statement.Tokens[part.First..part.End].Select(t => SqlReader.NameOf(part.Statement.Script, t)).OfType<string>();

    /// <summary>Whether a word is something that the script makes or renames, so that it cannot be asked beforehand.</summary>
    private static bool NamesWhatIsMade(Reversing r, SqlFragment part) => Words(part).Any(r.Names.MakesOrRenames);

    private static string SelectRows(IEnumerable<string> columns, string alias, string source) =>
        $"select {string.Join(", ", columns.Select(c => $"{alias}.{SqlName.QuoteIfNeeded(c)}"))} from {source} where ({alias}.tableoid, {alias}.ctid)";

    /// <summary>The rows of a table that a statement finds: each once, however many rows of others match it.</summary>
    private static string Select(IEnumerable<string> columns, string alias, string source, SqlFragment? others, SqlFragment? where)
    {
        string condition = where is { } predicate ? " where " + predicate.Text : "";
        return others is { } from
            ? $"{SelectRows(columns, alias, source)} in (select {alias}.tableoid, {alias}.ctid from {source}, {from.Text}{condition})"
            : $"select {string.Join(", ", columns.Select(c => $"{alias}.{SqlName.QuoteIfNeeded(c)}"))} from {source}{condition}";
    }
}
