-- What the web server keeps beside the queue.

-- Which requests to enqueue have been carried out, by the `Idempotency-Key` that the client gave them; kept for a day.
CREATE TABLE idempotency_keys (
    -- Whose key it is: two clients may choose the same one.
    who         text NOT NULL,
    key         text NOT NULL,
    -- Of the body: the same key with another body is a mistake of the client.
    fingerprint bytea NOT NULL,
    task_id     bigint NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (who, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- The trail of one run.
CREATE INDEX audit_subject ON audit (subject, id);
