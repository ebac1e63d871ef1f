using System.Collections.Frozen;

namespace MigrationSafety.Engine.Sql;

/// <summary>Keywords that a name must not be without quotation marks, and those that it can be in some places.</summary>
internal static class SqlKeywords
{
    // pg_get_keywords() with catcode R in all of PostgreSQL 14 to 18: never a name.
    private const string Reserved = """
        all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create current_catalog current_date
        current_role current_time current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign
        from grant group having in initially intersect into lateral leading limit localtime localtimestamp not null offset on only or order
        placing primary references returning select session_user some symmetric table then to trailing true union unique user using variadic
        when where window with
        """;

    // Those with catcode T: names of functions and types, not of tables and columns.
    private const string FunctionsAndTypes = """
        authorization binary collation concurrently cross current_schema freeze full ilike inner is isnull join left like natural notnull
        outer overlaps right similar tablesample verbose
        """;

    // Those with catcode C, and what is reserved in some majors only: quote_ident() quotes them, and the grammar takes them as names.
    private const string Others = """
        between bigint bit boolean char character coalesce dec decimal exists extract float greatest grouping inout int integer interval json
        json_array json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize json_table json_value least
        merge_action national nchar none normalize nullif numeric out overlay position precision real row setof smallint substring system_user
        time timestamp treat trim values varchar xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot
        xmlserialize xmltable
        """;

    private static readonly FrozenSet<string> s_reserved = Split(Reserved);
    private static readonly FrozenSet<string> s_functionsAndTypes = Split(FunctionsAndTypes);
    private static readonly FrozenSet<string> s_all = Split(Reserved + " " + FunctionsAndTypes + " " + Others);

    /// <summary>Whether a word, in lower case, is reserved in some place.</summary>
    internal static bool NeedsQuotes(string word) => s_all.Contains(word);

    /// <summary>Whether a word, in lower case, is no name of a table or column.</summary>
    internal static bool IsNoName(string word) => s_reserved.Contains(word) || s_functionsAndTypes.Contains(word);

    /// <summary>Whether a word, in lower case, is no name of anything.</summary>
    internal static bool IsReserved(string word) => s_reserved.Contains(word);

    private static FrozenSet<string> Split(string words) => words.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries).ToFrozenSet(StringComparer.Ordinal);
}
