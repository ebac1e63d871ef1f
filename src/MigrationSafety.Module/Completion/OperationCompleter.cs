using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Module.Completion;

/// <summary>Completes the kinds of operation that this module records.</summary>
public sealed class OperationCompleter : IArgumentCompleter
{
    /// <inheritdoc />
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        OperationPlan.Operations.Where(name => name.StartsWith(wordToComplete ?? "", StringComparison.OrdinalIgnoreCase)).Select(name => new CompletionResult(name));
}
