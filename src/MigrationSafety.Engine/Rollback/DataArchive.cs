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
    /// <param name="key">Columns of the key, by their name now and in the archive.</param>
    /// <param name="columns">Columns, the same way.</param>
    /// <param name="reversible">Whether nothing is lost.</param>
    /// <param name="note">What must be known.</param>
    internal static RollbackStatement Values(
        Reversing r, QualifiedName archive, QualifiedName table, IEnumerable<(string Now, string Kept)> key, IEnumerable<(string Now, string Kept)> columns, bool reversible, string note) =>
        Batches(
            r,
            archive,
            table,
            $"update {table} as t set {string.Join(", ", columns.Select(c => $"{SqlName.QuoteIfNeeded(c.Now)} = batch.{SqlName.QuoteIfNeeded(c.Kept)}"))} from batch where {string.Join(" and ", key.Select(k => $"t.{SqlName.QuoteIfNeeded(k.Now)} = batch.{SqlName.QuoteIfNeeded(k.Kept)}"))}",
            reversible,
            note);

    /// <summary>Puts rows back that are not there.</summary>
    internal static RollbackStatement Rows(Reversing r, QualifiedName archive, QualifiedName table, IEnumerable<string> columns, bool reversible, string note) =>
        Insert(r, archive, table, columns, "do nothing", reversible, note);

    /// <summary>Puts rows back, those that are there with other values too.</summary>
    internal static RollbackStatement RowsOver(Reversing r, QualifiedName archive, QualifiedName table, IReadOnlyList<string> key, IReadOnlyList<string> columns, bool reversible, string note)
    {
        string[] others = [.. columns.Except(key).Select(SqlName.QuoteIfNeeded)];
        string set = others.Length == 0 ? "nothing" : $"update set {string.Join(", ", others.Select(c => $"{c} = excluded.{c}"))}";
        return Insert(r, archive, table, columns, $"({string.Join(", ", key.Select(SqlName.QuoteIfNeeded))}) do {set}", reversible, note);
    }

    private static RollbackStatement Insert(Reversing r, QualifiedName archive, QualifiedName table, IEnumerable<string> columns, string onConflict, bool reversible, string note)
    {
        string list = string.Join(", ", columns.Select(SqlName.QuoteIfNeeded));
        return Batches(r, archive, table, $"insert into {table} ({list}) overriding system value select {list} from batch on conflict {onConflict}", reversible, note);
    }

    private static RollbackStatement Batches(Reversing r, QualifiedName archive, QualifiedName table, string write, bool reversible, string note)
    {
        string sql = string.Create(CultureInfo.InvariantCulture, $"""
            do $rollback$
            begin
                if to_regclass({SqlName.Literal(archive.ToString())}) is null then
                    return;
                end if;
                loop
                    with batch as (
                        delete from {archive} where ctid = any (array(select ctid from {archive} limit {BatchRows})) returning *
                    )
                    {write};
                    exit when not exists (select from {archive});
                    commit;
                end loop;
                drop table {archive};
            end
            $rollback$
            """).ReplaceLineEndings("\n");
        return r.Forward.By(write, $"{note} In batches that commit one by one, out of {archive}, which goes when it is empty; the table's triggers fire.", lossy: !reversible) with
        {
            Reversal = sql,
            LockMode = TableLockMode.RowExclusive,
            Objects = [table.ToString()],
            Transactional = false,
        };
    }
}
