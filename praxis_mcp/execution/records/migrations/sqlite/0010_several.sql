DROP INDEX runs_by_time;
CREATE INDEX runs_by_time ON runs (started, kept_bytes, tool, engine, outcome, caller, root);
