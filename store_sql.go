package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"sidejob/internal/job"
)

// sqlStore is the Store on a SQL database. One text serves both engines; dialect
// holds what differs.
type sqlStore struct {
	db      *sql.DB
	dialect dialect
	// write carries out fn in a transaction that is committed when it returns nil.
	// fn may be run together with others in one transaction, never at the same time.
	write        func(ctx context.Context, fn func(context.Context, *sql.Tx) error) error
	hub          *hub
	installation string
	shut         func() error
}

// jobQuery reads whole rows; the rest of the statement follows.
func (s *sqlStore) jobQuery(rest string) string {
	return "SELECT " + strings.Join(s.dialect.columnNames(), ", ") + " FROM worker_jobs " + rest
}

type scanner interface{ Scan(...any) error }

func (s *sqlStore) scanJob(row scanner) (job.Job, error) {
	var j job.Job
	cols := columns(&j, s.dialect)
	dest := make([]any, len(cols))
	for i := range cols {
		dest[i] = cols[i].value
	}
	err := row.Scan(dest...)
	return j, err
}

type queryer interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
	QueryRowContext(context.Context, string, ...any) *sql.Row
}

func (s *sqlStore) selectJobs(ctx context.Context, q queryer, rest string, args ...any) ([]job.Job, error) {
	rows, err := q.QueryContext(ctx, s.jobQuery(rest), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	jobs := []job.Job{}
	for rows.Next() {
		j, err := s.scanJob(rows)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, j)
	}
	return jobs, rows.Err()
}

// reading bounds a read, and has the error of a database that is away told as ErrBusy.
// Call done when the read is over.
func (s *sqlStore) reading(ctx context.Context, err *error) (bounded context.Context, done func()) {
	bounded, cancel := s.dialect.bounded(ctx)
	return bounded, func() {
		*err = s.busyOr(*err)
		cancel()
	}
}

// busyOr marks an error after which the same call may work later.
func (s *sqlStore) busyOr(err error) error {
	if err == nil || errors.Is(err, ErrBusy) || !s.dialect.busy(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrBusy, err)
}

func (s *sqlStore) Get(ctx context.Context, id int64) (j job.Job, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	return s.get(ctx, s.db, id, "")
}

func (s *sqlStore) get(ctx context.Context, q queryer, id int64, lock string) (job.Job, error) {
	j, err := s.scanJob(q.QueryRowContext(ctx, s.jobQuery("WHERE id = CAST($1 AS bigint)"+lock), id))
	if errors.Is(err, sql.ErrNoRows) {
		return job.Job{}, notFound(id)
	}
	if err != nil {
		return job.Job{}, fmt.Errorf("read job %d: %w", id, err)
	}
	return j, nil
}

func (s *sqlStore) FindRun(ctx context.Context, runID string) (id int64, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	return findRun(ctx, s.db, runID)
}

func findRun(ctx context.Context, q queryer, runID string) (int64, error) {
	var id int64
	err := q.QueryRowContext(ctx, "SELECT id FROM worker_jobs WHERE trigger_run_id = $1", runID).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("run %s: %w", runID, ErrNotFound)
	}
	return id, err
}

// Apply is documented at Store.
func (s *sqlStore) Apply(ctx context.Context, id int64, ev job.Event) (step job.Step, err error) {
	err = s.change(ctx, func(ctx context.Context, c *changeset) error {
		step, err = c.apply(ctx, id, ev)
		return err
	})
	return step, err
}

// Retry is documented at Store.
func (s *sqlStore) Retry(ctx context.Context, id int64, ev job.Event, request Keyed) (step job.Step, err error) {
	err = s.change(ctx, func(ctx context.Context, c *changeset) error {
		if step, err = c.apply(ctx, id, ev); err != nil {
			return err
		}
		return c.noteJobs(ctx, request, []int64{step.Follow.ID})
	})
	return step, err
}

// changeset is one unit of writing: what it has changed is told to watchers after
// the commit.
type changeset struct {
	*sqlStore
	tx      *sql.Tx
	changed []int64 // jobs, and the topics of the hub
}

