package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"sidejob/internal/job"
	"sidejob/internal/triggerdev"
)

// lookout finds the runs that schedules on Trigger.dev have fired and has a row made
// for each. It knows from the rows when each schedule is due, looks a second later,
// and goes on looking until the run is there or is certain not to come.
type lookout struct {
	store   Store
	adapter *adapter // nil when Trigger.dev is switched off
	outbox  *outbox
	poller  *poller
	log     *slog.Logger

	wake  chan struct{}
	reads streak

	mu   sync.Mutex
	seen map[string]*sighting // by schedule id
}

// sighting is what is known of a schedule's runs.
type sighting struct {
	upTo     time.Time            // runs of earlier nominal times have had their rows, but for those the list hides
	had      map[string]time.Time // runs that have had a row, which may be gone by now, and their nominal times
	due      time.Time            // of the next run that is not known
	looked   time.Time
	next     time.Time // when to look again; zero: now
	failures int       // looks in a row that failed
}

const (
	// firstLook is how long after its nominal time a run is looked for.
	firstLook = time.Second
	// lookBack is how far behind the list of runs may be. Each look covers it again.
	lookBack = 10 * time.Minute
	// lookTimeout bounds one look, however many pages it takes.
	lookTimeout = time.Minute
	// idleLook is how long at most the lookout sleeps.
	idleLook = time.Minute
)

func newLookout(store Store, a *adapter, o *outbox, p *poller, log *slog.Logger) *lookout {
	return &lookout{store: store, adapter: a, outbox: o, poller: p, log: log, wake: make(chan struct{}, 1), seen: map[string]*sighting{}}
}

// remember notes, before anybody can change the rows, since when runs may have been
// fired that nobody has heard of.
func (l *lookout) remember(ctx context.Context) error {
	rows, err := l.store.Schedules(ctx)
	for _, j := range rows {
		if j.ScheduleID != "" {
			l.of(j)
		}
	}
	return err
}

// of is what is known of the row's schedule. Of one that is new, all runs are looked
// up since the row last heard of it.
func (l *lookout) of(j job.Job) *sighting {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.seen[j.ScheduleID]
	if s == nil {
		s = &sighting{upTo: earlier(j.Due, j.Updated), had: map[string]time.Time{}}
		if keep := j.RemoveDelay; keep != 0 && keep < lookBack {
			s.upTo = s.upTo.Add(lookBack - max(keep, 0)) // farther back, rows may be gone that must not be made again
		}
		l.seen[j.ScheduleID] = s
	}
	return s
}

// soon has the schedule looked at now: it has been made or changed.
func (l *lookout) soon(j job.Job) {
	s := l.of(j)
	l.mu.Lock()
	s.next = time.Time{}
	l.mu.Unlock()
	l.nudge()
}

// hint says that something ran which no row has: a schedule that is due may have
// fired. Other runs of the project cause hints as well, so they hurry only what is
// waited for anyway, and not without measure.
func (l *lookout) hint() {
	at, hurried := now(), false
	l.mu.Lock()
	for _, s := range l.seen {
		if !s.due.IsZero() && !s.due.After(at) && s.failures == 0 {
			s.next = earlier(s.next, later(at, s.looked.Add(firstLook)))
			hurried = true
		}
	}
	l.mu.Unlock()
	if hurried {
		l.nudge()
	}
}

func (l *lookout) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run looks until ctx ends.
func (l *lookout) run(ctx context.Context) {
	for ctx.Err() == nil {
		waitUntil(ctx, l.round(ctx), l.wake)
	}
}

// round looks at every schedule whose time has come and says when to do so again.
func (l *lookout) round(ctx context.Context) time.Time {
	at := time.Now() // to the nanosecond, as looks are planned
	rows, err := l.store.Schedules(ctx)
	if ctx.Err() == nil {
		l.reads.note(l.log, err, "cannot read which schedules may have fired")
	}
	if err != nil {
		return at.Add(firstLook)
	}
	next := at.Add(idleLook)
	var looks sync.WaitGroup
	slots := make(chan struct{}, asksAtOnce)
	for _, j := range rows {
		if j.ScheduleID == "" {
			continue
		}
		if when := l.when(j); when.After(at) {
			next = earlier(next, when)
			continue
		}
		next = at
		slots <- struct{}{}
		looks.Go(func() {
			defer func() { <-slots }()
			l.lookAndPlan(ctx, j)
		})
	}
	looks.Wait()
	l.forget(rows, at)
	return next
}

