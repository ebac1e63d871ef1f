using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes RENAME and SET SCHEMA back.</summary>
internal static class RenameReversal
{
    internal static List<RollbackStatement> Reverse(Reversing r, RenameObject rename)
    {
        if (r.Resolve(rename.Object) is not { } old)
        {
            return [r.SchemaUnknown(rename.Object.Target)];
        }

        return rename.Part == RenamedPart.Whole ? [Whole(r, old, rename.NewName)] : [Part(r, old, rename)];
    }

    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, SetSchema moved)
    {
        if (r.Resolve(moved.Object) is not { } old)
        {
            return [r.SchemaUnknown(moved.Object.Target)];
        }

        if (old.Kind == ObjectKind.Extension)
        {
            if (r.Catalog is null || await r.FindAsync(old).ConfigureAwait(false) is not { } address)
            {
                return [r.Forward.Unknown($"In which schema the extension {old.Name} was is not in the text. {ForwardStatement.Connect}")];
            }

            string schema = await r.Catalog.ScalarAsync($"select quote_ident(nspname) from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.oid = {address.ObjectId}", r.CancellationToken).ConfigureAwait(false) ?? "";
            return [r.Forward.By($"alter extension {old.Name} set schema {schema}", condition: old.Exists())];
        }

        if (old.Name.Schema is not { } before)
        {
            return [r.Forward.Unknown($"In which schema {old.Name} was is not in the text. {ForwardStatement.Connect}")];
        }

        ObjectReference now = old with { Name = old.Name with { Schema = moved.Schema } };
        string condition = Condition(r, now, old);
        r.Names.Rename(old.Kind, old.Name, now.Name, Reversing.Detail(old));
        return [r.Forward.By($"alter {old.Kind.Words()} {now.Identity()} set schema {SqlName.QuoteIfNeeded(before)}", condition: condition)];
    }

    /// <summary>That what was renamed is there, and that its old place is free: a second run does nothing then, also where another object has taken the name.</summary>
    private static string Condition(Reversing r, ObjectReference now, ObjectReference old) =>
        string.Join(" and ", new[] { now.Exists(), old.Missing(), r.Displaced(now) }.OfType<string>());

    private static string? Once(bool swap) => swap ? "Run it once: the migration swaps names, and no name tells afterwards whether they have been swapped back." : null;

    /// <summary>Whether the condition holds before the migration too, so that a second run would rename what is right.</summary>
    private static bool IsSwap(Reversing r, ObjectReference now, ObjectReference old)
    {
        bool Was(ObjectReference o) => o.On is { } on
            ? r.Names.Existing(on, r.Forward.Path).Relation is { } relation && (o.Kind == ObjectKind.Column ? relation.Columns.ContainsKey(o.Name.Name) : relation.Constraints.Contains(o.Name.Name))
            : o.Name.Schema is { } schema && r.Names.Catalog?.Has(o.Kind, schema, o.Name.Name) == true;
        return r.Displaced(now) is not null && Was(now) && !Was(old) && r.DisplacedTo(now) is { } other && Was(other);
    }

    private static RollbackStatement Whole(Reversing r, ObjectReference old, string newName)
    {
        ObjectReference now = old with { Name = old.Name with { Name = newName } };
        string condition = Condition(r, now, old);
        bool swap = IsSwap(r, now, old);
        bool part = old.Kind is ObjectKind.Trigger or ObjectKind.Rule or ObjectKind.Policy;
        if (part && r.Names.Made(old.On!) is not null)
        {
            ScriptNames.RenamePart(r.Names.Touch(ObjectKind.Table, old.On!), old.Kind, old.Name.Name, newName);
            return r.Forward.NotNeeded($"It goes with the table {old.On}, which this script makes.");
        }

        if (part)
        {
            ScriptNames.RenamePart(r.Names.Touch(ObjectKind.Table, old.On!), old.Kind, old.Name.Name, newName);
        }
        else
        {
            r.Names.Rename(old.Kind, old.Name, now.Name, Reversing.Detail(old));
        }

        string name = old.Kind == ObjectKind.Role ? ObjectNames.Role(old.Name.Name) : SqlName.QuoteIfNeeded(old.Name.Name);
        string? note = old.Kind == ObjectKind.Role ? "A password that is kept as MD5 is cleared by any renaming." : null;
        return r.Forward.By($"alter {old.Kind.Words()} {now.Identity()} rename to {name}", Once(swap) ?? note, condition: condition);
    }

    private static RollbackStatement Part(Reversing r, ObjectReference whole, RenameObject rename)
    {
        bool made = r.Names.Find(whole.Kind, whole.Name) is { Made: true };
        string target = $"alter {whole.Kind.Words()} {whole.Name} rename";
        if (rename.Part == RenamedPart.Value)
        {
            string there = $"exists (select from pg_catalog.pg_enum where enumtypid = to_regtype({SqlName.Literal(whole.Name.ToString())}) and enumlabel = ";
            return made
                ? r.Forward.NotNeeded($"It goes with the type {whole.Name}, which this script makes.")
                : r.Forward.By($"{target} value {rename.NewName} to {rename.OldName}", condition: $"{there}{rename.NewName}) and not {there}{rename.OldName})");
        }

        ObjectKind kind = rename.Part == RenamedPart.Constraint ? ObjectKind.Constraint : ObjectKind.Column;
        ObjectReference now = new(kind, new QualifiedName(null, rename.NewName), null, whole.Name);
        ObjectReference old = now with { Name = new QualifiedName(null, rename.OldName!) };
        string condition = Condition(r, now, old);
        bool swap = IsSwap(r, now, old);
        ScriptNames.RenamePart(r.Names.Touch(whole.Kind, whole.Name), kind, rename.OldName!, rename.NewName);
        if (made)
        {
            return r.Forward.NotNeeded($"It goes with the {whole.Kind.Words()} {whole.Name}, which this script makes.");
        }

        string word = rename.Part switch { RenamedPart.Constraint => "constraint", RenamedPart.Attribute => "attribute", _ => "column" };
        string cascade = rename.Part == RenamedPart.Attribute && r.Forward.Statement.Tokens[^1].Span(r.Forward.Statement.Script).Equals("cascade", StringComparison.OrdinalIgnoreCase) ? " cascade" : "";
        return r.Forward.By($"{target} {word} {now.Name} to {old.Name}{cascade}", Once(swap), condition: condition);
    }
}
