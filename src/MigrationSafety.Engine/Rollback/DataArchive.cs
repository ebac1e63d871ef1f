using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using MigrationSafety.Engine.Names;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What is kept in migration_safety before a migration that would lose it, and how it comes back: in batches that commit one by one.</summary>
internal sealed class DataArchive
{
    private const int BatchRows = 1000;

    private readonly string _source;
    private readonly HashSet<string> _names = [];

    /// <param name="source">The migration, which gives its archives their names.</param>
    internal DataArchive(string source) => _source = source;

    /// <summary>The statements to run before the migration.</summary>
    internal List<RollbackStatement> Before { get; } = [];

    /// <summary>Keeps the rows of a query.</summary>
    /// <param name="r">The statement that loses them.</param>
    /// <param name="table">The table that they are of, as it is named before the migration.</param>
    /// <param name="part">What of it: a column; empty for rows.</param>
    /// <param name="query">Query, with the names from before the migration.</param>
    /// <returns>The archive.</returns>
    internal QualifiedName Keep(Reversing r, QualifiedName table, string part, string query)
    {
        string hash = Convert.ToHexString(SHA256.HashData(Encoding.UTF8.GetBytes($"{_source}\n{r.Forward.Statement.Line}\n{table}\n{part}\n{query}")))[..8].ToLowerInvariant();
        string plain = $"kept_{hash}_{table.Name}{(part.Length > 0 ? "_" : "")}{part}";
        QualifiedName archive = new("migration_safety", SqlReader.CutToBytes(plain, ChosenName.MaxBytes));
        if (_names.Add(archive.Name))
        {
            Before.Add(r.Forward.By(
                [("create schema if not exists migration_safety", null), ($"create table if not exists {archive} as {query}", null)],
                $"Keeps what {table}{(part.Length > 0 ? "." + SqlName.QuoteIfNeeded(part) : "")} would lose."));
        }

        return archive;
    }

    /// <summary>Puts values back into the rows that still have their key.</summary>
    /// <param name="r">The statement that loses them.</param>
    /// <param name="archive">Archive.</param>
    /// <param name="table">Table.</param>
    /// <param name="relation">It, before the migration.</param>
    /// <param name="key">Columns of the key, by their name now and in the archive.</param>
    /// <param name="columns">Columns, the same way.</param>
    /// <param name="reversible">Whether nothing is lost.</param>
    /// <param name="note">What must be known.</param>
    internal static RollbackStatement Values(
        Reversing r, QualifiedName archive, QualifiedName table, CatalogRelation relation, IEnumerable<(string Now, string Kept)> key, IEnumerable<(string Now, string Kept)> columns, bool reversible, string note)
    {
        (string Now, string Kept)[] keys = [.. key.Select(k => (SqlName.QuoteIfNeeded(k.Now), SqlName.QuoteIfNeeded(k.Kept)))];
        string set = string.Join(", ", columns.Select(c => $"{SqlName.QuoteIfNeeded(c.Now)} = batch.{SqlName.QuoteIfNeeded(c.Kept)}"));
        string write = $"update {table} as t set {set} from batch where {string.Join(" and ", keys.Select(k => $"t.{k.Now} = batch.{k.Kept}"))}";
        return Batches(r, archive, table, relation.HasRules, write, string.Join(", ", keys.Select(k => "t." + k.Now)), $"not exists (select from put where {string.Join(" and ", keys.Select(k => $"put.{k.Now} = batch.{k.Kept}"))})", reversible, note);
    }

    /// <summary>Puts rows back that are not there.</summary>
    internal static RollbackStatement Rows(Reversing r, QualifiedName archive, QualifiedName table, CatalogRelation relation, bool reversible, string note) =>
        Insert(r, archive, table, relation, "do nothing", reversible, note);

    /// <summary>Puts rows back, those that are there with other values too.</summary>
    internal static RollbackStatement RowsOver(Reversing r, QualifiedName archive, QualifiedName table, CatalogRelation relation, bool reversible, string note)
    {
        string[] others = [.. relation.StoredColumns.Except(relation.Key).Select(SqlName.QuoteIfNeeded)];
        string set = others.Length == 0 ? "nothing" : $"update set {string.Join(", ", others.Select(c => $"{c} = excluded.{c}"))}";
        return Insert(r, archive, table, relation, $"({string.Join(", ", relation.Key.Select(SqlName.QuoteIfNeeded))}) do {set}", reversible, note);
    }

