package main

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestAnInternalJobIsCanceledAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.schedule(`{"type":"work"}`)
		w.schedule(`{"type":"work"}`)
		w.workerTakes(2)
		for id, state := range map[int64]string{1: "waiting", 2: "leased"} {
			r := w.call("POST", fmt.Sprintf("/api/jobs/%d/cancel", id), nil)
			if got := w.view(r); r.status != 200 || got.Status != "CANCELED" || !got.CancelRequested || got.Finished.IsZero() {
				t.Errorf("%s: got %d %s, want 200, CANCELED", state, r.status, r.body)
			}
			wantJSON(t, state+" result", w.get(id).Result, `{"canceled":true}`)
		}
	})
}

func TestARunIsCanceledThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, longTask())
		queued := w.triggerJob("long", "due", time.Now().Add(time.Hour))
		running := w.triggerJob("long")
		time.Sleep(10 * time.Second)
		for _, j := range []seenJob{queued, running} {
			r := w.call("POST", fmt.Sprintf("/api/jobs/%d/cancel", j.ID), nil)
			if got := w.view(r); r.status != 200 || got.Status != "CANCELED" || got.TriggerStatus != "CANCELED" {
				t.Errorf("got %d %s, want 200, CANCELED", r.status, r.body)
			}
			if got := w.remoteRun(j.TriggerRunID).Status; got != "CANCELED" {
				t.Errorf("its run is %s, want CANCELED", got)
			}
		}
	})
}

func TestACancelGoesOnUntilTriggerDevConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, longTask())
		j := w.triggerJob("long")
		w.faults(cancelFault("status", "status", 500))
		for _, c := range []struct {
			query string
			took  time.Duration
		}{{"", 2 * time.Second}, {"?waitMs=0", 0}, {"?waitMs=700", 700 * time.Millisecond}, {"?waitMs=10000", 10 * time.Second}} {
			begun := time.Now()
			r := w.call("POST", "/api/jobs/1/cancel"+c.query, nil)
			got := w.view(r)
			if took := time.Since(begun); r.status != 202 || !got.CancelRequested || got.Success != nil || took != c.took {
				t.Errorf("%q: got %d %s after %s, want 202 and cancelRequested after %s", c.query, r.status, r.body, took, c.took)
			}
		}
		w.faults()
		done := w.wait(j.ID)
		if done.Status != "CANCELED" || w.remoteRun(j.TriggerRunID).Status != "CANCELED" {
			t.Errorf("mended, it is %s and its run %s, want CANCELED", done.Status, w.remoteRun(j.TriggerRunID).Status)
		}
		cancels := 0
		for _, line := range w.history(1) {
			if line == "cancel api > running canceling" || line == "cancel api > queued canceling" {
				cancels++
			}
		}
		if cancels != 1 {
			t.Errorf("the history is %q, want one cancel however often it is asked for", w.history(1))
		}
	})
}

func TestACancelWaitsForTriggerDev(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, longTask())
		w.triggerJob("long")
		w.faults(cancelFault("delay", "delayMs", 1500))
		begun := time.Now()
		r := w.call("POST", "/api/jobs/1/cancel", nil)
		if took := time.Since(begun); r.status != 200 || w.view(r).Status != "CANCELED" || took != 1500*time.Millisecond {
			t.Errorf("got %d %s after %s, want 200, CANCELED after 1.5s", r.status, r.body, took)
		}
	})
}

func TestAJobThatWasNeverSentIsCanceledAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.faults(submitFault("status", "status", 403))
		w.triggerJob("echo")
		begun := time.Now()
		r := w.call("POST", "/api/jobs/1/cancel", nil)
		if got := w.view(r); r.status != 200 || got.Status != "CANCELED" || got.TriggerStatus != "CANCELED" || time.Since(begun) != 0 {
			t.Errorf("got %d %s after %s, want 200, CANCELED at once", r.status, r.body, time.Since(begun))
		}
		w.faults()
		time.Sleep(time.Minute)
		if runs := w.remoteRuns(); len(runs) != 0 {
			t.Errorf("Trigger.dev has runs %+v, want none", runs)
		}
	})
}

