namespace MigrationSafety.Engine.Progress;

/// <summary>COPY, base backups, and whatever a newer server shows: one counter that runs towards its total.</summary>
internal static class TransferModels
{
    internal static OperationState Copy(ProgressSample sample)
    {
        string operation = sample.Text("command") ?? "COPY";
        long? bytes = sample.Number("bytes_processed");
        long? rows = sample.Number("tuples_processed");
        OperationState state = new()
        {
            // An initial copy of logical replication reads from a callback, and is told apart by who works.
            Operation = operation == "COPY FROM" && sample.Text("type") == "CALLBACK" ? "LOGICAL REPLICATION COPY" : operation,
            Waiting = sample.WaitEvent switch
            {
                "ClientRead" or "CopyFileRead" => "the client, which sends the rows",
                "ClientWrite" or "WalSenderWriteData" => "the client, which takes the rows",
                "LibPQWalReceiverReceive" or "LogicalSyncData" => "the publisher, which sends the rows",
                _ => null,
            },
        };
        (long? done, long? total, string unit, bool estimated) = (sample.Number("bytes_total"), operation) switch
        {
            // The size of the file.
            ( > 0 and { } size, _) => (bytes, (long?)size, "bytes", false),
            // Rows of the table by its statistics, until there are more; of a query nothing is known.
            (_, "COPY TO") when sample.Fact("tuples") is { } tuples && tuples > (rows ?? 0) => (rows, tuples, "tuples", true),
            _ => (rows, (long?)null, "tuples", false),
        };
        return state with
        {
            Done = done,
            Total = total,
            Unit = unit,
            Parts = total is null ? [] : [new("all", 1)],
            Within = OperationState.Fraction(done, total),
            Estimated = estimated,
            Basis = ProgressConfidence.Measured,
        };
    }

    internal static OperationState BaseBackup(ProgressSample sample)
    {
        string[] phases =
            ["initializing", "waiting for checkpoint to finish", "estimating backup size", "streaming database files", "waiting for wal archiving to finish", "transferring wal files"];
        string? phase = sample.Text("phase");
        int number = Array.IndexOf(phases, phase);
        long? streamed = number >= 3 ? sample.Number("backup_streamed") : null;
        // What is streamed may pass what was estimated before: how much there is, is known again when all is streamed.
        long? total = sample.Number("backup_total") is not ({ } estimate and > 0) ? null : number > 3 ? Math.Max(estimate, streamed ?? 0) : estimate > (streamed ?? 0) ? estimate : null;
        return new OperationState
        {
            Operation = "BASE BACKUP",
            Phase = phase,
            PhaseNumber = number < 0 ? null : number + 1,
            PhaseCount = number < 0 ? null : phases.Length,
            Done = streamed,
            Total = number >= 3 ? total : null,
            Unit = number >= 3 ? "bytes" : null,
            Parts = total is null && number >= 3 ? [] : [new("streaming database files", 1)],
            Within = number switch { < 3 => 0, 3 => OperationState.Fraction(streamed, total), _ => 1 },
            Estimated = true,
            Basis = ProgressConfidence.Measured,
            Waiting = sample.WaitEvent switch
            {
                "BaseBackupThrottle" => "throttle: the rate that the backup was given",
                "ClientWrite" or "WalSenderWriteData" => "the client, which takes the files",
                _ => null,
            },
        };
    }

    /// <summary>A view of a newer server: its name, its phase, and a total with whatever counts towards it.</summary>
    internal static OperationState Unknown(ProgressSample sample)
    {
        OperationState state = new()
        {
            Operation = sample.Text("command") ?? sample.View.Replace('_', ' ').ToUpperInvariant(),
            Phase = sample.Text("phase"),
        };
        foreach (string name in sample.Counters.Keys.Where(name => name.EndsWith("_total", StringComparison.Ordinal)).Order(StringComparer.Ordinal))
        {
            string stem = name[..^"total".Length];
            if (sample.Number(name) is { } total and > 0
                && sample.Counters.Keys.Where(other => other != name && other.StartsWith(stem, StringComparison.Ordinal)).Order(StringComparer.Ordinal).FirstOrDefault() is { } counter
                && sample.Number(counter) is { } done)
            {
                // Of the phase alone: how it stands to the whole is not known.
                return state with { Done = done, Total = total, Unit = stem.TrimEnd('_') };
            }
        }

        return state;
    }
}
