-- What `sentry-cli` uploads: releases, source maps, debug files.

CREATE TABLE release (
  organization TEXT NOT NULL,
  version      TEXT NOT NULL,
  created      INTEGER NOT NULL,
  body         TEXT NOT NULL, -- JSON: what the client said of it
  PRIMARY KEY (organization, version)
) STRICT, WITHOUT ROWID;

-- Pieces of a file that is being uploaded.
CREATE TABLE chunk (
  sha1    BLOB PRIMARY KEY,
  created INTEGER NOT NULL,
  body    BLOB NOT NULL
) STRICT;

CREATE TABLE artifact (
  id           INTEGER PRIMARY KEY,
  organization TEXT NOT NULL,
  sha1         BLOB NOT NULL,
  kind         TEXT NOT NULL, -- bundle, debug_file
  name         TEXT NOT NULL,
  debug_id     TEXT,
  release      TEXT,
  dist         TEXT,
  size         INTEGER NOT NULL,
  created      INTEGER NOT NULL,
  body         BLOB NOT NULL,
  UNIQUE (organization, sha1, kind)
) STRICT;
CREATE INDEX artifact_release ON artifact (organization, release, dist);
