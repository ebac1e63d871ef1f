using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes settings and options of databases, roles and the server back.</summary>
internal static class SettingReversal
{
    /// <summary>The reversal; null where the statement is none of this family.</summary>
    internal static async Task<List<RollbackStatement>?> TryReverseAsync(Reversing r, ParsedStatement parsed) => parsed switch
    {
        SetForDatabase s => await OfAsync(r, s.Setting, $"alter database {SqlName.QuoteIfNeeded(s.Name)}", Stored("0", Database(s.Name))).ConfigureAwait(false),
        SetForRole s => await OfAsync(
            r,
            s.Setting,
            $"alter role {(s.Name is null ? "all" : ObjectNames.Role(s.Name))}{(s.Database is null ? "" : $" in database {SqlName.QuoteIfNeeded(s.Database)}")}",
            Stored(s.Name is null ? "0" : Role(s.Name), s.Database is null ? "0" : Database(s.Database))).ConfigureAwait(false),
        AlterSystem s => await OfAsync(
            r,
            s.Setting,
            "alter system",
            "select name, setting from pg_catalog.pg_file_settings where sourcefile like '%postgresql.auto.conf'").ConfigureAwait(false),
        AlterDatabase s => await OptionsAsync(r, $"alter database {SqlName.QuoteIfNeeded(s.Name)}", s.Options, s.Name, DatabaseOption).ConfigureAwait(false),
        AlterRole s => await OptionsAsync(r, $"alter role {ObjectNames.Role(s.Name)}", s.Options, s.Name, RoleOption).ConfigureAwait(false),
        AlterGroup s => [.. s.Members.Select(m => r.Forward.By(s.Add ? $"revoke {ObjectNames.Role(s.Name)} from {ObjectNames.Role(m)}" : $"grant {ObjectNames.Role(s.Name)} to {ObjectNames.Role(m)}"))],
        AlterTablespace s => await OfTablespaceAsync(r, s).ConfigureAwait(false),
        _ => null,
    };

    private static string Database(string name) => $"(select oid from pg_catalog.pg_database where datname = {SqlName.Literal(name)})";

    private static string Role(string name) => name is "current_user" or "session_user" or "current_role" ? $"{name}::regrole" : $"to_regrole({SqlName.Literal(SqlName.QuoteIfNeeded(name))})";

    private static string Stored(string role, string database) => $"""
        select split_part(c, '=', 1), substring(c from position('=' in c) + 1)
        from pg_catalog.pg_db_role_setting, unnest(setconfig) as c
        where setrole = {role} and setdatabase = {database}
        """;

    private static async Task<List<RollbackStatement>> OfAsync(Reversing r, SetVariable set, string alter, string query)
    {
        string note = alter == "alter system" ? "It takes effect when the configuration is read again: select pg_reload_conf()." : "It takes effect for sessions that begin afterwards.";
        if (r.Catalog is not { } catalog)
        {
            return [r.Forward.Unknown($"What was set before is not in the text. {ForwardStatement.Connect}", set.Reset ? null : $"{alter} reset {Name(set.Name)}")];
        }

        IReadOnlyDictionary<string, string> before = await catalog.PairsAsync(query, r.CancellationToken).ConfigureAwait(false);
        if (set.Name == "all")
        {
            return before.Count == 0
                ? [r.Forward.NotNeeded("Nothing was set before.")]
                : [.. before.Select(p => r.Forward.By($"{alter} set {Name(p.Key)} to {Value(p.Key, p.Value)}", note))];
        }

        string? old = before.FirstOrDefault(p => p.Key.Equals(set.Name, StringComparison.OrdinalIgnoreCase)).Value;
        return old is null && set.Reset ? [r.Forward.NotNeeded($"{set.Name} was not set before.")]
            : [r.Forward.By(old is null ? $"{alter} reset {Name(set.Name)}" : $"{alter} set {Name(set.Name)} to {Value(set.Name, old)}", note)];
    }

    private static string Name(string setting) => string.Join('.', setting.Split('.').Select(SqlName.QuoteIfNeeded));

