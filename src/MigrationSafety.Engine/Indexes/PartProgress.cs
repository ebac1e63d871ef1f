using System.Globalization;
using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Makes one progress bar of the builds of several partitions: each counts as much as it is large.</summary>
internal sealed class PartProgress(IOperationSink sink, string activity)
{
    private readonly object _gate = new();
    private readonly Dictionary<string, (long Weight, OperationProgress? Last)> _parts = [];
    private double _percent;
    private bool _told;

    private IOperationSink Sink => sink;

    /// <summary>Says which parts there will be.</summary>
    internal void Expect(IEnumerable<(string Name, long Weight)> parts)
    {
        lock (_gate)
        {
            foreach ((string name, long weight) in parts)
            {
                _parts.TryAdd(name, (weight, null));
            }
        }
    }

    /// <summary>The sink of a part; of no part, messages alone go through it.</summary>
    internal IOperationSink Part(string? name, long weight) => new PartSink(this, name, weight);

    internal void End()
    {
        if (_told)
        {
            sink.Progress(new OperationProgress(activity, "Done", 100, Completed: true));
        }
    }

    private void Report(string name, long weight, OperationProgress progress)
    {
        OperationProgress all;
        lock (_gate)
        {
            _parts[name] = (weight, progress);
            double total = _parts.Values.Sum(part => (double)part.Weight);
            double done = _parts.Values.Sum(part => part.Weight * (part.Last is { Completed: true } ? 100 : part.Last?.Percent ?? 0));
            _percent = Math.Max(_percent, done / total);
            int ended = _parts.Values.Count(part => part.Last is { Completed: true });
            string status = string.Create(CultureInfo.CurrentCulture, $"{ended:N0} of {_parts.Count:N0} partitions; {name}: {progress.Status}");
            all = new OperationProgress(activity, status, Math.Round(_percent, 1), null, progress.CurrentOperation);
            _told = true;
        }

        sink.Progress(all);
    }

    private sealed class PartSink(PartProgress whole, string? name, long weight) : IOperationSink
    {
        private readonly IOperationSink _sink = whole.Sink;

        public void Verbose(string message) => _sink.Verbose(message);

        public void Debug(string message) => _sink.Debug(message);

        public void Warning(string message) => _sink.Warning(message);

        public void Record(OperationEvent happened) => _sink.Record(happened);

        public void Progress(OperationProgress progress)
        {
            if (name is not null)
            {
                whole.Report(name, weight, progress);
            }
        }
    }

}
