-- Gateways that share this database, and what each of them may spend without asking. It is the
-- state of processes that run, so no backup has it. `until` and `wished` are by the clock of the
-- database.
CREATE TABLE gateways (
    -- Of its journal: whoever has that settles what it began.
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    -- Of the process: an older one of the same journal finds another here, and stops.
    token TEXT NOT NULL,
    until BIGINT NOT NULL,
    -- Every change of the documents up to this one holds there.
    revision BIGINT NOT NULL
);

-- What a budget counts, and since which revision.
CREATE TABLE shapes (
    budget TEXT NOT NULL PRIMARY KEY,
    shape TEXT NOT NULL,
    revision BIGINT NOT NULL
);

-- Money of a budget's window that a gateway may spend. What it spends leaves here in the
-- transaction that adds it to the ledger.
CREATE TABLE slices (
    budget TEXT NOT NULL,
    shape TEXT NOT NULL,
    part BIGINT NOT NULL,
    window_start BIGINT NOT NULL,
    gateway TEXT NOT NULL,
    granted BIGINT NOT NULL,
    -- When it last wanted more than there was; 0: it has enough.
    wished BIGINT NOT NULL,
    PRIMARY KEY (budget, shape, part, window_start, gateway)
);
CREATE INDEX slices_gateways ON slices (gateway);
CREATE INDEX slices_wished ON slices (wished);
