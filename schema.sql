-- The database of sidejob on SQLite. One table matters: worker_jobs, the host's
-- view of every job. Times are milliseconds since 1970, UTC; JSON is TEXT; booleans
-- are 0 and 1. Every column beyond the host's own is nullable or has a constant
-- default, so a host may insert a row itself, and has then scheduled a job.
--
-- PRAGMA user_version is the version of this schema, application_id says whose it is.

CREATE TABLE worker_jobs (
  -- The host's columns.
  id             INTEGER PRIMARY KEY AUTOINCREMENT,          -- never used twice
  tag            TEXT    NOT NULL,                           -- deduplication name
  type           TEXT    NOT NULL,                           -- what work it is
  user_id        INTEGER NOT NULL DEFAULT 0,                 -- 0 is the system
  data           TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(data)),
  due            INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER)),
  started        INTEGER,
  finished       INTEGER,                                    -- set: the job has ended
  remove_at      INTEGER,
  success        INTEGER CHECK (success IN (0, 1)),
  result         TEXT CHECK (result IS NULL OR json_valid(result)),
  cron_schedule  TEXT,                                       -- set: the job recurs
  auto_reschedule_on_failure       INTEGER NOT NULL DEFAULT 0 CHECK (auto_reschedule_on_failure IN (0, 1)),
  auto_reschedule_on_failure_delay INTEGER,                  -- milliseconds
  remove_delay   INTEGER,                                    -- milliseconds; 0 and NULL: one hour
  rescheduled_from_job INTEGER,                              -- the row this one follows
  persistent     INTEGER NOT NULL DEFAULT 0 CHECK (persistent IN (0, 1)),
  created_at     INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER)),
  updated_at     INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER)),

  -- What Trigger.dev needs.
  executor            TEXT NOT NULL DEFAULT 'internal' CHECK (executor IN ('internal', 'trigger')),
  trigger_run_id      TEXT,
  trigger_attempt_id  TEXT,
  trigger_status      TEXT CHECK (trigger_status IN ('PENDING', 'EXECUTING', 'COMPLETED', 'FAILED', 'CANCELED')),
  trigger_schedule_id TEXT,
  cancel_requested    INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
  last_synced_at      INTEGER,

  -- What sidejob adds for its callers.
  trigger_task_id     TEXT,
  trigger_raw_status  TEXT,                                  -- the word Trigger.dev last used
  trigger_environment TEXT,                                  -- id of the environment the run lives in
  name                TEXT,                                  -- name in the registry
  timezone            TEXT NOT NULL DEFAULT 'UTC',
  retry_config        TEXT CHECK (retry_config IS NULL OR json_valid(retry_config)),
  attempt             INTEGER NOT NULL DEFAULT 0,
  paused              INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
  metadata            TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(metadata)),
  labels              TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(labels)),
  error               TEXT,                                  -- why Trigger.dev could not be reached
  idempotency_key     TEXT,                                  -- job-UUID

  -- Leases and sending.
  lease_token      TEXT,                                     -- who holds the row, until when
  lease_owner      TEXT,
  lease_expires_at INTEGER,
  lease_ms         INTEGER,
  sent_at          INTEGER,                                  -- first submit that may have arrived
  tries            INTEGER NOT NULL DEFAULT 0,               -- failed tries to reach Trigger.dev in a row
  next_try_at      INTEGER NOT NULL DEFAULT 0,               -- not before
  cancel_reason    TEXT,
  confirmed_at     INTEGER,                                  -- Trigger.dev itself said the end
  missing_count    INTEGER NOT NULL DEFAULT 0,               -- 404s in a row
  missing_since    INTEGER,
  orphaned_at      INTEGER,

  -- Recurring jobs.
  misfire          TEXT CHECK (misfire IN ('once', 'skip', 'all')), -- of nominal times that pass unused
  misfire_limit    INTEGER,                                  -- with all; 0 and NULL: 100
  fire_locally     INTEGER NOT NULL DEFAULT 0 CHECK (fire_locally IN (0, 1)), -- sidejob starts the runs itself
  schedule_row     INTEGER,                                  -- id of the recurring job's first row
  last_occurrence  INTEGER NOT NULL DEFAULT 0 CHECK (last_occurrence IN (0, 1)), -- it was ended while this one ran
  missed_at        INTEGER,                                  -- it had not begun in time
  schedule_settled INTEGER NOT NULL DEFAULT 0 CHECK (schedule_settled IN (0, 1)), -- Trigger.dev's schedule is as this row says

  CHECK (finished IS NULL OR success IS NOT NULL),
  CHECK (executor = 'trigger' OR (trigger_run_id IS NULL AND trigger_status IS NULL))
) STRICT;

