-- The arm of an experiment that whoever answered a request stood for.
ALTER TABLE ledger ADD COLUMN arm TEXT NOT NULL DEFAULT '';
