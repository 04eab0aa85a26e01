-- What clients send beside events.

-- A session of a program's user, until it is too old to be updated.
CREATE TABLE session (
  project     INTEGER NOT NULL,
  sid         BLOB NOT NULL,
  release     TEXT NOT NULL,
  environment TEXT NOT NULL,
  day         INTEGER NOT NULL, -- on which it started; days since 1970
  status      INTEGER NOT NULL, -- 0 ok, 1 exited, 2 errored, 3 unhandled, 4 abnormal, 5 crashed
  errors      INTEGER NOT NULL,
  updated     INTEGER NOT NULL,
  PRIMARY KEY (project, sid)
) STRICT, WITHOUT ROWID;
CREATE INDEX session_updated ON session (updated);

-- How the sessions of a release went.
CREATE TABLE release_health (
  project     INTEGER NOT NULL,
  release     TEXT NOT NULL,
  environment TEXT NOT NULL,
  day         INTEGER NOT NULL,
  sessions    INTEGER NOT NULL,
  errored     INTEGER NOT NULL,
  unhandled   INTEGER NOT NULL,
  abnormal    INTEGER NOT NULL,
  crashed     INTEGER NOT NULL,
  PRIMARY KEY (project, release, environment, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE monitor (
  project INTEGER NOT NULL,
  slug    TEXT NOT NULL,
  config  TEXT, -- JSON, as the client sent it
  status  TEXT NOT NULL, -- of the latest check-in
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  PRIMARY KEY (project, slug)
) STRICT, WITHOUT ROWID;

CREATE TABLE check_in (
  project     INTEGER NOT NULL,
  monitor     TEXT NOT NULL,
  id          BLOB NOT NULL,
  status      TEXT NOT NULL,
  duration    REAL, -- seconds
  environment TEXT,
  started     INTEGER NOT NULL,
  updated     INTEGER NOT NULL,
  PRIMARY KEY (project, monitor, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX check_in_started ON check_in (project, monitor, started);

CREATE TABLE attachment (
  id              INTEGER PRIMARY KEY,
  project         INTEGER NOT NULL,
  event           BLOB NOT NULL,
  filename        TEXT NOT NULL,
  content_type    TEXT,
  attachment_type TEXT,
  sha1            BLOB NOT NULL,
  size            INTEGER NOT NULL,
  created         INTEGER NOT NULL,
  body            BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX attachment_event ON attachment (project, event, filename, sha1);
INSERT INTO statistic VALUES ('attachment_bytes', 0);

-- What users wrote about an error. The event may arrive later, or never.
CREATE TABLE feedback (
  project INTEGER NOT NULL,
  id      BLOB NOT NULL,
  event   BLOB,
  name    TEXT,
  email   TEXT,
  message TEXT NOT NULL,
  url     TEXT,
  created INTEGER NOT NULL,
  PRIMARY KEY (project, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX feedback_event ON feedback (project, event);

-- Performance records, kept plain.
CREATE TABLE transaction_record (
  project  INTEGER NOT NULL,
  event    BLOB NOT NULL,
  name     TEXT NOT NULL,
  received INTEGER NOT NULL,
  body     BLOB NOT NULL, -- JSON, zstd
  PRIMARY KEY (project, event)
) STRICT, WITHOUT ROWID;
CREATE INDEX transaction_record_received ON transaction_record (project, received);
