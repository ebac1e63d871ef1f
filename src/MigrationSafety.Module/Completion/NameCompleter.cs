using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Names;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Commands;

namespace MigrationSafety.Module.Completion;

/// <summary>
/// Completes names of the database that the command line is about: the one of <c>-Session</c>, of the current session, or of the libpq environment.
/// Half a second is all it takes at most, and whatever goes wrong it says nothing: a key press is not the place for an error.
/// </summary>
public abstract class NameCompleter : IArgumentCompleter
{
    private static readonly TimeSpan s_budget = TimeSpan.FromMilliseconds(500);

    private readonly LiveNameKind _kind;

    private protected NameCompleter(LiveNameKind kind) => _kind = kind;

    /// <inheritdoc />
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters)
    {
        ArgumentNullException.ThrowIfNull(fakeBoundParameters);
        string word = wordToComplete ?? "";
        char quote = word.Length > 0 && word[0] is '\'' or '"' ? word[0] : '\0';
        string prefix = Unquoted(word, quote);
        // A text in double quotation marks is either PowerShell's or the name's own: "Or for "Order". Both are looked for by the letters.
        LiveNameRequest request = new(
            _kind,
            prefix,
            _kind is LiveNameKind.Table or LiveNameKind.Column or LiveNameKind.Index ? TextOf(fakeBoundParameters["Schema"]) : null,
            _kind is LiveNameKind.Column or LiveNameKind.Index ? TextOf(fakeBoundParameters["Table"]) : null);
        return Find(request, ValueOf(fakeBoundParameters["Session"]), ValueOf(fakeBoundParameters["Credential"]) as PSCredential)
            .Select(name => new CompletionResult(Argument(name.Text, quote), name.Text, CompletionResultType.ParameterValue, name.Description));
    }

    private static IReadOnlyList<LiveName> Find(LiveNameRequest request, object? given, PSCredential? credential)
    {
        RunspaceSessions here = RunspaceSessions.Here;
        MigrationSession? session = given switch
        {
            null => here.Current,
            MigrationSession open => open,
            SessionArgument argument => argument.Session,
            _ => null,
        };
        string? text = given is SessionArgument named ? named.Connection : given as string;
        string source = session is null ? $"{credential?.UserName}@{text}" : $"session {session.Id}";
        if (here.Names.Get(source, request) is { } known)
        {
            return known;
        }

        using CancellationTokenSource limit = new(s_budget);
        // On another thread: a network that swallows packets can hold up even the cancelling of a statement.
        Task<IReadOnlyList<LiveName>> search = Task.Run(() => SearchAsync(request, session, text, credential, limit.Token));
        try
        {
            if (search.Wait(s_budget))
            {
                here.Names.Put(source, request, search.Result);
                return search.Result;
            }
        }
        catch (AggregateException)
        {
            // Not connected, not allowed, not a name: there is nothing to offer.
        }

        return [];
    }

    private static async Task<IReadOnlyList<LiveName>> SearchAsync(LiveNameRequest request, MigrationSession? session, string? text, PSCredential? credential, CancellationToken cancellationToken)
    {
        if (session is not null)
        {
            return await LiveNames.FindAsync(EngineSession.Of(session), request, s_budget, Silence.Instance, cancellationToken).ConfigureAwait(false);
        }

        MigrationSession own = await SessionFactory.ConnectAsync(ConnectRequests.Of(text, credential), Silence.Instance, cancellationToken).ConfigureAwait(false);
        try
        {
            return await LiveNames.FindAsync(EngineSession.Of(own), request, s_budget, Silence.Instance, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            await SessionFactory.DisconnectAsync(own).ConfigureAwait(false);
        }
    }

    internal static string Unquoted(string word, char quote)
    {
        if (quote == '\0')
        {
            return word;
        }

        string inner = word[1..];
        inner = inner.EndsWith(quote) ? inner[..^1] : inner;
        return inner.Replace(new string(quote, 2), quote.ToString(), StringComparison.Ordinal);
    }

    /// <summary>A name as PowerShell reads it as one argument: in quotation marks where it needs them, or where the user began with them.</summary>
    internal static string Argument(string text, char quote)
    {
        bool plain = text.All(c => char.IsLetterOrDigit(c) || c is '_' or '.');
        return plain && quote == '\0' ? text
            : plain && quote == '"' ? $"\"{text}\""
            : $"'{CodeGeneration.EscapeSingleQuotedStringContent(text)}'";
    }

    private static string? TextOf(object? value) => ValueOf(value) as string is { Length: > 0 } text ? text : null;

    private static object? ValueOf(object? value) => value switch
    {
        PSObject wrapped => ValueOf(wrapped.BaseObject),
        IList { Count: > 0 } several => ValueOf(several[0]),
        _ => value,
    };

    private sealed class Silence : IOperationSink
    {
        internal static Silence Instance { get; } = new();

        public void Verbose(string message)
        {
        }

        public void Debug(string message)
        {
        }

        public void Warning(string message)
        {
        }

        public void Progress(OperationProgress progress)
        {
        }
    }
}

/// <summary>Completes tables.</summary>
public sealed class TableNameCompleter() : NameCompleter(LiveNameKind.Table);

/// <summary>Completes schemas.</summary>
public sealed class SchemaNameCompleter() : NameCompleter(LiveNameKind.Schema);

/// <summary>Completes columns of the table that the command line names.</summary>
public sealed class ColumnNameCompleter() : NameCompleter(LiveNameKind.Column);

/// <summary>Completes indexes.</summary>
public sealed class IndexNameCompleter() : NameCompleter(LiveNameKind.Index);

/// <summary>Completes backfills that are recorded.</summary>
public sealed class BackfillNameCompleter() : NameCompleter(LiveNameKind.Backfill);
