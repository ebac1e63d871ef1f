using MigrationSafety.Sandbox;
using MigrationSafety.Tests.Postgres;

using CancellationTokenSource stop = new();
Console.CancelKeyPress += (_, e) =>
{
    // The first ends the work in order, server and all; a second ends the process, and the server's own watch cleans up.
    e.Cancel = !stop.IsCancellationRequested;
    stop.Cancel();
};
if (args is [Client.Verb])
{
    return await Client.RunAsync(stop.Token);
}

if (args is [BuildClient.Verb])
{
    return await BuildClient.RunAsync(stop.Token);
}

if (args is [BackfillClient.Verb])
{
    return await BackfillClient.RunAsync(stop.Token);
}

SandboxOptions options;
try
{
    options = SandboxOptions.Parse(args);
}
catch (FormatException e)
{
    await Console.Error.WriteLineAsync($"{e.Message} --help lists the options.");
    return 2;
}

if (options.Help)
{
    Console.WriteLine(SandboxOptions.Usage);
    return 0;
}

Screen screen = new(options.Verbose);
if (options.Scenario.RunAlone(screen) is { } code)
{
    return code;
}

try
{
    return await new Run(options, screen).GoAsync(stop.Token);
}
catch (OperationCanceledException) when (stop.IsCancellationRequested)
{
    screen.Show("Stopped.");
    return 130;
}
catch (PostgresUnavailableException e)
{
    screen.Show(e.Message, "red");
    return 3;
}
catch (Exception e)
{
    screen.Show(e.ToString(), "red");
    return 3;
}
