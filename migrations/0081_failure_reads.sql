-- Counts of what failed, read from the index alone: by reason whatever has become of it since, and by task type.
DROP INDEX tasks_failed;
CREATE INDEX tasks_failed ON tasks (failure_reason, id) INCLUDE (status) WHERE failure_reason IS NOT NULL;
DROP INDEX tasks_failure_groups;
CREATE INDEX tasks_failure_groups ON tasks (failure_reason, failure_code, site, finished_at, id) INCLUDE (task_type)
    WHERE status = 'failed';
