using System.Globalization;
using System.Security.Cryptography;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Rollback.Proof;

/// <summary>
/// A database that lives as long as a test. It is dropped when disposed of; where the client was lost before, the next test on the server drops it: it has a name of
/// the pattern, and nobody holds the advisory lock of its name, which pg_locks shows whatever database it was taken in.
/// </summary>
internal sealed class ScratchDatabase : IAsyncDisposable
{
    private const string Prefix = "migration_safety_scratch_";

    // First key of the locks: "MiSc" in ASCII.
    private const int ClassId = 0x4D695363;

    private readonly EngineSession _server;
    private readonly NpgsqlConnection _connection;
    private readonly IOperationSink _sink;
    private EngineSession? _session;

    private ScratchDatabase(EngineSession server, NpgsqlConnection connection, string name, IOperationSink sink) => (_server, _connection, Name, _sink) = (server, connection, name, sink);

    internal string Name { get; }

    /// <summary>A session in it.</summary>
    internal EngineSession Session => _session!;

    /// <summary>Removes what lost tests left, then makes a database.</summary>
    /// <param name="server">Session on the server.</param>
    /// <param name="options">What follows CREATE DATABASE name.</param>
    /// <param name="settings">Its settings (ALTER DATABASE ... SET), by name.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException"><c>CreateDatabaseDenied</c>, <c>TemplateNotFound</c>, <c>TemplateInUse</c> ...</exception>
    internal static async Task<ScratchDatabase> CreateAsync(EngineSession server, string options, IReadOnlyList<(string Name, string Value)> settings, IOperationSink sink, CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = await server.OpenAsync("scratch", sink, cancellationToken).ConfigureAwait(false);
        string name = string.Create(CultureInfo.InvariantCulture, $"{Prefix}{DateTime.UtcNow:yyyyMMddHHmmss}_{Convert.ToHexString(RandomNumberGenerator.GetBytes(4)).ToLowerInvariant()}");
        ScratchDatabase scratch = new(server, connection, name, sink);
        try
        {
            await RemoveLeftoversAsync(connection, sink, cancellationToken).ConfigureAwait(false);
            await using (NpgsqlCommand lockName = new("select pg_catalog.pg_advisory_lock($1, pg_catalog.hashtext($2))", connection) { Parameters = { new() { Value = ClassId }, new() { Value = name } } })
            {
                await lockName.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            }

            sink.Verbose($"Making the scratch database {name} on {server.Info.Server}:{server.Info.Port}.");
            await ScriptRunner.ExecuteAsync(connection, $"create database {SqlName.Quote(name)} {options}", sink, cancellationToken).ConfigureAwait(false);
            foreach ((string setting, string value) in settings)
            {
                await scratch.SetAsync(setting, value, cancellationToken).ConfigureAwait(false);
            }

            scratch._session = await SessionFactory.ConnectLikeAsync(server, name, sink, cancellationToken).ConfigureAwait(false);
            return scratch;
        }
        catch (Exception e)
        {
            await scratch.DisposeAsync().ConfigureAwait(false);
            cancellationToken.ThrowIfCancellationRequested();
            throw Translate(e, server);
        }
    }

    /// <summary>Drops it, whoever is in it, whatever has happened. Where that fails the name is said, and the next test tries again.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_session is not null)
        {
            await _session.DisposeAsync().ConfigureAwait(false);
        }

        try
        {
            using CancellationTokenSource limit = new(TimeSpan.FromSeconds(30));
            string drop = $"drop database if exists {SqlName.Quote(Name)} with (force)";
            try
            {
                await ScriptRunner.ExecuteAsync(_connection, drop, _sink, limit.Token).ConfigureAwait(false);
            }
            catch (Exception e) when (e is NpgsqlException or InvalidOperationException && e is not PostgresException)
            {
                // The connection was lost, or a cancelled command has it still: another one will do.
                await using NpgsqlConnection another = await _server.OpenAsync("scratch", _sink, limit.Token).ConfigureAwait(false);
                await ScriptRunner.ExecuteAsync(another, drop, _sink, limit.Token).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is NpgsqlException or MigrationException or OperationCanceledException)
        {
            _sink.Warning($"The scratch database {Name} on {_server.Info.Server}:{_server.Info.Port} could not be dropped: {e.Message} The next Test-RollbackScript there drops it.");
        }
        finally
        {
            if (_connection.FullState == System.Data.ConnectionState.Open)
            {
                await using NpgsqlCommand unlock = new("select pg_catalog.pg_advisory_unlock_all()", _connection) { CommandTimeout = 5 };
                await unlock.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
            }

            await _connection.DisposeAsync().ConfigureAwait(false);
        }
    }

