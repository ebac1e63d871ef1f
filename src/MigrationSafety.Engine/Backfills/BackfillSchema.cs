using System.Text.RegularExpressions;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>
/// The tables in which backfills are recorded, in the schema <c>migration_safety</c>. For whoever reads them:
/// <list type="bullet">
/// <item><c>backfill</c>, one row a backfill: <c>name</c>; <c>table_schema</c>, <c>table_name</c>, <c>table_oid</c>; <c>set_columns</c> with <c>set_expressions</c>,
/// <c>predicate</c> (<c>predicate_given</c>: by a user), <c>kind</c> (update, delete or insert, into <c>into_schema</c>.<c>into_table</c>, which <c>into_was_empty</c> when it began), <c>source</c> (what -From named), <c>archive</c> (the table beside it that keeps old values), <c>settings</c> (with which its expressions are read), <c>strategy</c> and <c>reason</c>: the definition; <c>workers</c>, <c>target_batch_ms</c>, <c>max_errors</c>, <c>throttle</c>: how it was last
/// asked for. <c>waiting_for</c>, <c>waiting_since</c>: why it is slow or paused by itself, while somebody works on it. <c>state</c>: <c>running</c> (begun and not at its end, whether or not somebody works on it), <c>paused</c> or <c>completed</c>. <c>sweep</c>: 0 while it passes
/// through its ranges, then the number of the sweep after it. <c>rows_estimated</c> matched when it began, by what was left when it was last taken up, of <c>rows_in_table</c>: both estimates; <c>rows_before</c>: rows that runs had changed before that. <c>rows_counted</c>: rows when it began, counted where the table is small; <c>rows_balance</c>: rows inserted less rows deleted by then, as the statistics of
/// its <c>rows_leaves</c> tables have them since <c>stats_since</c>. <c>last_error</c>: what ended the last run.</item>
/// <item><c>backfill_range</c>, the ranges of its pass: the table (<c>relation</c>), <c>key_columns</c> (null: block numbers), <c>lower</c> to <c>upper</c>, both as texts; <c>slices</c>: in how many turns its blocks are done, <c>stretch</c> of them at a time, parted by the values of <c>slice_column</c>, of <c>slice_type</c>, at <c>slice_bounds</c> (null: by place); <c>position</c>: the
/// checkpoint, in blocks counted on over the turns; <c>rows_seen</c>: rows passed, matching or not, of about <c>rows_estimated</c>; who last worked on it (<c>run</c>, <c>worker</c>, <c>pid</c>) and when (<c>heartbeat</c>).</item>
/// <item><c>backfill_worker</c>, one row for each connection of each run: what it did (<c>rows_done</c>, <c>batches</c>), <c>pid</c>, <c>application</c>, <c>client</c>, <c>role</c>. Somebody works on
/// the backfill while a backend with such a <c>pid</c> holds the advisory lock (0x4D695361, table's oid) of <see cref="TableOperationLock"/>.</item>
/// <item><c>backfill_error</c>: rows that the server refused, by table, place, version and key; <c>again</c>: to be tried again.</item>
/// <item><c>backfill_probe</c>: a sequence without meaning, set to see how long a commit takes.</item>
/// </list>
/// </summary>
internal static partial class BackfillSchema
{
    private const string Tables = "migration_safety.backfill, migration_safety.backfill_range, migration_safety.backfill_worker, migration_safety.backfill_error";

    /// <summary>The sequence that is set to try how long a commit takes.</summary>
    internal const string Probe = "migration_safety.backfill_probe";

