using System.Text.RegularExpressions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>How SQL names an object, and how the catalogs find it by that name.</summary>
internal static class ObjectNames
{
    // Catalog, its column of the name, and that of the schema where its names have one.
    private static readonly Dictionary<ObjectKind, (string Catalog, string Name, string? Schema)> s_plain = new()
    {
        [ObjectKind.AccessMethod] = ("pg_am", "amname", null),
        [ObjectKind.Collation] = ("pg_collation", "collname", "collnamespace"),
        [ObjectKind.Conversion] = ("pg_conversion", "conname", "connamespace"),
        [ObjectKind.Database] = ("pg_database", "datname", null),
        [ObjectKind.EventTrigger] = ("pg_event_trigger", "evtname", null),
        [ObjectKind.Extension] = ("pg_extension", "extname", null),
        [ObjectKind.ForeignDataWrapper] = ("pg_foreign_data_wrapper", "fdwname", null),
        [ObjectKind.Language] = ("pg_language", "lanname", null),
        [ObjectKind.Publication] = ("pg_publication", "pubname", null),
        [ObjectKind.Role] = ("pg_roles", "rolname", null),
        [ObjectKind.Schema] = ("pg_namespace", "nspname", null),
        [ObjectKind.Server] = ("pg_foreign_server", "srvname", null),
        [ObjectKind.Statistics] = ("pg_statistic_ext", "stxname", "stxnamespace"),
        [ObjectKind.Subscription] = ("pg_subscription", "subname", null),
        [ObjectKind.Tablespace] = ("pg_tablespace", "spcname", null),
        [ObjectKind.TextSearchConfiguration] = ("pg_ts_config", "cfgname", "cfgnamespace"),
        [ObjectKind.TextSearchDictionary] = ("pg_ts_dict", "dictname", "dictnamespace"),
        [ObjectKind.TextSearchParser] = ("pg_ts_parser", "prsname", "prsnamespace"),
        [ObjectKind.TextSearchTemplate] = ("pg_ts_template", "tmplname", "tmplnamespace"),
    };

    /// <summary>Kinds whose names exclude each other are one kind.</summary>
    internal static ObjectKind Space(this ObjectKind kind) =>
        kind.IsRelation() ? ObjectKind.Table : kind.IsRoutine() ? ObjectKind.Function : kind == ObjectKind.Domain ? ObjectKind.Type : kind;

    /// <summary>Whether names of the kind have a schema.</summary>
    internal static bool HasSchema(this ObjectKind kind) =>
        kind.Space() is ObjectKind.Table or ObjectKind.Type or ObjectKind.Function or ObjectKind.Operator or ObjectKind.OperatorClass or ObjectKind.OperatorFamily
        || (s_plain.TryGetValue(kind, out (string, string, string? Schema) plain) && plain.Schema is not null);

    /// <summary>The object as DROP and ALTER write it behind the words of its kind.</summary>
    internal static string Identity(this ObjectReference o) => o.Kind switch
    {
        ObjectKind.Trigger or ObjectKind.Rule or ObjectKind.Policy => $"{o.Name} on {o.On}",
        ObjectKind.Column => $"{o.On}.{o.Name}",
        ObjectKind.OperatorClass or ObjectKind.OperatorFamily => $"{o.Name} using {SqlName.QuoteIfNeeded(o.Using!)}",
        ObjectKind.Operator => $"{OperatorName(o.Name)} ({o.Arguments?.Text})",
        ObjectKind.Cast => $"({TypeText(o.Name)} as {o.Using})",
        ObjectKind.Transform => $"for {TypeText(o.Name)} language {o.On}",
        ObjectKind.UserMapping => $"for {(o.Name.Name is "current_user" or "current_role" or "session_user" or "public" ? o.Name.Name : o.Name.ToString())} server {o.On}",
        ObjectKind.LargeObject => o.Name.Name,
        ObjectKind.Role => Role(o.Name.Name),
        { } kind when kind.IsRoutine() => $"{o.Name}{(o.Arguments is { } arguments ? $"({(kind == ObjectKind.Aggregate ? arguments.Text : InputTypes(arguments))})" : "")}",
        _ => o.Name.ToString(),
    };

