using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes CREATE back, but for tables and indexes.</summary>
internal static class CreateReversal
{
    /// <summary>What a statement makes.</summary>
    /// <param name="Object">The object.</param>
    /// <param name="IfNotExists">IF NOT EXISTS.</param>
    /// <param name="Replace">OR REPLACE.</param>
    private sealed record Creation(ObjectReference Object, bool IfNotExists = false, bool Replace = false)
    {
        /// <summary>CASCADE, where what is in it cannot be told apart.</summary>
        internal bool Cascade { get; init; }

        /// <summary>What is lost with it; null where nothing is.</summary>
        internal string? Loss { get; init; }

        /// <summary>What must be known.</summary>
        internal string? Note { get; init; }
    }

    /// <summary>The reversal; null where the statement is none of this family.</summary>
    internal static async Task<List<RollbackStatement>?> TryReverseAsync(Reversing r, ParsedStatement parsed)
    {
        if (Of(r, parsed) is not { } creation)
        {
            return null;
        }

        creation = r.Optional ? creation with { IfNotExists = true } : creation;

        if (parsed is CreateView { Persistence: Persistence.Temporary } or CreateSequence { Persistence: Persistence.Temporary } or MakesTable { Temporary: true })
        {
            return [r.Forward.NotNeeded("What is temporary goes with its session.")];
        }

        if (r.Resolve(creation.Object, made: true) is not { } made)
        {
            return [r.SchemaUnknown(creation.Object.Target)];
        }

        string what = $"{made.Kind.Words()} {made.Identity()}";
        if (made.On is { } on && made.Kind is ObjectKind.Trigger or ObjectKind.Rule or ObjectKind.Policy && r.Names.Made(made.On!) is not null)
        {
            r.Make(made);
            return [r.Forward.NotNeeded($"It goes with the table {made.On}, which this script makes.")];
        }

        bool there = await r.FindAsync(made).ConfigureAwait(false) is not null;
        bool ours = r.Names.Find(made.Kind, made.Name, Reversing.Detail(made)) is { Made: true };
        string drop = made.Drop() + (creation.Cascade ? " cascade" : "");
        if (creation.IfNotExists && r.Catalog is null && !ours)
        {
            r.Make(made, certain: false);
            return [r.Forward.Unknown($"{r.Whether} {what} was there before cannot be told from the text. Connect before the migration runs, or run this only if the migration made it.", drop)];
        }

        if (creation.IfNotExists && (there || ours))
        {
            return [r.Forward.NotNeeded(ours ? $"The script has made {what} before: {r.OnlyIfMissing} does nothing." : $"{what} exists in {r.Catalog!.Facts.Database}: {r.OnlyIfMissing} does nothing there, and it must stay. (If the migration has run already, it may be its own.)")];
        }

        if (creation.Replace && ours)
        {
            return [r.Forward.NotNeeded($"It goes with the {what}, which this script makes.")];
        }

        if (creation.Replace && r.Catalog is null)
        {
            r.Make(made, certain: false);
            return [r.Forward.Unknown($"OR REPLACE: whether {what} was there before, and how, cannot be told from the text. Connect before the migration runs, or run this only if the migration made it.", drop)];
        }

        if (creation.Replace && there)
        {
            return await DefinitionReversal.ReplacedAsync(r, parsed, made).ConfigureAwait(false);
        }

        ScriptObject fate = r.Make(made).Fate;
        if (fate.Dropped)
        {
            return [r.Forward.NotNeeded($"The script drops the {what} itself.")];
        }

        string? once = await Recreated.DependentsAsync(r, made).ConfigureAwait(false);

        // A class without FAMILY makes one of its own name where there is none.
        ObjectReference family = new(ObjectKind.OperatorFamily, made.Name, null, null, made.Using);
        List<RollbackStatement> besides = parsed is CreateOperatorClass { Family: null } && r.Catalog is not null && await r.FindAsync(family).ConfigureAwait(false) is null && !r.Made(family)
            ? [r.Forward.By(family.Drop(), "It was made with the class.")]
            : [];
        return
        [
            r.Forward.By(drop, string.Join(' ', new[] { creation.Loss, creation.Note, once, there ? $"{what} exists already: the migration has run, or will fail here." : null }.OfType<string>()), creation.Loss is not null),
            .. besides,
        ];
    }

