using Npgsql;

namespace MigrationSafety.Engine.Schema.Definitions;

/// <summary>Reads from the catalogs what makes objects again. A read is one transaction, REPEATABLE READ and READ ONLY, that ends with it.</summary>
internal static class DefinitionReader
{
    /// <summary>The objects themselves, in the order of the addresses; what does not exist is left out. A table comes with its columns, without its constraints and indexes.</summary>
    /// <param name="connection">An open connection without a transaction.</param>
    /// <param name="addresses">Objects, and columns of tables.</param>
    /// <param name="includeDefaults">Whether properties that CREATE sets, or that have their default, have a statement of their own too.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static Task<IReadOnlyList<ObjectDefinition>> ReadAsync(
        NpgsqlConnection connection, IReadOnlyCollection<CatalogAddress> addresses, bool includeDefaults, CancellationToken cancellationToken) =>
        throw new NotImplementedException();

    /// <summary>The objects and all that DROP ... CASCADE takes with them, in the order in which they have to be made.</summary>
    /// <param name="connection">An open connection without a transaction.</param>
    /// <param name="addresses">Objects, and columns of tables.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static Task<IReadOnlyList<ObjectDefinition>> WithDependentsAsync(
        NpgsqlConnection connection, IReadOnlyCollection<CatalogAddress> addresses, CancellationToken cancellationToken) =>
        throw new NotImplementedException();

    /// <summary>Every object of the database but PostgreSQL's own, those of extensions and this module's, in the order in which they have to be made.</summary>
    /// <param name="connection">An open connection without a transaction.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static Task<IReadOnlyList<ObjectDefinition>> WholeSchemaAsync(NpgsqlConnection connection, CancellationToken cancellationToken) =>
        throw new NotImplementedException();

    /// <summary>The statements of objects in the order in which they run: by phase, and in each in the order of the objects.</summary>
    /// <param name="objects">Objects, in the order in which they have to be made.</param>
    internal static IEnumerable<DefinitionStatement> InOrder(IReadOnlyList<ObjectDefinition> objects) =>
        objects.SelectMany(o => o.Statements).Where(s => !s.Alone).OrderBy(s => s.Phase);
}
