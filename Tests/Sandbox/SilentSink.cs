using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Sandbox;

/// <summary>For clients that tests kill: whoever kills one asks the server how far it is.</summary>
internal sealed class SilentSink : IOperationSink
{
    public void Verbose(string message)
    {
    }

    public void Debug(string message)
    {
    }

    public void Warning(string message) => Console.Error.WriteLine(message);

    public void Progress(OperationProgress progress)
    {
    }
}