// touch notes what a written row means to those who watch.
func (c *changeset) touch(j job.Job) {
	c.changed = append(c.changed, j.ID)
	if j.Executor != job.Trigger && !j.Done() && j.LeaseToken == "" {
		c.changed = append(c.changed, claimableJobs)
	}
	if j.Recurs() || j.LeaseToken != "" && j.Executor != job.Trigger {
		c.changed = append(c.changed, timedJobs)
	}
}

// change runs fn in a transaction and tells watchers what it changed.
func (s *sqlStore) change(ctx context.Context, fn func(context.Context, *changeset) error) error {
	var c *changeset
	err := s.commit(ctx, func(ctx context.Context, tx *sql.Tx) error {
		c = &changeset{sqlStore: s, tx: tx}
		return fn(ctx, c)
	})
	if err != nil {
		return err
	}
	s.hub.tell(c.changed)
	return nil
}

// commit is write of what belongs to a term that is not over.
func (s *sqlStore) commit(ctx context.Context, fn func(context.Context, *sql.Tx) error) error {
	return s.busyOr(s.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := s.checkTerm(ctx, tx); err != nil {
			return err
		}
		return fn(ctx, tx)
	}))
}

// apply carries out one event: read, decide, write. An event that gives the row its
// run also applies what the inbox kept for that run; the step returned is the one
// before that.
func (c *changeset) apply(ctx context.Context, id int64, ev job.Event) (job.Step, error) {
	ev.At = toMilli(ev.At)
	was, err := c.get(ctx, c.tx, id, c.dialect.forUpdate)
	if err != nil {
		return job.Step{}, err
	}
	step, err := job.Next(was, ev)
	if err != nil {
		return job.Step{Job: was}, err
	}
	if step.Changed {
		if err := c.update(ctx, step.Job); err != nil {
			return step, fmt.Errorf("write job %d: %w", id, err)
		}
	}
	if step.Changed && !step.Quiet || step.Noted {
		if err := c.record(ctx, was, step.Job, ev); err != nil {
			return step, err
		}
	}
	if err := c.placeFollower(ctx, &step, ev.Source); err != nil {
		return step, err
	}
	if was.RunID == "" && step.Job.RunID != "" {
		return step, c.applyKept(ctx, step.Job)
	}
	return step, nil
}

// placeFollower inserts the row that follows under its tag's lock. Where the tag
// has been taken meanwhile and the step gives way to that, nothing follows.
func (c *changeset) placeFollower(ctx context.Context, step *job.Step, source string) error {
	if step.Follow == nil {
		return nil
	}
	known, err := c.hasOccurrence(ctx, *step.Follow)
	if err != nil {
		return err
	}
	var p Placed
	if !known {
		if p, err = c.place(ctx, Order{Job: *step.Follow, OnConflict: step.OnConflict, Source: source}); err != nil {
			return err
		}
	}
	step.Follow = &p.Job
	if known || p.Existing {
		step.Follow = nil
		return nil
	}
	if p.Job.RunID != "" {
		if err := c.applyKept(ctx, p.Job); err != nil {
			return err
		}
	}
	if p.Job.ScheduleRow != 0 && step.Job.Frequent() {
		return c.trim(ctx, p.Job.ScheduleRow)
	}
	return nil
}

func (c *changeset) update(ctx context.Context, j job.Job) error {
	c.touch(j)
	var set []string
	var args []any
	for _, col := range columns(&j, c.dialect) {
		if col.fixed {
			continue
		}
		args = append(args, col.value)
		set = append(set, fmt.Sprintf("%s = $%d", col.name, len(args)))
	}
	args = append(args, j.ID)
	_, err := c.tx.ExecContext(ctx, fmt.Sprintf("UPDATE worker_jobs SET %s WHERE id = $%d",
		strings.Join(set, ", "), len(args)), args...)
	return err
}

