using System.Globalization;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Names of indexes as PostgreSQL derives them where CREATE INDEX names none: table_column_idx, cut to 63 bytes, numbered when taken.</summary>
internal static class IndexNames
{
    /// <summary>Bytes of the longest identifier: NAMEDATALEN less its end.</summary>
    internal const int MaxBytes = 63;

    /// <summary>The names that PostgreSQL tries, in its order, without end.</summary>
    /// <param name="table">Table, as in the catalog.</param>
    /// <param name="columns">Columns, as in the catalog.</param>
    /// <param name="singleByte">Whether the database's encoding has one byte a character; otherwise UTF-8 is counted.</param>
    internal static IEnumerable<string> Candidates(string table, IReadOnlyList<string> columns, bool singleByte)
    {
        string addition = Addition(columns, singleByte);
        for (int pass = 0; ; pass++)
        {
            yield return Join(table, addition, pass == 0 ? "idx" : string.Create(CultureInfo.InvariantCulture, $"idx{pass}"), singleByte);
        }
    }

    /// <summary>Bytes of a name on the server.</summary>
    internal static int Bytes(string name, bool singleByte)
    {
        int bytes = 0;
        foreach (System.Text.Rune rune in name.EnumerateRunes())
        {
            bytes += singleByte ? 1 : rune.Utf8SequenceLength;
        }

        return bytes;
    }

    /// <summary>The columns, joined; a column that comes twice is numbered, because an index's own columns have different names.</summary>
    private static string Addition(IReadOnlyList<string> columns, bool singleByte)
    {
        List<string> names = [];
        foreach (string column in columns)
        {
            string name = column;
            for (int i = 1; names.Contains(name); i++)
            {
                string number = i.ToString(CultureInfo.InvariantCulture);
                name = Clip(column, MaxBytes - number.Length, singleByte) + number;
            }

            names.Add(name);
        }

        string joined = "";
        foreach (string name in names)
        {
            joined += (joined.Length > 0 ? "_" : "") + name;
            if (Bytes(joined, singleByte) > MaxBytes)
            {
                // More would be cut off anyway.
                break;
            }
        }

        return joined;
    }

    /// <summary>Cuts the longer of the two, byte by byte, until both fit with the label; then whole characters only.</summary>
    private static string Join(string table, string addition, string label, bool singleByte)
    {
        int available = MaxBytes - label.Length - 2;
        int tableBytes = Bytes(table, singleByte);
        int additionBytes = Bytes(addition, singleByte);
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

        return $"{Clip(table, tableBytes, singleByte)}_{Clip(addition, additionBytes, singleByte)}_{label}";
    }

    private static string Clip(string name, int bytes, bool singleByte)
    {
        int length = 0;
        foreach (System.Text.Rune rune in name.EnumerateRunes())
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
