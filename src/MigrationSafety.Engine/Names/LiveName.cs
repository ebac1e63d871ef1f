namespace MigrationSafety.Engine.Names;

/// <summary>What a name stands for.</summary>
public enum LiveNameKind
{
    /// <summary>Tables, partitioned tables and materialized views.</summary>
    Table,

    /// <summary>Schemas that hold tables.</summary>
    Schema,

    /// <summary>Columns of a table.</summary>
    Column,

    /// <summary>Indexes.</summary>
    Index,

    /// <summary>Backfills that are recorded.</summary>
    Backfill,
}

/// <summary>Which names are looked for.</summary>
/// <param name="Kind">Kind.</param>
/// <param name="Prefix">How they begin, in any case, with or without the schema; empty for all.</param>
/// <param name="Schema">Schema, as in SQL, that was named already; null where none was.</param>
/// <param name="Table">Table, as in SQL, that was named already; null where none was.</param>
public sealed record LiveNameRequest(LiveNameKind Kind, string Prefix, string? Schema, string? Table);

/// <summary>A name of the database.</summary>
/// <param name="Text">As SQL writes it: quoted where it has to be, with its schema where the search_path does not lead to it.</param>
/// <param name="Description">What it is, in a line.</param>
public sealed record LiveName(string Text, string Description);
