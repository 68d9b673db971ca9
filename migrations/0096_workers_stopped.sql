-- When a worker ended as it was told to. One that is no longer seen and has not said so is lost.
ALTER TABLE workers ADD COLUMN stopped_at timestamptz;
