package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/job"
)

// newPair is two sidejobs on one PostgreSQL before one Trigger.dev, in this process.
func newPair(t *testing.T, options ...worldOption) (one, other *world) {
	t.Helper()
	address, _ := throwAwayCluster().freshDatabase(t)
	options = append(options, withoutWebhook(), withConfig(func(c *config) { c.database = address }))
	one = newWorld(t, options...)
	other = newWorld(t, append(options, withConfig(func(c *config) {
		c.transport = inProcess(func() http.Handler { return one.emu })
	}))...)
	return one, other
}

// sendsNothing keeps a sidejob from sending what rows owe.
func (w *world) sendsNothing() {
	for range cap(w.srv.outbox.slots) {
		w.srv.outbox.slots <- struct{}{}
	}
}

func TestAReplyHasWhatCameOfASubmitThatAnotherReplicaSent(t *testing.T) {
	one, other := newPair(t)
	one.sendsNothing()
	begun := time.Now()
	r := one.call("POST", "/api/jobs?waitMs=10000", echoJob)
	if j := one.view(r); r.status != http.StatusCreated || j.TriggerRunID == "" {
		t.Errorf("got %d %s, want the job with its run", r.status, r.body)
	}
	one.faults(fault("POST", submitPath, "status", "status", 422, "times", 1))
	r = one.call("POST", "/api/jobs?waitMs=10000", echoJob)
	p := wantProblem(t, "a job that Trigger.dev refuses", r, http.StatusUnprocessableEntity, "trigger_refused")
	if j := other.get(p.ID); j.Status != "FAILED" {
		t.Errorf("job %d, which was refused, is %s", p.ID, j.Status)
	}
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("the two replies took %s, want each as soon as it is known", took)
	}
}

func withoutTrigger() worldOption { return withConfig(func(c *config) { c.triggerOn = false }) }

// gatedStore has whoever schedules wait at a gate, as one does that is frozen.
type gatedStore struct {
	Store
	came, gate chan struct{}
}

// Schedule implements Store.
func (g gatedStore) Schedule(ctx context.Context, orders []Order, request Keyed) ([]Placed, error) {
	close(g.came)
	<-g.gate
	return g.Store.Schedule(ctx, orders, request)
}

func TestARequestUnderWayIsNotTakenOverFromAReplicaThatLives(t *testing.T) {
	one, other := newPair(t, withoutTrigger())
	gated := gatedStore{one.srv.api.store, make(chan struct{}), make(chan struct{})}
	one.srv.api.store = gated
	first := make(chan answer, 1)
	go func() { first <- one.keyed("k", "/api/jobs", `{"type":"work"}`) }()
	<-gated.came
	wantProblem(t, "while it is under way", other.keyed("k", "/api/jobs", `{"type":"work"}`), 409, "idempotency_in_progress")
	close(gated.gate)
	wantReplay(t, "when it is over", <-first, other.keyed("k", "/api/jobs", `{"type":"work"}`))
}

func TestARequestTakenOverFromAFrozenReplicaMakesOneJob(t *testing.T) {
	one, other := newPair(t, withoutTrigger())
	gated := gatedStore{one.srv.api.store, make(chan struct{}), make(chan struct{})}
	one.srv.api.store = gated
	woken := make(chan answer, 1)
	go func() { woken <- one.keyed("k", "/api/jobs", `{"type":"work"}`) }()
	<-gated.came
	if err := one.srv.store.Leave(t.Context(), one.srv.api.owner); err != nil { // as if not seen for long
		t.Fatal(err)
	}
	made := other.keyed("k", "/api/jobs", `{"type":"work"}`)
	close(gated.gate)
	wantProblem(t, "the one that wakes", <-woken, 409, "idempotency_in_progress")
	wantReplay(t, "from then on", made, other.keyed("k", "/api/jobs", `{"type":"work"}`))
	if n := other.countAll(); n != 1 {
		t.Errorf("there are %d jobs, want 1", n)
	}
}

