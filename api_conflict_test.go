package main

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/emulator"
)

const replacedResult = `{"error":"Job cancelled due to new job being created","canceled":true}`

// again asks for one more job of the executor's tag, in the words of the first.
func again(w *world, executor, onConflict string) answer {
	w.t.Helper()
	body := map[string]any{"type": "work", "tag": "same " + executor, "executor": executor}
	if executor == "trigger" {
		body["triggerTaskId"] = "long"
	}
	if onConflict != "" {
		body["onConflict"] = onConflict
	}
	return w.call("POST", "/api/jobs", body)
}

func longTask() worldOption {
	return withTasks(map[string]emulator.Task{"long": {DurationMs: 600_000}})
}

func TestPendingJobsOfATagMakeWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, policy := range []string{"", "replace", "replaceAll"} {
			old := w.view(again(w, "internal", ""))
			r := again(w, "internal", policy)
			if r.status != 201 || w.view(r).ID == old.ID || w.view(r).Status != "PENDING" {
				t.Errorf("%q: got %d %s, want a new job", policy, r.status, r.body)
			}
			old = w.get(old.ID)
			if old.Status != "CANCELED" || old.Finished.IsZero() || old.Success == nil || *old.Success {
				t.Errorf("%q: the old job is %+v, want it CANCELED", policy, old)
			}
			wantJSON(t, "its result", old.Result, replacedResult)
		}
	})
}

func TestRunningJobsOfATagGoOnUnlessAllAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, longTask())
		for _, executor := range []string{"internal", "trigger"} {
			running := w.view(again(w, executor, "replaceAll"))
			if executor == "internal" {
				w.workerTakes(running.ID)
			}
			time.Sleep(50 * time.Second) // the lease is one of a minute
			if got := w.get(running.ID).Status; got != "EXECUTING" {
				t.Fatalf("%s: the first job is %s, want it EXECUTING", executor, got)
			}
			beside := w.view(again(w, executor, "replace"))
			if got := w.get(running.ID); got.Status != "EXECUTING" || got.CancelRequested {
				t.Errorf("%s: after replace it is %s, cancel requested %t; want it go on", executor, got.Status, got.CancelRequested)
			}
			again(w, executor, "replaceAll")
			time.Sleep(10 * time.Second)
			for _, id := range []int64{running.ID, beside.ID} {
				got := w.get(id)
				if got.Status != "CANCELED" {
					t.Errorf("%s: after replaceAll job %d is %s, want CANCELED", executor, id, got.Status)
				}
				wantJSON(t, executor+" result", got.Result, replacedResult)
			}
			if executor == "trigger" {
				if got := w.remoteRun(running.TriggerRunID).Status; got != "CANCELED" {
					t.Errorf("its run is %s, want CANCELED", got)
				}
			}
		}
	})
}

func TestKeepGivesTheExistingJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, longTask())
		for _, executor := range []string{"internal", "trigger"} {
			first := again(w, executor, "keep")
			if first.status != 201 {
				t.Errorf("%s: the first of a tag is %d, want 201", executor, first.status)
			}
			kept := again(w, executor, "keep")
			id := w.view(first).ID
			if kept.status != 200 || w.view(kept).ID != id || kept.header.Get("Location") != fmt.Sprintf("/api/jobs/%d", id) {
				t.Errorf("%s: got %d %s at %q, want 200 and job %d", executor, kept.status, kept.body, kept.header.Get("Location"), id)
			}
			if executor == "internal" {
				w.workerTakes(id)
				if r := again(w, executor, "keep"); r.status != 200 || w.view(r).Status != "EXECUTING" {
					t.Errorf("a running one is kept as %d %s, want 200", r.status, r.body)
				}
				w.workerEnds(id, `1`)
			} else {
				w.call("POST", fmt.Sprintf("/api/jobs/%d/cancel", id), nil)
			}
			if r := again(w, executor, "keep"); r.status != 201 {
				t.Errorf("%s: after it has ended, got %d, want a new job", executor, r.status)
			}
			again(w, executor, "replaceAll")
		}
	})
}

func TestRejectRefusesAndStoresNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if r := again(w, "internal", "reject"); r.status != 201 {
			t.Errorf("the first of a tag is %d, want 201", r.status)
		}
		wantProblem(t, "pending", again(w, "internal", "reject"), 409, "tag_taken")
		w.workerTakes(1)
		wantProblem(t, "running", again(w, "internal", "reject"), 409, "tag_taken")
		if n := w.countAll(); n != 1 {
			t.Errorf("there are %d jobs, want 1", n)
		}
		w.workerEnds(1, `1`)
		if r := again(w, "internal", "reject"); r.status != 201 {
			t.Errorf("after it has ended, got %d, want 201", r.status)
		}
	})
}

// cancelFault strikes the calls that cancel runs.
func cancelFault(kind string, more ...any) map[string]any {
	f := submitFault(kind, more...)
	f["match"] = map[string]any{"method": "POST", "path": "/api/v2/runs/"}
	return f
}

func TestAReplacedRunIsCanceledThereFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, longTask())
		old := w.view(again(w, "trigger", "replaceAll"))
		w.faults(cancelFault("status", "status", 503))
		fresh := w.view(again(w, "trigger", "replaceAll"))
		time.Sleep(10 * time.Second)
		got := w.get(old.ID)
		if !got.CancelRequested || got.Success != nil {
			t.Errorf("it is %s, cancel requested %t; want it open until Trigger.dev confirms", got.Status, got.CancelRequested)
		}
		if r := again(w, "trigger", "keep"); r.status != 200 || w.view(r).ID != fresh.ID {
			t.Errorf("keep gives %d job %d, want 200 and job %d: the old one does not count", r.status, w.view(r).ID, fresh.ID)
		}
		w.call("POST", fmt.Sprintf("/api/jobs/%d/cancel?waitMs=0", fresh.ID), nil)
		if r := again(w, "trigger", "reject"); r.status != 201 {
			t.Errorf("reject says %d, want 201: both are being canceled", r.status)
		}
		w.faults()
		time.Sleep(time.Minute)
		if got = w.get(old.ID); got.Status != "CANCELED" || got.TriggerStatus != "CANCELED" {
			t.Errorf("mended, it is %s, want CANCELED", got.Status)
		}
		wantJSON(t, "its result", got.Result, replacedResult)
		if got := w.remoteRun(old.TriggerRunID).Status; got != "CANCELED" {
			t.Errorf("its run is %s, want CANCELED", got)
		}
	})
}

func TestAReplacedRunThatHadCompletedIsCompleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withoutWebhook())
		w.deafen(map[string]any{"match": map[string]any{"method": "GET"}, "kind": "status", "status": 503})
		old := w.triggerJob("echo", "tag", "same", "data", 7)
		time.Sleep(time.Second)
		if got := w.get(old.ID); got.Status != "PENDING" {
			t.Fatalf("sidejob has heard already: %s", got.Status)
		}
		fresh := w.triggerJob("echo", "tag", "same")
		w.faults()
		time.Sleep(time.Minute)
		got := w.get(old.ID)
		if got.Status != "COMPLETED" || string(got.Result) != "7" || got.Success == nil || !*got.Success {
			t.Errorf("it is %s with %s, want COMPLETED with its output", got.Status, got.Result)
		}
		if got := w.get(fresh.ID); got.Status != "COMPLETED" {
			t.Errorf("the new one is %s, want COMPLETED", got.Status)
		}
	})
}

func TestAReplacedJobThatWasNeverSentIsNeverRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.faults(submitFault("status", "status", 401))
		old := w.triggerJob("echo", "tag", "same")
		fresh := w.triggerJob("echo", "tag", "same")
		got := w.get(old.ID)
		if got.Status != "CANCELED" || got.TriggerStatus != "CANCELED" {
			t.Errorf("it is %s, want it CANCELED at once", got.Status)
		}
		wantJSON(t, "its result", got.Result, replacedResult)
		w.faults()
		time.Sleep(time.Minute)
		runs := w.remoteRuns()
		if len(runs) != 1 || runs[0].ID != w.get(fresh.ID).TriggerRunID {
			t.Errorf("Trigger.dev has runs %+v, want the new job's alone", runs)
		}
	})
}
