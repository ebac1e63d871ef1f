namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>Parses CREATE.</summary>
internal static class CreateStatements
{
    internal static ParsedStatement? Read(SqlReader r)
    {
        r.Expect("create");
        bool replace = r.Take("or", "replace");
        bool scoped = r.TakeOneOf("global", "local") is not null;
        Persistence persistence = r.TakeOneOf("temporary", "temp") is not null ? Persistence.Temporary : !scoped && r.Take("unlogged") ? Persistence.Unlogged : Persistence.Permanent;
        if (persistence != Persistence.Permanent || scoped)
        {
            return Relation(r, replace, persistence);
        }

        if (r.Take("unique"))
        {
            r.Expect("index");
            return CreateIndex.Read(r, true);
        }

        if (r.Take("constraint", "trigger"))
        {
            return TriggerStatements.ReadCreate(r, replace, true);
        }

        if (r.Take("default", "conversion"))
        {
            return CreateConversion.Read(r, true);
        }

        bool trusted = r.Take("trusted");
        if (trusted || r.Sees("procedural") || r.Sees("language"))
        {
            r.Take("procedural");
            r.Expect("language");
            return CreateLanguage.Read(r, replace, trusted);
        }

        if (r.Sees("table") || r.Sees("sequence") || r.Sees("view") || r.Sees("recursive"))
        {
            return Relation(r, replace, persistence);
        }

        bool login = r.Sees("user");
        return ObjectKinds.Take(r) is { } kind ? OfKind(r, kind, replace, login) : r.Fail<ParsedStatement>();
    }

    private static ParsedStatement? Relation(SqlReader r, bool replace, Persistence persistence)
    {
        bool recursive = r.Take("recursive");
        return r.Take("view") ? CreateView.Read(r, replace, persistence, recursive)
            : recursive || replace ? r.Fail<ParsedStatement>()
            : r.Take("table") ? CreateTable.Read(r, persistence, foreign: false)
            : r.Take("sequence") ? CreateSequence.Read(r, persistence)
            : r.Take("materialized", "view") ? MaterializedView(r, persistence)
            : r.Fail<ParsedStatement>();
    }

    private static CreateTableAs MaterializedView(SqlReader r, Persistence persistence)
    {
        bool ifNotExists = r.TakeIfNotExists();
        QualifiedName name = r.Qualified();
        return CreateTableAs.Read(r, ObjectKind.MaterializedView, name, persistence, ifNotExists);
    }

    private static ParsedStatement? OfKind(SqlReader r, ObjectKind kind, bool replace, bool login) => kind switch
    {
        ObjectKind.Index => CreateIndex.Read(r, false),
        ObjectKind.MaterializedView => MaterializedView(r, Persistence.Permanent),
        ObjectKind.ForeignTable => CreateTable.Read(r, Persistence.Permanent, foreign: true),
        ObjectKind.Function or ObjectKind.Procedure => CreateRoutine.Read(r, kind, replace),
        ObjectKind.Trigger => TriggerStatements.ReadCreate(r, replace, false),
        ObjectKind.EventTrigger => TriggerStatements.ReadCreateEvent(r),
        ObjectKind.Rule => CreateRule.Read(r, replace),
        ObjectKind.Policy => CreatePolicy.Read(r),
        ObjectKind.Type => TypeStatements.ReadCreate(r),
        ObjectKind.Domain => CreateDomain.Read(r),
        ObjectKind.Schema => CreateSchema.Read(r),
        ObjectKind.Extension => ExtensionStatements.ReadCreate(r),
        ObjectKind.Role => RoleStatements.ReadCreate(r, login),
        ObjectKind.UserMapping => ForeignStatements.ReadCreateMapping(r),
        ObjectKind.Database => DatabaseStatements.ReadCreate(r),
        ObjectKind.Tablespace => CreateTablespace.Read(r),
        ObjectKind.Aggregate or ObjectKind.Operator or ObjectKind.Collation or ObjectKind.TextSearchConfiguration or ObjectKind.TextSearchDictionary
            or ObjectKind.TextSearchParser or ObjectKind.TextSearchTemplate => Define.Read(r, kind, replace),
        ObjectKind.OperatorClass => OperatorClassStatements.ReadCreateClass(r),
        ObjectKind.OperatorFamily => OperatorClassStatements.ReadCreateFamily(r),
        ObjectKind.ForeignDataWrapper => ForeignStatements.ReadCreateWrapper(r),
        ObjectKind.Server => ForeignStatements.ReadCreateServer(r),
        ObjectKind.Conversion => CreateConversion.Read(r, false),
        ObjectKind.Cast => CreateCast.Read(r),
        ObjectKind.Transform => CreateTransform.Read(r, replace),
        ObjectKind.AccessMethod => CreateAccessMethod.Read(r),
        ObjectKind.Publication => PublicationStatements.ReadCreate(r),
        ObjectKind.Subscription => SubscriptionStatements.ReadCreate(r),
        ObjectKind.Statistics => CreateStatistics.Read(r),
        _ => r.Fail<ParsedStatement>(),
    };
}
