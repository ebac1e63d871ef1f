using System.Globalization;
using MigrationSafety.Engine.Rollback.Formats;

namespace MigrationSafety.Engine.Rollback.Writing;

/// <summary>Puts rollbacks into the files of migration tools.</summary>
public static class RollbackLayouts
{
    /// <summary>Puts a rollback into a tool's files.</summary>
    /// <param name="script">Rollback.</param>
    /// <param name="file">The migration's file; null where the rollback is of what was done.</param>
    /// <param name="format">Tool.</param>
    /// <returns>The files.</returns>
    /// <exception cref="MigrationException"><c>FormatCannotHold</c>: the tool cannot run it.</exception>
    public static RollbackLayout Of(RollbackScript script, MigrationFile? file, RollbackFormat format)
    {
        ArgumentNullException.ThrowIfNull(script);
        LayoutRequest request = new(script, file, format);
        RollbackLayout layout = format switch
        {
            RollbackFormat.Dbmate => DbmateLayout.Of(request),
            RollbackFormat.GolangMigrate => GolangMigrateLayout.Of(request),
            RollbackFormat.Goose => GooseLayout.Of(request),
            RollbackFormat.Flyway => FlywayLayout.Of(request),
            RollbackFormat.Liquibase => LiquibaseLayout.Of(request),
            RollbackFormat.Sqitch => SqitchLayout.Of(request),
            _ => new RollbackLayout([new OutputFile(PlainName(script.Source), script.Text)], []),
        };

        // One line end a file: that of the migration.
        bool windows = file?.Source.Text.Contains("\r\n", StringComparison.Ordinal) == true && format != RollbackFormat.Plain;
        return !windows ? layout : layout with { Files = [.. layout.Files.Select(f => f with { Text = f.Text.ReplaceLineEndings("\r\n") })] };
    }

    /// <summary>001_add.sql and 001_add.up.sql become 001_add.down.sql; 1_add/migration.sql has 1_add/down.sql beside it; what results are called becomes a name without spaces and punctuation.</summary>
    private static string PlainName(string source)
    {
        // Prisma's folders are the migrations.
        const string Prisma = "/migration.sql";
        if (source.EndsWith(Prisma, StringComparison.Ordinal))
        {
            return source[..^Prisma.Length] + "/down.sql";
        }

        string name = source.EndsWith(".sql", StringComparison.OrdinalIgnoreCase)
            ? Path.GetFileNameWithoutExtension(source)
            : string.Concat(source.Select(c => char.IsLetterOrDigit(c) || c is '.' or '-' ? c : '_'));
        return (name.EndsWith(".up", StringComparison.OrdinalIgnoreCase) ? name[..^3] : name) + ".down.sql";
    }
}

/// <summary>What a layout is made of.</summary>
internal sealed record LayoutRequest(RollbackScript Script, MigrationFile? File, RollbackFormat Format)
{
    /// <summary>The rollback in segments, first run first.</summary>
    internal List<RollbackSegment> Segments { get; } = RollbackSegment.Cut(NumberedStatement.Of(Script));

    /// <summary>The migration's name.</summary>
    internal MigrationName Name { get; } = File is null ? MigrationName.Of(Script.Source) : MigrationName.Of(File);

    /// <summary>Whether the migration's file is one of the tool.</summary>
    internal bool IsOwn => File is not null && File.Format.ToString() == Format.ToString();

    /// <summary>The head of the script, as comments.</summary>
    internal string Head => RollbackBody.Comments(Script.Header) + "\n";

    /// <summary>The migration in segments, for a tool whose file it is not. What was done without a file is only told.</summary>
    internal List<ForwardSegment> Forward => File is null ? [] : ForwardSegment.Cut(File, Format);

    /// <summary>What stands for the migration where nothing of it is run.</summary>
    /// <param name="first">The file with the migration itself.</param>
    internal string Told(string first) => File is null
        ? RollbackBody.Comments(["Done already, by MigrationSafety:", .. Enumerable.Reverse(Script.Statements).Select(s => RollbackText.OneLine(s.Forward, 200)).Distinct()])
        : RollbackBody.Comments([RollbackParts.Says(first)]);

    /// <summary>The segments of the rollback that versions share out among them: a later version is taken back first.</summary>
    /// <param name="versions">How many versions the migration takes at least.</param>
    /// <param name="ends">Which segments can end a version together.</param>
    /// <returns>A list for each version, first version first.</returns>
    internal List<List<RollbackSegment>> ByVersion(int versions, Func<List<RollbackSegment>, bool> ends)
    {
        List<List<RollbackSegment>> shared = [];
        foreach (RollbackSegment segment in Segments)
        {
            if (shared.Count > 0 && ends([.. shared[0], segment]))
            {
                shared[0].Add(segment);
            }
            else
            {
                shared.Insert(0, [segment]);
            }
        }

        while (shared.Count < versions)
        {
            shared.Insert(0, []);
        }

        return shared;
    }

    /// <summary>The name of a version that is added for the way back.</summary>
    /// <exception cref="MigrationException"><c>VersionTaken</c>.</exception>
    internal MigrationName Later(MigrationName name, int step)
    {
        MigrationName later = name.Later(step);
        return File?.Source.Beside(later.Version + "_*", other => !other.StartsWith($"{later.Version}_{later.Title}.", StringComparison.Ordinal)) is not { } taken ? later
            : throw new MigrationException(
                "VersionTaken",
                MigrationErrorKind.InvalidState,
                $"The rollback of {Script.Source} needs a version of its own for a statement that {Format} cannot run beside the others, and {later.Version} is taken by {Path.GetFileName(taken)}.",
                "Give the statement that can be in no transaction a migration of its own, with a version to spare behind it; or write the rollback as -Format Plain.")
            {
                Target = Script.Source,
            };
    }

    /// <summary>What is told of a rollback that takes more versions than one.</summary>
    internal IEnumerable<string> WhySeveral(IReadOnlyList<OutputFile> files) => files.Count == 1 ? [] :
    [
        string.Create(CultureInfo.InvariantCulture, $"{Script.Source}: {Format} cannot have statements of a transaction and others in one file; the rollback is {files.Count} files, of which the later versions are taken back first: apply and take back all of them together."),
    ];
}