    private static Creation? Of(Reversing r, ParsedStatement parsed) => parsed switch
    {
        CreateSequence s => new(new(ObjectKind.Sequence, s.Sequence), s.IfNotExists),
        CreateView s => new(new(ObjectKind.View, s.View), Replace: s.Replace),
        MakesTable { Kind: not ObjectKind.Table } s => new(new(s.Kind, s.Table), s.IfNotExists),
        CreateRoutine s => new(ObjectNames.Parse(s.Kind, $"{s.Name}({string.Join(", ", s.Arguments.Where(a => a.Mode != "out").Select(a => a.Type))})"), Replace: s.Replace),
        CreateTrigger s => new(new(ObjectKind.Trigger, new(null, s.Name), null, s.Table), Replace: s.Replace),
        CreateRule s => new(new(ObjectKind.Rule, new(null, s.Name), null, s.Table), Replace: s.Replace),
        CreatePolicy s => new(new(ObjectKind.Policy, new(null, s.Name), null, s.Table)),
        CreateEventTrigger s => Plain(ObjectKind.EventTrigger, s.Name),
        CreateEnum s => new(new(ObjectKind.Type, s.Type)),
        CreateComposite s => new(new(ObjectKind.Type, s.Type)),
        CreateRange s => new(new(ObjectKind.Type, s.Type)) { Note = "Its multirange type goes with it." },
        CreateDomain s => new(new(ObjectKind.Domain, s.Domain)),
        CreateSchema { Name: { } name } s => Plain(ObjectKind.Schema, name, s.IfNotExists) with
        {
            Cascade = !s.Elements.IsEmpty,
            Loss = s.Elements.IsEmpty ? null : "All that is in the schema goes with it, whoever made it.",
        },
        CreateSchema { Owner: { } owner } s when owner is not ("current_user" or "current_role" or "session_user") => Plain(ObjectKind.Schema, owner, s.IfNotExists) with { Cascade = !s.Elements.IsEmpty },
        CreateExtension s => Plain(ObjectKind.Extension, s.Name, s.IfNotExists) with
        {
            Note = s.Cascade ? "CASCADE may have installed extensions that it requires: these stay." : null,
        },
        CreateRole s => Plain(ObjectKind.Role, s.Name) with { Note = "A role of the whole server: it is not dropped while it owns anything or has privileges in any database." },
        UserMapping { Create: true } s => new(s.Mapping, s.IfNotExists),
        CreateDatabase s => Plain(ObjectKind.Database, s.Name) with { Loss = $"All of the database {SqlName.QuoteIfNeeded(s.Name)} is lost." },
        CreateTablespace s => Plain(ObjectKind.Tablespace, s.Name) with { Note = "A tablespace is not dropped while anything is in it." },
        CreateOperatorClass s => new(new(ObjectKind.OperatorClass, s.Name, null, null, s.Method))
        {
            Note = s.Family is null && r.Catalog is null ? "The operator family that was made with it, where none of the name existed, stays." : null,
        },
        CreateOperatorFamily s => new(new(ObjectKind.OperatorFamily, s.Name, null, null, s.Method)),
        CreateForeignDataWrapper s => Plain(ObjectKind.ForeignDataWrapper, s.Name),
        CreateServer s => Plain(ObjectKind.Server, s.Name, s.IfNotExists),
        CreateConversion s => new(new(ObjectKind.Conversion, s.Name)),
        CreateCast s => new(s.Cast),
        CreateTransform s => new(s.Transform, Replace: s.Replace),
        CreateAccessMethod s => Plain(ObjectKind.AccessMethod, s.Name),
        CreateLanguage s => Plain(ObjectKind.Language, s.Name) with { Replace = s.Replace },
        CreatePublication s => Plain(ObjectKind.Publication, s.Name),
        CreateSubscription s => Plain(ObjectKind.Subscription, s.Name) with { Note = "It drops the replication slot on the publisher too, which must be reachable; the rows that were copied stay." },
        CreateStatistics { Name: { } name } s => new(new(ObjectKind.Statistics, name), s.IfNotExists),
        CreateStatistics s => new(new(ObjectKind.Statistics, r.Names.Existing(s.Table, r.Forward.Path).Name with { Name = StatisticsName(r, s) })) { Note = RollbackPlanner.GuessedName },
        Define s => OfDefinition(s),
        _ => null,
    };

    private static Creation Plain(ObjectKind kind, string name, bool ifNotExists = false) => new(new ObjectReference(kind, new QualifiedName(null, name)), ifNotExists);

    private static Creation OfDefinition(Define define)
    {
        SqlOption? Option(string name) => define.Options.FirstOrDefault(o => o.Name == name);
        return define.Kind switch
        {
            ObjectKind.Aggregate when define.Arguments is { } arguments => new(new(define.Kind, define.Name, arguments), Replace: define.Replace),
            ObjectKind.Aggregate => new(ObjectNames.Parse(define.Kind, $"{define.Name}({(Option("basetype")?.Value.Text.Trim('\'') is { } type && !type.Equals("any", StringComparison.OrdinalIgnoreCase) ? type : "*")})"), Replace: define.Replace),
            ObjectKind.Operator => new(ObjectNames.Parse(define.Kind, $"{OperatorText(define.Name)} ({Option("leftarg")?.Value.Text ?? "none"}, {Option("rightarg")?.Value.Text ?? "none"})")),
            ObjectKind.Type => new(new(define.Kind, define.Name)) { Cascade = define.Options.Count > 0, Note = define.Options.Count > 0 ? "CASCADE takes its input and output functions, which depend on it as it does on them, and whatever else uses it." : null },
            _ => new(new(define.Kind, define.Name), define.IfNotExists),
        };
    }

    private static string OperatorText(QualifiedName name) => name.Schema is null ? name.Name : $"{SqlName.QuoteIfNeeded(name.Schema)}.{name.Name}";

    private static string StatisticsName(Reversing r, CreateStatistics create)
    {
        ResolvedName table = r.Names.Existing(create.Table, r.Forward.Path);
        return r.Chooser.Statistics(table.Name, create.Expressions.Select(e => e.Read().TakeName() is { } name && e.End - e.First == 1 ? name : "expr"));
    }
}
