using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes ALTER COLUMN ... TYPE back.</summary>
internal static class ColumnTypeReversal
{
    // Every value of the type comes through the other one unharmed.
    private static readonly (string From, string[] To)[] s_lossless =
    [
        ("int2", ["int4", "int8", "numeric", "float4", "float8", "text", "varchar"]),
        ("int4", ["int8", "numeric", "float8", "text", "varchar"]),
        ("int8", ["numeric", "text", "varchar"]),
        ("float4", ["float8"]),
        ("numeric", ["text", "varchar"]),
        ("varchar", ["text"]),
        ("text", ["varchar"]),
        ("bpchar", ["text", "varchar"]),
        ("name", ["text", "varchar"]),
        ("uuid", ["text", "varchar"]),
        ("bool", ["text", "varchar"]),
        ("json", ["text", "varchar"]),
        ("date", ["timestamp", "text"]),
        ("cidr", ["inet"]),
    ];

    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, AlterTable alter, ScriptObject table, ObjectReference column, AlterColumnType change)
    {
        string name = SqlName.QuoteIfNeeded(change.Column);
        if (r.Made(column) || table.Made)
        {
            return [r.Forward.NotNeeded($"It goes with {column.Identity()}, which this script makes.")];
        }

        if (r.Catalog is not { } catalog)
        {
            return [r.Forward.Unknown($"Which type {name} had before is not in the text. {ForwardStatement.Connect}")];
        }

        if (await r.FindAsync(column).ConfigureAwait(false) is not { } address
            || await catalog.TypeAsync(address, r.CancellationToken).ConfigureAwait(false) is not { } old
            || Parsed($"alter table x alter column y type {old.Text}") is not AlterTable { Actions: [AlterColumnType before] })
        {
            return [r.Forward.Unknown($"There is no column {column.Identity()} in {catalog.Facts.Database} now, so that its type cannot be told.")];
        }

        ObjectDefinition? definition = await catalog.ReadAsync(address, r.CancellationToken).ConfigureAwait(false);
        string collation = old.Collation is { } sorted ? $" collate {NameRewriter.Now(sorted, r.Names)}" : "";
        string text = NameRewriter.Now(old.Text, r.Names);

        // Where the type is the old one a run before this one has done it, and the change would rewrite the table for nothing.
        string changed = $"exists (select from pg_catalog.pg_attribute where attrelid = to_regclass({SqlName.Literal(column.On!.ToString())}) and attname = {SqlName.Literal(change.Column)} and not attisdropped and (atttypid <> to_regtype({SqlName.Literal(NameRewriter.Now(old.Name, r.Names))}) or atttypmod <> {old.Modifier.ToString(System.Globalization.CultureInfo.InvariantCulture)} or attcollation <> {(old.AttributeCollation is { } own ? $"to_regcollation({SqlName.Literal(own)})" : "0")}))";
        if (alter.Kind == ObjectKind.Type)
        {
            return [r.Forward.By($"alter type {column.On} alter attribute {name} type {text}{collation}{(change.Cascade ? " cascade" : "")}", condition: changed)];
        }

        List<string> actions = [];
        DefinitionStatement? standard = definition?.Statements.FirstOrDefault(s => s.Property == DefinitionProperty.Default && s.Sql.Contains("set default", StringComparison.OrdinalIgnoreCase));
        if (standard is not null)
        {
            actions.Add($"alter column {name} drop default");
        }

        actions.Add($"alter column {name} type {text}{collation}{(alter.Kind == ObjectKind.ForeignTable ? "" : $" using {name}::{text}")}");
        if (standard is not null && Parsed(NameRewriter.Now(standard.Sql, r.Names, column)) is AlterTable { Actions: [SetDefault { Expression: { } expression }] })
        {
            actions.Add($"alter column {name} set default {expression.Text}");
        }

        // A change of type gives the column the storage and compression of the new type.
        (string, string?)[] kept = [.. definition?.Statements.Where(s => !s.Alone && s.Property is (DefinitionProperty.Storage or DefinitionProperty.Compression)).Select(s => r.Now(s.Sql, column)) ?? []];
        bool computed = change.Using is { } how && !IsPlainCast(how, change);
        bool labels = change.Type is { Name.Name: "text" or "varchar", Modifiers: "", ArrayDimensions: 0 }
            && await catalog.ScalarAsync($"select 'x' from pg_catalog.pg_type where oid = to_regtype({SqlName.Literal(old.Name)}) and typtype = 'e'", r.CancellationToken).ConfigureAwait(false) is not null;
        bool lossy = computed || !(labels || IsLossless(before.Type, change.Type));
        string note = (computed ? $"The migration computes the values (USING {RollbackText.OneLine(change.Using!.Value.Text, 80)}): this only casts them and does not compute them back. Write the inverse into its USING, or keep the values with -PreserveData. " : lossy ? $"Values that the change to {change.Type} cut, rounded or rewrote do not come back. " : "")
            + "The table may be rewritten under this lock, and it fails where a value does not fit the old type.";
        RollbackStatement back = r.Forward.By([($"alter {alter.Kind.Words()} {(alter.Only ? "only " : "")}{column.On} {string.Join(", ", actions)}", changed), .. kept], note, lossy);
        List<RollbackStatement> checks = before.Type.Name == change.Type.Name ? [] : await ChecksAsync(r, catalog, table, column, address).ConfigureAwait(false);
        CatalogRelation? relation = r.Names.Existing(column.On!, r.Forward.Path).Relation;
        string? notKept = r.Archive is null || !lossy ? null
            : relation is null ? "its table is not to be found under this name"
            : relation.NoKey ?? (relation.Key.Contains(change.Column) ? "it is part of the key by which a row would be found again" : r.Before(column) != column ? "the migration gives it or its table another name before" : null);
        if (!lossy || r.Archive is not { } archive || notKept is not null)
        {
            return [back with { EstimatedRows = lossy && relation is { Rows: >= 0 } ? (long)relation.Rows : null, Note = notKept is null ? back.Note : $"{back.Note} The values are not kept: {column.Identity()}: {notKept}." }, .. checks];
        }

        string columns = string.Join(", ", relation!.Key.Append(change.Column).Select(SqlName.QuoteIfNeeded));
        return
        [
            back with { Note = computed ? "The type comes back, and its values by the next statement. The table may be rewritten under this lock." : back.Note },
            .. checks,
            DataArchive.Values(r, archive.Keep(r, column.On!, change.Column, $"select {columns} from {relation.Source}"), column.On!, relation, relation.Key.Select(k => (k, k)), [(change.Column, change.Column)], false, "The values from before; what has been written there since is lost."),
        ];
    }

    /// <summary>The checks on the column, made again where the changes of type have put casts into them.</summary>
    private static async Task<List<RollbackStatement>> ChecksAsync(Reversing r, RollbackCatalog catalog, ScriptObject table, ObjectReference column, CatalogAddress address)
    {
        IReadOnlyDictionary<string, string> checks = await catalog.PairsAsync(
            $"""
            set local search_path to pg_catalog;
            select conname::text, pg_get_constraintdef(oid) from pg_constraint
            where conrelid = {address.ObjectId} and contype = 'c' and conislocal and {address.SubId} = any (conkey) and pg_get_constraintdef(oid) not like '% NOT VALID'
            order by 1
            """,
            r.CancellationToken).ConfigureAwait(false);
        List<RollbackStatement> result = [];
        foreach ((string name, string text) in checks.Where(c => !table.Gone.Contains((ObjectKind.Constraint, c.Key))))
        {
            string definition = NameRewriter.Now(text, r.Names, column);
            string quoted = SqlName.QuoteIfNeeded(name);

            // Where the column has another name now, a second run finds it under its old one.
            string named = r.Before(column) == column ? "" : $"{column.Exists()} and ";
            string constraint = $"{named}exists (select from pg_catalog.pg_constraint where conrelid = to_regclass({SqlName.Literal(column.On!.ToString())}) and conname = {SqlName.Literal(name)} and ";
            result.Add(r.Forward.By(
                $"alter table {column.On} drop constraint {quoted}, add constraint {quoted} {DeparsedText.Repeatable(definition)} not valid",
                "The change of type has put casts into this check. Rows that are there are checked by the next statement, while reads and writes go on.",
                condition: $"{constraint}pg_get_constraintdef(oid) not in ({SqlName.Literal(definition)}, {SqlName.Literal(definition + " NOT VALID")}))"));
            result.Add(r.Forward.By($"alter table {column.On} validate constraint {quoted}", condition: $"{constraint}not convalidated)"));
        }

        return result;
    }

    /// <summary>Whether a change of type keeps every value.</summary>
    internal static bool IsLossless(TypeName before, TypeName after)
    {
        if (before.ArrayDimensions > 0 != after.ArrayDimensions > 0)
        {
            return false;
        }

        (string from, string to) = (before.Name.Name, after.Name.Name);
        if (from == to && (before.Name == after.Name || before.Name.Schema is null or "pg_catalog"))
        {
            return Wider(before, after);
        }

        return after.Modifiers.Length == 0 && Array.Exists(s_lossless, l => l.From == from && Array.IndexOf(l.To, to) >= 0);
    }

    private static ParsedStatement Parsed(string sql) => StatementParser.Parse(SqlScript.Parse(sql, psql: false).Statements[0]);

    private static bool IsPlainCast(SqlFragment how, AlterColumnType change)
    {
        SqlReader r = how.Read();
        return r.TakeName() == change.Column && r.TakeMark("::") && TypeName.Read(r).Name == change.Type.Name && r.AtEnd;
    }

    /// <summary>Whether the modifiers of the same type take all that those before took.</summary>
    private static bool Wider(TypeName before, TypeName after)
    {
        if (after.Modifiers == before.Modifiers || after.Modifiers.Length == 0)
        {
            return true;
        }

        int[] old = Numbers(before.Modifiers);
        int[] now = Numbers(after.Modifiers);
        return before.Modifiers.Length > 0 && old.Length > 0 && now.Length > 0 && after.Name.Name switch
        {
            "numeric" => Scale(now) >= Scale(old) && now[0] - Scale(now) >= old[0] - Scale(old),
            _ => old.Length == now.Length && now.Zip(old).All(p => p.First >= p.Second),
        };
    }

    private static int Scale(int[] numeric) => numeric.Length > 1 ? numeric[1] : 0;

    private static int[] Numbers(string modifiers) =>
        [.. modifiers.Split(['(', ')', ',', ' '], StringSplitOptions.RemoveEmptyEntries).Where(n => int.TryParse(n, out _)).Select(n => int.Parse(n, System.Globalization.CultureInfo.InvariantCulture))];
}
