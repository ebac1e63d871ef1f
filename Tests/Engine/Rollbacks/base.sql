-- Every family begins with this.
create schema app;
create schema other;
create schema empty_one;
create type app.mood as enum ('sad', 'ok');
create type app.pair as (a int, b text);
create domain app.positive as int check (value > 0);
create sequence app.numbers start 10 increment 2;
create table app.customers (id bigint primary key, email text constraint email_key unique, note text, active boolean default true);
create table app.orders (
    id bigint generated always as identity primary key,
    customer_id bigint references app.customers (id),
    total numeric(10, 2) not null default 0,
    doubled numeric generated always as (total * 2) stored,
    code varchar(20) collate "C",
    payload bytea,
    small smallint,
    at timestamptz default now(),
    mood app.mood default 'ok',
    p app.pair,
    note text,
    constraint total_small check (total < 1000000),
    constraint code_once unique (code, small));
create index orders_note_idx on app.orders (note);
create index orders_lower_idx on app.orders (lower(note) desc nulls last) include (total) where total > 0;
create table app.lines (id int, order_id bigint, constraint lines_order foreign key (order_id) references app.orders (id) on delete cascade);
create table app.parted (id int not null, at date not null, note text) partition by range (at);
create table app.parted_1 partition of app.parted for values from ('2024-01-01') to ('2025-01-01');
create table app.parent (id int, note text);
create table app.child (extra int) inherits (app.parent);
create view app.totals as select id, total from app.orders where total > 0;
create materialized view app.counted as select mood, count(*) as n from app.orders group by mood;
create unique index counted_mood on app.counted (mood);
create function app.twice(i int) returns int language sql immutable as 'select i * 2';
create function app.touched() returns trigger language plpgsql as $$ begin return new; end $$;
create procedure app.clean(n int) language plpgsql as $$ begin perform n; end $$;
create trigger touch before update on app.orders for each row execute function app.touched();
insert into app.customers (id, email) values (1, 'a@b'), (2, 'c@d');
insert into app.orders (customer_id, total, code, note) values (1, 1.5, 'x', 'n'), (2, 2.5, 'y', 'm');
comment on table app.orders is 'what was ordered';
comment on column app.orders.total is 'what it costs';
do $$
begin
    if to_regrole('rb_reader') is null then create role rb_reader; end if;
exception when duplicate_object or unique_violation then null;
end
$$;
do $$
begin
    if to_regrole('rb_writer') is null then create role rb_writer; end if;
exception when duplicate_object or unique_violation then null;
end
$$;
grant select on app.orders to rb_reader;
