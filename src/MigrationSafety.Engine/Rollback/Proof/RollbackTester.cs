using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Schema;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Rollback.Proof;

/// <summary>What is to be tested.</summary>
public sealed record RollbackTestRequest
{
    /// <summary>The migration.</summary>
    public required MigrationFile Migration { get; init; }

    /// <summary>The rollback's text; null for the migration's own, and where it has none, for the one that is made of it.</summary>
    public string? Rollback { get; init; }

    /// <summary>Where <see cref="Rollback"/> is from; null without it.</summary>
    public string? RollbackName { get; init; }

    /// <summary>The database whose schema is copied; null for the one of the session, or where there is a template.</summary>
    public EngineSession? From { get; init; }

    /// <summary>A database of the session's server that is copied with all it holds; null for a copy of the schema.</summary>
    public string? Template { get; init; }

    /// <summary>How many rows of each table are looked after; 0 for none.</summary>
    public int SampleRows { get; init; }
}

/// <summary>Proves a rollback: migration, rollback, and migration again in a scratch database, and the catalog compared.</summary>
public static class RollbackTester
{
    /// <summary>Tests a rollback. The scratch database is gone afterwards, whatever happens.</summary>
    /// <param name="session">Session on the server where the scratch database is made; not a production one.</param>
    /// <param name="request">What is to be tested.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="cancellationToken">Cancels, and drops the scratch database.</param>
    /// <returns>How it went. A statement of the scripts that fails is a result, no error.</returns>
    /// <exception cref="MigrationException"><c>GlobalStatement</c>, <c>MetaCommandNotRun</c>, <c>ServerOlderThanTarget</c>, <c>CreateDatabaseDenied</c>, <c>TemplateNotFound</c>, <c>TemplateInUse</c>, <c>CopyFailed</c> ...</exception>
    public static async Task<RollbackTestResult> RunAsync(EngineSession session, RollbackTestRequest request, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(sink);
        long start = Stopwatch.GetTimestamp();
        ScriptGuard.Check(request.Migration.Up);
        MigrationSection? down = request.Rollback is { } text ? MigrationSection.Whole(new MigrationSource(request.RollbackName!, text), RunnerMode.EachStatement, psql: true) : request.Migration.Down;
        if (down is not null)
        {
            ScriptGuard.Check(down);
        }

        EngineSession from = request.From ?? session;
        List<string> notes = [.. request.Migration.Warnings];
        if (request.Template is null)
        {
            RequireVersion(from, session, notes);
        }

        string options = request.Template is { } template ? $"template {SqlName.Quote(template)}" : await OptionsAsync(from, session, sink, cancellationToken).ConfigureAwait(false);
        string copyOf = request.Template ?? from.Info.ToString();
        sink.Progress(new OperationProgress($"Testing the rollback of {request.Migration.Name}", $"Making a copy of {copyOf}"));
        IReadOnlyList<(string Name, string Value)> settings = await SettingsAsync(request.Template is null ? from : session, request.Template, sink, cancellationToken).ConfigureAwait(false);
        ScratchDatabase scratch = await ScratchDatabase.CreateAsync(session, options, settings, sink, cancellationToken).ConfigureAwait(false);
        await using (scratch.ConfigureAwait(false))
        {
            if (request.Template is null)
            {
                notes.AddRange(await SchemaCopy.RunAsync(from, scratch.Session, request.SampleRows, sink, cancellationToken).ConfigureAwait(false));
            }

            // The copy has the tables of the migrations that were applied, but not all rows of their history.
            MigrationFile pending = await RollbackGenerator.PendingAsync(request.Template is null ? from : scratch.Session, request.Migration, sink, cancellationToken).ConfigureAwait(false);
            notes.AddRange(pending.Warnings.Except(request.Migration.Warnings));
            request = request with { Migration = pending };

            RollbackTestPhase copied = new() { Stage = RollbackTestStage.Copy, Outcome = RollbackTestOutcome.Succeeded, Duration = Stopwatch.GetElapsedTime(start) };
            RollbackTestResult result = new()
            {
                Server = session.Info.Server,
                Port = session.Info.Port,
                Database = scratch.Name,
                CopyOf = copyOf,
                Path = request.Migration.Path,
                Rollback = request.RollbackName ?? down?.Path ?? "New-RollbackScript",
                Phases = [copied],
                Notes = [.. notes],
            };
            try
            {
                result = await TestAsync(session, scratch.Session, request, down, result, sink, cancellationToken).ConfigureAwait(false);
            }
            catch (NpgsqlException e)
            {
                cancellationToken.ThrowIfCancellationRequested();
                throw ServerErrors.Translate(e, $"Testing the rollback of {request.Migration.Name}", session.Info.ToString());
            }

            return result with { Duration = Stopwatch.GetElapsedTime(start) };
        }
    }

