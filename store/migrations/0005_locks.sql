-- What may not be done with a repository, a manifest or a tag: content.Locks.
-- And the orders by time in which they are listed.

-- +goose Up
ALTER TABLE repositories ADD COLUMN locks BIGINT NOT NULL DEFAULT 0;
ALTER TABLE manifests ADD COLUMN locks BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tags ADD COLUMN locks BIGINT NOT NULL DEFAULT 0;
CREATE INDEX tags_changed ON tags (repo, changed, name);
CREATE INDEX manifests_pushed ON manifests (repo, pushed, digest);
