create extension citext schema other;
create extension hstore;
create table app.uses (c other.citext);
create schema filled;
create table filled.t (id int primary key, note text default 'x');
create view filled.v as select id from filled.t;
create foreign data wrapper nothing options (a '1');
create server away foreign data wrapper nothing options (host 'example.org');
create foreign table app.far (id int options (name 'x'), note text) server away options (far 'yes');
create user mapping for rb_reader server away options (user 'u');
create publication news for table app.lines, app.parent;
create language plx handler plpgsql_call_handler;
comment on schema app is 'the app';
create extension postgres_fdw;
do $$ begin execute format('create server loop foreign data wrapper postgres_fdw options (host ''127.0.0.1'', port %L, dbname %L)', current_setting('port'), current_database()); end $$;
create user mapping for current_user server loop options (user 'postgres', password 'x');
--- CREATE SCHEMA | Reversible
create schema fresh;
--- CREATE SCHEMA IF NOT EXISTS | NotNeeded
create schema if not exists app;
--- CREATE SCHEMA AUTHORIZATION | Reversible
create schema fresh authorization rb_writer;
--- CREATE SCHEMA (with elements) | ReversibleWithDataLoss
create schema fresh create table t (x int) create view v as select x from t;
--- CREATE SCHEMA (and what is in it) | ReversibleWithDataLoss
create schema fresh;
create table fresh.t (id int primary key);
create function fresh.f() returns int language sql as 'select 1';
create type fresh.e as enum ('a');
--- ALTER SCHEMA RENAME | Reversible
alter schema filled rename to full_one;
--- ALTER SCHEMA RENAME (then changed) | Reversible
alter schema filled rename to full_one;
alter table full_one.t alter column note drop default;
--- ALTER SCHEMA OWNER TO | Reversible
alter schema filled owner to rb_writer;
--- DROP SCHEMA | Reversible
drop schema empty_one;
--- DROP SCHEMA CASCADE | ReversibleWithDataLoss
drop schema filled cascade;
--- DROP SCHEMA IF EXISTS | NotNeeded
drop schema if exists nothing;
--- COMMENT ON SCHEMA | Reversible
comment on schema app is null;
--- CREATE EXTENSION | Reversible
create extension pg_trgm;
--- CREATE EXTENSION IF NOT EXISTS | NotNeeded
create extension if not exists citext;
--- ALTER EXTENSION SET SCHEMA | Reversible
alter extension citext set schema app;
--- ALTER EXTENSION ADD | Reversible
alter extension citext add function app.twice(int);
--- ALTER EXTENSION UPDATE | NotNeeded
alter extension citext update;
--- DROP EXTENSION | Reversible
drop extension hstore;
--- DROP EXTENSION CASCADE | ReversibleWithDataLoss | moves
drop extension citext cascade;
--- ALTER FUNCTION DEPENDS ON EXTENSION | Reversible
alter function app.twice(int) depends on extension hstore;
--- CREATE FOREIGN DATA WRAPPER | Reversible
create foreign data wrapper other_one;
--- ALTER FOREIGN DATA WRAPPER | Reversible
alter foreign data wrapper nothing options (set a '2', add b '3');
--- ALTER FOREIGN DATA WRAPPER RENAME | Reversible
alter foreign data wrapper nothing rename to anything;
--- CREATE SERVER | Reversible
create server there type 'x' version '1' foreign data wrapper nothing;
--- ALTER SERVER OPTIONS | Reversible
alter server away options (set host 'example.com', add port '5');
--- ALTER SERVER RENAME | Reversible
alter server away rename to near;
--- ALTER SERVER OWNER TO | Reversible
alter server away owner to current_user;
--- DROP SERVER CASCADE | Reversible
drop server away cascade;
--- CREATE USER MAPPING | Reversible
create user mapping for public server away;
--- ALTER USER MAPPING | Reversible
alter user mapping for rb_reader server away options (set user 'v');
--- DROP USER MAPPING | Reversible
drop user mapping for rb_reader server away;
--- CREATE FOREIGN TABLE | Reversible
create foreign table app.far_too (id int) server away;
--- ALTER FOREIGN TABLE ADD COLUMN | ReversibleWithDataLoss
alter foreign table app.far add column x int;
--- ALTER FOREIGN TABLE DROP COLUMN | ReversibleWithDataLoss
alter foreign table app.far drop column note;
--- ALTER FOREIGN TABLE OPTIONS | Reversible
alter foreign table app.far options (set far 'no', add near 'yes');
--- ALTER FOREIGN TABLE ALTER COLUMN OPTIONS | Reversible
alter foreign table app.far alter column id options (set name 'y');
--- ALTER FOREIGN TABLE ALTER COLUMN TYPE | Reversible
alter foreign table app.far alter column id type bigint;
--- ALTER FOREIGN TABLE RENAME | Reversible
alter foreign table app.far rename to farther;
--- ALTER FOREIGN TABLE SET SCHEMA | Reversible
alter foreign table app.far set schema other;
--- DROP FOREIGN TABLE | Reversible
drop foreign table app.far;
--- DROP FOREIGN DATA WRAPPER CASCADE | Reversible
drop foreign data wrapper nothing cascade;
--- IMPORT FOREIGN SCHEMA | Reversible
import foreign schema app from server loop into empty_one;
--- CREATE PUBLICATION | Reversible
create publication all_of_it for all tables with (publish = 'insert');
--- CREATE PUBLICATION FOR TABLE | Reversible
create publication partly for table app.orders;
--- CREATE PUBLICATION FOR TABLES IN SCHEMA | Reversible | since 15
create publication partly for tables in schema app;
--- ALTER PUBLICATION ADD TABLE | Reversible
alter publication news add table app.orders;
--- ALTER PUBLICATION DROP TABLE | Reversible
alter publication news drop table app.lines;
--- ALTER PUBLICATION SET | Reversible
alter publication news set (publish = 'insert, update');
--- ALTER PUBLICATION RENAME | Reversible
alter publication news rename to olds;
--- ALTER PUBLICATION OWNER TO | Reversible
alter publication news owner to current_user;
--- DROP PUBLICATION | Reversible
drop publication news;
--- CREATE SUBSCRIPTION | Reversible
create subscription sub connection 'dbname=nowhere' publication news with (connect = false, slot_name = none);
--- CREATE ACCESS METHOD | Reversible
create access method heap_too type table handler heap_tableam_handler;
--- CREATE LANGUAGE | Reversible
create language ply handler plpgsql_call_handler;
--- DROP LANGUAGE | Reversible
drop language plx;
--- CREATE TRANSFORM | Reversible
create transform for int language sql (from sql with function prsd_lextype(internal));