    /// <summary>A role as SQL; the words that stand for a role are kept.</summary>
    internal static string Role(string name) => name is "current_user" or "current_role" or "session_user" or "public" ? name : SqlName.QuoteIfNeeded(name);

    /// <summary>DROP ... IF EXISTS.</summary>
    internal static string Drop(this ObjectReference o) => $"drop {Words(o.Kind)} if exists {o.Identity()}";

    /// <summary>The words of a kind, as in CREATE and DROP.</summary>
    internal static string Words(this ObjectKind kind) => kind.TagWords().ToLowerInvariant();

    /// <summary>The types of the arguments that identify a routine: those that go in.</summary>
    internal static string InputTypes(SqlFragment arguments) => string.Join(", ", Inputs(arguments).Select(t => t.ToString()));

    /// <summary>The same in one way of writing them.</summary>
    internal static string NormalTypes(SqlFragment arguments) => string.Join(",", Inputs(arguments).Select(t => t.Name + (t.ArrayDimensions > 0 ? "[]" : "")));

    /// <summary>A reference from the words that follow a kind in DROP.</summary>
    internal static ObjectReference Parse(ObjectKind kind, string identity) => ObjectReference.Read(new SqlReader(SqlScript.Parse(identity, psql: false).Statements[0]), kind);

    private static IEnumerable<TypeName> Inputs(SqlFragment arguments)
    {
        if (arguments.Text.Contains('*', StringComparison.Ordinal))
        {
            return [];
        }

        // ORDER BY of an ordered-set aggregate separates arguments as a comma does.
        string text = Regex.Replace(arguments.Text, @"^\s*order\s+by\b", "", RegexOptions.IgnoreCase);
        text = Regex.Replace(text, @"\border\s+by\b", ",", RegexOptions.IgnoreCase);
        return RoutineArgument.ReadList(new SqlReader(SqlScript.Parse($"({text})", psql: false).Statements[0])).Where(a => a.Mode != "out").Select(a => a.Type);
    }

    /// <summary>A condition that is true where the object is there.</summary>
    internal static string Exists(this ObjectReference o)
    {
        if (o.Kind == ObjectKind.Column)
        {
            return $"exists (select from pg_catalog.pg_attribute where attrelid = to_regclass({SqlName.Literal(o.On!.ToString())}) and attname = {SqlName.Literal(o.Name.Name)} and not attisdropped)";
        }

        string oid = Find(o).Oid;
        return oid.StartsWith("(select ", StringComparison.Ordinal) ? "exists " + oid : $"{oid} is not null";
    }

    /// <summary>A condition that is true where the object is not there.</summary>
    internal static string Missing(this ObjectReference o)
    {
        string exists = o.Exists();
        return exists.StartsWith("exists ", StringComparison.Ordinal) ? "not " + exists : exists[..^" is not null".Length] + " is null";
    }

