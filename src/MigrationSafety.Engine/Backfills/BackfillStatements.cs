using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>
/// The statements that change the rows of one table. A batch is one statement, so that it is one round trip and one transaction that no client can keep open: it takes
/// its range's row, finds where the batch ends, updates, and writes the checkpoint and the worker's count back.
/// Parameters: $1 the backfill's name, $2 the range, $3 rows or blocks, $4 the run, $5 the worker's number, $6 and $7 its pauses (<see cref="BatchPace"/>).
/// </summary>
internal sealed class BackfillStatements
{
    private readonly BackfillDefinition _definition;
    private readonly BackfillLeaf _leaf;

    internal BackfillStatements(BackfillDefinition definition, BackfillLeaf leaf)
    {
        _definition = definition;
        _leaf = leaf;
    }

    /// <summary>For the check before anything is done: names, types, privileges.</summary>
    internal string Explain => $"explain {Whole}";

    /// <summary>The change of all rows at once.</summary>
    internal string Whole => Change("true");

    /// <summary>A batch as a DBA would write it by hand, for people.</summary>
    internal string Plain => Change(PlainPiece);

    /// <summary>Changes the rows of some blocks and says what it cost: rows, time, WAL.</summary>
    /// <param name="block">First block.</param>
    /// <param name="blocks">How many.</param>
    internal string Measure(long block, long blocks) =>
        $"explain (analyze, wal, timing off, format json) {Change($"{Qualifier}.ctid >= '({block},0)' and {Qualifier}.ctid < '({block + blocks},0)'")}";

    private string PlainPiece => _leaf.ByKey
        ? $"{Row} > ({string.Join(", ", _leaf.Key.Select((_, i) => $"${i + 1}"))}) and {Row} <= ({string.Join(", ", _leaf.Key.Select((_, i) => $"${_leaf.Key.Count + i + 1}"))})"
        : $"{Qualifier}.ctid >= '(0,0)' and {Qualifier}.ctid < '({Math.Max(1, Math.Min(_leaf.Blocks, 256 * _leaf.Slices))},0)'{(_leaf.Slices > 1 ? $" and (pg_catalog.hashtid({Qualifier}.ctid) & {_leaf.Slices - 1}) = 0" : "")}";

    /// <summary>The plan of a batch; runs nothing.</summary>
    internal string ExplainBatch => _leaf.ByKey
        ? $"explain (costs off) {Change($"{Row} > ({Nulls(_leaf.Key.Select(k => k.Type))}) and {Row} <= ({Nulls(_leaf.Key.Select(k => k.Type))})")}"
        : $"explain (costs off) {Plain}";

    /// <summary>Changes the rows at places $1 that nobody has locked; returns how many these were, how many were changed, and keys (or places) of those that still match.</summary>
    internal string TrySample => $"""
        with msb_free as materialized (
            select {Qualifier}.ctid as msb_tid from only {Target} where {Qualifier}.ctid = any ($1::text[]::tid[]) and {Predicate} {LockClause} skip locked
        )
        , msb_tried as (
            {Change(IsFree)}
            returning {(_definition.Into is { } into ? $"null::text as msb_key, {into.ReturnedKey}" : (_leaf.Key.Count > 0 ? $"pg_catalog.concat_ws(', ', {Join(", ", c => c)})" : $"'ctid ' || {Qualifier}.ctid::text") + " as msb_key")}, {Same} as same
        )
        select (select pg_catalog.count(*) from msb_free), (select pg_catalog.count(*) from {(_definition.Into is null ? "msb_tried" : $"only {Target} where {IsFree} and {_definition.Into.IsIn("msb_tried")}")}), array(select msb_key from msb_tried where same)
        """;

    /// <summary>The greatest key, as texts.</summary>
    internal string Bound => $"select array[{Join(", ", c => c + "::text")}] from only {Target} order by {Join(", ", c => c + " desc")} limit 1";

    /// <summary>Keys that part the table into $2 about equal pieces, from a sample of $1 percent of its blocks, as texts, in order.</summary>
    internal string Quantiles => $"""
        select array[{string.Join(", ", KeyAliases.Select(k => k + "::text"))}]
        from (select {string.Join(", ", _leaf.Key.Select((c, i) => $"{SqlName.Quote(c.Name)} as key{i + 1}"))},
                     pg_catalog.row_number() over (order by {Join(", ", c => c)}) as n, pg_catalog.count(*) over () as of
              from only {Target} tablesample system ($1)) as msb_sample
        where (n * $2::int8) / of > ((n - 1) * $2::int8) / of and n < of
        order by n
        """;

