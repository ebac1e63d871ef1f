namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>What is known of a tool's files.</summary>
internal abstract class MigrationTool
{
    // Marks in the text come first: whoever wrote them meant them.
    private static readonly MigrationTool[] s_byMark = [new DbmateTool(), new GooseTool(), new LiquibaseTool(), new DrizzleTool(), new EntityFrameworkTool()];
    private static readonly MigrationTool[] s_byName = [new SqitchTool(), new PrismaTool(), new EvolveTool(), new FlywayTool(), new GolangMigrateTool(), new GrateTool()];
    private static readonly MigrationTool[] s_byNothing = [new PlainTool(), new DbUpTool()];

    /// <summary>The tool.</summary>
    internal abstract MigrationFormat Format { get; }

    /// <summary>How a file opts out of the tool's transaction, as a sentence.</summary>
    internal abstract string OptOut { get; }

    /// <summary>The tool of a file.</summary>
    /// <param name="source">File.</param>
    /// <param name="format">The one that the user names.</param>
    internal static MigrationTool Of(MigrationSource source, MigrationFormat format)
    {
        if (format != MigrationFormat.Auto)
        {
            return Of(format);
        }

        MigrationTool[] marked = [.. s_byMark.Where(tool => tool.Recognises(source))];
        return marked.Length > 1
            ? throw new MigrationException(
                "FormatAmbiguous",
                MigrationErrorKind.InvalidInput,
                $"{source.Name} has the marks of several tools: {string.Join(", ", marked.Select(tool => tool.Format))}.",
                $"Say whose it is: -InputFormat {marked[0].Format}.")
            {
                Target = source.Path,
            }
            : marked.FirstOrDefault() ?? s_byName.FirstOrDefault(tool => tool.Recognises(source)) ?? s_byNothing[0];
    }

    /// <summary>What is known of a tool.</summary>
    internal static MigrationTool Of(MigrationFormat format) => s_byMark.Concat(s_byName).Concat(s_byNothing).First(tool => tool.Format == format);

    /// <summary>Whether a file is the tool's, by its marks or its name.</summary>
    internal abstract bool Recognises(MigrationSource source);

    /// <summary>Reads a file.</summary>
    internal abstract MigrationFile Read(MigrationSource source);

    /// <summary>The file is not the tool's, though the user says so.</summary>
    protected MigrationException NotMine(MigrationSource source, string lacks) => new(
        "FormatNotFound",
        MigrationErrorKind.InvalidInput,
        $"{source.Name} is no file of {Format}: {lacks}.",
        "Leave -InputFormat out to have the tool told from the file, or name the right one.")
    {
        Target = source.Path,
    };
}
