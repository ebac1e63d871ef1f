using System.Reflection;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>A forward statement of the corpus, or several that belong together.</summary>
/// <param name="Family">File.</param>
/// <param name="Line">Line of its head.</param>
/// <param name="Command">The command that it is about.</param>
/// <param name="Expected">What its rollback is to be called.</param>
/// <param name="From">The first major that takes it.</param>
/// <param name="Moves">Whether columns may come back at another place.</param>
/// <param name="Once">Whether the rollback says that it is to be run once.</param>
/// <param name="Differs">Whether what is lost leaves a difference in the catalog too.</param>
/// <param name="Sql">SQL.</param>
internal sealed record CorpusCase(string Family, int Line, string Command, Reversibility Expected, int From, bool Moves, bool Once, bool Differs, string Sql)
{
    /// <inheritdoc />
    public override string ToString() => $"{Family}:{Line} {Command}";
}

/// <summary>
/// The corpus of forward statements: a file a family in Rollbacks/. A file begins with the SQL that sets its database up, after that of base.sql; each case has a head
/// <c>--- COMMAND | Expected [| since N] [| moves] [| once] [| differs]</c>.
/// </summary>
internal static class RollbackCorpus
{
    internal static IReadOnlyList<string> Families => [.. Directory.GetFiles(FolderOfTests, "*.sql").Select(f => Path.GetFileNameWithoutExtension(f)).Where(f => f != "base").Order(StringComparer.Ordinal)];

    private static string FolderOfTests { get; } =
        Path.Combine(typeof(RollbackCorpus).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().First(a => a.Key == "EngineTests").Value!, "Rollbacks");

    /// <summary>What sets the database of a family up.</summary>
    internal static string SetUp(string family) => File.ReadAllText(Path.Combine(FolderOfTests, "base.sql")) + "\n" + string.Join('\n', Lines(family).TakeWhile(l => !l.StartsWith("--- ", StringComparison.Ordinal)));

    /// <summary>The cases of a family.</summary>
    internal static IReadOnlyList<CorpusCase> Cases(string family)
    {
        List<CorpusCase> cases = [];
        string[] lines = Lines(family);
        for (int i = 0; i < lines.Length; i++)
        {
            if (!lines[i].StartsWith("--- ", StringComparison.Ordinal))
            {
                continue;
            }

            string[] head = lines[i][4..].Split('|', StringSplitOptions.TrimEntries);
            string sql = string.Join('\n', lines.Skip(i + 1).TakeWhile(l => !l.StartsWith("--- ", StringComparison.Ordinal)));
            int from = head.FirstOrDefault(h => h.StartsWith("since ", StringComparison.Ordinal)) is { } since ? int.Parse(since[6..], System.Globalization.CultureInfo.InvariantCulture) : 0;
            cases.Add(new CorpusCase(family, i + 1, head[0], Enum.Parse<Reversibility>(head[1]), from, head.Contains("moves"), head.Contains("once"), head.Contains("differs"), sql));
        }

        return cases;
    }

    private static string[] Lines(string family) => File.ReadAllLines(Path.Combine(FolderOfTests, family + ".sql"));
}
