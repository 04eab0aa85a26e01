-- Who has already got the mail about an alert that others still wait for; gone when the alert is done.
CREATE TABLE delivery (
  alert    INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
  receiver TEXT NOT NULL, -- a mail address
  PRIMARY KEY (alert, receiver)
) STRICT, WITHOUT ROWID;
