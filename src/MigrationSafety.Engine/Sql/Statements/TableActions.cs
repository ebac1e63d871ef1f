namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>Parses the actions of ALTER TABLE.</summary>
internal static class TableActions
{
    /// <summary>Parses one action.</summary>
    internal static TableAction? Read(SqlReader r)
    {
        switch (r.Word())
        {
            case "add":
                return Add(r);
            case "alter":
                r.Skip();
                return Alter(r);
            case "drop":
                r.Skip();
                return r.Take("constraint") ? new DropConstraint(r.TakeIfExists(), r.Name(), r.TakeCascade()) : DropColumn(r);
            case "validate":
                r.Expect("validate", "constraint");
                return new ValidateConstraint(r.Name());
            case "enable" or "disable":
                return Switch(r, r.OneOf("enable", "disable") == "enable");
            case "force":
                return RowSecurity(r, new SetRowSecurity(null, true));
            case "no" when r.Sees("no", "force"):
                r.Skip();
                return RowSecurity(r, new SetRowSecurity(null, false));
            case "no" or "inherit":
                bool inherit = !r.Take("no");
                r.Expect("inherit");
                return new SetInherit(r.Qualified(), inherit);
            case "of":
                r.Skip();
                return new SetOfType(r.Qualified());
            case "not":
                r.Expect("not", "of");
                return new SetOfType(null);
            case "owner":
                r.Expect("owner", "to");
                return new SetTableOwner(r.Role());
            case "cluster":
                r.Expect("cluster", "on");
                return new SetCluster(r.Name());
            case "replica":
                return ReplicaIdentity(r);
            case "attach":
                r.Expect("attach", "partition");
                return new AttachPartition(r.Qualified(), r.Sees("for") || r.Sees("default") ? CreateTable.ReadBound(r) : null);
            case "detach":
                r.Expect("detach", "partition");
                return new DetachPartition(r.Qualified(), r.Take("concurrently"), r.Take("finalize"));
            case "options":
                return new SetForeignOptions(SqlOption.ReadForeign(r));
            case "reset":
                r.Skip();
                return new SetStorageParameters(SqlOption.ReadList(r), true);
            case "set":
                r.Skip();
                return Set(r);
            default:
                return r.Fail<TableAction>();
        }
    }

    private static TableAction? Add(SqlReader r)
    {
        r.Expect("add");
        if (TableConstraint.IsNext(r))
        {
            return TableConstraint.Read(r) is { } constraint ? new AddConstraint(constraint) : null;
        }

        TakeColumnWord(r);
        bool ifNotExists = r.TakeIfNotExists();
        return new AddColumn(ifNotExists, ColumnDefinition.Read(r));
    }

    private static DropColumn DropColumn(SqlReader r)
    {
        TakeColumnWord(r);
        return new DropColumn(r.TakeIfExists(), r.Name(), r.TakeCascade());
    }

    // COLUMN is reserved, so it is never the column's name.
    private static void TakeColumnWord(SqlReader r) => r.Take("column");

