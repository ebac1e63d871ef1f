alter table app.orders set (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.1);
alter table app.lines add constraint small_id check (id < 1000) not valid;
alter table app.lines add constraint lines_customer foreign key (order_id) references app.customers (id) not valid;
create unique index lines_id_old on app.lines (id);
create table app.lone (id int not null, at date not null, note text);
create table app.lone_child (id int, note text, extra int);
create rule no_delete as on delete to app.lines do instead nothing;
create policy mine on app.orders using (total > 0);
create type app.row_type as (id int, note text);
create table app.typed of app.row_type;
create table app.plain (id int, note text);
create table app.fk_parent (a int, b int, unique (a, b));
create index parted_at on app.parted (at);
create table app.excl (id int, during int4range);
--- ALTER TABLE ADD CONSTRAINT CHECK | Reversible
alter table app.orders add constraint total_positive check (total >= 0) not valid;
alter table app.orders validate constraint total_positive;
--- ALTER TABLE ADD CHECK (no name) | Reversible
alter table app.orders add check (total >= 0), add check (small > 0 or note is not null);
--- ALTER TABLE ADD CONSTRAINT UNIQUE | Reversible
alter table app.orders add constraint note_once unique (note), add unique (payload) include (small);
--- ALTER TABLE ADD CONSTRAINT USING INDEX | Reversible
alter table app.lines add constraint lines_id unique using index lines_id_old;
--- ALTER TABLE ADD PRIMARY KEY | Reversible
alter table app.lines add primary key (id);
--- ALTER TABLE ADD FOREIGN KEY | Reversible
alter table app.plain add foreign key (id) references app.customers (id) not valid, add constraint named foreign key (id) references app.orders;
--- ALTER TABLE ADD CONSTRAINT EXCLUDE | Reversible
alter table app.excl add constraint no_overlap exclude using gist (during with &&);
--- ALTER TABLE ADD CONSTRAINT NOT NULL | Reversible | since 18
alter table app.plain add constraint id_there not null id;
--- ALTER TABLE ALTER CONSTRAINT | Reversible
alter table app.lines alter constraint lines_order deferrable initially deferred;
--- ALTER TABLE ALTER CONSTRAINT NOT ENFORCED | Reversible | since 18
alter table app.lines alter constraint lines_order not enforced;
--- ALTER TABLE VALIDATE CONSTRAINT | Reversible
alter table app.lines validate constraint small_id;
--- ALTER TABLE VALIDATE CONSTRAINT (foreign key) | Reversible
alter table app.lines validate constraint lines_customer;
--- ALTER TABLE VALIDATE CONSTRAINT (valid before) | NotNeeded
alter table app.orders validate constraint total_small;
--- ALTER TABLE DROP CONSTRAINT (check) | Reversible
alter table app.orders drop constraint total_small;
--- ALTER TABLE DROP CONSTRAINT (not valid) | Reversible
alter table app.lines drop constraint small_id;
--- ALTER TABLE DROP CONSTRAINT (foreign key) | Reversible
alter table app.lines drop constraint lines_order;
--- ALTER TABLE DROP CONSTRAINT (unique) | Reversible
alter table app.orders drop constraint code_once;
--- ALTER TABLE DROP CONSTRAINT (primary key) CASCADE | Reversible
alter table app.customers drop constraint customers_pkey cascade;
--- ALTER TABLE DROP CONSTRAINT IF EXISTS | NotNeeded
alter table app.orders drop constraint if exists nothing;
--- ALTER TABLE DROP CONSTRAINT, ADD CONSTRAINT | Reversible
alter table app.orders drop constraint total_small, add constraint total_small check (total < 5000000);
--- ALTER TABLE RENAME | Reversible
alter table app.orders rename to purchases;
--- ALTER TABLE RENAME (then changed) | Reversible
alter table app.orders rename to purchases;
alter table app.purchases alter column note set default 'x', drop constraint total_small;
drop index app.orders_note_idx;
alter table app.purchases rename constraint code_once to code_twice;
--- DROP TABLE, CREATE TABLE (other columns) | ReversibleWithDataLoss
drop table app.lines;
create table app.lines (id int, note text);
--- DROP TABLE, CREATE TABLE (fewer columns) | ReversibleWithDataLoss
drop table app.lines;
create table app.lines (id int);
--- DROP TABLE, CREATE TABLE (another type) | ReversibleWithDataLoss
drop table app.lines;
create table app.lines (id bigint, order_id bigint);
--- DROP TABLE, CREATE TABLE (partitioned) | ReversibleWithDataLoss
drop table app.lines;
create table app.lines (id int, order_id bigint) partition by range (id);
--- DROP TABLE, CREATE TABLE (the same columns) | ReversibleWithDataLoss | once
drop table app.lines;
create table app.lines (id int, order_id bigint);
--- DROP SCHEMA CASCADE, CREATE all again | ReversibleWithDataLoss
create table other.things (id int);
drop schema empty_one;
create schema empty_one;
create table empty_one.things (id int);
--- ALTER TABLE RENAME (swap) | Reversible | once
alter table app.plain rename to tmp;
alter table app.lone rename to plain;
alter table app.tmp rename to lone;
--- ALTER TABLE RENAME CONSTRAINT | Reversible
alter table app.orders rename constraint total_small to total_not_big;
--- ALTER TABLE SET SCHEMA | Reversible
alter table app.plain set schema other;
--- ALTER TABLE SET SCHEMA (then changed) | Reversible
alter table app.plain set schema other;
alter table other.plain rename to plainer;
alter table other.plainer alter column note set default 'x';
--- ALTER TABLE OWNER TO | Reversible
alter table app.orders owner to rb_writer;
--- ALTER TABLE SET (storage parameters) | Reversible
alter table app.orders set (fillfactor = 90, parallel_workers = 2);
--- ALTER TABLE RESET (storage parameters) | Reversible
alter table app.orders reset (fillfactor, autovacuum_vacuum_scale_factor);
--- ALTER TABLE SET (toast parameters) | Reversible
alter table app.orders set (toast.autovacuum_enabled = off);
--- ALTER TABLE SET UNLOGGED | Reversible
alter table app.plain set unlogged;
--- ALTER TABLE SET LOGGED | NotNeeded
create unlogged table app.un (x int);
alter table app.un set logged;
drop table app.un;
--- ALTER TABLE CLUSTER ON | Reversible
alter table app.orders cluster on orders_note_idx;
--- ALTER TABLE SET WITHOUT CLUSTER | Reversible
alter table app.orders set without cluster;
--- ALTER TABLE REPLICA IDENTITY | Reversible
alter table app.orders replica identity full;
--- ALTER TABLE REPLICA IDENTITY NOTHING | Reversible
alter table app.lines replica identity nothing;
--- ALTER TABLE ENABLE ROW LEVEL SECURITY | Reversible
alter table app.orders enable row level security;
--- ALTER TABLE FORCE ROW LEVEL SECURITY | Reversible
alter table app.orders enable row level security, force row level security;
--- ALTER TABLE DISABLE ROW LEVEL SECURITY | Reversible
alter table app.orders disable row level security;
--- ALTER TABLE DISABLE TRIGGER | Reversible
alter table app.orders disable trigger touch;
--- ALTER TABLE ENABLE ALWAYS TRIGGER | Reversible
alter table app.orders enable always trigger touch;
--- ALTER TABLE DISABLE TRIGGER USER | Reversible
alter table app.orders disable trigger user;
--- ALTER TABLE DISABLE TRIGGER ALL | Reversible
alter table app.orders disable trigger all;
--- ALTER TABLE DISABLE RULE | Reversible
alter table app.lines disable rule no_delete;
--- ALTER TABLE INHERIT | Reversible
alter table app.lone_child inherit app.parent;
--- ALTER TABLE NO INHERIT | ReversibleWithDataLoss
alter table app.child no inherit app.parent;
alter table app.child alter column note set default 'x';
drop table app.child;
--- ALTER TABLE OF | Reversible
alter table app.plain of app.row_type;
--- ALTER TABLE NOT OF | Reversible
alter table app.typed not of;
--- ALTER TABLE ATTACH PARTITION | Reversible
alter table app.parted attach partition app.lone for values from ('2025-01-01') to ('2026-01-01');
--- ALTER TABLE DETACH PARTITION | Reversible
alter table app.parted detach partition app.parted_1;
--- ALTER TABLE DETACH PARTITION CONCURRENTLY | Reversible
alter table app.parted detach partition app.parted_1 concurrently;
--- ALTER TABLE DETACH PARTITION, DROP TABLE | ReversibleWithDataLoss
alter table app.parted detach partition app.parted_1;
drop table app.parted_1;
--- ALTER TABLE SET ACCESS METHOD | Reversible | since 15
alter table app.plain set access method heap;
--- ALTER TABLE SET TABLESPACE | Reversible
alter table app.plain set tablespace pg_default;
--- ALTER TABLE ALL IN TABLESPACE | NotNeeded
alter table all in tablespace pg_default owned by pg_monitor set tablespace pg_default;
--- ALTER TABLE SET WITHOUT OIDS | NotNeeded
alter table app.plain set without oids;
--- ALTER TABLE (several) | ReversibleWithDataLoss
alter table app.orders add column x int, alter column note set default 'a', add constraint c1 check (small > 0), drop constraint total_small, set (fillfactor = 55);
