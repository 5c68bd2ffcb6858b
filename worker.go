package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"sidejob/internal/job"
)

// desk hands out work. Of all who wait there for the same types one looks out and the
// others wait their turn, so that a job that is written costs one look, however many
// wait.
type desk struct {
	store Store
	turns *turns // by what is asked for
}

func newDesk(store Store) *desk { return &desk{store: store, turns: newTurns()} }

// claim hands out work as soon as there is some, or none when the wait or ctx is over.
// Whatever becomes of ctx meanwhile, what was claimed is returned.
func (d *desk) claim(ctx context.Context, c Claim, wait time.Duration) ([]job.Job, error) {
	if ctx.Err() != nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	c.At = now()
	jobs, err := d.store.Claim(context.WithoutCancel(ctx), c)
	if err != nil || len(jobs) > 0 {
		return jobs, err
	}
	done, err := d.turns.take(ctx, fmt.Sprintf("%q %q", c.Types, c.NotTypes))
	if err != nil {
		return nil, nil // the wait is over
	}
	defer done()
	return d.lookOut(ctx, c)
}

// lookOut claims when a job is written that could be claimed, and when the next one
// becomes due.
func (d *desk) lookOut(ctx context.Context, c Claim) ([]job.Job, error) {
	changed, stop := d.store.Watch(claimableJobs)
	defer stop()
	for ctx.Err() == nil {
		c.At = now()
		jobs, err := d.store.Claim(context.WithoutCancel(ctx), c)
		if err != nil || len(jobs) > 0 {
			return jobs, err
		}
		next, err := d.store.NextClaimable(ctx, c)
		if err != nil && ctx.Err() == nil {
			return nil, err
		}
		until := time.Now().Add(lookAgain) // for a row that the host wrote: nobody tells of it
		if !next.IsZero() && next.Before(until) {
			until = next
		}
		waitUntil(ctx, until, changed)
	}
	return nil, nil
}

// builtin carries out one job and gives its result. It ends early when ctx does.
type builtin func(ctx context.Context, j job.Job) (result any, err error)

const removeOldWorkerJobs = "removeOldWorkerJobs"

// builtins are the types of jobs that sidejob carries out itself.
func builtins(store Store) map[string]builtin {
	return map[string]builtin{
		removeOldWorkerJobs: func(ctx context.Context, j job.Job) (any, error) {
			n, err := removeAll(ctx, store, []int64{j.ID})
			return removedView{n}, err
		},
	}
}

// builtinTypes are never handed to workers of the host.
func builtinTypes() []string { return slices.Sorted(maps.Keys(builtins(nil))) }

type removedView struct {
	Removed int64 `json:"removed"`
}

// removeBatch bounds how long a removal holds up other writes.
const removeBatch = 100

// removeAll removes every finished job whose time is past, a batch at a time.
func removeAll(ctx context.Context, store Store, exclude []int64) (removed int64, err error) {
	at := now()
	for ctx.Err() == nil {
		n, err := store.Remove(context.WithoutCancel(ctx), at, exclude, removeBatch)
		removed += n
		if err != nil || n < removeBatch {
			return removed, err
		}
	}
	return removed, ctx.Err()
}

// workers carry out the jobs of the built-in types. They claim them, renew their
// leases and report the outcome as a host's workers do.
type workers struct {
	store   Store
	desk    *desk
	log     *slog.Logger
	count   int
	do      map[string]builtin
	claimed func(jobs int)
}

const (
	builtinLease = time.Minute
	builtinBeat  = builtinLease / 3
)

// order makes the recurring rows that sidejob keeps for itself, once in the life of a
// database: whoever ends one does not want it back.
func (w *workers) order(ctx context.Context) error {
	if w.count == 0 {
		return nil // nobody would carry them out
	}
	j, _, err := job.New(job.Spec{
		Type: removeOldWorkerJobs, Tag: "cron:" + removeOldWorkerJobs, CronSchedule: "0 * * * *",
	}, now(), uuid.NewString())
	if err != nil {
		return fmt.Errorf("make the job that removes old ones: %w", err)
	}
	return w.store.ScheduleOnce(ctx, removeOldWorkerJobs, Order{Job: j, OnConflict: job.Keep, Source: "sidejob"})
}

// run works until ctx ends, then finishes what is at hand or gives it back.
func (w *workers) run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range w.count {
		all.Go(func() { w.work(ctx, fmt.Sprintf("sidejob-%d", i+1)) })
	}
	all.Wait()
}

func (w *workers) work(ctx context.Context, name string) {
	var claims streak
	for ctx.Err() == nil {
		jobs, err := w.desk.claim(ctx, Claim{
			Types: slices.Sorted(maps.Keys(w.do)), Limit: 1,
			Lease: job.Lease{Token: uuid.NewString(), Owner: name, For: builtinLease},
		}, time.Hour)
		claims.note(w.log.With("worker", name), err, "cannot claim built-in jobs")
		if err != nil {
			pause(ctx, time.Second)
		}
		w.claimed(len(jobs))
		for _, j := range jobs {
			w.carryOut(ctx, j)
		}
	}
}

// carryOut does one job and says how it went. A shutdown is no failure.
func (w *workers) carryOut(ctx context.Context, j job.Job) {
	held, letGo := w.hold(ctx, j)
	result, err := w.do[j.Type](held, j)
	letGo()
	ev := job.Event{Kind: job.Complete, Result: encoded(result)}
	switch {
	case err != nil && ctx.Err() != nil:
		ev = job.Event{Kind: job.Release}
	case err != nil:
		ev = job.Event{Kind: job.Fail, Result: encoded(err.Error())}
		w.log.Error("a built-in job failed", "job", j.ID, "type", j.Type, "err", err)
	}
	ev.At, ev.Source, ev.Lease = now(), "worker", job.Lease{Token: j.LeaseToken}
	_, err = w.store.Apply(context.WithoutCancel(ctx), j.ID, ev)
	switch {
	case errors.Is(err, job.ErrRefused):
		w.log.Info("the outcome of a built-in job was not wanted any more", "job", j.ID, "event", ev.Kind, "err", err)
	case err != nil:
		w.log.Error("cannot write the outcome of a built-in job", "job", j.ID, "event", ev.Kind, "err", err)
	default:
		w.log.Debug("a built-in job is over", "job", j.ID, "type", j.Type, "event", ev.Kind)
	}
}

// hold renews the job's lease until letGo is called. The context it gives ends with
// the lease, when the job is canceled, and with ctx.
func (w *workers) hold(ctx context.Context, j job.Job) (held context.Context, letGo func()) {
	held, cancel := context.WithCancel(ctx)
	var beats sync.WaitGroup
	beats.Go(func() {
		defer cancel()
		for {
			pause(held, builtinBeat)
			if held.Err() != nil || !w.beat(context.WithoutCancel(ctx), j) {
				return
			}
		}
	})
	return held, func() { cancel(); beats.Wait() }
}

// beat renews a lease and tells whether the work is to go on. A database that is busy
// does not end it: the lease may outlast that.
func (w *workers) beat(ctx context.Context, j job.Job) bool {
	step, err := w.store.Apply(ctx, j.ID, job.Event{Kind: job.Renew, At: now(), Source: "worker", Lease: job.Lease{Token: j.LeaseToken}})
	if errors.Is(err, job.ErrRefused) || errors.Is(err, ErrNotFound) {
		return false
	}
	return err != nil || !step.Job.CancelRequested
}

// encoded is what this file itself put together, as JSON.
func encoded(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage("null")
	}
	return text
}
