-- How attempts end: settled by their holder, or taken back from it.
--
-- Rows are always locked in the same order: tasks by id, then attempts. Every write names task, fence and `running`.

-- Adds the steps of attempts that the caller has found to be held. A step that is there already stays as it is.
CREATE FUNCTION add_steps(p_steps jsonb) RETURNS void
LANGUAGE sql VOLATILE
AS $$
    WITH added AS (
        INSERT INTO steps (attempt_id, seq, task_id, retry_count, name, ok, started_at, finished_at, duration_ms,
                           tokens, cost_usd, error, meta)
        SELECT a.id, s.seq, a.task_id, a.retry_count, s.name, s.ok, s.started_at, s.finished_at, s.duration_ms,
               s.tokens, s.cost_usd, s.error, coalesce(s.meta, '{}')
        FROM jsonb_to_recordset(p_steps) AS s (
            fence bigint, seq integer, name text, ok boolean, started_at timestamptz, finished_at timestamptz,
            duration_ms double precision, tokens bigint, cost_usd double precision, error text, meta jsonb)
        JOIN attempts a ON a.id = s.fence
        ON CONFLICT DO NOTHING
        RETURNING attempt_id, tokens, cost_usd
    ), spent AS (
        SELECT attempt_id, sum(tokens) AS tokens, sum(cost_usd) AS cost_usd FROM added GROUP BY attempt_id
        HAVING sum(tokens) <> 0 OR sum(cost_usd) <> 0
    )
    UPDATE attempts a SET tokens = a.tokens + spent.tokens, cost_usd = a.cost_usd + spent.cost_usd
    FROM spent WHERE a.id = spent.attempt_id
$$;

-- Settles attempts: `p_settlements` is an array of objects, one an attempt, with `outcome` completed, retry, dead,
-- cancelled or released; `p_steps` and `p_artifacts` are arrays that name the fence in each element.
--
-- Answers of each attempt whether it is settled: now, or by an earlier call whose answer got lost. If not, its lease had
-- been given away and nothing was changed.
CREATE FUNCTION settle_attempts(p_settlements jsonb, p_steps jsonb, p_artifacts jsonb)
RETURNS TABLE (settled_fence bigint, settled boolean)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    at_time  timestamptz;
    held     bigint[];
    released boolean;
BEGIN
    SELECT coalesce(array_agg(l.fence), '{}') INTO held FROM (
        SELECT t.fence FROM jsonb_to_recordset(p_settlements) AS s (task_id bigint, fence bigint)
        JOIN tasks t ON t.id = s.task_id AND t.fence = s.fence AND t.status = 'running'
        ORDER BY t.id FOR UPDATE OF t
    ) l;
    at_time := clock_timestamp();

    IF p_steps IS NOT NULL THEN
        PERFORM add_steps((SELECT jsonb_agg(s) FROM jsonb_array_elements(p_steps) s
                           WHERE (s ->> 'fence')::bigint = ANY (held)));
    END IF;
    IF p_artifacts IS NOT NULL THEN
        INSERT INTO artifacts (attempt_id, name, task_id, kind, bytes)
        SELECT f.fence, f.name, a.task_id, f.kind, f.bytes
        FROM jsonb_to_recordset(p_artifacts) AS f (fence bigint, name text, kind text, bytes bigint)
        JOIN attempts a ON a.id = f.fence
        WHERE f.fence = ANY (held)
        ON CONFLICT DO NOTHING;
    END IF;

    WITH s AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(p_settlements) AS s (
            task_id bigint, fence bigint, outcome text, result jsonb, reason failure_reason, code text, message text,
            failure jsonb, delay_seconds double precision, execution_time double precision)
        WHERE s.fence = ANY (held)
    ), ended AS (
        UPDATE attempts a SET
            status = CASE s.outcome
                WHEN 'completed' THEN 'succeeded' WHEN 'cancelled' THEN 'cancelled' WHEN 'released' THEN 'released'
                ELSE 'failed' END::attempt_status,
            finished_at = at_time, execution_time = s.execution_time, failure_reason = s.reason,
            failure_code = s.code, error = s.message, failure = s.failure
        FROM s WHERE a.id = s.fence AND a.task_id = s.task_id AND a.status = 'running'
        RETURNING s.*, a.tokens, a.cost_usd
    ), judged AS (
        SELECT e.*, (CASE
            WHEN e.outcome = 'completed' THEN 'completed'
            WHEN e.outcome = 'dead' THEN 'failed'
            WHEN e.outcome = 'cancelled' OR t.cancel_requested THEN 'cancelled'
            -- A guard: it is the worker that decides this, by the same rule.
            WHEN e.outcome = 'retry' AND t.failures >= t.max_retries THEN 'failed'
            ELSE 'pending' END)::task_status AS next
        FROM ended e JOIN tasks t ON t.id = e.task_id
    )
    UPDATE tasks t SET
        status = j.next,
        ready = j.next = 'pending' AND coalesce(j.delay_seconds, 0) <= 0,
        run_at = CASE WHEN j.next = 'pending' AND j.outcome = 'retry'
            THEN at_time + make_interval(secs => j.delay_seconds) ELSE t.run_at END,
        retry_count = t.retry_count + CASE WHEN j.next = 'pending' AND j.outcome = 'retry' THEN 1 ELSE 0 END,
        failures = t.failures + CASE WHEN j.outcome IN ('retry', 'dead') THEN 1 ELSE 0 END,
        failure_reason = CASE j.outcome WHEN 'completed' THEN NULL WHEN 'retry' THEN j.reason WHEN 'dead' THEN j.reason
            ELSE t.failure_reason END,
        failure_code = CASE j.outcome WHEN 'completed' THEN NULL WHEN 'retry' THEN j.code WHEN 'dead' THEN j.code
            ELSE t.failure_code END,
        last_error = CASE j.outcome WHEN 'completed' THEN NULL WHEN 'retry' THEN j.message WHEN 'dead' THEN j.message
            ELSE t.last_error END,
        error = CASE j.outcome WHEN 'completed' THEN NULL WHEN 'retry' THEN j.failure WHEN 'dead' THEN j.failure
            ELSE t.error END,
        result = j.result,
        fence = NULL, lease_owner = NULL, lease_incarnation = NULL, lease_expires_at = NULL,
        cancel_requested = false,
        finished_at = CASE WHEN j.next <> 'pending' THEN at_time END,
        execution_time = j.execution_time,
        tokens = t.tokens + j.tokens,
        cost_usd = t.cost_usd + j.cost_usd
    FROM judged j WHERE t.id = j.task_id AND t.fence = j.fence AND t.status = 'running';

    SELECT bool_or(s.outcome = 'released' OR (s.outcome = 'retry' AND s.delay_seconds <= 0)) INTO released
    FROM jsonb_to_recordset(p_settlements) AS s (fence bigint, outcome text, delay_seconds double precision)
    WHERE s.fence = ANY (held);
    IF released THEN
        PERFORM pg_notify('pagehand_tasks', '');
    END IF;

    RETURN QUERY
    SELECT s.fence, s.fence = ANY (held) OR EXISTS (
        SELECT 1 FROM attempts a
        WHERE a.id = s.fence AND a.task_id = s.task_id
          AND a.status IN ('succeeded', 'failed', 'released', 'cancelled'))
    FROM jsonb_to_recordset(p_settlements) AS s (task_id bigint, fence bigint);
