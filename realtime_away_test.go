package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/emulator"
	"sidejob/internal/job"
)

// awayStore is not to be reached.
type awayStore struct{ Store }

// Get implements Store.
func (awayStore) Get(context.Context, int64) (job.Job, error) {
	return job.Job{}, fmt.Errorf("get: %w", ErrBusy)
}

// FindRun implements Store.
func (awayStore) FindRun(context.Context, string) (int64, error) {
	return 0, fmt.Errorf("find: %w", ErrBusy)
}

// The stream begins with all the runs there are, and each of them is news that cannot
// be written.
func TestADatabaseThatIsAwayIsOneLineOfTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withoutWebhook(), withTasks(map[string]emulator.Task{"long": {DurationMs: 3_600_000}}))
		for range 20 {
			w.triggerJob("long")
		}
		time.Sleep(time.Minute) // all run by now
		w.halt()
		w.assembled = func(s *server) { s.follower.store = awayStore{s.store} }
		w.boot()
		time.Sleep(time.Second)
		synctest.Wait()
		const line = "news from the realtime stream was not written"
		text := w.log.String()
		if n := strings.Count(text, line); n != 1 {
			t.Errorf("the log has %d lines on it, want 1", n)
			for l := range strings.Lines(text) {
				if strings.Contains(l, line) {
					t.Log(l)
				}
			}
		}
		contains(t, text, `"runs":20`)
	})
}