    private static async Task<RollbackTestResult> TestAsync(
        EngineSession session, EngineSession scratch, RollbackTestRequest request, MigrationSection? down, RollbackTestResult result, IOperationSink sink, CancellationToken cancellationToken)
    {
        // In a copy there is nothing but the sample; of a template so many rows are looked at.
        int? limit = request.Template is null ? null : request.SampleRows;
        Task<TableValues> ValuesAsync() => WithConnectionAsync(
            scratch,
            async connection =>
            {
                await ScriptRunner.ExecuteAsync(connection, SnapshotQueries.Settings, sink, cancellationToken).ConfigureAwait(false);
                return await TableValues.ReadAsync(connection, limit, cancellationToken).ConfigureAwait(false);
            },
            sink,
            cancellationToken);

        // A migration of every tool knows its rollback before it runs; ours is made then, from the catalog as it is.
        if (down is null)
        {
            RollbackScript made = await RollbackGenerator.OfPendingAsync(scratch, request.Migration, false, sink, cancellationToken).ConfigureAwait(false);
            down = MigrationSection.Whole(new MigrationSource("New-RollbackScript", made.Text), RunnerMode.EachStatement, psql: true);
        }

        SchemaSnapshot before = await SnapshotReader.ReadAsync(scratch, sink, cancellationToken).ConfigureAwait(false);
        if (request.Template is null && (request.From ?? session).Info.ServerVersion.Major == session.Info.ServerVersion.Major)
        {
            result = result with { Notes = [.. result.Notes, .. await CopyNotesAsync(request.From ?? session, before, sink, cancellationToken).ConfigureAwait(false)] };
        }

        TableValues? values = request.SampleRows > 0 ? await ValuesAsync().ConfigureAwait(false) : null;
        List<RollbackTestPhase> phases = [.. result.Phases];
        async Task<bool> RunAsync(RollbackTestStage stage, MigrationSection section)
        {
            sink.Progress(new OperationProgress($"Testing the rollback of {request.Migration.Name}", stage.ToString()));
            RollbackTestPhase phase = await WithConnectionAsync(scratch, connection => ScriptRunner.RunAsync(stage, connection, section, sink, cancellationToken), sink, cancellationToken).ConfigureAwait(false);
            phases.Add(phase);
            return phase.Outcome == RollbackTestOutcome.Succeeded;
        }

        bool ran = false;
        if (await RunAsync(RollbackTestStage.Up, request.Migration.Up).ConfigureAwait(false))
        {
            SchemaSnapshot migrated = await SnapshotReader.ReadAsync(scratch, sink, cancellationToken).ConfigureAwait(false);
            if (await RunAsync(RollbackTestStage.Down, down).ConfigureAwait(false))
            {
                SchemaSnapshot after = await SnapshotReader.ReadAsync(scratch, sink, cancellationToken).ConfigureAwait(false);
                result = result with
                {
                    Differences = [.. SnapshotComparer.Compare(before, after, [])],
                    LostValues = values is null ? [] : [.. values.LostIn(await ValuesAsync().ConfigureAwait(false))],
                };
                ran = await RunAsync(RollbackTestStage.UpAgain, request.Migration.Up).ConfigureAwait(false);
                if (ran)
                {
                    result = result with { RepeatDifferences = [.. SnapshotComparer.Compare(migrated, await SnapshotReader.ReadAsync(scratch, sink, cancellationToken).ConfigureAwait(false), [])] };
                }
            }
        }

        phases.AddRange(Enum.GetValues<RollbackTestStage>().Where(stage => phases.All(p => p.Stage != stage)).Select(stage => new RollbackTestPhase { Stage = stage }));
        return result with
        {
            Phases = [.. phases],
            SampledRows = values?.Rows,
            Proved = ran && result.Differences.Length == 0 && result.RepeatDifferences.Length == 0 && result.LostValues.Length == 0,
        };
    }

    private static async Task<T> WithConnectionAsync<T>(EngineSession session, Func<NpgsqlConnection, Task<T>> work, IOperationSink sink, CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = await session.OpenAsync("test", sink, cancellationToken).ConfigureAwait(false);
        await using (connection.ConfigureAwait(false))
        {
            return await work(connection).ConfigureAwait(false);
        }
    }

