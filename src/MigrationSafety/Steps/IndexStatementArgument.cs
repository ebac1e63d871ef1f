namespace MigrationSafety;

/// <summary>
/// What <c>-Definition</c> accepts: the text of CREATE INDEX statements. A type of its own, because PowerShell makes a text of whatever comes down the pipeline: rows of
/// a CSV and files too.
/// </summary>
public sealed class IndexStatementArgument
{
    /// <summary>From a text.</summary>
    /// <param name="text">One or several CREATE INDEX statements.</param>
    public IndexStatementArgument(string text)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(text);
        Text = text;
    }

    /// <summary>The statements.</summary>
    public string Text { get; }

    /// <inheritdoc />
    public override string ToString() => Text;
}
