using Xunit;

namespace MigrationSafety.Tests.Module;

/// <summary>The Pester suite, test by test.</summary>
public sealed class PesterTests(PesterHost host)
{
    [Theory]
    [PesterTests]
    public async Task Pester(string file, int line)
    {
        PesterFileRun run = await host.RunAsync(file);
        PesterResult[] cases = [.. run.Tests.Where(test => test.Line == line)];
        Assert.True(cases.Length > 0, $"Pester did not run the test at {file}:{line}.{Environment.NewLine}{run.Output}");
        string failures = string.Join(Environment.NewLine, cases.Where(test => test.Result is not ("Passed" or "Skipped")).Select(test => $"{test.Name}: {test.Result}{Environment.NewLine}{test.Error}"));
        Assert.True(failures.Length == 0, failures);
        if (cases.All(test => test.Result == "Skipped"))
        {
            Assert.Skip(cases[0].Error ?? "Skipped by Pester.");
        }
    }

    /// <summary>A test that the catalog does not see would fail in silence.</summary>
    [Fact]
    public async Task Every_test_that_Pester_finds_is_in_the_catalog()
    {
        Assert.SkipWhen(PowerShellInstallation.Missing is not null, PowerShellInstallation.Missing ?? "");
        foreach (IGrouping<string, PesterTest> file in PesterCatalog.All.GroupBy(test => test.File))
        {
            PesterFileRun run = await host.RunAsync(file.Key);
            int[] unknown = [.. run.Tests.Select(test => test.Line).Except(file.Select(test => test.Line))];
            Assert.True(unknown.Length == 0, $"{file.Key}: lines {string.Join(", ", unknown)} hold tests that PesterCatalog does not see.");
            Assert.True(run.FailedBlocks.Length == 0, $"{file.Key}: {string.Join(Environment.NewLine, run.FailedBlocks)}");
        }
    }
}