    /// <summary>The key of the row at place $1, as texts; of that version ($2), where one is given.</summary>
    internal string KeyAt => $"select array[{Join(", ", c => c + "::text")}] from only {Target} where {Qualifier}.ctid = $1::text::tid and ($2::text is null or {Qualifier}.xmin = $2::text::xid)";

    /// <summary>
    /// A batch of the range, whether its rows match or not. It waits shortly for rows that are locked.
    /// Returns rows changed, whether the range's end was reached, rows passed, the server's time in milliseconds, and whether nothing cut it short; nothing where somebody else
    /// works on the range, where it is at its end, or where the backfill does not run any more.
    /// </summary>
    /// <param name="first">Whether the range has no checkpoint yet, which only the first range along a key has not.</param>
    internal string Batch(bool first) => $"""
        {Piece(first)}, {Changed(InPiece(first), null, skip: false)}
        {WriteBack}
        """;

    /// <summary>The same as <see cref="Batch"/>, but it passes over the rows that others have locked.</summary>
    /// <param name="first">Whether the range has no checkpoint yet.</param>
    internal string SkippingBatch(bool first) => $"""
        {Piece(first)}, {Changed(InPiece(first), null, skip: true)}
        {WriteBack}
        """;

    /// <summary>The rows of the next piece that match, by place and version, and where it begins and ends. Changes and locks nothing.</summary>
    /// <param name="first">Whether the range has no checkpoint yet.</param>
    internal string PlacesOfPiece(bool first) => $"""
        {Piece(first, locks: false)}, msb_found as materialized (
            select {Qualifier}.ctid as tid, {Qualifier}.xmin as version from only {Target} where {InPiece(first)} and {Predicate}
        )
        select array(select tid::text from msb_found order by tid), array(select version::text from msb_found order by tid), r.position, {StopTexts}, s.at_end
        from msb_range r, msb_stop s
        """;

    /// <summary>
    /// Updates rows by place ($2) and version ($3): a row that was changed since it was found is not touched. It waits shortly for rows that are locked.
    /// Returns rows changed, the backfill's state, the server's time in milliseconds, and the numbers of those that were changed, where not all were.
    /// </summary>
    internal string Places => $"""
        with {Changed($"{AtPlace} and {IsRunning}{IsPart}", PlaceList, skip: false)}
        {CountPlaces(Done(PlaceList, AtPlace))}
        """;

    /// <summary>The same by key ($2), wherever the rows lie and whatever version they have by the time they are free.</summary>
    internal string Keys => $"""
        with {Changed($"{AtKey} and {IsRunning}{IsPart}", KeyList, skip: false)}
        {CountPlaces(Done(KeyList, AtKey))}
        """;

    /// <summary>
    /// Waits for the rows that <see cref="Keys"/> is to change: to be sent in a transaction with it where it reads what is kept, which by its own snapshot would be what they were
    /// before; null where it waits itself.
    /// </summary>
    internal string? LockKeys => !ReadsBefore ? null : $"""
        select 1 from {KeyList}, only {Target} where {AtKey} and {Predicate} and {IsRunning}{IsPart} {LockClause} of {LockTarget}
        """;

    /// <summary>Those of some rows that are there now, by place, version and key, and whether they match: found by key ($2) where there is one, else by place ($2) and version ($3). Locks nothing.</summary>
    /// <param name="byKey">Whether by key.</param>
    internal string Whereabouts(bool byKey) => $"""
        select {Qualifier}.ctid::text, {Qualifier}.xmin::text, {(byKey ? "msb_key" : "null::text")}, {Predicate}
        from {(byKey ? KeyList : PlaceList)} join only {Target} on {(byKey ? AtKey : AtPlace)}
        """;

