-- What tasks keep secret is encrypted by the program (`src/seal.rs`), where it is given a key.

-- Ids of the keys in use. As soon as there is one, nothing more is added in the clear.
CREATE TABLE sealing_keys (
    id    text PRIMARY KEY CHECK (id <> ''),
    since timestamptz NOT NULL DEFAULT now()
);

-- A dead letter keeps its password for a retry by hand. What is done or called off is never done again, and forgets it.
CREATE FUNCTION forget_password() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.payload := jsonb_set(NEW.payload, '{password}', '"***"');
    RETURN NEW;
END
$$;

CREATE TRIGGER tasks_forget BEFORE UPDATE OF status ON tasks FOR EACH ROW
    WHEN (NEW.status IN ('completed', 'cancelled') AND jsonb_typeof(NEW.payload) = 'object' AND NEW.payload ? 'password')
    EXECUTE FUNCTION forget_password();

UPDATE tasks SET payload = jsonb_set(payload, '{password}', '"***"')
WHERE status IN ('completed', 'cancelled') AND jsonb_typeof(payload) = 'object' AND payload ? 'password';
