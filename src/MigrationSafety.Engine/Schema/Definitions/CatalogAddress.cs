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

    internal const uint Policies = 3256;

    internal const uint Statistics = 3381;

    internal const uint Extensions = 3079;

    internal const uint Operators = 2617;

    internal const uint OperatorClasses = 2616;

    internal const uint OperatorFamilies = 2753;

    internal const uint Casts = 2605;

    internal const uint Conversions = 2607;

    internal const uint Transforms = 3576;

    internal const uint TextSearchConfigurations = 3602;

    internal const uint TextSearchDictionaries = 3600;

    internal const uint TextSearchParsers = 3601;

    internal const uint TextSearchTemplates = 3764;

    internal const uint Collations = 3456;

    internal const uint Languages = 2612;

    internal const uint AccessMethods = 2601;

    internal const uint ForeignDataWrappers = 2328;

    internal const uint ForeignServers = 1417;

    internal const uint UserMappings = 1418;

    internal const uint EventTriggers = 3466;

    internal const uint Publications = 6104;

    internal const uint PublishedTables = 6106;

    internal const uint PublishedSchemas = 6237;

    internal const uint Subscriptions = 6100;

    internal const uint DefaultPrivileges = 826;

    /// <summary>A relation.</summary>
    /// <param name="oid">Its oid.</param>
    internal static CatalogAddress Relation(uint oid) => new(Relations, oid, 0);

    /// <summary>The object that it is a part of: the table of a column.</summary>
    internal CatalogAddress Whole => this with { SubId = 0 };
}
