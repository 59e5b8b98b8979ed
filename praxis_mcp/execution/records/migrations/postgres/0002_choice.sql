ALTER TABLE runs ADD COLUMN choice TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN kept_at TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE runs ALTER COLUMN root TYPE TEXT COLLATE "C";
CREATE INDEX runs_by_engine ON runs (engine, started, id);
CREATE INDEX runs_by_root ON runs (root, started, id);