func (c *changeset) insert(ctx context.Context, j job.Job, source string) (job.Job, error) {
	var names, marks []string
	var args []any
	for _, col := range columns(&j, c.dialect) {
		if col.name == "id" {
			continue
		}
		args = append(args, col.value)
		names = append(names, col.name)
		marks = append(marks, fmt.Sprintf("$%d", len(args)))
	}
	err := c.tx.QueryRowContext(ctx, fmt.Sprintf("INSERT INTO worker_jobs (%s) VALUES (%s) RETURNING id",
		strings.Join(names, ", "), strings.Join(marks, ", ")), args...).Scan(&j.ID)
	if err != nil {
		return j, fmt.Errorf("insert job: %w", err)
	}
	c.touch(j)
	detail := map[string]any{}
	if j.RescheduledFrom != 0 {
		detail["rescheduledFromJob"] = j.RescheduledFrom
	}
	return j, c.recordLine(ctx, j.ID, Entry{At: j.Created, Kind: "created", Source: source, To: string(j.State())}, detail)
}

func (c *changeset) record(ctx context.Context, was, is job.Job, ev job.Event) error {
	return c.recordLine(ctx, is.ID, Entry{
		At: ev.At, Kind: string(ev.Kind), Source: ev.Source,
		From: string(was.State()), To: string(is.State()),
	}, historyDetail(ev, was, is))
}

