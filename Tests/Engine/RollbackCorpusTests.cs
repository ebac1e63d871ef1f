using System.Text;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Rollback;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Schema;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Every command that a migration may hold, up and down: what is called reversible leaves no difference in the catalog.</summary>
public sealed class RollbackCorpusTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>All families on the newest major of the run, or on the only one; on the others a share of them, so that all majors together cost two runs.</summary>
    public static IEnumerable<TheoryDataRow<int, string>> Families =>
        from major in PostgresClusters.RequestedMajors
        from family in RollbackCorpus.Families.Index()
        where major == PostgresClusters.RequestedMajors.Max() || family.Index % 4 == major % 4
        select new TheoryDataRow<int, string>(major, family.Item);

    [Theory, MemberData(nameof(Families))]
    public async Task Up_and_down_is_as_before(int major, string family)
    {
        StringBuilder failures = new();
        Database? database = null;
        // For work on one of them: part of its name, such as "types:45".
        string? only = Environment.GetEnvironmentVariable("MIGRATIONSAFETY_CORPUS_CASE");
        try
        {
            foreach (CorpusCase @case in RollbackCorpus.Cases(family))
            {
                if (only is not null && !@case.ToString().Contains(only, StringComparison.Ordinal))
                {
                    continue;
                }

                database ??= await Database.CreateAsync(servers, major, family);
                if (@case.From > database.Major)
                {
                    continue;
                }

                if (await TryAsync(database, @case) is { } failure)
                {
                    failures.Append("\n== ").Append(@case).Append(": ").Append(failure);

                    // What a failed case leaves is not the next one's.
                    await database.DisposeAsync();
                    database = null;
                }
            }
        }
        finally
        {
            if (database is not null)
            {
                await database.DisposeAsync();
            }
        }

        Assert.True(failures.Length == 0, failures.ToString());
    }

    private static async Task<string?> TryAsync(Database database, CorpusCase @case)
    {
        RollbackScript? rollback = null;
        try
        {
            rollback = await RollbackGenerator.FromFileAsync(database.Session, MigrationFile.OfText("x.sql", @case.Sql, MigrationFormat.Plain), false, database.Sink, Token);
            if (rollback.Reversibility != @case.Expected)
            {
                return $"called {rollback.Reversibility}, not {@case.Expected}:\n{Short(rollback)}";
            }

            if (@case.Expected is Reversibility.Irreversible or Reversibility.Unknown)
            {
                await database.TryAsync(@case.Sql);
                return rollback.Statements.Any(s => s.Reversibility == @case.Expected && string.IsNullOrEmpty(s.Note)) ? "says no reason" : null;
            }

            await database.RunAsync(@case.Sql);
            await database.RunAsync(rollback.Text);
            if (@case.Once)
            {
                Assert.Contains("Run it once", rollback.Text, StringComparison.Ordinal);
            }
            else
            {
                await database.RunAsync(rollback.Text);
            }

            SchemaSnapshot after = await SnapshotReader.ReadAsync(database.Session, database.Sink, Token);
            IReadOnlyList<SchemaDifference> differences = SnapshotComparer.Compare(database.Before, after, @case.Moves ? ["Position"] : []);
            database.Before = after;
            return differences.Count == 0 != @case.Differs ? null : $"differs: {string.Join("; ", differences.Select(d => $"{d.Change} {d.Kind} {d.Identity} {d.Property}: {d.Reference} -> {d.Difference}"))}\n{Short(rollback)}";
        }
        catch (Exception e) when (e is PostgresException or MigrationException or InvalidOperationException or NullReferenceException or NotImplementedException or ArgumentException)
        {
            return $"{e.GetType().Name}: {e.Message} {(e as PostgresException)?.Hint}\n{(rollback is null ? e.StackTrace : Short(rollback))}";
        }
    }

    private static string Short(RollbackScript rollback) => string.Join('\n', rollback.Statements.Select(s => $"   {s.Reversibility}: {s.Reversal}; -- {s.Note}"));

    /// <summary>A database of a family as its set-up leaves it.</summary>
    private sealed class Database : IAsyncDisposable
    {
        private readonly TestDatabase _database;
        private readonly MigrationSession _session;

        private Database(TestDatabase database, MigrationSession session, RecordingSink sink) => (_database, _session, Sink) = (database, session, sink);

        internal RecordingSink Sink { get; }

        internal EngineSession Session => EngineSession.Of(_session);

        internal int Major => _database.Server.Major;

        internal SchemaSnapshot Before { get; set; } = null!;

        internal static async Task<Database> CreateAsync(Servers servers, int major, string family)
        {
            TestDatabase database = await servers.Clusters.CreateDatabaseAsync(major, Token);
            RecordingSink sink = new();
            Database created = new(database, await SessionFactory.ConnectAsync(new() { Text = database.ConnectionString }, sink, Token), sink);
            await created.RunAsync(RollbackCorpus.SetUp(family));
            created.Before = await SnapshotReader.ReadAsync(created.Session, sink, Token);
            return created;
        }

        /// <summary>Runs a script of which nothing is to be left: that the server takes it is all that matters.</summary>
        internal async Task TryAsync(string script)
        {
            try
            {
                await RunAsync($"begin;\n{script}\n;rollback;");
            }
            catch (InvalidOperationException e) when (e.InnerException is PostgresException { SqlState: PostgresErrorCodes.ActiveSqlTransaction })
            {
                // What can be in no transaction is refused only when it has been understood.
            }
        }

        /// <summary>Statement by statement, as psql does.</summary>
        internal async Task RunAsync(string script)
        {
            await using NpgsqlConnection connection = await _database.OpenAsync(Token);
            foreach (SqlStatement statement in SqlScript.Parse(script).Statements.Where(s => s.Kind == SqlStatementKind.Sql))
            {
                await using NpgsqlBatch batch = StatementBatch.Of(connection, statement.Text);
                try
                {
                    await batch.ExecuteNonQueryAsync(Token);
                }
                catch (PostgresException e)
                {
                    throw new InvalidOperationException($"{e.SqlState} {e.MessageText} {e.Detail} in: {statement.Text}", e);
                }
            }
        }

        public async ValueTask DisposeAsync()
        {
            await SessionFactory.DisconnectAsync(_session);
            await _database.DisposeAsync();
        }
    }
}
