-- Which mail an alert belongs to: its Message-ID, noted before the mail is sent.
ALTER TABLE outbox ADD COLUMN mail TEXT;
CREATE INDEX outbox_mail ON outbox (mail) WHERE state = 0;
