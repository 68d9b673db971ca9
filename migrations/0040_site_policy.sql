-- What may be done on a site, and the switch that stops everything on it.

ALTER TABLE sites
    -- NULL: every type.
    ADD COLUMN task_types  text[] CHECK (cardinality(task_types) > 0),
    ADD COLUMN stopped_at  timestamptz,
    ADD COLUMN stopped_by  text,
    ADD COLUMN stopped_why text,
    -- What happened before it no longer counts towards an automatic stop.
    ADD COLUMN resumed_at  timestamptz,
    ADD CONSTRAINT a_stop_says_who_and_why CHECK (
        num_nonnulls(stopped_at, stopped_by, stopped_why) IN (0, 3));

-- As before, and a stopped site has room for none: its tasks wait.
CREATE OR REPLACE FUNCTION site_room(p_origin text) RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    at_time  timestamptz := clock_timestamp();
    site_row sites;
    slots    integer;
    starts   integer;
BEGIN
    SELECT * INTO site_row FROM sites s
    WHERE s.origin = p_origin AND s.removed_at IS NULL
      AND (s.authorized_until IS NULL OR s.authorized_until > at_time);
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF site_row.stopped_at IS NOT NULL THEN
        RETURN 0;
    END IF;
    IF site_row.max_concurrency IS NOT NULL THEN
        SELECT site_row.max_concurrency - count(*) INTO slots FROM tasks t
        WHERE t.site = p_origin AND t.lease_owner IS NOT NULL AND t.lease_expires_at > at_time;
    END IF;
    IF site_row.per_minute IS NOT NULL THEN
        SELECT site_row.per_minute - count(*) INTO starts FROM attempts a
        WHERE a.site = p_origin AND a.started_at > at_time - interval '60 seconds';
    END IF;
    RETURN least(slots, starts);
END
$$;

-- References may name a credential of systemd's too.
ALTER TABLE proxies DROP CONSTRAINT proxies_password_ref_check;
ALTER TABLE proxies ADD CONSTRAINT proxies_password_ref_check CHECK (password_ref ~ '^(env|file|cred):.');
