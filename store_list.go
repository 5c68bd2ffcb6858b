package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sidejob/internal/job"
)

// statusCondition selects the jobs whose job.Status is s. It says in SQL what that
// function reads off a row; the conformance suite holds the two together.
func statusCondition(s job.Status) string {
	switch s {
	case job.Pending:
		return `finished IS NULL AND ((executor = 'trigger' AND COALESCE(trigger_status, 'PENDING') <> 'EXECUTING')
			OR (executor <> 'trigger' AND lease_token IS NULL))`
	case job.Executing:
		return `finished IS NULL AND ((executor = 'trigger' AND trigger_status = 'EXECUTING')
			OR (executor <> 'trigger' AND lease_token IS NOT NULL))`
	case job.Completed:
		return `finished IS NOT NULL AND success = TRUE`
	case job.Canceled:
		return `finished IS NOT NULL AND success IS NOT TRUE AND ((executor = 'trigger' AND trigger_status = 'CANCELED')
			OR (executor <> 'trigger' AND cancel_requested = TRUE))`
	case job.Failed:
		return `finished IS NOT NULL AND success IS NOT TRUE AND ((executor = 'trigger' AND COALESCE(trigger_status, '') <> 'CANCELED')
			OR (executor <> 'trigger' AND cancel_requested = FALSE))`
	}
	return "FALSE"
}

// where collects conditions and their values.
type where struct {
	conditions []string
	args       []any
}

// add takes a condition in which each ? stands for the next of the values.
func (w *where) add(condition string, args ...any) {
	for _, arg := range args {
		w.args = append(w.args, arg)
		condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(w.args)), 1)
	}
	w.conditions = append(w.conditions, "("+condition+")")
}

func (w *where) String() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return "WHERE " + strings.Join(w.conditions, " AND ")
}

func (s *sqlStore) where(f Filter) *where {
	w := &where{}
	equal := func(column, value string) {
		if value != "" {
			w.add(column+" = ?", value)
		}
	}
	either := func(is *bool, yes, no string) {
		switch {
		case is == nil:
		case *is:
			w.add(yes)
		default:
			w.add(no)
		}
	}
	switch f.Executor {
	case job.Internal:
		w.add("executor = 'internal'")
	case job.Trigger:
		w.add("executor = 'trigger'")
	default:
		equal("executor", string(f.Executor))
	}
	equal("type", f.Type)
	equal("tag", f.Tag)
	equal("name", f.Name)
	if f.Status != "" {
		w.add(statusCondition(f.Status))
	}
	if f.UserID != nil {
		w.add("user_id = CAST(? AS bigint)", *f.UserID)
	}
	either(f.Finished, "finished IS NOT NULL", "finished IS NULL")
	either(f.Success, "finished IS NOT NULL AND success = TRUE", "finished IS NOT NULL AND success = FALSE")
	either(f.Recurring, "cron_schedule IS NOT NULL", "cron_schedule IS NULL")
	if f.ScheduleID != 0 {
		// Of internal jobs the first row is an occurrence like those after it.
		const first = "COALESCE((SELECT schedule_row FROM worker_jobs WHERE id = CAST(? AS bigint)), ?)"
		w.add("schedule_row = "+first+" OR (id = "+first+" AND executor = 'internal' AND cron_schedule IS NOT NULL)",
			f.ScheduleID, f.ScheduleID, f.ScheduleID, f.ScheduleID)
	}
	if f.Label != "" {
		w.add(fmt.Sprintf(s.dialect.hasLabel, "?"), f.Label)
	}
	if !f.CreatedAfter.IsZero() {
		w.add("created_at > ?", s.dialect.time(f.CreatedAfter))
	}
	if !f.CreatedBefore.IsZero() {
		w.add("created_at < ?", s.dialect.time(f.CreatedBefore))
	}
	return w
}

// List is documented at Store.
func (s *sqlStore) List(ctx context.Context, f Filter) (page Page, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	w, order := s.where(f), s.order(f)
	if f.Cursor.ID != 0 {
		w.add(order.after, order.cursor...)
	}
	limit := ""
	if f.Limit > 0 {
		w.args = append(w.args, f.Limit+1)
		limit = fmt.Sprintf(" LIMIT $%d", len(w.args))
	}
	jobs, err := s.selectJobs(ctx, s.db, fmt.Sprintf("%s ORDER BY %s%s", w, order.by, limit), w.args...)
	if err != nil {
		return Page{}, fmt.Errorf("list jobs: %w", err)
	}
	if limit == "" || len(jobs) <= f.Limit {
		return Page{Jobs: jobs}, nil
	}
	return Page{Jobs: jobs[:f.Limit], Next: f.cursorAt(jobs[f.Limit-1])}, nil
}

// order is how a list is sorted, and the condition for what comes after its cursor:
// comparing rows as a whole, it has the index begin there.
type order struct {
	by, after string
	cursor    []any
}

