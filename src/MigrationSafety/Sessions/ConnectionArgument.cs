namespace MigrationSafety;

/// <summary>
/// What <c>Connect-MigrationDatabase</c> reads: key=value connection string, <c>postgresql://</c> URI or <c>service=NAME</c>. A type of its own, because
/// PowerShell makes a string of any object that is piped, also of one whose properties name server and database.
/// </summary>
public sealed class ConnectionArgument
{
    /// <summary>From a text; it is read when the cmdlet runs.</summary>
    /// <param name="text">Key=value string, URI or <c>service=NAME</c>.</param>
    public ConnectionArgument(string text)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(text);
        Text = text;
    }

    /// <summary>The text; may hold a password, therefore internal.</summary>
    internal string Text { get; }

    /// <inheritdoc />
    public override string ToString() => "connection text";
}
