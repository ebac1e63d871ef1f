create type app.span as range (subtype = float8, subtype_diff = float8mi);
create type app.unused as enum ('a', 'b');
create type app.lonely as (a int, b text);
create domain app.short as text default 'x' constraint short_length check (length(value) < 10);
create domain app.loose as int;
alter domain app.loose add constraint small_one check (value < 100) not valid;
create table app.shorts (s app.short, l app.loose);
create collation app.swiss (provider = icu, locale = 'de-CH');
create cast (app.pair as text) with inout;
create operator app.=== (leftarg = int, rightarg = int, function = int4eq);
create operator family app.fam using btree;
create operator class app.odd_ops for type int using btree family app.fam as operator 1 <, operator 3 =, function 1 btint4cmp(int, int);
alter operator family app.fam using btree add operator 1 < (int8, int4), function 1 btint84cmp(int8, int4);
create text search dictionary app.words (template = simple, accept = false);
create text search configuration app.plain (copy = pg_catalog.simple);
create conversion app.convert for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8;
comment on type app.mood is 'moods';
--- CREATE TYPE AS ENUM | Reversible
create type app.color as enum ('red', 'green');
--- CREATE TYPE AS | Reversible
create type app.triple as (a int, b text, c date);
--- CREATE TYPE AS RANGE | Reversible
create type app.dates as range (subtype = date);
--- CREATE TYPE (base) | Reversible
create type app.box;
create function app.box_in(cstring) returns app.box language internal immutable strict as 'textin';
create function app.box_out(app.box) returns cstring language internal immutable strict as 'textout';
create type app.box (input = app.box_in, output = app.box_out, internallength = variable, like = text);
--- ALTER TYPE ADD VALUE | Irreversible
alter type app.mood add value 'happy' after 'ok';
--- ALTER TYPE ADD VALUE IF NOT EXISTS | NotNeeded
alter type app.mood add value if not exists 'sad';
--- ALTER TYPE ADD VALUE (made by the script) | Reversible
create type app.color as enum ('red');
alter type app.color add value 'blue';
--- ALTER TYPE RENAME VALUE | Reversible
alter type app.mood rename value 'sad' to 'gloomy';
--- ALTER TYPE RENAME | Reversible
alter type app.mood rename to temper;
--- ALTER TYPE SET SCHEMA | Reversible
alter type app.mood set schema other;
--- ALTER TYPE OWNER TO | Reversible
alter type app.mood owner to rb_writer;
--- ALTER TYPE ADD ATTRIBUTE | ReversibleWithDataLoss
alter type app.pair add attribute c date;
--- ALTER TYPE DROP ATTRIBUTE | ReversibleWithDataLoss
alter type app.lonely drop attribute b;
--- ALTER TYPE ALTER ATTRIBUTE TYPE | Reversible
alter type app.lonely alter attribute a type bigint;
--- ALTER TYPE RENAME ATTRIBUTE | Reversible
alter type app.pair rename attribute a to alpha;
--- DROP TYPE (enum) | Reversible
drop type app.unused;
--- DROP TYPE (composite) | Reversible
drop type app.lonely;
--- DROP TYPE (range) | Reversible
drop type app.span;
--- DROP TYPE CASCADE | ReversibleWithDataLoss | moves
drop type app.pair cascade;
--- DROP TYPE IF EXISTS | NotNeeded
drop type if exists app.nothing;
--- DROP TYPE, CREATE TYPE | Reversible
drop type app.unused;
create type app.unused as enum ('c', 'd');
--- COMMENT ON TYPE | Reversible
comment on type app.mood is null;
--- GRANT ON TYPE | Reversible
grant usage on type app.mood to rb_reader;
--- CREATE DOMAIN | Reversible
create domain app.email as text collate "C" not null default 'x' check (value like '%@%');
--- ALTER DOMAIN SET DEFAULT | Reversible
alter domain app.short set default 'y';
--- ALTER DOMAIN DROP DEFAULT | Reversible
alter domain app.short drop default;
--- ALTER DOMAIN SET NOT NULL | Reversible
alter domain app.short set not null;
--- ALTER DOMAIN ADD CONSTRAINT | Reversible
alter domain app.short add constraint nonempty check (value <> '');
--- ALTER DOMAIN ADD CHECK (no name) | Reversible
alter domain app.short add check (value <> '');
--- ALTER DOMAIN DROP CONSTRAINT | Reversible
alter domain app.short drop constraint short_length;
--- ALTER DOMAIN VALIDATE CONSTRAINT | Reversible
alter domain app.loose validate constraint small_one;
--- ALTER DOMAIN RENAME CONSTRAINT | Reversible
alter domain app.short rename constraint short_length to long_length;
--- ALTER DOMAIN RENAME | Reversible
alter domain app.short rename to brief;
--- ALTER DOMAIN SET SCHEMA | Reversible
alter domain app.short set schema other;
--- ALTER DOMAIN OWNER TO | Reversible
alter domain app.short owner to rb_writer;
--- DROP DOMAIN | Reversible
drop domain app.positive;
--- COMMENT ON DOMAIN | Reversible
comment on domain app.short is 'short';
--- COMMENT ON CONSTRAINT (domain) | Reversible
comment on constraint short_length on domain app.short is 'ten';
--- CREATE COLLATION | Reversible
create collation app.french (provider = icu, locale = 'fr-FR');
--- CREATE COLLATION FROM | Reversible
create collation app.german from app.swiss;
--- ALTER COLLATION RENAME | Reversible
alter collation app.swiss rename to helvetic;
--- ALTER COLLATION SET SCHEMA | Reversible
alter collation app.swiss set schema other;
--- ALTER COLLATION REFRESH VERSION | NotNeeded
alter collation app.swiss refresh version;
--- DROP COLLATION | Reversible
drop collation app.swiss;
--- CREATE CAST | Reversible
create cast (app.mood as int) with inout as assignment;
--- DROP CAST | Reversible
drop cast (app.pair as text);
--- CREATE OPERATOR | Reversible
create operator app.<<<>>> (leftarg = int, rightarg = int, function = int4lt);
--- CREATE OPERATOR (prefix) | Reversible
create operator app.!!! (rightarg = int, function = int4um);
--- ALTER OPERATOR OWNER TO | Reversible
alter operator app.=== (int, int) owner to rb_writer;
--- ALTER OPERATOR SET SCHEMA | Reversible
alter operator app.=== (int, int) set schema other;
--- ALTER OPERATOR SET | Reversible
alter operator app.=== (int, int) set (restrict = eqsel, join = eqjoinsel);
--- DROP OPERATOR | Reversible
drop operator app.=== (int, int);
--- CREATE OPERATOR FAMILY | Reversible
create operator family app.family using hash;
--- ALTER OPERATOR FAMILY ADD | Reversible
alter operator family app.fam using btree add operator 1 < (int4, int8), function 1 btint48cmp(int4, int8);
--- ALTER OPERATOR FAMILY DROP | Reversible
alter operator family app.fam using btree drop operator 1 (int8, int4), function 1 (int8, int4);
--- ALTER OPERATOR FAMILY RENAME | Reversible
alter operator family app.fam using btree rename to folk;
--- CREATE OPERATOR CLASS | Reversible
create operator class app.even_ops for type int using btree as operator 2 <=, function 1 btint4cmp(int, int);
--- ALTER OPERATOR CLASS RENAME | Reversible
alter operator class app.odd_ops using btree rename to strange_ops;
--- ALTER OPERATOR CLASS SET SCHEMA | Reversible
alter operator class app.odd_ops using btree set schema other;
--- DROP OPERATOR CLASS | Reversible
drop operator class app.odd_ops using btree;
--- DROP OPERATOR FAMILY CASCADE | Reversible
drop operator family app.fam using btree cascade;
--- CREATE TEXT SEARCH CONFIGURATION | Reversible
create text search configuration app.mine (copy = pg_catalog.english);
--- ALTER TEXT SEARCH CONFIGURATION ADD MAPPING | Reversible
alter text search configuration app.plain drop mapping for email;
alter text search configuration app.plain add mapping for email with app.words;
--- ALTER TEXT SEARCH CONFIGURATION ALTER MAPPING | Reversible
alter text search configuration app.plain alter mapping for word, asciiword with app.words, pg_catalog.simple;
--- ALTER TEXT SEARCH CONFIGURATION ALTER MAPPING REPLACE | Reversible
alter text search configuration app.plain alter mapping replace pg_catalog.simple with app.words;
--- ALTER TEXT SEARCH CONFIGURATION DROP MAPPING | Reversible
alter text search configuration app.plain drop mapping if exists for url, host;
--- ALTER TEXT SEARCH CONFIGURATION RENAME | Reversible
alter text search configuration app.plain rename to simple_one;
--- DROP TEXT SEARCH CONFIGURATION | Reversible
drop text search configuration app.plain;
--- CREATE TEXT SEARCH DICTIONARY | Reversible
create text search dictionary app.more (template = simple);
--- ALTER TEXT SEARCH DICTIONARY | Reversible
alter text search dictionary app.words (accept = true);
--- ALTER TEXT SEARCH DICTIONARY RENAME | Reversible
alter text search dictionary app.words rename to terms;
--- DROP TEXT SEARCH DICTIONARY | Reversible
drop text search dictionary app.words;
--- CREATE TEXT SEARCH PARSER | Reversible
create text search parser app.parse (start = prsd_start, gettoken = prsd_nexttoken, end = prsd_end, lextypes = prsd_lextype);
--- CREATE TEXT SEARCH TEMPLATE | Reversible
create text search template app.temp (lexize = dsimple_lexize, init = dsimple_init);
--- CREATE CONVERSION | Reversible
create conversion app.another for 'UTF8' to 'LATIN1' from utf8_to_iso8859_1;
--- ALTER CONVERSION RENAME | Reversible
alter conversion app.convert rename to converted;
--- DROP CONVERSION | Reversible
drop conversion app.convert;