func (l *lookout) when(j job.Job) time.Time {
	s := l.of(j)
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.next
}

// forget drops what is known of schedules that no row has had for a day: one that has
// just lost its row may get another.
func (l *lookout) forget(rows []job.Job, at time.Time) {
	open := map[string]bool{}
	for _, j := range rows {
		open[j.ScheduleID] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, s := range l.seen {
		if !open[id] && at.Sub(s.upTo) > 24*time.Hour {
			delete(l.seen, id)
		}
	}
}

// lookAndPlan looks and notes when the next look is worth it.
func (l *lookout) lookAndPlan(ctx context.Context, j job.Job) {
	s := l.of(j)
	if l.adapter.breaker.open() {
		l.mu.Lock()
		defer l.mu.Unlock()
		s.next = now().Add(openFor)
		return
	}
	is, err := l.look(ctx, j)
	at := now()
	l.mu.Lock()
	defer l.mu.Unlock()
	s.looked, s.due = at, time.Time{}
	if err != nil {
		l.log.Debug("the runs of a schedule could not be looked for", "job", j.ID, "schedule", j.ScheduleID, "err", err)
		s.next = nextTry(s.failures, err)
		s.failures++
		return
	}
	if mayMiss(is) {
		s.due = is.Due
	}
	s.failures, s.next = 0, nextLook(is, at)
}

// nextLook is a second after the schedule is due, and then soon and ever less often
// while its run does not show. One that keeps missing its times is looked at by the
// minute. A schedule that rests is left to sync.
func nextLook(j job.Job, at time.Time) time.Time {
	late := at.Sub(j.Due)
	switch {
	case j.Done() || j.Paused || !j.ScheduleSettled:
		return at.Add(time.Hour)
	case late < 0:
		return j.Due.Add(firstLook)
	case !j.Missed.IsZero():
		return at.Add(time.Minute)
	}
	return at.Add(min(max(late/2, 2*time.Second), 30*time.Second))
}

// look finds what the schedule has fired, and tells what it has missed.
func (l *lookout) look(ctx context.Context, j job.Job) (job.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	begun := now()
	j, err := l.find(ctx, j)
	if err != nil {
		return j, err
	}
	return l.missed(ctx, j, begun)
}

// find has rows made for the runs that have none, oldest first: what a crash leaves
// out is found again.
func (l *lookout) find(ctx context.Context, j job.Job) (job.Job, error) {
	begun, s := now(), l.of(j)
	l.mu.Lock()
	from := s.upTo.Add(-lookBack)
	l.mu.Unlock()
	runs, err := l.firedRuns(ctx, j.ScheduleID, from)
	for _, run := range runs {
		if err == nil && !l.hasHad(s, run) {
			j, err = l.record(ctx, j, run)
		}
		if err == nil {
			l.note(s, run)
		}
	}
	if err != nil {
		return j, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.upTo = later(s.upTo, begun)
	maps.DeleteFunc(s.had, func(_ string, nominal time.Time) bool { return nominal.Before(s.upTo.Add(-2 * lookBack)) })
	return j, nil
}

func (l *lookout) hasHad(s *sighting, run triggerdev.Run) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, had := s.had[run.ID]
	return had
}

func (l *lookout) note(s *sighting, run triggerdev.Run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.had[run.ID] = run.CreatedAt
}

// lastLook finds the runs of a schedule that is about to be deleted.
func (l *lookout) lastLook(ctx context.Context, j job.Job) {
	if _, err := l.find(ctx, j); err != nil {
		l.log.Warn("a schedule is deleted although its last runs could not be looked for", "job", j.ID, "schedule", j.ScheduleID, "err", err)
	}
}

var errRowEnded = errors.New("the schedule's row has ended meanwhile")

// record writes a run down, unless it is known, and has its state asked for.
func (l *lookout) record(ctx context.Context, j job.Job, run triggerdev.Run) (job.Job, error) {
	nominal := toMilli(run.CreatedAt)
	if _, err := l.store.FindRun(ctx, run.ID); err == nil && nominal.Before(j.Due) {
		return j, nil
	}
	step, err := l.store.Apply(context.WithoutCancel(ctx), j.ID, job.Event{
		Kind: job.Fired, At: now(), Source: "schedule", Run: job.Run{ID: run.ID, Environment: runNews(run, nil).Environment}, Nominal: nominal,
	})
	switch {
	case err != nil:
		return j, err
	case step.Job.Done():
		return step.Job, errRowEnded
	}
	if step.Follow != nil {
		l.log.Debug("schedule fired", "job", j.ID, "occurrence", step.Follow.ID, "run", run.ID)
		l.poller.soon(step.Follow.ID)
	}
	return step.Job, nil
}

// missed tells that a schedule should have fired and did not. That is certain only
// when the list, read late enough, shows no run, and the schedule itself can be asked
// for: then the list was that of its environment. The look began at the given time.
func (l *lookout) missed(ctx context.Context, j job.Job, begun time.Time) (job.Job, error) {
	if !mayMiss(j) || j.Due.After(begun.Add(-job.FireGrace)) {
		return j, nil
	}
	if _, err := l.compare(ctx, l.store, j); err != nil {
		return j, err
	}
	step, err := l.store.Apply(context.WithoutCancel(ctx), j.ID, job.Event{Kind: job.Missed, At: begun, Source: "schedule"})
	if err != nil {
		return j, err
	}
	if step.Changed && !step.Quiet {
		l.log.Warn("a recurring job should have fired on trigger.dev and did not", "job", j.ID, "tag", j.Tag, "due", j.Due, "schedule", j.ScheduleID)
	}
	return step.Job, nil
}

func mayMiss(j job.Job) bool {
	return !j.Done() && !j.Paused && !j.CancelRequested && j.ScheduleSettled
}

// errBeingSet says that a schedule is being changed now, so that comparing it proves
// nothing.
var errBeingSet = errors.New("the schedule is being changed")

// compare asks Trigger.dev for the schedule of a row that is settled, and has a
// difference written. The outbox then sets it right. It tells whether there was one.
func (l *lookout) compare(ctx context.Context, rows applier, j job.Job) (drifted bool, err error) {
	waited := l.outbox.inTurn(ctx, l.adapter.scheduleKey(j.Tag), func() { drifted, err = l.compareInTurn(ctx, rows, j) })
	if drifted {
		l.outbox.nudge()
	}
	return drifted, errors.Join(waited, err)
}

func (l *lookout) compareInTurn(ctx context.Context, rows applier, j job.Job) (drifted bool, err error) {
	is, err := l.store.Get(ctx, j.ID)
	switch {
	case err != nil:
		return false, err
	case !is.ScheduleSettled || is.CancelRequested || is.Done() || is.ScheduleID != j.ScheduleID:
		return false, errBeingSet
	}
	ev, err := l.adapter.askSchedule(ctx, is)
	if err != nil || ev.Kind == "" {
		return false, err
	}
	ev.Source = "reconcile"
	if _, err := rows.Apply(context.WithoutCancel(ctx), j.ID, ev); err != nil {
		return false, err
	}
	l.log.Warn("a schedule on trigger.dev was not as its row says; it is set right", "job", j.ID, "tag", j.Tag, "schedule", j.ScheduleID, "event", ev.Kind, "difference", ev.Reason)
	return true, nil
}

// firedRuns are the runs that a schedule has fired from a time on, oldest first. A
// run counts as made at its nominal time.
func (l *lookout) firedRuns(ctx context.Context, scheduleID string, from time.Time) (runs []triggerdev.Run, err error) {
	f := triggerdev.ListFilter{Schedule: scheduleID, From: from, Size: 100}
	for {
		if err := l.adapter.client.Pace(ctx, pollShare); err != nil {
			return nil, err
		}
		page, err := l.adapter.client.List(ctx, f)
		l.adapter.health.note(err)
		if err != nil {
			return nil, fmt.Errorf("list the runs of schedule %s: %w", scheduleID, err)
		}
		runs = append(runs, page.Runs...)
		if f.After = page.Next; f.After == "" {
			break
		}
	}
	slices.SortStableFunc(runs, func(a, b triggerdev.Run) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return runs, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
