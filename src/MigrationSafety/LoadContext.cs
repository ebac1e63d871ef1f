using System.Reflection;
using System.Runtime.Loader;

namespace MigrationSafety;

/// <summary>
/// The module's own assembly load context. Cmdlets, engine, Npgsql and what Npgsql depends on load here, so that another
/// version of a dependency that is already in the PowerShell process does not matter. This assembly stays in the default
/// context: its types are what users see.
/// </summary>
public sealed class LoadContext : AssemblyLoadContext
{
    private static readonly Lazy<Assembly> s_module = new(
        () =>
        {
            string directory = Path.GetDirectoryName(typeof(LoadContext).Assembly.Location)!;
            return new LoadContext(directory).LoadFromAssemblyPath(Path.Combine(directory, "MigrationSafety.Module.dll"));
        },
        LazyThreadSafetyMode.ExecutionAndPublication);

    private readonly string _directory;

    private LoadContext(string directory)
        : base("MigrationSafety", isCollectible: false) => _directory = directory;

    /// <summary>Loads the cmdlets once per process and returns their assembly, for <c>Import-Module -Assembly</c>.</summary>
    /// <returns>The assembly of the cmdlets, in this context.</returns>
    public static Assembly Initialize() => s_module.Value;

    /// <inheritdoc />
    protected override Assembly? Load(AssemblyName assemblyName)
    {
        ArgumentNullException.ThrowIfNull(assemblyName);
        if (assemblyName.Name == typeof(LoadContext).Assembly.GetName().Name)
        {
            // Shared with the default context, or users would see two types of each name.
            return typeof(LoadContext).Assembly;
        }

        string path = Path.Combine(_directory, assemblyName.Name + ".dll");
        return File.Exists(path) ? LoadFromAssemblyPath(path) : null;
    }
}
