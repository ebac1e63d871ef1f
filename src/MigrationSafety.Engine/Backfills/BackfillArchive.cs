using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Names;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>A column whose old value is kept.</summary>
/// <param name="Name">Name, as in the table and in the archive.</param>
/// <param name="Type">Type, as a cast writes it.</param>
/// <param name="Written">The archive's column for what the backfill wrote; null where the row was deleted.</param>
internal sealed record KeptColumn(string Name, string Type, string? Written);

/// <summary>
/// The table in migration_safety that keeps what a backfill overwrites or deletes, filled by the statement that changes the rows: key, old values and what was written instead, or the whole
/// row. Entries are only ever added, in the order of the changes, so that a row that was changed twice has two; taken back latest first, it ends as it was.
/// </summary>
/// <param name="Name">Its name.</param>
/// <param name="Id">Its column that counts the entries.</param>
/// <param name="Source">Its column that names the table, a partition for one, that the row was in.</param>
/// <param name="Key">Columns of the key by which a row is found again.</param>
/// <param name="Columns">The columns that are kept: those that are set, or all where rows are deleted.</param>
/// <param name="EntryBytes">Size of an entry, index included, estimated.</param>
internal sealed record BackfillArchive(string Name, string Id, string Source, IReadOnlyList<KeyColumn> Key, IReadOnlyList<KeptColumn> Columns, double EntryBytes)
{
    private const string NotKeptMark = "msb_not_kept";

    // Of an entry: header and line pointer, counter, source, and its place in the index.
    private const double FixedBytes = 24 + 4 + 8 + 4 + 20;

    /// <summary>Whether what it keeps are the keys of rows that were copied into a table, so that they can be told from those that were there before.</summary>
    internal bool Copies { get; private init; }

    /// <summary>Whether its key tells a row of the whole table, in whichever partition it is; else the key is one of each part alone.</summary>
    internal bool Spans { get; private init; }

    /// <summary>Tables in which foreign keys delete or change rows along with those that are deleted, for people; none where columns are set.</summary>
    internal string[] Cascades { get; private init; } = [];

    internal string Sql => SqlName.Quote("migration_safety", Name);

    internal string Display => Table(Name);

    /// <summary>The table of an archive, for people.</summary>
    internal static string Table(string name) => $"migration_safety.{SqlName.QuoteIfNeeded(name)}";

    /// <summary>Whether whole rows are kept, because they are deleted.</summary>
    internal bool Whole => !Copies && Columns.All(column => column.Written is null);

    /// <summary>Whether the rows of a part of the table can be found again by the archive's key.</summary>
    internal bool Fits(BackfillLeaf leaf) => Copies || leaf.Key.Select(column => column.Name).Order(StringComparer.Ordinal).SequenceEqual(Key.Select(column => column.Name).Order(StringComparer.Ordinal));

