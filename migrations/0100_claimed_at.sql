-- An attempt begins when its task is picked, not when the claim began to look: a task that is taken back meanwhile can be
-- picked by the same claim, and its attempts must follow each other.
DO $$
DECLARE
    claim text := pg_get_functiondef('claim_tasks'::regproc);
    mended text := replace(replace(claim,
        'p.retry_count, p_worker, p_incarnation, p_claim, at_time FROM picked p
                    RETURNING id, task_id',
        'p.retry_count, p_worker, p_incarnation, p_claim, clock_timestamp() FROM picked p
                    RETURNING id, task_id, started_at'),
        'lease_incarnation = p_incarnation, started_at = at_time,
                        lease_expires_at = at_time + make_interval',
        'lease_incarnation = p_incarnation, started_at = s.started_at,
                        lease_expires_at = s.started_at + make_interval');
BEGIN
    IF mended NOT LIKE '%RETURNING id, task_id, started_at%' OR mended NOT LIKE '%lease_expires_at = s.started_at%' THEN
        RAISE EXCEPTION 'claim_tasks is not the one of migration 2';
    END IF;
    EXECUTE mended;
END
$$;
