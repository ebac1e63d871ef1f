using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>Finds, statement by statement, what takes a script back.</summary>
internal sealed class RollbackPlanner
{
    internal const string GuessedName = "The name is derived by PostgreSQL's rule, since the statement gives none: check it.";

    // psql's commands that change nothing in the database and nothing in which statements run.
    private static readonly string[] s_harmlessCommands =
    [
        "a", "C", "echo", "encoding", "errverbose", "f", "H", "o", "out", "p", "print", "prompt", "pset", "qecho", "set", "t", "T", "timing", "unset", "warn", "x",
        "d", "dt", "di", "conninfo",
    ];

    private readonly SqlScript _script;
    private readonly IReadOnlyList<ScriptPath?> _paths;
    private readonly ParsedStatement?[] _parsed;
    private readonly ScriptNames _names;
    private readonly IndexReversal _indexes;
    private readonly TableReversal _tables;

    private RollbackPlanner(SqlScript script, CatalogFacts? catalog)
    {
        _script = script;
        _paths = ScriptPath.Follow(script);
        _parsed = [.. script.Statements.Select(s => s.Kind == SqlStatementKind.Sql && s.Control == TransactionControl.None ? StatementParser.Parse(s) : null)];
        _names = new ScriptNames(catalog);
        NameChooser chooser = new(catalog);
        _indexes = new IndexReversal(_names, chooser);
        _tables = new TableReversal(_names, chooser);
    }

    /// <summary>Finds what takes a script back, last statement first.</summary>
    /// <param name="script">Script.</param>
    /// <param name="catalog">The catalog before the script runs; null for what the text alone tells.</param>
    internal static List<RollbackStatement> Plan(SqlScript script, CatalogFacts? catalog) => new RollbackPlanner(script, catalog).Plan();

    /// <summary>The tables and indexes that a script names, and the schemas that it puts into search_path: what to ask the catalog for.</summary>
    internal static (IReadOnlyCollection<QualifiedName> Names, IReadOnlyCollection<string> Schemas) Mentions(SqlScript script)
    {
        HashSet<QualifiedName> names = [];
        foreach (SqlStatement statement in script.Statements.Where(s => s.Kind == SqlStatementKind.Sql))
        {
            switch (StatementParser.Parse(statement))
            {
                case CreateIndex index:
                    names.Add(index.Table);
                    names.UnionWith(index.Name is null ? [] : [index.Table with { Name = index.Name }]);
                    break;
                case MakesTable { Kind: ObjectKind.Table } table:
                    names.UnionWith([table.Table, .. table.References]);
                    names.UnionWith(table is CreateTable { PartitionOf: { } partitioned } ? [partitioned] : []);
                    break;
                case AlterTable { Kind: ObjectKind.Table } alter:
                    names.Add(alter.Table);
                    foreach (TableAction action in alter.Actions)
                    {
                        switch (action)
                        {
                            case AddColumn column:
                                names.UnionWith(column.Column.References);
                                break;
                            case AddConstraint { Constraint: ForeignKeyConstraint key }:
                                names.Add(key.Parent);
                                break;
                            case AddConstraint { Constraint: UniqueConstraint { UsingIndex: { } index } }:
                                names.Add(alter.Table with { Name = index });
                                break;
                        }
                    }

                    break;
            }
        }

        // An index has the schema of its table, wherever the search path finds that.
        return (names, [.. ScriptPath.Follow(script).SelectMany(p => p?.Schemas ?? []).Distinct()]);
    }

    /// <summary>Whether a command for psql changes nothing in the database and nothing in which statements run.</summary>
    internal static bool IsHarmless(string command) => Array.IndexOf(s_harmlessCommands, command) >= 0;

    private List<RollbackStatement> Plan()
    {
        CollectTables();
        List<List<RollbackStatement>> forward = [];
        for (int i = 0; i < _script.Statements.Count; i++)
        {
            SqlStatement statement = _script.Statements[i];
            if (statement.Control == TransactionControl.None && statement.Kind != SqlStatementKind.CopyData)
            {
                forward.Add([.. Reverse(statement, _parsed[i], _paths[i])]);
            }
        }

        forward.Reverse();
        return [.. forward.SelectMany(statements => statements)];
    }

    /// <summary>Learns beforehand which tables the script makes: what is done to them goes with them.</summary>
    private void CollectTables()
    {
        for (int i = 0; i < _parsed.Length; i++)
        {
            SqlStatement statement = _script.Statements[i];
            if (statement.RolledBack)
            {
                continue;
            }

            switch (_parsed[i])
            {
                case MakesTable { Kind: ObjectKind.Table } create:
                    _tables.Learn(create, _paths[i]);
                    break;
                case AlterTable { Kind: ObjectKind.Table } alter:
                    _tables.Learn(alter, _paths[i]);
                    break;
                case DropObjects { Kind: not ObjectKind.Schema } or DropOwned:
                    _names.NoteDropped(statement);
                    break;
            }
        }
    }

