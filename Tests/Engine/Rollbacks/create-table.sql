create table app.states (id int primary key, state varchar(10) constraint known check (state in ('a', 'b''c', 'd')), kind varchar, constraint odd check (state not in ('x', 'y') and kind <> all (array['p', 'q'])));
create index states_open on app.states (id) where state in ('a', 'd');
create view app.open_states as select id, state in ('a', 'd') as open from app.states where state in ('a', 'b''c');
create materialized view app.kept_states as select id from app.states where kind not in ('p', 'q');
create policy open_only on app.states using (state in ('a', 'd'));
create trigger closed before update on app.states for each row when (new.state in ('x', 'y')) execute function app.touched();
create rule no_x as on insert to app.states where new.state in ('x', 'y') do instead nothing;
create domain app.state as varchar(3) check (value in ('a', 'd'));
create function app.is_open(s varchar) returns boolean language sql begin atomic select s in ('a', 'd'); end;
create function app.is_shut(s varchar) returns boolean language sql as $$ select s = ANY ((ARRAY['x'::character varying])::text[]) $$;
--- CREATE TABLE | ReversibleWithDataLoss
create table app.products (id bigint primary key, name text unique, parent bigint references app.products, customer_id bigint references app.customers);
--- CREATE TABLE (and what is done to it) | ReversibleWithDataLoss
create table app.t1 (id int);
create index on app.t1 (id);
alter table app.t1 add column a int, add check (a > 0);
alter table app.t1 alter column a set not null, alter column a set default 1;
comment on table app.t1 is 'x';
comment on column app.t1.a is 'y';
grant select on app.t1 to rb_reader;
create trigger t before insert on app.t1 for each row execute function app.touched();
alter table app.t1 disable trigger t;
create policy p on app.t1 using (true);
alter table app.t1 enable row level security;
insert into app.t1 values (1, 2);
--- CREATE TABLE IF NOT EXISTS | NotNeeded
create table if not exists app.orders (id int);
--- CREATE TABLE IF NOT EXISTS (new) | ReversibleWithDataLoss
create table if not exists app.t2 (id int);
create table if not exists app.t2 (id int);
--- CREATE UNLOGGED TABLE | ReversibleWithDataLoss
create unlogged table app.t3 (x int) with (fillfactor = 70);
--- CREATE TEMPORARY TABLE | NotNeeded
create temp table scratch (x int) on commit drop;
--- CREATE TABLE AS | ReversibleWithDataLoss
create table app.summary as select count(*) as n from app.orders;
--- SELECT INTO | ReversibleWithDataLoss
select id into app.picked from app.orders;
--- CREATE TABLE LIKE | ReversibleWithDataLoss
create table app.alike (like app.orders including all, x int);
--- CREATE TABLE INHERITS | ReversibleWithDataLoss
create table app.heir (y int) inherits (app.parent);
--- CREATE TABLE PARTITION OF | ReversibleWithDataLoss
create table app.parted_2 partition of app.parted for values from ('2025-01-01') to ('2026-01-01');
--- CREATE TABLE PARTITION BY | ReversibleWithDataLoss
create table app.lists (k text, v int) partition by list (k);
create table app.lists_a partition of app.lists for values in ('a');
create table app.lists_rest partition of app.lists default;
--- CREATE TABLE OF | ReversibleWithDataLoss
create table app.typed of app.pair (primary key (a));
--- CREATE TABLE (quoted names) | ReversibleWithDataLoss
create table app."Select; --" ("From" int, "a""b" text);
create index "In dex" on app."Select; --" ("From");
--- CREATE TABLE (dropped by the script) | NotNeeded
create table app.passing (x int);
insert into app.passing values (1);
drop table app.passing;
--- CREATE TABLE (in a transaction that is rolled back) | NotNeeded
begin;
create table app.never (x int);
rollback;
--- CREATE TABLE (renamed and altered) | ReversibleWithDataLoss
create table app.early (x int);
alter table app.early rename to late;
alter table app.late add column y int;
alter table app.late rename column y to z;
--- CREATE TABLE (puts another in its place) | ReversibleWithDataLoss
create table app.customers_new (id bigint primary key, email text);
alter table app.customers rename to customers_old;
alter table app.customers_new rename to customers;
--- CREATE TABLE (search_path of the script) | ReversibleWithDataLoss
set search_path to other, app;
create table notes (x int);
create index on notes (x);
alter table orders add column here int;
reset search_path;
--- DROP TABLE | ReversibleWithDataLoss
drop table app.lines;
--- DROP TABLE CASCADE | ReversibleWithDataLoss | differs
drop table app.customers cascade;
--- DROP TABLE (rich) | ReversibleWithDataLoss
drop table app.lines;
drop view app.totals;
drop materialized view app.counted;
drop table app.orders;
--- DROP TABLE IF EXISTS | NotNeeded
drop table if exists app.nothing;
--- DROP TABLE (partition) | ReversibleWithDataLoss
drop table app.parted_1;
--- DROP TABLE (partitioned) | ReversibleWithDataLoss
drop table app.parted;
--- DROP TABLE (child) | ReversibleWithDataLoss
drop table app.child;
--- DROP TABLE (two) | ReversibleWithDataLoss
drop table app.lines, app.child;
--- DROP TABLE (renamed before) | ReversibleWithDataLoss
alter table app.lines rename to lanes;
alter table app.lanes rename column id to number;
drop table app.lanes;
--- DROP TABLE (made again) | ReversibleWithDataLoss
drop table app.lines;
create table app.lines (other text);
--- DROP TABLE CASCADE (lists of varchar values) | ReversibleWithDataLoss
drop table app.states cascade;
--- DROP DOMAIN, FUNCTION (lists of varchar values) | Reversible
drop domain app.state;
drop function app.is_open(varchar), app.is_shut(varchar);
--- ALTER TABLE DROP CONSTRAINT (a list of varchar values) | Reversible
alter table app.states drop constraint known, drop constraint odd;
--- ALTER TABLE ALTER COLUMN TYPE (lists of varchar values) | Reversible
drop materialized view app.kept_states;
alter table app.states alter column kind type text;
