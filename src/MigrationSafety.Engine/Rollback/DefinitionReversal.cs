using System.Globalization;
using System.Text.RegularExpressions;
using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>Brings back what a statement drops or replaces, from the definitions that the catalog has before the migration.</summary>
internal static partial class DefinitionReversal
{
    // Kinds whose CREATE has IF NOT EXISTS.
    private static readonly ObjectKind[] s_optional =
    [
        ObjectKind.Table, ObjectKind.ForeignTable, ObjectKind.Sequence, ObjectKind.MaterializedView, ObjectKind.Schema, ObjectKind.Extension, ObjectKind.Statistics, ObjectKind.Collation,
        ObjectKind.Server, ObjectKind.UserMapping,
    ];

    /// <summary>Makes objects again, and all that goes with them.</summary>
    /// <param name="r">The statement that drops them.</param>
    /// <param name="addresses">The objects.</param>
    /// <param name="cascade">Whether what hangs on them goes too.</param>
    internal static async Task<List<RollbackStatement>> RestoreAsync(Reversing r, IReadOnlyCollection<CatalogAddress> addresses, bool cascade)
    {
        IReadOnlyList<ObjectDefinition> all = await r.Catalog!.WithDependentsAsync(addresses, r.CancellationToken).ConfigureAwait(false);

        // What needs CASCADE and did not get it has been dropped before by the script: its own statement brings it back.
        ObjectDefinition[] objects = [.. all.Where(o => (cascade || !o.NeedsCascade) && !r.Names.IsGone(o.Address))];
        foreach (ObjectDefinition o in objects)
        {
            r.Names.Go(o.Address, ObjectNames.Parse(o.Kind, o.Identity).Name.Name);
        }

        if (r.Archive is not null)
        {
            await r.Catalog.KnowAsync([.. objects.Where(o => o.Kind == ObjectKind.Table).Select(o => ObjectNames.Parse(o.Kind, o.Identity).Name)], r.CancellationToken).ConfigureAwait(false);
        }

        HashSet<string> fresh = [.. objects.Where(o => o.Kind.IsRelation() && o.Kind != ObjectKind.Index).Select(o => o.Identity)];
        List<RollbackStatement> result = [];
        List<RollbackStatement> later = [];
        foreach (ObjectDefinition o in objects)
        {
            result.AddRange(Of(r, o, fresh, o.Statements.Where(s => s is { Alone: false, Phase: DefinitionPhase.Object } && !IsDetached(r, o, s))));
        }

        foreach (DefinitionPhase phase in new[] { DefinitionPhase.Links, DefinitionPhase.End })
        {
            foreach (ObjectDefinition o in objects)
            {
                later.AddRange(Of(r, o, fresh, o.Statements.Where(s => !s.Alone && s.Phase == phase && !IsDetached(r, o, s))));
            }
        }

        return [.. result, .. later];
    }

    /// <summary>Puts the definition from before the migration in the place of the one that CREATE OR REPLACE gives.</summary>
    internal static async Task<List<RollbackStatement>> ReplacedAsync(Reversing r, ParsedStatement replacing, ObjectReference now)
    {
        CatalogAddress address = (await r.FindAsync(now).ConfigureAwait(false))!.Value;
        ObjectDefinition? before = await r.Catalog!.ReadAsync(address, r.CancellationToken).ConfigureAwait(false);
        if (before?[DefinitionProperty.Create] is not { } create)
        {
            return [r.Forward.Unknown($"How {now.Kind.Words()} {now.Identity()} was before cannot be read from the catalog: write its reversal by hand.")];
        }

        if (!CanBeReplaced(r, replacing, create.Sql, now))
        {
            IReadOnlyList<ObjectDefinition> all = await r.Catalog.WithDependentsAsync([address], r.CancellationToken).ConfigureAwait(false);
            string[] drops = [.. all.Reverse().Where(o => o.NeedsCascade || o.Address == address).Select(o => NameRewriter.Now($"drop {o.Kind.Words()} if exists {o.Identity}", r.Names))];
            string[] creates = [.. DefinitionReader.InOrder(all).Select(s => NameRewriter.Now(s.Sql, r.Names))];
            return
            [
                r.Forward.By(
                    [.. drops.Concat(creates).Select(sql => (sql, (string?)null))],
                    $"The {now.Kind.Words()} cannot be replaced by what it was: it is dropped and made again in one transaction{(drops.Length > 1 ? ", with all that hangs on it" : "")}."),
            ];
        }

        return
        [
            r.Forward.By(
                [.. before.Statements.Where(s => !s.Alone && s.Property is not (DefinitionProperty.Owner or DefinitionProperty.Privileges)).Select(s => r.Now(s.Property == DefinitionProperty.Create ? Replacing(s.Sql) : s.Sql, now))],
                "As it was before."),
        ];
    }

    /// <summary>CREATE with OR REPLACE.</summary>
    private static string Replacing(string create) => CreateWord().Replace(create, "create or replace ", 1);

