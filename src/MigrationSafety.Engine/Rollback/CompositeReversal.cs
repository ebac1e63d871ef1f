using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes ALTER TYPE of a composite type back.</summary>
internal static class CompositeReversal
{
    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, AlterTable alter, ResolvedName type)
    {
        if (r.Names.Find(ObjectKind.Type, type.Name) is { Made: true })
        {
            return [r.Forward.NotNeeded($"It goes with the type {type.Name}, which this script makes.")];
        }

        ScriptObject script = r.Names.Touch(ObjectKind.Type, type.Name);
        List<List<RollbackStatement>> all = [];
        foreach (TableAction action in alter.Actions)
        {
            switch (action)
            {
                case AddColumn add:
                    ObjectReference made = new(ObjectKind.Column, new QualifiedName(null, add.Column.Name), null, type.Name);
                    r.Names.MakePart(script, ObjectKind.Column, add.Column.Name);
                    all.Add([r.Forward.By($"alter type {type.Name} drop attribute if exists {made.Name}{(add.Cascade ? " cascade" : "")}", "What columns of the type hold in this attribute is lost.", lossy: true, condition: new ObjectReference(ObjectKind.Type, type.Name).Exists())]);
                    break;
                default:
                    all.Add(await TableActionReversal.ReverseAsync(r, alter, script, type, action).ConfigureAwait(false));
                    break;
            }
        }

        all.Reverse();
        return [.. all.SelectMany(a => a)];
    }
}
