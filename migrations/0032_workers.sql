-- Which worker processes there are; each shows every few seconds that it lives.
CREATE TABLE workers (
    incarnation text PRIMARY KEY,
    name        text NOT NULL,
    version     text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- A rare status in a long list.
CREATE INDEX tasks_cancelled ON tasks (id) WHERE status = 'cancelled';
-- The newest dead letters, whatever their reason.
CREATE INDEX tasks_dead ON tasks (id) WHERE status = 'failed';
