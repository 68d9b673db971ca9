-- A site that wants a pause between posts means its visitor, not one task: several tasks at once only keep refusing each
-- other, until all are out of retries.

CREATE INDEX attempts_flood ON attempts (site, finished_at) WHERE failure_code = 'form.flood';

-- As before, and a site that has refused three tasks for their haste in the last two minutes sees one start in twenty
-- seconds. Three, since one page that always says so must not slow down its whole site. Where a site has no limit of its own
-- its row is not locked, so two claims at the same instant may begin one each.
CREATE OR REPLACE FUNCTION site_room(p_origin text) RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    at_time  timestamptz := clock_timestamp();
    site_row sites;
    slots    integer;
    starts   integer;
    hasty    integer;
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
    SELECT count(DISTINCT a.task_id) INTO hasty FROM attempts a
    WHERE a.site = p_origin AND a.failure_code = 'form.flood' AND a.finished_at > at_time - interval '2 minutes';
    IF hasty >= 3 THEN
        SELECT least(starts, 1 - count(*)) INTO starts FROM attempts a
        WHERE a.site = p_origin AND a.started_at > at_time - interval '20 seconds';
    END IF;
    RETURN least(slots, starts);
END
$$;
