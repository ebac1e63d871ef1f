create table app.seeds (id int, kind text, note text, primary key (id, kind));
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
copy app.lines from '/nowhere';
--- WITH DELETE | Irreversible
with gone as (delete from app.lines returning *) insert into app.seeds select id, 'a', 'b' from gone;
--- SELECT | Unknown
select setval('app.numbers', 100);
--- DO | Unknown
do $$ begin perform 1; end $$;
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
