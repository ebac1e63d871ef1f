using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Finds the indexes that are not valid, and says why each is not and what repairs it. Reads only.</summary>
public static class InvalidIndexReader
{
    /// <summary>Reads all indexes of a database that are not valid.</summary>
    /// <param name="session">Session.</param>
    /// <param name="table">Table, as in SQL, with or without schema; null for all.</param>
    /// <param name="schema">Schema, as in SQL; null for all, or for the one that <paramref name="table"/> names.</param>
    /// <param name="sink">A warning where not everything can be seen.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The indexes by schema, table and name; none where all are valid.</returns>
    /// <exception cref="MigrationException"><c>TableNotFound</c>, <c>SchemaNotFound</c>, <c>SchemaContradicts</c>, <c>InvalidName</c>, <c>LockNotAvailable</c>, or the connection's.</exception>
    public static async Task<IReadOnlyList<InvalidIndex>> ReadAsync(EngineSession session, string? table, string? schema, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(sink);
        try
        {
            await using NpgsqlConnection connection = await session.OpenAsync("invalid-indexes", sink, cancellationToken).ConfigureAwait(false);
            List<InvalidIndex> found = [];
            await CatalogReads.BoundedAsync(
                connection,
                table ?? schema ?? connection.Database,
                "Looking for invalid indexes",
                async () =>
                {
                    uint? tableOid = table is null ? null : (await TableReference.FindAnyAsync(connection, table, schema, cancellationToken).ConfigureAwait(false)).Oid;
                    string? schemaName = schema is null || table is not null ? null : await SchemaAsync(connection, schema, cancellationToken).ConfigureAwait(false);
                    foreach ((InvalidIndexEntry entry, IndexActivity? activity) in await WithActivitiesAsync(connection, tableOid, schemaName, cancellationToken).ConfigureAwait(false))
                    {
                        IReadOnlyList<MissingChild> missing = entry.Partitioned ? await MissingAsync(connection, entry, cancellationToken).ConfigureAwait(false) : [];
                        found.Add(Describe(session.Info, entry, activity, missing));
                    }

                    return found;
                },
                cancellationToken).ConfigureAwait(false);
            if (session.Info.IsStandby && found.Count > 0)
            {
                sink.Warning($"{session.Info} is a standby: what the primary's sessions are at is not seen there, and an index that is being built looks like a leftover.");
            }

            return found;
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, "Looking for invalid indexes", table ?? schema);
        }
    }

    /// <summary>What is not valid, and who is at work on it.</summary>
    internal static async Task<IReadOnlyList<(InvalidIndexEntry Entry, IndexActivity? Activity)>> WithActivitiesAsync(
        NpgsqlConnection connection,
        uint? table,
        string? schema,
        CancellationToken cancellationToken)
    {
        IReadOnlyList<InvalidIndexEntry> before = await InvalidIndexEntry.ReadAsync(connection, table, schema, cancellationToken).ConfigureAwait(false);
        if (before.Count == 0)
        {
            return [];
        }

        IReadOnlyDictionary<uint, IndexActivity> activities = await IndexActivity.ReadAsync(connection, [.. before.Select(entry => entry.Oid)], cancellationToken).ConfigureAwait(false);
        // Looked at again, after those at work: what came to its end between the two looks is no leftover.
        IReadOnlyList<InvalidIndexEntry> after = await InvalidIndexEntry.ReadAsync(connection, table, schema, cancellationToken).ConfigureAwait(false);
        HashSet<uint> known = [.. before.Select(entry => entry.Oid)];
        return [.. after.Where(entry => known.Contains(entry.Oid)).Select(entry => (entry, activities.GetValueOrDefault(entry.Oid)))];
    }

    /// <summary>Why an index is not valid, where nobody is at work on it.</summary>
    internal static InvalidIndexReason ReasonOf(InvalidIndexEntry entry) => entry switch
    {
        { Partitioned: true } => InvalidIndexReason.IncompletePartitioned,
        { LeftByRebuild: { } rebuild } => rebuild,
        // What was scanned was valid once, and only a drop takes that away.
        { Live: false } or { Scans: > 0 } => InvalidIndexReason.InterruptedDrop,
        { Unique: true, Ready: false } => InvalidIndexReason.FailedUniqueBuild,
        _ => InvalidIndexReason.InterruptedBuild,
    };

    private static InvalidIndex Describe(MigrationSession session, InvalidIndexEntry entry, IndexActivity? activity, IReadOnlyList<MissingChild> missing)
    {
        InvalidIndexReason reason = activity is null ? ReasonOf(entry) : InvalidIndexReason.InProgress;
        InvalidIndexRepair repair = reason switch
        {
            InvalidIndexReason.InProgress => InvalidIndexRepair.Wait,
            InvalidIndexReason.InterruptedBuild or InvalidIndexReason.FailedUniqueBuild => InvalidIndexRepair.Rebuild,
            InvalidIndexReason.IncompletePartitioned => InvalidIndexRepair.Build,
            _ => entry.AttachedTo is null ? InvalidIndexRepair.Drop : InvalidIndexRepair.Rebuild,
        };
        return new InvalidIndex
        {
            Origin = session,
            Server = session.Server,
            Port = session.Port,
            Database = session.Database,
            Schema = SqlName.QuoteIfNeeded(entry.Schema),
            Table = SqlName.QuoteIfNeeded(entry.Table),
            Name = SqlName.QuoteIfNeeded(entry.Name),
            Reason = reason,
            Repair = repair,
            Detail = Detail(reason, entry, activity, missing),
            Advice = Advice(reason, repair, entry, activity, missing),
            PaidByWrites = entry.Ready && !entry.Partitioned,
            Unique = entry.Unique,
            SizeBytes = entry.SizeBytes,
            Definition = entry.Definition,
            Pid = activity?.Session.Pid,
            Original = entry.Original is { } original && activity is null ? SqlName.QuoteIfNeeded(original) : null,
            MissingPartition = [.. missing.Where(child => !child.DetachPending).Select(child => child.Table)],
        };
    }

    private static string Detail(InvalidIndexReason reason, InvalidIndexEntry entry, IndexActivity? activity, IReadOnlyList<MissingChild> missing)
    {
        string what = reason switch
        {
            InvalidIndexReason.InProgress => $"It is {activity!.Doing} by {activity.Session}.",
            InvalidIndexReason.InterruptedBuild when entry.Ready => "A concurrent build was interrupted after its first scan, or a concurrent drop at its beginning; both leave the same.",
            InvalidIndexReason.InterruptedBuild => "A concurrent build was interrupted before it took any rows.",
            InvalidIndexReason.FailedUniqueBuild => "The build of a unique index failed, on duplicates most likely, or was interrupted: it forbids nothing, new duplicates are accepted.",
            InvalidIndexReason.RebuildCopy => $"A concurrent rebuild of {SqlName.QuoteIfNeeded(entry.Original!)} was interrupted; this is the copy that was to take over. The original is as it was before.",
            InvalidIndexReason.RebuildOriginal => $"A concurrent rebuild replaced it by {SqlName.QuoteIfNeeded(entry.Original!)} and was interrupted before it dropped it.",
            InvalidIndexReason.InterruptedDrop when !entry.Live => "A concurrent drop was interrupted just before its end.",
            InvalidIndexReason.InterruptedDrop => $"A concurrent drop was interrupted: {entry.Scans:N0} scans say that the index was valid once.",
            _ when missing.Count == 0 => "Each partition has a valid index attached, but they became valid later: PostgreSQL looks only when one is attached.",
            _ => MissingInWords(missing),
        };
        string?[] parts =
        [
            what,
            entry.ToastOf is { } owner ? $"It belongs to the toast table of {owner}." : null,
            entry.AttachedTo is { } parent ? $"It is attached to {parent}, which cannot be valid without it." : null,
            entry.Partitioned || activity is not null ? null
                : entry.Ready && entry.Unique && reason is not InvalidIndexReason.RebuildOriginal ? "Every write to the table pays for it, and it rejects new duplicates, although no query uses it."
                : entry.Ready ? "Every write to the table pays for it, although no query uses it."
                : null,
        ];
        return string.Join(' ', parts.Where(part => part is not null));
    }

    private static string MissingInWords(IReadOnlyList<MissingChild> missing)
    {
        string[] none = [.. missing.Where(child => child is { DetachPending: false, Index: null }).Select(child => child.Table)];
        string[] invalid = [.. missing.Where(child => child is { DetachPending: false, Index: not null }).Select(child => child.Index!)];
        string[] detaching = [.. missing.Where(child => child.DetachPending).Select(child => child.Table)];
        string?[] parts =
        [
            none.Length > 0 ? $"{none.Length} partition{(none.Length == 1 ? " has" : "s have")} no index attached: {List(none)}." : null,
            invalid.Length > 0 ? $"Attached, but not valid: {List(invalid)}." : null,
            detaching.Length > 0 ? $"Half detached, waiting for FINALIZE: {List(detaching)}." : null,
        ];
        return string.Join(' ', parts.Where(part => part is not null));

        static string List(string[] names) => string.Join(", ", names.Take(5)) + (names.Length > 5 ? $" and {names.Length - 5} more" : "");
    }

    // No full stop behind a command: it would be copied along.
    private static string Advice(InvalidIndexReason reason, InvalidIndexRepair repair, InvalidIndexEntry entry, IndexActivity? activity, IReadOnlyList<MissingChild> missing)
    {
        string named = $"-Schema {Argument(entry.Schema)} -Name {Argument(entry.Name)}";
        return (reason, repair) switch
        {
            (InvalidIndexReason.InProgress, _) => $"Wait; Get-MigrationProgress -Pid {activity!.Session.Pid} shows how far it is",
            (InvalidIndexReason.FailedUniqueBuild, _) => $"Clean up the duplicates, then Invoke-SafeIndexRebuild {named}; or Invoke-SafeIndexDrop {named}",
            (InvalidIndexReason.RebuildCopy, InvalidIndexRepair.Drop) => $"Invoke-SafeIndexDrop {named}; or Invoke-SafeIndexRebuild -Schema {Argument(entry.Schema)} -Name {Argument(entry.Original!)}, which removes it and rebuilds the original",
            (InvalidIndexReason.IncompletePartitioned, _) when missing.Any(child => child.DetachPending) =>
                $"Finish the detach first: ALTER TABLE {entry.TableDisplay} DETACH PARTITION {missing.First(child => child.DetachPending).Table} FINALIZE",
            (InvalidIndexReason.IncompletePartitioned, _) when missing.Count == 0 => "Build the same index under another name and drop this one; or attach a partition that has such an index",
            (_, InvalidIndexRepair.Build) => "Invoke-SafeIndexBuild with the same definition and name: it builds and attaches what is missing",
            (_, InvalidIndexRepair.Drop) => $"Invoke-SafeIndexDrop {named}",
            _ when entry.AttachedTo is not null => $"Invoke-SafeIndexRebuild {named}",
            _ => $"Invoke-SafeIndexRebuild {named} where the index is wanted, otherwise Invoke-SafeIndexDrop {named}",
        };
    }

    /// <summary>A name as an argument of a PowerShell command.</summary>
    private static string Argument(string name)
    {
        string sql = SqlName.QuoteIfNeeded(name);
        return sql == name ? name : "'" + sql.Replace("'", "''", StringComparison.Ordinal) + "'";
    }

    /// <summary>A schema by what a user typed.</summary>
    internal static async Task<string> SchemaAsync(NpgsqlConnection connection, string schema, CancellationToken cancellationToken)
    {
        const string Query = """
            select nspname::text from pg_catalog.pg_namespace where nspname in ($1, $2) order by nspname = $1 desc limit 1
            """;
        (string? qualifier, string name) = SqlName.Parse(schema);
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = name }, new() { Value = schema } } };
        return qualifier is null && await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) is string found
            ? found
            : throw new MigrationException("SchemaNotFound", MigrationErrorKind.NotFound, $"There is no schema {schema} in database {connection.Database}.", "Check the spelling; a name with capitals needs quotation marks.")
            {
                Target = schema,
            };
    }

    /// <summary>The partitions that keep a partitioned index from being valid; of those that are partitioned themselves, the index is listed on its own.</summary>
    private static async Task<IReadOnlyList<MissingChild>> MissingAsync(NpgsqlConnection connection, InvalidIndexEntry entry, CancellationToken cancellationToken)
    {
        const string Query = """
            select pg_catalog.format('%I.%I', n.nspname, c.relname), x.name, h.inhdetachpending
            from pg_catalog.pg_inherits h
            join pg_catalog.pg_class c on c.oid = h.inhrelid
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            left join lateral (
                select pg_catalog.format('%I.%I', m.nspname, o.relname) as name, i.indisvalid
                from pg_catalog.pg_inherits g
                join pg_catalog.pg_index i on i.indexrelid = g.inhrelid
                join pg_catalog.pg_class o on o.oid = i.indexrelid
                join pg_catalog.pg_namespace m on m.oid = o.relnamespace
                where g.inhparent = $2 and i.indrelid = h.inhrelid
            ) x on true
            where h.inhparent = $1 and (h.inhdetachpending or not coalesce(x.indisvalid, false))
            order by 1
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = entry.TableOid, NpgsqlDbType = NpgsqlDbType.Oid }, new() { Value = entry.Oid, NpgsqlDbType = NpgsqlDbType.Oid } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<MissingChild> missing = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            missing.Add(new MissingChild(reader.GetString(0), reader.Text(1), reader.GetBoolean(2)));
        }

        return missing;
    }

    /// <param name="Table">Partition, as schema.name.</param>
    /// <param name="Index">Its attached index, which is not valid; null where none is attached.</param>
    /// <param name="DetachPending">A DETACH PARTITION CONCURRENTLY was interrupted.</param>
    private sealed record MissingChild(string Table, string? Index, bool DetachPending);
}