    // Settings that are lists are kept with commas between their quoted names.
    private static string Value(string name, string value) =>
        name.ToUpperInvariant() is "SEARCH_PATH" or "TEMP_TABLESPACES" or "SESSION_PRELOAD_LIBRARIES" or "LOCAL_PRELOAD_LIBRARIES" or "SHARED_PRELOAD_LIBRARIES" && value.Length > 0 ? value : SqlName.Literal(value);

    private static async Task<List<RollbackStatement>> OptionsAsync(Reversing r, string alter, IReadOnlyList<SqlOption> options, string name, Func<SqlOption, string, (string? Query, string? Why)> how)
    {
        List<RollbackStatement> result = [];
        foreach (SqlOption option in options)
        {
            (string? query, string? why) = how(option, SqlName.Literal(name));
            if (query is null)
            {
                result.Add(r.Forward.Irreversible(why ?? $"{option.Name}: what it was before cannot be read."));
                continue;
            }

            if (r.Catalog is not { } catalog)
            {
                result.Add(r.Forward.Unknown($"What {option.Name} was before is not in the text. {ForwardStatement.Connect}"));
                continue;
            }

            string? words = await catalog.ScalarAsync(query, r.CancellationToken).ConfigureAwait(false);
            result.Add(words is null ? r.Forward.Unknown($"There is nothing of that name on {catalog.Facts.Database} now.") : r.Forward.By($"{alter} {words}"));
        }

        return result;
    }

    private static (string?, string?) DatabaseOption(SqlOption option, string name)
    {
        string? words = option.Name switch
        {
            "connection limit" => "'connection limit ' || datconnlimit",
            "allow_connections" => "'allow_connections ' || datallowconn",
            "is_template" => "'is_template ' || datistemplate",
            "tablespace" => "'set tablespace ' || quote_ident((select spcname from pg_catalog.pg_tablespace where oid = dattablespace))",
            _ => null,
        };
        return (words is null ? null : $"select {words} from pg_catalog.pg_database where datname = {name}", null);
    }

    private static (string?, string?) RoleOption(SqlOption option, string name)
    {
        string column = option.Name.StartsWith("no", StringComparison.Ordinal) ? option.Name[2..] : option.Name;
        string? words = column switch
        {
            "superuser" => "case when rolsuper then '' else 'no' end || 'superuser'",
            "createdb" => "case when rolcreatedb then '' else 'no' end || 'createdb'",
            "createrole" or "createuser" => "case when rolcreaterole then '' else 'no' end || 'createrole'",
            "inherit" => "case when rolinherit then '' else 'no' end || 'inherit'",
            "login" => "case when rolcanlogin then '' else 'no' end || 'login'",
            "replication" => "case when rolreplication then '' else 'no' end || 'replication'",
            "bypassrls" => "case when rolbypassrls then '' else 'no' end || 'bypassrls'",
            "connection limit" => "'connection limit ' || rolconnlimit",
            "valid until" => "'valid until ' || quote_literal(coalesce(rolvaliduntil::text, 'infinity'))",
            _ => null,
        };
        return words is not null ? ($"select {words} from pg_catalog.pg_roles where rolname = {(name is "'current_user'" or "'session_user'" ? name.Trim('\'') : name)}", null)
            : (null, option.Name == "password" ? "The password before it cannot be read." : null);
    }

    private static async Task<List<RollbackStatement>> OfTablespaceAsync(Reversing r, AlterTablespace alter)
    {
        if (r.Catalog is not { } catalog)
        {
            return [r.Forward.Unknown($"What was set before is not in the text. {ForwardStatement.Connect}")];
        }

        IReadOnlyDictionary<string, string> before = await catalog.PairsAsync(
            $"select split_part(o, '=', 1), split_part(o, '=', 2) from pg_catalog.pg_tablespace, unnest(spcoptions) as o where spcname = {SqlName.Literal(alter.Name)}", r.CancellationToken).ConfigureAwait(false);
        return
        [
            .. alter.Options.Select(o => r.Forward.By(
                before.TryGetValue(o.Name, out string? old) ? $"alter tablespace {SqlName.QuoteIfNeeded(alter.Name)} set ({o.Name} = {old})" : $"alter tablespace {SqlName.QuoteIfNeeded(alter.Name)} reset ({o.Name})")),
        ];
    }
}
