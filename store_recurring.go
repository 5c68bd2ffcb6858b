package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"sidejob/internal/job"
)

// Ripe is documented at Store. A lease that outlasts the longest one by far was taken
// by a clock that has been set back since.
func (s *sqlStore) Ripe(ctx context.Context, at time.Time, limit int) (ripe []RipeRow, next time.Time, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	for _, r := range []struct {
		kind  job.Kind
		where string
		when  string // the column that says when
		late  time.Duration
	}{
		{job.LeaseLost, "finished IS NULL AND executor = 'internal' AND lease_token IS NOT NULL", "lease_expires_at", 0},
		{job.Fired, "finished IS NULL AND cron_schedule IS NOT NULL AND executor = 'trigger' AND fire_locally = TRUE AND paused = FALSE", "due", 0},
		{job.Missed, "finished IS NULL AND cron_schedule IS NOT NULL AND executor = 'internal' AND lease_token IS NULL AND started IS NULL AND paused = FALSE AND missed_at IS NULL", "due", job.Grace + time.Millisecond},
	} {
		ids, soonest, err := s.ripen(ctx, r.where, r.when, at.Add(-r.late), limit)
		if err != nil {
			return nil, next, fmt.Errorf("read what is due by the clock: %w", err)
		}
		for _, id := range ids {
			ripe = append(ripe, RipeRow{ID: id, Kind: r.kind})
		}
		if soonest = soonest.Add(r.late); !soonest.IsZero() && soonest.After(at) && (next.IsZero() || soonest.Before(next)) {
			next = soonest
		}
	}
	return ripe, next, nil
}

// longestLease bounds what a lease may have to go; see job.Job.
const longestLease = 2*time.Hour + time.Minute

// ripen reads the rows whose time has come, and when the next one's does.
func (s *sqlStore) ripen(ctx context.Context, where, when string, at time.Time, limit int) (ids []int64, next time.Time, err error) {
	far := ""
	args := []any{s.dialect.time(at), limit}
	if when == "lease_expires_at" {
		far = " OR lease_expires_at > $3"
		args = append(args, s.dialect.time(at.Add(longestLease)))
	}
	rows, err := s.db.QueryContext(ctx, fmt.Sprintf("SELECT id FROM worker_jobs WHERE %s AND (%s <= $1%s) ORDER BY %s, id LIMIT $2", where, when, far, when), args...)
	if err != nil {
		return nil, next, err
	}
	if ids, err = scanIDs(rows); err != nil {
		return nil, next, err
	}
	err = s.db.QueryRowContext(ctx, fmt.Sprintf("SELECT MIN(%s) FROM worker_jobs WHERE %s AND %s > $1", when, where, when), args[0]).
		Scan(s.dialect.momentColumn(&next))
	return ids, next, err
}

// Schedules is documented at Store.
func (s *sqlStore) Schedules(ctx context.Context) (jobs []job.Job, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	jobs, err = s.selectJobs(ctx, s.db, "WHERE finished IS NULL AND cron_schedule IS NOT NULL AND executor = 'trigger' AND fire_locally = FALSE ORDER BY id")
	if err != nil {
		return nil, fmt.Errorf("read schedules: %w", err)
	}
	return jobs, nil
}

// MissedRecurring is documented at Store.
func (s *sqlStore) MissedRecurring(ctx context.Context, limit int) (jobs []job.Job, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	jobs, err = s.selectJobs(ctx, s.db, "WHERE finished IS NULL AND missed_at IS NOT NULL ORDER BY missed_at LIMIT $1", limit)
	if err != nil {
		return nil, fmt.Errorf("read recurring jobs that did not fire: %w", err)
	}
	return jobs, nil
}

// RecurringRow is documented at Store. The row named may be gone: the later ones
// carry its id.
func (s *sqlStore) RecurringRow(ctx context.Context, id int64) (j job.Job, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	named, err := s.Get(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return job.Job{}, err
	}
	first := id
	if err == nil {
		first = named.Recurring()
	}
	for _, open := range []string{"finished IS NULL AND", ""} {
		jobs, err := s.selectJobs(ctx, s.db, fmt.Sprintf(`
			WHERE id = (SELECT MAX(id) FROM (
				SELECT id FROM worker_jobs WHERE %[1]s cron_schedule IS NOT NULL AND id = CAST($1 AS bigint)
				UNION ALL
				SELECT MAX(id) FROM worker_jobs WHERE %[1]s cron_schedule IS NOT NULL AND schedule_row = $1) AS those)`, open), first)
		if err != nil {
			return job.Job{}, fmt.Errorf("read recurring job %d: %w", id, err)
		}
		if len(jobs) > 0 {
			return jobs[0], nil
		}
	}
	if err != nil {
		return job.Job{}, err
	}
	return named, nil
}

// ScheduleOnce is documented at Store.
func (s *sqlStore) ScheduleOnce(ctx context.Context, name string, o Order) error {
	return s.change(ctx, func(ctx context.Context, c *changeset) error {
		var done string
		err := c.tx.QueryRowContext(ctx, `
			INSERT INTO meta (key, value) VALUES ($1, 'scheduled') ON CONFLICT (key) DO NOTHING RETURNING value`, "once:"+name).Scan(&done)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("note that %s was scheduled: %w", name, err)
		}
		_, err = c.place(ctx, o)
		return err
	})
}

// hasOccurrence tells whether a run that a schedule has fired has its row: by its own
// id, or by the nominal time.
func (c *changeset) hasOccurrence(ctx context.Context, f job.Job) (bool, error) {
	if f.Executor != job.Trigger || f.ScheduleRow == 0 || f.RescheduledFrom != f.ScheduleRow {
		return false, nil
	}
	var id int64
	err := c.tx.QueryRowContext(ctx, `
		SELECT id FROM worker_jobs WHERE trigger_run_id = $1
		UNION ALL
		SELECT id FROM worker_jobs
		WHERE executor = 'trigger' AND rescheduled_from_job = schedule_row AND schedule_row = $2 AND due = $3
		LIMIT 1`, f.RunID, f.ScheduleRow, c.dialect.time(f.Due)).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a run's row: %w", err)
	}
	return true, nil
}

// trim keeps the last occurrences of a schedule that is finer than a minute.
func (c *changeset) trim(ctx context.Context, recurring int64) error {
	rows, err := c.tx.QueryContext(ctx, `
		SELECT id FROM worker_jobs
		WHERE (schedule_row = $1 OR id = $1) AND finished IS NOT NULL AND persistent = FALSE
		  AND (trigger_run_id IS NULL OR confirmed_at IS NOT NULL OR orphaned_at IS NOT NULL)
		ORDER BY id DESC LIMIT 50 OFFSET $2`, recurring, job.KeptOccurrences)
	if err != nil {
		return fmt.Errorf("read old occurrences: %w", err)
	}
	ids, err := scanIDs(rows)
	if err != nil {
		return fmt.Errorf("read old occurrences: %w", err)
	}
	for _, id := range ids {
		if err := c.sqlStore.delete(ctx, c.tx, id); err != nil {
			return fmt.Errorf("remove an old occurrence: %w", err)
		}
	}
	return nil
}
