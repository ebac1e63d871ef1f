using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes ALTER of the rarer objects back.</summary>
internal static class OtherReversal
{
    /// <summary>The reversal; null where the statement is none of this family.</summary>
    internal static async Task<List<RollbackStatement>?> TryReverseAsync(Reversing r, ParsedStatement parsed)
    {
        switch (parsed)
        {
            case SetOwner s:
                return await OfAsync(r, s.Object, DefinitionProperty.Owner).ConfigureAwait(false);
            case CommentOn s:
                return await CommentReversal.ReverseAsync(r, s).ConfigureAwait(false);
            case SecurityLabel s:
                return await CommentReversal.ReverseAsync(r, s).ConfigureAwait(false);
            case SetExtensionDependency s:
                return r.Resolve(s.Object) is not { } dependent ? [r.SchemaUnknown(s.Object.Target)]
                    : [r.Forward.By($"alter {dependent.Kind.Words()} {dependent.Identity()} {(s.Depends ? "no " : "")}depends on extension {SqlName.QuoteIfNeeded(s.Extension)}", condition: dependent.Exists())];
            case AlterSequence s:
                return await SequenceAsync(r, s).ConfigureAwait(false);
            case AlterRoutine s:
                return await AgainAsync(r, s.Routine).ConfigureAwait(false);
            case AlterPolicy s:
                return await AgainAsync(r, new ObjectReference(ObjectKind.Policy, new QualifiedName(null, s.Name), null, s.Table)).ConfigureAwait(false);
            case AlterStatistics s:
                return await OfAsync(r, new ObjectReference(ObjectKind.Statistics, s.Name), DefinitionProperty.Statistics).ConfigureAwait(false);
            case AlterEventTrigger s:
                return await OfAsync(r, Plain(ObjectKind.EventTrigger, s.Name), DefinitionProperty.Enabled).ConfigureAwait(false);
            case AlterServer s:
                return s.Version is not null ? await OptionsAsync(r, Plain(ObjectKind.Server, s.Name)).ConfigureAwait(false)
                    : await OptionReversal.ForeignAsync(r, Plain(ObjectKind.Server, s.Name), s.Options, $"alter server {SqlName.QuoteIfNeeded(s.Name)}").ConfigureAwait(false);
            case AlterForeignDataWrapper s:
                return !s.Functions.IsEmpty ? await OptionsAsync(r, Plain(ObjectKind.ForeignDataWrapper, s.Name)).ConfigureAwait(false)
                    : await OptionReversal.ForeignAsync(r, Plain(ObjectKind.ForeignDataWrapper, s.Name), s.Options, $"alter foreign data wrapper {SqlName.QuoteIfNeeded(s.Name)}").ConfigureAwait(false);
            case UserMapping { Create: false } s:
                return await OptionReversal.ForeignAsync(r, s.Mapping, s.Options, $"alter user mapping {s.Mapping.Identity()}").ConfigureAwait(false);
            case AlterPublication s:
                return await AgainAsync(r, Plain(ObjectKind.Publication, s.Name)).ConfigureAwait(false);
            case AlterSubscription { Action: "enable" or "disable" } s:
                return await OfAsync(r, Plain(ObjectKind.Subscription, s.Name), DefinitionProperty.Enabled).ConfigureAwait(false);
            case AlterSubscription { Action: "refresh" }:
                return [r.Forward.Irreversible("Tables that it began to copy keep their rows, and take what the publisher sends.")];
            case AlterSubscription s:
                return await OptionsAsync(r, Plain(ObjectKind.Subscription, s.Name)).ConfigureAwait(false);
            case AlterTextSearchDictionary s:
                return await AgainAsync(r, new ObjectReference(ObjectKind.TextSearchDictionary, s.Name)).ConfigureAwait(false);
            case AlterTextSearchConfiguration s:
                return await TextSearchReversal.ReverseAsync(r, s).ConfigureAwait(false);
            case AlterOperator s:
                return await OperatorAsync(r, s).ConfigureAwait(false);
            case AlterOperatorFamily s:
                return await FamilyAsync(r, s).ConfigureAwait(false);
            case AlterBaseType s:
                return await OfAsync(r, new ObjectReference(ObjectKind.Type, s.Type), DefinitionProperty.Options).ConfigureAwait(false);
            case UpdateExtension s:
                return await UpdatedAsync(r, s).ConfigureAwait(false);
            case AlterExtensionMember s:
                return r.Resolve(s.Member) is not { } member ? [r.SchemaUnknown(s.Member.Target)]
                    : [r.Forward.By($"alter extension {SqlName.QuoteIfNeeded(s.Name)} {(s.Add ? "drop" : "add")} {member.Kind.Words()} {member.Identity()}", condition: MemberCondition(s, member))];
            case RefreshMaterializedView s:
                return await RefreshedAsync(r, s).ConfigureAwait(false);
            case Cluster { Table: { } table, Index: not null }:
                return await OfAsync(r, new ObjectReference(ObjectKind.Table, table), DefinitionProperty.Cluster).ConfigureAwait(false);
            case Cluster:
                return [r.Forward.NotNeeded("The order of rows on disk needs no way back.")];
            case Reindex:
                return [r.Forward.NotNeeded("An index that is built again is the same.")];
            case RefreshCollationVersion:
                return [r.Forward.NotNeeded("It notes which version of the library sorts; the note before would only bring the warning back.")];
            case ImportForeignSchema s:
                return await ImportedAsync(r, s).ConfigureAwait(false);
            case ReassignOwned s:
                return await ReassignedAsync(r, s).ConfigureAwait(false);
            case MoveAllInTablespace s:
                return await MovedAsync(r, s).ConfigureAwait(false);
            case DropOwned s:
                return [r.Forward.Irreversible($"All that {string.Join(", ", s.Roles)} own in this database goes, rows included, and every privilege granted to them.")];
            default:
                return null;
        }
    }

