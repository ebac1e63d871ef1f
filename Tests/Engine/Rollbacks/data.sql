create table app.seeds (id int, kind text, note text, primary key (id, kind));
create function app.version(text) returns text language sql as 'select $1';
create function app.count(text) returns bigint language sql as 'select 0::bigint';
--- INSERT (keys in the text) | ReversibleWithDataLoss
insert into app.customers (id, email) values (10, 'x'), (-11, 'y');
--- INSERT (two keys in the text) | ReversibleWithDataLoss
insert into app.seeds (note, id, kind) values ('x', 1, 'a'), ('y', 2, 'it''s');
--- INSERT (no keys) | Irreversible
insert into app.orders (total) values (5);
--- INSERT ON CONFLICT | Irreversible
insert into app.customers (id, email) values (1, 'z') on conflict (id) do update set email = excluded.email;
--- INSERT SELECT | Irreversible
insert into app.seeds select id, 'x', 'y' from app.customers;
--- UPDATE | Irreversible
update app.orders set note = 'x' where id = 1;
--- UPDATE (columns of the script) | ReversibleWithDataLoss
alter table app.orders add column fresh int;
update app.orders set fresh = 1;
--- DELETE | Irreversible
delete from app.orders where id = 1;
--- MERGE | Irreversible | since 15
merge into app.customers c using app.seeds s on s.id = c.id when matched then update set note = s.note;
--- TRUNCATE | Irreversible
truncate app.lines;
--- COPY FROM | Irreversible
copy app.seeds (id, kind) from program 'printf "1\\ta\\n"';
--- WITH DELETE | Irreversible
with gone as (delete from app.lines returning *) insert into app.seeds select id, 'a', 'b' from gone;
--- SELECT (setval) | Reversible
select setval('app.numbers', 100);
--- SELECT (reads) | NotNeeded
select count(*), max(id) from app.orders;
--- SELECT (a function of the user's) | Unknown
select app.twice(1);
--- SELECT (a function of the user's with the name of the system's) | Unknown
select app.version('2.1');
--- SELECT (the system's function with its schema) | NotNeeded
select pg_catalog.version(), "pg_catalog".count(*) from app.orders o where o.note in ('x');
--- DO (condition with a function of the user's) | Unknown
do $$ begin if app.count('x') = 0 then alter table app.lines add column x int; end if; end $$;
--- DO (condition with a quoted function of the user's) | Unknown
do $$ begin if app."count"('x') = 0 then alter table app.lines add column x int; end if; end $$;
--- DO (IF NOT EXISTS of a constraint that the script drops) | Unknown
alter table app.lines drop constraint if exists lines_order;
do $$ begin if not exists (select from pg_constraint where conname = 'lines_order') then alter table app.lines add constraint lines_order check (id > 0); end if; end $$;
--- DO (IF NOT EXISTS of a constraint that the script would drop, and is not there) | Reversible
alter table app.lines drop constraint if exists lines_fresh;
do $$ begin if not exists (select from pg_constraint where conname = 'lines_fresh') then alter table app.lines add constraint lines_fresh check (id > 0); end if; end $$;
--- DO (IF NOT EXISTS of an index that goes with its table) | Unknown
drop table app.orders cascade;
do $$ begin if not exists (select from pg_indexes where indexname = 'orders_note_idx') then create index orders_note_idx on app.lines (id); end if; end $$;
--- DO (to_regclass, with its schema, of what the script renames) | Unknown
alter table app.lines rename to rows;
do $$ begin if to_regclass('app.rows') is not null then alter table app.rows add column c int; end if; end $$;
--- DO (to_regclass of what was renamed away) | Unknown
alter table app.lines rename to rows;
do $$ begin if to_regclass('app.lines') is null then create table app.lines (id int); end if; end $$;
--- DO (a condition under the script's path: it is there) | NotNeeded
set search_path to app;
do $$ begin if to_regclass('orders') is null then create table orders (id int); end if; end $$;
--- DO (a condition under the script's path: it is not there) | ReversibleWithDataLoss
set search_path to other, app;
do $$ begin if current_schema = 'other' then create table orders (id int); end if; end $$;
--- DO (a condition under a path that is not known) | Unknown
select set_config('search_path', 'app', false);
do $$ begin if to_regclass('orders') is null then create table orders (id int); end if; end $$;
--- DO (a condition that does not hang on the path) | NotNeeded
select set_config('search_path', 'app', false);
do $$ begin if exists (select from pg_namespace where nspname = 'gone') then create schema gone; end if; end $$;
--- DO | Unknown
do $$ begin perform 1; end $$;
--- DO (EXECUTE) | Unknown
do $$ declare t text; begin for t in select 'app.lines' loop execute format('alter table %s add column x int', t); end loop; end $$;
--- DO (IF NOT EXISTS, CREATE SCHEMA: Entity Framework) | Reversible
DO $EF$
BEGIN
    IF NOT EXISTS(SELECT 1 FROM pg_namespace WHERE nspname = 'fresh') THEN
        CREATE SCHEMA fresh;
    END IF;
END $EF$;
--- DO (IF NOT EXISTS, there already) | NotNeeded
DO $$
BEGIN
    IF NOT EXISTS(SELECT 1 FROM pg_namespace WHERE nspname = 'app') THEN
        CREATE SCHEMA app;
    END IF;
END $$;
--- DO (IF EXISTS, DROP and CREATE) | Reversible
do $$ begin
    if exists (select from information_schema.views where table_schema = 'app' and table_name = 'totals') then
        drop view app.totals;
        create index on app.lines (id);
    end if;
end $$;
--- DO (duplicate_object, CREATE TYPE: Drizzle) | Reversible
DO $$ BEGIN
 CREATE TYPE app.color AS ENUM('red', 'green');
EXCEPTION
 WHEN duplicate_object THEN null;
END $$;
--- DO (duplicate_object, there already) | NotNeeded
DO $$ BEGIN CREATE TYPE app.mood AS ENUM('sad'); EXCEPTION WHEN duplicate_object THEN null; END $$;
--- DO (duplicate_object, ADD CONSTRAINT: Drizzle) | Reversible
DO $$ BEGIN
 ALTER TABLE "app"."lines" ADD CONSTRAINT "lines_id_fk" FOREIGN KEY ("id") REFERENCES "app"."customers"("id") ON DELETE no action ON UPDATE no action;
EXCEPTION
 WHEN duplicate_object THEN null;
END $$;
--- DO (duplicate_object, constraint there already) | NotNeeded
DO $$ BEGIN ALTER TABLE app.lines ADD CONSTRAINT lines_order FOREIGN KEY (order_id) REFERENCES app.orders (id); EXCEPTION WHEN duplicate_object THEN null; END $$;
--- DO (duplicate_object, constraint dropped before) | Reversible
alter table app.lines drop constraint lines_order;
DO $$ BEGIN ALTER TABLE app.lines ADD CONSTRAINT lines_order FOREIGN KEY (order_id) REFERENCES app.orders (id); EXCEPTION WHEN duplicate_object THEN null; END $$;
--- DO (duplicate_column) | ReversibleWithDataLoss
DO $$ BEGIN ALTER TABLE app.lines ADD COLUMN fresh int; EXCEPTION WHEN duplicate_column THEN RAISE NOTICE 'there'; END $$;
--- DO (undefined_table, DROP) | ReversibleWithDataLoss
DO $$ BEGIN DROP TABLE app.lines; EXCEPTION WHEN undefined_table THEN null; END $$;
--- CALL | Unknown
call app.clean(1);
--- SET | NotNeeded
set lock_timeout = '1s';
--- RESET | NotNeeded
reset lock_timeout;
--- SET CONSTRAINTS | NotNeeded
set constraints all deferred;
--- LOCK TABLE | NotNeeded
begin;
lock table app.orders in share mode;
commit;
--- VACUUM | NotNeeded
vacuum app.lines;
--- ANALYZE | NotNeeded
analyze app.lines;
--- DISCARD | NotNeeded
discard plans;
