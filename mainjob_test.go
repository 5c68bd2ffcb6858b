package main

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestAJobRunsToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		j := w.triggerJob("process-large-dataset", "data", map[string]any{"datasetId": "123"})
		if j.TriggerRunID == "" || j.Status != "PENDING" {
			t.Fatalf("the reply has run %q and status %s, want a run, PENDING", j.TriggerRunID, j.Status)
		}
		done := w.wait(j.ID)
		if done.Status != "COMPLETED" || string(done.Result) != `{"processed":true,"datasetId":"123"}` {
			t.Errorf("got %s with %s", done.Status, done.Result)
		}
		if got := done.Finished.Sub(done.Started); got < 3*time.Second {
			t.Errorf("it took %s, want the task's 3 s", got)
		}
	})
}

func TestCancelWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		j := w.triggerJob("cancellable-task", "data", map[string]any{"iterations": 100})
		time.Sleep(5 * time.Second)
		r := w.call("POST", "/api/jobs/1/cancel", nil)
		v := w.view(r)
		if r.status != http.StatusOK || v.Status != "CANCELED" || !v.CancelRequested || v.TriggerStatus != "CANCELED" {
			t.Errorf("got %d %s", r.status, r.body)
		}
		if got := w.remoteRun(j.TriggerRunID).Status; got != "CANCELED" {
			t.Errorf("Trigger.dev says %s, want CANCELED", got)
		}
	})
}
