using System.Diagnostics;
using MigrationSafety.Engine.Names;

namespace MigrationSafety.Module.Completion;

/// <summary>Names by where they come from and what was asked: whoever presses Tab again is not made to wait again.</summary>
internal sealed class NameCache
{
    private static readonly TimeSpan s_keepFor = TimeSpan.FromSeconds(10);

    private readonly Dictionary<(string Source, LiveNameRequest Request), (long At, IReadOnlyList<LiveName> Names)> _found = [];

    internal IReadOnlyList<LiveName>? Get(string source, LiveNameRequest request) =>
        _found.TryGetValue((source, request), out (long At, IReadOnlyList<LiveName> Names) entry) && Stopwatch.GetElapsedTime(entry.At) < s_keepFor ? entry.Names : null;

    internal void Put(string source, LiveNameRequest request, IReadOnlyList<LiveName> names)
    {
        foreach ((string Source, LiveNameRequest Request) old in _found.Where(entry => Stopwatch.GetElapsedTime(entry.Value.At) >= s_keepFor).Select(entry => entry.Key).ToList())
        {
            _found.Remove(old);
        }

        _found[(source, request)] = (Stopwatch.GetTimestamp(), names);
    }
}