func (c *changeset) recordLine(ctx context.Context, id int64, e Entry, detail map[string]any) error {
	text, err := json.Marshal(detail)
	if err != nil {
		return fmt.Errorf("history of job %d: %w", id, err)
	}
	_, err = c.tx.ExecContext(ctx, `
		INSERT INTO job_events (job_id, at, kind, source, from_state, to_state, detail)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		id, c.dialect.time(e.At), e.Kind, e.Source, nullIfEmpty(e.From), e.To, string(text))
	if err != nil {
		return fmt.Errorf("history of job %d: %w", id, err)
	}
	return nil
}

// Schedule is documented at Store.
func (s *sqlStore) Schedule(ctx context.Context, orders []Order, request Keyed) (placed []Placed, err error) {
	err = s.change(ctx, func(ctx context.Context, c *changeset) error {
		placed = make([]Placed, len(orders))
		var ids []int64
		for i, order := range orders {
			placed[i], err = c.place(ctx, order)
			if err != nil {
				return err
			}
			ids = append(ids, placed[i].Job.ID)
		}
		return c.noteJobs(ctx, request, ids)
	})
	return placed, err
}

func (c *changeset) place(ctx context.Context, o Order) (Placed, error) {
	if err := c.dialect.fits(o.Job); err != nil {
		return Placed{Err: err}, nil
	}
	if c.dialect.lockTag != "" {
		if _, err := c.tx.ExecContext(ctx, c.dialect.lockTag, o.Job.Tag); err != nil {
			return Placed{}, fmt.Errorf("lock tag: %w", err)
		}
	}
	open, err := c.selectJobs(ctx, c.tx, "WHERE tag = $1 AND finished IS NULL ORDER BY id"+c.dialect.forUpdate, o.Job.Tag)
	if err != nil {
		return Placed{}, fmt.Errorf("read jobs of the tag: %w", err)
	}
	found, err := job.Resolve(o.OnConflict, o.Job, open)
	if err != nil {
		return Placed{Err: err}, nil
	}
	if found.Keep != nil {
		return Placed{Job: *found.Keep, Existing: true}, nil
	}
	var p Placed
	for _, old := range found.End {
		if _, err := c.apply(ctx, old.ID, job.Event{Kind: job.End, At: o.Job.Created, Source: o.Source}); err != nil {
			return Placed{}, err
		}
	}
	for _, old := range found.Cancel {
		step, err := c.apply(ctx, old.ID, job.Event{
			Kind: job.Cancel, At: o.Job.Created, Source: o.Source, Reason: job.ReplacedReason,
			Replaced: true, CarriedOver: old.OnTrigger() && o.Job.OnTrigger(),
		})
		if err != nil {
			return Placed{}, err
		}
		p.Canceled = append(p.Canceled, step.Job)
		if old.OnTrigger() && o.Job.OnTrigger() && o.Job.SentAt.IsZero() {
			o.Job.SentAt = old.SentAt // what it carries over is on Trigger.dev already
		}
	}
	p.Job, err = c.insert(ctx, o.Job, o.Source)
	return p, err
}

// History is documented at Store.
func (s *sqlStore) History(ctx context.Context, id int64) (entries []Entry, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	rows, err := s.db.QueryContext(ctx, `
		SELECT id, at, kind, source, COALESCE(from_state, ''), to_state, detail
		FROM job_events WHERE job_id = $1 ORDER BY id`, id)
	if err != nil {
		return nil, fmt.Errorf("history of job %d: %w", id, err)
	}
	defer rows.Close()
	entries = []Entry{}
	for rows.Next() {
		var e Entry
		var detail string
		if err := rows.Scan(&e.ID, s.dialect.timeColumn(&e.At), &e.Kind, &e.Source, &e.From, &e.To, &detail); err != nil {
			return nil, fmt.Errorf("history of job %d: %w", id, err)
		}
		e.Detail = json.RawMessage(detail)
		entries = append(entries, e)
	}
	return entries, rows.Err()
}

// owes selects the rows that owe a submit, a cancel or a change of their schedule, in
// the words of their index.
const owes = `finished IS NULL AND (cancel_requested = TRUE OR (executor = 'trigger' AND trigger_run_id IS NULL
	AND (cron_schedule IS NULL OR (fire_locally = FALSE AND schedule_settled = FALSE))))`

// What lies farther ahead than a try may be put off, or a send may take, was written
// by a clock that has been set back since, and does not count.
const (
	longestBackoff = time.Hour + time.Minute
	longestSend    = time.Minute
)

// Owed is documented at Store. A row whose send is under way waits until its lease
// has run out.
func (s *sqlStore) Owed(ctx context.Context, at time.Time, limit int) (ids []int64, next time.Time, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	for _, when := range []struct {
		condition string
		bound     time.Time
	}{{"next_try_at <= $1", at}, {"next_try_at > $1", at.Add(longestBackoff)}} {
		more, err := s.owed(ctx, when.condition, when.bound, at, limit-len(ids))
		if ids = append(ids, more...); err != nil || len(ids) == limit {
			return ids, next, err
		}
	}
	err = s.db.QueryRowContext(ctx, `
		SELECT MIN(at) FROM (
			SELECT MIN(next_try_at) AS at FROM worker_jobs WHERE `+owes+` AND next_try_at > $1
			UNION ALL
			SELECT MIN(lease_expires_at) FROM worker_jobs
			WHERE `+owes+` AND next_try_at <= $1 AND executor = 'trigger' AND lease_expires_at > $1) AS later`,
		s.dialect.time(at)).Scan(s.dialect.momentColumn(&next))
	if err != nil {
		return nil, next, fmt.Errorf("read when the next is owed: %w", err)
	}
	return ids, next, nil
}

func (s *sqlStore) owed(ctx context.Context, when string, bound, at time.Time, limit int) ([]int64, error) {
	rows, err := s.db.QueryContext(ctx, `
		SELECT id FROM worker_jobs
		WHERE `+owes+` AND `+when+`
		  AND (executor <> 'trigger' OR lease_expires_at IS NULL OR lease_expires_at <= $2 OR lease_expires_at > $3)
		ORDER BY next_try_at, id LIMIT $4`,
		s.dialect.time(bound), s.dialect.time(at), s.dialect.time(at.Add(longestSend)), limit)
	if err != nil {
		return nil, fmt.Errorf("read what is owed: %w", err)
	}
	ids, err := scanIDs(rows)
	if err != nil {
		return nil, fmt.Errorf("read what is owed: %w", err)
	}
	return ids, nil
}

// Unsent is documented at Store.
func (s *sqlStore) Unsent(ctx context.Context) (ids []int64, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	rows, err := s.db.QueryContext(ctx, `
		SELECT id FROM worker_jobs
		WHERE `+owes+` AND executor = 'trigger' AND trigger_run_id IS NULL
		ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("read jobs without a run: %w", err)
	}
	if ids, err = scanIDs(rows); err != nil {
		return nil, fmt.Errorf("read jobs without a run: %w", err)
	}
	return ids, nil
}

