using System.Text.RegularExpressions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Execution;

/// <summary>Says which schema a role may not use.</summary>
internal static class SchemaUsage
{
    /// <summary>The schema that the server has just refused, with the GRANT that is missing; null where it refused something else.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="refusal">What the server said (42501).</param>
    /// <param name="target">What the error is about.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<MigrationException?> DeniedAsync(NpgsqlConnection connection, PostgresException refusal, string target, CancellationToken cancellationToken)
    {
        const string Query = """
            select n.nspname::text, pg_catalog.pg_get_userbyid(n.nspowner)::text, current_user::text
            from pg_catalog.pg_namespace n
            where not pg_catalog.has_schema_privilege(n.oid, 'USAGE') and pg_catalog.strpos($1, n.nspname) > 0
            order by pg_catalog.length(n.nspname) desc
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = refusal.MessageText } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            string name = reader.GetString(0);
            // In whatever language the message is, the name stands in it by itself.
            if (!Regex.IsMatch(refusal.MessageText, $@"(?<!\w){Regex.Escape(name)}(?!\w)", RegexOptions.CultureInvariant))
            {
                continue;
            }

            (string schema, string role) = (SqlName.QuoteIfNeeded(name), SqlName.QuoteIfNeeded(reader.GetString(2)));
            return new MigrationException(
                "InsufficientPrivilege",
                MigrationErrorKind.Permission,
                $"{role} may not use the schema {schema}.",
                $"Let its owner ({SqlName.QuoteIfNeeded(reader.GetString(1))}) or a superuser run: GRANT USAGE ON SCHEMA {schema} TO {role};",
                refusal)
            {
                SqlState = refusal.SqlState,
                Target = target,
            };
        }

        return null;
    }
}
