-- What the dashboard reads most, for less: nothing of it is stored anew.

-- As before, but not STRICT: so it becomes a part of the statement that calls it, which it does for every step of an hour.
CREATE OR REPLACE FUNCTION duration_bucket(p_ms double precision) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN p_ms IS NULL THEN NULL WHEN p_ms <= 0.001 THEN -32768
                ELSE least(32767, ceil(ln(p_ms) / ln(1.01::float8 / 0.99::float8))) END::smallint
$$;

-- The dead letters in groups, the largest first. `trend` has how many failed on each of the last `p_days` days, UTC, the oldest
-- first: counted for those groups alone that are answered.
--
-- All of it is in `tasks_failure_groups`. Left to itself the planner reads the rows instead where they lie in order; where pages
-- are what costs, it does not.
CREATE FUNCTION failure_groups(p_limit bigint, p_days integer)
RETURNS TABLE (
    failure_reason failure_reason, failure_code text, stuck_at text, site text, n bigint, first_seen timestamptz,
    last_seen timestamptz, sample bigint, trend bigint[])
LANGUAGE sql STABLE
SET seq_page_cost = 10
SET random_page_cost = 10
SET max_parallel_workers_per_gather = 0
AS $$
    WITH groups AS MATERIALIZED (
        SELECT t.failure_reason, t.failure_code, t.stuck_at, t.site, count(*) AS n, min(t.finished_at) AS first_seen,
               max(t.finished_at) AS last_seen, max(t.id) AS sample
        FROM tasks t WHERE t.status = 'failed'
        GROUP BY t.failure_reason, t.failure_code, t.stuck_at, t.site ORDER BY n DESC, sample DESC LIMIT p_limit
    ), days AS MATERIALIZED (
        SELECT d, date_trunc('day', now(), 'UTC') - d * interval '24 hours' AS since,
               date_trunc('day', now(), 'UTC') - (d - 1) * interval '24 hours' AS until
        FROM generate_series(0, p_days - 1) d
    )
    SELECT g.*, (
        -- An index finds what is null or what equals, but not one or the other.
        SELECT array_agg(CASE WHEN g.stuck_at IS NULL THEN (
                   SELECT count(*) FROM tasks t
                   WHERE t.status = 'failed' AND t.failure_reason = g.failure_reason AND t.failure_code = g.failure_code
                     AND t.stuck_at IS NULL AND t.site = g.site AND t.finished_at >= days.since AND t.finished_at < days.until
               ) ELSE (
                   SELECT count(*) FROM tasks t
                   WHERE t.status = 'failed' AND t.failure_reason = g.failure_reason AND t.failure_code = g.failure_code
                     AND t.stuck_at = g.stuck_at AND t.site = g.site AND t.finished_at >= days.since AND t.finished_at < days.until
               ) END ORDER BY d DESC)
        FROM days)
    FROM groups g
$$;

-- How many dead letters there are of each task type, from the same index.
CREATE FUNCTION dead_letters() RETURNS TABLE (task_type text, n bigint)
LANGUAGE sql STABLE
SET seq_page_cost = 10
SET random_page_cost = 10
SET max_parallel_workers_per_gather = 0
AS $$
    SELECT t.task_type, count(*) FROM tasks t WHERE t.status = 'failed' GROUP BY t.task_type
$$;
