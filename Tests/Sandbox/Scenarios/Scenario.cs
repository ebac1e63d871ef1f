namespace MigrationSafety.Sandbox.Scenarios;

/// <summary>Something the sandbox can do to the database under traffic; each judges by itself what only it can know.</summary>
internal abstract class Scenario
{
    /// <summary>All there are; the first is the default.</summary>
    internal static IReadOnlyList<Scenario> All { get; } =
        [new RunbookScenario(), new ScriptScenario(), new FaultsScenario(), new IndexScenario(), new BackfillScenario(), new ProgressScenario(), new LocksScenario(), new TrafficScenario(), new SqlScenario()];

    internal abstract string Name { get; }

    /// <summary>What it does, in a line.</summary>
    internal abstract string Summary { get; }

    /// <summary>What <c>--part</c> can choose of it.</summary>
    internal virtual IReadOnlyList<string> Parts => [];

    /// <summary>How many rows the shop's orders have at the start.</summary>
    internal virtual int ShopRows(SandboxOptions options) => options.Rows;

    /// <summary>Does it where it needs neither server nor traffic, and gives the exit code; null where it needs them.</summary>
    internal virtual int? RunAlone(Screen screen) => null;

    /// <summary>Does it. What it finds broken goes into <see cref="Bench.Broken"/>; what it throws ends the run.</summary>
    internal abstract Task RunAsync(Bench bench, SandboxOptions options, CancellationToken cancellationToken);
}
