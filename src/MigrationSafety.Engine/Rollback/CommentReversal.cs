using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes COMMENT and SECURITY LABEL back.</summary>
internal static class CommentReversal
{
    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, CommentOn comment)
    {
        if (r.Resolve(comment.Object) is not { } now)
        {
            return [r.SchemaUnknown(comment.Object.Target)];
        }

        (RollbackStatement? said, CatalogAddress? found) = await LookAsync(r, now).ConfigureAwait(false);
        if (said is not null)
        {
            return [said];
        }

        CatalogAddress address = found!.Value;
        string? before = await r.Catalog!.ScalarAsync(
            $"""
            select description from pg_catalog.pg_description where classoid = {address.ClassId} and objoid = {address.ObjectId} and objsubid = {address.SubId}
            union all
            select description from pg_catalog.pg_shdescription where classoid = {address.ClassId} and objoid = {address.ObjectId}
            """,
            r.CancellationToken).ConfigureAwait(false);
        return [r.Forward.By($"comment on {Described(r, now)} is {(before is null ? "null" : SqlName.Literal(before))}", condition: r.IfMoved(now))];
    }

    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, SecurityLabel label)
    {
        if (r.Resolve(label.Object) is not { } now)
        {
            return [r.SchemaUnknown(label.Object.Target)];
        }

        (RollbackStatement? said, CatalogAddress? found) = await LookAsync(r, now).ConfigureAwait(false);
        if (said is not null)
        {
            return [said];
        }

        CatalogAddress address = found!.Value;
        string provider = label.Provider is { } given ? $" and provider = {SqlName.Literal(given.Trim('\''))}" : "";
        string? before = await r.Catalog!.ScalarAsync(
            $"""
            select label from pg_catalog.pg_seclabel where classoid = {address.ClassId} and objoid = {address.ObjectId} and objsubid = {address.SubId}{provider}
            union all
            select label from pg_catalog.pg_shseclabel where classoid = {address.ClassId} and objoid = {address.ObjectId}{provider}
            """,
            r.CancellationToken).ConfigureAwait(false);
        string by = label.Provider is null ? "" : $" for {label.Provider}";
        return [r.Forward.By($"security label{by} on {Described(r, now)} is {(before is null ? "null" : SqlName.Literal(before))}", condition: r.IfMoved(now))];
    }

    private static string Described(Reversing r, ObjectReference o) => o.Kind != ObjectKind.Constraint ? $"{o.Kind.Words()} {o.Identity()}"
        : $"constraint {o.Name} on {(r.IsDomain(o.On!) ? "domain " : "")}{o.On}";

    private static async Task<(RollbackStatement? Said, CatalogAddress? Address)> LookAsync(Reversing r, ObjectReference now)
    {
        string what = $"{now.Kind.Words()} {now.Identity()}";
        return r.Made(now) ? (r.Forward.NotNeeded($"It goes with the {what}, which this script makes."), null)
            : r.Catalog is not { } catalog ? (r.Forward.Unknown($"What was said of the {what} before is not in the text. {ForwardStatement.Connect}"), null)
            : await r.FindAsync(now).ConfigureAwait(false) is { } address ? (null, address)
            : (r.Forward.Unknown($"There is no {what} in {catalog.Facts.Database} now."), null);
    }
}