END
$$;

-- Takes back the tasks of workers that are gone: those whose lease ran out and, if `p_worker` is given, those that an
-- earlier incarnation of that worker held and whose presence lock (see `queue/presence.rs`) is free.
--
-- A task goes back to pending, or becomes a dead letter when it has lost its worker for the third time: its work may be
-- what kills them. Row by row, so that one row that can't be written does not keep the others from being taken back.
CREATE FUNCTION reap_tasks(p_limit integer, p_worker text, p_incarnation text)
RETURNS TABLE (
    task_id bigint, fence bigint, retry_count integer, worker text, status task_status, site text,
    started_at timestamptz, execution_time double precision)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    max_losses CONSTANT integer := 3;
    at_time    timestamptz := clock_timestamp();
    gone       text[] := '{}';
    other      text;
    lost       tasks;
    spent      attempts;
    next       task_status;
    message    text;
    again      boolean := false;
BEGIN
    IF p_worker IS NOT NULL THEN
        FOR other IN
            SELECT DISTINCT t.lease_incarnation FROM tasks t
            WHERE t.lease_owner = p_worker AND t.lease_incarnation <> p_incarnation
        LOOP
            IF pg_try_advisory_xact_lock(hashtextextended('pagehand worker ' || other, 0)) THEN
                gone := gone || other;
            END IF;
        END LOOP;
    END IF;

    FOR lost IN
        SELECT * FROM tasks t
        WHERE t.lease_owner IS NOT NULL AND (t.lease_expires_at < at_time
            OR (t.lease_owner = p_worker AND t.lease_incarnation = ANY (gone)))
        ORDER BY t.id LIMIT p_limit FOR UPDATE SKIP LOCKED
    LOOP
        BEGIN
            message := format('worker %s was lost: it neither finished nor renewed its lease', lost.lease_owner);
            UPDATE attempts a SET
                status = 'lost', finished_at = at_time,
                execution_time = greatest(0, extract(epoch FROM at_time - a.started_at)),
                failure_reason = 'unknown', failure_code = 'infra.worker_lost', error = message
            WHERE a.id = lost.fence AND a.task_id = lost.id AND a.status = 'running'
            RETURNING * INTO spent;
            next := CASE
                WHEN lost.cancel_requested THEN 'cancelled'
                WHEN lost.losses + 1 >= max_losses THEN 'failed'
                ELSE 'pending' END;
            UPDATE tasks t SET
                status = next, ready = next = 'pending',
                retry_count = t.retry_count + CASE WHEN next = 'pending' THEN 1 ELSE 0 END,
                losses = t.losses + 1,
                failure_reason = 'unknown', failure_code = 'infra.worker_lost', last_error = message,
                error = jsonb_build_object('failure_reason', 'unknown', 'failure_code', 'infra.worker_lost',
                    'error', message, 'worker', lost.lease_owner, 'losses', lost.losses + 1),
                fence = NULL, lease_owner = NULL, lease_incarnation = NULL, lease_expires_at = NULL,
                cancel_requested = false,
                finished_at = CASE WHEN next <> 'pending' THEN at_time END,
                execution_time = spent.execution_time,
                tokens = t.tokens + coalesce(spent.tokens, 0),
                cost_usd = t.cost_usd + coalesce(spent.cost_usd, 0)
            WHERE t.id = lost.id AND t.fence = lost.fence AND t.status = 'running';
            again := again OR next = 'pending';
            RETURN QUERY SELECT lost.id, lost.fence, lost.retry_count, lost.lease_owner, next, lost.site,
                lost.started_at, coalesce(spent.execution_time, 0);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'task % could not be taken back: %', lost.id, SQLERRM;
        END;
    END LOOP;
    IF again THEN
        PERFORM pg_notify('pagehand_tasks', '');
    END IF;
END
$$;
