using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Schema;
using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql.Statements;
using Npgsql;

namespace MigrationSafety.Engine.Rollback.Proof;

/// <summary>Makes the schema of a database in an empty one, from the definitions in its catalog.</summary>
internal sealed class SchemaCopy
{
    // So many statements are a transaction: a whole schema in one would need more locks than the server has room for.
    private const int Batch = 50;

    private readonly EngineSession _from;
    private readonly EngineSession _to;
    private readonly IOperationSink _sink;
    private readonly List<string> _notes = [];

    private SchemaCopy(EngineSession from, EngineSession to, IOperationSink sink) => (_from, _to, _sink) = (from, to, sink);

    /// <summary>Copies schema and sample rows.</summary>
    /// <param name="from">Session of the database that is copied.</param>
    /// <param name="to">Session of an empty database.</param>
    /// <param name="sampleRows">How many rows of each table to copy, with those that they point to; 0 for none.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>What of the original the copy lacks, in sentences.</returns>
    /// <exception cref="MigrationException"><c>CopyFailed</c>, with the statement.</exception>
    internal static async Task<IReadOnlyList<string>> RunAsync(EngineSession from, EngineSession to, int sampleRows, IOperationSink sink, CancellationToken cancellationToken)
    {
        SchemaCopy copy = new(from, to, sink);
        try
        {
            await copy.RunAsync(sampleRows, cancellationToken).ConfigureAwait(false);
        }
        catch (NpgsqlException e)
        {
            cancellationToken.ThrowIfCancellationRequested();
            throw ServerErrors.Translate(e, $"Copying {from.Info}", from.Info.ToString());
        }

        return copy._notes;
    }

    private async Task RunAsync(int sampleRows, CancellationToken cancellationToken)
    {
        await using NpgsqlConnection source = await _from.OpenAsync("copy", _sink, cancellationToken).ConfigureAwait(false);
        await using NpgsqlConnection target = await _to.OpenAsync("copy", _sink, cancellationToken).ConfigureAwait(false);
        IReadOnlyList<ObjectDefinition> objects;
        try
        {
            objects = await DefinitionReader.WholeSchemaAsync(source, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, "Reading the schema", _from.Info.ToString());
        }

        await ScriptRunner.ExecuteAsync(target, SnapshotQueries.Settings, _sink, cancellationToken).ConfigureAwait(false);
        foreach (string setting in new[] { "set check_function_bodies = off", "set synchronous_commit = off", "set lock_timeout = 0" })
        {
            await ScriptRunner.ExecuteAsync(target, setting, _sink, cancellationToken).ConfigureAwait(false);
        }

        if (!objects.Any(o => o is { Kind: ObjectKind.Schema, Identity: "public" }))
        {
            await ScriptRunner.ExecuteAsync(target, "drop schema if exists public", _sink, cancellationToken).ConfigureAwait(false);
        }

        ILookup<bool, ObjectDefinition> late = await LeaveOutAsync(target, objects, cancellationToken).ConfigureAwait(false);
        DefinitionStatement[] early = [.. DefinitionReader.InOrder([.. late[false]])];
        await ApplyAsync(target, early.Where(s => s.Phase != DefinitionPhase.End), cancellationToken).ConfigureAwait(false);
        if (sampleRows > 0)
        {
            _notes.AddRange(await SampleRows.CopyAsync(source, target, sampleRows, _sink, cancellationToken).ConfigureAwait(false));
        }

        await ApplyAsync(target, DefinitionReader.InOrder([.. late[true]]).Where(s => s.Phase != DefinitionPhase.End), cancellationToken).ConfigureAwait(false);
        await ApplyAsync(target, DefinitionReader.InOrder([.. late[false], .. late[true]]).Where(s => s.Phase == DefinitionPhase.End), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Without what this server cannot have; and apart what would get in the way of rows.</summary>
    private async Task<ILookup<bool, ObjectDefinition>> LeaveOutAsync(NpgsqlConnection target, IReadOnlyList<ObjectDefinition> objects, CancellationToken cancellationToken)
    {
        HashSet<string> roles = await NamesAsync(target, "select rolname::text from pg_catalog.pg_roles", cancellationToken).ConfigureAwait(false);
        HashSet<string> tablespaces = await NamesAsync(target, "select pg_catalog.quote_ident(spcname)::text from pg_catalog.pg_tablespace", cancellationToken).ConfigureAwait(false);
        SortedSet<string> missing = new(objects.SelectMany(o => o.Statements).SelectMany(s => s.Roles).Where(role => !roles.Contains(role)), StringComparer.Ordinal);
        if (missing.Count > 0)
        {
            _notes.Add($"The server lacks roles that the schema names; what they own or are granted is left out: {string.Join(", ", missing)}.");
        }

        ObjectDefinition[] subscriptions = [.. objects.Where(o => o.Kind == ObjectKind.Subscription)];
        if (subscriptions.Length > 0)
        {
            _notes.Add($"Subscriptions are left out, since they would connect: {string.Join(", ", subscriptions.Select(s => s.Identity))}.");
        }

        bool Here(DefinitionStatement statement) =>
            statement.Roles.All(roles.Contains) && (statement.Property != DefinitionProperty.Tablespace || tablespaces.Any(name => statement.Sql.EndsWith(" set tablespace " + name, StringComparison.Ordinal)));
        return objects.Except(subscriptions)
            .Select(o => o with { Statements = [.. o.Statements.Where(Here)] })
            .ToLookup(o => o.IsForeignKey || o.Kind is ObjectKind.Trigger or ObjectKind.Rule or ObjectKind.Policy or ObjectKind.EventTrigger or ObjectKind.Publication);
    }

    private async Task ApplyAsync(NpgsqlConnection target, IEnumerable<DefinitionStatement> statements, CancellationToken cancellationToken)
    {
        foreach (DefinitionStatement[] chunk in statements.Chunk(Batch))
        {
            await using NpgsqlBatch batch = new(target);
            foreach (DefinitionStatement statement in chunk)
            {
                _sink.Debug(statement.Sql);
                batch.BatchCommands.Add(new(statement.Sql));
            }

            try
            {
                await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            }
            catch (PostgresException e) when (!cancellationToken.IsCancellationRequested)
            {
                string statement = e.BatchCommand?.CommandText ?? chunk[0].Sql;
                throw new MigrationException(
                    "CopyFailed",
                    MigrationErrorKind.NotSupported,
                    $"The schema of {_from.Info} could not be copied: {ServerErrors.Words(e)} The statement was: {RollbackText.OneLine(statement, 300)}",
                    statement.StartsWith("create extension", StringComparison.Ordinal)
                        ? "Install the extension in that version on the server of -Session, or make a template there yourself and name it with -Template."
                        : "Make a template on the server of -Session by other means, such as pg_dump --schema-only, and name it with -Template.",
                    e)
                {
                    SqlState = e.SqlState,
                    Target = _from.Info.ToString(),
                };
            }
        }
    }

    private static async Task<HashSet<string>> NamesAsync(NpgsqlConnection connection, string sql, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new(sql, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        HashSet<string> names = new(StringComparer.Ordinal);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            names.Add(reader.GetString(0));
        }

        return names;
    }
}
