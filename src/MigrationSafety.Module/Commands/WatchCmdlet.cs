using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>
/// Base of the cmdlets that can go on looking: with <c>-Watch</c> a terminal shows a view that is drawn over itself, and a pipe, a variable or a file gets the rows
/// of each look as objects.
/// </summary>
/// <typeparam name="T">Output type; carries the time of the look.</typeparam>
public abstract class WatchCmdlet<T> : ReadCmdlet<T>
    where T : class
{
    // How soon a terminal that was resized is drawn anew.
    private static readonly TimeSpan s_resizeCheck = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan s_leastInterval = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan s_longestInterval = TimeSpan.FromDays(1);

    // How long a look at all of them waits for those that are slow: these come later, and the others go on.
    private static readonly TimeSpan s_together = TimeSpan.FromSeconds(1);
    // From when on it is said that a server does not answer.
    private static readonly TimeSpan s_silent = TimeSpan.FromSeconds(3);

    private readonly List<Watching> _watching = [];
    private SemaphoreSlim? _places;
    private readonly HashSet<string> _said = new(StringComparer.Ordinal);
    private ScriptBlock? _format;

    /// <summary>Looks again and again, until it is stopped.</summary>
    [Parameter]
    public SwitchParameter Watch { get; set; }

    /// <summary>Time from one look to the next.</summary>
    [Parameter]
    [ValidateNotNull]
    public Duration Interval { get; set; } = new(TimeSpan.FromSeconds(2));

    /// <summary>The sessions that are watched, once all are known.</summary>
    private protected List<EngineSession> Watched { get; } = [];

    /// <summary>What the live view says where a look finds nothing.</summary>
    private protected abstract string NothingText { get; }

    /// <summary>Which rows come to an end by themselves: they are drawn first, and watching ends where none is left. Null where it goes on until it is stopped.</summary>
    private protected virtual Func<T, bool>? Ends => null;

    /// <summary>The custom view of the rows that a terminal has no room for in full; null where a row is one line anyway.</summary>
    private protected virtual string? BriefView => null;

    /// <summary>Whether the last look at a session could not see everything, for a moment: watching goes on then, whatever it found.</summary>
    private protected virtual bool IsPartial(EngineSession session) => false;

    /// <summary>Whether it is looked more often than once.</summary>
    private protected virtual bool Repeats => Watch;

    /// <inheritdoc />
    protected override void BeginProcessing()
    {
        string? wrong = Interval.Value < s_leastInterval || Interval.Value > s_longestInterval ? $"-Interval must be at least {s_leastInterval.TotalMilliseconds:0}ms, and a day at most."
            : !Repeats && MyInvocation.BoundParameters.ContainsKey(nameof(Interval)) ? "-Interval is the time from one look to the next; this would look only once."
            : null;
        if (wrong is not null)
        {
            ThrowTerminatingError(ErrorRecords.Of(new MigrationException("InvalidInterval", MigrationErrorKind.InvalidInput, wrong, "Write -Watch -Interval 2s, for example; 2s is the default.")));
        }
    }

    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        if (Watch)
        {
            Watched.AddRange(Sessions());
        }
        else
        {
            base.ProcessRecord();
        }
    }

    /// <inheritdoc />
    protected override void EndProcessing()
    {
        if (Watch && Watched.Count > 0)
        {
            if (OutputTarget.IsTerminal(this))
            {
                using (LiveView view = new(Host))
                {
                    Repeat(looks => Draw(view, looks));
                }

                // Below the last view, which has them too: a script learns of an error by its record.
                foreach (Exception failure in _watching.Where(one => one.IsOver).Select(one => one.Last!.Failure!))
                {
                    WriteError(ErrorRecords.Of(failure));
                }
            }
            else
            {
                Repeat(looks => Write(looks));
            }
        }

        base.EndProcessing();
    }

    /// <inheritdoc />
    protected override void Dispose(bool disposing)
    {
        // The looks that wait for their turn first.
        base.Dispose(disposing);
        _places?.Dispose();
    }

    private void Repeat(Func<IReadOnlyList<Look>, Action?> show)
    {
        _places = new SemaphoreSlim(ThrottleLimit);
        _watching.AddRange(Watched.Select(session => new Watching(session)));
        while (true)
        {
            long start = Stopwatch.GetTimestamp();
            Task[] begun = [.. _watching.Where(one => one.IsDue).Select(Begin)];
            Runner.Wait(async (_, token) =>
            {
                TimeSpan patience = Interval.Value > s_together ? Interval.Value : s_together;
                await Task.WhenAny(Task.WhenAll(begun), Task.Delay(patience, token)).ConfigureAwait(false);
                token.ThrowIfCancellationRequested();
                return true;
            });
            Look[] looks = [.. _watching.Select(one => one.See())];
            Action? refresh = show(looks);
            if (looks.All(look => !look.IsOld && (look.Failure is null ? Ends is { } ends && !look.Partial && !look.Rows.Any(ends) : !IsPassing(look.Failure))))
            {
                return;
            }

            TimeSpan pause = Interval.Value - Stopwatch.GetElapsedTime(start);
            long paused = Stopwatch.GetTimestamp();
            for (TimeSpan left = pause; left > TimeSpan.Zero; left = pause - Stopwatch.GetElapsedTime(paused))
            {
                TimeSpan slice = refresh is not null && left > s_resizeCheck ? s_resizeCheck : left;
                Runner.Wait(async (_, token) =>
                {
                    await Task.Delay(slice, token).ConfigureAwait(false);
                    return true;
                });
                refresh?.Invoke();
            }
        }
    }
    /// <summary>Begins a look at one session, which ends when it ends: one that waits for a dead server holds up no other.</summary>
    private Task Begin(Watching one)
    {
        TaskCompletionSource<Look> looking = new(TaskCreationOptions.RunContinuationsAsynchronously);
        Runner.Start(
            async (sink, token) =>
            {
                try
                {
                    looking.SetResult(await LookAsync(one.Session, sink, token).ConfigureAwait(false));
                }
                catch (OperationCanceledException)
                {
                    looking.SetCanceled(token);
                    throw;
                }
            },
            int.MaxValue);
        one.Begin(looking.Task);
        return looking.Task;
    }

    private async Task<Look> LookAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken)
    {
        await _places!.WaitAsync(cancellationToken).ConfigureAwait(false);
        WarningsApart warnings = new(sink);
        try
        {
            IReadOnlyList<T> rows = await ReadAsync(session, warnings, cancellationToken).ConfigureAwait(false);
            return new Look(session.Info, rows, [.. warnings.Said], null, IsPartial(session));
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
        {
            // The others go on, and the next look where it may be over by then.
            return new Look(session.Info, [], [.. warnings.Said], e);
        }
        finally
        {
            _places.Release();
        }
    }

    /// <summary>Whether it may be over soon by itself, as a restart of the server is; a typo or a missing privilege is not.</summary>
    private static bool IsPassing(Exception failure) => failure is MigrationException
    {
        Kind: MigrationErrorKind.Connection or MigrationErrorKind.Timeout or MigrationErrorKind.Busy or MigrationErrorKind.Resource or MigrationErrorKind.Stopped,
    };

    /// <summary>Objects to the pipeline; what is the matter is said once, and again after it had been over.</summary>
    private Action? Write(IReadOnlyList<Look> looks)
    {
        HashSet<string> now = new(StringComparer.Ordinal);
        foreach (Look look in looks)
        {
            foreach (string warning in look.Warnings.Where(now.Add).Where(warning => !_said.Contains(warning)))
            {
                WriteWarning(warning);
            }

            if (look.Failure is { } failure)
            {
                ErrorRecord error = ErrorRecords.Of(failure);
                string key = $"{look.Session.Id}: {error.FullyQualifiedErrorId}";
                if (now.Add(key) && !_said.Contains(key))
                {
                    WriteError(error);
                }
            }

            foreach (T row in look.IsOld ? [] : look.Rows)
            {
                WriteObject(row);
            }
        }

        _said.Clear();
        _said.UnionWith(now);
        return null;
    }

    /// <summary>Draws what was seen; what is returned draws it anew where the terminal has another size by then.</summary>
    private Action Draw(LiveView view, IReadOnlyList<Look> looks)
    {
        string time = DateTime.Now.ToString("HH:mm:ss", CultureInfo.InvariantCulture);
        (int Width, int Height) drawn = LiveView.Size;
        view.Draw(Compose(looks, time, drawn));
        return () =>
        {
            if (LiveView.Size != drawn)
            {
                drawn = LiveView.Size;
                view.Draw(Compose(looks, time, drawn));
            }
        };
    }

    private List<string> Compose(IReadOnlyList<Look> looks, string time, (int Width, int Height) size)
    {
        bool plain = $"{PSObject.AsPSObject(GetVariableValue("PSStyle") ?? "").Properties["OutputRendering"]?.Value}" == "PlainText";
        string yellow = plain ? "" : "\u001b[33m";
        string red = plain ? "" : "\u001b[31m";
        string where = looks.Count == 1 ? looks[0].Session.ToString() : $"{looks.Count} sessions";
        List<string> lines = [$"{time}  {where}, every {Interval}; Ctrl-C ends"];
        lines.AddRange(Notices(
            [
                .. looks.Where(look => look.Failure is not null).Select(look => (red, $"{look.Session}: {look.Failure!.Message}")),
                .. looks.Where(look => look.Failure is null && look.Silent > s_silent)
                    .Select(look => (yellow, $"{look.Session}: no answer for {Durations.Text(look.Silent)}{(look.Rows.Count > 0 ? "; what is shown of it is older." : ".")}")),
                .. looks.SelectMany(look => look.Warnings).Distinct().Select(warning => (yellow, warning)),
            ],
            size));
        lines.Add("");
        // The sort keeps the order of the server's otherwise.
        T[] rows = [.. looks.SelectMany(look => look.Rows).OrderByDescending(row => Ends?.Invoke(row))];
        if (rows.Length == 0)
        {
            // Where a look failed, or did not see everything, nothing is known.
            lines.Add(looks.Any(look => look is { Failure: null, Partial: false }) ? NothingText : "");
            return lines;
        }

        lines.AddRange(Fit(rows, Math.Max(size.Height - lines.Count, 1), size.Width));
        return lines;
    }

    /// <summary>What is the matter: in full where that leaves two thirds of the height to the rows, otherwise a line each, of as many as a third holds.</summary>
    private static List<string> Notices((string Colour, string Text)[] all, (int Width, int Height) size)
    {
        int room = Math.Max(size.Height / 3, 1);
        List<string> full = [.. all.SelectMany(one => Fold(one.Text, size.Width).Select(line => one.Colour + line))];
        if (full.Count <= room)
        {
            return full;
        }

        int shown = all.Length <= room ? all.Length : room - 1;
        return
        [
            .. all[..shown].Select(one => Fold(one.Text, size.Width - 1).ToArray() is [var line, .. var rest] ? $"{one.Colour}{line}{(rest.Length > 0 ? "…" : "")}" : ""),
            .. shown < all.Length ? [$"{all[^1].Colour}... and {all.Length - shown} more"] : Array.Empty<string>(),
        ];
    }

    /// <summary>As many rows as there is room for, and as many of these in full; the formatter alone knows how many lines it makes of them.</summary>
    private List<string> Fit(T[] rows, int room, int width)
    {
        List<string> Table(int full, int shown) =>
        [
            .. Format(rows[..full], width),
            .. full > 0 && full < shown ? [""] : Array.Empty<string>(),
            // The formatter puts empty lines between them.
            .. Format(rows[full..shown], width, BriefView).Where(line => line.Length > 0),
            .. shown < rows.Length ? [$"... and {rows.Length - shown} more"] : Array.Empty<string>(),
        ];
        if (rows.Length <= room && Table(rows.Length, rows.Length) is { } all && all.Count <= room)
        {
            return all;
        }

        int shown = Math.Max(1, Most(Math.Min(rows.Length, room), count => Table(BriefView is null ? count : 0, count).Count <= room));
        return Table(BriefView is null ? shown : Most(shown, count => Table(count, shown).Count <= room), shown);
    }

    /// <summary>The largest number up to <paramref name="limit"/> that fits, by halves; 0 where none does.</summary>
    private static int Most(int limit, Func<int, bool> fits)
    {
        int least = 0;
        for (int tried = limit; least < limit; tried = (least + limit + 1) / 2)
        {
            (least, limit) = fits(tried) ? (tried, limit) : (least, tried - 1);
        }

        return least;
    }

    private List<string> Format(T[] rows, int width, string? view = null)
    {
        if (rows.Length == 0)
        {
            return [];
        }

        _format ??= InvokeCommand.NewScriptBlock("""
            $rows = if ($args[1]) { $input | Microsoft.PowerShell.Utility\Format-Custom -View $args[1] } else { $input }
            $rows | Microsoft.PowerShell.Utility\Out-String -Stream -Width $args[0]
            """);
        // A column less: some terminals lose the last one when the line is cleared behind it. A narrow terminal cuts what is right, where the formatter would fold it.
        IEnumerable<string> lines = InvokeCommand.InvokeScript(useLocalScope: true, _format, rows.Cast<object>().ToList(), Math.Max(width, 80) - 1, view).Select(line => line?.ToString() ?? "");
        List<string> trimmed = [.. lines.SkipWhile(string.IsNullOrWhiteSpace)];
        while (trimmed.Count > 0 && string.IsNullOrWhiteSpace(trimmed[^1]))
        {
            trimmed.RemoveAt(trimmed.Count - 1);
        }

        return trimmed;
    }

    private static IEnumerable<string> Fold(string text, int width)
    {
        string rest = text.ReplaceLineEndings(" ");
        int most = Math.Max(width - 1, 10);
        while (rest.Length > most)
        {
            int cut = rest.LastIndexOf(' ', most);
            cut = cut > 0 ? cut : most;
            yield return rest[..cut];
            rest = rest[cut..].TrimStart();
        }

        yield return rest;
    }

    /// <summary>What was seen of a session.</summary>
    /// <param name="Session">Session.</param>
    /// <param name="Rows">Rows.</param>
    /// <param name="Warnings">Warnings.</param>
    /// <param name="Failure">Why nothing was seen; null where that went well.</param>
    /// <param name="Partial">Whether not everything was seen.</param>
    /// <param name="IsOld">Whether it was shown before: the next look has not ended yet.</param>
    /// <param name="Silent">For how long that has waited for its answer.</param>
    private sealed record Look(MigrationSession Session, IReadOnlyList<T> Rows, string[] Warnings, Exception? Failure, bool Partial = false, bool IsOld = false, TimeSpan Silent = default);

    /// <summary>One session that is looked at. Used on the pipeline's thread alone.</summary>
    private sealed class Watching(EngineSession session)
    {
        private Task<Look>? _looking;
        private long _began;
        private long _rests;

        internal EngineSession Session => session;

        internal Look? Last { get; private set; }

        /// <summary>Whether it failed in a way that waiting does not mend.</summary>
        internal bool IsOver => Last?.Failure is { } failure && !IsPassing(failure);

        /// <summary>Whether to look again. A server that is slow to answer is not asked without a pause.</summary>
        internal bool IsDue => _looking is null && !IsOver && Stopwatch.GetTimestamp() >= _rests;

        internal void Begin(Task<Look> looking) => (_looking, _began) = (looking, Stopwatch.GetTimestamp());

        /// <summary>What is known of it by now.</summary>
        internal Look See()
        {
            if (_looking is { IsCompletedSuccessfully: true })
            {
                long now = Stopwatch.GetTimestamp();
                Last = _looking.Result;
                (_looking, _rests) = (null, now + ((now - _began) / 2));
                return Last;
            }

            return IsOver ? Last! : (Last ?? new Look(session.Info, [], [], null, Partial: true)) with { IsOld = true, Silent = _looking is null ? TimeSpan.Zero : Stopwatch.GetElapsedTime(_began) };
        }
    }

    /// <summary>Keeps warnings back: each look says them again, and they would stand in the middle of the view.</summary>
    private sealed class WarningsApart(IOperationSink inner) : IOperationSink
    {
        internal ConcurrentQueue<string> Said { get; } = new();

        public void Verbose(string message) => inner.Verbose(message);

        public void Debug(string message) => inner.Debug(message);

        public void Warning(string message) => Said.Enqueue(message);

        public void Progress(OperationProgress progress) => inner.Progress(progress);
    }
}
