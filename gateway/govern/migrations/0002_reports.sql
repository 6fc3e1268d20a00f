-- Pages of everybody's lines, the newest first. Within one organisation 0001 has the same.
CREATE INDEX ledger_newest ON ledger (admitted_at);
CREATE INDEX audit_newest ON audit (at);
