-- From schema 1 to schema 2 of SQLite: recurring jobs. What schema.sql says of these
-- columns and indexes holds here as well; a test compares the two.

ALTER TABLE worker_jobs ADD COLUMN misfire TEXT CHECK (misfire IN ('once', 'skip', 'all'));
ALTER TABLE worker_jobs ADD COLUMN misfire_limit INTEGER;
ALTER TABLE worker_jobs ADD COLUMN fire_locally INTEGER NOT NULL DEFAULT 0 CHECK (fire_locally IN (0, 1));
ALTER TABLE worker_jobs ADD COLUMN schedule_row INTEGER;
ALTER TABLE worker_jobs ADD COLUMN last_occurrence INTEGER NOT NULL DEFAULT 0 CHECK (last_occurrence IN (0, 1));
ALTER TABLE worker_jobs ADD COLUMN missed_at INTEGER;
ALTER TABLE worker_jobs ADD COLUMN schedule_settled INTEGER NOT NULL DEFAULT 0 CHECK (schedule_settled IN (0, 1));

DROP INDEX worker_jobs_owed;
DROP INDEX worker_jobs_claim;
DROP INDEX worker_jobs_removable;
DROP INDEX worker_jobs_created;
DROP INDEX worker_jobs_open_tag;
CREATE INDEX worker_jobs_open ON worker_jobs (id, executor) WHERE finished IS NULL;
CREATE INDEX worker_jobs_next ON worker_jobs (due, id) WHERE finished IS NULL;
CREATE UNIQUE INDEX worker_jobs_nominal ON worker_jobs (schedule_row, due)
  WHERE executor = 'trigger' AND rescheduled_from_job = schedule_row;
CREATE INDEX worker_jobs_owed ON worker_jobs (next_try_at, id)
  WHERE finished IS NULL AND (cancel_requested = TRUE OR (executor = 'trigger' AND trigger_run_id IS NULL
    AND (cron_schedule IS NULL OR (fire_locally = FALSE AND schedule_settled = FALSE))));
CREATE INDEX worker_jobs_claim ON worker_jobs (due, id)
  WHERE finished IS NULL AND executor = 'internal' AND lease_token IS NULL;
CREATE INDEX worker_jobs_claim_type ON worker_jobs (type, due, id)
  WHERE finished IS NULL AND executor = 'internal' AND lease_token IS NULL;
CREATE INDEX worker_jobs_backoff ON worker_jobs (next_try_at, id)
  WHERE finished IS NULL AND executor = 'internal' AND lease_token IS NULL;
CREATE INDEX worker_jobs_leased ON worker_jobs (lease_expires_at)
  WHERE finished IS NULL AND executor = 'internal' AND lease_token IS NOT NULL;
CREATE INDEX worker_jobs_recurring ON worker_jobs (due, id) WHERE finished IS NULL AND cron_schedule IS NOT NULL;
CREATE INDEX worker_jobs_missed ON worker_jobs (missed_at) WHERE finished IS NULL AND missed_at IS NOT NULL;
CREATE INDEX worker_jobs_removable ON worker_jobs (remove_at)
  WHERE finished IS NOT NULL AND persistent = FALSE
    AND (trigger_run_id IS NULL OR confirmed_at IS NOT NULL OR orphaned_at IS NOT NULL);
CREATE INDEX worker_jobs_created ON worker_jobs (created_at, id);
CREATE INDEX worker_jobs_type ON worker_jobs (type, id);
CREATE INDEX worker_jobs_name ON worker_jobs (name, id) WHERE name IS NOT NULL;
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
CREATE INDEX worker_jobs_ended ON worker_jobs (executor, success, trigger_status, cancel_requested) WHERE finished IS NOT NULL;
CREATE INDEX worker_jobs_open_tag ON worker_jobs (tag, id) WHERE finished IS NULL;