    private IEnumerable<RollbackStatement> Reverse(SqlStatement statement, ParsedStatement? parsed, ScriptPath? path)
    {
        ForwardStatement forward = new(statement, path);
        if (statement.RolledBack)
        {
            return [forward.NotNeeded("The script itself rolls it back.")];
        }

        return parsed switch
        {
            CreateIndex index => _indexes.Reverse(forward, index),
            MakesTable { Kind: ObjectKind.Table } table => _tables.Reverse(forward, table),
            AlterTable { Kind: ObjectKind.Table } alter => _tables.Reverse(forward, alter),
            RenameObject { Object.Kind: ObjectKind.Table } rename => [Renamed(forward, rename.Object.Name, rename.Part == RenamedPart.Whole)],
            SetSchema { Object.Kind: ObjectKind.Table } moved => [Renamed(forward, moved.Object.Name, true)],
            { } other => [Reverse(forward, StatementEffect.Of(other))],
            null => [Command(forward)],
        };
    }

    private static RollbackStatement Command(ForwardStatement forward)
    {
        string name = SqlScript.MetaCommandName(forward.Statement.Text);
        if (IsHarmless(name))
        {
            return forward.NotNeeded("A command for psql that changes nothing in the database.");
        }

        return name switch
        {
            "i" or "ir" or "include" or "include_relative" => forward.Unknown("The included file is not read here: make its rollback from it."),
            "if" or "elif" or "else" or "endif" => forward.Unknown("Whether the statements of a branch run cannot be told from the text."),
            "c" or "connect" => forward.Unknown("What follows runs in another connection, perhaps in another database."),
            "copy" => forward.Irreversible("\\copy writes rows: the text does not tell which to remove."),
            _ => forward.Unknown($"What psql does with \\{name} is not known here."),
        };
    }

    /// <summary>RENAME and SET SCHEMA of a table.</summary>
    private RollbackStatement Renamed(ForwardStatement forward, QualifiedName table, bool whole)
    {
        ResolvedName name = _names.Existing(table, forward.Path);
        if (!whole && _names.Made(name.Name) is not null)
        {
            return forward.NotNeeded($"It goes with the table {name.Name}, which this script makes.");
        }

        string text = RollbackText.OneLine(forward.Statement.Text, 100);
        return forward.Unknown(whole
            ? $"\"{text}\": not understood here; write its reversal by hand, here, before what follows, which uses the names from before it."
            : $"\"{text}\": not understood here; write its reversal by hand.");
    }

    private RollbackStatement Reverse(ForwardStatement forward, StatementEffect other)
    {
        if (other.Kind == EffectKind.Nothing)
        {
            return forward.NotNeeded($"{other.Tag} leaves nothing to take back.");
        }

        if (other.Target is { } target)
        {
            ResolvedName table = _names.Existing(target, forward.Path);
            if (_names.Made(table.Name) is not null)
            {
                return forward.NotNeeded($"It goes with the table {table.Name}, which this script makes.");
            }

            if (other.WrittenColumns.Count > 0 && other.WrittenColumns.All(_names.Table(table.Name).Columns.Contains))
            {
                return forward.NotNeeded($"It writes only columns of {table.Name} that this script adds; the values go with them. What triggers on the table did besides stays.");
            }
        }

        if (other.Kind == EffectKind.WritesRows)
        {
            return forward.Irreversible(other.Tag switch
            {
                "INSERT" or "COPY" => $"{other.Tag} adds rows: the text does not tell which rows to remove.",
                "UPDATE" or "MERGE" => $"{other.Tag} overwrites values: the text does not hold the values before.",
                _ => $"{other.Tag} removes rows: the text does not hold them.",
            });
        }

        string command = other.Tag.Length == 0 ? "The text" : other.Tag;
        bool variable = forward.Statement.Tokens.Zip(forward.Statement.Tokens.Skip(1)).Any(t =>
            t.First.Length == 1 && forward.Statement.Script[t.First.Start] == ':' && t.First.EndIndex == t.Second.Start);
        string why = forward.Statement.IsBroken ? "it is broken (a quotation mark, a comment or a parenthesis is not closed, or a character is none of SQL's), and may hide what follows"
            : variable ? "it may hold a variable of psql, whose value only psql knows"
            : "this command, or this form of it, is not understood here";
        return forward.Unknown($"{command}: {why}; write its reversal by hand.");
    }
}
