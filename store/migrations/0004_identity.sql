-- Who there is, and the keys that sign for them. Ids are GUIDs in lower case.
-- Neither table of secrets holds one: credentials are hashes of random texts,
-- signing keys are sealed under a master key that is not in the database.

-- +goose Up
CREATE TABLE tenants (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE subscriptions (
    id      TEXT PRIMARY KEY,
    tenant  TEXT NOT NULL,
    name    TEXT NOT NULL,
    created BIGINT NOT NULL
);

-- app_id is the client id, which only a service principal has.
CREATE TABLE principals (
    object_id TEXT PRIMARY KEY,
    tenant    TEXT NOT NULL,
    kind      TEXT NOT NULL,
    app_id    TEXT NOT NULL,
    name      TEXT NOT NULL,
    disabled  BIGINT NOT NULL,
    created   BIGINT NOT NULL
);
CREATE UNIQUE INDEX principals_app ON principals (app_id) WHERE app_id <> '';

CREATE TABLE credentials (
    key_id    TEXT PRIMARY KEY,
    object_id TEXT NOT NULL,
    name      TEXT NOT NULL,
    hint      TEXT NOT NULL,
    hash      {{bytes}} NOT NULL,
    starts    BIGINT NOT NULL,
    ends      BIGINT NOT NULL
);
CREATE INDEX credentials_object ON credentials (object_id);

-- retire is 0 while the key has no end.
CREATE TABLE signing_keys (
    id        TEXT PRIMARY KEY,
    purpose   TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    sealed    {{bytes}} NOT NULL,
    created   BIGINT NOT NULL,
    activate  BIGINT NOT NULL,
    retire    BIGINT NOT NULL
);
