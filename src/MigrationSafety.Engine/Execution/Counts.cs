namespace MigrationSafety.Engine.Execution;

/// <summary>Numbers of rows in words.</summary>
internal static class Counts
{
    /// <summary>Such as <c>1 row</c> and <c>1,234 rows</c>.</summary>
    internal static string Rows(long rows) => rows == 1 ? "1 row" : $"{rows:N0} rows";

    /// <summary>With what they do: <c>1 row matches</c> and <c>1,234 rows match</c>.</summary>
    internal static string Rows(long rows, string one, string several) => $"{Rows(rows)} {(rows == 1 ? one : several)}";
}
