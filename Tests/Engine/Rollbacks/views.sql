create view app.chain as select id from app.totals;
create view app.checked with (security_barrier) as select id, note from app.orders where total > 1 with local check option;
comment on view app.totals is 'sums';
grant select on app.totals to rb_reader;
create materialized view app.bare as select id from app.orders with no data;
--- CREATE VIEW | Reversible
create view app.seen as select id from app.orders;
--- CREATE TEMPORARY VIEW | NotNeeded
create temp view seen as select 1 as x;
--- CREATE OR REPLACE VIEW (new) | Reversible
create or replace view app.seen as select id from app.orders;
--- CREATE OR REPLACE VIEW (same columns) | Reversible
create or replace view app.totals as select id, total from app.orders where total > 100;
--- CREATE OR REPLACE VIEW (columns added) | Reversible
create or replace view app.totals as select id, total, note from app.orders;
--- CREATE OR REPLACE VIEW (options) | Reversible
create or replace view app.checked as select id, note from app.orders;
--- CREATE RECURSIVE VIEW | Reversible
create recursive view app.counting (n) as values (1) union all select n + 1 from counting where n < 3;
--- DROP VIEW | Reversible
drop view app.checked;
--- DROP VIEW CASCADE | Reversible
drop view app.totals cascade;
--- DROP VIEW (two) | Reversible
drop view app.chain, app.totals;
--- DROP VIEW, CREATE VIEW | Reversible
drop view app.checked;
create view app.checked as select note, id, total from app.orders;
--- DROP VIEW IF EXISTS | NotNeeded
drop view if exists app.nothing;
--- ALTER VIEW RENAME | Reversible
alter view app.totals rename to sums;
--- RENAME COLUMN, DROP VIEW | Reversible
alter table app.orders rename column total to sum;
drop view app.chain, app.totals;
--- ALTER VIEW RENAME COLUMN | Reversible
alter view app.totals rename column total to sum;
--- ALTER VIEW SET SCHEMA | Reversible
alter view app.totals set schema other;
--- ALTER VIEW OWNER TO | Reversible
alter view app.checked owner to rb_writer;
--- ALTER VIEW SET | Reversible
alter view app.totals set (security_barrier = true);
--- ALTER VIEW RESET | Reversible
alter view app.checked reset (security_barrier);
--- ALTER VIEW ALTER COLUMN SET DEFAULT | Reversible
alter view app.checked alter column note set default 'x';
--- COMMENT ON VIEW | Reversible
comment on view app.totals is null;
--- COMMENT ON COLUMN (view) | Reversible
comment on column app.totals.id is 'key';
--- CREATE MATERIALIZED VIEW | Reversible
create materialized view app.fresh as select count(*) from app.orders;
--- CREATE MATERIALIZED VIEW IF NOT EXISTS | NotNeeded
create materialized view if not exists app.counted as select 1 as x;
--- DROP MATERIALIZED VIEW | Reversible
drop materialized view app.counted;
--- DROP MATERIALIZED VIEW (not populated) | Reversible
drop materialized view app.bare;
--- ALTER MATERIALIZED VIEW RENAME | Reversible
alter materialized view app.counted rename to numbered;
--- ALTER MATERIALIZED VIEW RENAME COLUMN | Reversible
alter materialized view app.counted rename column n to number;
--- ALTER MATERIALIZED VIEW SET SCHEMA | Reversible
alter materialized view app.counted set schema other;
--- ALTER MATERIALIZED VIEW OWNER TO | Reversible
alter materialized view app.counted owner to rb_writer;
--- ALTER MATERIALIZED VIEW SET | Reversible
alter materialized view app.counted set (fillfactor = 50);
--- ALTER MATERIALIZED VIEW ALTER COLUMN SET STATISTICS | Reversible
alter materialized view app.counted alter column n set statistics 33;
--- ALTER MATERIALIZED VIEW CLUSTER ON | Reversible
alter materialized view app.counted cluster on counted_mood;
--- REFRESH MATERIALIZED VIEW | NotNeeded
refresh materialized view app.counted;
--- REFRESH MATERIALIZED VIEW (first) | Reversible
refresh materialized view app.bare;
--- REFRESH MATERIALIZED VIEW WITH NO DATA | Reversible
refresh materialized view app.counted with no data;
