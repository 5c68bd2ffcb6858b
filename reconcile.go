package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sidejob/internal/job"
	"sidejob/internal/triggerdev"
)

// reconciler compares every open row with what Trigger.dev says, and has the answer
// written. It decides nothing: a call that fails changes no row.
type reconciler struct {
	store   Store
	adapter *adapter // nil when Trigger.dev is switched off
	outbox  *outbox
	poller  *poller
	lookout *lookout
	log     *slog.Logger

	turn    chan struct{} // held by the sweep under way: there is one at a time
	started atomic.Bool   // the first sweep is over
}

func newReconciler(store Store, a *adapter, o *outbox, p *poller, l *lookout, log *slog.Logger) *reconciler {
	return &reconciler{store: store, adapter: a, outbox: o, poller: p, lookout: l, log: log, turn: make(chan struct{}, 1)}
}

// Report says what a sweep found.
type Report struct {
	TotalJobs      int           `json:"totalJobs" doc:"Open Trigger.dev jobs that were looked at"`
	SyncedJobs     int           `json:"syncedJobs" doc:"Their rows agree with Trigger.dev now; completed ones are counted apart"`
	FailedJobs     int           `json:"failedJobs" doc:"Could not be asked about this time; one of errors each"`
	OrphanedJobs   int           `json:"orphanedJobs" doc:"Given up: Trigger.dev does not know their runs"`
	CompletedJobs  int           `json:"completedJobs" doc:"Found completed"`
	Errors         []ReportError `json:"errors"`
	DispatchedJobs int           `json:"dispatchedJobs" doc:"Had no run yet and were handed over"`
	SkippedJobs    int           `json:"skippedJobs" doc:"Left for later: being sent now, or Trigger.dev's answer settles nothing yet"`
	RemoteOrphans  int           `json:"remoteOrphans" doc:"Unfinished runs of this installation that no row has"`
	AdoptedRuns    int           `json:"adoptedRuns" doc:"Of those, the ones that were given a row"`
	CanceledRuns   int           `json:"canceledRuns" doc:"Of those, the ones that were canceled"`

	Schedules        int `json:"schedules" doc:"Schedules on Trigger.dev that were compared with their rows"`
	SchedulesSet     int `json:"schedulesRepaired" doc:"Of those, the ones that were gone or otherwise; they are set right"`
	SchedulesOrphan  int `json:"remoteSchedules" doc:"Schedules of this installation that no row has"`
	SchedulesDeleted int `json:"schedulesDeleted" doc:"Deleted, since their rows have ended, or as orphans on request"`

	DurationMs int64 `json:"durationMs"`
}

// ReportError is why one job could not be asked about.
type ReportError struct {
	JobID int64  `json:"jobId"`
	Error string `json:"error"`
}

// askedPage is how many open rows are read at once.
const askedPage = 500

// reconcile looks at all unfinished Trigger.dev jobs: it hands over those without a
// run, asks about the others, and looks for runs that no row has.
func (r *reconciler) reconcile(ctx context.Context, o sweepOptions) (Report, error) {
	begun := time.Now()
	if err := r.takeTurn(ctx); err != nil {
		return Report{}, err
	}
	defer func() { <-r.turn }()
	r.log.Info("Starting Trigger.dev job reconciliation")
	open := false
	n, err := r.store.Count(ctx, Filter{Executor: job.Trigger, Finished: &open})
	if err != nil {
		return Report{}, err
	}
	r.log.Info(fmt.Sprintf("Found %d unfinished Trigger.dev jobs", n))
	s := newSweep(r, o)
	if r.adapter != nil {
		err = errors.Join(s.dispatch(ctx), s.compareSchedules(ctx), s.askAll(ctx, true))
	}
	report := s.done(begun)
	r.log.Info("Reconciliation complete", "total", report.TotalJobs, "synced", report.SyncedJobs,
		"completed", report.CompletedJobs, "failed", report.FailedJobs, "orphaned", report.OrphanedJobs,
		"dispatched", report.DispatchedJobs, "remoteOrphans", report.RemoteOrphans, "ms", report.DurationMs)
	return report, err
}

// sync asks about the runs that are under way.
func (r *reconciler) sync(ctx context.Context) (Report, error) {
	begun := time.Now()
	if err := r.takeTurn(ctx); err != nil {
		return Report{}, err
	}
	defer func() { <-r.turn }()
	s := newSweep(r, sweepOptions{})
	var err error
	if r.adapter != nil {
		err = errors.Join(s.compareSchedules(ctx), s.askAll(ctx, false))
		r.adapter.signOfLife(ctx)
	}
	return s.done(begun), err
}

