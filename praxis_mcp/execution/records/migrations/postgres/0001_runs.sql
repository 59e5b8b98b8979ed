CREATE TABLE runs (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    server TEXT COLLATE "C" NOT NULL,
    tool TEXT COLLATE "C" NOT NULL,
    engine TEXT COLLATE "C" NOT NULL,
    caller TEXT COLLATE "C" NOT NULL,
    client TEXT NOT NULL,
    root TEXT NOT NULL,
    contract TEXT NOT NULL,
    contract_sha256 TEXT NOT NULL,
    started DOUBLE PRECISION NOT NULL,
    ended DOUBLE PRECISION,
    outcome TEXT COLLATE "C" NOT NULL,
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
    stdout BYTEA,
    stderr BYTEA
);
CREATE INDEX runs_by_time ON runs (started, id, kept_bytes);
CREATE INDEX runs_by_tool ON runs (tool, started, id);
CREATE INDEX runs_by_outcome ON runs (outcome, started, id);
CREATE INDEX runs_by_caller ON runs (caller, started, id) WHERE caller <> '';
CREATE INDEX runs_open ON runs (server) WHERE ended IS NULL;
CREATE TABLE live_output (
    run TEXT COLLATE "C" NOT NULL,
    number INTEGER NOT NULL,
    stream TEXT NOT NULL,
    data BYTEA NOT NULL,
    PRIMARY KEY (run, number)
);
CREATE TABLE servers (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    seen TIMESTAMP WITH TIME ZONE NOT NULL
);