    private static TableAction? Alter(SqlReader r)
    {
        if (r.Take("constraint"))
        {
            return new AlterConstraint(r.Name(), ConstraintTraits.Read(r));
        }

        TakeColumnWord(r);
        string column = r.Kind == SqlTokenKind.Number ? r.Number() : r.Name();
        if (r.Take("drop"))
        {
            return r.Take("default") ? new SetDefault(column, null)
                : r.Take("not", "null") ? new SetNotNull(column, false)
                : r.Take("expression") ? new SetExpression(column, null, r.TakeIfExists())
                : r.Take("identity") ? new DropIdentity(column, r.TakeIfExists())
                : r.Fail<TableAction>();
        }

        if (r.Take("add", "generated"))
        {
            bool always = r.Take("always") || !r.Take("by", "default") && r.Fail<bool>();
            r.Expect("as", "identity");
            return new AddIdentity(column, new IdentityColumn(always, r.SeesMark("(") ? SequenceOption.ReadInParentheses(r) : []));
        }

        if (r.Sees("restart") || (r.Sees("set") && IsIdentityOption(r)))
        {
            return Identity(r, column);
        }

        if (r.Sees("type") || r.Sees("set", "data"))
        {
            r.Take("set", "data");
            r.Expect("type");
            TypeName type = TypeName.Read(r);
            QualifiedName? collation = r.Take("collate") ? r.Qualified() : null;
            return new AlterColumnType(column, type, collation, r.Take("using") ? r.Until(",") : null, r.TakeCascade());
        }

        if (r.Sees("options"))
        {
            return Setting(r, column, ColumnSetting.ForeignOptions, r => SqlOption.ReadForeign(r));
        }

        if (r.Take("reset"))
        {
            return Setting(r, column, ColumnSetting.ResetOptions, r => SqlOption.ReadList(r));
        }

        r.Expect("set");
        return r.Take("default") ? new SetDefault(column, r.Until(","))
            : r.Take("not", "null") ? new SetNotNull(column, true)
            : r.Take("expression", "as") ? new SetExpression(column, r.Parenthesized(), false)
            : r.Take("statistics") ? Setting(r, column, ColumnSetting.Statistics, r => _ = r.Take("default") ? "" : r.Number())
            : r.Take("storage") ? Setting(r, column, ColumnSetting.Storage, r => r.Label())
            : r.Take("compression") ? Setting(r, column, ColumnSetting.Compression, r => r.Label())
            : r.SeesMark("(") ? Setting(r, column, ColumnSetting.Options, r => SqlOption.ReadList(r))
            : r.Fail<TableAction>();
    }

    private static SetColumn Setting(SqlReader r, string column, ColumnSetting setting, Action<SqlReader> value)
    {
        int start = r.At;
        value(r);
        return new SetColumn(column, setting, r.From(start));
    }

    private static bool IsIdentityOption(SqlReader r)
    {
        SqlReader ahead = r.Clone();
        ahead.Skip();
        return ahead.Sees("generated") || SequenceOption.IsNext(ahead);
    }

    private static AlterIdentity Identity(SqlReader r, string column)
    {
        bool? always = null;
        List<SequenceOption> options = [];
        while (r.Sees("restart") || r.Sees("set"))
        {
            r.Take("set");
            if (r.Take("generated"))
            {
                always = r.Take("always") || !r.Take("by", "default") && r.Fail<bool>();
            }
            else
            {
                options.Add(SequenceOption.Read(r));
            }
        }

        return new AlterIdentity(column, always, options);
    }

    private static TableAction? Switch(SqlReader r, bool enable)
    {
        if (r.Take("row", "level", "security"))
        {
            return new SetRowSecurity(enable, null);
        }

        string? mode = enable ? r.TakeOneOf("always", "replica") : null;
        if (r.Take("rule"))
        {
            return new SwitchTrigger(true, r.Name(), null, enable, mode);
        }

        r.Expect("trigger");
        return r.TakeOneOf("all", "user") is { } all ? new SwitchTrigger(false, null, all, enable, mode) : new SwitchTrigger(false, r.Name(), null, enable, mode);
    }

    private static SetRowSecurity RowSecurity(SqlReader r, SetRowSecurity action)
    {
        r.Expect("force", "row");
        r.Expect("level", "security");
        return action;
    }

    private static SetReplicaIdentity ReplicaIdentity(SqlReader r)
    {
        r.Expect("replica", "identity");
        return r.Take("using", "index") ? new SetReplicaIdentity("index", r.Name()) : new SetReplicaIdentity(r.OneOf("default", "full", "nothing"), null);
    }

    private static TableAction? Set(SqlReader r) =>
        r.SeesMark("(") ? new SetStorageParameters(SqlOption.ReadList(r), false)
        : r.Take("logged") ? new SetLogged(true)
        : r.Take("unlogged") ? new SetLogged(false)
        : r.Take("without", "cluster") ? new SetCluster(null)
        : r.Take("without", "oids") ? new SetWithoutOids()
        : r.Take("tablespace") ? new SetTablespace(r.Name())
        : r.Take("access", "method") ? new SetAccessMethod(r.Take("default") ? null : r.Name())
        : r.Fail<TableAction>();
}