    /// <summary>In what the copy is not as the original: what is said of it need not hold there.</summary>
    private static async Task<IEnumerable<string>> CopyNotesAsync(EngineSession from, SchemaSnapshot copy, IOperationSink sink, CancellationToken cancellationToken)
    {
        const int Shown = 10;
        SchemaSnapshot original = await SnapshotReader.ReadAsync(from, sink, cancellationToken).ConfigureAwait(false);
        // Subscriptions, and what roles that are not here own or may do, have been spoken of.
        string[] found =
        [
            .. SnapshotComparer.Compare(original, copy, ["Owner", "Privileges"])
                .Where(d => d.Kind is not ("subscription" or "default acl"))
                .Select(d => $"The copy is not as the original: {d.Change} {d.Kind} {d.Identity}{(d.Property is null ? "" : $" {d.Property}: {d.Reference} -> {d.Difference}")}"),
        ];
        return found.Length <= Shown ? found : [.. found.Take(Shown), $"The copy is not as the original in {found.Length - Shown} more."];
    }

    /// <summary>The settings that a database has for all roles.</summary>
    private static async Task<IReadOnlyList<(string Name, string Value)>> SettingsAsync(EngineSession session, string? database, IOperationSink sink, CancellationToken cancellationToken)
    {
        string query = $"""
            select pg_catalog.split_part(s.setting, '=', 1), pg_catalog.substr(s.setting, pg_catalog.strpos(s.setting, '=') + 1)
            from pg_catalog.pg_db_role_setting r
            join pg_catalog.pg_database d on d.oid = r.setdatabase
            cross join lateral pg_catalog.unnest(r.setconfig) as s (setting)
            where r.setrole = 0 and d.datname = {(database is null ? "pg_catalog.current_database()" : SqlName.Literal(database))}
            order by 1
            """;
        try
        {
            List<object?[]> rows = await WithConnectionAsync(session, connection => SampleRows.ReadAsync(connection, query, cancellationToken), sink, cancellationToken).ConfigureAwait(false);
            return [.. rows.Select(row => ((string)row[0]!, (string)row[1]!))];
        }
        catch (NpgsqlException e)
        {
            throw ServerErrors.Translate(e, "Reading the settings of the database", session.Info.ToString());
        }
    }

    private static void RequireVersion(EngineSession from, EngineSession session, List<string> notes)
    {
        int target = from.Info.ServerVersion.Major;
        int here = session.Info.ServerVersion.Major;
        if (here < target)
        {
            throw new MigrationException(
                "ServerOlderThanTarget",
                MigrationErrorKind.NotSupported,
                $"{session.Info} runs PostgreSQL {here}, and {from.Info}, whose schema is to be copied, PostgreSQL {target}.",
                $"Test on a server of PostgreSQL {target}: another major understands other statements and locks otherwise.")
            {
                Target = session.Info.ToString(),
            };
        }

        if (here > target)
        {
            notes.Add($"Tested on PostgreSQL {here}; {from.Info} runs {target}: what holds here need not hold there.");
        }
    }

    /// <summary>How to create a database with the encoding and the locale of another.</summary>
    private static async Task<string> OptionsAsync(EngineSession from, EngineSession session, IOperationSink sink, CancellationToken cancellationToken)
    {
        const string Query = """
            select pg_catalog.pg_encoding_to_char(d.encoding)::text, d.datcollate::text, d.datctype::text, coalesce(to_jsonb(d) ->> 'datlocprovider', 'c'), coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
                   to_jsonb(d) ->> 'daticurules'
            from pg_catalog.pg_database d
            where d.datname = pg_catalog.current_database()
            """;
        List<object?[]> rows;
        try
        {
            rows = await WithConnectionAsync(from, connection => SampleRows.ReadAsync(connection, Query, cancellationToken), sink, cancellationToken).ConfigureAwait(false);
        }
        catch (NpgsqlException e)
        {
            throw ServerErrors.Translate(e, "Reading the locale of the database", from.Info.ToString());
        }

        object?[] row = rows[0];
        string options = $"template template0 encoding {SqlName.Literal((string)row[0]!)} lc_collate {SqlName.Literal((string)row[1]!)} lc_ctype {SqlName.Literal((string)row[2]!)}";
        string? locale = row[4] as string;
        return session.Info.ServerVersion.Major < 15 || locale is null ? options : (string)row[3]! switch
        {
            "i" => $"{options} locale_provider icu icu_locale {SqlName.Literal(locale)}{(row[5] is string rules ? $" icu_rules {SqlName.Literal(rules)}" : "")}",
            "b" => $"{options} locale_provider builtin builtin_locale {SqlName.Literal(locale)}",
            _ => options,
        };
    }
}
