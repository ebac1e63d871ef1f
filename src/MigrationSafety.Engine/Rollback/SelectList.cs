using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>Counts the columns of a query where its words tell them.</summary>
internal static class SelectList
{
    /// <summary>How many columns a query has; null where <c>*</c> or another form leaves it open.</summary>
    internal static int? Count(SqlFragment query)
    {
        SqlReader r = query.Read();
        if (!r.Take("select"))
        {
            return null;
        }

        r.Take("all");
        if (r.Sees("distinct"))
        {
            return null;
        }

        int columns = 1;
        bool last = false;
        while (!r.AtEnd && !r.Sees("from") && !r.Sees("where") && !r.Sees("union") && !r.Sees("order") && !r.Sees("group") && !r.Sees("limit"))
        {
            if (r.SeesMark("*") && (last || columns == 1))
            {
                return null;
            }

            last = r.SeesMark(",") || r.SeesMark(".");
            columns += r.SeesMark(",") ? 1 : 0;
            if (r.TakeParentheses() is null)
            {
                r.Skip();
            }
        }

        return columns;
    }
}
