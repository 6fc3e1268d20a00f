-- Time of the device that made the answer, from a request's first step to its end; microseconds.
ALTER TABLE ledger ADD COLUMN device_us BIGINT NOT NULL DEFAULT 0;

-- Sums of the ledger over whole days of UTC. Reports take them for what they hold of a range and
-- quarters for its edges.
CREATE TABLE days (
    day BIGINT NOT NULL,
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
    PRIMARY KEY (day, organisation, team, project, user_id, key_id, model, label)
);
CREATE INDEX days_organisations ON days (organisation, day);
-- The remainder is added and taken twice, so that days before 1970 are whole too.
INSERT INTO days
SELECT quarter - (quarter % 86400000 + 86400000) % 86400000, organisation, team, project, user_id,
    key_id, model, label, CAST(SUM(requests) AS BIGINT), CAST(SUM(input_tokens) AS BIGINT),
    CAST(SUM(cache_read_tokens) AS BIGINT), CAST(SUM(output_tokens) AS BIGINT),
    CAST(SUM(cost_nano_usd) AS BIGINT)
FROM quarters GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;

-- Texts of requests and answers, where a policy asks for them. The content is sealed with a key of
-- its own.
CREATE TABLE bodies (
    operation TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    organisation TEXT NOT NULL,
    user_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    label TEXT NOT NULL,
    at BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (operation, attempt)
);
CREATE INDEX bodies_times ON bodies (organisation, at);
CREATE INDEX bodies_expire ON bodies (expires);

-- The keys of bodies, sealed with the master key. No backup has them: a body whose key was erased
-- here can be read nowhere any more.
CREATE TABLE body_keys (
    operation TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    organisation TEXT NOT NULL,
    user_id TEXT NOT NULL,
    at BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    sealed TEXT NOT NULL,
    PRIMARY KEY (operation, attempt)
);
CREATE INDEX body_keys_times ON body_keys (organisation, at);
CREATE INDEX body_keys_expire ON body_keys (expires);
