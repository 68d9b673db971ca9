-- How many more tasks may start on a site now; NULL: as many as you like.
CREATE FUNCTION site_room(p_origin text) RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    at_time  timestamptz := clock_timestamp();
    site_row sites;
    slots    integer;
    starts   integer;
BEGIN
    SELECT * INTO site_row FROM sites s
    WHERE s.origin = p_origin AND s.removed_at IS NULL
      AND (s.authorized_until IS NULL OR s.authorized_until > at_time);
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF site_row.max_concurrency IS NOT NULL THEN
        SELECT site_row.max_concurrency - count(*) INTO slots FROM tasks t
        WHERE t.site = p_origin AND t.lease_owner IS NOT NULL AND t.lease_expires_at > at_time;
    END IF;
    IF site_row.per_minute IS NOT NULL THEN
        SELECT site_row.per_minute - count(*) INTO starts FROM attempts a
        WHERE a.site = p_origin AND a.started_at > at_time - interval '60 seconds';
    END IF;
    RETURN least(slots, starts);
END
$$;

-- What a worker is told of the attempts it holds. An intent is open if (and only if) it is the task's newest, nobody has
-- waived it, and
--  - no outcome of it is on record, or
--  - its attempt ended before anybody judged that outcome (lost or released).
CREATE FUNCTION claimed_tasks(p_fences bigint[])
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
    ) i ON i.intent_waived_at IS NULL AND (i.submit_outcome IS NULL OR i.status IN ('lost', 'released'))
    ORDER BY f.turn
$$;

-- Claims tasks: one statement for the client, several inside, and committed when it returns.
--
-- The function is VOLATILE, so under READ COMMITTED each statement in it has a snapshot of its own: what is counted
-- after a site's row is locked includes what the previous holder of that lock has just taken. That makes the limits of
-- a site exact over all workers. The slots of a site are not stored anywhere; they are counted from leases that have not
-- run out, so a crash cannot leak them.
--
-- Who comes first: the higher priority; within a priority the sites take turns, from the one after `p_after` in the
-- order of their names around the circle; within a site the earlier run_at. A site whose limit is reached is passed
-- over, and one that is not enrolled has no limit: the worker must see its tasks in order to refuse them.
--
-- Fewer rows than `p_limit` does not mean that nothing is left: rows that another claim holds at this moment are passed
-- over. No row at all means that there was nothing for this caller just now.
--
-- The settings keep the planner on the partial indexes whatever the statistics say; those of a queue are always old.
CREATE FUNCTION claim_tasks(
    p_worker text, p_incarnation text, p_limit integer, p_lease_seconds double precision, p_after text, p_claim bigint)
RETURNS TABLE (
    id bigint, fence bigint, task_type text, url text, site text, campaign_id bigint, payload text, retry_count integer,
    max_retries integer, failures integer, priority smallint, created_at timestamptz, traceparent text,
    tracestate text, request_id text, locked_at timestamptz, lease_expires_at timestamptz, intent_fence bigint,
    intent_retry_count integer, intent_at timestamptz, intent_let_go boolean, intent text, intent_outcome text)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_sort = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    -- Most groups of one priority that a claim looks at: bounds its cost when very many sites are at their limit.
    max_looks  CONSTANT integer := 512;
    wanted     integer := p_limit;
    at_time    timestamptz := clock_timestamp();
    rank       smallint;
    next_site  text;
    from_site  text;
    wrapped    boolean;
    looks      integer;
    room       integer;
    quota      integer;
    got        bigint[];
    taken      bigint[] := '{}';
    ranks      smallint[] := '{}';
    names      text[] := '{}';
    rank_names text[];
    again      text[];
    remaining  integer;
