package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/job"
)

func withWorkers(n int) worldOption { return withConfig(func(c *config) { c.workers = n }) }

// removals are the rows that remove old jobs, newest first, as "ID STATUS".
func (w *world) removals() (rows []string) {
	w.t.Helper()
	var page struct{ Jobs []seenJob }
	w.call("GET", "/api/jobs?type=removeOldWorkerJobs", nil).into(w.t, &page)
	for _, j := range page.Jobs {
		rows = append(rows, fmt.Sprintf("%d %s", j.ID, j.Status))
	}
	return rows
}

func wantRemovals(t *testing.T, what string, w *world, want ...string) {
	t.Helper()
	if got := w.removals(); !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestOldJobsAreRemovedEachHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Minute)
		w := newWorld(t, withWorkers(2))
		for range 250 {
			w.says(w.schedule(`{"type":"work"}`).ID, "complete", `{}`)
		}
		kept := w.schedule(`{"type":"work","persistent":true}`)
		w.says(kept.ID, "complete", `{}`)
		time.Sleep(58*time.Minute + 30*time.Second)
		w.says(w.schedule(`{"type":"work"}`).ID, "complete", `{}`) // too young
		time.Sleep(30 * time.Second)
		synctest.Wait()
		wantRemovals(t, "after the first hour", w, "254 PENDING", "1 COMPLETED")
		first := w.call("GET", "/api/jobs/1", nil)
		if j := w.view(first); j.Tag != "cron:removeOldWorkerJobs" || j.UserID != 0 || string(j.Result) != `{"removed":0}` || j.Started.Sub(j.Due) != 0 {
			t.Errorf("got %s, want the hourly row, on time, with nothing to remove", first.body)
		}
		if got, want := w.history(1), []string{"created sidejob > waiting", "claim worker > leased", "complete worker > completed"}; !slices.Equal(got, want) {
			t.Errorf("history %q, want %q", got, want)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := string(w.get(254).Result); got != `{"removed":252}` {
			t.Errorf("the second hour: got %s, want 251 jobs and the first hour's own row removed", got)
		}
		wantRemovals(t, "after the second hour", w, "255 PENDING", "254 COMPLETED")
		if n := w.countAll(); n != 3 {
			t.Errorf("%d jobs are left, want the persistent one and two of these", n)
		}
	})
}

func TestTheHourlyRowIsMadeOnceInTheLifeOfADatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Minute)
		w := newWorld(t, withWorkers(0))
		wantRemovals(t, "without workers", w)
		again := func(workers int) {
			w.halt()
			w.cfg.workers = workers
			w.boot()
		}
		again(1)
		wantRemovals(t, "with one", w, "1 PENDING")
		again(2)
		wantRemovals(t, "started again", w, "1 PENDING")
		time.Sleep(time.Hour)
		synctest.Wait()
		again(2)
		wantRemovals(t, "an hour later", w, "2 PENDING", "1 COMPLETED")
		w.says(2, "cancel", `{}`)
		again(2)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		wantRemovals(t, "ended by its user", w, "2 CANCELED", "1 COMPLETED")
	})
}

func TestBuiltInJobsAreForSidejobAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Minute)
		w := newWorld(t)
		j := w.schedule(`{"type":"removeOldWorkerJobs","removeDelay":-1000,"tag":"mine"}`)
		if got := w.claim(`{"limit":100}`); len(got) != 0 {
			t.Errorf("a worker of the host got %+v", got)
		}
		wantProblem(t, "start", w.says(j.ID, "start", `{}`), 409, "built_in")
		w.halt()
		w.cfg.workers = 1
		w.boot()
		synctest.Wait()
		if got := w.get(j.ID); got.Status != "COMPLETED" || string(got.Result) != `{"removed":0}` {
			t.Errorf("got %s %s, want it carried out, its own row left alone", got.Status, got.Result)
		}
		w.schedule(`{"type":"work"}`)
		time.Sleep(time.Minute)
		if got := w.get(3).Status; got != "PENDING" {
			t.Errorf("a job of the host is %s, want it left to the host", got)
		}
	})
}