    private static bool CanBeReplaced(Reversing r, ParsedStatement replacing, string create, ObjectReference now)
    {
        ParsedStatement before = StatementParser.Parse(SqlScript.Parse(create, psql: false).Statements[0]);
        return (replacing, before) switch
        {
            // A default cannot be taken from an argument.
            (CreateRoutine now_, CreateRoutine old) => now_.Arguments.Count(a => a.Default is not null) <= old.Arguments.Count(a => a.Default is not null),

            // OR REPLACE may add columns at the end, and cannot take them away.
            (CreateView view, CreateView) => SelectList.Count(view.Query) is { } columns && columns == (r.Before(now) is { Name.Schema: { } schema } name ? r.Names.Catalog!.Find(schema, name.Name.Name)?.Columns.Count : null),
            (CreateTrigger { Constraint: false }, CreateTrigger { Constraint: false }) or (CreateRule, CreateRule) => true,
            (CreateTransform or CreateLanguage or Define, _) => true,
            _ => false,
        };
    }

    private static List<RollbackStatement> Of(Reversing r, ObjectDefinition o, HashSet<string> fresh, IEnumerable<DefinitionStatement> statements)
    {
        DefinitionStatement[] all = [.. statements];
        if (all.Length == 0)
        {
            return [];
        }

        ObjectReference reference = ObjectNames.Parse(o.Kind, o.Identity);
        if (Waits(r, o, all))
        {
            r.Names.Waiting.Add(o.Identity);
            r.Names.AtTheEnd.Add(r.Forward.By(
                [.. all.SelectMany(s => s == o[DefinitionProperty.Create] ? [Create(reference, s.Sql, (sql, condition) => (sql, condition))] : Repeatable(s).Select(sql => (sql, Linked(sql))))],
                "It comes when all columns that it names have their names back."));
            return [];
        }

        (string Sql, string? Condition) Now(string sql, string? condition = null) => r.Now(sql, reference, condition);
        bool onFresh = o.Relation is { } relation && fresh.Contains(relation);
        if (o.Kind == ObjectKind.Index && !onFresh)
        {
            return [.. IndexAgain(r, all, reference)];
        }

        if (o.Kind == ObjectKind.Constraint && !onFresh)
        {
            return [.. ConstraintAgain.Of(r, reference, all, fresh)];
        }

        if (o.Kind == ObjectKind.Column && all.Any(s => s.Property == DefinitionProperty.Create))
        {
            return ColumnAgain.Of(r, reference, all);
        }

        (string, string?)[] parts = [.. all.SelectMany(s => s.Property == DefinitionProperty.Create && s == o[DefinitionProperty.Create] ? [Create(reference, s.Sql, Now)] : Repeatable(s).Select(sql => Now(sql, Linked(sql))))];
        bool rows = o.Kind == ObjectKind.Table && all.Any(s => s.Property == DefinitionProperty.Create);
        RollbackStatement made = r.Forward.By(parts, Loss(o, rows), rows) with { EstimatedRows = rows ? o.EstimatedRows : null };
        if (!rows || r.Archive is not { } archive || r.Names.Catalog?.Find(reference.Name.Schema ?? "", reference.Name.Name) is not { Kind: 'r' or 'p' } table)
        {
            return [made];
        }

        // The rows of a partitioned table are in its partitions, which go with it and are kept each for itself.
        RollbackStatement empty = made with { Reversibility = Reversibility.Reversible, Note = null, EstimatedRows = null };
        return table.Kind == 'p' ? [empty]
            : [empty, DataArchive.Rows(r, archive.Keep(r, reference.Name, "", $"select * from only {reference.Name}"), NowOf(r, reference.Name), table, true, "The rows as they were kept.")];
    }

    /// <summary>Whether a statement attaches a partition that the script has detached before: that statement's own way back attaches it.</summary>
    private static bool IsDetached(Reversing r, ObjectDefinition o, DefinitionStatement s) => s.Property == DefinitionProperty.Partition && o.Kind == ObjectKind.Table && r.Names.Detached.Contains(o.Identity);

    /// <summary>Whether a query in a definition names a column that has another name now, or what waits for such a one.</summary>
    private static bool Waits(Reversing r, ObjectDefinition o, DefinitionStatement[] statements)
    {
        string text = string.Join('\n', statements.Select(s => s.Sql));
        bool query = o.Kind is ObjectKind.View or ObjectKind.MaterializedView or ObjectKind.Rule || (o.Kind.IsRoutine() && text.Contains("BEGIN ATOMIC", StringComparison.OrdinalIgnoreCase));
        return (query && r.Names.RenamedColumns.Any(c => text.Contains(c.Table.ToString(), StringComparison.Ordinal) && SqlLexer.Tokens(text, psql: false).Exists(t => SqlReader.NameOf(text, t) == c.Column)))
            || r.Names.Waiting.Any(w => o.Relation == w || o.Identity == w || Regex.IsMatch(text, $@"(?<![\w$"".]){Regex.Escape(w)}(?![\w$""])"));
    }

    /// <summary>The name that a table has at this statement.</summary>
    private static QualifiedName NowOf(Reversing r, QualifiedName table) => r.Names.Renamed.FirstOrDefault(o => o.Before == table && o.Kind.IsRelation())?.Name ?? table;

