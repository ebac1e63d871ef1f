using System.Diagnostics;
using System.Globalization;
using System.Text;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Sandbox.Scenarios;

/// <summary>How fast a script is read; without a server.</summary>
internal sealed class SqlScenario : Scenario
{
    private const int Length = 10_000_000;
    private static readonly TimeSpan s_split = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_parse = TimeSpan.FromSeconds(5);

    internal override string Name => "sql";

    internal override string Summary => "a 10 MB script split in under 1 s and parsed in under 5 s; no server";

    internal override Task RunAsync(Bench bench, SandboxOptions options, CancellationToken cancellationToken) => Task.CompletedTask;

    internal override int? RunAlone(Screen screen)
    {
        string text = Script();

        // The first round pays for the compiler; a user's script is read in such a round.
        int code = 0;
        foreach (string round in new[] { "cold", "warm" })
        {
            (SqlScript script, TimeSpan split, TimeSpan splitCpu) = Measure(() => SqlScript.Parse(text));
            (int asText, TimeSpan parse, TimeSpan parseCpu) = Measure(() => script.Statements.Count(s => s.Kind == SqlStatementKind.Sql && StatementParser.Parse(s) is OtherStatement));
            bool held = splitCpu < s_split && parseCpu < s_parse && asText == 0;
            code = held ? code : 1;
            screen.Show(
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"{round}: {text.Length / 1e6:0.0} MB, {script.Statements.Count:N0} statements, split in {split.TotalSeconds:0.00} s (processor {splitCpu.TotalSeconds:0.00} s), parsed in {parse.TotalSeconds:0.00} s (processor {parseCpu.TotalSeconds:0.00} s), {asText} kept as text"),
                held ? "green" : "red");
        }

        return code;
    }

    /// <summary>The time on the clock and that on the processor, by which it is judged: the clock shows what else the machine does.</summary>
    private static (T Result, TimeSpan Clock, TimeSpan Processor) Measure<T>(Func<T> work)
    {
        using Process process = Process.GetCurrentProcess();
        TimeSpan before = process.TotalProcessorTime;
        Stopwatch watch = Stopwatch.StartNew();
        T result = work();
        TimeSpan clock = watch.Elapsed;
        process.Refresh();
        return (result, clock, process.TotalProcessorTime - before);
    }

    /// <summary>What dumps and migrations are made of: tables, functions, rows, changes.</summary>
    private static string Script()
    {
        StringBuilder text = new(Length + 4096);
        for (int i = 0; text.Length < Length; i++)
        {
            text.Append(CultureInfo.InvariantCulture, $$"""
                -- Migration {{i}}; it's "one" of many /* really */
                CREATE TABLE IF NOT EXISTS "app"."orders_{{i}}" (
                    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                    customer_id bigint NOT NULL REFERENCES app.customers (id) ON DELETE CASCADE,
                    total numeric(12, 2) DEFAULT 0.00 NOT NULL CHECK (total >= 0),
                    note text DEFAULT 'it''s; fine' COLLATE "C",
                    created_at timestamp with time zone DEFAULT (now() AT TIME ZONE 'utc'),
                    CONSTRAINT orders_{{i}}_u UNIQUE (customer_id, created_at)
                ) WITH (fillfactor = 90);
                CREATE INDEX CONCURRENTLY orders_{{i}}_idx ON app.orders_{{i}} USING btree (lower(note), created_at DESC) WHERE total > 0;
                ALTER TABLE app.orders_{{i}} ADD COLUMN tier text, ALTER COLUMN note SET NOT NULL, ADD CONSTRAINT c CHECK (tier <> '') NOT VALID;
                CREATE OR REPLACE FUNCTION app.touch_{{i}}() RETURNS trigger LANGUAGE plpgsql AS $body$
                BEGIN
                    NEW.created_at := now(); -- ; not the end
                    RETURN NEW;
                END;
                $body$;
                CREATE TRIGGER touch BEFORE UPDATE ON app.orders_{{i}} FOR EACH ROW EXECUTE FUNCTION app.touch_{{i}}();
                CREATE OR REPLACE VIEW app.v_{{i}} AS SELECT o.id, CASE WHEN o.total > 100 THEN 'big' ELSE 'small' END AS size FROM app.orders_{{i}} o WHERE o.tier IS NOT NULL;
                GRANT SELECT, INSERT ON app.orders_{{i}} TO app_user;
                COMMENT ON COLUMN app.orders_{{i}}.tier IS E'a \'tier\'';
                UPDATE app.orders_{{i}} SET tier = 'gold', note = note || 'x' WHERE total > (SELECT avg(total) FROM app.orders_{{i}});
                INSERT INTO app.orders_{{i}} (customer_id, total, note) VALUES

                """);
            for (int row = 0; row < 20; row++)
            {
                text.Append(CultureInfo.InvariantCulture, $"    ({row}, {row * 1.5}, 'row {row} of {i}'){(row == 19 ? ";\n" : ",\n")}");
            }
        }

        return text.ToString();
    }
}
