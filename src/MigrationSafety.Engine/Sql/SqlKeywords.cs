using System.Collections.Frozen;

namespace MigrationSafety.Engine.Sql;

/// <summary>Keywords that a name must not be without quotation marks.</summary>
internal static class SqlKeywords
{
    // All of pg_get_keywords() whose catcode is not U, of PostgreSQL 14 to 18 together: what quote_ident() quotes.
    private const string Words = """
        all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case cast char character
        check coalesce collate collation column concurrently constraint create cross current_catalog current_date current_role
        current_schema current_time current_timestamp current_user dec decimal default deferrable desc distinct do else end except exists
        extract false fetch float for foreign freeze from full grant greatest group grouping having ilike in initially inner inout int
        integer intersect interval into is isnull join json json_array json_arrayagg json_exists json_object json_objectagg json_query
        json_scalar json_serialize json_table json_value lateral leading least left like limit localtime localtimestamp merge_action
        national natural nchar none normalize not notnull null nullif numeric offset on only or order out outer overlaps overlay placing
        position precision primary real references returning right row select session_user setof similar smallint some substring symmetric
        system_user table tablesample then time timestamp to trailing treat trim true union unique user using values varchar variadic
        verbose when where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot
        xmlserialize xmltable
        """;

    private static readonly FrozenSet<string> s_words = Words.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries).ToFrozenSet(StringComparer.Ordinal);

    /// <summary>Whether a word, in lower case, is reserved in some place.</summary>
    internal static bool NeedsQuotes(string word) => s_words.Contains(word);
}