    /// <summary>
    /// Of the next $3 rows that were recorded as refused, after place $2: the place, the version, and whether the very row still lies there and matches. After VACUUM FULL
    /// another row may have its place and version, but not its key. Locks nothing.
    /// </summary>
    internal string Recorded => $"""
        with msb_recorded as materialized (
            select place as msb_place, place::tid as msb_tid, version::xid as msb_version, key as msb_key, key_columns as msb_names
            from {BackfillStore.Errors} where backfill = $1 and relation = {_leaf.Table.Oid} and not again and place > $2 order by place limit $3
        ), msb_there as materialized (
            select msb_place from msb_recorded, only {Target}
            where {AtPlace} and {Predicate}{(_leaf.Key.Count == 0 ? "" : $" and (msb_names is distinct from array[{string.Join(", ", _leaf.KeyNames.Select(SqlName.Literal))}]::text[] or msb_key = array[{Join(", ", c => c + "::text")}])")}
        )
        select msb_place, msb_version::text, msb_place in (select t.msb_place from msb_there t) from msb_recorded order by msb_place
        """;

    /// <summary>Numbers of those rows at places ($2) and of versions ($3) that nobody has locked.</summary>
    internal string Free => $"select msb_number from {PlaceList}, only {Target} where {AtPlace} {LockClause} of {LockTarget} skip locked";

    /// <summary>The same as <see cref="Places"/>, but it passes over the rows that others have locked. Returns besides which it locked and did not change, because a trigger kept it from that.</summary>
    internal string SkippingPlaces => $"""
        with {Changed($"{AtPlace} and {IsRunning}{IsPart}", PlaceList, skip: true)}
        {CountPlaces(Done(PlaceList, AtPlace), $"array(select msb_number from msb_free except {Done(PlaceList, AtPlace)})")}
        """;

    private string IsFree => $"{Qualifier}.ctid = any (array(select msb_tid from msb_free))";

    // Whether a row that was changed still matches: none that is gone or copied does.
    private string Same => _definition.Kind == BackfillKind.Update ? Predicate : "false";

    // With the pauses of the batch: what is returned is computed once for each row, after it was changed.
    private string PacedSame => _definition.MayPause ? $"case when $6::float8 > 0 and pg_catalog.random() < $6::float8 and pg_catalog.pg_sleep($7::float8) is null then null else {Same} end" : Same;

    // By default a row matches when one of its columns is NULL: the others may hold what the application wrote, and keep it.
    // The line breaks keep a comment at the end of an expression from swallowing what follows.
    private string SetList => string.Join(", ", _definition.Set.Select(column => _definition is { IsDefaultWhere: true, Set.Count: > 1 }
        ? $"{SqlName.Quote(column.Name)} = coalesce({SqlName.Quote(column.Name)}, (\n{column.Expression}\n))"
        : $"{SqlName.Quote(column.Name)} = (\n{column.Expression}\n)"));

    private string Predicate => PredicateOf(_definition);

    // Expressions may name the table that was asked for; a part of it answers to that name too.
    private string Target => IsRenamed ? $"{_leaf.Table.Sql} as {LockTarget}" : _leaf.Table.Sql;

    private string Qualifier => IsRenamed ? LockTarget : _leaf.Table.Sql;

    private string LockTarget => SqlName.Quote(_definition.ShardOf ?? _definition.Table.Name);

    private bool IsRenamed => _definition.ShardOf is not null || _leaf.Table.Oid != _definition.Table.Oid;

    // The lock that the change itself takes; a weaker one is enough where no key changes, and lets foreign-key checks pass.
    // What is copied is held still: a change or deletion that came between reading and copying would be lost to a trigger that passes it on to the copy.
    private string LockClause => _definition.Kind == BackfillKind.Insert ? "for share"
        : _leaf.ChangesUniqueKey || _definition.Kind == BackfillKind.Delete ? "for update"
        : "for no key update";

    // What is kept of a row besides what the change itself returns.
    private bool ReadsBefore => _definition is { Archive.Whole: false, Into: null };

    private static string IsRunning => $"exists (select from {BackfillStore.Table} msb_b where msb_b.name = $1 and msb_b.state = 'running')";

    // What was detached, by itself or with a part that it belongs to, is somebody else's from then on.
    private string IsPart => _leaf.Table.Oid == _definition.Table.Oid ? "" : $"""
         and exists (
            with recursive msb_up as (
                select {_leaf.Table.Oid}::oid as msb_oid
                union
                select msb_i.inhparent from msb_up join pg_catalog.pg_inherits msb_i on msb_i.inhrelid = msb_oid where not msb_i.inhdetachpending
            )
            select from msb_up where msb_oid = {_definition.Table.Oid})
        """;

