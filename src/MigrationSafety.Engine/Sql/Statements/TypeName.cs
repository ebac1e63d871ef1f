namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>A type as a statement names it.</summary>
/// <param name="Source">Its text.</param>
/// <param name="Name">Its name in the catalog: <c>pg_catalog.int4</c> for <c>integer</c>; of <c>t.c%TYPE</c> the column's name.</param>
/// <param name="Modifiers">What its parentheses hold: precision, length; empty where there are none.</param>
/// <param name="ArrayDimensions">How many array bounds it has.</param>
/// <param name="SetOf">SETOF.</param>
/// <param name="OfColumn">Whether it is <c>%TYPE</c>.</param>
internal sealed record TypeName(SqlFragment Source, QualifiedName Name, string Modifiers, int ArrayDimensions, bool SetOf, bool OfColumn)
{
    /// <summary>Its text on one line.</summary>
    public override string ToString() => string.Join(' ', Source.Text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));

    /// <summary>Parses it.</summary>
    internal static TypeName Read(SqlReader r)
    {
        int start = r.At;
        bool setOf = r.Take("setof");
        QualifiedName? name = BuiltIn(r, out string modifiers);
        bool ofColumn = false;
        if (name is null)
        {
            name = Generic(r);
            if (r.TakeMark("%"))
            {
                r.Expect("type");
                ofColumn = true;
            }
            else
            {
                modifiers = r.SeesMark("(") ? r.Parenthesized().Text : "";
            }
        }

        int dimensions = Dimensions(r);
        return new TypeName(r.From(start), name, modifiers, dimensions, setOf, ofColumn);
    }

    /// <summary>A type of any name; with %TYPE it may have three parts: schema, table, column.</summary>
    private static QualifiedName Generic(SqlReader r)
    {
        List<string> parts = [r.FunctionName()];
        while (r.TakeMark("."))
        {
            parts.Add(r.Label());
        }

        return parts.Count == 1 ? new QualifiedName(null, parts[0]) : new QualifiedName(string.Join('.', parts[..^1]), parts[^1]);
    }

    private static int Dimensions(SqlReader r)
    {
        int dimensions = 0;
        if (r.Take("array"))
        {
            dimensions++;
            if (r.TakeMark("["))
            {
                r.Number();
                r.ExpectMark("]");
            }

            return dimensions;
        }

        while (r.TakeMark("["))
        {
            dimensions++;
            if (!r.SeesMark("]"))
            {
                r.Number();
            }

            r.ExpectMark("]");
        }

        return dimensions;
    }

    /// <summary>The types that the grammar has words for; null where another is next.</summary>
    private static QualifiedName? BuiltIn(SqlReader r, out string modifiers)
    {
        modifiers = "";
        string word = r.Word();
        string? name = word switch
        {
            "int" or "integer" => "int4",
            "smallint" => "int2",
            "bigint" => "int8",
            "real" => "float4",
            "float" => "float8",
            "double" => r.Sees("double", "precision") ? "float8" : null,
            "decimal" or "dec" or "numeric" => "numeric",
            "boolean" => "bool",
            "bit" => "bit",
            "character" or "char" or "nchar" => "bpchar",
            "national" => "bpchar",
            "varchar" => "varchar",
            "timestamp" or "time" or "interval" => word,
            _ => null,
        };
        if (name is null)
        {
            return null;
        }

        r.Skip();
        switch (word)
        {
            case "double":
                r.Expect("precision");
                return new QualifiedName("pg_catalog", name);
            case "national":
                r.OneOf("character", "char");
                break;
        }

        if (word is "bit" or "character" or "char" or "nchar" or "national" && r.Take("varying"))
        {
            name = word == "bit" ? "varbit" : "varchar";
        }

        if (word == "interval")
        {
            modifiers = Interval(r);
            return new QualifiedName("pg_catalog", name);
        }

        bool takesModifiers = word is not ("int" or "integer" or "smallint" or "bigint" or "real" or "boolean");
        modifiers = takesModifiers && r.SeesMark("(") ? r.Parenthesized().Text : "";
        if (word is "timestamp" or "time")
        {
            name += r.Take("with", "time", "zone") ? "tz" : "";
            r.Take("without", "time", "zone");
        }

        return new QualifiedName("pg_catalog", name);
    }

    private static string Interval(SqlReader r)
    {
        int start = r.At;
        while (r.TakeOneOf("year", "month", "day", "hour", "minute", "second", "to") is not null)
        {
        }

        if (r.SeesMark("("))
        {
            r.Parenthesized();
        }

        return r.From(start).Text;
    }
}
