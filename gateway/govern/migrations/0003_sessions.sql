-- People who have signed in. Of a session's token only the SHA-256 is kept.
CREATE TABLE sessions (
    hash TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    way TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
);
CREATE INDEX sessions_users ON sessions (user_id, created_at);

-- Links by which people set a password, each good for one time.
CREATE TABLE links (
    hash TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- The step of the last one-time code of each person: none counts twice, at no gateway.
CREATE TABLE steps (user_id TEXT NOT NULL PRIMARY KEY, step BIGINT NOT NULL);
