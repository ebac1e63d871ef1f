namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE SCHEMA.</summary>
/// <param name="Name">Name; null where it is that of the role.</param>
/// <param name="IfNotExists">IF NOT EXISTS.</param>
/// <param name="Owner">AUTHORIZATION.</param>
/// <param name="Elements">What is made in it: whole CREATE and GRANT statements without semicolons between them.</param>
internal sealed record CreateSchema(string? Name, bool IfNotExists, string? Owner, SqlFragment Elements) : ParsedStatement("CREATE SCHEMA")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => Name is null ? [] : [new QualifiedName(null, Name)];

    internal static CreateSchema Read(SqlReader r)
    {
        bool ifNotExists = r.TakeIfNotExists();
        string? name = r.Sees("authorization") ? null : r.Name();
        string? owner = r.Take("authorization") ? r.Role() : null;
        if (!r.AtEnd && !r.Sees("create") && !r.Sees("grant"))
        {
            r.Fail();
        }

        return new CreateSchema(name, ifNotExists, owner, r.AtEnd ? r.From(r.At) : r.Remaining());
    }
}
