using Npgsql;

namespace MigrationSafety.Engine.Execution;

/// <summary>Nullable columns, which the statistics views are full of: what a role may not see is null there.</summary>
internal static class ReaderExtensions
{
    internal static string? Text(this NpgsqlDataReader reader, int ordinal) => reader.IsDBNull(ordinal) ? null : reader.GetString(ordinal);

    internal static bool IsTrue(this NpgsqlDataReader reader, int ordinal) => !reader.IsDBNull(ordinal) && reader.GetBoolean(ordinal);

    internal static int? Int(this NpgsqlDataReader reader, int ordinal) => reader.IsDBNull(ordinal) ? null : reader.GetInt32(ordinal);

    internal static long? Long(this NpgsqlDataReader reader, int ordinal) => reader.IsDBNull(ordinal) ? null : reader.GetInt64(ordinal);

    /// <summary>An interval between two timestamps; never negative, whatever the clocks of two samples say.</summary>
    internal static TimeSpan? Duration(this NpgsqlDataReader reader, int ordinal)
    {
        if (reader.IsDBNull(ordinal))
        {
            return null;
        }

        TimeSpan value = reader.GetTimeSpan(ordinal);
        return value < TimeSpan.Zero ? TimeSpan.Zero : value;
    }

    internal static DateTimeOffset? Time(this NpgsqlDataReader reader, int ordinal) =>
        reader.IsDBNull(ordinal) ? null : new DateTimeOffset(reader.GetDateTime(ordinal), TimeSpan.Zero).ToLocalTime();

    /// <summary>
    /// A blocker from nine columns in a row: pid, user, application, client address, state, age of the transaction, query, backend type, backend start.
    /// </summary>
    internal static LockBlocker Blocker(this NpgsqlDataReader reader, int first = 0) => new()
    {
        Pid = reader.Int(first) ?? 0,
        User = reader.Text(first + 1),
        Application = reader.Text(first + 2),
        ClientAddress = reader.Text(first + 3),
        State = reader.Text(first + 4),
        TransactionAge = reader.Duration(first + 5),
        Query = reader.Text(first + 6),
        BackendType = reader.Text(first + 7),
        BackendStart = reader.Time(first + 8),
    };
}