    private static string? Loss(ObjectDefinition o, bool rows) => o.Kind switch
    {
        ObjectKind.Table when rows => $"The table comes back empty: its rows{About(o)} are lost.",
        ObjectKind.MaterializedView => "It is filled again from its query.",
        _ => null,
    };

    private static string About(ObjectDefinition o) => o.EstimatedRows is { } rows ? string.Create(CultureInfo.InvariantCulture, $" (about {rows})") : "";

    /// <summary>A statement that can be run twice: a mapping of text search is taken away before it is added.</summary>
    private static IEnumerable<string> Repeatable(DefinitionStatement statement)
    {
        if (StatementParser.Parse(SqlScript.Parse(statement.Sql, psql: false).Statements[0]) is AlterTextSearchConfiguration { Action: "add" } add)
        {
            SqlReader mapping = add.Mapping.Read();
            mapping.Take("for");
            yield return $"alter text search configuration {add.Name} drop mapping if exists for {string.Join(", ", mapping.List(r => SqlName.QuoteIfNeeded(r.Name())))}";
        }

        yield return statement.Sql;
    }

    /// <summary>A condition for what cannot be said twice.</summary>
    private static string? Linked(string sql) => StatementParser.Parse(SqlScript.Parse(sql, psql: false).Statements[0]) switch
        {
            AlterTable { Kind: not ObjectKind.Index, Actions: [AttachPartition attach] } alter => $"not {PartitionReversal.Linked(attach.Partition, alter.Table)}",
            AlterPublication { Action: "add", Objects: [{ Table: { } table }] } alter =>
                $"not exists (select from pg_catalog.pg_publication_rel where prpubid = (select oid from pg_catalog.pg_publication where pubname = {SqlName.Literal(alter.Name)}) and prrelid = to_regclass({SqlName.Literal(table.ToString())}))",
            AlterPublication { Action: "add", Objects: [{ Schema: { } schema }] } alter =>
                $"not exists (select from pg_catalog.pg_publication_namespace where pnpubid = (select oid from pg_catalog.pg_publication where pubname = {SqlName.Literal(alter.Name)}) and pnnspid = to_regnamespace({SqlName.Literal(SqlName.QuoteIfNeeded(schema))}))",
            AlterOperatorFamily { Add: true } alter => $"not {OtherReversal.HasItem(alter.Family, alter.Items[0])}",
            AlterTable { Actions: [SetInherit { Inherit: true } inherit] } alter => $"not {PartitionReversal.Linked(alter.Table, inherit.Parent)}",
            _ => null,
        };

    /// <summary>CREATE, repeatable: with IF NOT EXISTS where there is one, else with a condition.</summary>
    private static (string Sql, string? Condition) Create(ObjectReference o, string sql, Func<string, string?, (string Sql, string? Condition)> now)
    {
        if (Array.IndexOf(s_optional, o.Kind) >= 0)
        {
            Match match = CreateHead().Match(sql);
            if (match.Success)
            {
                return now(match.Groups["exists"].Success ? sql : sql.Insert(match.Length, "if not exists "), null);
            }
        }

        return now(sql, sql.StartsWith("create or replace ", StringComparison.OrdinalIgnoreCase) ? null : o.Missing());
    }

    private static IEnumerable<RollbackStatement> IndexAgain(Reversing r, DefinitionStatement[] all, ObjectReference index)
    {
        foreach (DefinitionStatement statement in all)
        {
            (string sql, string? condition) = r.Now(statement.Sql, index);
            if (statement.Property != DefinitionProperty.Create)
            {
                yield return r.Forward.By(sql, condition: condition);
                continue;
            }

            // CONCURRENTLY cannot stand behind a condition: where the table has another name now, the index comes when all names are back.
            bool partitioned = IndexOnly().IsMatch(sql);
            string build = IndexHead().Replace(condition is null ? sql : statement.Sql, m => $"create {(m.Groups["unique"].Success ? "unique " : "")}index {(partitioned ? "" : "concurrently ")}if not exists ", 1);
            RollbackStatement again = r.Forward.By(build, partitioned ? null : "It is built again while reads and writes go on.");
            if (condition is null)
            {
                yield return again;
            }
            else
            {
                r.Names.AtTheEnd.Add(again);
            }
        }
    }

    [GeneratedRegex(@"^\s*create\s+(or\s+replace\s+)?", RegexOptions.IgnoreCase)]
    private static partial Regex CreateWord();

    [GeneratedRegex(@"^\s*create\s+(unlogged\s+)?(foreign\s+table|table|sequence|materialized\s+view|schema|extension|statistics|collation|server|user\s+mapping)\s+(?<exists>if\s+not\s+exists\s+)?", RegexOptions.IgnoreCase)]
    private static partial Regex CreateHead();

    [GeneratedRegex(@"^\s*create\s+(?<unique>unique\s+)?index\s+", RegexOptions.IgnoreCase)]
    private static partial Regex IndexHead();

    [GeneratedRegex(@"^\s*create\s+(unique\s+)?index\s+\S+\s+on\s+only\s", RegexOptions.IgnoreCase)]
    private static partial Regex IndexOnly();
}
