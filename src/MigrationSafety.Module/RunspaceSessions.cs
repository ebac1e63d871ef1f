using System.Management.Automation.Runspaces;
using System.Runtime.CompilerServices;
using MigrationSafety.Module.Completion;

namespace MigrationSafety.Module;

/// <summary>The sessions of a runspace and which of them is current: runspaces do not see each other's.</summary>
internal sealed class RunspaceSessions
{
    private static readonly ConditionalWeakTable<Runspace, RunspaceSessions> s_byRunspace = [];

    private readonly List<MigrationSession> _sessions = [];

    /// <summary>Those of the runspace that this thread serves.</summary>
    internal static RunspaceSessions Here => s_byRunspace.GetOrCreateValue(Runspace.DefaultRunspace);

    internal IReadOnlyList<MigrationSession> All => _sessions;

    internal MigrationSession? Current { get; private set; }

    /// <summary>Names that were completed a moment ago.</summary>
    internal NameCache Names { get; } = new();

    internal void Add(MigrationSession session)
    {
        _sessions.Add(session);
        Current = session;
    }

    internal void Remove(MigrationSession session)
    {
        _sessions.Remove(session);
        if (Current == session)
        {
            Current = _sessions.LastOrDefault();
        }
    }
}
