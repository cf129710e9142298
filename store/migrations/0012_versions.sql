-- What decided about access at each time: past versions of documents and of
-- the directory, without their secrets. A version holds from its time until
-- the next of its key with a higher seq. What was there when the history began
-- has a seq below zero. began is 0 until a server has written that down.

-- +goose Up
CREATE TABLE versions (
    seq  {{serial}},
    key  TEXT NOT NULL,
    type TEXT NOT NULL,
    time BIGINT NOT NULL,
    id   TEXT NOT NULL,
    uid  TEXT NOT NULL,
    body TEXT NOT NULL,
    gone BIGINT NOT NULL
);
CREATE INDEX versions_key ON versions (type, key, seq);
CREATE INDEX versions_time ON versions (time);
CREATE INDEX versions_member ON versions (uid) WHERE type = 'directory/member';

CREATE TABLE history (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    began BIGINT NOT NULL
);
INSERT INTO history (id, began) VALUES (1, 0);
