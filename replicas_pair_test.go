package main

import (
	"net/http"
	"testing"
	"time"
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
