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

// periodics is the whole list. The period counts from the end of a run to the next one's
// start, so none overlaps itself.
func periodics(r *reconciler, syncEvery time.Duration, log *slog.Logger) []periodic {
	return []periodic{
		{"sync with trigger.dev", syncEvery, func(ctx context.Context) {
			if _, err := r.sync(ctx); err != nil {
				log.Error("sync failed", "err", err)
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
			gocron.WithName(p.name), gocron.WithIntervalFromCompletion())
		if err != nil {
			return nil, fmt.Errorf("schedule %s: %w", p.name, err)
		}
	}
	s.Start()
	return s.Shutdown, nil
}
