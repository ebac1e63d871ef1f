using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>What a backfill is asked to do.</summary>
public sealed record BackfillRequest
{
    /// <summary>Table as in SQL, with or without schema.</summary>
    public required string Table { get; init; }

    /// <summary>Schema as in SQL; null for the one in <see cref="Table"/> or the search_path.</summary>
    public string? Schema { get; init; }

    /// <summary>Columns as in SQL, and the SQL expression that each is set to, in order; none with <see cref="Delete"/>.</summary>
    public IReadOnlyList<KeyValuePair<string, string>> Set { get; init; } = [];

    /// <summary>Whether the rows are to be deleted instead.</summary>
    public bool Delete { get; init; }

    /// <summary>The table into which the rows are copied instead; null where they are changed in place.</summary>
    public string? InsertInto { get; init; }

    /// <summary>Its schema, as in SQL; null for the one in <see cref="InsertInto"/> or the search_path.</summary>
    public string? InsertIntoSchema { get; init; }

    /// <summary>Columns of <see cref="InsertInto"/> and the SQL expression over the source that each gets; null leaves a column to its default. What is not named is copied from the column of the same name.</summary>
    public IReadOnlyList<KeyValuePair<string, string?>> Select { get; init; } = [];

    /// <summary>Whether no column gets a value but those of <see cref="Select"/>.</summary>
    public bool SelectOnly { get; init; }

    /// <summary>Another table or several, as in the FROM of an UPDATE, into which expressions and condition look; null for none. <see cref="Where"/> has to say which of its rows belongs to which.</summary>
    public string? From { get; init; }

    /// <summary>Which rows: an SQL condition that the update makes untrue. Null: those where a column of <see cref="Set"/> is NULL.</summary>
    public string? Where { get; init; }

    /// <summary>Whether what is overwritten or deleted is kept in migration_safety, so that it can be put back. Needs a unique key.</summary>
    public bool KeepOldValues { get; init; }

    /// <summary>Name under which it is recorded and resumed; null for one made of table and columns, such as <c>public.orders.tier</c>.</summary>
    public string? Name { get; init; }

    /// <summary>The most rows that a batch may look at; null where <see cref="TargetBatchTime"/> alone decides.</summary>
    public int? BatchSize { get; init; }

    /// <summary>How long a batch should take, and so for how long it holds its rows. 250 ms.</summary>
    public TimeSpan TargetBatchTime { get; init; } = TimeSpan.FromMilliseconds(250);

    /// <summary>How many batches the planning runs and rolls back, to measure time and WAL; 0 for none.</summary>
    public int SampleBatch { get; init; }

    /// <summary>How many connections of this client work on it side by side.</summary>
    public int Workers { get; init; } = 1;

    /// <summary>How it walks through the table.</summary>
    public BackfillStrategy Strategy { get; init; }

    /// <summary>How many rows the server may refuse before the run ends; they are recorded and passed over. 0: the first one ends it.</summary>
    public long MaxErrors { get; init; }

    /// <summary>When it slows down and pauses by itself.</summary>
    public ThrottleLimits Throttle { get; init; } = ThrottleLimits.Default;

    /// <summary>Puts what was asked for by name into limits that are recorded: those of clients that work on it already hold for whoever joins them. Null where <see cref="Throttle"/> as a whole is asked for.</summary>
    public Func<ThrottleLimits, ThrottleLimits>? ThrottleOver { get; init; }

    /// <summary>The settings with which its expressions are read, as <see cref="BackfillSettings"/> has them; null for those of the session.</summary>
    internal IReadOnlyDictionary<string, string>? Settings { get; init; }

    /// <summary>The bounds under which it runs.</summary>
    public ExecutionOptions Options { get; init; } = new();

    /// <summary>The same for the tables that a definition has found, whatever the search_path.</summary>
    internal BackfillRequest On(BackfillDefinition definition) => this with
    {
        Table = SqlName.Quote(definition.Table.Name),
        Schema = SqlName.Quote(definition.Table.Schema),
        InsertInto = definition.Into is { } into ? SqlName.Quote(into.Table.Name) : null,
        InsertIntoSchema = definition.Into is { } target ? SqlName.Quote(target.Table.Schema) : null,
    };
}
