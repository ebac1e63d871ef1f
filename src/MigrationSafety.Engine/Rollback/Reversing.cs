using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>All that a family of statements has to find the reversal of one.</summary>
/// <param name="Forward">The statement.</param>
/// <param name="Names">What names mean at it.</param>
/// <param name="Chooser">Names that PostgreSQL chooses.</param>
/// <param name="Catalog">The catalog before the script; null without a session.</param>
/// <param name="Archive">Where data is kept that would be lost; null where that was not asked for.</param>
/// <param name="CancellationToken">Cancels.</param>
internal sealed record Reversing(ForwardStatement Forward, ScriptNames Names, NameChooser Chooser, RollbackCatalog? Catalog, DataArchive? Archive, CancellationToken CancellationToken)
{
    /// <summary>Whether the statement does nothing where what it makes is there already, and where what it drops is not, though its own words do not say so.</summary>
    internal bool Optional { get; init; }

    /// <summary>What makes the statement do nothing there.</summary>
    internal string OnlyIfMissing => Optional ? "The block" : "IF NOT EXISTS";

    /// <summary>The same at the beginning of what is not known of it.</summary>
    internal string Whether => Optional ? "The block does nothing where it exists: whether" : "IF NOT EXISTS: whether";

    /// <summary>What is said where the path of the script leaves several schemas.</summary>
    internal RollbackStatement SchemaUnknown(QualifiedName name) =>
        Forward.Unknown($"In which schema of the script's search_path {name} is cannot be told from the text: connect, or write the schema.");

    /// <summary>An object with its schema, as it is named at this statement; null where the script's path leaves several.</summary>
    /// <param name="o">As the statement names it.</param>
    /// <param name="made">Whether the statement makes it.</param>
    internal ObjectReference? Resolve(ObjectReference o, bool made = false)
    {
        if (o.Kind is ObjectKind.Trigger or ObjectKind.Rule or ObjectKind.Policy or ObjectKind.Column or ObjectKind.Constraint)
        {
            ResolvedName on = Names.Existing(o.On!, Forward.Path);
            if (o.Kind == ObjectKind.Constraint && on.Relation is null && Names.Find(ObjectKind.Table, on.Name) is null)
            {
                ResolvedName domain = Names.Resolve(ObjectKind.Type, o.On!, "", Forward.Path);
                on = Names.Catalog?.Has(ObjectKind.Type, domain.Name.Schema ?? "", domain.Name.Name) == true ? domain : on;
            }

            return on.Known ? o with { On = on.Name } : null;
        }

        if (o.Kind is ObjectKind.Cast or ObjectKind.Transform)
        {
            return o;
        }

        ResolvedName name = made ? Names.New(o.Kind, o.Name, Forward.Path) : Names.Resolve(o.Kind, o.Name, Detail(o), Forward.Path);
        return name.Known ? o with { Name = name.Name } : null;
    }

    /// <summary>What tells an object from others of its name.</summary>
    internal static string Detail(ObjectReference o) => o.Kind switch
    {
        ObjectKind.OperatorClass or ObjectKind.OperatorFamily or ObjectKind.Cast => " " + o.Using,
        ObjectKind.Transform or ObjectKind.UserMapping => " " + o.On,
        ObjectKind.Operator => " " + o.Arguments?.Text,
        { } kind when kind.IsRoutine() && o.Arguments is { } arguments => $"({ObjectNames.NormalTypes(arguments)})",
        _ => "",
    };

    /// <summary>The object as it was named before the script; null where the script has made it.</summary>
    internal ObjectReference? Before(ObjectReference now)
    {
        if (IsPart(now.Kind))
        {
            ObjectKind whole = Names.Find(ObjectKind.Type, now.On!) is not null ? ObjectKind.Type : ObjectKind.Table;
            if (Names.BeforeScript(whole, now.On!) is not { } on)
            {
                return null;
            }

            ScriptObject? part = Names.Find(whole, now.On!)?.Parts.GetValueOrDefault((now.Kind, now.Name.Name));
            return part is null ? now with { On = on } : part.Before is { } before ? now with { Name = before, On = on } : null;
        }

        return Names.BeforeScript(now.Kind, now.Name, Detail(now)) is { } name ? now with { Name = name } : null;
    }