// Asked is documented at Store.
func (s *sqlStore) Asked(ctx context.Context, after int64, limit int, orphans bool) (jobs []job.Job, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	open := "finished IS NULL OR (confirmed_at IS NULL AND orphaned_at IS NULL)"
	if orphans {
		open = "finished IS NULL OR confirmed_at IS NULL"
	}
	rows, err := s.db.QueryContext(ctx, `
		SELECT id, trigger_run_id, trigger_status, due, created_at, orphaned_at FROM worker_jobs
		WHERE trigger_run_id IS NOT NULL AND (finished IS NULL OR confirmed_at IS NULL)
		  AND (`+open+`) AND id > $1
		ORDER BY id LIMIT $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read unfinished runs: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var j job.Job
		if err := rows.Scan(&j.ID, &j.RunID, textColumn[job.Status]{&j.TriggerStatus}, s.dialect.timeColumn(&j.Due), s.dialect.timeColumn(&j.Created),
			s.dialect.timeColumn(&j.Orphaned)); err != nil {
			return nil, fmt.Errorf("read unfinished runs: %w", err)
		}
		jobs = append(jobs, j)
	}
	return jobs, rows.Err()
}

// Remove is documented at Store.
func (s *sqlStore) Remove(ctx context.Context, at time.Time, exclude []int64, limit int) (removed int64, err error) {
	err = s.commit(ctx, func(ctx context.Context, tx *sql.Tx) error {
		removed, err = s.remove(ctx, tx, at, exclude, limit)
		if err != nil {
			return fmt.Errorf("remove old jobs: %w", err)
		}
		for _, stmt := range []struct {
			text   string
			before time.Time
		}{
			{"DELETE FROM inbox WHERE received_at < $1", at.Add(-eventIDLife)},
			{"UPDATE inbox SET event = NULL WHERE event IS NOT NULL AND received_at < $1", at.Add(-inboxLife)},
			{"DELETE FROM replies WHERE at < $1", at.Add(-replyLife)},
		} {
			if _, err := tx.ExecContext(ctx, stmt.text, s.dialect.time(stmt.before)); err != nil {
				return fmt.Errorf("forget old events and replies: %w", err)
			}
		}
		return nil
	})
	return removed, err
}

func (s *sqlStore) remove(ctx context.Context, tx *sql.Tx, at time.Time, exclude []int64, limit int) (int64, error) {
	rows, err := tx.QueryContext(ctx, `
		SELECT id FROM worker_jobs
		WHERE finished IS NOT NULL AND persistent = FALSE
		  AND (trigger_run_id IS NULL OR confirmed_at IS NOT NULL OR orphaned_at IS NOT NULL)
		  AND remove_at <= $1
		ORDER BY remove_at LIMIT $2`, s.dialect.time(at), limit+len(exclude))
	if err != nil {
		return 0, err
	}
	ids, err := scanIDs(rows)
	if err != nil {
		return 0, err
	}
	var removed int64
	for _, id := range ids {
		if slices.Contains(exclude, id) || removed == int64(limit) {
			continue
		}
		if err := s.delete(ctx, tx, id); err != nil {
			return 0, err
		}
		removed++
	}
	return removed, nil
}

// delete removes a job and its history.
func (s *sqlStore) delete(ctx context.Context, tx *sql.Tx, id int64) error {
	if _, err := tx.ExecContext(ctx, "DELETE FROM job_events WHERE job_id = $1", id); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM worker_jobs WHERE id = $1", id)
	return err
}

func scanIDs(rows *sql.Rows) ([]int64, error) {
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// nameInstallation reads the database's own name, or gives it one.
func (s *sqlStore) nameInstallation(ctx context.Context) (name string, err error) {
	err = s.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES ('installation', $1) ON CONFLICT (key) DO NOTHING", uuid.NewString())
		if err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = 'installation'").Scan(&name)
	})
	if err != nil {
		return "", fmt.Errorf("name installation: %w", err)
	}
	return name, nil
}

func (s *sqlStore) Watch(id int64) (<-chan struct{}, func()) { return s.hub.watch(id) }

func (s *sqlStore) Installation() string { return s.installation }

func (s *sqlStore) Ping(ctx context.Context) error { return s.busyOr(s.db.PingContext(ctx)) }

func (s *sqlStore) Close() error { return s.shut() }

func nullIfEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}
