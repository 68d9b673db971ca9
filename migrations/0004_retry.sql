-- Gives dead letters another chance. Row by row: a dedupe key that a live task has taken keeps out that one only.
--
-- A confirmed retry of an uncertain task also closes its open intents: a person has looked, and the next attempt must not
-- stop at the same question again.
CREATE FUNCTION retry_tasks(p_ids bigint[], p_confirm_uncertain boolean)
RETURNS TABLE (retried bigint, need_confirmation bigint, conflicts bigint)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    dead tasks;
BEGIN
    retried := 0;
    need_confirmation := 0;
    conflicts := 0;
    FOR dead IN
        SELECT * FROM tasks t WHERE t.id = ANY (p_ids) AND t.status = 'failed' ORDER BY t.id FOR UPDATE
    LOOP
        IF dead.failure_code = 'outcome.uncertain' AND NOT p_confirm_uncertain THEN
            need_confirmation := need_confirmation + 1;
            CONTINUE;
        END IF;
        BEGIN
            UPDATE tasks t SET
                status = 'pending', ready = true, run_at = clock_timestamp(), finished_at = NULL,
                retry_count = t.retry_count + 1, failures = 0, losses = 0
            WHERE t.id = dead.id;
            IF dead.failure_code = 'outcome.uncertain' THEN
                UPDATE attempts a SET intent_waived_at = clock_timestamp()
                WHERE a.task_id = dead.id AND a.intent IS NOT NULL AND a.intent_waived_at IS NULL;
            END IF;
            retried := retried + 1;
        EXCEPTION WHEN unique_violation THEN
            conflicts := conflicts + 1;
        END;
    END LOOP;
    IF retried > 0 THEN
        PERFORM pg_notify('pagehand_tasks', '');
    END IF;
    RETURN NEXT;
END
$$;
