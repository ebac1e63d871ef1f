using System.Globalization;
using System.Text;

namespace MigrationSafety.Engine.Names;

/// <summary>
/// The rule by which PostgreSQL names what a statement leaves unnamed: table_column_idx, cut to 63 bytes, numbered when taken (makeObjectName and
/// ChooseIndexNameAddition in indexcmds.c, ChooseConstraintName in pg_constraint.c).
/// </summary>
internal static class ChosenName
{
    /// <summary>Bytes of the longest identifier: NAMEDATALEN less its end.</summary>
    internal const int MaxBytes = 63;

    /// <summary>The names that PostgreSQL tries, in its order, without end.</summary>
    /// <param name="table">Table, as in the catalog.</param>
    /// <param name="addition">What <see cref="Addition"/> makes of the columns; null where the rule adds none.</param>
    /// <param name="label">idx, key, fkey and so on.</param>
    /// <param name="singleByte">Whether the database's encoding has one byte a character; otherwise UTF-8 is counted.</param>
    internal static IEnumerable<string> Candidates(string table, string? addition, string label, bool singleByte)
    {
        for (int pass = 0; ; pass++)
        {
            yield return Join(table, addition, pass == 0 ? label : string.Create(CultureInfo.InvariantCulture, $"{label}{pass}"), singleByte);
        }
    }

    /// <summary>Column names with underscores, up to where PostgreSQL stops adding them.</summary>
    internal static string Addition(IEnumerable<string> columns, bool singleByte)
    {
        StringBuilder joined = new();
        foreach (string column in columns)
        {
            joined.Append(joined.Length == 0 ? "" : "_").Append(column);
            if (Bytes(joined.ToString(), singleByte) > MaxBytes)
            {
                // More would be cut off anyway.
                break;
            }
        }

        return joined.ToString();
    }

    /// <summary>The names of an index's own columns, which are all different: a, a1, a2.</summary>
    internal static IReadOnlyList<string> Distinct(IEnumerable<string> elements, bool singleByte)
    {
        List<string> names = [];
        foreach (string element in elements)
        {
            string name = element;
            for (int i = 1; names.Contains(name); i++)
            {
                string number = i.ToString(CultureInfo.InvariantCulture);
                name = Clip(element, MaxBytes - number.Length, singleByte) + number;
            }

            names.Add(name);
        }

        return names;
    }

    /// <summary>Bytes of a name on the server.</summary>
    internal static int Bytes(string name, bool singleByte)
    {
        int bytes = 0;
        foreach (Rune rune in name.EnumerateRunes())
        {
            bytes += singleByte ? 1 : rune.Utf8SequenceLength;
        }

        return bytes;
    }

    /// <summary>Two names and a label: cuts the longer of the two, byte by byte, until all fit; then whole characters only.</summary>
    private static string Join(string table, string? addition, string label, bool singleByte)
    {
        int available = MaxBytes - label.Length - (addition is null ? 1 : 2);
        int tableBytes = Bytes(table, singleByte);
        int additionBytes = addition is null ? 0 : Bytes(addition, singleByte);
        while (tableBytes + additionBytes > available)
        {
            if (tableBytes > additionBytes)
            {
                tableBytes--;
            }
            else
            {
                additionBytes--;
            }
        }

        string middle = addition is null ? "" : "_" + Clip(addition, additionBytes, singleByte);
        return $"{Clip(table, tableBytes, singleByte)}{middle}_{label}";
    }

    private static string Clip(string name, int bytes, bool singleByte)
    {
        int length = 0;
        foreach (Rune rune in name.EnumerateRunes())
        {
            bytes -= singleByte ? 1 : rune.Utf8SequenceLength;
            if (bytes < 0)
            {
                break;
            }

            length += rune.Utf16SequenceLength;
        }

        return name[..length];
    }
}
