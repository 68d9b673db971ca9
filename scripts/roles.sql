-- Two roles, each with no more than its processes need. `pagehand migrate --roles` does this; so does any client, connected
-- as the owner of the tables. To be repeated after each migration; it may be repeated at any time.
--
--   pagehand_worker  takes and ends tasks. It can't enrol a site, delete a row, rewrite the audit trail or change the schema.
--   pagehand_web     shows runs, adds tasks, retries and cancels. It can't read a payload or a proxy.
--
-- Neither can log in. Make a user for each kind of process and give it its role:
--   CREATE ROLE "pagehand-web-1" LOGIN PASSWORD '…' IN ROLE pagehand_web;
DO $$
DECLARE
    place   text := current_schema();
    one     text;
    shown   text;
    marks   text;
BEGIN
    FOREACH one IN ARRAY ARRAY['pagehand_worker', 'pagehand_web'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = one) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', one);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM %I', place, one);
        EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA %I FROM %I', place, one);
        EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA %I FROM %I', place, one);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', place, one);
        EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA %I TO %I', place, one);
        EXECUTE format('GRANT SELECT ON _sqlx_migrations TO %I', one);
    END LOOP;
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, pagehand_worker, pagehand_web', place);
    EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA %I FROM PUBLIC', place);

    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %I TO pagehand_worker', place);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA %I TO pagehand_worker', place);
    REVOKE INSERT, UPDATE ON sites, sealing_keys, _sqlx_migrations FROM pagehand_worker;
    REVOKE UPDATE ON audit FROM pagehand_worker;
    -- What says who allowed what, until when and how fast, is the operator's alone; a lock on the row needs one column.
    SELECT string_agg(quote_ident(attname), ', ') INTO marks FROM pg_attribute
    WHERE attrelid = 'sites'::regclass AND attnum > 0 AND NOT attisdropped
      AND (attname = 'updated_at' OR attname ~ '^(stopped|blocked|robots|paused|rest)');
    EXECUTE format('GRANT UPDATE (%s) ON sites TO pagehand_worker', marks);

    SELECT string_agg(quote_ident(attname), ', ') INTO shown FROM pg_attribute
    WHERE attrelid = 'tasks'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'payload';
    EXECUTE format('GRANT SELECT (%s) ON tasks TO pagehand_web', shown);
    GRANT INSERT ON tasks TO pagehand_web;
    GRANT UPDATE (status, ready, finished_at, cancel_requested) ON tasks TO pagehand_web;
    GRANT SELECT ON attempts, steps, artifacts, sites TO pagehand_web;
    GRANT SELECT, INSERT ON audit, sealing_keys TO pagehand_web;
    GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO pagehand_web;
    -- What the functions touch is decided by the tables: they act as their caller, but for the two that show and retry.
    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %I TO pagehand_web', place);
    -- Counts that triggers keep, whoever changes a task; nothing of a payload is in them.
    FOR one IN SELECT c.oid::regclass::text FROM pg_class c
        WHERE c.relnamespace = place::regnamespace AND c.relkind IN ('r', 'p') AND c.relname LIKE 'rollup\_%'
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO pagehand_worker, pagehand_web', one);
    END LOOP;
    IF to_regclass('records_due') IS NOT NULL THEN
        GRANT DELETE ON records_due TO pagehand_worker;
    END IF;
    IF to_regclass('workers') IS NOT NULL THEN
        GRANT DELETE ON workers TO pagehand_worker;
        GRANT SELECT ON workers TO pagehand_web;
    END IF;
END
$$;
