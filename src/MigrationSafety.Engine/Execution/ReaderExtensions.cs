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
}
