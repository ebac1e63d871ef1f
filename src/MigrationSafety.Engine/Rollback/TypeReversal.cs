using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes ALTER TYPE and ALTER DOMAIN back.</summary>
internal static class TypeReversal
{
    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, AddEnumValue add)
    {
        ObjectReference type = new(ObjectKind.Type, add.Type);
        if (r.Resolve(type) is not { } now)
        {
            return [r.SchemaUnknown(add.Type)];
        }

        if (r.Made(now))
        {
            return [r.Forward.NotNeeded($"It goes with the type {now.Name}, which this script makes.")];
        }

        if ((add.IfNotExists || r.Optional) && r.Catalog is { } catalog && await r.FindAsync(now).ConfigureAwait(false) is { } address
            && await catalog.ScalarAsync($"select enumlabel::text from pg_catalog.pg_enum where enumtypid = {address.ObjectId} and enumlabel = {add.Value}", r.CancellationToken).ConfigureAwait(false) is not null)
        {
            return [r.Forward.NotNeeded($"{now.Name} has the value {add.Value} in {catalog.Facts.Database}: {r.OnlyIfMissing} does nothing there.")];
        }

        return
        [
            r.Forward.Irreversible(
                $"PostgreSQL cannot remove a value from an enum. The value {add.Value} does no harm while nothing uses it; to be rid of it, make a new type without it, change each column to that under ACCESS EXCLUSIVE with a rewrite, and drop this one."),
        ];
    }

    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, AlterDomain alter)
    {
        if (r.Resolve(new ObjectReference(ObjectKind.Domain, alter.Domain)) is not { } domain)
        {
            return [r.SchemaUnknown(alter.Domain)];
        }

        ObjectReference Constraint(string name) => new(ObjectKind.Constraint, new QualifiedName(null, name), null, domain.Name);
        switch (alter.Action)
        {
            case var _ when r.Made(domain):
                return [r.Forward.NotNeeded($"It goes with the domain {domain.Name}, which this script makes.")];
            case DomainAction.SetDefault or DomainAction.DropDefault:
                return await PropertyReversal.ReverseAsync(r, domain, [DefinitionProperty.Default]).ConfigureAwait(false);
            case DomainAction.SetNotNull or DomainAction.DropNotNull:
                return await PropertyReversal.ReverseAsync(r, domain, [DefinitionProperty.NotNull], alter.Action == DomainAction.DropNotNull ? "Every column of the domain is scanned, and its table locked against writes meanwhile." : null).ConfigureAwait(false);
            case DomainAction.AddConstraint:
                string name = alter.Constraint!.Name ?? r.Chooser.DomainConstraint(domain.Name, alter.Constraint.Check is null ? "not_null" : "check");
                r.Names.MakePart(r.Names.Touch(ObjectKind.Domain, domain.Name), ObjectKind.Constraint, name);
                return alter.Constraint.Check is null && r.Catalog?.Major is not >= 17
                    ? [r.Forward.By($"alter domain {domain.Name} drop not null")]
                    : [r.Forward.By($"alter domain {domain.Name} drop constraint if exists {SqlName.QuoteIfNeeded(name)}", alter.Constraint.Name is null ? RollbackPlanner.GuessedName : null, condition: domain.Exists())];
            case DomainAction.DropConstraint:
                return await DropReversal.PartAsync(r, Constraint(alter.Name!), alter.IfExists, alter.Cascade).ConfigureAwait(false);
            default:
                return await ValidatedAsync(r, Constraint(alter.Name!)).ConfigureAwait(false);
        }
    }

    private static async Task<List<RollbackStatement>> ValidatedAsync(Reversing r, ObjectReference constraint)
    {
        if (r.Names.Find(ObjectKind.Type, constraint.On!)?.AddsConstraint(constraint.Name.Name) == true)
        {
            return [r.Forward.NotNeeded($"It goes with the constraint {constraint.Name}, which this script adds.")];
        }

        if (r.Catalog is not { } catalog)
        {
            return [r.Forward.Unknown($"How the constraint {constraint.Name} was before is not in the text. {ForwardStatement.Connect}")];
        }

        ObjectDefinition? definition = await r.FindAsync(constraint).ConfigureAwait(false) is { } address ? await catalog.ReadAsync(address, r.CancellationToken).ConfigureAwait(false) : null;
        return definition?[DefinitionProperty.Create] is not { } create ? [r.Forward.Unknown($"There is no constraint {constraint.Name} of {constraint.On} in {catalog.Facts.Database} now.")]
            : !create.Sql.TrimEnd().EndsWith("not valid", StringComparison.OrdinalIgnoreCase) ? [r.Forward.NotNeeded($"The constraint {constraint.Name} was valid before.")]
            : [r.Forward.By([($"alter domain {constraint.On} drop constraint if exists {constraint.Name}", null), (NameRewriter.Now(create.Sql, r.Names), null)], "The constraint goes back to NOT VALID.")];
    }
}
