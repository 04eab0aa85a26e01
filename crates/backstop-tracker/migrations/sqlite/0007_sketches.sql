-- What issues look like, to suggest which may be the same.

CREATE TABLE sketch (
  issue      INTEGER PRIMARY KEY,
  body       TEXT NOT NULL, -- JSON
  apart_from INTEGER -- the issue that people took this one out of
) STRICT;

-- Functions by number; at most a dozen for each issue.
CREATE TABLE sketch_function (
  project  INTEGER NOT NULL,
  function INTEGER NOT NULL,
  issue    INTEGER NOT NULL,
  PRIMARY KEY (project, function, issue)
) STRICT, WITHOUT ROWID;