    // Ranges and workers are updated with each batch: room on their pages keeps these updates off the indexes. Whatever access method is the default: not each can lock a row.
    private const string CreateTables = $"""
        create table migration_safety.backfill (
            name text primary key,
            table_schema text not null,
            table_name text not null,
            table_oid oid not null,
            set_columns text[] not null,
            set_expressions text[] not null,
            predicate text not null,
            predicate_given bool not null,
            kind text not null check (kind in ('update', 'delete', 'insert')),
            source text,
            archive text,
            settings jsonb not null,
            into_schema text,
            into_table text,
            into_was_empty bool,
            strategy text not null,
            reason text not null,
            state text not null check (state in ('running', 'paused', 'completed')),
            sweep int4 not null default 0,
            workers int4 not null,
            target_batch_ms int4 not null,
            max_errors int8 not null,
            rows_estimated int8 not null,
            rows_in_table int8 not null,
            rows_before int8 not null default 0,
            rows_counted int8,
            rows_balance int8,
            rows_leaves int4,
            stats_since timestamptz,
            throttle jsonb,
            waiting_for text,
            waiting_since timestamptz,
            last_error text,
            role text not null default current_user,
            application text not null default pg_catalog.current_setting('application_name'),
            started_at timestamptz not null default pg_catalog.clock_timestamp(),
            updated_at timestamptz not null default pg_catalog.clock_timestamp(),
            finished_at timestamptz
        ) using heap;
        create table migration_safety.backfill_range (
            backfill text not null references migration_safety.backfill on delete cascade,
            id int4 not null,
            slices int4 not null,
            stretch int8 not null,
            slice_column text,
            slice_type text,
            slice_bounds text,
            relation oid not null,
            relation_name text not null,
            key_columns text[],
            lower text[],
            upper text[] not null,
            position text[],
            finished bool not null default false,
            rows_estimated int8 not null,
            rows_seen int8 not null default 0,
            run uuid,
            worker int4,
            pid int4,
            heartbeat timestamptz,
            primary key (backfill, id)
        ) using heap with (fillfactor = 40);
        create table migration_safety.backfill_worker (
            backfill text not null references migration_safety.backfill on delete cascade,
            run uuid not null,
            number int4 not null,
            pid int4 not null,
            backend_start timestamptz not null,
            application text,
            client text,
            role text,
            rows_done int8 not null default 0,
            batches int8 not null default 0,
            started_at timestamptz not null default pg_catalog.clock_timestamp(),
            heartbeat timestamptz not null default pg_catalog.clock_timestamp(),
            primary key (backfill, run, number)
        ) using heap with (fillfactor = 40);
        create table migration_safety.backfill_error (
            backfill text not null references migration_safety.backfill on delete cascade,
            relation oid not null,
            relation_name text not null,
            place text not null,
            version text not null,
            key_columns text[],
            key text[],
            sqlstate text not null,
            message text not null,
            again bool not null default false,
            failed_at timestamptz not null default pg_catalog.clock_timestamp(),
            primary key (backfill, relation, place)
        ) using heap;
        create index on migration_safety.backfill_error (backfill, relation, pg_catalog.hash_array(key));
        create sequence {Probe} owned by migration_safety.backfill.name
        """;

    /// <summary>Translates a failure; where the role lacks a privilege here, with the GRANT that gives it.</summary>
    /// <param name="e">The failure.</param>
    /// <param name="user">Who was refused.</param>
    /// <param name="doing">What was going on.</param>
    /// <param name="target">What it is about.</param>
    /// <param name="writes">Whether what is recorded was to be changed.</param>
    internal static MigrationException Translate(Exception e, string user, string doing, string target, bool writes)
    {
        MigrationException known = ServerErrors.Translate(e, doing, target);
        string role = SqlName.QuoteIfNeeded(user);
        // In whatever language the message is, the names stand in it.
        return e is not PostgresException { SqlState: SqlStates.InsufficientPrivilege } refused || !RecordedIn().IsMatch(refused.MessageText)
            ? known
            : new MigrationException(
                known.ErrorId,
                known.Kind,
                known.Message,
                $"Have the owner of what is recorded there, or a superuser, run: GRANT USAGE ON SCHEMA migration_safety TO {role}; GRANT SELECT{(writes ? ", UPDATE, DELETE" : "")} ON {Tables} TO {role};",
                e)
            {
                SqlState = known.SqlState,
                Target = known.Target,
            };
    }

    [GeneratedRegex(@"(?<!\w)(migration_safety|backfill(_range|_worker|_error)?)(?!\w)", RegexOptions.CultureInvariant)]
    private static partial Regex RecordedIn();

    /// <summary>What a role lacks on the tables of a backfill, and with it what it lacks here.</summary>
    internal static async Task<MigrationException> WithDeniedAsync(NpgsqlConnection connection, MigrationException tables, CancellationToken cancellationToken)
    {
        try
        {
            await StepsAsync(connection, cancellationToken).ConfigureAwait(false);
            return tables;
        }
        catch (MigrationException state) when (state.Kind == MigrationErrorKind.Permission)
        {
            return new MigrationException(tables.ErrorId, tables.Kind, $"{tables.Message} {state.Message}", $"{tables.RecommendedAction} {state.RecommendedAction}", tables) { SqlState = tables.SqlState, Target = tables.Target };
        }
    }

