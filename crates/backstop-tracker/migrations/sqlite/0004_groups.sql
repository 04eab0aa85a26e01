-- Which group each event is in, and what every group hash was made from.

-- The primary hash of the event; NULL: it was stored before this was written down.
ALTER TABLE event ADD COLUMN group_hash BLOB;

-- The primary hash of the event that brought the hash: a split takes the others along.
ALTER TABLE issue_hash ADD COLUMN primary_hash BLOB;
ALTER TABLE issue_hash ADD COLUMN part TEXT NOT NULL DEFAULT '';
ALTER TABLE issue_hash ADD COLUMN made_of TEXT NOT NULL DEFAULT '[]'; -- JSON: a list of name and value
