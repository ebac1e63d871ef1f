using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;

namespace MigrationSafety.Module.Commands;

/// <summary>Base of the cmdlets that only look: each row of each session goes to the pipeline.</summary>
/// <typeparam name="T">Output type.</typeparam>
public abstract class ReadCmdlet<T> : FleetCmdlet
    where T : class
{
    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        foreach (EngineSession session in Sessions())
        {
            Runner.Start(
                async (sink, token) =>
                {
                    foreach (T row in await ReadAsync(session, sink, token).ConfigureAwait(false))
                    {
                        sink.Output(row);
                    }
                },
                ThrottleLimit);
        }
    }

    private protected abstract Task<IReadOnlyList<T>> ReadAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken);
}
