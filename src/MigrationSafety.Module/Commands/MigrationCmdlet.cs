using System.Management.Automation;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Base of all cmdlets: asynchronous work, pumped on the pipeline thread, cancelled on the server by Ctrl-C.</summary>
public abstract class MigrationCmdlet : PSCmdlet, IDisposable
{
    private protected MigrationCmdlet() => Runner = new WorkRunner(this);

    private protected WorkRunner Runner { get; }

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