    /// <summary>The steps that make what is missing. Reads only.</summary>
    /// <returns>No step where all is there.</returns>
    /// <exception cref="MigrationException"><c>StateSchemaMissing</c>, <c>StateSchemaDenied</c>: the role may not, the advice has the GRANT; <c>StateSchemaUnknown</c>: it has another shape.</exception>
    internal static async Task<IReadOnlyList<MigrationStep>> StepsAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        const string Query = """
            select current_user::text, pg_catalog.current_database()::text, n.oid is not null, t.found, t.known,
                   pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
                   coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false), coalesce(pg_catalog.has_schema_privilege(n.oid, 'CREATE'), false), coalesce(t.write, false), exists (select from pg_catalog.pg_class c where c.relnamespace = n.oid and c.relname = 'backfill_probe')
            from (select) as one
            left join pg_catalog.pg_namespace n on n.nspname = 'migration_safety'
            cross join lateral (
                select pg_catalog.count(*) as found,
                       pg_catalog.count(*) filter (where w.columns <@ (select pg_catalog.array_agg(a.attname::text) from pg_catalog.pg_attribute a where a.attrelid = c.oid and not a.attisdropped)) as known,
                       pg_catalog.bool_and(pg_catalog.has_table_privilege(c.oid, 'SELECT') and pg_catalog.has_table_privilege(c.oid, 'INSERT')
                                           and pg_catalog.has_table_privilege(c.oid, 'UPDATE') and pg_catalog.has_table_privilege(c.oid, 'DELETE')) as write
                from (values ('backfill', '{name,set_columns,predicate_given,kind,archive,into_table,sweep,max_errors,rows_before,rows_balance,throttle,waiting_for,settings}'::text[]), ('backfill_range', '{backfill,slices,stretch,slice_type,relation,key_columns,position,rows_seen}'),
                             ('backfill_worker', '{backfill,run,number,rows_done}'), ('backfill_error', '{backfill,relation,place,version,again}')) as w (name, columns)
                join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.name
            ) t
            """;
        await using NpgsqlCommand command = new(Query, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        string role = SqlName.QuoteIfNeeded(reader.GetString(0));
        string database = SqlName.QuoteIfNeeded(reader.GetString(1));
        (bool hasSchema, long found, long known) = (reader.GetBoolean(2), reader.GetInt64(3), reader.GetInt64(4));
        (bool mayCreateSchema, bool mayUse, bool mayCreateTable, bool mayWrite) = (reader.GetBoolean(5), reader.GetBoolean(6), reader.GetBoolean(7), reader.GetBoolean(8));
        bool hasProbe = reader.GetBoolean(9);
        if (!hasSchema && !mayCreateSchema)
        {
            throw new MigrationException(
                "StateSchemaMissing",
                MigrationErrorKind.Permission,
                $"The schema migration_safety, which keeps the checkpoints of backfills, is missing, and {role} may not create a schema in {database}.",
                $"Have the database's owner run: GRANT CREATE ON DATABASE {database} TO {role};")
            {
                Target = "migration_safety",
            };
        }

        if (found > 0 && known != 4)
        {
            throw new MigrationException(
                "StateSchemaUnknown",
                MigrationErrorKind.InvalidState,
                $"The tables of checkpoints in the schema migration_safety of {database} were made by another version of this module.",
                "Finish the backfills with that version, or give their checkpoints up, and let their owner run: drop table if exists migration_safety.backfill, migration_safety.backfill_range, migration_safety.backfill_worker, migration_safety.backfill_error;")
            {
                Target = "migration_safety",
            };
        }

        bool hasTables = found > 0;
        if (hasSchema && (!mayUse || (hasTables ? !mayWrite : !mayCreateTable)))
        {
            throw new MigrationException(
                "StateSchemaDenied",
                MigrationErrorKind.Permission,
                $"{role} may not {(hasTables ? "read and write migration_safety.backfill" : "create a table in the schema migration_safety")}, which keeps the checkpoints of backfills.",
                hasTables
                    ? $"Have their owner run: GRANT USAGE ON SCHEMA migration_safety TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON {Tables} TO {role}; GRANT UPDATE ON SEQUENCE {Probe} TO {role};"
                    : $"Have its owner run: GRANT USAGE, CREATE ON SCHEMA migration_safety TO {role};")
            {
                Target = "migration_safety",
            };
        }

        // No reversal: a rollback that drops them would take the checkpoints of every other backfill along.
        const string Note = $"What this module keeps its checkpoints in, for all backfills; no application uses it. When no backfill is unfinished, it may go: drop table {Tables};";
        List<MigrationStep> steps = [];
        if (!hasSchema)
        {
            steps.Add(new MigrationStep
            {
                Sql = StateSchema.Create,
                Purpose = "Create the schema for checkpoints",
                IsHousekeeping = true,
                Reversibility = Reversibility.NotNeeded,
                ReversalNote = Note,
            });
        }

        if (!hasTables)
        {
            steps.Add(new MigrationStep
            {
                Sql = CreateTables,
                Purpose = "Create the tables of checkpoints",
                IsHousekeeping = true,
                Reversibility = Reversibility.NotNeeded,
                ReversalNote = Note,
            });
        }
        else if (!hasProbe && mayCreateTable)
        {
            // Tables of a version that had none. Without it, too, a backfill runs.
            steps.Add(new MigrationStep
            {
                Sql = $"create sequence if not exists {Probe}",
                Purpose = "Create the sequence for trying commits",
                IsHousekeeping = true,
                Reversibility = Reversibility.NotNeeded,
                ReversalNote = $"No application uses it. When no backfill is unfinished, it may go: drop sequence {Probe};",
            });
        }

        return steps;
    }
}
