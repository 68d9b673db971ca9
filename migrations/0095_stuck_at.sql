-- Where a dead letter went wrong, kept with it: so that dead letters are grouped by it from an index alone.
ALTER TABLE tasks ADD COLUMN stuck_at text;

-- The step at which the latest attempt of a task failed; else the last one that it took time over before it failed. Not
-- those that only report a failure: `record::REPORTING_STEPS` in the program has the same.
CREATE FUNCTION where_stuck(p_task bigint) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT s.name FROM steps s
    WHERE s.attempt_id = (SELECT max(a.id) FROM attempts a WHERE a.task_id = p_task)
      AND (NOT s.ok OR s.duration_ms > 0)
      AND s.name NOT IN ('automation_error', 'automation_execution_completed', 'unhandled_exception', 'result_failed',
                         'usage_charged')
    ORDER BY s.ok, CASE WHEN s.ok THEN -s.seq ELSE s.seq END LIMIT 1
$$;

CREATE FUNCTION note_where_stuck() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.stuck_at := where_stuck(NEW.id);
    RETURN NEW;
END
$$;
CREATE TRIGGER dead_letters_say_where BEFORE UPDATE ON tasks FOR EACH ROW
    WHEN (NEW.status = 'failed' AND OLD.status <> 'failed') EXECUTE FUNCTION note_where_stuck();

UPDATE tasks SET stuck_at = where_stuck(id) WHERE status = 'failed';

DROP INDEX tasks_failure_groups;
CREATE INDEX tasks_failure_groups ON tasks (failure_reason, failure_code, stuck_at, site, finished_at, id)
    INCLUDE (task_type) WHERE status = 'failed';

-- As before, and what the steps of a lost attempt say of its dead letter.
CREATE OR REPLACE FUNCTION complete_lost_attempt(p_task_id bigint, p_fence bigint, p_steps jsonb, p_artifacts jsonb)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM 1 FROM tasks t WHERE t.id = p_task_id FOR UPDATE;
    PERFORM 1 FROM attempts a WHERE a.id = p_fence AND a.task_id = p_task_id AND a.status = 'lost' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM add_steps(p_steps);
    INSERT INTO artifacts (attempt_id, name, task_id, kind, bytes)
    SELECT p_fence, f.name, p_task_id, f.kind, f.bytes
    FROM jsonb_to_recordset(p_artifacts) AS f (name text, kind text, bytes bigint)
    ON CONFLICT DO NOTHING;
    UPDATE tasks t SET stuck_at = where_stuck(t.id)
    WHERE t.id = p_task_id AND t.status = 'failed' AND t.stuck_at IS DISTINCT FROM where_stuck(t.id);
END
$$;
