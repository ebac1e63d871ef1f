using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Says before anything is changed what a role lacks to read and write the tables of a backfill, all of it at once and as GRANT.</summary>
internal static class BackfillPrivileges
{
    // Stands for the whole table: privileges on some columns do not reach the places of rows, by which they are found.
    private const string Place = "ctid";
    private const int MostNamed = 5;

    /// <summary>Checks the tables of a definition; what its expressions and -From read besides shows when the server checks the statement (<see cref="OfStatementAsync"/>).</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="definition">Definition.</param>
    /// <param name="writes">Whether rows are to be changed, rather than only looked at.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException"><c>InsufficientPrivilege</c>.</exception>
    internal static async Task CheckAsync(NpgsqlConnection connection, BackfillDefinition definition, bool writes, CancellationToken cancellationToken)
    {
        const string Query = """
            with needed as (
                select * from rows from (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) with ordinality as n (relation, privilege, col, position)
                union all
                -- Of an identity column the server itself draws the value.
                select d.refobjid, 'USAGE', '', 0
                from pg_catalog.pg_attrdef f
                join pg_catalog.pg_attribute a on a.attrelid = f.adrelid and a.attnum = f.adnum
                join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and d.objid = f.oid and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                where f.adrelid = $4 and a.attname <> all ($5)
            )
            select distinct on (n.position, c.oid)
                   current_user::text, s.nspname::text, c.relname::text, pg_catalog.pg_get_userbyid(c.relowner)::text, pg_catalog.pg_get_userbyid(s.nspowner)::text,
                   pg_catalog.has_schema_privilege(s.oid, 'USAGE'), c.relkind = 'S', n.privilege, n.col,
                   not case when c.relkind = 'S' then pg_catalog.has_sequence_privilege(c.oid, 'USAGE, UPDATE')
                            when n.col is null then pg_catalog.has_table_privilege(c.oid, n.privilege)
                            when n.col = '' then pg_catalog.has_any_column_privilege(c.oid, n.privilege)
                            else pg_catalog.has_column_privilege(c.oid, n.col, n.privilege) end,
                   c.relkind <> 'S' and pg_catalog.row_security_active(c.oid)
            from needed n
            join pg_catalog.pg_class c on c.oid = n.relation
            join pg_catalog.pg_namespace s on s.oid = c.relnamespace
            where c.relkind = 'S' or n.position > 0
            order by n.position, c.oid
            """;
        List<Need> needs = [.. Needs(definition, writes)];
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters =
            {
                new() { Value = needs.Select(need => need.Relation).ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Oid },
                new() { Value = needs.Select(need => need.Privilege).ToArray() },
                new() { Value = needs.Select(need => need.Column).ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text },
                new() { Value = writes && definition.Into is { } into ? into.Table.Oid : 0u, NpgsqlDbType = NpgsqlDbType.Oid },
                new() { Value = definition.Set.Select(column => column.Name).ToArray() },
            },
        };
        List<Row> rows = [];
        string role = "";
        await using (NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false))
        {
            while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                role = SqlName.QuoteIfNeeded(reader.GetString(0));
                rows.Add(new Row(
                    SqlName.QuoteIfNeeded(reader.GetString(1)),
                    SqlName.QuoteIfNeeded(reader.GetString(2)),
                    reader.GetString(3),
                    reader.GetString(4),
                    reader.GetBoolean(5),
                    reader.GetBoolean(6),
                    reader.GetString(7),
                    reader.Text(8) is { Length: > 0 } column && column != Place ? column : null,
                    reader.GetBoolean(9),
                    reader.GetBoolean(10)));
            }
        }

        if ((Denied(rows, role, definition.Table.Display) ?? Filtered(rows, role, definition.Table.Display)) is { } refused)
        {
            throw refused;
        }
    }

    /// <summary>Whether the role may pause within a batch: some servers take pg_sleep from everybody.</summary>
    internal static async Task<bool> MayPauseAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new("select pg_catalog.has_function_privilege('pg_catalog.pg_sleep(float8)', 'EXECUTE')", connection);
        return (bool)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
    }

    /// <summary>What a statement reads without being allowed to, where the server has just refused it; null where that cannot be told.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="statement">The statement, without parameters.</param>
    /// <param name="target">The table that the backfill is about.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<MigrationException?> OfStatementAsync(NpgsqlConnection connection, string statement, string target, CancellationToken cancellationToken)
    {
        // To analyse a statement the server needs no privilege on its tables, and locks each of them until the transaction ends: so they are known. What a view reads is its owner's matter, unless the statement names it too.
        const string Query = """
            with used as (
                select distinct c.*
                from pg_catalog.pg_locks l
                join pg_catalog.pg_class c on c.oid = l.relation
                where l.pid = pg_catalog.pg_backend_pid() and l.locktype = 'relation' and c.relkind in ('r', 'p', 'v', 'm', 'f')
                  and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
            )
            select current_user::text, s.nspname::text, c.relname::text, pg_catalog.pg_get_userbyid(c.relowner)::text, pg_catalog.pg_get_userbyid(s.nspowner)::text,
                   exists (select from pg_catalog.pg_depend d
                           join pg_catalog.pg_rewrite r on r.oid = d.objid
                           join used v on v.oid = r.ev_class and v.oid <> c.oid
                           where d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = c.oid)
            from used c
            join pg_catalog.pg_namespace s on s.oid = c.relnamespace
            where not pg_catalog.has_any_column_privilege(c.oid, 'SELECT')
            order by 2, 3
            """;
        await using NpgsqlBatch batch = new(connection) { BatchCommands = { new($"prepare msb_refused as {statement}"), new(Query), new("deallocate msb_refused") } };
        List<Row> rows = [];
        string role = "";
        try
        {
            await using NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                role = SqlName.QuoteIfNeeded(reader.GetString(0));
                if (reader.GetBoolean(5) && !statement.Contains(reader.GetString(2), StringComparison.OrdinalIgnoreCase))
                {
                    continue;
                }

                rows.Add(new Row(
                    SqlName.QuoteIfNeeded(reader.GetString(1)), SqlName.QuoteIfNeeded(reader.GetString(2)), reader.GetString(3), reader.GetString(4), MayUse: true, IsSequence: false, "SELECT", Column: null, IsMissing: true, IsFiltered: false));
            }
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.InsufficientPrivilege)
        {
            return await SchemaUsage.DeniedAsync(connection, e, target, cancellationToken).ConfigureAwait(false);
        }

        return Denied(rows, role, target);
    }

    private static IEnumerable<Need> Needs(BackfillDefinition definition, bool writes)
    {
        if (definition.IsTree)
        {
            yield return new Need(definition.Table.Oid, "SELECT", Place);
        }

        foreach (uint leaf in definition.Leaves.Select(leaf => leaf.Table.Oid))
        {
            yield return new Need(leaf, "SELECT", Place);
            if (!writes)
            {
                continue;
            }

            if (definition.Kind == BackfillKind.Delete)
            {
                yield return new Need(leaf, "DELETE", null);
            }

            // Whoever is to lock a row has to be allowed to update something of it.
            foreach (string column in definition.Kind == BackfillKind.Update ? definition.ChangedColumns : [""])
            {
                yield return new Need(leaf, "UPDATE", column);
            }
        }

        if (definition.Into is not { } into)
        {
            yield break;
        }

        foreach (string column in writes ? into.Key.Select(column => column.Name) : into.Columns.Select(column => column.Name))
        {
            yield return new Need(into.Table.Oid, "SELECT", column);
        }

        if (writes)
        {
            foreach (string column in into.Columns.Select(column => column.Name))
            {
                yield return new Need(into.Table.Oid, "INSERT", column);
            }
        }
    }

    private static MigrationException? Filtered(IEnumerable<Row> rows, string role, string target)
    {
        string[] filtered = [.. rows.Where(row => row.IsFiltered).Select(row => row.Object).Distinct()];
        return filtered.Length == 0 ? null : new MigrationException(
            "InsufficientPrivilege",
            MigrationErrorKind.Permission,
            $"Policies for row-level security of {Listed(filtered)} apply to {role}: rows that they hide would be passed over, and nobody would know.",
            $"Connect as a role to which they do not apply: the owner of the table, unless it forces them on him too, or one that a superuser has let pass all policies: ALTER ROLE {role} BYPASSRLS;")
        {
            Target = target,
        };
    }

    private static MigrationException? Denied(IReadOnlyList<Row> rows, string role, string target)
    {
        string[] schemas = [.. rows.Where(row => !row.MayUse).Select(row => row.Schema).Distinct()];
        var missing = rows.Where(row => row.IsMissing)
            .GroupBy(row => (row.IsSequence, row.Object))
            .GroupBy(ofObject => (ofObject.Key.IsSequence, Privileges: string.Join(", ", ofObject.GroupBy(row => row.Privilege).Select(Text))), ofObject => ofObject.Key.Object)
            .ToArray();
        if (schemas.Length == 0 && missing.Length == 0)
        {
            return null;
        }

        IEnumerable<string> lacking = schemas.Select(schema => $"USAGE on schema {schema}")
            .Concat(missing.Select(group => $"{group.Key.Privileges} on {(group.Key.IsSequence ? "sequence " : "")}{Listed([.. group])}"));
        IEnumerable<string> grants = schemas.Select(schema => $"GRANT USAGE ON SCHEMA {schema} TO {role};")
            .Concat(missing.Select(group => $"GRANT {group.Key.Privileges} ON {(group.Key.IsSequence ? "SEQUENCE " : "")}{string.Join(", ", group)} TO {role};"));
        string[] owners = [.. rows.Where(row => row.IsMissing).Select(row => row.Owner).Concat(rows.Where(row => !row.MayUse).Select(row => row.SchemaOwner)).Distinct().Select(SqlName.QuoteIfNeeded)];
        bool locks = rows.Any(row => row is { IsMissing: true, Privilege: "UPDATE", Column: null });
        return new MigrationException(
            "InsufficientPrivilege",
            MigrationErrorKind.Permission,
            $"{role} lacks what this backfill needs: {string.Join("; ", lacking)}.{(locks ? " UPDATE, because it locks rows, for which PostgreSQL asks that." : "")} Nothing was changed.",
            $"Let {(owners.Length == 1 ? $"the owner ({owners[0]})" : $"the owners ({string.Join(", ", owners)})")} or a superuser run: {string.Join(" ", grants)}")
        {
            Target = target,
        };
    }

    private static string Text(IGrouping<string, Row> privilege) => privilege.Any(row => row.Column is null)
        ? privilege.Key
        : $"{privilege.Key} ({string.Join(", ", privilege.Select(row => SqlName.QuoteIfNeeded(row.Column!)))})";

    private static string Listed(string[] names) => names.Length <= MostNamed ? string.Join(", ", names) : $"{string.Join(", ", names.Take(MostNamed))} and {names.Length - MostNamed} more";

    /// <summary>A privilege that is needed.</summary>
    /// <param name="Relation">Oid of the table.</param>
    /// <param name="Privilege">Privilege.</param>
    /// <param name="Column">On which column; empty for any, null for the whole table.</param>
    private sealed record Need(uint Relation, string Privilege, string? Column);

    /// <summary>A need beside what the catalog has; names are quoted for SQL, those of owners are not.</summary>
    private sealed record Row(string Schema, string Name, string Owner, string SchemaOwner, bool MayUse, bool IsSequence, string Privilege, string? Column, bool IsMissing, bool IsFiltered)
    {
        internal string Object => $"{Schema}.{Name}";
    }
}