    private static ObjectReference Plain(ObjectKind kind, string name) => new(kind, new QualifiedName(null, name));

    private static async Task<List<RollbackStatement>> OfAsync(Reversing r, ObjectReference o, params DefinitionProperty[] properties) =>
        r.Resolve(o) is { } now ? await PropertyReversal.ReverseAsync(r, now, properties).ConfigureAwait(false) : [r.SchemaUnknown(o.Target)];

    private static Task<List<RollbackStatement>> OptionsAsync(Reversing r, ObjectReference o) => OfAsync(r, o, DefinitionProperty.Options);

    /// <summary>The whole definition as it was, in the place of what is there.</summary>
    private static async Task<List<RollbackStatement>> AgainAsync(Reversing r, ObjectReference o)
    {
        if (r.Resolve(o) is not { } now)
        {
            return [r.SchemaUnknown(o.Target)];
        }

        if (r.Made(now) || r.Catalog is not { } catalog || await r.FindAsync(now).ConfigureAwait(false) is not { } address)
        {
            return await PropertyReversal.ReverseAsync(r, now, []).ConfigureAwait(false);
        }

        ObjectDefinition? before = await catalog.ReadAsync(address, r.CancellationToken).ConfigureAwait(false);
        if (before?[DefinitionProperty.Create] is not { } create)
        {
            return await PropertyReversal.ReverseAsync(r, now, []).ConfigureAwait(false);
        }

        string sql = NameRewriter.Now(create.Sql, r.Names, now);
        if (now.Kind.IsRoutine() && sql.StartsWith("create or replace", StringComparison.OrdinalIgnoreCase))
        {
            return [r.Forward.By(sql, "As it was before.", condition: r.IfMoved(now))];
        }

        // What a publication publishes goes with it.
        IReadOnlyList<ObjectDefinition> all = now.Kind == ObjectKind.Publication ? await catalog.WithDependentsAsync([address], r.CancellationToken).ConfigureAwait(false) : [before];
        (string, string?)[] again = [(now.Drop(), r.IfMoved(now)), .. DefinitionReader.InOrder(all).Select(s => (NameRewriter.Now(s.Sql, r.Names, now), r.IfMoved(now)))];
        return [r.Forward.By(again, "It is dropped and made as it was, in one transaction.")];
    }

