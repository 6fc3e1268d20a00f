-- One schema for SQLite and PostgreSQL: texts and 64-bit numbers only, times in milliseconds since
-- 1970, money in nano-dollars, flags as 0 and 1.

-- Everything that an administrator makes. The body is JSON; the other columns are what it is found
-- by. Each change takes the next revision, so that another gateway asks for what it has not seen.
CREATE TABLE documents (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    parent TEXT NOT NULL,
    name TEXT NOT NULL,
    revision BIGINT NOT NULL,
    deleted BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE UNIQUE INDEX documents_names ON documents (kind, parent, name) WHERE deleted = 0;
CREATE UNIQUE INDEX documents_revisions ON documents (revision);

CREATE TABLE counters (name TEXT NOT NULL PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO counters (name, value) VALUES ('revision', 0);

-- What was used and what it cost. Rows are added and never changed.
CREATE TABLE ledger (
    operation TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    gateway TEXT NOT NULL,
    admitted_at BIGINT NOT NULL,
    settled_at BIGINT NOT NULL,
    organisation TEXT NOT NULL,
    team TEXT NOT NULL,
    project TEXT NOT NULL,
    user_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    backend TEXT NOT NULL,
    surface TEXT NOT NULL,
    label TEXT NOT NULL,
    price TEXT NOT NULL,
    input_tokens BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    cost_nano_usd BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    request_id TEXT NOT NULL,
    source TEXT NOT NULL,
    first_token_ms BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL,
    PRIMARY KEY (operation, attempt)
);
CREATE INDEX ledger_times ON ledger (organisation, admitted_at);

-- Sums of the ledger over quarters of an hour, which every time zone's days are made of: budgets
-- begin with them and reports read nothing else.
CREATE TABLE quarters (
    quarter BIGINT NOT NULL,
    organisation TEXT NOT NULL,
    team TEXT NOT NULL,
    project TEXT NOT NULL,
    user_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    label TEXT NOT NULL,
    requests BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cost_nano_usd BIGINT NOT NULL,
    PRIMARY KEY (quarter, organisation, team, project, user_id, key_id, model, label)
);
CREATE INDEX quarters_organisations ON quarters (organisation, quarter);

-- One chain of hashes for each gateway.
CREATE TABLE audit (
    chain TEXT NOT NULL,
    number BIGINT NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    organisation TEXT NOT NULL,
    body TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (chain, number)
);
CREATE INDEX audit_times ON audit (organisation, at);

-- Answers to admin requests that carried an idempotency key.
CREATE TABLE idempotency (
    organisation TEXT NOT NULL,
    name TEXT NOT NULL,
    request TEXT NOT NULL,
    status BIGINT NOT NULL,
    answer TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (organisation, name)
);
