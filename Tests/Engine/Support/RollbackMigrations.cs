namespace MigrationSafety.Tests.Engine.Support;

/// <summary>Migrations of several statements that are taken back in full.</summary>
internal static class RollbackMigrations
{
    /// <summary>Migrations, and whether their text alone is enough to take them back in full.</summary>
    internal static readonly IReadOnlyDictionary<string, (string Sql, bool TextIsEnough)> All = new Dictionary<string, (string Sql, bool TextIsEnough)>
    {
        ["index"] = ("create index orders_total_idx on orders (total);", true),
        ["index, concurrently, unique, schema"] = ("create unique index concurrently items_u on only sales.items using btree (id desc nulls last) include (order_id) where id > 0;", false),
        ["index that may be there"] = ("create index concurrently if not exists orders_total_idx on orders (total); create index if not exists orders_note_idx on orders (note);", false),
        ["indexes without names"] = (
            """
            create index on orders (total);
            create index on orders (note);
            create index on orders (lower(note));
            create index on orders ((a + b));
            create index on orders ((a + b), (a - b));
            create index on orders (((data ->> 'a')::int));
            create index on orders ((note::varchar(10)));
            create index on orders (coalesce(a, b));
            create index on orders ((case when a > 0 then b else a end));
            create index on orders ((case when a > 0 then b end), (case when a > 0 then 1 else 2 end));
            create index on orders (a) include (b);
            create index on orders (date(ts at time zone 'utc'));
            create index on orders ((ts at time zone 'utc'));
            create index on orders (a, a);
            create index on orders (extract(year from ts at time zone 'utc'));
            create index on orders ((trim(note)), (trim(leading from note)), (substring(note from 1 for 2)));
            create index on orders ((cast(a as bigint)), ((a + b)::double precision), ((a || 'x')::text::character varying));
            create index on orders ((data -> 'x'));
            create index on orders ((note collate "C"));
            create index on orders (note collate "C" text_pattern_ops desc);
            create index on orders ((nullif(a, b)), (greatest(a, b)));
            create index on orders ((a is null));
            create index on orders ((array[a, b]));
            create index on orders ((-a));
            create index on orders ("Weird ""Col");
            create index on orders using gin (data jsonb_path_ops);
            create index on sales.items using gist (at);
            """, false),
        ["long names"] = (
            """
            alter table orders add column "a_column_with_a_name_that_is_quite_long_indeed_and_goes_on_and_on_" int,
                add column "ünïcödé_ünïcödé_ünïcödé_ünïcödé_ünïcödé" int;
            create index on orders ("a_column_with_a_name_that_is_quite_long_indeed_and_goes_on_and_on_");
            create index on orders ("ünïcödé_ünïcödé_ünïcödé_ünïcödé_ünïcödé", "a_column_with_a_name_that_is_quite_long_indeed_and_goes_on_and_on_", a);
            create index on orders ("ünïcödé_ünïcödé_ünïcödé_ünïcödé_ünïcödé", "a_column_with_a_name_that_is_quite_long_indeed_and_goes_on_and_on_");
            alter table orders add check ("a_column_with_a_name_that_is_quite_long_indeed_and_goes_on_and_on_" > 0);
            alter table orders add check ("a_column_with_a_name_that_is_quite_long_indeed_and_goes_on_and_on_" < 9);
            create index a_name_that_is_cut_because_it_is_longer_than_sixty_three_bytes_of_utf8 on customers (email);
            """, true),
        ["columns"] = (
            """
            ALTER TABLE orders
              ADD COLUMN tier text NOT NULL DEFAULT 'x' CHECK (tier <> ''),
              ADD "Order" timestamp (3) with time zone,
              ADD parent_id bigint REFERENCES customers (id) ON DELETE SET NULL,
              ADD COLUMN n bigint GENERATED ALWAYS AS (a * 2) STORED,
              ADD COLUMN seq serial;
            UPDATE orders SET tier = 'y', ("Order", parent_id) = (now(), 1) WHERE a = 1;
            CREATE INDEX ON orders (tier);
            """, true),
        ["columns that may be there"] = ("alter table orders add column if not exists note text, add column if not exists extra int;", false),
        ["constraints"] = (
            """
            alter table orders add constraint total_positive check (total > 0) not valid;
            alter table orders validate constraint total_positive;
            alter table only orders add constraint "The Key" unique (a, b), add constraint fk foreign key (customer_id) references customers not valid;
            alter table sales.items add constraint ex exclude using gist (at with &&) where (id > 0);
            alter table sales.items add foreign key (order_id) references customers (id) match full deferrable initially deferred;
            """, true),
        ["constraints without names"] = (
            """
            alter table orders add unique (a, b), add unique (a) include (b), add unique (a, b);
            alter table orders add check (a > 0), add check (a < 10), add check (a < b), add check (orders.a is not null and lower(note) <> 'q'::text);
            alter table orders add check ("Weird ""Col" > 1), add check (extract(year from ts at time zone 'utc') > 0), add check (true);
            alter table orders add exclude using btree ((a + b) with =, b with =);
            alter table orders add foreign key (customer_id) references customers, add foreign key (customer_id) references customers (id);
            """, false),
        ["primary key"] = ("alter table orders add primary key (id, a);", false),
        ["primary key from the script's own index"] = (
            """
            alter table orders add column k bigint generated by default as identity;
            create unique index concurrently orders_k on orders (k);
            alter table orders add constraint orders_key primary key using index orders_k;
            """, true),
        ["constraint that takes an older index"] = ("alter table orders add constraint orders_id_u unique using index orders_id_old;", false),
        ["tables"] = (
            """
            create table products (id bigint primary key, name text unique, parent bigint references products, customer_id bigint references customers);
            create index on products (name);
            alter table products add check (name <> ''), owner to current_user;
            comment on table products is 'x';
            comment on column products.name is 'y';
            insert into products values (1, 'a');
            create unlogged table if not exists "Sales"(x int);
            create table summary as select count(*) as n from orders;
            create table sales."Order Items" (like orders including all, constraint c check (a > 0));
            create temp table scratch (x int);
            create index on scratch (x);
            create table parted_2 partition of parted for values from ('2021-01-01') to ('2022-01-01');
            """, false),
        ["a transaction, and one that is rolled back"] = (
            """
            begin;
            set local lock_timeout = '1s';
            create table t1 (x int);
            savepoint s;
            alter table orders add column never int;
            rollback to s;
            alter table orders add column ever int;
            commit;
            begin;
            create table t2 (x int);
            rollback;
            """, true),
        ["search_path of its own"] = (
            """
            set search_path to sales;
            create table notes (x int);
            alter table items add column y int;
            create index on items (id);
            reset search_path;
            alter table orders add column y int;
            """, true),
        ["names that need quotation marks"] = (
            """
            create table "select" ("from" int, "a""b" int, "C:\d" int);
            alter table orders add column "order" int, add column ":x" int, add constraint "check" check ("order" > 0);
            create index "in dex; --" on orders ("order");
            """, true),
    };
}