func TestAKeyThatCouldNotBeGivenBackIsSoonFreeToTheOtherReplica(t *testing.T) {
	one, other := newPair(t, withoutTrigger())
	whole := one.srv.api.store
	one.srv.api.store = fullStore{stubbornStore{whole}}
	wantProblem(t, "while the database is away", one.keyed("k", "/api/jobs", `{"type":"work"}`), 503, "database_unavailable")
	wantProblem(t, "at once", other.keyed("k", "/api/jobs", `{"type":"work"}`), 409, "idempotency_in_progress")
	one.srv.api.store = whole
	for end := time.Now().Add(3 * attendEvery); ; pause(t.Context(), 50*time.Millisecond) {
		r := other.keyed("k", "/api/jobs", `{"type":"work"}`)
		if r.status == http.StatusCreated {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s later: %d %s, want the job made", 3*attendEvery, r.status, r.body)
		}
	}
}

// leaves begins the shutdown; over is closed when it has ended.
func (w *world) leaves() (over chan struct{}) {
	over = make(chan struct{})
	srv := w.srv
	w.srv = nil
	go func() {
		defer close(over)
		if err := srv.shutdown(); err != nil {
			w.t.Errorf("shut the server down: %v", err)
		}
	}()
	return over
}

func wantOver(t *testing.T, what string, over <-chan struct{}) {
	t.Helper()
	select {
	case <-over:
	case <-time.After(10 * time.Second):
		t.Errorf("%s: it has not left within 10 s", what)
	}
}

func wantNotOver(t *testing.T, what string, over <-chan struct{}) {
	t.Helper()
	select {
	case <-over:
		t.Errorf("%s: it has left, want it to wait", what)
	case <-time.After(300 * time.Millisecond):
	}
}

func TestAReplicaThatDrainsWaitsForWhatItHasHandedOut(t *testing.T) {
	one, other := newPair(t, withoutTrigger(), withConfig(func(c *config) { c.drain = time.Minute }))
	one.schedule(`{"type":"a"}`)
	one.schedule(`{"type":"b"}`)
	mine, theirs := one.claimOne(`{"types":["a"]}`), other.claimOne(`{"types":["b"]}`)
	srv := one.srv
	over := one.leaves()
	wantNotOver(t, "while its worker holds a job", over)
	if r := callHandler(t, srv.private, "POST", fmt.Sprintf("/api/jobs/%d/complete", mine.ID), withToken(mine.LeaseToken)); r.status != 200 {
		t.Errorf("complete: %d %s", r.status, r.body)
	}
	wantOver(t, "when only the other one's worker holds a job", over)

	srv = other.srv
	over = other.leaves()
	wantNotOver(t, "the last one", over)
	callHandler(t, srv.private, "POST", fmt.Sprintf("/api/jobs/%d/complete", theirs.ID), withToken(theirs.LeaseToken))
	wantOver(t, "the last one when no job is held", over)
}

func TestTheLastReplicaWaitsForWhatAnotherHasHandedOut(t *testing.T) {
	one, other := newPair(t, withoutTrigger(), withConfig(func(c *config) { c.drain = time.Minute }))
	one.schedule(`{"type":"work"}`)
	j := one.claimOne(`{}`)
	one.srv.cfg.drain = 0 // it is in a hurry
	wantOver(t, "in a hurry", one.leaves())
	srv := other.srv
	over := other.leaves()
	wantNotOver(t, "the last one", over)
	if r := callHandler(t, srv.private, "POST", fmt.Sprintf("/api/jobs/%d/complete", j.ID), withToken(j.LeaseToken)); r.status != 200 {
		t.Errorf("complete: %d %s", r.status, r.body)
	}
	wantOver(t, "when no job is held", over)
}

// lostStore is away for the first calls of a kind.
type lostStore struct {
	Store
	counts, news atomic.Int64 // so many calls fail
}

// Count implements Store.
func (s *lostStore) Count(ctx context.Context, f Filter) (int64, error) {
	if s.counts.Add(-1) >= 0 {
		return 0, fmt.Errorf("count: %w", ErrBusy)
	}
	return s.Store.Count(ctx, f)
}

// Apply implements Store.
func (s *lostStore) Apply(ctx context.Context, id int64, ev job.Event) (job.Step, error) {
	if ev.Kind == job.Told && s.news.Add(-1) >= 0 {
		return job.Step{}, fmt.Errorf("apply: %w", ErrBusy)
	}
	return s.Store.Apply(ctx, id, ev)
}

