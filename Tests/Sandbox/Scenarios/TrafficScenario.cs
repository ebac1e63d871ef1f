namespace MigrationSafety.Sandbox.Scenarios;

/// <summary>The application alone: what it takes without any step, and something to try the cmdlets on.</summary>
internal sealed class TrafficScenario : Scenario
{
    internal override string Name => "traffic";

    internal override string Summary => "no step: the application alone, to try the cmdlets on with --keep or --shell";

    internal override Task RunAsync(Bench bench, SandboxOptions options, CancellationToken cancellationToken) =>
        bench.MeasureBaselineAsync(options.Seconds, cancellationToken);
}