    private static async Task<List<RollbackStatement>> SequenceAsync(Reversing r, AlterSequence alter)
    {
        List<DefinitionProperty> properties = [];
        foreach (SequenceOption option in alter.Options)
        {
            DefinitionProperty property = option.Name switch { "owned by" => DefinitionProperty.OwnedBy, "restart" => DefinitionProperty.SequencePosition, _ => DefinitionProperty.Options };
            if (!properties.Contains(property))
            {
                properties.Add(property);
            }
        }

        ObjectReference sequence = new(ObjectKind.Sequence, alter.Sequence);
        if (r.Resolve(sequence) is not { } now)
        {
            return [r.SchemaUnknown(alter.Sequence)];
        }

        return await PropertyReversal.ReverseAsync(r, now, properties, properties.Contains(DefinitionProperty.SequencePosition) ? "It goes back to where the sequence stood when this script was made; move it on where rows have come since." : null).ConfigureAwait(false);
    }

    private static async Task<List<RollbackStatement>> OperatorAsync(Reversing r, AlterOperator alter)
    {
        if (r.Resolve(alter.Operator) is not { } now)
        {
            return [r.SchemaUnknown(alter.Operator.Name)];
        }

        if (r.Made(now) || r.Catalog is not { } catalog || await r.FindAsync(now).ConfigureAwait(false) is not { } address)
        {
            return await PropertyReversal.ReverseAsync(r, now, []).ConfigureAwait(false);
        }

        string? before = await catalog.ScalarAsync(
            $"select format('restrict = %s, join = %s', coalesce(nullif(oprrest, 0::regproc)::text, 'none'), coalesce(nullif(oprjoin, 0::regproc)::text, 'none')) from pg_catalog.pg_operator where oid = {address.ObjectId}",
            r.CancellationToken).ConfigureAwait(false);
        return alter.Options.All(o => o.Name is "restrict" or "join")
            ? [r.Forward.By($"alter operator {now.Identity()} set ({before})", condition: r.IfMoved(now))]
            : [r.Forward.Irreversible("What an operator has been told of its commutator, its negator, MERGES and HASHES cannot be taken back without making it anew.")];
    }

    private static async Task<List<RollbackStatement>> FamilyAsync(Reversing r, AlterOperatorFamily alter)
    {
        if (r.Resolve(alter.Family) is not { } now)
        {
            return [r.SchemaUnknown(alter.Family.Name)];
        }

        if (alter.Add)
        {
            return [.. alter.Items.Reverse().Select(item => r.Forward.By($"alter operator family {now.Identity()} drop {DropItem(item)}", condition: HasItem(now, item)))];
        }

        if (r.Made(now) || r.Catalog is not { } catalog || await r.FindAsync(now).ConfigureAwait(false) is not { } address)
        {
            return await PropertyReversal.ReverseAsync(r, now, []).ConfigureAwait(false);
        }

        List<RollbackStatement> result = [];
        foreach (SqlFragment item in alter.Items.Reverse())
        {
            (bool op, string number, string left, string right) = Member(item);
            string query = op
                ? $"""
                  select format('operator %s %I.%s (%s, %s)%s', amopstrategy, n.nspname, o.oprname, format_type(oprleft, null), format_type(oprright, null),
                                case when amoppurpose = 'o' then format(' for order by %I.%I', fn.nspname, f.opfname) else '' end)
                  from pg_catalog.pg_amop a join pg_catalog.pg_operator o on o.oid = amopopr join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
                  left join pg_catalog.pg_opfamily f on f.oid = amopsortfamily left join pg_catalog.pg_namespace fn on fn.oid = f.opfnamespace
                  where amopfamily = {address.ObjectId} and amopstrategy = {number} and amoplefttype = {left} and amoprighttype = {right}
                  """
                : $"""
                  select format('function %s (%s, %s) %s', amprocnum, format_type(amproclefttype, null), format_type(amprocrighttype, null), amproc::regprocedure)
                  from pg_catalog.pg_amproc
                  where amprocfamily = {address.ObjectId} and amprocnum = {number} and amproclefttype = {left} and amprocrighttype = {right}
                  """;
            string? before = await catalog.ScalarAsync($"set local search_path to pg_catalog; {query}", r.CancellationToken).ConfigureAwait(false);
            result.Add(before is null ? r.Forward.Unknown($"The operator family {now.Name} has no such member in {catalog.Facts.Database} now.")
                : r.Forward.By($"alter operator family {now.Identity()} add {NameRewriter.Now(before, r.Names)}", condition: $"{now.Exists()} and not {HasItem(now, item)}"));
        }

        return result;
    }

