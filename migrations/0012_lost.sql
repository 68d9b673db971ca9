-- Adds what a lost attempt left on its disk to its record: steps that did not reach us, and its files. Of no other attempt
-- than one that was taken back, and nothing that its own worker recorded is changed.
CREATE FUNCTION complete_lost_attempt(p_task_id bigint, p_fence bigint, p_steps jsonb, p_artifacts jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM 1 FROM attempts a WHERE a.id = p_fence AND a.task_id = p_task_id AND a.status = 'lost' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM add_steps(p_steps);
    INSERT INTO artifacts (attempt_id, name, task_id, kind, bytes)
    SELECT p_fence, f.name, p_task_id, f.kind, f.bytes
    FROM jsonb_to_recordset(p_artifacts) AS f (name text, kind text, bytes bigint)
    ON CONFLICT DO NOTHING;
END
$$;
