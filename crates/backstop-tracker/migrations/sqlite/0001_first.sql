-- The first schema.
-- Times are microseconds since 1970 unless a column says minutes or days.
-- Hot tables carry no foreign keys, because each one costs a look-up per event; `backstop check` verifies them.

CREATE TABLE organization (
  id      INTEGER PRIMARY KEY,
  slug    TEXT NOT NULL UNIQUE,
  name    TEXT NOT NULL,
  created INTEGER NOT NULL
) STRICT;

CREATE TABLE project (
  id           INTEGER PRIMARY KEY,
  organization INTEGER NOT NULL REFERENCES organization (id),
  slug         TEXT NOT NULL,
  name         TEXT NOT NULL,
  platform     TEXT,
  settings     TEXT NOT NULL DEFAULT '{}', -- JSON, read by ingest
  created      INTEGER NOT NULL,
  UNIQUE (organization, slug)
) STRICT;

-- What changes with every event, apart from what people edit.
CREATE TABLE project_count (
  project INTEGER PRIMARY KEY REFERENCES project (id),
  events  INTEGER NOT NULL DEFAULT 0,
  issues  INTEGER NOT NULL DEFAULT 0 -- issue numbers given so far
) STRICT;

CREATE TABLE project_key (
  public  BLOB PRIMARY KEY,
  secret  BLOB,
  project INTEGER NOT NULL REFERENCES project (id),
  active  INTEGER NOT NULL DEFAULT 1,
  created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX project_key_project ON project_key (project);

CREATE TABLE user (
  id       INTEGER PRIMARY KEY,
  email    TEXT NOT NULL UNIQUE COLLATE NOCASE,
  name     TEXT NOT NULL,
  password TEXT, -- argon2id in PHC form; NULL until one is chosen
  created  INTEGER NOT NULL
) STRICT;

CREATE TABLE sign_in_link (
  hash    BLOB PRIMARY KEY, -- SHA-256 of the secret in the link
  user    INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
  expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE web_session (
  hash    BLOB PRIMARY KEY, -- SHA-256 of the cookie's secret
  user    INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
  created INTEGER NOT NULL,
  expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_token (
  id      INTEGER PRIMARY KEY,
  hash    BLOB NOT NULL UNIQUE, -- SHA-256 of the token
  name    TEXT NOT NULL,
  scopes  TEXT NOT NULL, -- separated by spaces
  created INTEGER NOT NULL
) STRICT;

CREATE TABLE issue (
  id             INTEGER PRIMARY KEY,
  project        INTEGER NOT NULL,
  number         INTEGER NOT NULL, -- within the project; shown in the short id
  status         INTEGER NOT NULL, -- 0 unresolved, 1 resolved, 2 muted
  level          INTEGER NOT NULL, -- 0 debug … 4 fatal, of the latest event
  events         INTEGER NOT NULL,
  kept           INTEGER NOT NULL, -- events whose bodies are still stored
  users          INTEGER NOT NULL,
  first_seen     INTEGER NOT NULL,
  last_seen      INTEGER NOT NULL,
  regressions    INTEGER NOT NULL DEFAULT 0,
  mute_until     INTEGER,
  mute_events    INTEGER, -- the count at which a mute ends
  search_docs    INTEGER NOT NULL DEFAULT 0,
  thin_level     INTEGER NOT NULL DEFAULT 0, -- how often the bodies between first and latest were halved
  thin_seq       INTEGER NOT NULL DEFAULT 0, -- how far the halving under way has come
  title          TEXT NOT NULL,
  culprit        TEXT NOT NULL,
  platform       TEXT,
  first_release  TEXT,
  last_release   TEXT,
  reason         TEXT NOT NULL, -- why its events are together, for people
  UNIQUE (project, number)
) STRICT;
-- Covers every order of the issue list, so that a list never reads the wide rows it does not show.
CREATE INDEX issue_list ON issue (project, status, last_seen, id, events, first_seen, level);

-- An issue that was merged into another one; old links and ids still lead somewhere.
CREATE TABLE issue_merged (
  id   INTEGER PRIMARY KEY,
  into_issue INTEGER NOT NULL
) STRICT;

CREATE TABLE issue_hash (
  project INTEGER NOT NULL,
  version INTEGER NOT NULL,
  hash    BLOB NOT NULL,
  issue   INTEGER NOT NULL,
  PRIMARY KEY (project, version, hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX issue_hash_issue ON issue_hash (issue);

-- What grouping has learned about a project, in its own form.
CREATE TABLE learned (
  project INTEGER PRIMARY KEY,
  bytes   BLOB NOT NULL
) STRICT;

CREATE TABLE event (
  seq       INTEGER PRIMARY KEY, -- the order of arrival
  id        BLOB NOT NULL,
  project   INTEGER NOT NULL,
  issue     INTEGER NOT NULL,
  number    INTEGER NOT NULL, -- the how-manieth of its issue; decides what a sample keeps
  timestamp INTEGER NOT NULL,
  received  INTEGER NOT NULL,
  dictionary INTEGER, -- NULL: compressed without one
  size      INTEGER NOT NULL, -- bytes of the JSON text
  sum       INTEGER NOT NULL, -- CRC-32 of id and body
  body      BLOB NOT NULL -- zstd
) STRICT;
CREATE INDEX event_issue ON event (issue);

-- Event ids, one table per generation of about a day, in a ring of ten slots.
-- A whole generation is dropped when the window for duplicates has passed.
CREATE TABLE event_id_0 (id BLOB NOT NULL, project INTEGER NOT NULL, issue INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (id, project)) STRICT, WITHOUT ROWID;
CREATE TABLE event_id_1 (id BLOB NOT NULL, project INTEGER NOT NULL, issue INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (id, project)) STRICT, WITHOUT ROWID;
CREATE TABLE event_id_2 (id BLOB NOT NULL, project INTEGER NOT NULL, issue INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (id, project)) STRICT, WITHOUT ROWID;
CREATE TABLE event_id_3 (id BLOB NOT NULL, project INTEGER NOT NULL, issue INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (id, project)) STRICT, WITHOUT ROWID;
CREATE TABLE event_id_4 (id BLOB NOT NULL, project INTEGER NOT NULL, issue INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (id, project)) STRICT, WITHOUT ROWID;
CREATE TABLE event_id_5 (id BLOB NOT NULL, project INTEGER NOT NULL, issue INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (id, project)) STRICT, WITHOUT ROWID;
CREATE TABLE event_id_6 (id BLOB NOT NULL, project INTEGER NOT NULL, issue INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (id, project)) STRICT, WITHOUT ROWID;
CREATE TABLE event_id_7 (id BLOB NOT NULL, project INTEGER NOT NULL, issue INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (id, project)) STRICT, WITHOUT ROWID;
CREATE TABLE event_id_8 (id BLOB NOT NULL, project INTEGER NOT NULL, issue INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (id, project)) STRICT, WITHOUT ROWID;
CREATE TABLE event_id_9 (id BLOB NOT NULL, project INTEGER NOT NULL, issue INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (id, project)) STRICT, WITHOUT ROWID;
-- Ids that outlived their generation because their body is still kept.
CREATE TABLE event_id_kept (id BLOB NOT NULL, project INTEGER NOT NULL, issue INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (id, project)) STRICT, WITHOUT ROWID;

CREATE TABLE generation (
  number INTEGER PRIMARY KEY, -- its slot is the remainder of ten
  opened INTEGER NOT NULL,
  closed INTEGER -- NULL: the current one
) STRICT;

-- Counts per minute; after two days per hour, after ninety per day. Minutes since 1970.
CREATE TABLE bucket (
  issue INTEGER NOT NULL,
  start INTEGER NOT NULL,
  n     INTEGER NOT NULL,
  PRIMARY KEY (issue, start)
) STRICT, WITHOUT ROWID;
CREATE TABLE project_bucket (
  project INTEGER NOT NULL,
  start   INTEGER NOT NULL,
  n       INTEGER NOT NULL,
  PRIMARY KEY (project, start)
) STRICT, WITHOUT ROWID;

CREATE TABLE tag (
  issue     INTEGER NOT NULL,
  key       TEXT NOT NULL,
  value     TEXT NOT NULL,
  n         INTEGER NOT NULL,
  last_seen INTEGER NOT NULL,
  PRIMARY KEY (issue, key, value)
) STRICT, WITHOUT ROWID;
CREATE TABLE tag_key (
  issue     INTEGER NOT NULL,
  key       TEXT NOT NULL,
  distinct_values INTEGER NOT NULL, -- rows in `tag`
  other     INTEGER NOT NULL, -- events whose value found no room
  PRIMARY KEY (issue, key)
) STRICT, WITHOUT ROWID;

-- The words of the short documents. A row holds only words that its issue did not have yet;
-- the row id is the issue's id and a counter.
CREATE VIRTUAL TABLE search USING fts5 (words, content='', contentless_delete=1, detail=none, tokenize='unicode61 remove_diacritics 2');

CREATE TABLE dictionary (
  id      INTEGER PRIMARY KEY,
  project INTEGER NOT NULL,
  created INTEGER NOT NULL,
  events  INTEGER NOT NULL, -- of the project when it was trained
  sum     INTEGER NOT NULL, -- CRC-32 of the bytes
  bytes   BLOB NOT NULL
) STRICT;

CREATE TABLE outcome (
  project INTEGER NOT NULL,
  day     INTEGER NOT NULL, -- days since 1970
  reason  TEXT NOT NULL,
  key     BLOB NOT NULL, -- the public key; empty: unknown
  n       INTEGER NOT NULL,
  PRIMARY KEY (project, day, reason, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE alert_rule (
  id      INTEGER PRIMARY KEY,
  project INTEGER NOT NULL REFERENCES project (id),
  kind    INTEGER NOT NULL, -- 0 new issue, 1 regression, 2 frequency
  events  INTEGER, -- frequency: this many events …
  minutes INTEGER, -- … in this time
  active  INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE INDEX alert_rule_project ON alert_rule (project);

-- Alerts that are due. A row is written in the transaction that counts the event, so it is never lost and never doubled.
CREATE TABLE outbox (
  id           INTEGER PRIMARY KEY,
  project      INTEGER NOT NULL,
  issue        INTEGER NOT NULL,
  rule         INTEGER NOT NULL,
  kind         INTEGER NOT NULL,
  window       INTEGER NOT NULL, -- the how-manieth regression, or the time at which a threshold was passed
  event        BLOB NOT NULL, -- the id of the event that caused it
  events       INTEGER NOT NULL, -- of the issue at that moment
  created      INTEGER NOT NULL,
  state        INTEGER NOT NULL DEFAULT 0, -- 0 due, 1 sent, 2 given up
  attempts     INTEGER NOT NULL DEFAULT 0,
  next_attempt INTEGER NOT NULL,
  error        TEXT,
  UNIQUE (issue, rule, window)
) STRICT;
CREATE INDEX outbox_due ON outbox (next_attempt) WHERE state = 0;

CREATE TABLE statistic (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO statistic VALUES ('body_bytes', 0), ('seq_evicted', 0), ('rolled_day', 0), ('rolled_issue', 0);
CREATE INDEX dictionary_project ON dictionary (project, id);
