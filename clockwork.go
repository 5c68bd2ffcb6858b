package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"sidejob/internal/job"
)

// clockwork has happen what the clock alone brings about: leases run out, schedules
// that sidejob fires itself come due, occurrences have not begun in time. The rows say
// when; it sleeps until the next of them.
type clockwork struct {
	store Store
	log   *slog.Logger
	fired func() // a run is to be sent
	lost  func() // a worker has not been heard of in time
	reads streak
}

// ripeAtOnce bounds how many rows of a kind are read at once.
const ripeAtOnce = 200

// clockRest bounds how often the rows are read while workers take many jobs, each of
// which brings a lease.
const clockRest = 50 * time.Millisecond

// run goes on until ctx ends.
func (c *clockwork) run(ctx context.Context) {
	changed, stop := c.store.Watch(timedJobs)
	defer stop()
	for ctx.Err() == nil {
		next := c.strike(ctx)
		rested := now().Add(clockRest)
		waitUntil(ctx, next, changed)
		if rested.Before(next) {
			waitUntil(ctx, rested, nil)
		}
	}
}

// strike applies what is due and says when to look again.
func (c *clockwork) strike(ctx context.Context) time.Time {
	at := now()
	ripe, next, err := c.store.Ripe(ctx, at, ripeAtOnce)
	if ctx.Err() == nil {
		c.reads.note(c.log, err, "cannot read what is due by the clock")
	}
	if err != nil {
		return at.Add(time.Second)
	}
	moved := false
	for _, r := range ripe {
		moved = c.happen(ctx, r, at) || moved
	}
	if again := at.Add(lookAgain); next.IsZero() || next.After(again) {
		next = again
	}
	if moved {
		return at // there may be more
	}
	return next
}

// happen tells whether the row moved. A schedule is told first what it has missed.
func (c *clockwork) happen(ctx context.Context, r RipeRow, at time.Time) (moved bool) {
	kinds := []job.Kind{r.Kind}
	if r.Kind == job.Fired {
		kinds = []job.Kind{job.Missed, job.Fired}
	}
	for _, kind := range kinds {
		ev := job.Event{Kind: kind, At: at, Source: "clock", Key: "job-" + uuid.NewString()}
		step, err := c.store.Apply(ctx, r.ID, ev)
		if err != nil && !errors.Is(err, ErrNotFound) {
			c.log.Error("cannot write what the clock brings about", "job", r.ID, "event", kind, "err", err)
			return false
		}
		moved = moved || step.Changed
		if kind == job.LeaseLost && step.Changed {
			c.lost()
			c.log.Info("a worker's lease has run out", "job", r.ID, "attempt", step.Job.Attempt, "state", step.Job.State())
		}
		if kind == job.Missed && step.Changed {
			c.log.Warn("a recurring job has not begun in time", "job", r.ID, "tag", step.Job.Tag, "misfire", step.Job.Misfire)
		}
		if step.Follow != nil && step.Follow.Owes() {
			c.fired()
		}
	}
	return moved
}
