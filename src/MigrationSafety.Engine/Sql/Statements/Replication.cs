namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>What a publication publishes: a table, or all tables of a schema.</summary>
/// <param name="Table">Table; null where a schema is meant.</param>
/// <param name="Schema">Schema; null where a table is meant; <c>current_schema</c> as it is written.</param>
/// <param name="Columns">Columns of the table; empty for all.</param>
/// <param name="Predicate">WHERE.</param>
internal sealed record PublishedObject(QualifiedName? Table, string? Schema, IReadOnlyList<string> Columns, SqlFragment? Predicate)
{
    /// <summary>TABLE and TABLES IN SCHEMA lists; an item without either is of the kind before it.</summary>
    internal static IReadOnlyList<PublishedObject> ReadList(SqlReader r)
    {
        bool schema = false;
        return r.List(r =>
        {
            schema = r.Take("tables", "in", "schema") || (!r.Take("table") && schema);
            if (schema)
            {
                return new PublishedObject(null, r.Take("current_schema") ? "current_schema" : r.Name(), [], null);
            }

            QualifiedName table = r.Relation();
            return new PublishedObject(table, null, r.SeesMark("(") ? r.Names() : [], r.Take("where") ? r.Parenthesized() : null);
        });
    }
}

/// <summary>CREATE PUBLICATION.</summary>
internal sealed record CreatePublication(string Name, bool AllTables, IReadOnlyList<PublishedObject> Objects, IReadOnlyList<SqlOption> Options) : ParsedStatement("CREATE PUBLICATION")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>ALTER PUBLICATION.</summary>
/// <param name="Name">Name.</param>
/// <param name="Action">add, set, drop; options for SET (...).</param>
/// <param name="Objects">Objects.</param>
/// <param name="Options">Options.</param>
internal sealed record AlterPublication(string Name, string Action, IReadOnlyList<PublishedObject> Objects, IReadOnlyList<SqlOption> Options) : ParsedStatement("ALTER PUBLICATION")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>CREATE SUBSCRIPTION.</summary>
internal sealed record CreateSubscription(string Name, string Connection, IReadOnlyList<string> Publications, IReadOnlyList<SqlOption> Options) : ParsedStatement("CREATE SUBSCRIPTION")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>ALTER SUBSCRIPTION.</summary>
/// <param name="Name">Name.</param>
/// <param name="Action">connection, set, add, drop, refresh, enable, disable, options, skip.</param>
/// <param name="Value">The connection string, the publications.</param>
/// <param name="Options">Options.</param>
internal sealed record AlterSubscription(string Name, string Action, SqlFragment Value, IReadOnlyList<SqlOption> Options) : ParsedStatement("ALTER SUBSCRIPTION")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>Parses publications.</summary>
internal static class PublicationStatements
{
    internal static CreatePublication ReadCreate(SqlReader r)
    {
        string name = r.Name();
        bool all = r.Take("for", "all", "tables");
        IReadOnlyList<PublishedObject> objects = !all && r.Take("for") ? PublishedObject.ReadList(r) : [];
        return new CreatePublication(name, all, objects, SqlOption.ReadOptional(r, "with"));
    }

    internal static AlterPublication ReadAlter(SqlReader r, ObjectReference name)
    {
        string action = r.OneOf("add", "set", "drop");
        return r.SeesMark("(")
            ? new AlterPublication(name.Name.Name, "options", [], SqlOption.ReadList(r))
            : new AlterPublication(name.Name.Name, action, PublishedObject.ReadList(r), []);
    }
}

/// <summary>Parses subscriptions.</summary>
internal static class SubscriptionStatements
{
    internal static CreateSubscription ReadCreate(SqlReader r)
    {
        string name = r.Name();
        r.Expect("connection");
        string connection = r.Literal();
        r.Expect("publication");
        return new CreateSubscription(name, connection, r.List(r => r.Label()), SqlOption.ReadOptional(r, "with"));
    }

    internal static AlterSubscription ReadAlter(SqlReader r, ObjectReference name)
    {
        string subscription = name.Name.Name;
        int start = r.At + 1;
        string action = r.OneOf("connection", "set", "add", "drop", "refresh", "enable", "disable", "skip");
        switch (action)
        {
            case "connection":
                r.Literal();
                break;
            case "set" or "skip" when r.SeesMark("("):
                return new AlterSubscription(subscription, action == "skip" ? action : "options", r.From(start), SqlOption.ReadList(r));
            case "set" or "add" or "drop":
                r.Expect("publication");
                start = r.At;
                r.List(r => r.Label());
                break;
            case "refresh":
                r.Expect("publication");
                start = r.At;
                break;
        }

        return new AlterSubscription(subscription, action, r.From(start), SqlOption.ReadOptional(r, "with"));
    }
}
