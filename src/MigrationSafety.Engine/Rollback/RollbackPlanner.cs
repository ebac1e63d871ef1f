using MigrationSafety.Engine.Execution;
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
    private readonly RollbackCatalog? _catalog;
    private readonly ScriptNames _names;
    private readonly NameChooser _chooser;

    private RollbackPlanner(SqlScript script, RollbackCatalog? catalog, ScriptNames names)
    {
        _script = script;
        _catalog = catalog;
        _names = names;
        _chooser = new NameChooser(catalog?.Facts);
    }

    /// <summary>Finds what takes a script back, last statement first.</summary>
    /// <param name="script">Script.</param>
    /// <param name="catalog">The catalog before the script runs; null for what the text alone tells.</param>
    /// <param name="archive">Where data is kept that would be lost; null for nowhere.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<List<RollbackStatement>> PlanAsync(SqlScript script, RollbackCatalog? catalog, DataArchive? archive, CancellationToken cancellationToken)
    {
        // The first walk tells what becomes of all that the script makes.
        ScriptNames first = new(catalog?.Facts, null);
        await new RollbackPlanner(script, catalog, first).WalkAsync(null, cancellationToken).ConfigureAwait(false);
        return await new RollbackPlanner(script, catalog, new ScriptNames(catalog?.Facts, first)).WalkAsync(archive, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Whether a command for psql changes nothing in the database and nothing in which statements run.</summary>
    internal static bool IsHarmless(string command) => Array.IndexOf(s_harmlessCommands, command) >= 0;

    private async Task<List<RollbackStatement>> WalkAsync(DataArchive? archive, CancellationToken cancellationToken)
    {
        IReadOnlyList<ScriptPath?> paths = ScriptPath.Follow(_script);
        List<List<RollbackStatement>> forward = [];
        for (int i = 0; i < _script.Statements.Count; i++)
        {
            SqlStatement statement = _script.Statements[i];
            if (statement.Control == TransactionControl.None && statement.Kind != SqlStatementKind.CopyData)
            {
                forward.Add(await ReverseAsync(new Reversing(new ForwardStatement(statement, paths[i]), _names, _chooser, _catalog, archive, cancellationToken)).ConfigureAwait(false));
            }
        }

        forward.Reverse();
        return [.. forward.SelectMany(statements => statements), .. _names.AtTheEnd];
    }

    /// <summary>What takes one statement back.</summary>
    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r)
    {
        if (r.Forward.Statement.RolledBack)
        {
            return [r.Forward.NotNeeded("The script itself rolls it back.")];
        }

        if (r.Forward.Statement.Kind != SqlStatementKind.Sql)
        {
            return [Command(r.Forward)];
        }

        ParsedStatement parsed = StatementParser.Parse(r.Forward.Statement);
        if (parsed.OfDatabase is { } database && r.Catalog is { } catalog && catalog.Name != database)
        {
            return [r.Forward.Unknown($"It names the database {database}, and this is {catalog.Name}: the migration fails here, since no statement reaches into another database.")];
        }

        List<RollbackStatement> reversal = parsed switch
        {
            CreateIndex index => [.. IndexReversal.Reverse(r, index)],
            MakesTable { Kind: ObjectKind.Table } table => [await TableReversal.ReverseAsync(r, table).ConfigureAwait(false)],
            AlterTable alter => await TableReversal.ReverseAsync(r, alter).ConfigureAwait(false),
            RenameObject rename => RenameReversal.Reverse(r, rename),
            SetSchema moved => await RenameReversal.ReverseAsync(r, moved).ConfigureAwait(false),
            DropObjects drop => await DropReversal.ReverseAsync(r, drop).ConfigureAwait(false),
            GrantPrivileges grant => await PrivilegeReversal.ReverseAsync(r, grant).ConfigureAwait(false),
            GrantRoles grant => await PrivilegeReversal.ReverseAsync(r, grant).ConfigureAwait(false),
            AlterDefaultPrivileges alter => await PrivilegeReversal.ReverseAsync(r, alter).ConfigureAwait(false),
            AddEnumValue add => await TypeReversal.ReverseAsync(r, add).ConfigureAwait(false),
            Query { With: var with } query when with.All(w => w.Statement is Query) => await QueryReversal.ReverseAsync(r, query).ConfigureAwait(false),
            DoBlock block => await DoReversal.ReverseAsync(r, block).ConfigureAwait(false),
            AlterDomain alter => await TypeReversal.ReverseAsync(r, alter).ConfigureAwait(false),
            _ => await CreateReversal.TryReverseAsync(r, parsed).ConfigureAwait(false)
                ?? await OtherReversal.TryReverseAsync(r, parsed).ConfigureAwait(false)
                ?? await SettingReversal.TryReverseAsync(r, parsed).ConfigureAwait(false)
                ?? (StatementEffect.Of(parsed).Kind == EffectKind.WritesRows ? DataReversal.TryNotNeeded(r, parsed) ?? await KeptData.TryKeepAsync(r, parsed).ConfigureAwait(false) : null)
                ?? [DataReversal.Reverse(r, StatementEffect.Of(parsed), parsed)],
        };
        if (parsed is DoBlock)
        {
            // It has been said of the statements inside.
            return reversal;
        }

        TableLockMode forward = SqlFacts.Of(parsed).LockMode;
        return [.. reversal.Select(statement => WithWorseLock(statement, forward))];
    }

    /// <summary>A word where the way back locks worse than the way there.</summary>
    private static RollbackStatement WithWorseLock(RollbackStatement statement, TableLockMode forward) =>
        !RollbackText.Runs(statement) || statement.LockMode <= forward || !statement.LockMode.StopsTraffic() ? statement
        : statement with { Note = $"{statement.Note} It locks worse than the statement that it takes back, which takes {(forward == TableLockMode.None ? "no table lock" : forward.SqlText())}.".TrimStart() };

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
}
