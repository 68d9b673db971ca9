-- How a site wants to be visited: whom it may ask, when it wants to be left alone, and what its robots.txt says.

ALTER TABLE sites
    -- In the User-Agent, in place of the worker's own.
    ADD COLUMN contact      text CHECK (contact ~ '^[!-~][ -~]{0,199}$'),
    -- Nothing is begun between these, by the clocks of that time zone.
    ADD COLUMN quiet_from   time,
    ADD COLUMN quiet_to     time,
    ADD COLUMN quiet_zone   text CHECK (quiet_zone IS NULL OR ('2000-01-01Z'::timestamptz AT TIME ZONE quiet_zone) IS NOT NULL),
    ADD COLUMN obeys_robots boolean NOT NULL DEFAULT true,
    ADD CONSTRAINT quiet_hours_are_whole CHECK (
        num_nonnulls(quiet_from, quiet_to, quiet_zone) IN (0, 3) AND (quiet_from IS NULL OR quiet_from <> quiet_to));

-- What workers have fetched; kept for an hour, and for a day where it can't be fetched any more.
CREATE TABLE robots_txt (
    origin     text COLLATE "C" PRIMARY KEY,
    -- When it was last asked for.
    asked_at   timestamptz NOT NULL,
    -- Whether that was answered.
    answered   boolean NOT NULL,
    -- The last answer: what it says, NULL where there is none; and when that was.
    body       text CHECK (octet_length(body) <= 1048576),
    fetched_at timestamptz
);

-- As before, and a site that is in its quiet hours has room for none.
CREATE OR REPLACE FUNCTION site_room(p_origin text) RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    at_time  timestamptz := clock_timestamp();
    there    time;
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
    IF site_row.quiet_from IS NOT NULL THEN
        there := (at_time AT TIME ZONE site_row.quiet_zone)::time;
        -- 22:00 to 06:00 goes over midnight.
        IF (CASE WHEN site_row.quiet_from < site_row.quiet_to
                THEN there >= site_row.quiet_from AND there < site_row.quiet_to
                ELSE there >= site_row.quiet_from OR there < site_row.quiet_to END) THEN
            RETURN 0;
        END IF;
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
