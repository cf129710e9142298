-- When a manifest last lost its last tag, or came without one, for the policy
-- that removes such manifests: it may have been given one since. 0 is one of
-- which that is not known, and which is never removed. was is what a tag
-- pointed at before it pointed at digest.

-- +goose Up
ALTER TABLE manifests ADD COLUMN untagged BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tags ADD COLUMN was TEXT NOT NULL DEFAULT '';
CREATE INDEX manifests_untagged ON manifests (untagged) WHERE untagged > 0;
