comment on constraint total_small on app.orders is 'not big';
--- COMMENT ON TABLE | Reversible
comment on table app.orders is 'another';
--- COMMENT ON TABLE (none before) | Reversible
comment on table app.lines is 'lines';
--- COMMENT ON TABLE IS NULL | Reversible
comment on table app.orders is null;
--- COMMENT ON COLUMN | Reversible
comment on column app.orders.total is 'it''s "dear"';
--- COMMENT ON COLUMN (added by the script) | ReversibleWithDataLoss
alter table app.orders add column fresh int;
comment on column app.orders.fresh is 'x';
--- COMMENT ON CONSTRAINT | Reversible
comment on constraint total_small on app.orders is null;
--- COMMENT ON DATABASE | Reversible
comment on database postgres is 'x';
--- COMMENT ON PROCEDURE | Reversible
comment on procedure app.clean(int) is 'cleans';
--- COMMENT ON MATERIALIZED VIEW | Reversible
comment on materialized view app.counted is 'counts';
--- COMMENT ON EXTENSION | Reversible
comment on extension plpgsql is 'another';
--- COMMENT ON LANGUAGE | Reversible
comment on language plpgsql is 'another';
--- COMMENT (renamed before) | Reversible
alter table app.orders rename to purchases;
comment on table app.purchases is 'x';
