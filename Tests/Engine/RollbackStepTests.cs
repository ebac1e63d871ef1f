using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Rollback;
using MigrationSafety.Tests.Engine.Support;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Rollbacks of steps that ran.</summary>
public sealed class RollbackStepTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task Steps_that_ran_are_taken_back_and_back_again(int major)
    {
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
        string before = await bench.SnapshotAsync();
        MigrationStep[] steps =
        [
            new()
            {
                Sql = "create index concurrently orders_s on orders (total)", Purpose = "build", Transactional = false, LockMode = TableLockMode.ShareUpdateExclusive,
                Objects = ["public.orders"], Reversal = "drop index concurrently if exists orders_s",
            },
            new()
            {
                Sql = "alter table orders add column s bigint references customers", Purpose = "add", LockMode = TableLockMode.AccessExclusive, Objects = ["public.orders"],
                Reversal = "alter table orders drop column if exists s", Reversibility = Reversibility.ReversibleWithDataLoss, ReversalNote = "Values are lost.",
            },
        ];
        ExecutionOptions options = new();
        IReadOnlyList<MigrationStep> done;
        await using (StepExecutor executor = await StepExecutor.OpenAsync(bench.Session, options, bench.Sink, Token))
        {
            done = await executor.RunAsync(steps, "test", Token);
        }

        string after = await bench.SnapshotAsync();
        RollbackScript rollback = RollbackGenerator.FromSteps("test", done);
        Assert.Equal(Reversibility.ReversibleWithDataLoss, rollback.Reversibility);
        Assert.Equal([TableLockMode.AccessExclusive, TableLockMode.ShareUpdateExclusive], rollback.Statements.Select(s => s.LockMode));
        Assert.Equal([true, false], rollback.Statements.Select(s => s.Transactional));

        // Once by psql, once by the executor; and what the executor took back is put back by the reversals of its own steps.
        await bench.RunAsync(rollback.Text, "steps");
        Assert.Equal(before, await bench.SnapshotAsync());
        await using (StepExecutor executor = await StepExecutor.OpenAsync(bench.Session, options, bench.Sink, Token))
        {
            await executor.RunAsync(steps, "test", Token);
            IReadOnlyList<MigrationStep> undone = await executor.RunAsync(RollbackGenerator.ToSteps(rollback), "rollback", Token);
            Assert.Equal(before, await bench.SnapshotAsync());
            await bench.RunAsync(RollbackGenerator.FromSteps("rollback", undone).Text, "rollback of the rollback");
        }

        Assert.Equal(after, await bench.SnapshotAsync());
    }

    [Theory]
    [InlineData(StepState.Skipped, true, Reversibility.Unknown)]
    [InlineData(StepState.Planned, true, Reversibility.NotNeeded)]
    [InlineData(StepState.Failed, true, Reversibility.NotNeeded)]
    [InlineData(StepState.Failed, false, Reversibility.Reversible)]
    [InlineData(StepState.Done, true, Reversibility.Reversible)]
    public void Steps_are_taken_back_if_they_may_have_left_something(StepState state, bool transactional, Reversibility expected)
    {
        MigrationStep step = new() { Sql = "create index i on t (a)", Purpose = "p", State = state, Transactional = transactional, Reversal = "drop index i" };
        Assert.Equal(expected, RollbackGenerator.FromSteps("x", [step]).Reversibility);
        Assert.Equal(expected == Reversibility.Reversible ? 1 : 0, RollbackGenerator.ToSteps(RollbackGenerator.FromSteps("x", [step])).Count);
    }

    [Fact]
    public void A_step_without_reversal_is_said_to_have_none()
    {
        MigrationStep none = new() { Sql = "vacuum t", Purpose = "p", State = StepState.Done };
        MigrationStep lost = new() { Sql = "update t set a = 1", Purpose = "p", State = StepState.Done, Reversibility = Reversibility.Irreversible, ReversalNote = "Values are gone." };
        RollbackScript rollback = RollbackGenerator.FromSteps("x", [none, lost]);
        Assert.Equal([Reversibility.Irreversible, Reversibility.Unknown], rollback.Statements.Select(s => s.Reversibility));
        Assert.Contains("-- NOT REVERSED (irreversible): update t set a = 1\n-- Values are gone.\n", rollback.Text, StringComparison.Ordinal);
        Assert.Empty(RollbackGenerator.ToSteps(rollback));
    }
}