BEGIN
    WITH due AS MATERIALIZED (
        SELECT t.id FROM tasks t
        WHERE t.status = 'pending' AND NOT t.ready AND t.run_at <= at_time
        ORDER BY t.run_at LIMIT greatest(1000, p_limit) FOR UPDATE SKIP LOCKED
    )
    UPDATE tasks t SET ready = true FROM due WHERE t.id = due.id;

    -- Groups that have something for us, by rank and turn, until there are as many as tasks wanted.
    SELECT t.priority INTO rank FROM tasks t WHERE t.ready ORDER BY t.priority DESC LIMIT 1;
    WHILE rank IS NOT NULL AND cardinality(names) < wanted LOOP
        from_site := p_after;
        wrapped := false;
        looks := 0;
        LOOP
            SELECT t.site INTO next_site FROM tasks t
            WHERE t.ready AND t.priority = rank AND t.site > from_site ORDER BY t.site LIMIT 1;
            IF next_site IS NULL OR (wrapped AND next_site > p_after) THEN
                EXIT WHEN wrapped;
                wrapped := true;
                from_site := '';
                CONTINUE;
            END IF;
            from_site := next_site;
            looks := looks + 1;
            room := site_room(next_site);
            IF room IS NULL OR room > 0 THEN
                ranks := ranks || rank;
                names := names || next_site;
            END IF;
            EXIT WHEN cardinality(names) >= wanted OR looks >= max_looks;
        END LOOP;
        SELECT t.priority INTO rank FROM tasks t WHERE t.ready AND t.priority < rank ORDER BY t.priority DESC LIMIT 1;
    END LOOP;
    IF cardinality(names) = 0 THEN
        RETURN;
    END IF;

    -- In the order of their names, so that two claims never wait for each other in a circle.
    PERFORM 1 FROM sites s
    WHERE s.origin = ANY (names) AND s.removed_at IS NULL AND num_nonnulls(s.max_concurrency, s.per_minute) > 0
    ORDER BY s.origin FOR UPDATE;
    at_time := clock_timestamp();

    FOREACH rank IN ARRAY (SELECT array_agg(DISTINCT r ORDER BY r DESC) FROM unnest(ranks) r) LOOP
        rank_names := ARRAY (
            SELECT g.group_site FROM unnest(ranks, names) WITH ORDINALITY AS g (group_rank, group_site, turn)
            WHERE g.group_rank = rank ORDER BY g.turn);
        -- Each site an even share; what some could not use goes round again among the others.
        WHILE wanted > 0 AND cardinality(rank_names) > 0 LOOP
            again := '{}';
            remaining := cardinality(rank_names);
            FOREACH next_site IN ARRAY rank_names LOOP
                EXIT WHEN wanted = 0;
                room := site_room(next_site);
                quota := least(ceil(wanted::numeric / remaining), room);
                remaining := remaining - 1;
                CONTINUE WHEN quota <= 0;
                WITH picked AS MATERIALIZED (
                    SELECT t.id, t.retry_count FROM tasks t
                    WHERE t.ready AND t.priority = rank AND t.site = next_site
                    ORDER BY t.run_at, t.id LIMIT quota FOR UPDATE SKIP LOCKED
                ), started AS (
                    INSERT INTO attempts (task_id, site, retry_count, worker, incarnation, claim, started_at)
                    SELECT p.id, next_site, p.retry_count, p_worker, p_incarnation, p_claim, at_time FROM picked p
                    RETURNING id, task_id
                ), leased AS (
                    UPDATE tasks t SET
                        status = 'running', ready = false, fence = s.id, lease_owner = p_worker,
                        lease_incarnation = p_incarnation, started_at = at_time,
                        lease_expires_at = at_time + make_interval(secs => p_lease_seconds)
                    FROM started s WHERE t.id = s.task_id
                    RETURNING t.fence
                )
                SELECT coalesce(array_agg(fence), '{}') INTO got FROM leased;
                taken := taken || got;
                wanted := wanted - cardinality(got);
                IF cardinality(got) = quota THEN
                    again := again || next_site;
                END IF;
            END LOOP;
            rank_names := again;
        END LOOP;
    END LOOP;
    RETURN QUERY SELECT * FROM claimed_tasks(taken);
END
$$;
