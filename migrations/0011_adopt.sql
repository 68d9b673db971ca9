-- Attempts whose worker is gone are looked at before they are taken back: one that had finished, and of which only the
-- settlement did not arrive, is settled as it said.

-- The tasks that may be taken back now, locked: those whose lease ran out and, if `p_worker` is given, those that an
-- earlier incarnation of that worker held and whose presence lock (see `queue/presence.rs`) is free. With `p_fences`
-- only those among them.
CREATE FUNCTION lapsed_tasks(p_limit integer, p_worker text, p_incarnation text, p_fences bigint[])
RETURNS SETOF tasks
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    at_time timestamptz := clock_timestamp();
    gone    text[] := '{}';
    other   text;
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
    RETURN QUERY
        SELECT * FROM tasks t
        WHERE t.lease_owner IS NOT NULL AND (p_fences IS NULL OR t.fence = ANY (p_fences))
          AND (t.lease_expires_at < at_time
               OR (t.lease_owner = p_worker AND t.lease_incarnation = ANY (gone)))
        ORDER BY t.id LIMIT p_limit FOR UPDATE SKIP LOCKED;
END
$$;

-- Takes back the tasks that `lapsed_tasks` says.
--
-- A task goes back to pending, or becomes a dead letter when it has lost its worker for the third time: its work may be
-- what kills them. Row by row, so that one row that can't be written does not keep the others from being taken back.
DROP FUNCTION reap_tasks(integer, text, text);
CREATE FUNCTION reap_tasks(p_limit integer, p_worker text, p_incarnation text, p_fences bigint[])
RETURNS TABLE (
    task_id bigint, fence bigint, retry_count integer, worker text, status task_status, site text,
    started_at timestamptz, execution_time double precision)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    max_losses CONSTANT integer := 3;
    at_time    timestamptz := clock_timestamp();
    lost       tasks;
    spent      attempts;
    next       task_status;
    message    text;
    again      boolean := false;
BEGIN
    FOR lost IN SELECT * FROM lapsed_tasks(p_limit, p_worker, p_incarnation, p_fences) LOOP
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
                -- A row that somebody has counted up to the end must not stay running for ever.
                retry_count = CASE WHEN next = 'pending' THEN least(t.retry_count, 2147483646) + 1 ELSE t.retry_count END,
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
