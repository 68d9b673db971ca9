-- Attempts that ended without a final result on any disk: their workers were lost, or could not write it. Whichever worker
-- comes by writes it, and tries again until it is there: what owes it may die as well.
CREATE TABLE records_due (
    attempt_id bigint PRIMARY KEY REFERENCES attempts ON DELETE CASCADE,
    due_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    tries      integer NOT NULL DEFAULT 0
);
CREATE INDEX records_due_at ON records_due (due_at);

CREATE FUNCTION owe_record() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO records_due (attempt_id) VALUES (NEW.id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
-- However it was taken back.
CREATE TRIGGER lost_attempts_owe_a_record AFTER UPDATE ON attempts FOR EACH ROW
    WHEN (NEW.status = 'lost' AND OLD.status <> 'lost') EXECUTE FUNCTION owe_record();

-- Those whose time has come and that have ended, each for one caller at a time: the next may try when the wait is over,
-- longer each time, ten minutes at most.
CREATE FUNCTION claim_records_due(p_limit integer) RETURNS TABLE (
    task_id bigint, fence bigint, retry_count integer, worker text, status attempt_status, started_at timestamptz,
    finished_at timestamptz, execution_time double precision, failure_reason failure_reason, failure_code text, error text,
    failure jsonb, result jsonb, tries integer)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    at_time timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    WITH due AS (
        SELECT d.attempt_id FROM records_due d JOIN attempts a ON a.id = d.attempt_id
        WHERE d.due_at <= at_time AND a.status <> 'running'
        ORDER BY d.due_at LIMIT p_limit FOR UPDATE OF d SKIP LOCKED
    ), taken AS (
        UPDATE records_due d SET
            tries = d.tries + 1, due_at = at_time + make_interval(secs => least(600, 5 * power(2, least(d.tries, 10))))
        FROM due WHERE d.attempt_id = due.attempt_id
        RETURNING d.attempt_id, d.tries
    )
    SELECT a.task_id, a.id, a.retry_count, a.worker, a.status, a.started_at, a.finished_at,
        coalesce(a.execution_time, 0), a.failure_reason, a.failure_code, a.error, a.failure,
        CASE WHEN a.status = 'succeeded' THEN t.result END, k.tries
    FROM taken k JOIN attempts a ON a.id = k.attempt_id JOIN tasks t ON t.id = a.task_id
    ORDER BY a.id;
END
$$;