    /// <summary>Catalog, oid and number of an object as SQL; the oid, or for a column the number, is null where it is not there.</summary>
    internal static (string Class, string Oid, string Sub) Find(this ObjectReference o)
    {
        string name = SqlName.Literal(o.Name.Name);
        string on = SqlName.Literal(o.On?.ToString() ?? "");
        switch (o.Kind)
        {
            case ObjectKind.Column:
                return ("pg_class", $"to_regclass({on})", $"(select attnum::int4 from pg_catalog.pg_attribute where attrelid = to_regclass({on}) and attname = {name} and not attisdropped)");
            case ObjectKind.Constraint:
                return ("pg_constraint", $"(select oid from pg_catalog.pg_constraint where conname = {name} and (conrelid = to_regclass({on}) or contypid = to_regtype({on})))", "0");
            case ObjectKind.Trigger:
                return ("pg_trigger", $"(select oid from pg_catalog.pg_trigger where tgname = {name} and tgrelid = to_regclass({on}))", "0");
            case ObjectKind.Rule:
                return ("pg_rewrite", $"(select oid from pg_catalog.pg_rewrite where rulename = {name} and ev_class = to_regclass({on}))", "0");
            case ObjectKind.Policy:
                return ("pg_policy", $"(select oid from pg_catalog.pg_policy where polname = {name} and polrelid = to_regclass({on}))", "0");
            case ObjectKind.Type or ObjectKind.Domain:
                return ("pg_type", $"to_regtype({SqlName.Literal(TypeText(o.Name))})", "0");
            case ObjectKind.Operator:
                return ("pg_operator", $"to_regoperator({SqlName.Literal($"{OperatorName(o.Name)}({o.Arguments?.Text})")})", "0");
            case ObjectKind.OperatorClass:
                return ("pg_opclass", $"(select c.oid from pg_catalog.pg_opclass c join pg_catalog.pg_am a on a.oid = c.opcmethod where opcname = {name} and amname = {SqlName.Literal(o.Using!)}{In("opcnamespace", o.Name)})", "0");
            case ObjectKind.OperatorFamily:
                return ("pg_opfamily", $"(select f.oid from pg_catalog.pg_opfamily f join pg_catalog.pg_am a on a.oid = f.opfmethod where opfname = {name} and amname = {SqlName.Literal(o.Using!)}{In("opfnamespace", o.Name)})", "0");
            case ObjectKind.Cast:
                return ("pg_cast", $"(select oid from pg_catalog.pg_cast where castsource = to_regtype({SqlName.Literal(TypeText(o.Name))}) and casttarget = to_regtype({SqlName.Literal(o.Using!)}))", "0");
            case ObjectKind.Transform:
                return ("pg_transform", $"(select t.oid from pg_catalog.pg_transform t join pg_catalog.pg_language l on l.oid = t.trflang where trftype = to_regtype({SqlName.Literal(TypeText(o.Name))}) and lanname = {SqlName.Literal(o.On!.Name)})", "0");
            case ObjectKind.UserMapping:
                string user = o.Name.Name is "current_user" or "current_role" or "session_user" ? o.Name.Name : name;
                return ("pg_user_mapping", $"(select umid from pg_catalog.pg_user_mappings where srvname = {SqlName.Literal(o.On!.Name)} and usename = {user})", "0");
            case ObjectKind.LargeObject:
                return ("pg_largeobject", $"(select oid from pg_catalog.pg_largeobject_metadata where oid = {o.Name.Name})", "0");
            case { } kind when kind.IsRelation():
                return ("pg_class", $"to_regclass({SqlName.Literal(o.Name.ToString())})", "0");
            case { } kind when kind.IsRoutine():
                return ("pg_proc", o.Arguments is { } arguments
                    ? $"to_regprocedure({SqlName.Literal($"{o.Name}({InputTypes(arguments)})")})"
                    : $"(select min(oid) from pg_catalog.pg_proc where proname = {name}{In("pronamespace", o.Name)} having count(*) = 1)", "0");
            default:
                (string catalog, string column, string? schema) = s_plain[o.Kind];
                return (catalog == "pg_roles" ? "pg_authid" : catalog, $"(select oid from pg_catalog.{catalog} where {column} = {name}{(schema is null ? "" : In(schema, o.Name))})", "0");
        }
    }

    /// <summary>Whether objects of the kind can be found by name.</summary>
    internal static bool CanBeFound(ObjectKind kind) => kind != ObjectKind.Parameter;

    /// <summary>A type's name as the parser keeps it: that of %TYPE has dots inside its schema.</summary>
    internal static string TypeText(QualifiedName type) => type.ToString();

    // An operator is never quoted.
    private static string OperatorName(QualifiedName name) => name.Schema is null ? name.Name : $"{SqlName.QuoteIfNeeded(name.Schema)}.{name.Name}";

    private static string In(string column, QualifiedName name) => name.Schema is { } schema
        ? $" and {column} = to_regnamespace({SqlName.Literal(SqlName.QuoteIfNeeded(schema))})"
        : $" and {column} = any (array(select to_regnamespace(quote_ident(s)) from unnest(current_schemas(true)) as s))";
}
