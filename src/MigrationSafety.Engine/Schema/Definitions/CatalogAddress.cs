namespace MigrationSafety.Engine.Schema.Definitions;

/// <summary>An object by its place in the catalogs, as <c>pg_depend</c> names it.</summary>
/// <param name="ClassId">Oid of the catalog: <c>'pg_class'::regclass</c> and so on.</param>
/// <param name="ObjectId">Oid of the object.</param>
/// <param name="SubId">Number of the column; 0 for the object itself.</param>
internal readonly record struct CatalogAddress(uint ClassId, uint ObjectId, int SubId)
{
    /// <summary>pg_class, whose oid is the same on every server, as are the others.</summary>
    internal const uint Relations = 1259;

    internal const uint AttributeDefaults = 2604;

    internal const uint Constraints = 2606;

    internal const uint Routines = 1255;

    internal const uint Types = 1247;

    internal const uint Schemas = 2615;

    internal const uint Rules = 2618;

    internal const uint Triggers = 2620;

    internal const uint Extensions = 3079;

    /// <summary>A relation.</summary>
    /// <param name="oid">Its oid.</param>
    internal static CatalogAddress Relation(uint oid) => new(Relations, oid, 0);

    /// <summary>The object that it is a part of: the table of a column.</summary>
    internal CatalogAddress Whole => this with { SubId = 0 };
}
