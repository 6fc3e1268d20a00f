-- What people were told, or are to be: each alert once, whichever gateway saw it, however often. A
-- row outlives its deliveries, so that after a restart nobody is told again.
CREATE TABLE alerts (
    id TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    forget_at BIGINT NOT NULL,
    body TEXT NOT NULL
);

-- Alerts on their way. A row goes when the alert has arrived.
CREATE TABLE deliveries (
    alert TEXT NOT NULL,
    channel TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    PRIMARY KEY (alert, channel)
);
CREATE INDEX deliveries_due ON deliveries (channel, due_at);

-- The last record of each chain of the audit that a place outside has taken.
CREATE TABLE exported (
    sink TEXT NOT NULL,
    chain TEXT NOT NULL,
    number BIGINT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (sink, chain)
);
