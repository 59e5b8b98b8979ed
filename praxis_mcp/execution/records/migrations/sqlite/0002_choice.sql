ALTER TABLE runs ADD COLUMN choice TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN kept_at TEXT NOT NULL DEFAULT '';
CREATE INDEX runs_by_engine ON runs (engine, started);
CREATE INDEX runs_by_root ON runs (root, started);
