-- What the attempts of a day have cost. Attempts are added in the order of their beginning, so a few bytes a block do.
CREATE INDEX attempts_started ON attempts USING brin (started_at) WITH (autosummarize = on);
