using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes DROP back.</summary>
internal static class DropReversal
{
    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, DropObjects drop)
    {
        List<RollbackStatement> result = [];
        List<CatalogAddress> addresses = [];
        foreach (ObjectReference named in drop.Objects)
        {
            if (r.Resolve(named) is not { } o)
            {
                result.Add(r.SchemaUnknown(named.Target));
                continue;
            }

            (RollbackStatement? said, CatalogAddress? address) = await LookAsync(r, o, drop.IfExists || r.Optional).ConfigureAwait(false);
            r.Drop(o);
            if (said is not null)
            {
                result.Add(said);
            }
            else if (Lost(r, o) is { } lost)
            {
                r.Names.Go(address!.Value, o.Name.Name);
                result.Add(lost);
            }
            else
            {
                addresses.Add(address!.Value);
            }
        }

        return addresses.Count == 0 ? result : [.. result, .. await DefinitionReversal.RestoreAsync(r, addresses, drop.Cascade).ConfigureAwait(false)];
    }

    /// <summary>A column or a constraint.</summary>
    internal static async Task<List<RollbackStatement>> PartAsync(Reversing r, ObjectReference o, bool ifExists, bool cascade)
    {
        (RollbackStatement? said, CatalogAddress? address) = await LookAsync(r, o, ifExists).ConfigureAwait(false);
        return said is not null ? [said] : await DefinitionReversal.RestoreAsync(r, [address!.Value], cascade).ConfigureAwait(false);
    }

    private static async Task<(RollbackStatement? Said, CatalogAddress? Address)> LookAsync(Reversing r, ObjectReference o, bool ifExists)
    {
        string what = $"{o.Kind.Words()} {o.Identity()}";
        if (r.Made(o))
        {
            return (r.Forward.NotNeeded($"The script makes the {what} itself."), null);
        }

        if (r.Catalog is null)
        {
            return (r.Forward.Unknown($"What the {what} is, is not in the text. {ForwardStatement.Connect}"), null);
        }

        CatalogAddress? address = await r.FindAsync(o).ConfigureAwait(false);
        return address is not null ? (null, address)
            : ifExists ? (r.Forward.NotNeeded($"There is no {what}: IF EXISTS does nothing."), null)
            : (r.Forward.Unknown($"There is no {what} in {r.Catalog.Facts.Database} now: the migration has run, or will fail here."), null);
    }

    /// <summary>What no definition brings back.</summary>
    private static RollbackStatement? Lost(Reversing r, ObjectReference o) => o.Kind switch
    {
        ObjectKind.Database => r.Forward.Irreversible($"All of the database {o.Name} is gone: it is in backups only."),
        ObjectKind.Role => r.Forward.Irreversible($"The role's password cannot be read, and its memberships and privileges go with it: make {o.Name} again by hand."),
        ObjectKind.Tablespace => r.Forward.Irreversible($"The directory of {o.Name} is given up: make it again by hand with CREATE TABLESPACE."),
        ObjectKind.Subscription => r.Forward.Irreversible($"Its replication slot on the publisher goes with it, and with that the place in the stream: make {o.Name} again and copy the data anew."),
        _ => null,
    };
}
