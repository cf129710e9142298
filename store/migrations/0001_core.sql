-- Migrations are numbered, forward only, and never changed once released.
--
-- One text serves both databases. On loading, TEXT becomes TEXT COLLATE "C"
-- on PostgreSQL, so that both sort by bytes, and these are replaced:
--
--   {{serial}}  an INTEGER key that the database counts up
--   {{rowid}}   an INTEGER key; SQLite's own row number
--   {{bytes}}   BLOB, BYTEA
--
-- Times are BIGINT microseconds since 1970, 0 for none.

-- +goose Up
CREATE TABLE changes (
    seq    {{rowid}},
    time   BIGINT NOT NULL,
    kind   TEXT NOT NULL,
    key    TEXT NOT NULL,
    op     TEXT NOT NULL,
    detail {{bytes}} NOT NULL
);

-- What is added to PostgreSQL's transaction number to make the upper bits of
-- changes.seq: 0 until the database is restored into another cluster.
CREATE TABLE changes_origin (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    n  BIGINT NOT NULL
);
INSERT INTO changes_origin (id, n) VALUES (1, 0);

-- due is when a task may be taken, which for one that is taken is the end of
-- its lease. again is not 0 when the task was enqueued once more since it was
-- last taken: the due time of the run that this calls for.
CREATE TABLE tasks (
    id      {{serial}},
    kind    TEXT NOT NULL,
    key     TEXT NOT NULL,
    body    TEXT NOT NULL,
    state   TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    tries   BIGINT NOT NULL,
    created BIGINT NOT NULL,
    due     BIGINT NOT NULL,
    again   BIGINT NOT NULL,
    dead    BIGINT NOT NULL,
    why     TEXT NOT NULL
);
CREATE UNIQUE INDEX tasks_key ON tasks (kind, key) WHERE dead = 0 AND key <> '';
CREATE INDEX tasks_due ON tasks (due) WHERE dead = 0;
CREATE INDEX tasks_dead ON tasks (dead) WHERE dead <> 0;
