create function app.sum_up(a int, b int default 1) returns int language sql stable cost 50 set search_path = app as 'select a + b';
create function app.over(a int) returns int language sql as 'select a';
create function app.over(a text) returns text language sql as 'select a';
create function app.rows_of(out id int, out note text) returns setof record language sql as 'select 1, ''x''';
create function app.atomic(i int) returns int language sql begin atomic select i; select i + 1; end;
create aggregate app.total(int) (sfunc = int4pl, stype = int, initcond = '0');
create view app.doubled as select app.twice(1) as two;
create trigger second after insert on app.lines for each statement execute function app.touched();
create constraint trigger checked after insert on app.lines deferrable initially deferred for each row execute function app.touched();
alter table app.lines disable trigger second;
create rule keep as on delete to app.lines where old.id > 5 do instead nothing;
create policy mine on app.orders for select to rb_reader using (total > 0);
create function app.announced() returns event_trigger language plpgsql as $$ begin end $$;
create event trigger announce on ddl_command_end when tag in ('CREATE CONVERSION') execute function app.announced();
comment on function app.twice(int) is 'doubles';
grant execute on function app.twice(int) to rb_reader;
revoke execute on function app.over(int) from public;
--- CREATE FUNCTION | Reversible
create function app.fresh(x int, variadic y text[]) returns int language sql as 'select 1';
--- CREATE FUNCTION (BEGIN ATOMIC) | Reversible
create function app.fresh(x int) returns int language sql begin atomic select x; select case when x > 1 then 2 else 3 end; end;
--- CREATE OR REPLACE FUNCTION (BEGIN ATOMIC) | Reversible
create or replace function app.atomic(i int) returns int language sql begin atomic select 1; select i * 2; end;
--- DROP FUNCTION (BEGIN ATOMIC) | Reversible
drop function app.atomic(int);
--- CREATE PROCEDURE (BEGIN ATOMIC) | Reversible
create procedure app.refill(n int) begin atomic insert into app.lines values (n, 1); delete from app.lines where id = n; end;
--- CREATE FUNCTION (out arguments) | Reversible
create function app.fresh(in a int, out b int, inout c text default 'x') language sql as 'select 1, c';
--- CREATE FUNCTION RETURNS TABLE | Reversible
create function app.fresh() returns table (a int, b text) language sql as 'select 1, ''x''';
--- CREATE OR REPLACE FUNCTION (new) | Reversible
create or replace function app.fresh(x timestamp with time zone) returns int language sql as 'select 1';
--- CREATE OR REPLACE FUNCTION | Reversible
create or replace function app.twice(i int) returns int language plpgsql volatile as $$ begin return i + i; end $$;
--- CREATE OR REPLACE FUNCTION (default added) | Reversible
create or replace function app.twice(i int default 5) returns int language sql as 'select i';
--- CREATE OR REPLACE FUNCTION (settings) | Reversible
create or replace function app.sum_up(a int, b int default 2) returns int language sql as 'select a';
--- DROP FUNCTION | Reversible
drop function app.sum_up(int, int);
--- DROP FUNCTION (no arguments) | Reversible
drop function app.sum_up;
--- DROP FUNCTION (overloaded) | Reversible
drop function app.over(integer);
--- DROP FUNCTION CASCADE | Reversible
drop function app.twice(int) cascade;
--- DROP FUNCTION IF EXISTS | NotNeeded
drop function if exists app.nothing(int);
--- DROP FUNCTION, CREATE FUNCTION | Reversible
drop function app.sum_up(int, int);
create function app.sum_up(a int, b int) returns bigint language sql as 'select 1::bigint';
--- ALTER FUNCTION (options) | Reversible
alter function app.sum_up(int, int) immutable cost 5 set work_mem = '1MB' security definer;
--- ALTER FUNCTION RESET ALL | Reversible
alter function app.sum_up reset all;
--- ALTER FUNCTION RENAME | Reversible
alter function app.sum_up(int, int) rename to add_up;
--- ALTER FUNCTION RENAME (then replaced) | Reversible
alter function app.sum_up(int, int) rename to add_up;
alter function app.add_up(int, int) immutable;
--- ALTER FUNCTION SET SCHEMA | Reversible
alter function app.sum_up(int, int) set schema other;
--- ALTER FUNCTION OWNER TO | Reversible
alter function app.sum_up(int, int) owner to rb_writer;
--- COMMENT ON FUNCTION | Reversible
comment on function app.twice(int) is 'other';
--- GRANT ON FUNCTION | Reversible
grant execute on function app.over(int) to rb_reader with grant option;
--- REVOKE ON FUNCTION | Reversible
revoke all on function app.twice(int) from rb_reader, public;
--- CREATE PROCEDURE | Reversible
create procedure app.work(a int, out b int) language plpgsql as $$ begin b := a; end $$;
--- CREATE OR REPLACE PROCEDURE | Reversible
create or replace procedure app.clean(n int) language plpgsql as $$ begin null; end $$;
--- ALTER PROCEDURE | Reversible
alter procedure app.clean(int) security definer;
--- ALTER PROCEDURE RENAME | Reversible
alter procedure app.clean(int) rename to sweep;
--- DROP PROCEDURE | Reversible
drop procedure app.clean(int);
--- ALTER ROUTINE | Reversible
alter routine app.clean(int) owner to rb_writer;
--- DROP ROUTINE | Reversible
drop routine app.sum_up;
--- CREATE AGGREGATE | Reversible
create aggregate app.product(float8) (sfunc = float8mul, stype = float8, initcond = '1');
--- CREATE AGGREGATE (old form) | Reversible
create aggregate app.product (basetype = float8, sfunc = float8mul, stype = float8, initcond = '1');
--- CREATE OR REPLACE AGGREGATE | Reversible
create or replace aggregate app.total(int) (sfunc = int4pl, stype = int, initcond = '5');
--- ALTER AGGREGATE RENAME | Reversible
alter aggregate app.total(int) rename to grand;
--- ALTER AGGREGATE OWNER TO | Reversible
alter aggregate app.total(int) owner to rb_writer;
--- ALTER AGGREGATE SET SCHEMA | Reversible
alter aggregate app.total(int) set schema other;
--- DROP AGGREGATE | Reversible
drop aggregate app.total(int);
--- CREATE TRIGGER | Reversible
create trigger other before insert or update of note on app.orders for each row when (new.total > 1) execute function app.touched();
--- CREATE CONSTRAINT TRIGGER | Reversible
create constraint trigger other after insert on app.orders deferrable for each row execute function app.touched();
--- CREATE OR REPLACE TRIGGER | Reversible
create or replace trigger touch before insert on app.orders for each row execute function app.touched();
--- CREATE OR REPLACE TRIGGER (disabled before) | Reversible
create or replace trigger second before delete on app.lines for each row execute function app.touched();
--- ALTER TRIGGER RENAME | Reversible
alter trigger touch on app.orders rename to touching;
--- DROP TRIGGER | Reversible
drop trigger second on app.lines;
--- DROP TRIGGER (constraint) | Reversible
drop trigger checked on app.lines;
--- DROP TRIGGER IF EXISTS | NotNeeded
drop trigger if exists nothing on app.lines;
--- DROP TRIGGER (renamed before) | Reversible
alter trigger touch on app.orders rename to touching;
drop trigger touching on app.orders;
--- COMMENT ON TRIGGER | Reversible
comment on trigger touch on app.orders is 'touches';
--- CREATE RULE | Reversible
create rule other as on insert to app.lines do also select 1;
--- CREATE OR REPLACE RULE | Reversible
create or replace rule keep as on delete to app.lines do instead nothing;
--- ALTER RULE RENAME | Reversible
alter rule keep on app.lines rename to kept;
--- DROP RULE | Reversible
drop rule keep on app.lines;
--- CREATE POLICY | Reversible
create policy other on app.orders as restrictive for update to public using (total > 1) with check (total > 2);
--- ALTER POLICY | Reversible
alter policy mine on app.orders to public using (total > 10);
--- ALTER POLICY RENAME | Reversible
alter policy mine on app.orders rename to yours;
--- DROP POLICY | Reversible
drop policy mine on app.orders;
--- CREATE EVENT TRIGGER | Reversible
create event trigger other on sql_drop when tag in ('DROP CONVERSION') execute function app.announced();
--- ALTER EVENT TRIGGER DISABLE | Reversible
alter event trigger announce disable;
--- ALTER EVENT TRIGGER RENAME | Reversible
alter event trigger announce rename to proclaim;
--- DROP EVENT TRIGGER | Reversible
drop event trigger announce;
