namespace MigrationSafety.Engine.Rollback.Writing;

/// <summary>A file of a rollback, in its tool's layout.</summary>
/// <param name="Name">Its path from the folder that it is written to.</param>
/// <param name="Text">Its text.</param>
public sealed record OutputFile(string Name, string Text);

/// <summary>What a rollback is in a tool's layout.</summary>
/// <param name="Files">Its files; the first is the one that takes the migration back last, and alone where one is enough.</param>
/// <param name="Warnings">What must be known besides.</param>
public sealed record RollbackLayout(IReadOnlyList<OutputFile> Files, IReadOnlyList<string> Warnings);
