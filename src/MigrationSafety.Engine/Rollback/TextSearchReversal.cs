using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes ALTER TEXT SEARCH CONFIGURATION back: the mappings of the token types concerned as they were.</summary>
internal static class TextSearchReversal
{
    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, AlterTextSearchConfiguration alter)
    {
        ObjectReference named = new(ObjectKind.TextSearchConfiguration, alter.Name);
        if (r.Resolve(named) is not { } now)
        {
            return [r.SchemaUnknown(alter.Name)];
        }

        if (r.Made(now))
        {
            return [r.Forward.NotNeeded($"It goes with the configuration {now.Name}, which this script makes.")];
        }

        string head = $"alter text search configuration {now.Name}";
        if (r.Catalog is not { } catalog || await r.FindAsync(now).ConfigureAwait(false) is not { } address)
        {
            return [r.Forward.Unknown($"Which dictionaries {now.Name} used is not in the text. {ForwardStatement.Connect}")];
        }

        IReadOnlyDictionary<string, string> before = await catalog.PairsAsync(
            $"""
            select t.alias, string_agg(m.mapdict::regdictionary::text, ', ' order by m.mapseqno)
            from pg_catalog.pg_ts_config c
            join pg_catalog.pg_ts_config_map m on m.mapcfg = c.oid
            join lateral ts_token_type(c.cfgparser) t on t.tokid = m.maptokentype
            where c.oid = {address.ObjectId}
            group by t.alias
            """,
            r.CancellationToken).ConfigureAwait(false);
        SqlReader mapping = alter.Mapping.Read();
        mapping.Take("if", "exists");
        IReadOnlyList<string> types = mapping.Take("for") ? mapping.List(reader => reader.Name()) : [.. before.Keys];
        List<(string, string?)> parts = [];
        foreach (string type in types)
        {
            string quoted = SqlName.QuoteIfNeeded(type);
            parts.Add(($"{head} drop mapping if exists for {quoted}", null));
            if (before.TryGetValue(type, out string? dictionaries))
            {
                parts.Add(($"{head} add mapping for {quoted} with {dictionaries}", null));
            }
        }

        return parts.Count == 0 ? [r.Forward.NotNeeded("The configuration had no mapping.")] : [r.Forward.By(parts, "The mappings as they were before.")];
    }
}
