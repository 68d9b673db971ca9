-- What an hour came to, so that numbers over a month need not read its rows.
--
-- A run belongs to the hour in which it was enqueued. Whatever changes a run notes its hour in `rollup_due`; whoever rolls
-- up takes those notes and counts the hours anew. A note is a new row, never an update of one: two settlements never wait
-- for each other, and a note that is not committed yet can't be taken, so no change is missed.
--
-- Only attempts that ended count, with their steps: what goes on is counted when it is over.

CREATE TABLE rollup_due (
    hour timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- `buckets` and `counts` are a histogram of durations in milliseconds, its bounds growing by 2 %: bucket b holds what is
-- over g^(b-1) and up to g^b, g = 1.01/0.99, so that its middle is within 1 % of each. -32768 holds what took no time.
CREATE TABLE rollup_runs (
    grain      text COLLATE "C" NOT NULL CHECK (grain IN ('hour', 'day')),
    at         timestamptz NOT NULL,
    task_type  text NOT NULL,
    -- `completed`, `failed`, `cancelled`, or `live` for what can still change by itself.
    state      text NOT NULL,
    -- Of dead letters.
    reason     text,
    n          bigint NOT NULL,
    -- With at least one attempt that ended.
    executed   bigint NOT NULL,
    tokens     bigint NOT NULL,
    cost_usd   double precision NOT NULL,
    -- Of the attempts that did not succeed.
    wasted_usd double precision NOT NULL,
    -- Of the latest attempts of those that completed or failed: how many, and how long together.
    timed      bigint NOT NULL,
    ms         double precision NOT NULL,
    buckets    smallint[],
    counts     bigint[]
);
CREATE INDEX rollup_runs_at ON rollup_runs (grain, at);

CREATE TABLE rollup_steps (
    grain     text COLLATE "C" NOT NULL CHECK (grain IN ('hour', 'day')),
    at        timestamptz NOT NULL,
    name      text NOT NULL,
    n         bigint NOT NULL,
    failed    bigint NOT NULL,
    -- In an attempt other than the first.
    retries   bigint NOT NULL,
    tokens    bigint NOT NULL,
    cost_usd  double precision NOT NULL,
    -- Sum of their positions: the order in which they are usually taken.
    position  bigint NOT NULL,
    ms        double precision NOT NULL,
    buckets   smallint[],
    counts    bigint[]
);
CREATE INDEX rollup_steps_at ON rollup_steps (grain, at);

-- Bucket of a duration.
CREATE FUNCTION duration_bucket(p_ms double precision) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT CASE WHEN p_ms <= 0.001 THEN -32768
                ELSE least(32767, ceil(ln(p_ms) / ln(1.01::float8 / 0.99::float8))) END::smallint
$$;

-- The runs enqueued in [p_since, p_until), in the shape of `rollup_runs`, by the hour.
CREATE FUNCTION runs_by_hour(p_since timestamptz, p_until timestamptz) RETURNS SETOF rollup_runs
LANGUAGE sql STABLE
AS $$
    WITH one AS (
        SELECT date_trunc('hour', t.created_at, 'UTC') AS at, t.task_type,
               CASE WHEN t.status IN ('completed', 'failed', 'cancelled') THEN t.status::text ELSE 'live' END AS state,
               CASE WHEN t.status = 'failed' THEN t.failure_reason::text END AS reason,
               t.execution_time, t.tokens, t.cost_usd,
               CASE WHEN t.status IN ('completed', 'failed') THEN t.execution_time * 1e3 END AS ms,
               (SELECT coalesce(sum(a.cost_usd), 0) FROM attempts a
                WHERE a.task_id = t.id AND a.status NOT IN ('running', 'succeeded')) AS wasted
        FROM tasks t WHERE t.created_at >= p_since AND t.created_at < p_until
    ), binned AS (
        SELECT at, task_type, state, reason, duration_bucket(ms) AS bucket, count(*) AS n,
               count(execution_time) AS executed, sum(tokens) AS tokens, sum(cost_usd) AS cost_usd, sum(wasted) AS wasted,
               count(ms) AS timed, coalesce(sum(ms), 0) AS ms
        FROM one GROUP BY at, task_type, state, reason, duration_bucket(ms)
    )
    SELECT 'hour', at, task_type, state, reason, sum(n)::bigint, sum(executed)::bigint, sum(tokens)::bigint,
           sum(cost_usd), sum(wasted), sum(timed)::bigint, sum(ms),
           array_agg(bucket ORDER BY bucket) FILTER (WHERE bucket IS NOT NULL),
           array_agg(timed ORDER BY bucket) FILTER (WHERE bucket IS NOT NULL)
    FROM binned GROUP BY at, task_type, state, reason
$$;

-- The steps of the ended attempts of the runs enqueued in [p_since, p_until), in the shape of `rollup_steps`, by the hour.
CREATE FUNCTION steps_by_hour(p_since timestamptz, p_until timestamptz) RETURNS SETOF rollup_steps
LANGUAGE sql STABLE
AS $$
    WITH binned AS (
        SELECT date_trunc('hour', t.created_at, 'UTC') AS at, s.name, duration_bucket(s.duration_ms) AS bucket,
               count(*) AS n, count(*) FILTER (WHERE NOT s.ok) AS failed,
               count(*) FILTER (WHERE s.retry_count > 0) AS retries, sum(s.tokens) AS tokens,
               sum(s.cost_usd) AS cost_usd, sum(s.seq) AS position, sum(s.duration_ms) AS ms
        FROM tasks t JOIN attempts a ON a.task_id = t.id JOIN steps s ON s.attempt_id = a.id
        WHERE t.created_at >= p_since AND t.created_at < p_until AND a.status <> 'running'
        GROUP BY 1, 2, 3
    )
    SELECT 'hour', at, name, sum(n)::bigint, sum(failed)::bigint, sum(retries)::bigint, sum(tokens)::bigint,
           sum(cost_usd), sum(position)::bigint, sum(ms), array_agg(bucket ORDER BY bucket), array_agg(n ORDER BY bucket)
    FROM binned GROUP BY at, name
$$;

-- Counts the hours anew, and the days that they are of. The caller has made sure that nobody else does so.
CREATE FUNCTION roll_up(p_hours timestamptz[]) RETURNS void
LANGUAGE plpgsql VOLATILE
SET jit = off
AS $$
DECLARE
    hour timestamptz;
    day  timestamptz;
BEGIN
    DELETE FROM rollup_runs WHERE grain = 'hour' AND at = ANY (p_hours);
    DELETE FROM rollup_steps WHERE grain = 'hour' AND at = ANY (p_hours);
    FOREACH hour IN ARRAY p_hours LOOP
        INSERT INTO rollup_runs SELECT * FROM runs_by_hour(hour, hour + interval '1 hour');
        INSERT INTO rollup_steps SELECT * FROM steps_by_hour(hour, hour + interval '1 hour');
    END LOOP;
    FOR day IN SELECT DISTINCT date_trunc('day', h, 'UTC') FROM unnest(p_hours) h LOOP
        DELETE FROM rollup_runs WHERE grain = 'day' AND at = day;
        INSERT INTO rollup_runs
        WITH hours AS (
            SELECT * FROM rollup_runs WHERE grain = 'hour' AND at >= day AND at < day + interval '24 hours'
        ), histogram AS (
            SELECT task_type, state, reason, array_agg(bucket ORDER BY bucket) AS buckets,
                   array_agg(n ORDER BY bucket) AS counts
            FROM (SELECT task_type, state, reason, h.bucket, sum(h.n)::bigint AS n
                  FROM hours, unnest(hours.buckets, hours.counts) AS h (bucket, n) GROUP BY 1, 2, 3, 4) b
            GROUP BY task_type, state, reason
        )
        SELECT 'day', day, s.task_type, s.state, s.reason, s.n, s.executed, s.tokens, s.cost_usd, s.wasted, s.timed, s.ms,
               h.buckets, h.counts
        FROM (SELECT task_type, state, reason, sum(n)::bigint AS n, sum(executed)::bigint AS executed,
                     sum(tokens)::bigint AS tokens, sum(cost_usd) AS cost_usd, sum(wasted_usd) AS wasted,
                     sum(timed)::bigint AS timed, sum(ms) AS ms
              FROM hours GROUP BY task_type, state, reason) s
        LEFT JOIN histogram h
            ON h.task_type = s.task_type AND h.state = s.state AND h.reason IS NOT DISTINCT FROM s.reason;

        DELETE FROM rollup_steps WHERE grain = 'day' AND at = day;
        INSERT INTO rollup_steps
        WITH hours AS (
            SELECT * FROM rollup_steps WHERE grain = 'hour' AND at >= day AND at < day + interval '24 hours'
        ), histogram AS (
            SELECT name, array_agg(bucket ORDER BY bucket) AS buckets, array_agg(n ORDER BY bucket) AS counts
            FROM (SELECT name, h.bucket, sum(h.n)::bigint AS n
                  FROM hours, unnest(hours.buckets, hours.counts) AS h (bucket, n) GROUP BY 1, 2) b
            GROUP BY name
        )
        SELECT 'day', day, s.name, s.n, s.failed, s.retries, s.tokens, s.cost_usd, s.position, s.ms, h.buckets, h.counts
        FROM (SELECT name, sum(n)::bigint AS n, sum(failed)::bigint AS failed, sum(retries)::bigint AS retries,
                     sum(tokens)::bigint AS tokens, sum(cost_usd) AS cost_usd, sum(position)::bigint AS position,
                     sum(ms) AS ms
              FROM hours GROUP BY name) s
        JOIN histogram h USING (name);
    END LOOP;
END
$$;

-- Takes up to `p_limit` noted hours that ended before `p_open` and counts them anew; of the others one note each is kept.
-- Answers how many hours are left to count; NULL if somebody else is at it.
CREATE FUNCTION roll_up_due(p_open timestamptz, p_limit integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    found_hours timestamptz[];
    later       timestamptz[];
    chosen      timestamptz[];
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('pagehand rollups', 0)) THEN
        RETURN NULL;
    END IF;
    WITH taken AS (DELETE FROM rollup_due RETURNING hour)
    SELECT coalesce(array_agg(DISTINCT hour), '{}') INTO found_hours FROM taken;
    chosen := ARRAY(SELECT h FROM unnest(found_hours) h WHERE h < p_open ORDER BY h DESC LIMIT p_limit);
    later := ARRAY(SELECT h FROM unnest(found_hours) h WHERE NOT h = ANY (chosen));
    INSERT INTO rollup_due SELECT h FROM unnest(later) h;
    PERFORM roll_up(chosen);
    RETURN (SELECT count(*) FROM unnest(later) h WHERE h < p_open);
END
$$;

-- Attempts that ended: a settlement, or a task taken back.
CREATE FUNCTION note_ended_attempts() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO rollup_due
    SELECT DISTINCT date_trunc('hour', t.created_at, 'UTC') FROM changed c JOIN tasks t ON t.id = c.task_id
    WHERE c.status <> 'running';
    RETURN NULL;
END
$$;
CREATE TRIGGER attempts_ended AFTER UPDATE ON attempts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_ended_attempts();

CREATE FUNCTION note_added_or_removed_tasks() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO rollup_due SELECT DISTINCT date_trunc('hour', c.created_at, 'UTC') FROM changed c;
    RETURN NULL;
END
$$;
CREATE TRIGGER tasks_added AFTER INSERT ON tasks
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_added_or_removed_tasks();
CREATE TRIGGER tasks_removed AFTER DELETE ON tasks
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_added_or_removed_tasks();

-- What a person changes. A claim and a settlement pass by here without a call.
CREATE FUNCTION note_changed_task() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO rollup_due VALUES (date_trunc('hour', NEW.created_at, 'UTC'));
    RETURN NULL;
END
$$;
CREATE TRIGGER tasks_changed AFTER UPDATE OF status ON tasks FOR EACH ROW
    WHEN (OLD.status <> 'running' AND NEW.status <> 'running' AND OLD.status <> NEW.status)
    EXECUTE FUNCTION note_changed_task();

-- What there is already.
INSERT INTO rollup_due SELECT DISTINCT date_trunc('hour', created_at, 'UTC') FROM tasks;