func (s *sqlStore) order(f Filter) order {
	at := func(us int64) any { return s.dialect.time(time.UnixMicro(us)) }
	switch {
	case f.ByDue:
		return order{"due, id", "(due, id) > (?, CAST(? AS bigint))", []any{at(f.Cursor.Due), f.Cursor.ID}}
	case f.byCreated():
		return order{"created_at DESC, id DESC", "(created_at, id) < (?, CAST(? AS bigint))", []any{at(f.Cursor.Created), f.Cursor.ID}}
	}
	return order{"id DESC", "id < CAST(? AS bigint)", []any{f.Cursor.ID}}
}

// byCreated tells a list of a period. Ids grow with time but for moments, and for a
// host's own rows: only the times themselves lead to a period's end.
func (f Filter) byCreated() bool {
	return !f.ByDue && (!f.CreatedAfter.IsZero() || !f.CreatedBefore.IsZero())
}

// cursorAt is where a page ends whose last job it is.
func (f Filter) cursorAt(j job.Job) Cursor {
	switch {
	case f.ByDue:
		return Cursor{ID: j.ID, Due: j.Due.UnixMicro()}
	case f.byCreated():
		return Cursor{ID: j.ID, Created: j.Created.UnixMicro()}
	}
	return Cursor{ID: j.ID}
}

// continues tells whether the cursor is one of a page in the filter's order.
func (f Filter) continues(c Cursor) bool {
	return c.ID > 0 && (c.Due != 0) == f.ByDue && (c.Created != 0) == f.byCreated()
}

// Count is documented at Store.
func (s *sqlStore) Count(ctx context.Context, f Filter) (n int64, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	w := s.where(f)
	err = s.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM worker_jobs "+w.String(), w.args...).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count jobs: %w", err)
	}
	return n, nil
}

// Stats is documented at Store.
func (s *sqlStore) Stats(ctx context.Context, at time.Time) (stats Stats, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	stats = Stats{Jobs: map[job.Executor]map[job.Status]int64{}}
	if err := s.countJobs(ctx, stats.Jobs); err != nil {
		return stats, fmt.Errorf("count jobs: %w", err)
	}
	err = s.db.QueryRowContext(ctx, `
		SELECT COUNT(*), MIN(CASE WHEN trigger_run_id IS NULL THEN created_at ELSE updated_at END),
			COUNT(CASE WHEN cancel_requested = TRUE THEN 1 END)
		FROM worker_jobs
		WHERE `+owes).
		Scan(&stats.Owed, s.dialect.timeColumn(&stats.OldestOwed), &stats.CancelsPending)
	if err != nil {
		return stats, fmt.Errorf("count what is owed: %w", err)
	}
	err = s.db.QueryRowContext(ctx, `
		SELECT MIN(COALESCE(last_synced_at, created_at)) FROM worker_jobs
		WHERE trigger_run_id IS NOT NULL AND (finished IS NULL OR confirmed_at IS NULL) AND finished IS NULL`).
		Scan(s.dialect.timeColumn(&stats.OldestSynced))
	if err != nil {
		return stats, fmt.Errorf("read sync lag: %w", err)
	}
	return stats, nil
}

// countJobs counts all jobs by what their status is read off. The ended ones are many
// and are counted in an index of their own, which holds nothing else.
func (s *sqlStore) countJobs(ctx context.Context, into map[job.Executor]map[job.Status]int64) error {
	for _, executor := range []job.Executor{job.Internal, job.Trigger} {
		into[executor] = map[job.Status]int64{job.Pending: 0, job.Executing: 0, job.Completed: 0, job.Failed: 0, job.Canceled: 0}
	}
	rows, err := s.db.QueryContext(ctx, `
		SELECT TRUE, executor, success, trigger_status, cancel_requested, FALSE, COUNT(*) FROM worker_jobs
		WHERE finished IS NOT NULL GROUP BY executor, success, trigger_status, cancel_requested
		UNION ALL
		SELECT FALSE, executor, NULL, trigger_status, FALSE, lease_token IS NOT NULL, COUNT(*) FROM worker_jobs
		WHERE finished IS NULL GROUP BY executor, trigger_status, lease_token IS NOT NULL`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var j job.Job
		var ended, held bool
		var n int64
		if err := rows.Scan(&ended, textColumn[job.Executor]{&j.Executor}, boolColumn{&j.Success}, textColumn[job.Status]{&j.TriggerStatus},
			&j.CancelRequested, &held, &n); err != nil {
			return err
		}
		if held {
			j.LeaseToken = "held"
		}
		if ended {
			j.Finished = time.Unix(0, 0)
		}
		if of := into[j.Executor]; of != nil {
			of[j.Status()] += n
		}
	}
	return rows.Err()
}
