-- The directory as Graph shows it: applications, users and groups beside the
-- service principals, and who is in which group. What a caller has set and
-- nothing here reads is kept in properties, a JSON object.

-- +goose Up
ALTER TABLE principals ADD COLUMN name_key TEXT NOT NULL DEFAULT '';
ALTER TABLE principals ADD COLUMN upn TEXT NOT NULL DEFAULT '';
ALTER TABLE principals ADD COLUMN properties TEXT NOT NULL DEFAULT '{}';
UPDATE principals SET name_key = lower(name);

-- An application and its service principal share the client id.
DROP INDEX principals_app;
CREATE UNIQUE INDEX principals_app ON principals (kind, app_id) WHERE app_id <> '';
CREATE UNIQUE INDEX principals_upn ON principals (upn) WHERE upn <> '';
CREATE INDEX principals_kind ON principals (kind, object_id);
CREATE INDEX principals_name ON principals (kind, name_key, object_id);

CREATE TABLE group_members (
    group_id  TEXT NOT NULL,
    member_id TEXT NOT NULL,
    PRIMARY KEY (group_id, member_id)
);
CREATE INDEX group_members_member ON group_members (member_id, group_id);
