using MigrationSafety.Engine.Execution;
using MigrationSafety.Tests.Engine.Support;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Statements reach the server as they are.</summary>
public sealed class ExecutorStatementTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task A_body_with_semicolons_is_one_statement_and_several_are_one_transaction(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create table t (id int)");
        await using StepExecutor executor = await StepExecutor.OpenAsync(bench.Session, new ExecutionOptions(), bench.Sink, Token);
        await executor.RunAsync(
            [
                new MigrationStep { Sql = "create function f(x int) returns int language sql begin atomic select x; select x + 1; end", Purpose = "a function" },
                new MigrationStep { Sql = "create procedure p() begin atomic insert into t values (1); insert into t values (2); end; call p(); insert into t select f(2)", Purpose = "several" },
            ],
            "test",
            Token);
        Assert.Equal("1,2,3", await bench.Database.ScalarAsync<string>("select string_agg(id::text, ',' order by id) from t", Token));
        await Assert.ThrowsAsync<MigrationException>(() => executor.RunAsync([new MigrationStep { Sql = "insert into t values (4); insert into nowhere values (5)", Purpose = "one that fails" }], "test", Token));
        Assert.Equal(3L, await bench.Database.ScalarAsync<long>("select count(*) from t", Token));
    }
}
