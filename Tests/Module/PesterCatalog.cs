using System.Reflection;
using System.Text.RegularExpressions;
using Xunit;
using Xunit.Sdk;
using Xunit.v3;

[assembly: AssemblyFixture(typeof(MigrationSafety.Tests.Module.PesterHost))]

namespace MigrationSafety.Tests.Module;

/// <summary>An <c>It</c> block: a Pester test by its place in the sources, known also where no PowerShell is.</summary>
/// <param name="File">File name.</param>
/// <param name="Line">Line of <c>It</c>.</param>
/// <param name="Name">Describe, Context and It, joined.</param>
internal sealed record PesterTest(string File, int Line, string Name);

/// <summary>Finds the <c>It</c> blocks of all <c>*.Tests.ps1</c> beside this project.</summary>
internal static partial class PesterCatalog
{
    internal static string RepositoryRoot { get; } = typeof(PesterCatalog).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>()
        .Single(attribute => attribute.Key == "RepositoryRoot").Value!;

    internal static string Directory { get; } = Path.Combine(RepositoryRoot, "Tests", "Module");

    internal static IReadOnlyList<PesterTest> All { get; } =
        [.. System.IO.Directory.GetFiles(Directory, "*.Tests.ps1").Order(StringComparer.Ordinal).SelectMany(Read)];

    private static IEnumerable<PesterTest> Read(string path)
    {
        List<(int Indent, string Name)> blocks = [];
        int number = 0;
        foreach (string line in File.ReadLines(path))
        {
            number++;
            Match match = Block().Match(line);
            if (!match.Success)
            {
                continue;
            }

            // The files are indented by their nesting; that is enough to know what stands in what.
            int indent = match.Groups["indent"].Length;
            blocks.RemoveAll(block => block.Indent >= indent);
            string name = match.Groups["name"].Value.Replace("''", "'", StringComparison.Ordinal);
            if (match.Groups["kind"].Value == "It")
            {
                yield return new PesterTest(Path.GetFileName(path), number, string.Join(" > ", [.. blocks.Select(block => block.Name), name]));
            }
            else
            {
                blocks.Add((indent, name));
            }
        }
    }

    [GeneratedRegex("""^(?<indent>\s*)(?<kind>Describe|Context|It)\s+(?:-Name\s+)?(?:'(?<name>(?:[^']|'')*)'|"(?<name>[^"]*)")""")]
    private static partial Regex Block();
}

/// <summary>One row per Pester test; each is skipped by name, with the reason, where there is no PowerShell or no Pester.</summary>
[AttributeUsage(AttributeTargets.Method)]
internal sealed class PesterTestsAttribute : DataAttribute
{
    public override ValueTask<IReadOnlyCollection<ITheoryDataRow>> GetData(MethodInfo testMethod, DisposalTracker disposalTracker)
    {
        IReadOnlyCollection<ITheoryDataRow> rows =
        [
            .. PesterCatalog.All.Select(test => new TheoryDataRow<string, int>(test.File, test.Line)
            {
                TestDisplayName = $"{test.File}: {test.Name}",
                Skip = PowerShellInstallation.Missing,
            }),
        ];
        return ValueTask.FromResult(rows);
    }

    public override bool SupportsDiscoveryEnumeration() => true;
}
