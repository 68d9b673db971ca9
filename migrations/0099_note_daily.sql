-- A line of the audit that stands there once a day: of two workers that come to it at the same time, one adds it.
CREATE FUNCTION note_daily(p_who text, p_action text, p_subject text, p_details jsonb, p_site text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    -- Held to the end of the transaction; the check below sees what the one before has committed.
    PERFORM pg_advisory_xact_lock(hashtextextended(concat_ws(' ', 'note_daily', p_action, p_subject, p_site), 0));
    INSERT INTO audit (who, action, subject, details)
    SELECT p_who, p_action, p_subject, p_details WHERE NOT EXISTS (
        SELECT 1 FROM audit a WHERE a.subject = p_subject AND a.action = p_action AND a.details ->> 'site' = p_site
          AND a.at > now() - interval '1 day');
END
$$;
