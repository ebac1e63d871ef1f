using System.Text.RegularExpressions;

namespace MigrationSafety.Engine.Schema.Definitions;

/// <summary>Expressions as the server writes them, in such words that it writes them the same way when it has read them again.</summary>
internal static partial class DeparsedText
{
    /// <summary>
    /// Takes the cast off a list of varchar values. For <c>size IN ('s', 'm')</c> on a varchar column the server writes <c>ANY ((ARRAY['s'::character varying, ...])::text[])</c>, and
    /// reading that it casts each element instead of the array; without the cast it adds the one that was there.
    /// </summary>
    /// <param name="text">Text of pg_get_constraintdef, pg_get_viewdef and the like; not the code of a function.</param>
    internal static string Repeatable(string text) => VarcharList().Replace(text, "${word} (ARRAY[${list}])");

    [GeneratedRegex(@"\b(?<word>ANY|ALL) \((?<open>\()?ARRAY\[(?<list>'(?:[^']|'')*'::character varying(?:, '(?:[^']|'')*'::character varying)*)\](?<-open>\))?(?(open)(?!))::text\[\]\)")]
    private static partial Regex VarcharList();
}
