using Npgsql;

namespace MigrationSafety.Engine.Execution;

/// <summary>Nullable columns, which the statistics views are full of: what a role may not see is null there.</summary>
internal static class ReaderExtensions
{
    internal static string? Text(this NpgsqlDataReader reader, int ordinal) => reader.IsDBNull(ordinal) ? null : reader.GetString(ordinal);

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
    /// A blocker from the first nine columns: pid, user, application, client address, state, age of the transaction, query, backend type, backend start.
    /// </summary>
    internal static LockBlocker Blocker(this NpgsqlDataReader reader) => new()
    {
        Pid = reader.Int(0) ?? 0,
        User = reader.Text(1),
        Application = reader.Text(2),
        ClientAddress = reader.Text(3),
        State = reader.Text(4),
        TransactionAge = reader.Duration(5),
        Query = reader.Text(6),
        BackendType = reader.Text(7),
        BackendStart = reader.Time(8),
    };
}
