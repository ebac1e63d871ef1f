create sequence app.owned owned by app.customers.id;
create sequence app.used cache 5 cycle maxvalue 100;
create table app.counts (id int default nextval('app.used'));
select nextval('app.numbers');
--- CREATE SEQUENCE | Reversible
create sequence app.fresh as smallint increment by 5 start 100;
--- CREATE SEQUENCE IF NOT EXISTS | NotNeeded
create sequence if not exists app.numbers;
--- CREATE TEMPORARY SEQUENCE | NotNeeded
create temp sequence passing;
--- CREATE SEQUENCE OWNED BY | Reversible
create sequence app.fresh owned by app.orders.small;
--- ALTER SEQUENCE (options) | Reversible
alter sequence app.numbers increment by 7 maxvalue 1000 cycle cache 10;
--- ALTER SEQUENCE AS | Reversible
alter sequence app.numbers as integer;
--- ALTER SEQUENCE RESTART | Reversible
alter sequence app.numbers restart with 500;
--- ALTER SEQUENCE OWNED BY | Reversible
alter sequence app.owned owned by none;
--- ALTER SEQUENCE OWNED BY (none before) | Reversible
alter sequence app.numbers owned by app.orders.small;
--- ALTER SEQUENCE RENAME | Reversible
alter sequence app.used rename to spent;
--- ALTER SEQUENCE SET SCHEMA | Reversible
alter sequence app.numbers set schema other;
--- ALTER SEQUENCE OWNER TO | Reversible
alter sequence app.numbers owner to rb_writer;
--- ALTER SEQUENCE SET UNLOGGED | Reversible | since 15
alter sequence app.numbers set unlogged;
--- DROP SEQUENCE | Reversible
drop sequence app.numbers;
--- DROP SEQUENCE CASCADE | Reversible
drop sequence app.used cascade;
--- COMMENT ON SEQUENCE | Reversible
comment on sequence app.numbers is 'counts';
--- GRANT ON SEQUENCE | Reversible
grant usage on sequence app.numbers to rb_reader;