    private static RollbackStatement Insert(Reversing r, QualifiedName archive, QualifiedName table, CatalogRelation relation, string onConflict, bool reversible, string note)
    {
        string[] all = [.. relation.StoredColumns.Select(SqlName.QuoteIfNeeded)];
        string[] keys = [.. relation.Key.Select(SqlName.QuoteIfNeeded)];
        string list = string.Join(", ", all);

        // Whole rows are compared as text: json and others have no equality. Without a key nothing else tells rows apart.
        string Row(string of) => $"row({string.Join(", ", all.Select(c => $"{of}.{c}"))})::text";
        string Same(string of) => keys.Length == 0 ? $"{Row(of)} = {Row("batch")}" : string.Join(" and ", keys.Select(k => $"{of}.{k} = batch.{k}"));
        return Batches(
            r,
            archive,
            table,
            relation.HasRules,
            $"insert into {table} as t ({list}) overriding system value select {list} from batch on conflict {onConflict}",
            string.Join(", ", (keys.Length == 0 ? all : keys).Select(c => "t." + c)),
            $"not exists (select from put where {Same("put")}) and not exists (select from {table} as t where {(keys.Length == 0 ? "" : Same("t") + " and ")}{Row("t")} = {Row("batch")})",
            reversible,
            note);
    }

    /// <summary>Moves an archive back batch by batch; what finds no place any more is moved aside, for nothing else holds it.</summary>
    /// <param name="r">The statement that loses it.</param>
    /// <param name="archive">Archive.</param>
    /// <param name="table">Table.</param>
    /// <param name="rules">Whether it has rules, which PostgreSQL takes neither beside WITH nor beside ON CONFLICT: they are gone in the transaction of each batch, and for nobody else.</param>
    /// <param name="write">Writes the rows of <c>batch</c> into <c>t</c>.</param>
    /// <param name="returning">What tells a row that was written.</param>
    /// <param name="left">Whether a row of <c>batch</c> is neither among those of <c>put</c> nor there as it was.</param>
    /// <param name="reversible">Whether nothing is lost.</param>
    /// <param name="note">What must be known.</param>
    private static RollbackStatement Batches(Reversing r, QualifiedName archive, QualifiedName table, bool rules, string write, string returning, string left, bool reversible, string note)
    {
        QualifiedName aside = archive with { Name = "left" + archive.Name["kept".Length..] };

        // ON CONFLICT is refused beside a rule that is switched off, too. The script lifts its time-out for what is not transactional, and nobody is to queue behind this. What is
        // deferred would keep ALTER TABLE from its work.
        string declare = rules ? "\ndeclare\n    rules_off text;\n    rules_on text;" : "";
        string here = SqlName.Literal(table.ToString());
        string off = !rules ? "" : "\n" + $"""
                    perform set_config('lock_timeout', '500ms', true);
                    lock table {table} in access exclusive mode;
                    select coalesce(string_agg(format('drop rule %I on %s;', rulename, {here}), ' '), ''),
                           coalesce(string_agg(format(
                               '%1$s alter table %2$s %3$s rule %4$I; comment on rule %4$I on %2$s is %5$L;',
                               pg_get_ruledef(oid), {here}, case ev_enabled when 'O' then 'enable' when 'A' then 'enable always' when 'R' then 'enable replica' else 'disable' end, rulename, obj_description(oid, 'pg_rewrite')), ' '), '')
                    into rules_off, rules_on
                    from pg_rewrite where ev_class = {here}::regclass and ev_type <> '1';
                    execute rules_off;
            """;
        string on = rules ? "\n        set constraints all immediate;\n        execute rules_on;" : "";

        // Where all were written nothing is compared: a trigger may have changed them on their way.
        string sql = string.Create(CultureInfo.InvariantCulture, $"""
            do $rollback${declare}
            begin
                if to_regclass({SqlName.Literal(archive.ToString())}) is null then
                    return;
                end if;
                create table if not exists {aside} (like {archive});
                loop{off}
                    with batch as (
                        delete from {archive} where ctid = any (array(select ctid from {archive} limit {BatchRows})) returning *
                    ), put as (
                        {write}
                        returning {returning}
                    )
                    insert into {aside} select * from batch
                    where (select count(*) from put) < (select count(*) from batch)
                        and {left};{on}
                    exit when not exists (select from {archive});
                    commit;
                end loop;
                drop table {archive};
                if exists (select from {aside}) then
                    raise warning using
                        message = (select format('%s rows kept of %s found no place there: they are in %s', count(*), {SqlName.Literal(table.ToString())}, {SqlName.Literal(aside.ToString())}) from {aside}),
                        hint = 'Rows with their keys, or with values that must be unique, have come since; or those that they belong to have gone. See to them, and drop the table.';
                else
                    drop table {aside};
                end if;
            end
            $rollback$
            """).ReplaceLineEndings("\n");
        return r.Forward.By(write, $"{note} In batches that commit one by one, out of {archive}, which goes when it is empty; what finds no place any more stays in {aside}, with a warning. The table's triggers fire{(rules ? "; its rules do not: each batch drops them, and makes them again before it commits, for which it locks the table" : "")}.", lossy: !reversible) with
        {
            Reversal = sql,
            LockMode = rules ? TableLockMode.AccessExclusive : TableLockMode.RowExclusive,
            Objects = [table.ToString()],
            Transactional = false,
        };
    }
}
