-- Sign-ins by a code that a person types elsewhere. Both codes are hashes. A
-- row goes when it is taken, or some time after its end.

-- +goose Up
CREATE TABLE device_logins (
    device_hash TEXT PRIMARY KEY,
    user_hash   TEXT NOT NULL,
    client      TEXT NOT NULL,
    tenant      TEXT NOT NULL,
    audience    TEXT NOT NULL,
    origin      TEXT NOT NULL,
    begun       BIGINT NOT NULL,
    ends        BIGINT NOT NULL,
    asked       BIGINT NOT NULL,
    denied      BIGINT NOT NULL,
    object_id   TEXT NOT NULL,
    credential  TEXT NOT NULL
);
CREATE UNIQUE INDEX device_logins_user ON device_logins (user_hash);
CREATE INDEX device_logins_ends ON device_logins (ends);
