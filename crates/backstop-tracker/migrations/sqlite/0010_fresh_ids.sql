-- The ids of the latest events, a row for each batch; they move to their generation later.
CREATE TABLE event_id_fresh (
  seq INTEGER PRIMARY KEY, -- of the first event; the others follow it
  ids BLOB NOT NULL -- for each event its id, project, issue and seq, in 16 and three times 8 bytes, big-endian
) STRICT;