-- One row for a run, whatever happens.
CREATE UNIQUE INDEX worker_jobs_run ON worker_jobs (trigger_run_id) WHERE trigger_run_id IS NOT NULL;
CREATE UNIQUE INDEX worker_jobs_key ON worker_jobs (idempotency_key) WHERE idempotency_key IS NOT NULL;
-- One row for each nominal time of a schedule.
CREATE UNIQUE INDEX worker_jobs_nominal ON worker_jobs (schedule_row, due)
  WHERE executor = 'trigger' AND rescheduled_from_job = schedule_row;
-- What has not ended, the newest and the soonest first. SQLite takes the younger of two
-- indexes that serve alike, so these stand before the narrower ones.
CREATE INDEX worker_jobs_open ON worker_jobs (id, executor) WHERE finished IS NULL;
CREATE INDEX worker_jobs_next ON worker_jobs (due, id) WHERE finished IS NULL;
-- What is owed to Trigger.dev, soonest first.
CREATE INDEX worker_jobs_owed ON worker_jobs (next_try_at, id)
  WHERE finished IS NULL AND (cancel_requested = TRUE OR (executor = 'trigger' AND trigger_run_id IS NULL
    AND (cron_schedule IS NULL OR (fire_locally = FALSE AND schedule_settled = FALSE))));
-- Whom to ask about.
CREATE INDEX worker_jobs_asked ON worker_jobs (id)
  WHERE trigger_run_id IS NOT NULL AND (finished IS NULL OR confirmed_at IS NULL);
-- What workers take, soonest due first, of every type and of one.
CREATE INDEX worker_jobs_claim ON worker_jobs (due, id)
  WHERE finished IS NULL AND executor = 'internal' AND lease_token IS NULL;
CREATE INDEX worker_jobs_claim_type ON worker_jobs (type, due, id)
  WHERE finished IS NULL AND executor = 'internal' AND lease_token IS NULL;
-- What the clock alone makes happen.
CREATE INDEX worker_jobs_backoff ON worker_jobs (next_try_at, id)
  WHERE finished IS NULL AND executor = 'internal' AND lease_token IS NULL;
CREATE INDEX worker_jobs_leased ON worker_jobs (lease_expires_at)
  WHERE finished IS NULL AND executor = 'internal' AND lease_token IS NOT NULL;
CREATE INDEX worker_jobs_recurring ON worker_jobs (due, id) WHERE finished IS NULL AND cron_schedule IS NOT NULL;
CREATE INDEX worker_jobs_missed ON worker_jobs (missed_at) WHERE finished IS NULL AND missed_at IS NOT NULL;
-- What may be removed.
CREATE INDEX worker_jobs_removable ON worker_jobs (remove_at)
  WHERE finished IS NOT NULL AND persistent = FALSE
    AND (trigger_run_id IS NULL OR confirmed_at IS NOT NULL OR orphaned_at IS NOT NULL);
