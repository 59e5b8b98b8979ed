CREATE TABLE tasks (
    id TEXT NOT NULL PRIMARY KEY,
    server TEXT NOT NULL,
    caller TEXT NOT NULL,
    tool TEXT NOT NULL,
    status TEXT NOT NULL,
    message TEXT,
    created DOUBLE PRECISION NOT NULL,
    updated DOUBLE PRECISION NOT NULL,
    expires DOUBLE PRECISION NOT NULL,
    kept DOUBLE PRECISION NOT NULL,
    attempts INTEGER NOT NULL,
    is_cancelled INTEGER NOT NULL,
    request TEXT,
    result TEXT,
    error TEXT,
    size BIGINT NOT NULL
);
CREATE INDEX tasks_by_caller ON tasks (caller, updated);
CREATE INDEX tasks_open ON tasks (server) WHERE status = 'working';
CREATE INDEX tasks_by_expiry ON tasks (expires);
