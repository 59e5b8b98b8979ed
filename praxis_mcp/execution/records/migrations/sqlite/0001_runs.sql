CREATE TABLE runs (
    id TEXT NOT NULL PRIMARY KEY,
    server TEXT NOT NULL,
    tool TEXT NOT NULL,
    engine TEXT NOT NULL,
    caller TEXT NOT NULL,
    client TEXT NOT NULL,
    root TEXT NOT NULL,
    contract TEXT NOT NULL,
    contract_sha256 TEXT NOT NULL,
    started DOUBLE PRECISION NOT NULL,
    ended DOUBLE PRECISION,
    outcome TEXT NOT NULL,
    exit_code INTEGER,
    error TEXT,
    isolation TEXT NOT NULL,
    image TEXT,
    why TEXT NOT NULL,
    plan TEXT NOT NULL,
    arguments TEXT,
    phases TEXT NOT NULL,
    artifacts TEXT NOT NULL,
    changed_files TEXT NOT NULL,
    stdout_bytes BIGINT NOT NULL,
    stderr_bytes BIGINT NOT NULL,
    kept_bytes BIGINT NOT NULL,
    stdout BLOB,
    stderr BLOB
);
CREATE INDEX runs_by_time ON runs (started, kept_bytes);
CREATE INDEX runs_by_tool ON runs (tool, started);
CREATE INDEX runs_by_outcome ON runs (outcome, started);
CREATE INDEX runs_by_caller ON runs (caller, started) WHERE caller <> '';
CREATE INDEX runs_open ON runs (server) WHERE ended IS NULL;
CREATE TABLE live_output (
    run TEXT NOT NULL,
    number INTEGER NOT NULL,
    stream TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run, number)
);
