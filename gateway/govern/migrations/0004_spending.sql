-- What a team, a project, a person or a key has spent, which budgets begin with. Of organisations
-- 0001 has the same.
CREATE INDEX quarters_teams ON quarters (team, quarter);
CREATE INDEX quarters_projects ON quarters (project, quarter);
CREATE INDEX quarters_users ON quarters (user_id, quarter);
CREATE INDEX quarters_keys ON quarters (key_id, quarter);