    /// <summary>OPERATOR 1 &lt; (int4, int8) is dropped as OPERATOR 1 (int4, int8); FUNCTION 1 (int4, int8) f(int4, int8) as FUNCTION 1 (int4, int8).</summary>
    private static string DropItem(SqlFragment item)
    {
        SqlReader r = item.Read();
        string kind = r.OneOf("operator", "function");
        string number = r.Number();
        while (!r.AtEnd && !r.SeesMark("("))
        {
            r.Skip();
        }

        return $"{kind} {number} ({r.Parenthesized().Text})";
    }

    /// <summary>That the family has an operator or function of that number for these types.</summary>
    internal static string HasItem(ObjectReference family, SqlFragment item)
    {
        (bool op, string number, string left, string right) = Member(item);
        return op
            ? $"exists (select from pg_catalog.pg_amop where amopfamily = {family.Find().Oid} and amopstrategy = {number} and amoplefttype = {left} and amoprighttype = {right})"
            : $"exists (select from pg_catalog.pg_amproc where amprocfamily = {family.Find().Oid} and amprocnum = {number} and amproclefttype = {left} and amprocrighttype = {right})";
    }

    /// <summary>Whether an item is an operator, its number, and its two types as SQL.</summary>
    private static (bool Operator, string Number, string Left, string Right) Member(SqlFragment item)
    {
        SqlReader r = item.Read();
        bool op = r.OneOf("operator", "function") == "operator";
        string number = r.Number();
        while (!r.AtEnd && !r.SeesMark("("))
        {
            r.Skip();
        }

        string[] types = [.. r.Parenthesized().Read().SplitAtCommas().Select(t => $"to_regtype({SqlName.Literal(t.Rest())})")];
        return (op, number, types[0], types[^1]);
    }

    private static string MemberCondition(AlterExtensionMember s, ObjectReference member)
    {
        (string catalog, string oid, _) = member.Find();
        string there = $"exists (select from pg_catalog.pg_depend where classid = 'pg_catalog.{catalog}'::regclass and objid = {oid} and deptype = 'e')";
        return s.Add ? there : $"{member.Exists()} and not {there}";
    }

