namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>
/// What an index element brings into the index's name when PostgreSQL chooses it: its column, its function, its type, or <c>expr</c>
/// (FigureIndexColname in parse_target.c).
/// </summary>
internal static class ElementName
{
    // The server does not nest deeper in practice; ours must end on any text.
    private const int MaxDepth = 50;

    /// <summary>The name of an element of an index or of an EXCLUDE constraint.</summary>
    internal static string Of(SqlReader element)
    {
        if (element.SeesMark("("))
        {
            return OfExpression(element.TakeParentheses(), 0).Name ?? "expr";
        }

        // A column or a function call; what follows is a collation, an operator class, an order.
        return Primary(element, 0).Name ?? "expr";
    }

    /// <summary>Name and strength (2: its own; 1: only if nothing better is inside; 0: none), as the server weighs them.</summary>
    private static (string? Name, int Strength) OfExpression(SqlReader? reader, int depth)
    {
        if (reader is null || depth > MaxDepth)
        {
            return (null, 0);
        }

        (string? name, int strength) = Primary(reader, depth);
        while (!reader.AtEnd)
        {
            if (reader.TakeMark("::"))
            {
                string? type = TypeName(reader);
                (name, strength) = strength <= 1 && type is not null ? (type, 1) : (name, strength);
            }
            else if (reader.Take("collate"))
            {
                reader.TakeQualifiedName();
            }
            else if (reader.Take("at", "time", "zone"))
            {
                // A function call in disguise; its argument reaches to the end, so that an operator behind it is not told apart.
                Primary(reader, depth + 1);
                (name, strength) = ("timezone", 2);
            }
            else if (reader.SeesMark("["))
            {
                reader.Skip();
                reader.SkipTo("]");
                reader.TakeMark("]");
            }
            else
            {
                return (null, 0);
            }
        }

        return (name, strength);
    }

    private static (string? Name, int Strength) Primary(SqlReader reader, int depth)
    {
        if (reader.SeesMark("("))
        {
            SqlReader? inside = reader.TakeParentheses();
            return inside is null || inside.Clone().SplitAtCommas().Count > 1 ? (inside is null ? null : "row", 2) : OfExpression(inside, depth + 1);
        }

        if (reader.Take("case"))
        {
            return Case(reader, depth);
        }

        if (reader.Kind is not (SqlTokenKind.Word or SqlTokenKind.QuotedName or SqlTokenKind.UnicodeName))
        {
            reader.Skip();
            return (null, 0);
        }

        bool plain = reader.Kind == SqlTokenKind.Word;
        string? name = reader.TakeName();
        while (reader.TakeMark("."))
        {
            plain = false;
            name = reader.TakeName();
        }

        if (plain && reader.SeesMark("[") && name == "array")
        {
            reader.Skip();
            reader.SkipTo("]");
            reader.TakeMark("]");
            return ("array", 2);
        }

        // date '2020-01-01': a constant with its type.
        if (reader.Kind == SqlTokenKind.String)
        {
            reader.Skip();
            return (name is null ? null : SystemTypeName(name), 1);
        }

        if (reader.TakeParentheses() is not { } arguments)
        {
            return (name, 2);
        }

        return (plain, name) switch
        {
            (true, "cast") => Cast(arguments, depth),
            (true, "trim") => (arguments.Take("leading") ? "ltrim" : arguments.Take("trailing") ? "rtrim" : "btrim", 2),
            _ => (name, 2),
        };
    }

    private static (string? Name, int Strength) Cast(SqlReader arguments, int depth)
    {
        int start = arguments.At;
        arguments.SkipTo("as");
        (string? name, int strength) = OfExpression(arguments.Since(start), depth + 1);
        return arguments.Take("as") && strength <= 1 ? (TypeName(arguments), 1) : (name, strength);
    }

    /// <summary>CASE takes the name of its ELSE, and its own where that has none.</summary>
    private static (string? Name, int Strength) Case(SqlReader reader, int depth)
    {
        int nested = 0;
        int otherwise = -1;
        while (!reader.AtEnd && !(nested == 0 && reader.Sees("end")))
        {
            nested += reader.Sees("case") ? 1 : reader.Sees("end") ? -1 : 0;
            bool found = nested == 0 && reader.Sees("else");
            reader.Skip();
            otherwise = found ? reader.At : otherwise;
        }

        (string? name, int strength) = otherwise < 0 ? (null, 0) : OfExpression(reader.Since(otherwise), depth + 1);
        reader.Take("end");
        return strength <= 1 ? ("case", 1) : (name, strength);
    }

    /// <summary>Takes a type and gives the last part of its name in the catalog.</summary>
    private static string? TypeName(SqlReader reader)
    {
        bool plain = reader.Kind == SqlTokenKind.Word;
        if (reader.TakeName() is not { } name)
        {
            return null;
        }

        bool qualified = false;
        while (reader.TakeMark("."))
        {
            qualified = true;
            name = reader.TakeName() ?? name;
        }

        if (plain && !qualified)
        {
            if (name == "double" && reader.Take("precision"))
            {
                name = "float8";
            }
            else if (name is "character" or "char" or "bit" && reader.Take("varying"))
            {
                name = name == "bit" ? "varbit" : "varchar";
            }
            else
            {
                name = SystemTypeName(name);
            }
        }

        reader.TakeParentheses();
        if (name is "timestamp" or "time")
        {
            name += reader.Take("with", "time", "zone") ? "tz" : "";
            reader.Take("without", "time", "zone");
        }

        while (reader.TakeMark("["))
        {
            reader.SkipTo("]");
            reader.TakeMark("]");
        }

        return name;
    }

    private static string SystemTypeName(string name) => name switch
    {
        "int" or "integer" => "int4",
        "bigint" => "int8",
        "smallint" => "int2",
        "boolean" => "bool",
        "decimal" or "dec" => "numeric",
        "real" => "float4",
        "float" => "float8",
        "character" or "char" => "bpchar",
        _ => name,
    };
}
