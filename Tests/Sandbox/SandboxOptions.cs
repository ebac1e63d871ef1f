using System.Globalization;
using MigrationSafety.Sandbox.Scenarios;
using MigrationSafety.Tests.Postgres;

namespace MigrationSafety.Sandbox;

/// <summary>What the command line asks for.</summary>
internal sealed record SandboxOptions
{
    internal static string Usage => $"""
        Usage: dotnet run --project Tests/Sandbox -- [options]

        Starts an embedded PostgreSQL with an orders table under live traffic, works on it through the engine, and shows
        what the application noticed. Exits with 1 when a promise was broken.

          --postgres 14..18   Major of PostgreSQL; {PostgresBinaries.Newest} without it.
          --scenario NAME     {string.Join("\n                      ", Scenario.All.Select(scenario => $"{scenario.Name,-8} {scenario.Summary}"))}
          --rows N            Rows of orders; 1,000,000 without it, at least 10,000.
          --seconds N         How long the application is measured without a step; 10 without it.
          --kills N           faults: how often the client is killed; 10 without it.
          --part NAME         {string.Join("\n                      ", Scenario.All.Where(scenario => scenario.Parts.Count > 0).Select(scenario => $"{scenario.Name}: {string.Join(", ", scenario.Parts)};"))}
                              several with a comma, all without it.
          --shared-buffers S  backfill: shared_buffers of the server at rest, as 256MB; a quarter of the memory without it.
          --report FILE       runbook: writes the report of what ran there, as Export-MigrationReport does.
          --seed N            faults: makes the same choices again.
          --keep              Leave server and traffic up at the end and print how to connect; Enter or Ctrl-C ends them.
          --shell             Open a PowerShell at the end, with the module imported and connected; its end ends the server.
          --verbose           Print the SQL of the steps as well.
          --help              This text.

        Exit codes: 0 all promises held, 1 one was broken, 2 wrong options, 3 the sandbox itself could not go on.
        """;

    internal int Postgres { get; private init; } = PostgresBinaries.Newest;

    internal Scenario Scenario { get; private init; } = Scenario.All[0];

    internal int Rows { get; private init; } = 1_000_000;

    internal int Seconds { get; private init; } = 10;

    internal int Kills { get; private init; } = 10;

    internal int? Seed { get; private init; }

    internal string? Report { get; private init; }

    internal IReadOnlyList<string>? Parts { get; private init; }

    /// <summary>With its unit. The memory is what this process may use, of a container too.</summary>
    internal string SharedBuffers { get; private init; } = $"{Math.Max(256, GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / 4 >> 20)}MB";

    internal bool Keep { get; private init; }

    internal bool Shell { get; private init; }

    internal bool Verbose { get; private init; }

    internal bool Help { get; private init; }

    /// <summary>Reads the command line.</summary>
    /// <exception cref="FormatException">It is wrong; the message says how, in one line.</exception>
    internal static SandboxOptions Parse(IReadOnlyList<string> arguments)
    {
        SandboxOptions options = new();
        for (int i = 0; i < arguments.Count; i++)
        {
            string[] parts = arguments[i].Split('=', 2);
            string Value() => parts.Length == 2 ? parts[1]
                : i + 1 < arguments.Count ? arguments[++i]
                : throw new FormatException($"{parts[0]} needs a value.");
            int Number(int least, int most) =>
                Value() is var text && int.TryParse(text.Replace("_", "", StringComparison.Ordinal).Replace(",", "", StringComparison.Ordinal), NumberStyles.None, CultureInfo.InvariantCulture, out int number)
                && number >= least && number <= most
                    ? number
                    : throw new FormatException(string.Create(CultureInfo.InvariantCulture, $"{parts[0]} takes a number from {least} to {most}, not '{text}'."));
            bool Flag() => parts.Length == 1 ? true : throw new FormatException($"{parts[0]} takes no value.");

            options = parts[0] switch
            {
                "--postgres" => options with { Postgres = Number(PostgresBinaries.Majors[0], PostgresBinaries.Newest) },
                "--scenario" => options with { Scenario = Name(Value()) },
                "--rows" => options with { Rows = Number(10_000, 100_000_000) },
                "--seconds" => options with { Seconds = Number(1, 3600) },
                "--kills" => options with { Kills = Number(1, 1000) },
                "--seed" => options with { Seed = Number(0, int.MaxValue) },
                "--shared-buffers" => options with { SharedBuffers = Value() },
                "--report" => options with { Report = Path.GetFullPath(Value()) },
                "--part" => options with { Parts = Value().Split(',') },
                "--keep" => options with { Keep = Flag() },
                "--shell" => options with { Shell = Flag() },
                "--verbose" => options with { Verbose = Flag() },
                "--help" or "-h" or "-?" => options with { Help = true },
                _ => throw new FormatException($"'{arguments[i]}' is not an option."),
            };
        }

        return options.Parts?.Except(options.Scenario.Parts).FirstOrDefault() is not { } unknown ? options
            : throw new FormatException(options.Scenario.Parts.Count == 0
                ? $"Scenario {options.Scenario.Name} has no parts: leave --part out."
                : $"Scenario {options.Scenario.Name} has no part '{unknown}'; there are {string.Join(", ", options.Scenario.Parts)}.");
    }

    /// <summary>Whether a part of the scenario is asked for.</summary>
    internal bool Has(string part) => Parts is null || Parts.Contains(part);

    private static Scenario Name(string text) => Scenario.All.FirstOrDefault(scenario => scenario.Name == text)
        ?? throw new FormatException($"There is no scenario '{text}'; there are {string.Join(", ", Scenario.All.Select(scenario => scenario.Name))}.");
}