    private static async Task<List<RollbackStatement>> UpdatedAsync(Reversing r, UpdateExtension update)
    {
        string name = SqlName.Literal(update.Name);
        if (r.Catalog is not { } catalog)
        {
            return [r.Forward.Unknown($"Which version {update.Name} had is not in the text. {ForwardStatement.Connect}")];
        }

        string? version = await catalog.ScalarAsync($"select extversion from pg_catalog.pg_extension where extname = {name}", r.CancellationToken).ConfigureAwait(false);
        string target = update.Version is { } given ? SqlName.Literal(given.Trim('\'')) : $"(select default_version from pg_catalog.pg_available_extensions where name = {name})";
        string? path = version is null ? null
            : await catalog.ScalarAsync($"select path from pg_catalog.pg_extension_update_paths({name}) where source = {target} and target = {SqlName.Literal(version)} and path is not null", r.CancellationToken).ConfigureAwait(false);
        string? same = version is null ? null : await catalog.ScalarAsync($"select 'x' where {target} = {SqlName.Literal(version)}", r.CancellationToken).ConfigureAwait(false);
        return version is null ? [r.Forward.Unknown($"There is no extension {update.Name} in {catalog.Facts.Database} now.")]
            : same is not null ? [r.Forward.NotNeeded($"{update.Name} has that version before.")]
            : path is not null ? [r.Forward.By($"alter extension {SqlName.QuoteIfNeeded(update.Name)} update to {SqlName.Literal(version)}")]
            : [r.Forward.Irreversible($"The extension has no script that leads back to version {version}.")];
    }

    private static async Task<List<RollbackStatement>> RefreshedAsync(Reversing r, RefreshMaterializedView refresh)
    {
        if (r.Resolve(new ObjectReference(ObjectKind.MaterializedView, refresh.View)) is not { } view)
        {
            return [r.SchemaUnknown(refresh.View)];
        }

        if (r.Catalog is not { } catalog || r.Made(view) || await r.FindAsync(view).ConfigureAwait(false) is not { } address)
        {
            return refresh.WithData
                ? [r.Forward.NotNeeded("What is in a materialized view is derived from its tables.")]
                : [r.Forward.Unknown($"Whether {view.Name} held rows before is not in the text. {ForwardStatement.Connect}", $"refresh materialized view {view.Name}")];
        }

        bool populated = await catalog.ScalarAsync($"select 'x' from pg_catalog.pg_class where oid = {address.ObjectId} and relispopulated", r.CancellationToken).ConfigureAwait(false) is not null;
        return populated == refresh.WithData ? [r.Forward.NotNeeded("What is in a materialized view is derived from its tables.")]
            : [r.Forward.By($"refresh materialized view {view.Name}{(populated ? "" : " with no data")}", populated ? "It is filled again from its query, under this lock." : null, condition: view.Exists())];
    }

    private static async Task<List<RollbackStatement>> ImportedAsync(Reversing r, ImportForeignSchema import)
    {
        if (import.Only == true)
        {
            return
            [
                .. import.Tables.Reverse().Select(t =>
                {
                    ObjectReference table = new(ObjectKind.ForeignTable, new QualifiedName(import.LocalSchema, t.Name));
                    r.Make(table);
                    return r.Forward.By(table.Drop());
                }),
            ];
        }

        if (r.Catalog is not { } catalog)
        {
            return [r.Forward.Unknown($"Which foreign tables it makes only the other server knows. {ForwardStatement.Connect}")];
        }

        // Those that are there now stay: the others of the server and the schema are the import's.
        string ofServer = $"""
            from pg_catalog.pg_foreign_table f
            join pg_catalog.pg_foreign_server s on s.oid = f.ftserver and s.srvname = {SqlName.Literal(import.Server)}
            join pg_catalog.pg_class c on c.oid = f.ftrelid
            where c.relnamespace = to_regnamespace({SqlName.Literal(SqlName.QuoteIfNeeded(import.LocalSchema))})
            """.ReplaceLineEndings("\n");
        IReadOnlyList<string> before = await catalog.ListAsync($"select c.relname::text {ofServer} order by 1", r.CancellationToken).ConfigureAwait(false);
        string drop = $"""
            do $rollback$
            declare
                imported regclass;
            begin
                for imported in
                    select c.oid {ofServer.Replace("\n", "\n            ", StringComparison.Ordinal)}
                        and c.relname <> all (array[{string.Join(", ", before.Select(SqlName.Literal))}]::text[])
                loop
                    execute format('drop foreign table if exists %s', imported);
                end loop;
            end
            $rollback$
            """.ReplaceLineEndings("\n");
        return
        [
            r.Forward.By($"drop foreign table if exists {SqlName.QuoteIfNeeded(import.LocalSchema)}.imported", $"It drops every foreign table of the server {import.Server} in the schema {import.LocalSchema} that is not there now{(before.Count == 0 ? "" : $" (there are {string.Join(", ", before)})")}, whoever made it.") with
            {
                Reversal = drop,
                Objects = [],
            },
        ];
    }

