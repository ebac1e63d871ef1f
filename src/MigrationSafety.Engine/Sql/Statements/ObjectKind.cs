namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>Kinds of things in a database that commands name.</summary>
internal enum ObjectKind
{
    AccessMethod,
    Aggregate,
    Cast,
    Collation,
    Column,
    Constraint,
    Conversion,
    Database,
    Domain,
    EventTrigger,
    Extension,
    ForeignDataWrapper,
    ForeignTable,
    Function,
    Index,
    Language,
    LargeObject,
    MaterializedView,
    Operator,
    OperatorClass,
    OperatorFamily,
    Parameter,
    Policy,
    Procedure,
    Publication,
    Role,
    Routine,
    Rule,
    Schema,
    Sequence,
    Server,
    Statistics,
    Subscription,
    Table,
    Tablespace,
    TextSearchConfiguration,
    TextSearchDictionary,
    TextSearchParser,
    TextSearchTemplate,
    Transform,
    Trigger,
    Type,
    UserMapping,
    View,
}

/// <summary>The words of kinds of objects.</summary>
internal static class ObjectKinds
{
    // The longer of two that begin alike comes first; the first words of a kind are those of its command tags.
    private static readonly (ObjectKind Kind, string[] Words)[] s_words =
    [
        (ObjectKind.Table, ["table"]),
        (ObjectKind.Index, ["index"]),
        (ObjectKind.View, ["view"]),
        (ObjectKind.MaterializedView, ["materialized", "view"]),
        (ObjectKind.Sequence, ["sequence"]),
        (ObjectKind.Function, ["function"]),
        (ObjectKind.Procedure, ["procedure"]),
        (ObjectKind.Routine, ["routine"]),
        (ObjectKind.Trigger, ["trigger"]),
        (ObjectKind.Type, ["type"]),
        (ObjectKind.Domain, ["domain"]),
        (ObjectKind.Column, ["column"]),
        (ObjectKind.Constraint, ["constraint"]),
        (ObjectKind.Schema, ["schema"]),
        (ObjectKind.Extension, ["extension"]),
        (ObjectKind.Policy, ["policy"]),
        (ObjectKind.Rule, ["rule"]),
        (ObjectKind.Role, ["role"]),
        (ObjectKind.UserMapping, ["user", "mapping"]),
        (ObjectKind.Role, ["user"]),
        (ObjectKind.Role, ["group"]),
        (ObjectKind.Database, ["database"]),
        (ObjectKind.Tablespace, ["tablespace"]),
        (ObjectKind.Aggregate, ["aggregate"]),
        (ObjectKind.OperatorClass, ["operator", "class"]),
        (ObjectKind.OperatorFamily, ["operator", "family"]),
        (ObjectKind.Operator, ["operator"]),
        (ObjectKind.ForeignTable, ["foreign", "table"]),
        (ObjectKind.ForeignDataWrapper, ["foreign", "data", "wrapper"]),
        (ObjectKind.Server, ["server"]),
        (ObjectKind.EventTrigger, ["event", "trigger"]),
        (ObjectKind.Collation, ["collation"]),
        (ObjectKind.Conversion, ["conversion"]),
        (ObjectKind.Cast, ["cast"]),
        (ObjectKind.Publication, ["publication"]),
        (ObjectKind.Subscription, ["subscription"]),
        (ObjectKind.Statistics, ["statistics"]),
        (ObjectKind.TextSearchConfiguration, ["text", "search", "configuration"]),
        (ObjectKind.TextSearchDictionary, ["text", "search", "dictionary"]),
        (ObjectKind.TextSearchParser, ["text", "search", "parser"]),
        (ObjectKind.TextSearchTemplate, ["text", "search", "template"]),
        (ObjectKind.AccessMethod, ["access", "method"]),
        (ObjectKind.Transform, ["transform"]),
        (ObjectKind.Language, ["language"]),
        (ObjectKind.Language, ["procedural", "language"]),
        (ObjectKind.LargeObject, ["large", "object"]),
        (ObjectKind.Parameter, ["parameter"]),
    ];

    private static readonly Dictionary<ObjectKind, string> s_tagWords =
        s_words.GroupBy(w => w.Kind).ToDictionary(g => g.Key, g => string.Join(' ', (g.Key == ObjectKind.Role ? ["role"] : g.First().Words)).ToUpperInvariant());

    /// <summary>The words of a command tag: <c>MATERIALIZED VIEW</c>.</summary>
    internal static string TagWords(this ObjectKind kind) => s_tagWords[kind];

    /// <summary>Whether it is a relation: what ALTER TABLE can be said of.</summary>
    internal static bool IsRelation(this ObjectKind kind) =>
        kind is ObjectKind.Table or ObjectKind.Index or ObjectKind.View or ObjectKind.MaterializedView or ObjectKind.Sequence or ObjectKind.ForeignTable;

    /// <summary>Whether its name comes with the types of its arguments.</summary>
    internal static bool IsRoutine(this ObjectKind kind) =>
        kind is ObjectKind.Function or ObjectKind.Procedure or ObjectKind.Routine or ObjectKind.Aggregate;

    /// <summary>Takes the words of a kind; null where none are next.</summary>
    internal static ObjectKind? Take(SqlReader r)
    {
        foreach ((ObjectKind kind, string[] words) in s_words)
        {
            if (words.Length switch { 1 => r.Take(words[0]), 2 => r.Take(words[0], words[1]), _ => r.Take(words[0], words[1], words[2]) })
            {
                return kind;
            }
        }

        return null;
    }
}
