do $$
begin
    if to_regrole('rb_group') is null then create role rb_group connection limit 5; end if;
exception when duplicate_object or unique_violation then null;
end
$$;
do $$ begin execute format('alter database %I set work_mem = ''5MB''', current_database()); end $$;
grant usage on schema app to rb_reader;
grant select (note) on app.customers to rb_writer with grant option;
alter default privileges in schema app grant select on tables to rb_reader;
alter table app.lines owner to rb_reader;
create function app.secret() returns int language sql as 'select 1';
--- GRANT | Reversible
grant insert, update on app.orders to rb_reader, rb_writer;
--- GRANT (granted before) | NotNeeded
grant select on app.orders to rb_reader;
--- GRANT ALL | Reversible
grant all on app.orders to rb_reader;
--- GRANT WITH GRANT OPTION | Reversible
grant select on app.orders to rb_reader with grant option;
--- GRANT (columns) | Reversible
grant select (id, note), update (note) on app.customers to rb_writer;
--- GRANT ON ALL TABLES IN SCHEMA | Reversible
grant select on all tables in schema app to rb_reader;
--- GRANT ON ALL SEQUENCES IN SCHEMA | Reversible
grant usage on all sequences in schema app to rb_reader;
--- GRANT ON ALL FUNCTIONS IN SCHEMA | Reversible
grant execute on all functions in schema app to rb_reader;
--- GRANT ON SCHEMA | Reversible
grant create on schema app to rb_reader;
--- GRANT ON SCHEMA (granted before) | NotNeeded
grant usage on schema app to rb_reader;
--- GRANT ON TYPE | Reversible
grant usage on type app.mood to rb_writer;
--- GRANT ON LANGUAGE | Reversible
grant usage on language plpgsql to rb_reader;
--- REVOKE | Reversible
revoke select on app.orders from rb_reader;
--- REVOKE (not granted before) | NotNeeded
revoke insert on app.orders from rb_reader;
--- REVOKE GRANT OPTION FOR | Reversible
revoke grant option for select (note) on app.customers from rb_writer;
--- REVOKE FROM PUBLIC | Reversible
revoke execute on function app.secret() from public;
--- REVOKE ALL IN SCHEMA | Reversible
revoke all on all tables in schema app from rb_reader;
--- GRANT (renamed before) | Reversible
alter table app.orders rename to purchases;
grant insert on app.purchases to rb_writer;
--- GRANT, REVOKE | Reversible
grant delete on app.orders to rb_writer;
revoke select on app.orders from rb_reader;
--- ALTER DEFAULT PRIVILEGES GRANT | Reversible
alter default privileges in schema app grant insert on tables to rb_writer;
--- ALTER DEFAULT PRIVILEGES REVOKE | Reversible
alter default privileges in schema app revoke select on tables from rb_reader;
--- ALTER DEFAULT PRIVILEGES (all schemas) | Reversible
alter default privileges revoke execute on functions from public;
--- ALTER DEFAULT PRIVILEGES (sequences) | Reversible
alter default privileges in schema app grant usage on sequences to rb_reader;
--- GRANT ROLE | Reversible
grant rb_group to rb_reader;
--- GRANT ROLE, REVOKE ROLE | Reversible
grant rb_group to rb_writer with admin option;
--- REVOKE ROLE | NotNeeded
revoke rb_group from rb_reader;
--- CREATE ROLE | Reversible
create role rb_passing login password 'x' connection limit 3;
--- CREATE USER | Reversible
create user rb_passing_user in role rb_group;
--- ALTER ROLE | Reversible
alter role rb_group createdb connection limit 9;
--- ALTER ROLE PASSWORD | Irreversible
alter role rb_group password 'secret';
--- ALTER ROLE SET | Reversible
alter role rb_group set statement_timeout = '5s';
--- ALTER ROLE IN DATABASE SET | Reversible
alter role rb_group in database postgres set work_mem = '8MB';
--- ALTER ROLE RESET | NotNeeded
alter role rb_group reset lock_timeout;
--- ALTER ROLE RENAME | Reversible
alter role rb_group rename to rb_group_new;
--- ALTER GROUP ADD USER | Reversible
alter group rb_group add user rb_writer;
--- DROP ROLE | Irreversible
drop role rb_group;
--- ALTER DATABASE SET | Reversible
alter database postgres set work_mem = '8MB';
--- ALTER DATABASE (connection limit) | Reversible
alter database postgres connection limit 50;
--- ALTER SYSTEM SET | Reversible
alter system set log_min_duration_statement = '5s';
--- ALTER SYSTEM RESET | NotNeeded
alter system reset log_lock_waits;
--- REASSIGN OWNED | Reversible
reassign owned by rb_reader to rb_writer;
--- DROP OWNED | Irreversible
drop owned by rb_reader;
--- CREATE DATABASE | ReversibleWithDataLoss
create database rb_passing_database;
--- DROP DATABASE | Irreversible
drop database postgres;
--- DROP TABLESPACE | Irreversible
drop tablespace pg_default;
--- COMMENT ON ROLE | Reversible
comment on role rb_group is 'a group';
