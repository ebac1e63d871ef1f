using System.Globalization;
using System.Text;

namespace MigrationSafety.Module;

/// <summary>Steps in words, for plans.</summary>
internal static class StepTexts
{
    internal static string Lock(MigrationStep step)
    {
        string cost = step.Cost switch
        {
            StepCost.Instant => "instant",
            StepCost.ScansTable => "reads the whole table",
            StepCost.RewritesTable => "rewrites the table",
            StepCost.BuildsIndex => "builds an index",
            _ => "changes rows in batches",
        };
        string on = step.Objects.Length == 0 ? "" : " on " + string.Join(", ", step.Objects);
        string mode = step.LockMode == TableLockMode.None ? "no table lock" : Words(step.LockMode.ToString());
        string transaction = step.Transactional ? "" : ", outside a transaction";
        return $"{mode}{on}, {cost}{transaction}";
    }

    /// <summary>AccessExclusive becomes ACCESS EXCLUSIVE, as the manual writes it.</summary>
    private static string Words(string name)
    {
        StringBuilder text = new();
        foreach (char c in name)
        {
            if (char.IsUpper(c) && text.Length > 0)
            {
                text.Append(' ');
            }

            text.Append(char.ToUpper(c, CultureInfo.InvariantCulture));
        }

        return text.ToString();
    }
}
