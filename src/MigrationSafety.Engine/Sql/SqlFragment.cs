namespace MigrationSafety.Engine.Sql;

/// <summary>A part of a statement that the tree keeps as text: an expression, a query, an option's value. It knows where it stands.</summary>
/// <param name="Statement">Statement.</param>
/// <param name="First">Index of its first token.</param>
/// <param name="End">Index after its last token; that of the first where it is empty.</param>
internal readonly record struct SqlFragment(SqlStatement Statement, int First, int End)
{
    /// <summary>Whether it has no token.</summary>
    internal bool IsEmpty => End <= First;

    /// <summary>Its text, comments inside it included.</summary>
    internal string Text => IsEmpty ? "" : Statement.Script[Statement.Tokens[First].Start..Statement.Tokens[End - 1].EndIndex];

    /// <summary>Line of its first token in the script, from 1; 0 where it is empty.</summary>
    internal int Line => IsEmpty ? 0 : Statement.Tokens[First].Line;

    /// <summary>Column of its first token in the script, from 1; 0 where it is empty.</summary>
    internal int Column => IsEmpty ? 0 : Statement.Tokens[First].Column;

    /// <summary>A reader of its tokens.</summary>
    internal SqlReader Read() => new(this);

    /// <inheritdoc />
    public override string ToString() => Text;
}