    // Their numbers tell which of them were changed: two may name the same place, one of them for a row that has left it since.
    private static string PlaceList => "rows from (pg_catalog.unnest($2::text[]::tid[]), pg_catalog.unnest($3::text[]::xid[])) with ordinality as msb_place (msb_tid, msb_version, msb_number)";

    private string AtPlace => $"{Qualifier}.ctid = msb_tid and {Qualifier}.xmin = msb_version and {IsOfTable}";

    // Of a range nothing is passed over in another table that has the name by now.
    private string IsNamed => $"pg_catalog.to_regclass({SqlName.Literal(_leaf.Table.Sql)}) = {_leaf.Table.Oid}::oid";

    // Another table may take the name between two batches: its rows are somebody else's.
    private string IsOfTable => $"{Qualifier}.tableoid = {_leaf.Table.Oid}";

    private string KeyList =>
        $"(select u.key as msb_key, u.number as msb_number, {string.Join(", ", _leaf.Key.Select((column, i) => $"(u.key::text[])[{i + 1}]::{column.Type} as msb_key{i + 1}"))} from pg_catalog.unnest($2::text[]) with ordinality as u (key, number)) as msb_place";

    private string AtKey => string.Join(" and ", _leaf.Key.Select((column, i) => $"{Qualifier}.{SqlName.Quote(column.Name)} = msb_key{i + 1}").Append(IsOfTable));

    // Of what is copied the copy's key tells which were.
    private string Done(string from, string where) => _definition.Into is { } into
        ? $"select msb_number from {from}, only {Target} where {where} and {into.IsIn("msb_changed")}"
        : "select msb_number from msb_changed";

    private static string CountPlaces(string done, string kept = "null::int8[]") => $"""
        update {BackfillStore.Workers} w
        set rows_done = w.rows_done + n.changed, batches = w.batches + 1, heartbeat = pg_catalog.clock_timestamp()
        from (select {Count}) n
        where w.backfill = $1 and w.run = $4::uuid and w.number = $5
        returning n.changed, (select state from {BackfillStore.Table} where name = $1), {Milliseconds},
                  case when n.changed < pg_catalog.cardinality($2) then array({done}) end, {kept}
        """;

    /// <summary>What the error says of a batch that would leave rows as much to be done as they were.</summary>
    internal const string StaysTrue = "msb_stays_true";

    // How many rows were changed; one that still matches takes the batch back: it would be changed again by whatever comes by next. A text that is no number is an error of the row's data.
    private const string Count = $"case when pg_catalog.bool_or(same) then '{StaysTrue} ' || pg_catalog.count(*) else pg_catalog.count(*)::text end::int8 as changed from msb_changed";

    private const string Milliseconds = "extract(epoch from pg_catalog.clock_timestamp() - pg_catalog.statement_timestamp())::float8 * 1000";

    private IEnumerable<string> KeyAliases => _leaf.Key.Select((_, i) => $"key{i + 1}");

    private string Row => $"({Join(", ", c => c)})";

    private string StopTexts => _leaf.ByKey ? $"array[{string.Join(", ", KeyAliases.Select(key => $"s.{key}::text"))}]" : "array[s.block::text]";

    private string WriteBack => $"""
        , msb_sum as (
            select {Count}
        ), msb_done as (
            update {BackfillStore.Ranges} r
            set position = {StopTexts}, finished = s.at_end, rows_seen = {Seen}, run = $4::uuid, worker = $5, pid = pg_catalog.pg_backend_pid(), heartbeat = pg_catalog.clock_timestamp()
            from msb_stop s, msb_sum n, msb_range g
            where r.backfill = $1 and r.id = $2
            returning n.changed, s.at_end, r.rows_seen - g.rows_seen as passed, {(_leaf.ByKey ? "not s.at_end" : "s.to_block - s.from_block = $3::int8")} as whole
        )
        update {BackfillStore.Workers} w
        set rows_done = w.rows_done + d.changed, batches = w.batches + 1, heartbeat = pg_catalog.clock_timestamp()
        from msb_done d
        where w.backfill = $1 and w.run = $4::uuid and w.number = $5
        returning d.changed, d.at_end, d.passed, {Milliseconds}, d.whole
        """;

