using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes an action of ALTER TABLE back that changes or drops something that is there.</summary>
internal static class TableActionReversal
{
    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, AlterTable alter, ScriptObject script, ResolvedName table, TableAction action)
    {
        ForwardStatement forward = r.Forward;
        ObjectReference relation = new(alter.Kind, table.Name);
        ObjectReference Column(string name) => alter.Kind == ObjectKind.Type ? new ObjectReference(ObjectKind.Column, new QualifiedName(null, name), null, table.Name) : ObjectReference.OfColumn(table.Name, name);
        Task<List<RollbackStatement>> Of(ObjectReference o, DefinitionProperty property, string? note = null) => PropertyReversal.ReverseAsync(r, o, [property], note);
        switch (action)
        {
            case AttachPartition attach:
                return await PartitionReversal.AttachedAsync(r, alter, table, attach).ConfigureAwait(false);
            case DetachPartition detach:
                return await PartitionReversal.DetachedAsync(r, table, detach).ConfigureAwait(false);
            case SetInherit inherit:
                return PartitionReversal.Inherited(r, table, inherit);
            case DropColumn drop:
                return alter.Kind == ObjectKind.Type && r.Catalog is { } catalog && await r.FindAsync(Column(drop.Column)).ConfigureAwait(false) is { } attribute
                    ? await AttributeAsync(r, catalog, attribute, Column(drop.Column), drop.Cascade).ConfigureAwait(false)
                    : await DropReversal.PartAsync(r, Column(drop.Column), drop.IfExists, drop.Cascade).ConfigureAwait(false);
            case DropConstraint drop:
                return await DropReversal.PartAsync(r, ConstraintOf(table.Name, drop.Name), drop.IfExists, drop.Cascade).ConfigureAwait(false);
            case ValidateConstraint validate:
                return await ConstraintReversal.ValidatedAsync(r, ConstraintOf(table.Name, validate.Name)).ConfigureAwait(false);
            case AlterConstraint change:
                return await ConstraintReversal.AlteredAsync(r, ConstraintOf(table.Name, change.Name)).ConfigureAwait(false);
            case AlterColumnType type:
                return await ColumnTypeReversal.ReverseAsync(r, alter, script, Column(type.Column), type).ConfigureAwait(false);
            case SetDefault set:
                return await Of(Column(set.Column), DefinitionProperty.Default).ConfigureAwait(false);
            case SetNotNull set:
                return await NotNullReversal.ReverseAsync(r, script, Column(set.Column), set).ConfigureAwait(false);
            case SetExpression set:
                return set.Expression is null
                    ? [forward.Irreversible($"The column {SqlName.QuoteIfNeeded(set.Column)} cannot be made a generated one again while it holds its values: it has to be dropped and added, at another place and with a rewrite of the table.")]
                    : await Of(Column(set.Column), DefinitionProperty.Generated, "The table is rewritten under this lock.").ConfigureAwait(false);
            case AddIdentity add:
                return r.Made(Column(add.Column))
                    ? Goes(forward, Column(add.Column))
                    : [forward.By($"alter table if exists {table.Name} alter column {SqlName.QuoteIfNeeded(add.Column)} drop identity if exists", "Its sequence goes with it.")];
            case AlterIdentity change:
                return await IdentityReversal.AlteredAsync(r, Column(change.Column), change).ConfigureAwait(false);
            case DropIdentity drop:
                return await IdentityReversal.DroppedAsync(r, Column(drop.Column)).ConfigureAwait(false);
            case SetColumn { Setting: ColumnSetting.Options or ColumnSetting.ResetOptions } set:
                return await OptionReversal.ParametersAsync(r, Column(set.Column), SqlOption.ReadList(set.Value.Read()), $"alter {alter.Kind.Words()} if exists {table.Name} alter column {SqlName.QuoteIfNeeded(set.Column)}").ConfigureAwait(false);
            case SetColumn { Setting: ColumnSetting.ForeignOptions } set:
                return await OptionReversal.ForeignAsync(r, Column(set.Column), SqlOption.ReadForeign(set.Value.Read()), $"alter foreign table {table.Name} alter column {SqlName.QuoteIfNeeded(set.Column)}").ConfigureAwait(false);
            case SetColumn { Setting: ColumnSetting.Statistics } set when alter.Kind == ObjectKind.Index:
                return await IndexStatisticsAsync(r, table, set.Column).ConfigureAwait(false);
            case SetColumn set:
                return await Of(Column(set.Column), set.Setting switch
                {
                    ColumnSetting.Statistics => DefinitionProperty.Statistics,
                    ColumnSetting.Storage => DefinitionProperty.Storage,
                    _ => DefinitionProperty.Compression,
                }).ConfigureAwait(false);
            case SwitchTrigger { Name: { } name } trigger:
                return await Of(new ObjectReference(trigger.Rule ? ObjectKind.Rule : ObjectKind.Trigger, new QualifiedName(null, name), null, table.Name), DefinitionProperty.Enabled).ConfigureAwait(false);
            case SwitchTrigger all:
                return await AllTriggersAsync(r, table, all).ConfigureAwait(false);
            case SetRowSecurity:
                return await Of(relation, DefinitionProperty.RowSecurity).ConfigureAwait(false);
            case SetTableOwner:
                return await Of(relation, DefinitionProperty.Owner).ConfigureAwait(false);
            case SetCluster:
                return await Of(relation, DefinitionProperty.Cluster).ConfigureAwait(false);
            case SetLogged:
                return await Of(relation, DefinitionProperty.Persistence, "The table is rewritten under this lock.").ConfigureAwait(false);
            case SetTablespace:
                return await Of(relation, DefinitionProperty.Tablespace, "The data is copied under this lock.").ConfigureAwait(false);
            case SetAccessMethod:
                return await Of(relation, DefinitionProperty.AccessMethod, "The table is rewritten under this lock.").ConfigureAwait(false);
            case SetStorageParameters set:
                return await OptionReversal.ParametersAsync(r, relation, set.Options, $"alter {alter.Kind.Words()} if exists {table.Name}").ConfigureAwait(false);
            case SetForeignOptions set:
                return await OptionReversal.ForeignAsync(r, relation, set.Options, $"alter foreign table {table.Name}").ConfigureAwait(false);
            case SetReplicaIdentity:
                return await Of(relation, DefinitionProperty.ReplicaIdentity).ConfigureAwait(false);
            case SetWithoutOids:
                return [forward.NotNeeded("SET WITHOUT OIDS does nothing.")];
            case SetOfType:
                return await OfTypeAsync(r, relation).ConfigureAwait(false);
            default:
                return [forward.Unknown($"ALTER TABLE, \"{RollbackText.OneLine(action.Text, 80)}\": not understood here; write its reversal by hand.")];
        }
    }

    internal static ObjectReference ConstraintOf(QualifiedName table, string name) => new(ObjectKind.Constraint, new QualifiedName(null, name), null, table);

    private static async Task<List<RollbackStatement>> AttributeAsync(Reversing r, RollbackCatalog catalog, CatalogAddress address, ObjectReference attribute, bool cascade)
    {
        RollbackCatalog.ColumnType? type = await catalog.TypeAsync(address, r.CancellationToken).ConfigureAwait(false);
        return type is null ? [r.Forward.Unknown($"There is no attribute {attribute.Identity()} in {catalog.Facts.Database} now.")]
            :
            [
                r.Forward.By(
                    $"alter type {attribute.On} add attribute {attribute.Name} {NameRewriter.Now(type.Text, r.Names)}{(type.Collation is { } collation ? $" collate {NameRewriter.Now(collation, r.Names)}" : "")}{(cascade ? " cascade" : "")}",
                    "The attribute comes back as the last one; what columns of the type held in it is lost.",
                    lossy: true,
                    condition: attribute.Missing()),
            ];
    }

    private static List<RollbackStatement> Goes(ForwardStatement forward, ObjectReference o) => [forward.NotNeeded($"It goes with the {o.Kind.Words()} {o.Identity()}, which this script makes.")];

    private static async Task<List<RollbackStatement>> OfTypeAsync(Reversing r, ObjectReference table)
    {
        if (r.Catalog is not { } catalog || await r.FindAsync(table).ConfigureAwait(false) is not { } address)
        {
            return [r.Forward.Unknown($"Of which type {table.Name} was is not in the text. {ForwardStatement.Connect}")];
        }

        string? type = await catalog.ScalarAsync($"select format('%I.%I', n.nspname, t.typname) from pg_catalog.pg_class c join pg_catalog.pg_type t on t.oid = c.reloftype join pg_catalog.pg_namespace n on n.oid = t.typnamespace where c.oid = {address.ObjectId}", r.CancellationToken).ConfigureAwait(false);
        string typed = $"exists (select from pg_catalog.pg_class where oid = {table.Find().Oid} and reloftype <> 0)";
        return
        [
            type is null ? r.Forward.By($"alter table {table.Name} not of", condition: typed) : r.Forward.By($"alter table {table.Name} of {NameRewriter.Now(type, r.Names)}", condition: $"{table.Exists()} and not {typed}"),
        ];
    }

    /// <summary>ALTER INDEX ... ALTER COLUMN n SET STATISTICS.</summary>
    private static async Task<List<RollbackStatement>> IndexStatisticsAsync(Reversing r, ResolvedName index, string column)
    {
        ObjectReference now = new(ObjectKind.Index, index.Name);
        if (r.Made(now) || r.Catalog is not { } catalog || await r.FindAsync(now).ConfigureAwait(false) is not { } address)
        {
            return await PropertyReversal.ReverseAsync(r, now, []).ConfigureAwait(false);
        }

        string? before = await catalog.ScalarAsync($"select coalesce(to_jsonb(a) ->> 'attstattarget', '-1') from pg_catalog.pg_attribute a where attrelid = {address.ObjectId} and attnum = {column}", r.CancellationToken).ConfigureAwait(false);
        return [r.Forward.By($"alter index if exists {index.Name} alter column {column} set statistics {before ?? "-1"}", condition: r.IfMoved(now))];
    }

    /// <summary>ENABLE and DISABLE TRIGGER ALL and USER: each trigger as it was.</summary>
    private static async Task<List<RollbackStatement>> AllTriggersAsync(Reversing r, ResolvedName table, SwitchTrigger change)
    {
        if (r.Catalog is not { } catalog)
        {
            return [r.Forward.Unknown($"Which triggers of {table.Name} were enabled before is not in the text. {ForwardStatement.Connect}")];
        }

        IReadOnlyList<string> names = await catalog.TriggersAsync(new ObjectReference(ObjectKind.Table, r.Names.BeforeScript(ObjectKind.Table, table.Name) ?? table.Name), r.CancellationToken).ConfigureAwait(false);
        // ALL includes those of foreign keys, which nobody turns off but by ALL.
        List<RollbackStatement> all = change.All == "all" ? [r.Forward.By($"alter table if exists {table.Name} enable trigger all")] : [];
        foreach (string name in names)
        {
            all.AddRange(await PropertyReversal.ReverseAsync(r, new ObjectReference(ObjectKind.Trigger, new QualifiedName(null, name), null, table.Name), [DefinitionProperty.Enabled]).ConfigureAwait(false));
        }

        return all.Count > 0 ? all : [r.Forward.NotNeeded($"{table.Name} has no trigger.")];
    }
}
