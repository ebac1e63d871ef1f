create index parted_at on app.parted (at);
create unique index orders_total_once on app.orders (total, id) include (note) with (fillfactor = 60) where total > 0;
create statistics app.orders_stats (dependencies) on small, note from app.orders;
comment on index app.orders_note_idx is 'finds notes';
--- CREATE INDEX | Reversible
create index orders_total_idx on app.orders (total);
--- CREATE INDEX CONCURRENTLY | Reversible
create index concurrently orders_total_idx on app.orders (total desc nulls last) where total > 5;
--- CREATE UNIQUE INDEX | Reversible
create unique index on app.orders using btree (lower(note), (small + 1));
--- CREATE INDEX IF NOT EXISTS | NotNeeded
create index if not exists orders_note_idx on app.orders (note);
--- CREATE INDEX IF NOT EXISTS (new) | Reversible
create index if not exists orders_at_idx on app.orders (at);
--- CREATE INDEX (partitioned) | Reversible
create index on app.parted (note);
--- CREATE INDEX ON ONLY | Reversible
create index parted_only on only app.parted (note);
--- ALTER INDEX ATTACH PARTITION | Irreversible
create index parted_only on only app.parted (note);
create index parted_1_note on app.parted_1 (note);
alter index app.parted_only attach partition app.parted_1_note;
--- DROP INDEX | Reversible
drop index app.orders_note_idx;
--- DROP INDEX CONCURRENTLY | Reversible
drop index concurrently app.orders_total_once;
--- DROP INDEX (expression) | Reversible
drop index app.orders_lower_idx;
--- DROP INDEX (partitioned) | Reversible
drop index app.parted_at;
--- DROP INDEX IF EXISTS | NotNeeded
drop index if exists app.nothing;
--- DROP INDEX (two) | Reversible
drop index app.orders_note_idx, app.orders_lower_idx;
--- DROP INDEX, CREATE INDEX | Reversible
drop index app.orders_note_idx;
create index orders_note_idx on app.orders (note, small);
--- ALTER INDEX RENAME | Reversible
alter index app.orders_note_idx rename to orders_remark_idx;
--- ALTER INDEX SET | Reversible
alter index app.orders_note_idx set (fillfactor = 50);
--- ALTER INDEX RESET | Reversible
alter index app.orders_total_once reset (fillfactor);
--- ALTER INDEX ALTER COLUMN SET STATISTICS | Reversible
alter index app.orders_lower_idx alter column 1 set statistics 500;
--- ALTER INDEX SET TABLESPACE | Reversible
alter index app.orders_note_idx set tablespace pg_default;
--- REINDEX | NotNeeded
reindex index app.orders_note_idx;
--- REINDEX TABLE CONCURRENTLY | NotNeeded
reindex table concurrently app.lines;
--- CLUSTER | Reversible
cluster app.orders using orders_note_idx;
--- COMMENT ON INDEX | Reversible
comment on index app.orders_note_idx is 'another';
--- CREATE STATISTICS | Reversible
create statistics app.more (ndistinct, mcv) on small, note from app.orders;
--- CREATE STATISTICS (no name) | Reversible | since 16
create statistics on small, note from app.orders;
--- CREATE STATISTICS IF NOT EXISTS | NotNeeded
create statistics if not exists app.orders_stats on small, code from app.orders;
--- ALTER STATISTICS SET STATISTICS | Reversible
alter statistics app.orders_stats set statistics 300;
--- ALTER STATISTICS RENAME | Reversible
alter statistics app.orders_stats rename to other_stats;
--- ALTER STATISTICS SET SCHEMA | Reversible
alter statistics app.orders_stats set schema other;
--- ALTER STATISTICS OWNER TO | Reversible
alter statistics app.orders_stats owner to rb_writer;
--- DROP STATISTICS | Reversible
drop statistics app.orders_stats;
