-- What an operator has pinned for a site, and sign-ups that go on at their mail.

-- Kept when an enrolment ends, like the enrolment itself.
CREATE TABLE site_profiles (
    origin     text COLLATE "C" PRIMARY KEY CHECK (origin <> ''),
    -- The file as the operator wrote it; secrets in it are references.
    source     text NOT NULL CHECK (octet_length(source) <= 262144),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- As before, and an intent is carried on also where the site's answer is on record and says that the account waits for a
-- mailed confirmation: the next attempt goes on at the mail and signs nothing up.
CREATE OR REPLACE FUNCTION claimed_tasks(p_fences bigint[])
RETURNS TABLE (
    id bigint, fence bigint, task_type text, url text, site text, campaign_id bigint, payload text, retry_count integer,
    max_retries integer, failures integer, priority smallint, created_at timestamptz, traceparent text,
    tracestate text, request_id text, locked_at timestamptz, lease_expires_at timestamptz, intent_fence bigint,
    intent_retry_count integer, intent_at timestamptz, intent_let_go boolean, intent text, intent_outcome text)
LANGUAGE sql STABLE
AS $$
    SELECT t.id, t.fence, t.task_type, t.url, t.site, t.campaign_id, t.payload::text, t.retry_count,
           t.max_retries, t.failures, t.priority, t.created_at, t.traceparent::text, t.tracestate, t.request_id,
           t.started_at, t.lease_expires_at, i.id, i.retry_count, i.intent_at, i.let_go_at IS NOT NULL,
           i.intent::text, i.submit_outcome::text
    FROM unnest(p_fences) WITH ORDINALITY AS f (fence, turn)
    JOIN attempts a ON a.id = f.fence
    JOIN tasks t ON t.id = a.task_id AND t.fence = a.id AND t.status = 'running'
    LEFT JOIN LATERAL (
        SELECT e.* FROM attempts e
        WHERE e.task_id = t.id AND e.intent IS NOT NULL AND e.id < a.id
        ORDER BY e.id DESC LIMIT 1
    ) i ON i.intent_waived_at IS NULL AND (
        i.submit_outcome IS NULL OR i.status IN ('lost', 'released')
        OR i.submit_outcome ->> 'outcome' = 'needs_email_confirmation')
    ORDER BY f.turn
$$;