func TestACancelDuringASubmitInDoubtLeavesNoRunBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, longTask())
		for n, kind := range []string{"hang", "dropReply", "reset"} {
			w.faults(submitFault(kind))
			w.call("POST", "/api/jobs?waitMs=0", `{"type":"long","executor":"trigger","triggerTaskId":"long"}`)
			time.Sleep(100 * time.Millisecond)
			path := fmt.Sprintf("/api/jobs/%d", n+1)
			if r := w.call("POST", path+"/cancel?waitMs=0", nil); r.status != 202 {
				t.Errorf("%s: got %d %s, want 202: the submit may have arrived", kind, r.status, r.body)
			}
			time.Sleep(10 * time.Second)
			w.faults()
			if got := w.view(w.call("GET", path+"?waitMs=60000", nil)); got.Status != "CANCELED" {
				t.Errorf("%s: it is %s, want CANCELED", kind, got.Status)
			}
			for _, run := range w.remoteRuns() {
				if run.Status != "CANCELED" {
					t.Errorf("%s: run %s is %s, want every run CANCELED", kind, run.ID, run.Status)
				}
			}
		}
	})
}

func TestAFinalJobIsReturnedUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, refusing(422, "no"))
		w.schedule(`{"type":"work"}`)
		w.workerTakes(1)
		w.workerEnds(1, `{"n":1}`)
		w.schedule(`{"type":"work"}`)
		w.workerTakes(2)
		w.workerGivesUp(2, `"no"`)
		w.call("POST", "/api/jobs", echoJob)
		time.Sleep(time.Minute)
		for id := range int64(3) {
			path := fmt.Sprintf("/api/jobs/%d", id+1)
			before := w.call("GET", path, nil)
			r := w.call("POST", path+"/cancel", nil)
			if r.status != 200 || string(r.body) != string(before.body) {
				t.Errorf("got %d %s, want 200 and it unchanged: %s", r.status, r.body, before.body)
			}
			if after := w.call("GET", path, nil); string(after.body) != string(before.body) {
				t.Errorf("it was %s and is %s", before.body, after.body)
			}
		}
		wantProblem(t, "no such job", w.call("POST", "/api/jobs/99/cancel", nil), 404, "not_found")
	})
}

func TestARunThatHadCompletedBeforeTheCancelStaysCompleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withoutWebhook())
		w.deafen()
		w.triggerJob("echo", "data", "done")
		time.Sleep(time.Second)
		if got := w.get(1).Status; got != "PENDING" {
			t.Fatalf("sidejob has heard already: %s", got)
		}
		r := w.call("POST", "/api/jobs/1/cancel", nil)
		if got := w.view(r); r.status != 200 || got.Status != "COMPLETED" || string(got.Result) != `"done"` || got.Success == nil || !*got.Success {
			t.Errorf("got %d %s, want 200, COMPLETED with its output", r.status, r.body)
		}
	})
}

func TestRetryMakesANewJobFromAFinalOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		old := w.wait(w.triggerJob("echo", "tag", "t", "data", []int{1}, "userId", 5, "labels", []string{"x"}, "metadata", map[string]any{"a": "b"},
			"removeDelay", 5000, "persistent", true, "retryConfig", map[string]any{"maxAttempts": 2}).ID)
		r := w.call("POST", "/api/jobs/1/retry", nil)
		got := w.view(r)
		if r.status != 201 || r.header.Get("Location") != "/api/jobs/2" || got.ID != 2 || got.RescheduledFromJob != 1 {
			t.Errorf("got %d %s, want 201, job 2 from job 1", r.status, r.body)
		}
		if got.Status != "PENDING" || got.TriggerRunID == "" || got.TriggerRunID == old.TriggerRunID || got.Attempt != 0 {
			t.Errorf("it is %s with run %q, want PENDING with a run of its own", got.Status, got.TriggerRunID)
		}
		before := w.call("GET", "/api/jobs/1", nil).body
		for _, name := range []string{"tag", "type", "userId", "data", "executor", "triggerTaskId", "labels", "metadata", "removeDelay", "persistent", "retryConfig"} {
			if is, was := memberOf(t, r.body, name), memberOf(t, before, name); is != was {
				t.Errorf("%s is %s, want %s as before", name, is, was)
			}
		}
		if done := w.wait(2); done.Status != "COMPLETED" {
			t.Errorf("it ends %s, want COMPLETED", done.Status)
		}
	})
}

