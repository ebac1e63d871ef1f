using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes SET and RESET of storage parameters and OPTIONS of foreign data back: each option that the statement names as it was.</summary>
internal static class OptionReversal
{
    /// <summary>SET (...) and RESET (...).</summary>
    /// <param name="r">The statement.</param>
    /// <param name="now">A relation or a column.</param>
    /// <param name="options">The options that it names.</param>
    /// <param name="alter">The words before SET.</param>
    internal static async Task<List<RollbackStatement>> ParametersAsync(Reversing r, ObjectReference now, IReadOnlyList<SqlOption> options, string alter)
    {
        (RollbackStatement? said, CatalogAddress? found) = await LookAsync(r, now).ConfigureAwait(false);
        if (said is not null)
        {
            return [said];
        }

        uint oid = found!.Value.ObjectId;
        string query = found.Value.SubId > 0
            ? $"select split_part(o, '=', 1), substring(o from position('=' in o) + 1) from pg_catalog.pg_attribute, unnest(attoptions) as o where attrelid = {oid} and attnum = {found.Value.SubId}"
            : $"""
                select prefix || split_part(o, '=', 1), substring(o from position('=' in o) + 1)
                from (select '' as prefix, reloptions from pg_catalog.pg_class where oid = {oid}
                      union all
                      select 'toast.', t.reloptions from pg_catalog.pg_class c join pg_catalog.pg_class t on t.oid = c.reltoastrelid where c.oid = {oid}) as x, unnest(reloptions) as o
                """;
        IReadOnlyDictionary<string, string> before = await r.Catalog!.PairsAsync(query, r.CancellationToken).ConfigureAwait(false);
        string[] set = [.. options.Where(o => before.ContainsKey(o.Name)).Select(o => $"{Name(o.Name)} = {Value(before[o.Name])}")];
        string[] reset = [.. options.Where(o => !before.ContainsKey(o.Name)).Select(o => Name(o.Name))];
        List<RollbackStatement> result = [];
        if (set.Length > 0)
        {
            result.Add(r.Forward.By($"{alter} set ({string.Join(", ", set)})", condition: r.IfMoved(now)));
        }

        if (reset.Length > 0)
        {
            result.Add(r.Forward.By($"{alter} reset ({string.Join(", ", reset)})", condition: r.IfMoved(now)));
        }

        return result;
    }

    /// <summary>OPTIONS (ADD, SET, DROP).</summary>
    /// <param name="r">The statement.</param>
    /// <param name="now">A foreign table, a column of one, a server, a wrapper, a user mapping.</param>
    /// <param name="options">The options that it names.</param>
    /// <param name="alter">The words before OPTIONS.</param>
    internal static async Task<List<RollbackStatement>> ForeignAsync(Reversing r, ObjectReference now, IReadOnlyList<SqlOption> options, string alter)
    {
        (RollbackStatement? said, CatalogAddress? found) = await LookAsync(r, now).ConfigureAwait(false);
        if (said is not null)
        {
            return [said];
        }

        uint oid = found!.Value.ObjectId;
        string source = now.Kind switch
        {
            ObjectKind.Column => $"select attfdwoptions as options from pg_catalog.pg_attribute where attrelid = {oid} and attnum = {found.Value.SubId}",
            ObjectKind.Server => $"select srvoptions as options from pg_catalog.pg_foreign_server where oid = {oid}",
            ObjectKind.ForeignDataWrapper => $"select fdwoptions as options from pg_catalog.pg_foreign_data_wrapper where oid = {oid}",
            ObjectKind.UserMapping => $"select umoptions as options from pg_catalog.pg_user_mappings where umid = {oid}",
            _ => $"select ftoptions as options from pg_catalog.pg_foreign_table where ftrelid = {oid}",
        };
        IReadOnlyDictionary<string, string> before = await r.Catalog!.PairsAsync($"select split_part(o, '=', 1), substring(o from position('=' in o) + 1) from ({source}) as x, unnest(options) as o", r.CancellationToken).ConfigureAwait(false);
        List<RollbackStatement> result = [];
        foreach (SqlOption option in options)
        {
            string name = SqlName.QuoteIfNeeded(option.Name);
            string there = $"exists (select from ({Now(now)}) as x, unnest(options) as o where split_part(o, '=', 1) = {SqlName.Literal(option.Name)})";
            if (!before.TryGetValue(option.Name, out string? value))
            {
                result.Add(r.Forward.By($"{alter} options (drop {name})", condition: there));
            }
            else if (option.Action == OptionAction.Drop)
            {
                result.Add(r.Forward.By($"{alter} options (add {name} {SqlName.Literal(value)})", condition: $"not {there}"));
            }
            else
            {
                result.Add(r.Forward.By($"{alter} options (set {name} {SqlName.Literal(value)})", condition: r.IfMoved(now)));
            }
        }

        return result;
    }

    /// <summary>The options under the names of now.</summary>
    private static string Now(ObjectReference o)
    {
        (_, string oid, string sub) = o.Find();
        return o.Kind switch
        {
            ObjectKind.Column => $"select attfdwoptions as options from pg_catalog.pg_attribute where attrelid = {oid} and attnum = {sub}",
            ObjectKind.Server => $"select srvoptions as options from pg_catalog.pg_foreign_server where oid = {oid}",
            ObjectKind.ForeignDataWrapper => $"select fdwoptions as options from pg_catalog.pg_foreign_data_wrapper where oid = {oid}",
            ObjectKind.UserMapping => $"select umoptions as options from pg_catalog.pg_user_mappings where umid = {oid}",
            _ => $"select ftoptions as options from pg_catalog.pg_foreign_table where ftrelid = {oid}",
        };
    }

    private static string Name(string option) => string.Join('.', option.Split('.').Select(SqlName.QuoteIfNeeded));

    private static string Value(string value) => value.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '-') && value.Length > 0 && !value.StartsWith('-') ? value : SqlName.Literal(value);

    private static async Task<(RollbackStatement? Said, CatalogAddress? Address)> LookAsync(Reversing r, ObjectReference now)
    {
        string what = $"{now.Kind.Words()} {now.Identity()}";
        return r.Made(now) ? (r.Forward.NotNeeded($"It goes with the {what}, which this script makes."), null)
            : r.Catalog is not { } catalog ? (r.Forward.Unknown($"Which options the {what} had is not in the text. {ForwardStatement.Connect}"), null)
            : await r.FindAsync(now).ConfigureAwait(false) is { } address ? (null, address)
            : (r.Forward.Unknown($"There is no {what} in {catalog.Facts.Database} now."), null);
    }
}
