package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-co-op/gocron/v2"
)

// periodic is one line of what sidejob does again and again.
type periodic struct {
	name  string
	every time.Duration
	do    func(context.Context)
}

// periodics is the whole list. A run that outlasts its period delays the next one.
func periodics(store Store, r *reconciler, syncEvery time.Duration, log *slog.Logger) []periodic {
	return []periodic{
		{"sync with trigger.dev", syncEvery, func(ctx context.Context) {
			if _, err := r.sync(ctx); err != nil {
				log.Error("sync failed", "err", err)
			}
		}},
		{"remove old jobs", time.Hour, func(ctx context.Context) {
			if n, err := removeAll(ctx, store, nil); err != nil {
				log.Error("cannot remove old jobs", "removed", n, "err", err)
			}
		}},
	}
}

// startPeriodics runs the list until stop is called, which waits.
func startPeriodics(ctx context.Context, list []periodic) (stop func() error, err error) {
	s, err := gocron.NewScheduler(gocron.WithLocation(time.UTC))
	if err != nil {
		return nil, fmt.Errorf("start periodic work: %w", err)
	}
	for _, p := range list {
		_, err := s.NewJob(gocron.DurationJob(p.every), gocron.NewTask(p.do, ctx),
			gocron.WithName(p.name), gocron.WithSingletonMode(gocron.LimitModeReschedule))
		if err != nil {
			return nil, fmt.Errorf("schedule %s: %w", p.name, err)
		}
	}
	s.Start()
	return s.Shutdown, nil
}

// removeBatch bounds how long a removal holds up other writes.
const removeBatch = 500

// removeAll removes every finished job whose time is past, a batch at a time.
func removeAll(ctx context.Context, store Store, exclude []int64) (removed int64, err error) {
	for at := now(); ; {
		n, err := store.Remove(ctx, at, exclude, removeBatch)
		removed += n
		if err != nil || n < removeBatch {
			return removed, err
		}
	}
}