// runBuiltin has one worker carry out a job by do until stop is called, which waits.
func (w *world) runBuiltin(do builtin) (id int64, stop func()) {
	w.t.Helper()
	id = w.schedule(`{"type":"nap"}`).ID
	ctx, cancel := context.WithCancel(w.t.Context())
	own := &workers{store: w.srv.store, desk: newDesk(w.srv.store), log: category(w.srv.log, "worker"), count: 1, do: map[string]builtin{"nap": do}, claimed: func(int) {}}
	over := make(chan struct{})
	go func() { defer close(over); own.run(ctx) }()
	stop = func() { cancel(); <-over }
	w.t.Cleanup(stop)
	synctest.Wait()
	return id, stop
}

// nap works for a while, unless it is ended.
func nap(d time.Duration) builtin {
	return func(ctx context.Context, _ job.Job) (any, error) {
		waitUntil(ctx, time.Now().Add(d), nil)
		return "rested", ctx.Err()
	}
}

func TestABuiltInJobKeepsItsLeaseWhileItWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id, _ := w.runBuiltin(nap(10 * time.Minute))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if j := w.get(id); j.Status != "COMPLETED" || j.Attempt != 1 || string(j.Result) != `"rested"` {
			t.Errorf("got %s %s in try %d, want it completed in one", j.Status, j.Result, j.Attempt)
		}
	})
}

func TestABuiltInJobThatFailsSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id, _ := w.runBuiltin(func(context.Context, job.Job) (any, error) { return nil, errors.New("no bed") })
		if j := w.get(id); j.Status != "FAILED" || string(j.Result) != `{"error":"no bed"}` {
			t.Errorf("got %s %s, want the error", j.Status, j.Result)
		}
	})
}

func TestABuiltInJobEndsWhenItIsCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var ended time.Time
		id, _ := w.runBuiltin(func(ctx context.Context, _ job.Job) (any, error) {
			<-ctx.Done()
			ended = time.Now()
			return nil, ctx.Err()
		})
		time.Sleep(time.Minute)
		canceled := time.Now()
		w.says(id, "cancel", `{}`)
		time.Sleep(time.Minute)
		synctest.Wait()
		if wait := ended.Sub(canceled); wait < 0 || wait > builtinBeat {
			t.Errorf("it ended %s after the cancel, want at the next heartbeat", wait)
		}
		if got := w.get(id).Status; got != "CANCELED" {
			t.Errorf("got %s, want it canceled", got)
		}
	})
}

func TestABuiltInJobIsGivenBackAtShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id, stop := w.runBuiltin(nap(time.Hour))
		if got := w.get(id).Status; got != "EXECUTING" {
			t.Fatalf("got %s, want it at work", got)
		}
		stop()
		if j := w.get(id); j.Status != "PENDING" || j.Attempt != 0 {
			t.Errorf("got %s after %d tries, want it given back unharmed", j.Status, j.Attempt)
		}
	})
}

// smallBatches notes how much is removed at once.
type smallBatches struct {
	Store
	limits *[]int
}

// Remove implements Store.
func (s smallBatches) Remove(ctx context.Context, at time.Time, exclude []int64, limit int) (int64, error) {
	*s.limits = append(*s.limits, limit)
	return s.Store.Remove(ctx, at, exclude, limit)
}

func TestRemovalGoesByBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 2*removeBatch + 1 {
			w.says(w.schedule(`{"type":"work","removeDelay":-1}`).ID, "complete", `{}`)
		}
		var limits []int
		n, err := removeAll(t.Context(), smallBatches{w.srv.store, &limits}, nil)
		if n != 2*removeBatch+1 || err != nil || !slices.Equal(limits, []int{removeBatch, removeBatch, removeBatch}) {
			t.Errorf("removed %d, error %v, by %v; want all in three batches", n, err, limits)
		}
	})
}

func TestWorkerCountIsANumberOrCPUs(t *testing.T) {
	for _, wrong := range []string{"-1", "many", "1.5", "1001"} {
		code, _, errs := sidejob(t, map[string]string{"WORKER_COUNT": wrong}, "serve", "--no-trigger")
		if code != exitUsage || !strings.Contains(errs, "--worker-count") {
			t.Errorf("WORKER_COUNT=%s: got %d %s, want a refusal that names it", wrong, code, errs)
		}
	}
	for text, least := range map[string]int{"0": 0, "3": 3, "cpus": 1} {
		n, err := serveFlags{WorkerCount: text}.workers()
		if err != nil || n < least || text != "cpus" && n != least {
			t.Errorf("%s: got %d, error %v", text, n, err)
		}
	}
}
