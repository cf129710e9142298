-- ARM resources: documents, one row each. key is the id in lower case, so that
-- all that lies below a resource is one range of keys; type is lower case too.

-- +goose Up
CREATE TABLE resources (
    key     TEXT PRIMARY KEY,
    id      TEXT NOT NULL,
    type    TEXT NOT NULL,
    uid     TEXT NOT NULL,
    etag    TEXT NOT NULL,
    created BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    body    TEXT NOT NULL
);
CREATE INDEX resources_type ON resources (type, key);
