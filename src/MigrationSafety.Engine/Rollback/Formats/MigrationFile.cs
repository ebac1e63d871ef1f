using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>How a tool runs a part of a file.</summary>
internal enum RunnerMode
{
    /// <summary>Statement by statement; each is a transaction of its own unless the file says BEGIN.</summary>
    EachStatement,

    /// <summary>All in one message: several statements are one implicit transaction (manual, "Multiple Statements in a Simple Query").</summary>
    OneMessage,

    /// <summary>Inside a transaction that the tool opens.</summary>
    Wrapped,
}

/// <summary>A part of a file that its tool runs in one way.</summary>
/// <param name="Start">Index of its first character.</param>
/// <param name="End">Index after its last character.</param>
/// <param name="Mode">How the tool runs it.</param>
/// <param name="Id">What it is called, such as a changeset's id; null where the file is one part.</param>
internal sealed record MigrationPart(int Start, int End, RunnerMode Mode, string? Id = null);

/// <summary>Statements of one direction.</summary>
/// <param name="Path">File.</param>
/// <param name="Script">The statements, where they stand in the file.</param>
/// <param name="Parts">Its parts, in the order of the file.</param>
internal sealed record MigrationSection(string Path, SqlScript Script, IReadOnlyList<MigrationPart> Parts)
{
    /// <summary>Whether the tool runs the last part first.</summary>
    internal bool LastFirst { get; init; }

    /// <summary>Its statements in the order in which they run.</summary>
    internal IEnumerable<SqlStatement> InOrder => LastFirst ? Parts.Reverse().SelectMany(Of) : Script.Statements;

    /// <summary>Makes a section that is a whole file.</summary>
    internal static MigrationSection Whole(MigrationSource source, RunnerMode mode, bool psql = false) =>
        new(source.Path, SqlScript.Parse(source.Text, psql), [new MigrationPart(0, source.Text.Length, mode)]);

    /// <summary>Its file's name as it is told beside that of a migration: with its folder, where both are called the same.</summary>
    internal string NameBeside(MigrationFile file) => System.IO.Path.GetFileName(Path) is var name && name == file.Source.Name ? $"{System.IO.Path.GetFileName(System.IO.Path.GetDirectoryName(Path))}/{name}" : name;

    /// <summary>The statements of a part.</summary>
    internal IEnumerable<SqlStatement> Of(MigrationPart part) => Script.Statements.Where(s => s.Tokens[0].Start >= part.Start && s.Tokens[0].Start < part.End);
}

/// <summary>A migration's file, understood as its tool understands it.</summary>
public sealed class MigrationFile
{
    internal MigrationFile(MigrationFormat format, MigrationSource source, MigrationSection up)
    {
        Format = format;
        Source = source;
        Up = up;
    }

    /// <summary>The tool.</summary>
    public MigrationFormat Format { get; }

    /// <summary>Its path.</summary>
    public string Path => Source.Path;

    /// <summary>Its name; with the folder where all files of the tool have the same.</summary>
    public string Name => Format == MigrationFormat.Prisma && Source.FolderName.Length > 0 ? $"{Source.FolderName}/{Source.Name}" : Source.Name;

    /// <summary>The migration that this file is the rollback of; null where it is a migration itself.</summary>
    public string? RollbackOf { get; internal set; }

    /// <summary>What its tool will not do as the file wants it, and what is not read here.</summary>
    public IReadOnlyList<string> Warnings => _warnings;

    internal MigrationSource Source { get; }

    /// <summary>What it does.</summary>
    internal MigrationSection Up { get; }

    /// <summary>What it says takes it back; null where it says nothing of it.</summary>
    internal MigrationSection? Down { get; init; }

    /// <summary>The statements that take it back by its own word, those of versions that are there for its way back included.</summary>
    internal IEnumerable<SqlStatement> Rollback => _parts.AsEnumerable().Reverse().Append(Down).OfType<MigrationSection>().SelectMany(section => section.InOrder);

    /// <summary>Whether it says how it is taken back: comments, BEGIN and COMMIT alone do not.</summary>
    internal bool HasRollback => Rollback.Any(statement => StatementShape.Of(statement).Any());

    /// <summary>Who wrote it; null where the file does not tell.</summary>
    internal string? Author { get; init; }

    private readonly List<string> _warnings = [];
    private readonly List<MigrationSection> _parts = [];

    /// <summary>Reads a migration's file, and what belongs to it beside it.</summary>
    /// <param name="path">File.</param>
    /// <param name="format">Tool; <see cref="MigrationFormat.Auto"/> to tell it from the file.</param>
    /// <returns>The file.</returns>
    /// <exception cref="MigrationException"><c>FileNotFound</c>, <c>FileNotRead</c>, <c>FormatAmbiguous</c>, <c>FormatNotFound</c>.</exception>
    public static MigrationFile Read(string path, MigrationFormat format)
    {
        ArgumentNullException.ThrowIfNull(path);
        return Read(MigrationSource.Read(path), format);
    }

    /// <summary>Understands a migration that is in no file.</summary>
    /// <param name="name">What it is called.</param>
    /// <param name="text">Its text, with the marks of its tool.</param>
    /// <param name="format">The tool; <see cref="MigrationFormat.Auto"/> tells it from the marks.</param>
    /// <returns>The migration.</returns>
    /// <exception cref="MigrationException"><c>FormatAmbiguous</c>, <c>FormatNotFound</c>.</exception>
    public static MigrationFile OfText(string name, string text, MigrationFormat format)
    {
        ArgumentNullException.ThrowIfNull(name);
        ArgumentNullException.ThrowIfNull(text);
        return Read(new MigrationSource(name, text), format);
    }

    /// <summary>Reads a migration's text.</summary>
    internal static MigrationFile Read(MigrationSource source, MigrationFormat format)
    {
        return Complete(MigrationTool.Of(source, format).Read(source));
    }

    /// <summary>Adds what is told of every tool's file in the same way.</summary>
    internal static MigrationFile Complete(MigrationFile file)
    {
        file._parts.AddRange(RollbackParts.Of(file));
        file.RollbackOf ??= RollbackParts.WholeOf(file);
        file._warnings.AddRange(RunnerChecks.Of(file));
        return file;
    }

    internal MigrationFile Warn(IEnumerable<string> warnings)
    {
        _warnings.AddRange(warnings);
        return this;
    }
}
