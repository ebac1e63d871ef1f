using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>An object as the script has it at a statement.</summary>
internal sealed class ScriptObject
{
    /// <summary>Kind, as the first statement on it says.</summary>
    internal required ObjectKind Kind { get; init; }

    /// <summary>Its name now.</summary>
    internal required QualifiedName Name { get; set; }

    /// <summary>Its name before the script; null where the script makes it.</summary>
    internal QualifiedName? Before { get; init; }

    /// <summary>Whether the script makes it, and makes it for certain: IF NOT EXISTS may do nothing.</summary>
    internal bool Made { get; set; }

    /// <summary>Whether the script drops it again.</summary>
    internal bool Dropped { get; set; }

    /// <summary>The same object as it is when the script has ended; itself while that is not known.</summary>
    internal ScriptObject Fate { get; set; } = null!;

    /// <summary>Tables that its foreign keys point to, by the script, and the table whose partition it is.</summary>
    internal HashSet<QualifiedName> Parents { get; } = [];

    /// <summary>Columns, constraints, triggers, rules and policies that the script names, by their name now.</summary>
    internal Dictionary<(ObjectKind Kind, string Name), ScriptObject> Parts { get; } = [];

    /// <summary>Columns, constraints and the like that the script drops.</summary>
    internal HashSet<(ObjectKind Kind, string Name)> Gone { get; } = [];

    /// <summary>Whether the script adds the column.</summary>
    internal bool Adds(string column) => Parts.GetValueOrDefault((ObjectKind.Column, column)) is { Made: true };

    /// <summary>Whether the script adds the constraint.</summary>
    internal bool AddsConstraint(string constraint) => Parts.GetValueOrDefault((ObjectKind.Constraint, constraint)) is { Made: true };
}
