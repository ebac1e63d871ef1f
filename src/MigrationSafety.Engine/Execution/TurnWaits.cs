namespace MigrationSafety.Engine.Execution;

/// <summary>Waits for a turn: no view of the server tells them, so they are noted as phases of the operation.</summary>
internal static class TurnWaits
{
    /// <summary>Behind another operation of this module on the same table.</summary>
    internal const string ForTable = "waiting for another operation on the table";

    /// <summary>Until fewer run at once than may.</summary>
    internal const string ForPlace = "waiting for a free place";

    /// <summary>Until nobody uses the index whose transaction began before.</summary>
    internal const string ForOldTransactions = "waiting for old transactions";

    /// <summary>Whether a phase is such a wait.</summary>
    internal static bool Is(string phase) => phase is ForTable or ForPlace or ForOldTransactions;

    /// <summary>Notes that a wait began.</summary>
    /// <param name="sink">Where to.</param>
    /// <param name="worker">Pid of the backend that waits; 0 where none does.</param>
    /// <param name="target">What for.</param>
    /// <param name="phase">Which of these waits.</param>
    internal static void Begin(IOperationSink sink, int worker, string target, string phase) => sink.Record(new PhaseEvent(worker, null, target, phase, Waits: true, null));

    /// <summary>Takes one of the places, and notes the wait where none is free.</summary>
    internal static async Task EnterAsync(this SemaphoreSlim places, IOperationSink sink, string target, CancellationToken cancellationToken)
    {
        Task entering = places.WaitAsync(cancellationToken);
        if (!entering.IsCompleted)
        {
            Begin(sink, 0, target, ForPlace);
            await entering.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            sink.Record(new PhaseEndEvent(0));
        }

        await entering.ConfigureAwait(false);
    }
}