    // By blocks nobody counts the rows that do not match: the share of the blocks stands for them.
    private string Seen => _leaf.ByKey
        ? "r.rows_seen + coalesce(s.seen, n.changed)"
        : "case when s.at_end then r.rows_estimated else r.rows_estimated * (s.block - r.lower[1]::int8) / (r.slices * greatest(1, r.upper[1]::int8 - r.lower[1]::int8)) end";

    /// <summary>
    /// Whether a row of the table matches. IS TRUE hides the condition from the planner's choice of indexes: one on the new column would lead it through all rows that still
    /// match, in every batch. A join it would hide too.
    /// </summary>
    internal static string PredicateOf(BackfillDefinition definition) => definition.Into is { } into ? $"({ConditionOf(definition)} and not {into.Exists})"
        : definition.From is null ? ConditionOf(definition)
        : $"exists (select from\n{definition.From}\nwhere (\n{definition.Where}\n))";

    /// <summary>The condition as it was given, hidden from the choice of indexes.</summary>
    internal static string ConditionOf(BackfillDefinition definition) => $"((\n{definition.Where}\n) is true)";

    /// <summary>
    /// The change as the CTE <c>msb_changed</c>, one row for each row that was changed. What is kept of a row is read before the change, and the change is one of that very version: where
    /// another transaction came between, the row is left to a sweep.
    /// </summary>
    /// <param name="where">Condition.</param>
    /// <param name="from">The list of the rows, whose numbers are returned as <c>msb_number</c>; null where the condition alone tells them.</param>
    /// <param name="skip">Whether rows that others have locked are passed over.</param>
    private string Changed(string where, string? from, bool skip)
    {
        BackfillArchive? archive = _definition.Archive;
        if (_definition.Into is { } into)
        {
            string free = from is null || !skip ? "" : $"""
                msb_free as materialized (
                    select {Qualifier}.ctid as msb_tid, msb_number from {from}, only {Target} where {where} and {Predicate} {LockClause} of {LockTarget} skip locked
                ), 
                """;
            return $"""
                {free}msb_changed as (
                    {(free.Length > 0 ? Copy(IsFree, null, skip: false) : Copy(where, from, skip))}
                    returning {PacedSame} as same{(from is null ? "" : $", {into.ReturnedKey}")}{(archive is null ? "" : $", {archive.Returned(into.Table.Sql)}")}
                ){(archive is null ? "" : $", msb_kept as (\n{archive.Add(into.Table.Oid)}\n)")}
                """;
        }

        string chosen = !skip && !ReadsBefore ? "" : $"""
            msb_free as materialized (
                select {Qualifier}.ctid as msb_tid{(ReadsBefore ? $", {Qualifier}.xmin as msb_version, {archive!.Before(Qualifier)}" : "")}{(from is null ? "" : ", msb_number")}
                from {(from is null ? "" : $"{from}, ")}only {Target}
                where {where} and {Predicate}{(skip ? $" {LockClause} of {LockTarget} skip locked" : "")}
            ), 
            """;
        string change = ReadsBefore ? Change($"{Qualifier}.ctid = msb_tid and {Qualifier}.xmin = msb_version", "msb_free") : skip && from is not null ? Change($"{Qualifier}.ctid = msb_tid", "msb_free") : skip ? Change(IsFree) : Change(where, from);
        return $"""
            {chosen}msb_changed as (
                {change}
                returning {(from is null ? "" : "msb_number, ")}{PacedSame} as same{(archive is null ? "" : $", {archive.Returned(Qualifier)}")}
            ){(archive is null ? "" : $", msb_kept as (\n{archive.Add(_leaf.Table.Oid)}\n)")}
            """;
    }

    /// <summary>The change of the rows that match, and for which a condition holds.</summary>
    /// <param name="where">Condition.</param>
    /// <param name="from">What it needs besides the table; null for nothing.</param>
    private string Change(string where, string? from = null)
    {
        if (_definition.Into is not null)
        {
            return Copy(where, from, skip: false);
        }

        string sources = string.Join(", ", new[] { from, _definition.From is null ? null : $"\n{_definition.From}\n" }.OfType<string>());
        string condition = _definition.From is null ? Predicate : $"(\n{_definition.Where}\n)";
        return _definition.Kind == BackfillKind.Delete
            ? $"delete from only {Target}{(sources.Length > 0 ? $"\nusing {sources}" : "")}\nwhere {where} and {condition}"
            : $"update only {Target}\nset {SetList}{(sources.Length > 0 ? $"\nfrom {sources}" : "")}\nwhere {where} and {condition}";
    }

