-- The files of uploaded bundles, each by itself, so that a frame costs one file and not a bundle.

CREATE TABLE source_file (
  id           INTEGER PRIMARY KEY,
  artifact     INTEGER NOT NULL REFERENCES artifact (id) ON DELETE CASCADE,
  organization TEXT NOT NULL,
  release      TEXT,
  dist         TEXT,
  kind         TEXT NOT NULL, -- source, map
  url          TEXT NOT NULL, -- `~/` stands for any host
  debug_id     TEXT,
  map_url      TEXT,
  packing      INTEGER NOT NULL, -- as in a zip: 0 stored, 8 deflate, 93 zstd
  body         BLOB NOT NULL
) STRICT;
CREATE INDEX source_file_artifact ON source_file (artifact);
CREATE INDEX source_file_debug_id ON source_file (organization, debug_id, kind) WHERE debug_id IS NOT NULL;
CREATE INDEX source_file_url ON source_file (organization, release, url) WHERE release IS NOT NULL;

-- Bundles that were kept whole are uploaded again.
DELETE FROM artifact WHERE kind = 'bundle';
