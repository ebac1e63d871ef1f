alter table app.orders alter column payload set storage external, alter column code set statistics 250, alter column note set (n_distinct = 5);
create table app.filled (id int primary key, must text not null, other int);
insert into app.filled values (1, 'x', 2);
create table app.checked (id int, size varchar(5), constraint size_known check (size in ('s', 'm')), constraint size_new check (size <> 'x') not valid);
insert into app.checked values (1, 's');
--- ALTER TABLE ADD COLUMN | ReversibleWithDataLoss
alter table app.orders add column tier text;
--- ALTER TABLE ADD COLUMN (all that it may have) | ReversibleWithDataLoss
alter table app.orders
    add column a text not null default 'x' check (a <> ''),
    add column "Order" timestamp(3) with time zone,
    add column parent_id bigint references app.customers (id) on delete set null,
    add column n bigint generated always as (small * 2) stored,
    add column seq serial unique;
update app.orders set a = 'y', "Order" = now() where id = 1;
create index on app.orders (a);
--- ALTER TABLE ADD COLUMN IF NOT EXISTS | NotNeeded
alter table app.orders add column if not exists note text;
--- ALTER TABLE ADD COLUMN IF NOT EXISTS (new) | ReversibleWithDataLoss
alter table app.orders add column if not exists extra int;
--- ALTER TABLE ADD COLUMN (partitioned) | ReversibleWithDataLoss
alter table app.parted add column x int;
--- ALTER TABLE ADD COLUMN (inherited) | ReversibleWithDataLoss
alter table app.parent add column x int;
--- ALTER TABLE ADD COLUMN (then changed) | ReversibleWithDataLoss
alter table app.orders add column x int;
alter table app.orders alter column x type bigint;
update app.orders set x = 1;
alter table app.orders alter column x set default 5, alter column x set not null;
alter table app.orders rename column x to y;
alter table app.orders alter column y drop default;
--- ALTER TABLE ADD COLUMN (dropped again) | NotNeeded
alter table app.orders add column x int;
alter table app.orders drop column x;
--- ALTER TABLE ADD COLUMN (in the place of another) | ReversibleWithDataLoss
alter table app.orders rename column note to note_old;
alter table app.orders add column note text;
--- ALTER TABLE DROP COLUMN | ReversibleWithDataLoss | moves
alter table app.orders drop column payload;
--- ALTER TABLE DROP COLUMN (with index) | ReversibleWithDataLoss | moves
alter table app.customers drop column email;
--- ALTER TABLE DROP COLUMN (last) | ReversibleWithDataLoss | moves
alter table app.customers drop column active;
--- ALTER TABLE DROP COLUMN (NOT NULL without default, rows there) | ReversibleWithDataLoss | moves | differs
alter table app.filled drop column must;
--- ALTER TABLE DROP COLUMN CASCADE | ReversibleWithDataLoss | moves
alter table app.orders drop column total cascade;
--- ALTER TABLE DROP COLUMN (generated) | ReversibleWithDataLoss | moves
alter table app.orders drop column doubled;
--- ALTER TABLE DROP COLUMN (identity, primary key) | ReversibleWithDataLoss | moves
alter table app.lines drop constraint lines_order;
drop view app.totals;
alter table app.orders drop column id;
--- ALTER TABLE DROP COLUMN IF EXISTS | NotNeeded
alter table app.orders drop column if exists nothing;
--- ALTER TABLE DROP COLUMN (renamed before) | ReversibleWithDataLoss | moves
alter table app.orders rename column code to kode;
alter table app.orders drop column kode;
--- ALTER TABLE DROP COLUMN, ADD COLUMN | ReversibleWithDataLoss | moves
alter table app.customers drop column note, add column note int;
--- ALTER TABLE ALTER COLUMN SET DATA TYPE (wider) | Reversible
alter table app.orders alter column small type integer;
--- ALTER TABLE ALTER COLUMN SET DATA TYPE (varchar) | Reversible
alter table app.orders alter column code set data type varchar(50) collate "C";
--- ALTER TABLE ALTER COLUMN SET DATA TYPE (text) | Reversible
alter table app.orders alter column code type text collate "C";
--- ALTER TABLE ALTER COLUMN SET DATA TYPE (collation) | Reversible
alter table app.orders alter column code type varchar(20) collate "POSIX";
--- ALTER TABLE ALTER COLUMN SET DATA TYPE (narrower) | ReversibleWithDataLoss
alter table app.orders alter column at type timestamptz(0);
--- ALTER TABLE ALTER COLUMN SET DATA TYPE USING | ReversibleWithDataLoss
alter table app.orders alter column small type text using 'n' || small;
--- ALTER TABLE ALTER COLUMN SET DATA TYPE (default, enum) | Reversible
drop materialized view app.counted;
alter table app.orders alter column mood drop default;
alter table app.orders alter column mood type text;
alter table app.orders alter column mood set default 'fine';
--- ALTER TABLE ALTER COLUMN SET DATA TYPE (a check on it) | Reversible
alter table app.checked alter column size type text;
--- ALTER TABLE ALTER COLUMN SET DATA TYPE (a check on it, column renamed) | Reversible
alter table app.checked rename column size to sized;
alter table app.checked alter column sized type text;
--- ALTER TABLE ALTER COLUMN SET DATA TYPE (toast) | ReversibleWithDataLoss
alter table app.orders alter column payload type text using encode(payload, 'hex');
--- ALTER TABLE ALTER COLUMN SET DEFAULT | Reversible
alter table app.orders alter column total set default 5;
--- ALTER TABLE ALTER COLUMN SET DEFAULT (none before) | Reversible
alter table app.orders alter column note set default 'x';
--- ALTER TABLE ALTER COLUMN SET DEFAULT (twice) | Reversible
alter table app.orders alter column total set default 5;
alter table app.orders alter column total set default 6;
--- ALTER TABLE ALTER COLUMN DROP DEFAULT | Reversible
alter table app.orders alter column total drop default;
--- ALTER TABLE ALTER COLUMN DROP DEFAULT (renamed) | Reversible
alter table app.orders rename to purchases;
alter table app.purchases rename column total to sum;
alter table app.purchases alter column sum drop default;
--- ALTER TABLE ALTER COLUMN SET NOT NULL | Reversible
alter table app.orders alter column note set not null;
--- ALTER TABLE ALTER COLUMN DROP NOT NULL | Reversible
alter table app.orders alter column total drop not null;
--- ALTER TABLE ALTER COLUMN DROP EXPRESSION | Irreversible
alter table app.orders alter column doubled drop expression;
--- ALTER TABLE ALTER COLUMN SET EXPRESSION | Reversible | since 17
alter table app.orders alter column doubled set expression as (total * 3);
--- ALTER TABLE ALTER COLUMN ADD GENERATED AS IDENTITY | Reversible
alter table app.customers alter column id add generated by default as identity (start 100);
--- ALTER TABLE ALTER COLUMN SET GENERATED | Reversible
alter table app.orders alter column id set generated by default;
--- ALTER TABLE ALTER COLUMN SET (identity's sequence) | Reversible
alter table app.orders alter column id set increment by 5 set cache 3;
--- ALTER TABLE ALTER COLUMN RESTART | Reversible
alter table app.orders alter column id restart with 100;
--- ALTER TABLE ALTER COLUMN DROP IDENTITY | Reversible
alter table app.orders alter column id drop identity;
--- ALTER TABLE ALTER COLUMN SET STATISTICS | Reversible
alter table app.orders alter column note set statistics 500;
--- ALTER TABLE ALTER COLUMN SET STATISTICS (set before) | Reversible
alter table app.orders alter column code set statistics 500;
--- ALTER TABLE ALTER COLUMN SET STORAGE | Reversible
alter table app.orders alter column note set storage main;
--- ALTER TABLE ALTER COLUMN SET STORAGE (set before) | Reversible
alter table app.orders alter column payload set storage plain;
--- ALTER TABLE ALTER COLUMN SET COMPRESSION | Reversible
alter table app.orders alter column note set compression pglz;
--- ALTER TABLE ALTER COLUMN SET (n_distinct) | Reversible
alter table app.orders alter column code set (n_distinct = 10, n_distinct_inherited = 3);
--- ALTER TABLE ALTER COLUMN RESET (n_distinct) | Reversible
alter table app.orders alter column note reset (n_distinct);
--- ALTER TABLE RENAME COLUMN | Reversible
alter table app.orders rename column note to remark;
--- ALTER TABLE DROP COLUMN, ADD COLUMN (another type) | ReversibleWithDataLoss | moves
alter table app.orders drop column payload;
alter table app.orders add column payload text;
--- ALTER TABLE DROP COLUMN, ADD COLUMN (in one) | ReversibleWithDataLoss | moves
alter table app.orders drop column payload, add column payload int;
--- ALTER TABLE DROP COLUMN, ADD COLUMN (the same type) | ReversibleWithDataLoss | moves | once
alter table app.orders drop column payload;
alter table app.orders add column payload bytea;
--- ALTER TABLE RENAME COLUMN (swap) | Reversible | once
alter table app.orders rename column note to tmp;
alter table app.orders rename column code to note;
alter table app.orders rename column tmp to code;
--- ALTER TABLE IF EXISTS RENAME COLUMN | Reversible
alter table if exists app.parent rename note to remark;
