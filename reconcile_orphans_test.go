package main

import (
	"database/sql"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lose deletes a row behind sidejob's back.
func (w *world) lose(id int64) {
	w.t.Helper()
	db, err := sql.Open("sqlite", sqliteDSN(w.cfg.database))
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("DELETE FROM worker_jobs WHERE id = $1", id); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) sweepReport(path string) Report {
	w.t.Helper()
	r := w.call("POST", path, nil)
	if r.status != 200 {
		w.t.Fatalf("%s: %d %s", path, r.status, r.body)
	}
	var report Report
	r.into(w.t, &report)
	return report
}

func TestARunWithoutARowIsReportedAndAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withoutWebhook())
		lost := w.triggerJob("cancellable-task", "tag", "lost", "userId", 7, "data", map[string]any{"iterations": 3})
		w.lose(lost.ID)
		if r := w.sweepReport("/api/reconcile?dryRun=true&adopt=true"); r.RemoteOrphans != 1 || r.AdoptedRuns != 0 {
			t.Fatalf("a dry run reports %+v, want one orphan, none adopted", r)
		}
		if r := w.sweepReport("/api/reconcile?adopt=true"); r.RemoteOrphans != 1 || r.AdoptedRuns != 1 {
			t.Fatalf("got %+v, want one orphan, adopted", r)
		}
		adopted := w.wait(lost.ID + 1)
		if adopted.TriggerRunID != lost.TriggerRunID || adopted.Status != "COMPLETED" || adopted.Tag != "lost" || adopted.UserID != 7 ||
			string(adopted.Data) != `{"iterations":3}` {
			t.Errorf("the adopted row is %+v", adopted)
		}
		if r := w.sweepReport("/api/reconcile"); r.RemoteOrphans != 0 {
			t.Errorf("afterwards %d orphans are left", r.RemoteOrphans)
		}
	})
}

func TestARunWithoutARowIsCanceledOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withoutWebhook())
		lost := w.triggerJob("cancellable-task", "data", map[string]any{"iterations": 100})
		w.lose(lost.ID)
		if r := w.sweepReport("/api/reconcile"); r.RemoteOrphans != 1 || r.CanceledRuns != 0 {
			t.Fatalf("got %+v, want one orphan, left alone", r)
		}
		if got := w.remoteRun(lost.TriggerRunID).Status; got == "CANCELED" {
			t.Fatal("a plain sweep has canceled a run")
		}
		if r := w.sweepReport("/api/reconcile?cancel=true"); r.CanceledRuns != 1 {
			t.Fatalf("got %+v, want one canceled", r)
		}
		if got := w.remoteRun(lost.TriggerRunID).Status; got != "CANCELED" {
			t.Errorf("Trigger.dev says %s, want CANCELED", got)
		}
	})
}

func TestADryRunChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withoutWebhook())
		w.faults(map[string]any{"match": map[string]any{"path": "/realtime/"}, "kind": "reset"})
		j := w.triggerJob("process-large-dataset")
		time.Sleep(time.Second)
		w.halt()
		time.Sleep(5 * time.Second)
		w.faults(map[string]any{"match": map[string]any{"path": "/"}, "kind": "status", "status": 503})
		w.boot()
		time.Sleep(time.Second)
		before := w.get(j.ID)
		w.faults(map[string]any{"match": map[string]any{"path": "/realtime/"}, "kind": "reset"})
		r := w.sweepReport("/api/reconcile?dryRun=true")
		if r.TotalJobs != 1 || r.CompletedJobs != 1 {
			t.Errorf("a dry run reports %+v, want one completed", r)
		}
		if after := w.get(j.ID); after.Status != before.Status || !after.UpdatedAt.Equal(before.UpdatedAt) {
			t.Errorf("a dry run has changed the row from %+v to %+v", before, after)
		}
	})
}

func TestManyRowsAreComparedByLists(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := &countingTransport{}
		w := newWorld(t, withoutWebhook(), withConfig(func(c *config) {
			calls.next = c.transport
			c.transport = calls
		}))
		var jobs []map[string]any
		for range 450 {
			jobs = append(jobs, map[string]any{"type": "t", "executor": "trigger", "triggerTaskId": "t", "due": time.Now().Add(time.Hour)})
		}
		if r := w.call("POST", "/api/jobs/batch", map[string]any{"jobs": jobs}); r.status != 200 {
			t.Fatalf("batch: %d %s", r.status, r.body)
		}
		time.Sleep(5 * time.Minute)
		w.halt()
		runs := w.remoteRuns()
		for _, run := range runs[:7] {
			w.remote("POST", "/api/v2/runs/"+run.ID+"/cancel", nil)
		}
		w.faults(map[string]any{"match": map[string]any{"path": "/realtime/"}, "kind": "reset"})
		calls.reset()
		w.boot()
		time.Sleep(time.Minute)
		var count struct{ Count int }
		w.call("GET", "/api/jobs/count?status=CANCELED", nil).into(t, &count)
		if count.Count != 7 {
			t.Errorf("%d rows are CANCELED, want 7", count.Count)
		}
		if lists, retrieves := calls.of("/api/v1/runs"), calls.of("/api/v3/runs/"); lists > 8 || retrieves > 30 {
			t.Errorf("450 open rows took %d lists and %d retrieves in a minute", lists, retrieves)
		}
	})
}

// countingTransport counts calls by the beginning of their path.
type countingTransport struct {
	next http.RoundTripper

	mu    sync.Mutex
	paths []string
}

// RoundTrip implements http.RoundTripper.
func (c *countingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.paths = append(c.paths, r.URL.Path)
	c.mu.Unlock()
	return c.next.RoundTrip(r)
}

func (c *countingTransport) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paths = nil
}

func (c *countingTransport) of(prefix string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, path := range c.paths {
		if strings.HasPrefix(path, prefix) {
			n++
		}
	}
	return n
}
