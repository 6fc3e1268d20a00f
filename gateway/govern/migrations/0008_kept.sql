-- Responses, conversations and their items, which later requests go on with. The content is sealed
-- with a key of its own, which lies in body_keys under row_id, as attempt 0.
CREATE TABLE kept (
    row_id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    organisation TEXT NOT NULL,
    project TEXT NOT NULL,
    user_id TEXT NOT NULL,
    -- Of an item: its conversation. Of a response: the one that it goes on with.
    parent TEXT NOT NULL,
    -- Of an item: where it stands. Of a conversation: where the next one will.
    place BIGINT NOT NULL,
    label TEXT NOT NULL,
    at BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    -- A response that is being made is taken for lost from then on; 0: it is whole.
    lost_at BIGINT NOT NULL,
    -- Somebody asks that it be stopped.
    stop BIGINT NOT NULL,
    content TEXT NOT NULL
);
CREATE INDEX kept_names ON kept (organisation, project, kind, id);
CREATE INDEX kept_items ON kept (organisation, project, parent, place);
CREATE INDEX kept_times ON kept (organisation, at);
CREATE INDEX kept_expire ON kept (expires);
