CREATE TABLE caller_calls (
    caller TEXT NOT NULL PRIMARY KEY,
    holders TEXT NOT NULL,
    allowance REAL NOT NULL,
    at REAL NOT NULL
);
