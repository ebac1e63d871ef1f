using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>Sets a property back to what the catalog has before the migration.</summary>
internal static class PropertyReversal
{
    /// <summary>What sets properties of an object back.</summary>
    /// <param name="r">The statement.</param>
    /// <param name="now">The object.</param>
    /// <param name="properties">Properties.</param>
    /// <param name="note">What must be known.</param>
    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, ObjectReference now, IReadOnlyList<DefinitionProperty> properties, string? note = null)
    {
        string what = $"{now.Kind.Words()} {now.Identity()}";
        if (r.Made(now))
        {
            return [r.Forward.NotNeeded($"It goes with the {what}, which this script makes.")];
        }

        if (r.Catalog is not { } catalog)
        {
            return [r.Forward.Unknown($"How {what} was before is not in the text. {ForwardStatement.Connect}")];
        }

        if (await r.FindAsync(now).ConfigureAwait(false) is not { } address)
        {
            return [r.Forward.Unknown($"There is no {what} in {catalog.Facts.Database} now, so that how it was before cannot be told.")];
        }

        ObjectDefinition? definition = await catalog.ReadAsync(address, r.CancellationToken).ConfigureAwait(false);
        DefinitionStatement[] statements = [.. definition?.Statements.Where(s => properties.Contains(s.Property)) ?? []];
        return statements.Length == 0
            ? [r.Forward.Unknown($"How {what} was before cannot be read from the catalog: write its reversal by hand.")]
            : [.. statements.Select(s => r.Forward.By([r.Now(s.Sql, now)], note))];
    }
}
