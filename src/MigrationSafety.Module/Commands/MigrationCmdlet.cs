using System.Management.Automation;
using System.Management.Automation.Host;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Base of all cmdlets: asynchronous work, pumped on the pipeline thread, cancelled on the server by Ctrl-C.</summary>
public abstract class MigrationCmdlet : PSCmdlet, IDisposable
{
    private bool _yesToAll;
    private bool _noToAll;

    private protected MigrationCmdlet() => Runner = new WorkRunner(this);

    private protected WorkRunner Runner { get; }

    /// <summary>Asks, after ShouldProcess, before data goes, as a cmdlet of <see cref="ConfirmImpact.High"/> does: that attribute knows nothing of parameters.</summary>
    /// <param name="question">The question.</param>
    /// <param name="caption">Its heading.</param>
    private protected bool ShouldDestroy(string question, string caption)
    {
        // -Confirm or a lower preference has made ShouldProcess ask already, or nobody wants to be asked.
        if (MyInvocation.BoundParameters.ContainsKey("Confirm")
            || !LanguagePrimitives.TryConvertTo(GetVariableValue("ConfirmPreference"), out ConfirmImpact preference)
            || preference != ConfirmImpact.High)
        {
            return true;
        }

        try
        {
            return ShouldContinue(question, caption, ref _yesToAll, ref _noToAll);
        }
        catch (Exception e) when (e is PSInvalidOperationException or HostException)
        {
            // Under -NonInteractive. What PowerShell says of it names no way out.
            ThrowTerminatingError(ErrorRecords.Of(new MigrationException(
                "NobodyToAsk",
                MigrationErrorKind.InvalidInput,
                $"This asks first, because data goes, and nobody can be asked here ({e.Message.TrimEnd('.')}). Nothing was changed.",
                "-Confirm:$false says yes beforehand; -WhatIf shows what would be done.",
                e)));
            return false;
        }
    }

    /// <inheritdoc />
    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    /// <inheritdoc />
    protected override void StopProcessing() => Runner.Cancel();

    /// <inheritdoc />
    protected override void EndProcessing() => Runner.WaitForAll();

    /// <summary>Ends what is still running and closes what was opened.</summary>
    /// <param name="disposing">Always true.</param>
    protected virtual void Dispose(bool disposing) => Runner.Dispose();
}
