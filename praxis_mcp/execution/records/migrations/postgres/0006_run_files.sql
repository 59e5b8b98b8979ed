CREATE TABLE run_files (
    run TEXT COLLATE "C" NOT NULL,
    name BYTEA NOT NULL,
    number INTEGER NOT NULL,
    data BYTEA NOT NULL,
    added DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (run, name, number)
);
CREATE INDEX run_files_by_age ON run_files (added);