    /// <summary>The copy of the rows for which a condition holds. What is there already is left as it is.</summary>
    private string Copy(string where, string? from, bool skip)
    {
        BackfillTarget into = _definition.Into!;
        return $"""
            insert into {into.Table.Sql} ({into.ColumnList}){(into.Overrides ? " overriding system value" : "")}
            select {string.Join(", ", into.Columns.Select(column => $"(\n{column.Expression}\n)"))}
            from {(from is null ? "" : $"{from}, ")}only {Target}
            where {where} and {ConditionOf(_definition)}
            {LockClause} of {LockTarget}{(skip ? " skip locked" : "")}
            on conflict ({into.KeyList}) do nothing
            """;
    }

    private string Piece(bool first, bool locks = true) => $"""
        with msb_range as materialized (
            select g.position, g.lower, g.upper, g.rows_seen, g.slices, g.stretch from {BackfillStore.Ranges} g
            where g.backfill = $1 and g.id = $2 and not g.finished and g.position is {(first ? "" : "not ")}null and {IsRunning}{IsPart} and {IsNamed}{(locks ? " for update of g skip locked" : "")}
        ), msb_stop as materialized (
            {(_leaf.ByKey ? KeyStop(first) : BlockStop)}
        )
        """;

    // Stretch by stretch, each walked once for each slice of its rows: the position counts on, and no batch goes beyond the end of a walk.
    private const string BlockStop = """
        select block, block >= lo + (slices * n) as at_end, from_block, from_block + block - pos as to_block, slice
            from (select position[1]::int8 as pos, lower[1]::int8 as lo, greatest(1, upper[1]::int8 - lower[1]::int8) as n, slices, stretch from msb_range) as r
            cross join lateral (select (pos - lo) / (slices * stretch) as number) as q
            cross join lateral (select lo + (number * slices * stretch) as start, least(stretch, n - (number * stretch)) as blocks) as t
            cross join lateral (select (pos - start) / blocks as slice, lo + (number * stretch) + ((pos - start) % blocks) as from_block) as w
            cross join lateral (select least(pos + $3::int8, start + ((slice + 1) * blocks)) as block) as s
        """;

    private string KeyStop(bool first) => $"""
        select * from (
                (select {Join(", ", c => c)}, $3::bigint, false from only {Target}
                 where {Above(first)}{Row} <= {Texts("upper", "msb_range")} order by {Join(", ", c => c)} offset $3::bigint - 1 limit 1)
                union all
                select {string.Join(", ", _leaf.Key.Select((column, i) => $"upper[{i + 1}]::{column.Type}"))}, null, true from msb_range
            ) as s ({string.Join(", ", KeyAliases)}, seen, at_end)
            where exists (select from msb_range)
            order by at_end limit 1
        """;

    private string InPiece(bool first) => (_leaf.ByKey
        ? $"{Above(first)}{Row} <= ({string.Join(", ", KeyAliases.Select(key => $"(select {key} from msb_stop)"))})"
        : $"{Qualifier}.ctid >= (select pg_catalog.format('(%s,0)', from_block)::tid from msb_stop) and {Qualifier}.ctid < (select pg_catalog.format('(%s,0)', to_block)::tid from msb_stop)"
            + (_leaf.Slices == 1 ? ""
                : _leaf.TurnsBy is { Bounds: not null } by ? $" and {by.IsTurn(Qualifier, "slice", "msb_stop")}"
                : $" and (pg_catalog.hashtid({Qualifier}.ctid) & {_leaf.Slices - 1}) = (select slice from msb_stop)")) + $" and {IsOfTable}";

    private string Above(bool first) => first ? "" : $"{Row} > {Texts("position", "msb_range")} and ";

    private string Texts(string array, string from) =>
        $"({string.Join(", ", _leaf.Key.Select((column, i) => $"(select {array}[{i + 1}]::{column.Type} from {from})"))})";

    private string Join(string separator, Func<string, string> text) => string.Join(separator, _leaf.Key.Select(column => text($"{Qualifier}.{SqlName.Quote(column.Name)}")));

    private static string Nulls(IEnumerable<string> types) => string.Join(", ", types.Select(type => $"(select null::{type})"));
}
