-- The tag values that an issue met first, together in one row, so that an event costs one small
-- row and not one per tag. Values beyond them are in `tag`.
CREATE TABLE tag_pack (
  issue INTEGER PRIMARY KEY,
  seen  INTEGER NOT NULL, -- when any of them was last seen
  body  TEXT NOT NULL -- JSON: a list of key, value, number of events, and microseconds before `seen`
) STRICT;

-- Every value of every tag, wherever it is kept; what is damaged is left out.
CREATE VIEW tag_all AS
  SELECT issue, key, value, n, last_seen FROM tag
  UNION ALL
  SELECT p.issue, p.body ->> (j.fullkey || '[0]'), p.body ->> (j.fullkey || '[1]'),
         CAST(p.body ->> (j.fullkey || '[2]') AS INTEGER), p.seen - (p.body ->> (j.fullkey || '[3]'))
  FROM tag_pack p, json_each(CASE WHEN json_valid(p.body) THEN p.body ELSE '[]' END) j
  WHERE json_type(p.body, j.fullkey || '[3]') = 'integer';