    /// <summary>Whether the script itself has made the object, for certain.</summary>
    internal bool Made(ObjectReference now) => IsPart(now.Kind)
        ? Names.Find(ObjectKind.Table, now.On!) is { } table && (table.Made || table.Parts.GetValueOrDefault((now.Kind, now.Name.Name)) is { Made: true })
        : Names.Find(now.Kind, now.Name, Detail(now)) is { Made: true };

    /// <summary>Its place in the catalog before the script; null where it is not there, or no catalog was asked.</summary>
    internal async Task<CatalogAddress?> FindAsync(ObjectReference now) =>
        Catalog is { } catalog && ObjectNames.CanBeFound(now.Kind) && Before(now) is { } before
            && await catalog.FindAsync(before, Forward.Path, CancellationToken).ConfigureAwait(false) is { } address && !Names.IsGone(address)
            ? address
            : null;

    /// <summary>
    /// That the object of the catalog which had this name before is still at the name that the script has given it: where it has not, a rollback has run, and
    /// the name is its own again. Null where there was none.
    /// </summary>
    internal string? Displaced(ObjectReference now) => DisplacedTo(now)?.Exists();

    /// <summary>The name that the script has given to the object of the catalog which had this name before; null where there was none.</summary>
    internal ObjectReference? DisplacedTo(ObjectReference now)
    {
        ScriptObject? other = IsPart(now.Kind)
            ? Names.Find(ObjectKind.Table, now.On!)?.Parts.Values.FirstOrDefault(p => p.Kind == now.Kind && p.Before == now.Name && p.Name != now.Name)
            : Names.Renamed.FirstOrDefault(o => o.Kind.Space() == now.Kind.Space() && o.Before == now.Name);
        return other is null ? null : now with { Name = other.Name };
    }

    /// <summary>
    /// A condition that the object is there under the name that the script has given it, or its table; null where that is the one from before, under which it is
    /// there anyway. A second run finds the old name again, and has nothing to do here.
    /// </summary>
    internal string? IfMoved(ObjectReference now) => Before(now) is { } before && before != now ? now.Exists() : null;

    /// <summary>A definition of the catalog with the names of now, run only while what it names has them.</summary>
    internal (string Sql, string? Condition) Now(string sql, ObjectReference? about = null, string? condition = null)
    {
        string now = NameRewriter.Now(sql, Names, about);
        string?[] conditions = [condition, now != sql && about is not null ? IfMoved(about) : null, .. now == sql ? [] : NameRewriter.Used(sql, Names).Select(o => new ObjectReference(o.Kind, o.Name).Exists()), .. now == sql || about is null ? [] : NameRewriter.UsedColumns(sql, Names, about).Select(c => c.Exists())];
        string[] all = [.. conditions.OfType<string>().Distinct()];
        return (now, all.Length == 0 ? null : string.Join(" and ", all));
    }

    /// <summary>Whether a name is a domain's, not a table's.</summary>
    internal bool IsDomain(QualifiedName name) => Names.Find(ObjectKind.Domain, name) is not null
        || (Names.Existing(name, Forward.Path).Relation is null && Names.Catalog?.Has(ObjectKind.Domain, name.Schema ?? "", name.Name) == true);

    /// <summary>Notes what the statement makes.</summary>
    internal ScriptObject Make(ObjectReference made, bool certain = true) => IsPart(made.Kind)
        ? Names.MakePart(Names.Touch(ObjectKind.Table, made.On!), made.Kind, made.Name.Name, certain)
        : Names.Make(made.Kind, made.Name, certain, Detail(made));

    /// <summary>Notes what the statement drops.</summary>
    internal void Drop(ObjectReference dropped)
    {
        if (IsPart(dropped.Kind))
        {
            ScriptNames.DropPart(Names.Touch(ObjectKind.Table, dropped.On!), dropped.Kind, dropped.Name.Name);
        }
        else
        {
            Names.Drop(dropped.Kind, dropped.Name, Detail(dropped));
        }
    }

    private static bool IsPart(ObjectKind kind) => kind is ObjectKind.Trigger or ObjectKind.Rule or ObjectKind.Policy or ObjectKind.Column or ObjectKind.Constraint;
}