func TestNewsThatCouldNotBeWrittenIsAskedForThoughAnotherReplicaSentTheJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := &lostStore{}
		w := newWorld(t, withoutWebhook(), func(w *world) {
			w.assembled = func(s *server) {
				lost.Store = s.store
				s.follower.store = lost
				s.outbox.submitted = func(job.Job) {} // as far as this one knows
			}
		})
		lost.news.Store(1000)
		begun := time.Now()
		j := w.wait(w.schedule(echoJob).ID)
		if took := time.Since(begun); j.Status != "COMPLETED" || took > 30*time.Second {
			t.Errorf("it is %s after %s, want COMPLETED within 30 s", j.Status, took)
		}
	})
}

func TestTheFirstReconciliationIsRepeatedUntilTheDatabaseIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withoutWebhook(), func(w *world) {
			w.assembled = func(s *server) {
				lost := &lostStore{Store: s.store}
				lost.counts.Store(2)
				s.reconciler.store = lost
			}
		})
		time.Sleep(4 * attendEvery)
		text := w.log.String()
		if failed := strings.Count(text, "first reconciliation failed"); failed != 2 || !strings.Contains(text, "Reconciliation complete") {
			t.Errorf("it failed %d times, want 2 and then a complete one: %s", failed, text)
		}
	})
}

func TestAReplicaThatWasFrozenBeforeItsSendDoesNotSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withoutWebhook())
		j, _, err := job.New(job.Spec{Type: "echo", Executor: job.Trigger, TriggerTask: "echo"}, now(), "key")
		if err != nil {
			t.Fatal(err)
		}
		step, err := job.Next(j, job.Event{Kind: job.Send, At: now(), Lease: job.Lease{Token: "token", For: submitHold}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(submitHold) // another one may hold the row by now
		sent := w.srv.outbox.adapter.submit(t.Context(), step.Job, false)
		if runs := w.remoteRuns(); sent.event.Kind != job.Unreached || len(runs) != 0 {
			t.Errorf("got %+v and runs %v, want nothing sent", sent.event, runs)
		}
	})
}

// TestWhatTheClockBringsAboutHappensOnceThoughTwoReplicasSeeIt needs no leader: the row's
// lock decides whose event comes first, and the second one changes nothing.
func TestWhatTheClockBringsAboutHappensOnceThoughTwoReplicasSeeIt(t *testing.T) {
	one, other := newPair(t)
	tick := one.schedule(`{"type":"tick","tag":"tick","executor":"trigger","triggerTaskId":"echo","cronSchedule":"* * * * * *","fireLocally":true,"misfire":"all"}`)
	for range 20 {
		one.schedule(`{"type":"work"}`)
	}
	held := one.claim(`{"limit":20,"leaseMs":1000}`)
	if len(held) != 20 {
		t.Fatalf("claimed %d jobs, want 20", len(held))
	}
	waitUntil(t.Context(), tick.Due.Add(3*time.Second), nil)
	if r := other.call("DELETE", fmt.Sprintf("/api/jobs/%d/schedule", tick.ID), nil); r.status != http.StatusOK {
		t.Fatalf("end the schedule: %d %s", r.status, r.body)
	}
	for _, j := range held {
		lost := 0
		for _, line := range other.history(j.ID) {
			if strings.HasPrefix(line, string(job.LeaseLost)) {
				lost++
			}
		}
		if lost != 1 {
			t.Errorf("the lease of job %d was lost %d times, want once: %q", j.ID, lost, other.history(j.ID))
		}
	}
	var page struct{ Jobs []seenJob }
	other.call("GET", fmt.Sprintf("/api/jobs?limit=200&scheduleId=%d", tick.ID), nil).into(t, &page)
	seconds := map[time.Time]int{}
	for _, j := range page.Jobs {
		if j.ID != tick.ID {
			seconds[j.Due]++
		}
	}
	if len(seconds) < 3 {
		t.Errorf("it has fired %d times, want 3 at least", len(seconds))
	}
	for second, times := range seconds {
		if times != 1 {
			t.Errorf("%s has fired %d times", second, times)
		}
	}
	if runs := len(one.remoteRuns()); runs > len(seconds) {
		t.Errorf("there are %d runs of %d seconds", runs, len(seconds))
	}
}
