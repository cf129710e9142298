-- What registries hold. Digests are written as in "sha256:…". A blob is
-- readable in a repository because repository_blobs says so, whatever else
-- is true of it. Rows that belong together change in one transaction; no
-- foreign keys, because every statement here names what it removes.

-- +goose Up

-- pushed is when the first manifest came: until then the repository is a
-- place for blobs, and neither listed nor known.
CREATE TABLE repositories (
    id       {{serial}},
    registry TEXT NOT NULL,
    name     TEXT NOT NULL,
    created  BIGINT NOT NULL,
    pushed   BIGINT NOT NULL
);
CREATE UNIQUE INDEX repositories_name ON repositories (registry, name);

-- location is where the bytes are; it is never used again after them.
-- bad is 1 when the scrubber found other bytes there.
CREATE TABLE blobs (
    digest   TEXT PRIMARY KEY,
    size     BIGINT NOT NULL,
    location TEXT NOT NULL,
    bad      BIGINT NOT NULL,
    created  BIGINT NOT NULL
);

-- used is when a client last relied on the blob's being here.
CREATE TABLE repository_blobs (
    repo   BIGINT NOT NULL,
    digest TEXT NOT NULL,
    used   BIGINT NOT NULL,
    PRIMARY KEY (repo, digest)
);
CREATE INDEX repository_blobs_digest ON repository_blobs (digest);

-- annotations are kept apart only for manifests with a subject, which are
-- listed with them. The body stands last: the rest is read without it.
CREATE TABLE manifests (
    repo          BIGINT NOT NULL,
    digest        TEXT NOT NULL,
    media_type    TEXT NOT NULL,
    artifact_type TEXT NOT NULL,
    size          BIGINT NOT NULL,
    subject       TEXT NOT NULL,
    pushed        BIGINT NOT NULL,
    annotations   TEXT NOT NULL,
    body          {{bytes}} NOT NULL,
    PRIMARY KEY (repo, digest)
);
CREATE INDEX manifests_subject ON manifests (repo, subject, digest) WHERE subject <> '';
CREATE INDEX manifests_subject_type ON manifests (repo, subject, artifact_type, digest) WHERE subject <> '';

-- What a manifest names, blobs and manifests alike.
CREATE TABLE manifest_links (
    repo     BIGINT NOT NULL,
    manifest TEXT NOT NULL,
    child    TEXT NOT NULL,
    PRIMARY KEY (repo, manifest, child)
);
CREATE INDEX manifest_links_child ON manifest_links (repo, child);

CREATE TABLE tags (
    repo    BIGINT NOT NULL,
    name    TEXT NOT NULL,
    digest  TEXT NOT NULL,
    created BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    PRIMARY KEY (repo, name)
);
CREATE INDEX tags_digest ON tags (repo, digest);

-- hash is the running hash over the first size bytes; boot is of the machine
-- when the session began.
CREATE TABLE uploads (
    id       TEXT PRIMARY KEY,
    registry TEXT NOT NULL,
    repo     TEXT NOT NULL,
    alg      TEXT NOT NULL,
    size     BIGINT NOT NULL,
    hash     {{bytes}} NOT NULL,
    boot     TEXT NOT NULL,
    changed  BIGINT NOT NULL
);
CREATE INDEX uploads_changed ON uploads (changed);
CREATE INDEX uploads_registry ON uploads (registry);
