using System.Management.Automation;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;

namespace MigrationSafety.Module.Commands;

/// <summary>Proves from the table itself that a backfill is done.</summary>
[Cmdlet(VerbsDiagnostic.Test, "Backfill")]
[OutputType(typeof(BackfillTestResult))]
public sealed class TestBackfillCommand : ReadCmdlet<BackfillTestResult>
{
    /// <summary>Its name.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(BackfillNameCompleter))]
    public string Name { get; set; } = "";

    /// <summary>Which rows' values are compared with what the expressions give now.</summary>
    [Parameter]
    public BackfillComparison Comparison { get; set; }

    /// <summary>About how many rows a sample has; given without <see cref="Comparison"/>, a sample is compared.</summary>
    [Parameter]
    [ValidateRange(1, long.MaxValue)]
    public long SampleSize { get; set; } = 10_000;

    /// <summary>How long each query may take.</summary>
    [Parameter]
    [ValidateNotNull]
    public Duration StatementTimeout { get; set; } = new(TimeSpan.FromMinutes(10));

    /// <inheritdoc />
    protected override void BeginProcessing()
    {
        if (StatementTimeout.Value < TimeSpan.FromMilliseconds(1))
        {
            // 0 would mean "for ever" to the server.
            ThrowTerminatingError(Pipeline.ErrorRecords.Of(new MigrationException(
                "InvalidStatementTimeout",
                MigrationErrorKind.InvalidInput,
                "-StatementTimeout must be at least 1ms.",
                "Say how long a query may take, such as 10min.")));
        }

        if (MyInvocation.BoundParameters.ContainsKey(nameof(SampleSize)) && !MyInvocation.BoundParameters.ContainsKey(nameof(Comparison)))
        {
            // Whoever asks for a sample wants it compared: a test that compares nothing would pass.
            Comparison = BackfillComparison.Sample;
        }
    }

    private protected override async Task<IReadOnlyList<BackfillTestResult>> ReadAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken)
    {
        BackfillTestRequest request = new() { Name = Name, Comparison = Comparison, SampleSize = SampleSize, StatementTimeout = StatementTimeout.Value };
        return [await BackfillProof.TestAsync(session, request, sink, cancellationToken).ConfigureAwait(false)];
    }
}
