using System.Collections;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>What a statement says, written in one way however it was put: letter case, quotation marks, spaces, comments and several things in one statement do not matter.</summary>
/// <param name="Whole">All that it says, without schemas.</param>
/// <param name="Loose">The same without CONCURRENTLY, CASCADE and ONLY.</param>
/// <param name="About">What it is about alone.</param>
/// <param name="Schemas">The schemas of its names in their order; null where one is not written.</param>
/// <param name="Table">The table or object that it changes, without schema.</param>
/// <param name="Parsed">What was parsed.</param>
internal sealed record StatementShape(string Whole, string Loose, string About, IReadOnlyList<string?> Schemas, string Table, ParsedStatement Parsed)
{
    // Whether a thing must be there is no question of what becomes of it; the text of a part is in its parts.
    private static readonly string[] s_never = ["IfExists", "IfNotExists", "Source", "Definition"];
    private static readonly string[] s_loosely = ["Concurrently", "Cascade", "Only"];

    /// <summary>The shapes of a statement: one for each action of ALTER TABLE and each thing that a DROP names. None for what steers the session or a transaction.</summary>
    internal static IEnumerable<StatementShape> Of(SqlStatement statement)
    {
        if (statement.Kind != SqlStatementKind.Sql || statement.Control != TransactionControl.None || statement.RolledBack)
        {
            return [];
        }

        ParsedStatement parsed = StatementParser.Parse(statement);
        return parsed switch
        {
            SetVariable or LockTables or SessionStatement => [],
            OtherStatement => [OfTokens(statement, parsed)],
            AlterTable alter => alter.Actions.Select(action => Of(alter with { Actions = [action] })),
            DropObjects drop => drop.Objects.Select(dropped => Of(drop with { Objects = [dropped] })),
            _ => [Of(parsed)],
        };
    }

    /// <summary>Whether both say the same, as far as the schemas that both write.</summary>
    internal bool Same(StatementShape other) => Whole == other.Whole && SameSchemas(other);

    /// <summary>Whether the schemas that both write are the same.</summary>
    internal bool SameSchemas(StatementShape other) =>
        Schemas.Count != other.Schemas.Count || Schemas.Zip(other.Schemas).All(pair => pair.First is null || pair.Second is null || pair.First == pair.Second);

    private static StatementShape Of(ParsedStatement parsed)
    {
        List<string?> schemas = [];
        string table = parsed.Targets.Count > 0 ? parsed.Targets[0].Name : "";
        return new StatementShape(Describe(parsed, s_never, schemas), Describe(parsed, [.. s_never, .. s_loosely], []), Subject(parsed), schemas, table, parsed);
    }

    private static StatementShape OfTokens(SqlStatement statement, ParsedStatement parsed)
    {
        string text = Tokens(statement.Script, statement.Tokens);
        return new StatementShape(text, text, text, [], "", parsed);
    }

    private static string Subject(ParsedStatement parsed) => parsed switch
    {
        AlterTable { Actions: [var action] } alter => $"{alter.Targets[0].Name}|{Column(action)}",
        CreateIndex { Name: { } name } => "index " + name,
        DropObjects { Objects: [var dropped] } => $"{parsed.Tag} {dropped.Target.Name} {dropped.Name.Name}",
        _ => $"{parsed.Tag} {string.Join(',', parsed.Targets.Select(t => t.Name))}",
    };

    private static string Column(TableAction action) => action switch
    {
        AddColumn add => "AddColumn " + add.Column.Name,
        AddConstraint add => "AddConstraint " + add.Constraint.Name,
        _ => action.GetType().Name + " " + string.Join(' ', Fields(action).Select(f => f.Value).OfType<string>()),
    };

    private static string Describe(object value, string[] without, List<string?> schemas)
    {
        StringBuilder text = new();
        Describe(value, without, schemas, text);
        return text.ToString();
    }

    private static void Describe(object? value, string[] without, List<string?> schemas, StringBuilder text)
    {
        switch (value)
        {
            case null:
                text.Append('~');
                break;
            case string or bool or Enum:
                text.Append(value);
                break;
            case QualifiedName name:
                schemas.Add(name.Schema);
                text.Append('"').Append(name.Name).Append('"');
                break;
            case SqlFragment fragment:
                text.Append(fragment.IsEmpty ? "" : Tokens(fragment.Statement.Script, fragment.Statement.Tokens.AsSpan(fragment.First, fragment.End - fragment.First)));
                break;
            case IEnumerable list:
                text.Append('[');
                foreach (object? item in list)
                {
                    Describe(item, without, schemas, text);
                    text.Append(';');
                }

                text.Append(']');
                break;
            case IFormattable number:
                text.Append(number.ToString(null, System.Globalization.CultureInfo.InvariantCulture));
                break;
            default:
                text.Append(value.GetType().Name).Append('(');
                foreach ((string name, object? part) in Fields(value).Where(f => !without.Contains(f.Name)))
                {
                    text.Append(name).Append('=');
                    Describe(part, without, schemas, text);
                    text.Append(' ');
                }

                text.Append(')');
                break;
        }
    }

    /// <summary>The properties of a part of the tree that hold something themselves.</summary>
    private static IEnumerable<(string Name, object? Value)> Fields(object part)
    {
        for (Type? type = part.GetType(); type is not null && type != typeof(object); type = type.BaseType)
        {
            foreach (FieldInfo field in type.GetFields(BindingFlags.Instance | BindingFlags.NonPublic | BindingFlags.DeclaredOnly))
            {
                if (field.IsDefined(typeof(CompilerGeneratedAttribute)) && field.Name.StartsWith('<'))
                {
                    yield return (field.Name[1..field.Name.IndexOf('>', StringComparison.Ordinal)], field.GetValue(part));
                }
            }
        }
    }

    private static string Tokens(string script, ReadOnlySpan<SqlToken> tokens)
    {
        StringBuilder text = new();
        foreach (SqlToken token in tokens)
        {
            // public.a and a are one name to somebody whose search_path says so, but inside an expression that is not looked at.
            text.Append(SqlReader.NameOf(script, token) ?? token.Span(script).ToString()).Append(' ');
        }

        return text.ToString();
    }
}
