using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using MigrationSafety.Engine.Progress;

namespace MigrationSafety.Module.Completion;

/// <summary>Completes the names of operations that may run on a server.</summary>
public sealed class RunningOperationCompleter : IArgumentCompleter
{
    /// <inheritdoc />
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters)
    {
        string word = wordToComplete ?? "";
        char quote = word.Length > 0 && word[0] is '\'' or '"' ? word[0] : '\0';
        string prefix = NameCompleter.Unquoted(word, quote);
        return ProgressFilter.Known
            .Where(name => name.StartsWith(prefix, StringComparison.OrdinalIgnoreCase))
            .Select(name => new CompletionResult(NameCompleter.Argument(name, quote), name, CompletionResultType.ParameterValue, name));
    }
}
