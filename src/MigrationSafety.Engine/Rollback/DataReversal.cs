using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes statements on rows back.</summary>
internal static class DataReversal
{
    /// <summary>Why nothing has to be kept or taken back; null where something has.</summary>
    internal static List<RollbackStatement>? TryNotNeeded(Reversing r, ParsedStatement parsed) =>
        Reverse(r, StatementEffect.Of(parsed), parsed) is { Reversibility: Reversibility.NotNeeded } not ? [not] : null;

    internal static RollbackStatement Reverse(Reversing r, StatementEffect effect, ParsedStatement parsed)
    {
        ForwardStatement forward = r.Forward;
        if (effect.Kind == EffectKind.Nothing)
        {
            return forward.NotNeeded($"{effect.Tag} leaves nothing to take back.");
        }

        if (effect.Target is { } target)
        {
            ResolvedName table = r.Names.Existing(target, forward.Path);
            if (r.Names.Made(table.Name) is not null)
            {
                return forward.NotNeeded($"It goes with the table {table.Name}, which this script makes.");
            }

            if (effect.WrittenColumns.Count > 0 && r.Names.Find(ObjectKind.Table, table.Name) is { } script && effect.WrittenColumns.All(script.Adds))
            {
                return forward.NotNeeded($"It writes only columns of {table.Name} that this script adds; the values go with them. What triggers on the table did besides stays.");
            }

            if (parsed is Insert { With: [] } insert && InsertedRows.Delete(insert, table) is { } delete)
            {
                return forward.By(delete, "It removes the rows of these keys, with whatever has been changed in them since; where other rows refer to them by now it fails.", lossy: true);
            }
        }

        if (effect.Kind == EffectKind.WritesRows)
        {
            string hint = r.Archive is null && effect.Tag is not ("INSERT" or "COPY") ? " -PreserveData keeps them before the migration runs." : "";
            return forward.Irreversible(effect.Tag switch
            {
                "INSERT" or "COPY" => $"{effect.Tag} adds rows: the text does not tell which rows to remove.",
                "UPDATE" or "MERGE" => $"{effect.Tag} overwrites values: the text does not hold the values before.",
                _ => $"{effect.Tag} removes rows: the text does not hold them.",
            } + hint);
        }

        if (parsed is CallProcedure call)
        {
            return forward.Unknown($"CALL: what {call.Procedure} does is in the procedure, not in the migration; write its reversal by hand.");
        }

        string command = effect.Tag.Length == 0 ? "The text" : effect.Tag;
        bool variable = forward.Statement.Tokens.Zip(forward.Statement.Tokens.Skip(1)).Any(t =>
            t.First.Length == 1 && forward.Statement.Script[t.First.Start] == ':' && t.First.EndIndex == t.Second.Start);
        string why = forward.Statement.IsBroken ? "it is broken (a quotation mark, a comment or a parenthesis is not closed, or a character is none of SQL's), and may hide what follows"
            : variable ? "it may hold a variable of psql, whose value only psql knows"
            : "this command, or this form of it, is not understood here";
        return forward.Unknown($"{command}: {why}; write its reversal by hand.");
    }
}
