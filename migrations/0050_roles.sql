-- What the web server may do without being able to read what tasks keep secret (`scripts/roles.sql` has the roles).

-- A payload without what its names say is secret. What is nested deeper than anything of ours is not shown.
CREATE FUNCTION without_secrets(p_value jsonb, p_depth integer DEFAULT 0) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF p_depth > 8 THEN
        RETURN '"***"';
    END IF;
    RETURN CASE jsonb_typeof(p_value)
        WHEN 'object' THEN (
            SELECT coalesce(jsonb_object_agg(key, CASE
                WHEN lower(key) ~ 'password|secret|token' THEN '"***"' ELSE without_secrets(value, p_depth + 1) END), '{}')
            FROM jsonb_each(p_value))
        WHEN 'array' THEN (
            SELECT coalesce(jsonb_agg(without_secrets(value, p_depth + 1) ORDER BY turn), '[]')
            FROM jsonb_array_elements(p_value) WITH ORDINALITY AS items (value, turn))
        ELSE p_value END;
END
$$;

CREATE FUNCTION shown_payload(p_task bigint) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
AS $$
    SELECT without_secrets(payload)::text FROM tasks WHERE id = p_task
$$;

-- Both act as their owner, and so must not look for names in a place that the caller chose.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION shown_payload(bigint) SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION retry_tasks(bigint[], boolean) SECURITY DEFINER SET search_path = %I, pg_temp', current_schema());
    REVOKE EXECUTE ON FUNCTION shown_payload(bigint), retry_tasks(bigint[], boolean) FROM PUBLIC;
END
$$;
