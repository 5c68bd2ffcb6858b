package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/emulator"
)

// everythingFault strikes every call of Trigger.dev's API.
func everythingFault(kind string, more ...any) map[string]any {
	f := submitFault(kind, more...)
	f["match"] = map[string]any{"path": "/"}
	return f
}

func (w *world) report(path string) Report {
	w.t.Helper()
	r := w.call("POST", path, nil)
	if r.status != 200 {
		w.t.Fatalf("%s: %d %s", path, r.status, r.body)
	}
	got := memberNames(w.t, r.body)
	for _, name := range []string{"totalJobs", "syncedJobs", "failedJobs", "orphanedJobs", "completedJobs", "errors", "dispatchedJobs", "skippedJobs", "remoteOrphans", "durationMs"} {
		if !slices.Contains(got, name) {
			w.t.Errorf("%s has the members %q, want %s among them", path, got, name)
		}
	}
	var report Report
	r.into(w.t, &report)
	report.DurationMs = 0
	return report
}

func wantReport(t *testing.T, what string, got, want Report) {
	t.Helper()
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	}
}

func TestReconcileReportsWhatItFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withoutWebhook(), longTask())
		w.deafen()
		none := []ReportError{}
		wantReport(t, "nothing to do", w.report("/api/reconcile"), Report{Errors: none})
		w.schedule(`{"type":"work"}`) // of no interest
		w.triggerJob("echo")
		w.triggerJob("long")
		w.triggerJob("long", "due", time.Now().Add(time.Hour))
		time.Sleep(400 * time.Millisecond)
		wantReport(t, "reconcile", w.report("/api/reconcile"), Report{TotalJobs: 3, CompletedJobs: 1, SyncedJobs: 2, Errors: none})
		for id, want := range map[int64]string{2: "COMPLETED", 3: "EXECUTING", 4: "PENDING"} {
			if got := w.get(id).Status; got != want {
				t.Errorf("job %d is %s, want %s", id, got, want)
			}
		}
		w.deafen(map[string]any{"match": map[string]any{"path": "/api/v3/runs/" + w.get(3).TriggerRunID}, "kind": "status", "status": 500})
		got := w.report("/api/sync")
		if len(got.Errors) != 1 || got.Errors[0].JobID != 3 || got.Errors[0].Error == "" {
			t.Errorf("errors are %+v, want one of job 3", got.Errors)
		}
		got.Errors = none
		wantReport(t, "sync", got, Report{TotalJobs: 2, FailedJobs: 1, SyncedJobs: 1, Errors: none})
		w.faults(submitFault("status", "status", 401))
		w.call("POST", "/api/jobs?waitMs=0", echoJob)
		synctest.Wait()
		w.faults()
		if got := w.report("/api/reconcile").DispatchedJobs; got != 1 || w.get(5).TriggerRunID == "" {
			t.Errorf("%d were dispatched and job 5 has run %q, want it handed over", got, w.get(5).TriggerRunID)
		}
		w.remote("POST", "/api/v1/tasks/long/trigger", map[string]any{"payload": 1, "options": map[string]any{"tags": []string{"sidejob:" + w.srv.store.Installation()}}})
		if got := w.report("/api/reconcile").RemoteOrphans; got != 1 {
			t.Errorf("%d remote orphans, want the run that no row has", got)
		}
	})
}

func TestARefusedKeyFailsAllAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, longTask())
		for range 5 {
			w.triggerJob("long", "due", time.Now().Add(time.Hour))
		}
		before := w.call("GET", "/api/jobs", nil)
		w.faults(everythingFault("status", "status", 401))
		got := w.report("/api/reconcile")
		if got.TotalJobs != 5 || got.FailedJobs != 5 || len(got.Errors) != 5 {
			t.Errorf("got %+v, want all five failed", got)
		}
		if after := w.call("GET", "/api/jobs", nil); string(after.body) != string(before.body) {
			t.Errorf("the rows were %s and are %s", before.body, after.body)
		}
	})
}

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := listWorld(t)
		w.faults(everythingFault("status", "status", 503))
		w.triggerJob("echo")
		w.call("POST", "/api/jobs/7/cancel?waitMs=0", nil)
		time.Sleep(8 * time.Second)
		r := w.call("GET", "/api/stats", nil)
		var s statsView
		r.into(t, &s)
		if got, want := memberOf(t, r.body, "jobs"), `{"internal":{"CANCELED":1,"COMPLETED":1,"EXECUTING":1,"FAILED":1,"PENDING":1},"trigger":{"CANCELED":1,"COMPLETED":1,"EXECUTING":1,"FAILED":1,"PENDING":2}}`; got != want {
			t.Errorf("jobs are %s, want %s", got, want)
		}
		if s.Outbox.Depth != 2 || s.Outbox.OldestMs != 10_000 || s.CancelsPending != 1 {
			t.Errorf("the outbox is %+v with %d cancels, want 2, 10 s old, with 1", s.Outbox, s.CancelsPending)
		}
		if s.SyncLagMs < 1000 || s.Trigger.State != "degraded" || !strings.Contains(s.Trigger.Reason, "503") || s.Version != version() || s.UptimeMs != 30_000 {
			t.Errorf("got %s, want a lag, degraded by 503, the version and 30 s", r.body)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withConfig(func(c *config) { c.triggerOn = false }))
		wantJSON(t, "trigger", []byte(memberOf(t, w.call("GET", "/api/stats", nil).body, "trigger")), `{"state":"off","reason":"Trigger.dev is switched off"}`)
	})
}

func TestReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		synctest.Wait()
		is := func(what, status string, notes ...string) {
			t.Helper()
			r := w.call("GET", "/readyz", nil)
			var got readyView
			r.into(t, &got)
			if r.status != 200 || got.Status != status || got.Notes == nil || (len(got.Notes) > 0) != (len(notes) > 0) {
				t.Errorf("%s: got %d %s, want 200, %s with notes of %q", what, r.status, r.body, status, notes)
			}
			contains(t, strings.Join(got.Notes, "\n"), notes...)
		}
		is("at rest", "ready")
		w.faults(everythingFault("status", "status", 503))
		w.batch(echoJob + "," + strings.Repeat(`{"type":"echo","executor":"trigger","triggerTaskId":"echo"},`, 2) + `{"type":"work"}`)
		time.Sleep(10 * time.Second)
		is("Trigger.dev down", "degraded", "Trigger.dev has not answered since 2000-01-01T00:00:00.000Z")
		w.faults()
		time.Sleep(time.Minute)
		is("mended", "ready")
		w.faults(everythingFault("status", "status", 401))
		w.triggerJob("echo")
		is("the key refused", "degraded", "Trigger.dev refuses the key")
		w.halt()
		w.faults(everythingFault("hang"))
		w.boot()
		is("at start", "degraded", "still reconciling")
		if r := w.call("GET", "/livez", nil); r.status != 200 || string(r.body) != `{"status":"ok"}`+"\n" {
			t.Errorf("livez: got %d %s", r.status, r.body)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withConfig(func(c *config) { c.triggerOn = false }))
		if r := w.call("GET", "/readyz", nil); !strings.HasPrefix(string(r.body), `{"status":"ready","notes":[],`) {
			t.Errorf("without Trigger.dev: got %s, want ready", r.body)
		}
	})
}

func TestJobsForATriggerDevThatIsOffAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.wait(w.triggerJob("echo").ID)
		w.halt()
		w.cfg.triggerOn = false
		w.boot()
		wantProblem(t, "schedule", w.call("POST", "/api/jobs", echoJob), 422, "trigger_off", "body.executor")
		wantProblem(t, "retry", w.call("POST", "/api/jobs/1/retry", nil), 422, "trigger_off", "executor")
		got := w.batch(echoJob + `,{"type":"work"}`)
		checkProblem(t, "batch", *got.Results[0].Problem, 422, "trigger_off", "body.executor")
		if n := w.countAll(); got.Results[1].Job == nil || n != 2 {
			t.Errorf("there are %d jobs, want the old one and the internal one", n)
		}
		wantReport(t, "reconcile", w.report("/api/reconcile"), Report{Errors: []ReportError{}})
	})
}

func TestMetricsAreReadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withTasks(map[string]emulator.Task{"odd": {Status: "MELTED"}}))
		w.triggerJob("odd")
		w.schedule(`{"type":"work"}`)
		w.call("BREW", "/api/jobs", nil)
		time.Sleep(time.Minute)
		r := w.call("GET", "/metrics", nil)
		if kind := r.header.Get("Content-Type"); r.status != 200 || !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
			t.Errorf("got %d as %s", r.status, kind)
		}
		line := regexp.MustCompile(`^([a-z_]+(?:\{[a-z]+="[^"\\\n]*"(?:,[a-z]+="[^"\\\n]*")*\})?) (-?[0-9.e+]+)$`)
		series := map[string]string{}
		for _, text := range strings.Split(strings.TrimSuffix(string(r.body), "\n"), "\n") {
			m := line.FindStringSubmatch(text)
			if m == nil {
				t.Errorf("%q is no sample", text)
				continue
			}
			if _, twice := series[m[1]]; twice || !strings.HasPrefix(m[1], "sidejob_") {
				t.Errorf("%s stands twice, or is not sidejob's", m[1])
			}
			series[m[1]] = m[2]
		}
		for name, want := range map[string]string{
			`sidejob_jobs{executor="internal",status="PENDING"}`:       "1",
			`sidejob_jobs{executor="trigger",status="EXECUTING"}`:      "1",
			`sidejob_jobs{executor="trigger",status="FAILED"}`:         "0",
			`sidejob_http_requests_total{method="POST",status="201"}`:  "2",
			`sidejob_http_requests_total{method="other",status="405"}`: "1",
			`sidejob_trigger_up`:     "1",
			`sidejob_outbox_depth`:   "0",
			`sidejob_uptime_seconds`: "60",
			fmt.Sprintf(`sidejob_build_info{version=%q}`, version()): "1",
		} {
			if series[name] != want {
				t.Errorf("%s is %q, want %s", name, series[name], want)
			}
		}
		if n := series["sidejob_unknown_status_total"]; n == "" || n == "0" {
			t.Errorf("sidejob_unknown_status_total is %q, want the word MELTED counted", n)
		}
		if strings.Contains(string(r.body), "BREW") || strings.Contains(string(r.body), "work") {
			t.Error("a caller's words stand in the metrics")
		}
	})
}

func TestEveryTimeIsShownAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.wait(w.triggerJob("echo").ID)
		shown := regexp.MustCompile(`^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"$`)
		body := w.call("GET", "/api/jobs/1", nil).body
		for _, name := range []string{"due", "started", "finished", "removeAt", "lastSyncedAt", "createdAt", "updatedAt"} {
			if got := memberOf(t, body, name); !shown.MatchString(got) {
				t.Errorf("%s is %s, want RFC 3339 in UTC with milliseconds", name, got)
			}
		}
		var history struct{ Events []json.RawMessage }
		w.call("GET", "/api/jobs/1/events", nil).into(t, &history)
		for _, event := range history.Events {
			if got := memberOf(t, event, "at"); !shown.MatchString(got) {
				t.Errorf("an event is at %s", got)
			}
		}
	})
}
