using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using MigrationSafety.Engine.Execution;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace MigrationSafety.Sandbox;

/// <summary>
/// What the user sees while the sandbox works: in a terminal a live region below the lines, elsewhere plain lines. Engine and sandbox report
/// from any thread; only the loop of <see cref="RunAsync"/> writes.
/// </summary>
internal sealed class Screen : IOperationSink
{
    private static readonly TimeSpan s_refresh = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan s_plainEvery = TimeSpan.FromSeconds(2);

    private readonly IAnsiConsole _console;
    private readonly bool _verbose;
    private readonly ConcurrentQueue<(TimeSpan At, string Text, string Style)> _lines = new();
    private readonly ConcurrentDictionary<string, OperationProgress> _progress = new();
    private readonly ConcurrentDictionary<string, long> _plainSaid = new();
    private readonly long _start = Stopwatch.GetTimestamp();
    private volatile string? _step;
    private long _stepStart;

    internal Screen(bool verbose)
    {
        _verbose = verbose;
        // The library looks at TERM alone; a file or a pipe is to get neither colours nor a table folded at 80.
        _console = Console.IsOutputRedirected
            ? AnsiConsole.Create(new AnsiConsoleSettings { Ansi = AnsiSupport.No, ColorSystem = ColorSystemSupport.NoColors, Interactive = InteractionSupport.No })
            : AnsiConsole.Console;
        Interactive = _console.Profile.Capabilities is { Interactive: true, Ansi: true };
        if (Console.IsOutputRedirected)
        {
            _console.Profile.Width = 180;
        }
    }

    /// <summary>Whether there is a terminal.</summary>
    internal bool Interactive { get; }

    /// <summary>What the application feels right now, in one line; set while traffic runs.</summary>
    internal Func<string>? Pulse { get; set; }

    internal static string Text(TimeSpan time) => time switch
    {
        { TotalMilliseconds: < 10 } => string.Create(CultureInfo.InvariantCulture, $"{time.TotalMilliseconds:0.0} ms"),
        { TotalSeconds: < 1 } => string.Create(CultureInfo.InvariantCulture, $"{time.TotalMilliseconds:0} ms"),
        { TotalMinutes: < 10 } => string.Create(CultureInfo.InvariantCulture, $"{time.TotalSeconds:0.0} s"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{time.TotalMinutes:0.0} min"),
    };

    /// <summary>Does the work and shows it meanwhile.</summary>
    internal async Task RunAsync(Func<Task> work)
    {
        Task task = Task.Run(work);
        if (Interactive)
        {
            await _console.Live(Region()).AutoClear(true).StartAsync(async context =>
            {
                do
                {
                    await Task.WhenAny(task, Task.Delay(s_refresh));
                    WriteLines();
                    context.UpdateTarget(Region());
                }
                while (!task.IsCompleted);
            });
        }
        else
        {
            do
            {
                await Task.WhenAny(task, Task.Delay(s_refresh));
                WriteLines();
            }
            while (!task.IsCompleted);
        }

        WriteLines();
        await task;
    }

    /// <summary>A line that stays.</summary>
    internal void Say(string text) => Enqueue(text, "");

    /// <summary>A step begins; its name stands over the progress until it ends.</summary>
    internal void Begin(string step)
    {
        Say(step + " ...");
        _progress.Clear();
        Interlocked.Exchange(ref _stepStart, Stopwatch.GetTimestamp());
        _step = step;
    }

    internal void End()
    {
        _step = null;
        _progress.Clear();
    }

    /// <summary>Something that was drawn, after the work.</summary>
    internal void Show(IRenderable drawn)
    {
        WriteLines();
        _console.Write(drawn);
    }

    /// <summary>A line after the work.</summary>
    internal void Show(string text, string style = "")
    {
        WriteLines();
        if (Interactive)
        {
            _console.Write(new Text(text + "\n", Spectre.Console.Style.Parse(style.Length == 0 ? "default" : style)));
        }
        else
        {
            Console.WriteLine(text);
        }
    }

    /// <inheritdoc />
    public void Verbose(string message) => Enqueue("    " + message, "grey");

    /// <inheritdoc />
    public void Debug(string message)
    {
        if (_verbose)
        {
            Enqueue("    " + message, "blue");
        }
    }

    /// <inheritdoc />
    public void Warning(string message) => Enqueue("    WARNING: " + message, "yellow");

    /// <inheritdoc />
    public void Progress(OperationProgress progress)
    {
        if (progress.Completed)
        {
            _progress.TryRemove(progress.Activity, out _);
            return;
        }

        _progress[progress.Activity] = progress;
        if (!Interactive && Stopwatch.GetElapsedTime(_plainSaid.GetOrAdd(progress.Activity, 0)) > s_plainEvery)
        {
            _plainSaid[progress.Activity] = Stopwatch.GetTimestamp();
            Enqueue("    " + Words(progress), "");
        }
    }

    private static string Words(OperationProgress progress)
    {
        string percent = progress.Percent is { } done ? string.Create(CultureInfo.InvariantCulture, $" {done:0} %") : "";
        string remaining = progress.Remaining is { } left ? $", {Text(left)} left" : "";
        string waits = progress.CurrentOperation is { } current ? $"; {current}" : "";
        return $"{progress.Activity}: {progress.Status}{percent}{remaining}{waits}";
    }

    private void Enqueue(string text, string style) => _lines.Enqueue((Stopwatch.GetElapsedTime(_start), text, style));

    private void WriteLines()
    {
        while (_lines.TryDequeue(out (TimeSpan At, string Text, string Style) line))
        {
            string text = $"{line.At.TotalSeconds.ToString("0.0", CultureInfo.InvariantCulture),6} s  {line.Text.ReplaceLineEndings(" ")}";
            if (Interactive)
            {
                _console.Write(new Text(text + "\n", Spectre.Console.Style.Parse(line.Style.Length == 0 ? "default" : line.Style)));
            }
            else
            {
                // As it is: whatever reads it breaks lines itself.
                Console.WriteLine(text);
            }
        }
    }

    /// <summary>The live region: step, progress, pulse of the application.</summary>
    private Rows Region()
    {
        List<IRenderable> rows = [];
        if (_step is { } step)
        {
            rows.Add(new Rule($"{Markup.Escape(step)}, {Text(Stopwatch.GetElapsedTime(Interlocked.Read(ref _stepStart)))}").LeftJustified());
        }

        foreach (OperationProgress progress in _progress.Values.OrderBy(progress => progress.Activity, StringComparer.Ordinal))
        {
            rows.Add(new Text(Words(progress)) { Overflow = Overflow.Ellipsis });
            if (progress.Percent is { } percent)
            {
                rows.Add(new BreakdownChart().Width(60).HideTags().AddItem("done", percent, Color.Green).AddItem("left", Math.Max(0, 100 - percent), Color.Grey23));
            }
        }

        if (Pulse is { } pulse)
        {
            rows.Add(new Text(pulse(), Spectre.Console.Style.Parse("grey")));
        }

        // The library cannot draw nothing.
        return new Rows(rows.Count == 0 ? [new Text("Starting")] : rows);
    }
}