-- Lists: the newest of each kind, those of what most jobs are aside, and what comes next.
CREATE INDEX worker_jobs_due ON worker_jobs (due, id);
CREATE INDEX worker_jobs_created ON worker_jobs (created_at, id);
CREATE INDEX worker_jobs_tag ON worker_jobs (tag, id);
CREATE INDEX worker_jobs_type ON worker_jobs (type, id);
CREATE INDEX worker_jobs_name ON worker_jobs (name, id) WHERE name IS NOT NULL;
CREATE INDEX worker_jobs_user ON worker_jobs (user_id, id);
CREATE INDEX worker_jobs_schedule ON worker_jobs (schedule_row, id) WHERE schedule_row IS NOT NULL;
CREATE INDEX worker_jobs_cron ON worker_jobs (id, executor) WHERE cron_schedule IS NOT NULL;
CREATE INDEX worker_jobs_labeled ON worker_jobs (id) WHERE labels <> '[]';
CREATE INDEX worker_jobs_internal ON worker_jobs (id) WHERE executor = 'internal';
CREATE INDEX worker_jobs_trigger ON worker_jobs (id) WHERE executor = 'trigger';
CREATE INDEX worker_jobs_unsuccessful ON worker_jobs (id) WHERE finished IS NOT NULL AND success = FALSE;
CREATE INDEX worker_jobs_failed ON worker_jobs (id)
  WHERE finished IS NOT NULL AND success IS NOT TRUE AND ((executor = 'trigger' AND COALESCE(trigger_status, '') <> 'CANCELED')
    OR (executor <> 'trigger' AND cancel_requested = FALSE));
CREATE INDEX worker_jobs_canceled ON worker_jobs (id)
  WHERE finished IS NOT NULL AND success IS NOT TRUE AND ((executor = 'trigger' AND trigger_status = 'CANCELED')
    OR (executor <> 'trigger' AND cancel_requested = TRUE));
-- How many ended in which way: nothing but what their status is read off.
CREATE INDEX worker_jobs_ended ON worker_jobs (executor, success, trigger_status, cancel_requested) WHERE finished IS NOT NULL;
-- Is the tag taken?
CREATE INDEX worker_jobs_open_tag ON worker_jobs (tag, id) WHERE finished IS NULL;

-- The history of a job: one line for each thing that changed it.
CREATE TABLE job_events (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  job_id     INTEGER NOT NULL,
  at         INTEGER NOT NULL,
  kind       TEXT    NOT NULL,                               -- what happened: job.Kind, or created
  source     TEXT    NOT NULL,                               -- who brought it
  from_state TEXT,
  to_state   TEXT    NOT NULL,
  detail     TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(detail))
) STRICT;
CREATE INDEX job_events_job ON job_events (job_id, id);

-- Signed events by id, so that none counts twice; one whose run no row has yet is
-- kept whole until its row learns its run id.
CREATE TABLE inbox (
  event_id    TEXT PRIMARY KEY,
  run_id      TEXT    NOT NULL,
  received_at INTEGER NOT NULL,
  matched     INTEGER NOT NULL CHECK (matched IN (0, 1)),
  event       TEXT                                           -- NULL once it is of no more use
) STRICT, WITHOUT ROWID;
CREATE INDEX inbox_waiting ON inbox (run_id) WHERE event IS NOT NULL;
CREATE INDEX inbox_age ON inbox (received_at);

-- Replies to requests that carried an Idempotency-Key. A row without a status is a
-- request under way; job_ids are the jobs it has made, written with them, so that a
-- reply lost in a crash can be given again.
CREATE TABLE replies (
  scope     TEXT PRIMARY KEY,                                -- method, path and key
  digest    TEXT    NOT NULL,                                -- of the request body
  owner     TEXT    NOT NULL,                                -- the process that works on it
  at        INTEGER NOT NULL,
  job_ids   TEXT CHECK (job_ids IS NULL OR json_valid(job_ids)),
  status    INTEGER,
  headers   TEXT,
  body      BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX replies_age ON replies (at);

-- What this installation is: its id, and what it must remember of itself.
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
