-- What the dashboard asks of dead letters and failed steps. Only failures have entries here: what goes well pays nothing.

-- The groups of dead letters, read from the index alone.
CREATE INDEX tasks_failure_groups ON tasks (failure_reason, failure_code, site, finished_at, id) WHERE status = 'failed';
-- The runs in which a step failed.
CREATE INDEX steps_failed ON steps (name, task_id) WHERE NOT ok;