func TestRetryOfAJobThatHasNotEndedIsAConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.schedule(`{"type":"work"}`)
		wantProblem(t, "pending", w.call("POST", "/api/jobs/1/retry", nil), 409, "conflict")
		w.workerTakes(1)
		wantProblem(t, "running", w.call("POST", "/api/jobs/1/retry", nil), 409, "conflict")
		wantProblem(t, "no such job", w.call("POST", "/api/jobs/9/retry", nil), 404, "not_found")
		if n := w.countAll(); n != 1 {
			t.Errorf("there are %d jobs, want 1", n)
		}
		w.workerGivesUp(1, `"no"`)
		if r := w.call("POST", "/api/jobs/1/retry", nil); r.status != 201 || w.view(r).Status != "PENDING" {
			t.Errorf("a failed one: got %d %s, want 201, PENDING", r.status, r.body)
		}
	})
}

func TestRetryWaitsForTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.wait(w.triggerJob("echo").ID)
		w.faults(submitFault("delay", "delayMs", 1000))
		for query, want := range map[string]time.Duration{"": time.Second, "?waitMs=0": 0, "?waitMs=10": 10 * time.Millisecond} {
			begun := time.Now()
			r := w.call("POST", "/api/jobs/1/retry"+query, nil)
			if took := time.Since(begun); r.status != 201 || took != want {
				t.Errorf("%q: got %d after %s, want 201 after %s", query, r.status, took, want)
			}
		}
		time.Sleep(time.Minute)
		if got := w.get(2).RescheduledFromJob; got != 1 {
			t.Errorf("job 2 follows %d, want 1", got)
		}
	})
}

func TestCleanupRemovesWhatIsPastButNotTheExcluded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for id, more := range []string{`"removeDelay":60000`, `"removeDelay":60000,"persistent":true`, `"removeDelay":60000`, `"removeDelay":-1`, ``, `"removeDelay":60000`} {
			w.schedule(`{"type":"work","labels":[]` + map[bool]string{true: "", false: ","}[more == ""] + more + `}`)
			if id == 5 {
				continue // not finished
			}
			w.workerTakes(int64(id) + 1)
			w.workerEnds(int64(id)+1, `1`)
		}
		for _, c := range []struct {
			wait      time.Duration
			body      any
			removed   string
			remaining []int64
		}{
			{0, nil, "1", []int64{6, 5, 3, 2, 1}}, // the one whose time was past from the first
			{time.Minute, `{"exclude":[3]}`, "1", []int64{6, 5, 3, 2}},
			{0, `{"exclude":[3,99]}`, "0", []int64{6, 5, 3, 2}},
			{0, `{}`, "1", []int64{6, 5, 2}},
			{0, `{"exclude":[]}`, "0", []int64{6, 5, 2}},
		} {
			time.Sleep(c.wait)
			r := w.call("POST", "/api/jobs/cleanup", c.body)
			if r.status != 200 || memberOf(t, r.body, "removed") != c.removed {
				t.Errorf("%v: got %d %s, want %s removed", c.body, r.status, r.body, c.removed)
			}
			var page struct{ Jobs []seenJob }
			w.call("GET", "/api/jobs", nil).into(t, &page)
			var left []int64
			for _, j := range page.Jobs {
				left = append(left, j.ID)
			}
			if !slices.Equal(left, c.remaining) {
				t.Errorf("%v: jobs %d are left, want %d", c.body, left, c.remaining)
			}
		}
		wantProblem(t, "its history", w.call("GET", "/api/jobs/1/events", nil), 404, "not_found")
	})
}