    private static async Task<List<RollbackStatement>> ReassignedAsync(Reversing r, ReassignOwned reassign)
    {
        if (r.Catalog is not { } catalog)
        {
            return [r.Forward.Unknown($"What {string.Join(", ", reassign.Roles)} own is not in the text. {ForwardStatement.Connect}")];
        }

        List<RollbackStatement> result = [];
        string roles = string.Join(", ", reassign.Roles.Select(role => role is "current_user" or "session_user" or "current_role" ? $"{role}::regrole" : $"to_regrole({SqlName.Literal(SqlName.QuoteIfNeeded(role))})"));
        foreach (string row in await catalog.ListAsync(
            $"""
            select classid::int8 || ' ' || objid::int8
            from pg_catalog.pg_shdepend
            where dbid = (select oid from pg_catalog.pg_database where datname = current_database()) and deptype = 'o' and refobjid in ({roles})
            order by 1
            """,
            r.CancellationToken).ConfigureAwait(false))
        {
            string[] parts = row.Split(' ');
            CatalogAddress address = new(uint.Parse(parts[0], System.Globalization.CultureInfo.InvariantCulture), uint.Parse(parts[1], System.Globalization.CultureInfo.InvariantCulture), 0);
            if (await catalog.ReadAsync(address, r.CancellationToken).ConfigureAwait(false) is { } definition && definition[DefinitionProperty.Owner] is { } owner)
            {
                result.Add(r.Forward.By(NameRewriter.Now(owner.Sql, r.Names)));
            }
        }

        return result.Count > 0 ? result : [r.Forward.NotNeeded("They own nothing in this database.")];
    }

    private static async Task<List<RollbackStatement>> MovedAsync(Reversing r, MoveAllInTablespace move)
    {
        if (r.Catalog is not { } catalog)
        {
            return [r.Forward.Unknown($"What is in the tablespace {move.From} is not in the text. {ForwardStatement.Connect}")];
        }

        string kinds = move.Kind switch { ObjectKind.Index => "'i', 'I'", ObjectKind.MaterializedView => "'m'", _ => "'r', 'p', 't'" };
        string owners = move.OwnedBy.Count == 0 ? "" : $" and pg_get_userbyid(c.relowner) in ({string.Join(", ", move.OwnedBy.Select(SqlName.Literal))})";
        IReadOnlyList<string> names = await catalog.ListAsync(
            $"""
            select format('%I.%I', n.nspname, c.relname)
            from pg_catalog.pg_class c
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where c.relkind in ({kinds}) and n.nspname not in ('pg_catalog', 'pg_toast') {owners}
              and coalesce(nullif(c.reltablespace, 0), (select dattablespace from pg_catalog.pg_database where datname = current_database())) = (select oid from pg_catalog.pg_tablespace where spcname = {SqlName.Literal(move.From)})
            order by 1
            """,
            r.CancellationToken).ConfigureAwait(false);
        return names.Count == 0
            ? [r.Forward.NotNeeded($"Nothing of that kind is in the tablespace {move.From}.")]
            : [.. names.Select(n => r.Forward.By($"alter {move.Kind.Words()} if exists {n} set tablespace {SqlName.QuoteIfNeeded(move.From)}", "The data is copied under this lock."))];
    }
}
