PRAGMA user_version = 1;
CREATE TABLE runs ( flow TEXT NOT NULL, run_id TEXT NOT NULL, status TEXT NOT NULL, created_us INTEGER NOT NULL, ended_us INTEGER, user TEXT NOT NULL, tags TEXT NOT NULL, system_tags TEXT NOT NULL, origin_run_id TEXT, reason TEXT, host TEXT NOT NULL, pid INTEGER, PRIMARY KEY (flow, run_id) ) WITHOUT ROWID;
CREATE INDEX runs_by_time ON runs (created_us, run_id, flow);
CREATE TABLE tasks ( flow TEXT NOT NULL, run_id TEXT NOT NULL, step TEXT NOT NULL, task_id TEXT NOT NULL, ordinal INTEGER NOT NULL, attempt INTEGER NOT NULL, status TEXT NOT NULL, started_us INTEGER, ended_us INTEGER, result INTEGER, reused INTEGER NOT NULL, caught INTEGER NOT NULL, failure BLOB, PRIMARY KEY (flow, run_id, step, task_id) ) WITHOUT ROWID;
CREATE INDEX tasks_by_ordinal ON tasks (flow, run_id, ordinal);
