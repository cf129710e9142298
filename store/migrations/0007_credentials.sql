-- Further kinds of credentials: certificates, passwords of people, what
-- another issuer's tokens must say. data is what of them is more than a hash;
-- none of it is a secret but the hash of a password, which is a slow one.
-- managed is the id of the resource whose identity a service principal is.

-- +goose Up
ALTER TABLE principals ADD COLUMN managed TEXT NOT NULL DEFAULT '';
ALTER TABLE credentials ADD COLUMN kind TEXT NOT NULL DEFAULT 'secret';
ALTER TABLE credentials ADD COLUMN data {{bytes}} NOT NULL DEFAULT '';
