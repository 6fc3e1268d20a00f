-- How a request was served: as any, or as a batch, which may have prices of its own.
ALTER TABLE ledger ADD COLUMN service_tier TEXT NOT NULL DEFAULT 'default';
