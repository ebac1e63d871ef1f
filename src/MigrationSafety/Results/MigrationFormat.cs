namespace MigrationSafety;

/// <summary>Tools whose migration files are read.</summary>
public enum MigrationFormat
{
    /// <summary>Told from the file's marks, name and folder.</summary>
    Auto,

    /// <summary>A script for psql.</summary>
    Plain,

    /// <summary>dbmate: <c>-- migrate:up</c> and <c>-- migrate:down</c> in one file.</summary>
    Dbmate,

    /// <summary>golang-migrate: <c>1_name.up.sql</c> and <c>1_name.down.sql</c>.</summary>
    GolangMigrate,

    /// <summary>goose: <c>-- +goose Up</c> and <c>-- +goose Down</c> in one file.</summary>
    Goose,

    /// <summary>Flyway: <c>V1__name.sql</c>, <c>R__name.sql</c> and their undo, <c>U1__name.sql</c>.</summary>
    Flyway,

    /// <summary>Liquibase's formatted SQL: changesets with <c>--rollback</c> lines.</summary>
    Liquibase,

    /// <summary>Sqitch: <c>deploy/name.sql</c> and <c>revert/name.sql</c>.</summary>
    Sqitch,

    /// <summary>Prisma: <c>20240101000000_name/migration.sql</c>, with a <c>down.sql</c> beside it where somebody keeps one.</summary>
    Prisma,

    /// <summary>Drizzle: statements parted by <c>--> statement-breakpoint</c>.</summary>
    Drizzle,

    /// <summary>A script of Entity Framework Core's <c>dotnet ef migrations script</c>, idempotent or not.</summary>
    EntityFramework,

    /// <summary>DbUp. Its scripts carry no mark: name it.</summary>
    DbUp,

    /// <summary>Evolve: Flyway's names. A file without one of Evolve's options is taken for Flyway's: name it.</summary>
    Evolve,

    /// <summary>grate and RoundhousE: the folders up, views, sprocs, permissions and so on.</summary>
    Grate,
}

/// <summary>Layouts in which a rollback is written.</summary>
public enum RollbackFormat
{
    /// <summary>A script for psql.</summary>
    Plain,

    /// <summary>dbmate: the migration's file, with its down section.</summary>
    Dbmate,

    /// <summary>golang-migrate: <c>1_name.down.sql</c>.</summary>
    GolangMigrate,

    /// <summary>goose: the migration's file, with its down section.</summary>
    Goose,

    /// <summary>Flyway: <c>U1__name.sql</c>.</summary>
    Flyway,

    /// <summary>Liquibase: the migration's file, with <c>--rollback</c> lines.</summary>
    Liquibase,

    /// <summary>Sqitch: <c>revert/name.sql</c>.</summary>
    Sqitch,
}
