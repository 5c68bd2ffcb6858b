package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sidejob/internal/job"
	"sidejob/internal/triggerdev"
)

// follower hears in real time what becomes of this installation's runs: one long
// poll follows all that carry its tag, also behind NAT and without webhooks. A row
// of the stream is news like an event; Trigger.dev is asked to confirm an end.
type follower struct {
	store   Store
	adapter *adapter
	poller  *poller
	log     *slog.Logger
}

const (
	// heardAtOnce lets many rows share a commit.
	heardAtOnce = 64
	// restream is when the stream begins anew: its look-back window does not move.
	restream = 23 * time.Hour
	// noRealtimePause is how long a server without realtime is left alone.
	noRealtimePause = time.Hour
)

// run follows until ctx ends.
func (f *follower) run(ctx context.Context) {
	stream := f.adapter.client.Subscribe(triggerdev.RealtimeFilter{
		Tags: []string{f.adapter.installationTag()}, SkipColumns: []string{"metadata", "metadataType"}, DropFinal: true,
	})
	warned := false
	for failures := 0; ctx.Err() == nil; {
		runs, err := stream.Next(ctx)
		f.hearAll(ctx, runs)
		switch {
		case err == nil:
			failures = 0
			if now().Sub(stream.MintedAt()) > restream {
				stream.Reset()
			}
		case ctx.Err() != nil:
		case errors.Is(err, triggerdev.ErrNoRealtime):
			if !warned {
				f.log.Warn("this trigger.dev has no realtime stream; runs are asked about more often instead", "err", err)
			}
			warned = true
			f.poller.hurry()
			pause(ctx, noRealtimePause)
		default:
			failures++
			f.log.Debug("realtime stream broke off", "failures", failures, "err", err)
			pause(ctx, streamPause(failures, err))
		}
	}
}

// streamPause is how long to wait after so many failures in a row: half a second,
// doubling up to half a minute, spread; what a rate limit names is honoured.
func streamPause(failures int, err error) time.Duration {
	wait := min(30*time.Second, 500*time.Millisecond<<min(failures-1, 6))
	var e *triggerdev.Error
	if errors.As(err, &e) && !e.ResetAt.IsZero() {
		wait = max(wait, min(time.Until(e.ResetAt), time.Minute))
	}
	return wait/2 + time.Duration(rand.Int64N(int64(wait)))
}

// hearAll takes what one poll has brought. A database that is away is one line in the
// log, and an end of ctx none.
func (f *follower) hearAll(ctx context.Context, runs []triggerdev.RealtimeRun) {
	slots, unheard := make(chan struct{}, heardAtOnce), make(chan error, len(runs))
	var all sync.WaitGroup
	for _, run := range runs {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if err := f.hear(ctx, run); err != nil {
				unheard <- fmt.Errorf("run %s: %w", run.ID, err)
				f.poller.soon(rowTag(run.Tags)) // the stream does not say it again
			}
		})
	}
	all.Wait()
	if n := len(unheard); n > 0 && ctx.Err() == nil {
		f.log.Error("news from the realtime stream was not written; it will be asked for", "runs", n, "err", <-unheard)
	}
}

// hear takes one row of the stream.
func (f *follower) hear(ctx context.Context, run triggerdev.RealtimeRun) error {
	j, err := f.rowOf(ctx, run)
	if errors.Is(err, ErrNotFound) {
		return nil // a sweep reports runs without a row
	}
	if err != nil {
		return err
	}
	ev := job.Event{Kind: job.Told, At: now(), Source: "realtime", Run: streamedRun(run)}
	// The stream begins with everything it has; most of that is known.
	if step, err := job.Next(j, ev); err != nil || !step.Changed {
		return err
	}
	if run.OutputElsewhere && job.StatusOf(run.Status) == job.Completed {
		f.poller.soon(j.ID) // only a retrieve brings the result
		return nil
	}
	step, err := f.store.Apply(ctx, j.ID, ev)
	if err != nil {
		return err
	}
	if step.Job.Unconfirmed() {
		f.poller.soon(j.ID)
	}
	return nil
}

// rowOf finds the row of a run. A run whose submit was never answered is proved by
// the key among its tags, which only that row's submit can have sent.
func (f *follower) rowOf(ctx context.Context, run triggerdev.RealtimeRun) (job.Job, error) {
	id, err := f.store.FindRun(ctx, run.ID)
	if err == nil {
		return f.store.Get(ctx, id)
	}
	if !errors.Is(err, ErrNotFound) {
		return job.Job{}, err
	}
	j, err := f.store.Get(ctx, rowTag(run.Tags))
	if err != nil {
		return job.Job{}, err
	}
	if !j.InDoubt() || !slices.Contains(run.Tags, j.IdempotencyKey) {
		return job.Job{}, notFound(j.ID)
	}
	step, err := f.store.Apply(ctx, j.ID, job.Event{Kind: job.Submitted, At: now(), Source: "realtime", Run: job.Run{ID: run.ID}})
	return step.Job, err
}

// streamedRun turns a row of the stream into news of the run.
func streamedRun(run triggerdev.RealtimeRun) job.Run {
	news := job.Run{ID: run.ID, Raw: run.Status, Started: run.StartedAt, Finished: run.CompletedAt, Output: run.Output}
	if run.Error != nil {
		news.Error = runError(run.Error.Message, run.Error.Name, run.Error.StackTrace)
	}
	return news
}