    /// <summary>The archive that a definition needs. Reads only.</summary>
    /// <exception cref="MigrationException"><c>UniqueIndexMissing</c>, <c>KeysDiffer</c>: the rows could not be found again.</exception>
    internal static async Task<BackfillArchive> FindAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken)
    {
        if (definition.Leaves.Count == 0)
        {
            throw new MigrationException(
                "NothingToKeep", MigrationErrorKind.InvalidState, $"{definition.Table.Display} has no part that holds rows: there is no key by which an old value could be kept.", "Leave -KeepOldValues out until it has a partition.")
            {
                Target = definition.Table.Display,
            };
        }

        if (definition.Leaves.FirstOrDefault(leaf => leaf.Key.Count == 0) is { } keyless)
        {
            throw new MigrationException(
                "UniqueIndexMissing",
                MigrationErrorKind.NotSupported,
                $"{keyless.Table.Display} has no unique B-tree index over NOT NULL columns that this backfill does not set: an old value could not be put back, because rows move and nothing but a key finds them again.",
                "Give the table a key without blocking anybody: Invoke-SafeIndexBuild -Unique on columns that are NOT NULL. Or leave -KeepOldValues out and copy what is needed beforehand.")
            {
                Target = keyless.Table.Display,
            };
        }

        const string Query = """
            select a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), coalesce(s.avg_width, case when t.typlen > 0 then t.typlen else 32 end)::float8
            from pg_catalog.pg_attribute a
            join pg_catalog.pg_type t on t.oid = a.atttypid
            left join lateral (
                select pg_catalog.max(p.avg_width) as avg_width from pg_catalog.pg_stats p where p.schemaname = $2 and p.tablename = $3 and p.attname = a.attname
            ) s on true
            where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
            order by a.attnum
            """;
        List<(string Name, string Type, double Width)> all = [];
        await using (NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = definition.Table.Oid, NpgsqlDbType = NpgsqlDbType.Oid }, new() { Value = definition.Table.Schema }, new() { Value = definition.Table.Name } },
        })
        {
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                all.Add((reader.GetString(0), reader.GetString(1), reader.GetDouble(2)));
            }
        }

        IReadOnlyList<KeyColumn> key = definition.Leaves[0].Key;
        bool whole = definition.Kind == BackfillKind.Delete;
        if (whole)
        {
            await RefuseMoreColumnsAsync(connection, definition, cancellationToken).ConfigureAwait(false);
        }

        var columns = whole ? all : [.. definition.Set.Select(column => all.First(c => c.Name == column.Name))];
        HashSet<string> taken = [.. key.Select(column => column.Name), .. columns.Select(column => column.Name)];
        BackfillArchive archive = new(
            NameOf(definition),
            Free("kept_id", taken),
            Free("kept_from", taken),
            key,
            [.. columns.Select(column => new KeptColumn(column.Name, column.Type, whole ? null : Free("new_" + column.Name, taken)))],
            FixedBytes + (whole ? all.Sum(column => column.Width) : all.Where(column => key.Any(k => k.Name == column.Name)).Sum(column => column.Width) + (2 * columns.Sum(column => column.Width))));
        foreach (BackfillLeaf leaf in definition.Leaves)
        {
            archive.Check(leaf);
        }

        archive = archive with { Spans = await SpansAsync(connection, definition, cancellationToken).ConfigureAwait(false) };
        return whole ? archive with { Cascades = await CascadesAsync(connection, definition, cancellationToken).ConfigureAwait(false) } : archive;
    }

    private static async Task<bool> SpansAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken)
    {
        const string Query = """
            select exists (
                select from pg_catalog.pg_index x join pg_catalog.pg_class c on c.oid = x.indrelid and c.relkind = 'p'
                cross join lateral (
                    select pg_catalog.array_agg(a.attname::text) as columns from pg_catalog.pg_attribute a where a.attrelid = x.indrelid and a.attnum = any ((x.indkey::int2[])[0:x.indnkeyatts - 1])
                ) k
                where x.indrelid = $1 and x.indisunique and x.indisvalid and x.indpred is null and x.indexprs is null and k.columns @> $2 and k.columns <@ $2)
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = definition.Table.Oid, NpgsqlDbType = NpgsqlDbType.Oid }, new() { Value = definition.Leaves[0].KeyNames } },
        };
        return (bool)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
    }

    /// <summary>The archive of the keys of rows that are copied into a table that was not empty.</summary>
    internal static BackfillArchive OfCopies(BackfillDefinition definition)
    {
        BackfillTarget into = definition.Into!;
        HashSet<string> taken = [.. into.Key.Select(column => column.Name)];
        return new BackfillArchive(NameOf(definition), Free("kept_id", taken), Free("kept_from", taken), into.Key, [], FixedBytes + (16 * into.Key.Count)) { Copies = true };
    }

    /// <summary>Refuses a table that inherits and has columns of its own: the archive has those of the table that was named.</summary>
    /// <exception cref="MigrationException"><c>ColumnsDiffer</c>.</exception>
    private static async Task RefuseMoreColumnsAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken)
    {
        const string Query = """
            select a.attrelid, pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' order by a.attnum)
            from pg_catalog.pg_attribute a
            where a.attrelid = any ($2) and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
              and not exists (select from pg_catalog.pg_attribute r where r.attrelid = $1 and r.attname = a.attname and r.attnum > 0 and not r.attisdropped and r.attgenerated = '')
            group by 1
            order by 1
            limit 1
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters =
            {
                new() { Value = definition.Table.Oid, NpgsqlDbType = NpgsqlDbType.Oid },
                new() { Value = definition.Leaves.Select(leaf => leaf.Table.Oid).ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Oid },
            },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        if (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            uint relation = reader.GetFieldValue<uint>(0);
            string table = definition.Leaves.First(leaf => leaf.Table.Oid == relation).Table.Display;
            throw new MigrationException(
                "ColumnsDiffer",
                MigrationErrorKind.NotSupported,
                $"{table}, which inherits from {definition.Table.Display}, has columns of its own ({reader.GetString(1)}): the archive of {definition.Table.Display} could not keep them, and they could not be put back.",
                "Delete from the tables one by one, each with an archive of its own; or leave -KeepOldValues out and copy what is needed beforehand.")
            {
                Target = table,
            };
        }
    }

    private static async Task<string[]> CascadesAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken)
    {
        // Of a foreign key between partitioned tables each partition has one as well.
        const string Query = """
            select distinct n.nspname::text, c.relname::text
            from pg_catalog.pg_constraint f
            join pg_catalog.pg_class c on c.oid = f.conrelid
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where f.contype = 'f' and f.confdeltype in ('c', 'n', 'd') and f.confrelid = any ($1) and not c.relispartition
            order by 1, 2
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = definition.Leaves.Select(leaf => leaf.Table.Oid).Append(definition.Table.Oid).ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Oid } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<string> tables = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            tables.Add($"{SqlName.QuoteIfNeeded(reader.GetString(0))}.{SqlName.QuoteIfNeeded(reader.GetString(1))}");
        }

        return [.. tables];
    }

    /// <summary>Refuses a part of the table whose key is not the archive's.</summary>
    /// <exception cref="MigrationException"><c>KeysDiffer</c>.</exception>
    internal void Check(BackfillLeaf leaf)
    {
        if (!Fits(leaf))
        {
            throw new MigrationException(
                "KeysDiffer",
                MigrationErrorKind.NotSupported,
                $"{leaf.Table.Display} has {(leaf.Key.Count == 0 ? "no key" : $"the key ({leaf.KeyText})")}, but other parts of the table have ({string.Join(", ", Key.Select(column => SqlName.QuoteIfNeeded(column.Name)))}): one archive could not keep the old values of both.",
                "Backfill the parts one by one, each with an archive of its own.")
            {
                Target = leaf.Table.Display,
            };
        }
    }

    /// <summary>The steps that make it where it is missing. Reads only.</summary>
    /// <returns>No step where it is there.</returns>
    /// <exception cref="MigrationException"><c>ArchiveDenied</c>, <c>ArchiveDiffers</c>.</exception>
    internal async Task<IReadOnlyList<MigrationStep>> StepsAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        const string Query = """
            select current_user::text, c.oid is not null, pg_catalog.has_table_privilege(c.oid, 'INSERT'),
                   coalesce(pg_catalog.has_schema_privilege(n.oid, 'CREATE'), true),
                   array(select a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod) from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
                   array(select distinct pg_catalog.quote_ident(r.rolname)
                         from pg_catalog.pg_default_acl d
                         cross join lateral pg_catalog.aclexplode(d.defaclacl) x
                         join pg_catalog.pg_roles r on r.oid = x.grantee
                         join pg_catalog.pg_roles o on o.oid = d.defaclrole and o.rolname = current_user
                         where d.defaclobjtype = 'r' and d.defaclnamespace in (0, n.oid) and x.grantee <> o.oid
                         order by 1)
            from (select) as one
            left join pg_catalog.pg_namespace n on n.nspname = 'migration_safety'
            left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = $1
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = Name } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        string role = SqlName.QuoteIfNeeded(reader.GetString(0));
        if (!reader.GetBoolean(1))
        {
            return reader.GetBoolean(3)
                ? [Create(reader.GetFieldValue<string[]>(5))]
                : throw Denied($"{role} may not create a table in the schema migration_safety, which is to keep the old values.", $"Have its owner run: GRANT USAGE, CREATE ON SCHEMA migration_safety TO {role};");
        }

        if (!reader.GetBoolean(2))
        {
            throw Denied($"{role} may not write to {Display}, which keeps the old values.", $"Have its owner run: GRANT INSERT ON {Display} TO {role};");
        }

        string[] has = reader.GetFieldValue<string[]>(4);
        string[] missing = [.. Shape.Where(column => !has.Contains($"{column.Name} {column.Type}")).Select(column => $"{SqlName.QuoteIfNeeded(column.Name)} {column.Type}")];
        return missing.Length == 0
            ? []
            : throw new MigrationException(
                "ArchiveDiffers",
                MigrationErrorKind.InvalidState,
                $"{Display}, the archive of an earlier run, lacks {string.Join(", ", missing)}: columns of the table, or their types, have changed since.",
                $"Put its old values back first (New-RollbackScript), or keep it under another name and begin a new one: alter table {Display} rename to ...;")
            {
                Target = Display,
            };
    }

    /// <summary>Adds what a statement has changed, from the rows of its CTE <c>msb_changed</c>. It fails where a column that is kept has another type by now, and where rows are deleted also when they have one that is not kept.</summary>
    /// <param name="relation">Oid of the part of the table.</param>
    internal string Add(uint relation)
    {
        string columns = string.Join(", ", Shape.Skip(1).Select(column => SqlName.Quote(column.Name)));
        string from = string.Create(CultureInfo.InvariantCulture, $"{relation}::oid::pg_catalog.regclass");
        return $"insert into {Sql} ({columns}) select {(Copies ? from : $"coalesce({NotKept(from)}, {from})")}, {string.Join(", ", Outputs)} from msb_changed";
    }

    /// <summary>What a statement fails with, because the archive cannot keep a column as it is by now: one that was added or has another type; null where it is something else.</summary>
    internal MigrationException? Outgrown(PostgresException e, string table) => e.SqlState != SqlStates.UndefinedTable || !e.MessageText.Contains(NotKeptMark, StringComparison.Ordinal) ? null : new MigrationException(
        "ArchiveDiffers",
        MigrationErrorKind.InvalidState,
        Whole
            ? $"A column was added to {table} while the backfill ran, or got another type, which {Display} does not keep: no row is deleted any more."
            : $"A column of {table} got another type while the backfill ran, which {Display} does not keep: no row is changed any more.",
        $"What is {(Whole ? "deleted" : "changed")} is kept, and can be put back. Give the backfill of the rows that are left another -Name: it keeps the column as it is, in an archive of its own.",
        e)
    {
        SqlState = e.SqlState,
        Target = table,
    };

    // The name of a table that is not there: as an error it is one of the statement, and of no row. A value of another type would be rounded or cut to that of the archive.
    private string NotKept(string relation)
    {
        string kept = $"array[{string.Join(", ", Columns.Select(column => column.Name).Union(Key.Select(column => column.Name)).Select(SqlName.Literal))}]";
        return $"""
            (select pg_catalog.quote_ident('{NotKeptMark} ' || a.attname)::pg_catalog.regclass from pg_catalog.pg_attribute a
             where a.attrelid = {relation} and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
               and case when a.attname = any ({kept})
                        then not exists (select from pg_catalog.pg_attribute k where k.attrelid = {SqlName.Literal(Sql)}::pg_catalog.regclass and k.attname = a.attname and (k.atttypid, k.atttypmod) = (a.atttypid, a.atttypmod))
                        else {(Whole ? "true" : "false")} end
             limit 1)
            """;
    }

    /// <summary>What is read of a row before it is changed.</summary>
    /// <param name="qualifier">The table's name in the statement.</param>
    internal string Before(string qualifier) => string.Join(", ", BeforeColumns.Select((name, i) => $"{qualifier}.{SqlName.Quote(name)} as msb_old{i + 1}"));

    /// <summary>What the change returns of a row.</summary>
    /// <param name="qualifier">The table's name in the statement.</param>
    internal string Returned(string qualifier) => Whole || Copies
        ? Before(qualifier)
        : string.Join(", ", BeforeColumns.Select((_, i) => $"msb_old{i + 1}").Concat(Columns.Select((column, i) => $"{qualifier}.{SqlName.Quote(column.Name)} as msb_new{i + 1}")));

    private IEnumerable<string> BeforeColumns => Copies ? Key.Select(column => column.Name) : Whole ? Columns.Select(column => column.Name) : Key.Select(column => column.Name).Concat(Columns.Select(column => column.Name));

    private IEnumerable<string> Outputs => BeforeColumns.Select((_, i) => $"msb_old{i + 1}").Concat(Whole ? [] : Columns.Select((_, i) => $"msb_new{i + 1}"));

    /// <summary>Its columns: the counter, the source, and in the order of <see cref="Outputs"/> what is kept.</summary>
    private IEnumerable<(string Name, string Type)> Shape =>
    [
        (Id, "bigint"),
        (Source, "regclass"),
        .. Whole ? [] : Key.Select(column => (column.Name, column.Type)),
        .. Columns.Select(column => (column.Name, column.Type)),
        .. Columns.Where(column => column.Written is not null).Select(column => (column.Written!, column.Type)),
    ];

    private MigrationStep Create(string[] granted)
    {
        IEnumerable<string> lines = Shape.Select((column, i) => $"    {SqlName.QuoteIfNeeded(column.Name)} {column.Type}{(i == 0 ? " generated always as identity primary key" : i == 1 ? " not null" : "")}");
        return new MigrationStep
        {
            Sql = $"create table {Display} (\n{string.Join(",\n", lines)}\n) using heap;\nrevoke all on {Display} from {string.Join(", ", granted.Prepend("public"))}",
            Purpose = $"Create the archive of {(Copies ? "copied keys" : Whole ? "deleted rows" : "old values")}",
            IsHousekeeping = true,
            Reversibility = Reversibility.NotNeeded,
            ReversalNote = $"It keeps {(Copies ? "the keys of the rows that the backfill inserts" : $"what the backfill {(Whole ? "deletes" : "overwrites")}")}, and goes when all of it has been taken back. When nothing of it is needed any more: Remove-Backfill -DropArchive, or drop table {Display};",
        };
    }

    private MigrationException Denied(string message, string advice) => new("ArchiveDenied", MigrationErrorKind.Permission, message, advice) { Target = Display };

    private static string NameOf(BackfillDefinition definition)
    {
        string hash = Convert.ToHexString(SHA256.HashData(Encoding.UTF8.GetBytes($"{definition.Name}\n{definition.Table.Schema}.{definition.Table.Name}")))[..8].ToLowerInvariant();
        string[] of = definition.Into is { } into ? [into.Table.Name] : [definition.Table.Name, .. definition.Set.Select(column => column.Name)];
        return SqlReader.CutToBytes(string.Join('_', ["kept", hash, .. of]), ChosenName.MaxBytes);
    }

    /// <summary>A name that no other column has.</summary>
    private static string Free(string wanted, HashSet<string> taken)
    {
        string name = SqlReader.CutToBytes(wanted, ChosenName.MaxBytes);
        for (int i = 2; !taken.Add(name); i++)
        {
            string number = string.Create(CultureInfo.InvariantCulture, $"_{i}");
            name = SqlReader.CutToBytes(wanted, ChosenName.MaxBytes - number.Length) + number;
        }

        return name;
    }
}