func (r *reconciler) takeTurn(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sweepOptions say what a sweep may do.
type sweepOptions struct {
	dry    bool // only look: no row changes and nothing is sent
	adopt  bool // make rows for runs that have none
	cancel bool // cancel them
}

// dryRows answers what an event would do to a row, and writes nothing.
type dryRows struct{ Store }

// Apply implements applier.
func (d dryRows) Apply(ctx context.Context, id int64, ev job.Event) (job.Step, error) {
	j, err := d.Get(ctx, id)
	if err != nil {
		return job.Step{}, err
	}
	return job.Next(j, ev)
}

// sweep is one pass over the rows.
type sweep struct {
	*reconciler
	sweepOptions
	rows  applier
	slots chan struct{}
	jobs  sync.WaitGroup

	handed map[int64]bool // jobs that dispatch has counted

	mu      sync.Mutex
	report  Report
	refused error // the key was refused: nobody else is asked
}

func newSweep(r *reconciler, o sweepOptions) *sweep {
	var rows applier = r.store
	if o.dry {
		rows = dryRows{r.store}
	}
	return &sweep{
		reconciler: r, sweepOptions: o, rows: rows, slots: make(chan struct{}, asksAtOnce), handed: map[int64]bool{},
		report: Report{Errors: []ReportError{}},
	}
}

func (s *sweep) done(begun time.Time) Report {
	s.jobs.Wait()
	s.report.DurationMs = time.Since(begun).Milliseconds()
	slices.SortFunc(s.report.Errors, func(a, b ReportError) int { return int(a.JobID - b.JobID) })
	return s.report
}

// each runs do for a job beside others. Once the key is refused it only counts.
func (s *sweep) each(ctx context.Context, id int64, do func(context.Context)) {
	s.count(&s.report.TotalJobs)
	s.mu.Lock()
	refused := s.refused
	s.mu.Unlock()
	if refused != nil {
		s.failed(id, fmt.Errorf("not asked about, the key was refused: %w", refused))
		return
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		s.failed(id, ctx.Err())
		return
	}
	s.jobs.Go(func() {
		defer func() { <-s.slots }()
		do(ctx)
	})
}

func (s *sweep) failed(id int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.FailedJobs++
	s.report.Errors = append(s.report.Errors, ReportError{JobID: id, Error: err.Error()})
	if triggerdev.KeyRefused(err) && s.refused == nil {
		s.refused = err
	}
}

func (s *sweep) count(n *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n++
}

// dispatch hands over the rows that have no run.
func (s *sweep) dispatch(ctx context.Context) error {
	ids, err := s.store.Unsent(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		s.handed[id] = true
		s.each(ctx, id, func(ctx context.Context) { s.dispatchOne(ctx, id) })
	}
	s.jobs.Wait()
	return nil
}

func (s *sweep) dispatchOne(ctx context.Context, id int64) {
	if s.dry {
		s.count(&s.report.DispatchedJobs)
		return
	}
	j, err := s.outbox.payNow(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		s.count(&s.report.SkippedJobs)
	case err != nil:
		s.failed(id, err)
	case j.RunID != "", j.ScheduleSettled:
		s.count(&s.report.DispatchedJobs)
	case j.Done():
		s.count(&s.report.SyncedJobs)
	case j.Error != "":
		s.failed(id, errors.New(j.Error))
	default:
		s.count(&s.report.SkippedJobs)
	}
}

// askAll brings every open row in line: few by asking about each run, many by
// comparing them with lists first. What was given up may have come back.
func (s *sweep) askAll(ctx context.Context, whole bool) error {
	open, oldest, err := s.openRows(ctx, whole)
	if err != nil {
		return err
	}
	switch {
	case len(open) >= listFrom:
		s.compareLists(ctx, open, oldest.Add(-time.Hour))
	case whole:
		s.findRemoteOrphans(ctx)
	}
	for _, row := range open {
		s.each(ctx, row.id, func(ctx context.Context) { s.askOne(ctx, row.id) })
	}
	s.jobs.Wait()
	return nil
}

// openRows reads the rows that are to be brought in line, by run, and when the
// oldest of them was made.
func (s *sweep) openRows(ctx context.Context, whole bool) (open map[string]openRow, oldest time.Time, err error) {
	open, oldest = map[string]openRow{}, now()
	for after := int64(0); ; {
		jobs, err := s.store.Asked(ctx, after, askedPage, whole)
		if err != nil || len(jobs) == 0 {
			return open, oldest, err
		}
		for _, j := range jobs {
			if !j.Orphaned.IsZero() {
				s.lookForLost(ctx, j)
				continue
			}
			if !s.handed[j.ID] {
				open[j.RunID] = openRow{id: j.ID, status: j.TriggerStatus}
			}
			if j.Created.Before(oldest) {
				oldest = j.Created
			}
		}
		after = jobs[len(jobs)-1].ID
	}
}

// lookForLost asks about a run that was given up. Only one that is found counts.
func (s *sweep) lookForLost(ctx context.Context, j job.Job) {
	if s.adapter.client.Pace(ctx, pollShare) != nil {
		return
	}
	is, err := s.store.Get(ctx, j.ID)
	if err == nil {
		is, err = s.adapter.refresh(ctx, s.rows, is, "reconcile")
	}
	if err != nil || !is.Orphaned.IsZero() {
		return
	}
	s.log.Warn("a run that was given up is there again", "job", j.ID, "run", j.RunID, "status", is.Status())
	s.count(&s.report.TotalJobs)
	s.count(&s.report.SyncedJobs)
	if is.Asked() {
		s.poller.watch(is)
	}
}

func (s *sweep) askOne(ctx context.Context, id int64) {
	if err := s.adapter.client.Pace(ctx, pollShare); err != nil {
		s.failed(id, err)
		return
	}
	// The page may be minutes old.
	is, err := s.store.Get(ctx, id)
	if err == nil && is.Asked() {
		is, err = s.adapter.refresh(ctx, s.rows, is, "reconcile")
	}
	if is.Asked() {
		s.poller.watch(is)
	}
	switch {
	case errors.Is(err, ErrNotFound):
		s.count(&s.report.SkippedJobs)
	case err != nil:
		s.failed(id, err)
	case !is.Orphaned.IsZero():
		s.count(&s.report.OrphanedJobs)
	case is.Done() && is.Status() == job.Completed:
		s.count(&s.report.CompletedJobs)
	case is.MissingCount > 0, is.RawStatus != "" && !job.KnownStatus(is.RawStatus):
		s.count(&s.report.SkippedJobs)
	default:
		s.count(&s.report.SyncedJobs)
	}
}