    // FROM CURRENT, since a value such as a search path is a list that has to be written as one.
    private async Task SetAsync(string name, string value, CancellationToken cancellationToken)
    {
        try
        {
            await using (NpgsqlCommand set = new("select pg_catalog.set_config($1, $2, false)", _connection) { Parameters = { new() { Value = name }, new() { Value = value } } })
            {
                await set.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            }

            string quoted = string.Join('.', name.Split('.').Select(SqlName.Quote));
            await ScriptRunner.ExecuteAsync(_connection, $"alter database {SqlName.Quote(Name)} set {quoted} from current", _sink, cancellationToken).ConfigureAwait(false);
            await ScriptRunner.ExecuteAsync(_connection, $"reset {quoted}", _sink, cancellationToken).ConfigureAwait(false);
        }
        catch (PostgresException e) when (!cancellationToken.IsCancellationRequested)
        {
            _sink.Warning($"The scratch database lacks the setting {name} of the target: {e.MessageText}");
        }
    }

    private static async Task RemoveLeftoversAsync(NpgsqlConnection connection, IOperationSink sink, CancellationToken cancellationToken)
    {
        const string Query = """
            select d.datname::text
            from pg_catalog.pg_database d
            where d.datname like $1 and pg_catalog.pg_has_role(d.datdba, 'USAGE')
              and not exists (select from pg_catalog.pg_stat_activity a where a.datid = d.oid and a.backend_type = 'client backend')
              and not exists (select from pg_catalog.pg_locks l where l.locktype = 'advisory' and l.objsubid = 2 and l.classid = $2 and l.objid::int8 = (pg_catalog.hashtext(d.datname::text)::int8 & 4294967295))
            """;
        List<string> names = [];
        await using (NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = Prefix.Replace("_", @"\_", StringComparison.Ordinal) + "%" }, new() { Value = (uint)ClassId, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Oid } },
        })
        {
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                names.Add(reader.GetString(0));
            }
        }

        foreach (string name in names)
        {
            try
            {
                // Without FORCE: who came in meanwhile keeps it.
                await ScriptRunner.ExecuteAsync(connection, $"drop database if exists {SqlName.Quote(name)}", sink, cancellationToken).ConfigureAwait(false);
                sink.Warning($"Dropped the scratch database {name}, which an earlier test that was cut off had left.");
            }
            catch (PostgresException e) when (e.SqlState is SqlStates.ObjectInUse or SqlStates.InsufficientPrivilege)
            {
                sink.Verbose($"The scratch database {name} stays: {e.MessageText}");
            }
        }
    }

    private static MigrationException Translate(Exception e, EngineSession server) => e switch
    {
        PostgresException { SqlState: SqlStates.InsufficientPrivilege } denied => new MigrationException(
            "CreateDatabaseDenied",
            MigrationErrorKind.Permission,
            $"{server.Info.User} may not make the scratch database on {server.Info.Server}:{server.Info.Port}: {ServerErrors.Words(denied)}",
            $"On that server, which should not be the production one: ALTER ROLE {SqlName.QuoteIfNeeded(server.Info.User)} CREATEDB; a template must be marked IS_TEMPLATE or be the role's own.",
            e)
        {
            SqlState = denied.SqlState,
            Target = server.Info.ToString(),
        },
        PostgresException { SqlState: SqlStates.ObjectInUse } busy => new MigrationException(
            "TemplateInUse",
            MigrationErrorKind.Busy,
            $"The template cannot be copied while somebody is connected to it: {ServerErrors.Words(busy)}",
            "Close the connections to it (pg_stat_activity names them), or copy the schema from the database instead: -From.",
            e)
        {
            SqlState = busy.SqlState,
            Target = server.Info.ToString(),
        },
        PostgresException { SqlState: SqlStates.InvalidCatalogName } missing => new MigrationException(
            "TemplateNotFound",
            MigrationErrorKind.NotFound,
            $"There is no such template on {server.Info.Server}:{server.Info.Port}: {ServerErrors.Words(missing)}",
            "Name a database of that server; capitals count.",
            e)
        {
            SqlState = missing.SqlState,
            Target = server.Info.ToString(),
        },
        _ => ServerErrors.Translate(e, "Making the scratch database", server.Info.ToString()),
    };
}
