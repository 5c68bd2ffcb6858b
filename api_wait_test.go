package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/emulator"
)

const echoJob = `{"type":"echo","executor":"trigger","triggerTaskId":"echo","tag":"e"}`

// submitFault strikes the calls that make runs.
func submitFault(kind string, more ...any) map[string]any {
	f := map[string]any{"match": map[string]any{"method": "POST", "path": "/api/v1/tasks/"}, "kind": kind}
	for i := 0; i+1 < len(more); i += 2 {
		f[more[i].(string)] = more[i+1]
	}
	return f
}

// deafen starts the server anew before a Trigger.dev whose stream of news is broken,
// as are the calls that more says; none of more mends those.
func (w *world) deafen(more ...map[string]any) {
	w.t.Helper()
	w.halt()
	w.faults(append([]map[string]any{{"match": map[string]any{"path": "/realtime/"}, "kind": "status", "status": 500}}, more...)...)
	w.boot()
}

// roundTrip is a function that carries requests.
type roundTrip func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// refusing answers every submit as Trigger.dev answers one that it will never take.
func refusing(status int, message string) worldOption {
	return withConfig(func(c *config) {
		next := c.transport
		c.transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			if !strings.HasSuffix(r.URL.Path, "/trigger") {
				return next.RoundTrip(r)
			}
			body, _ := json.Marshal(map[string]string{"error": message})
			return &http.Response{
				StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(strings.NewReader(string(body))), Request: r,
			}, nil
		})
	})
}

func TestTheReplyWaitsForTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, c := range []struct {
			query  string
			delay  int // of Trigger.dev, ms
			took   time.Duration
			hasRun bool
		}{
			{"", 1500, 1500 * time.Millisecond, true},
			{"", 2500, 2 * time.Second, false},
			{"?waitMs=2000", 2500, 2 * time.Second, false},
			{"?waitMs=0", 100, 0, false},
			{"?waitMs=1", 100, time.Millisecond, false},
			{"?waitMs=10000", 9000, 9 * time.Second, true},
			{"?waitMs=10000", 11000, 10 * time.Second, false},
		} {
			w.faults(submitFault("delay", "delayMs", c.delay))
			begun := time.Now()
			r := w.call("POST", "/api/jobs"+c.query, `{"type":"echo","executor":"trigger","triggerTaskId":"echo"}`)
			if took, has := time.Since(begun), w.view(r).TriggerRunID != ""; r.status != 201 || took != c.took || has != c.hasRun {
				t.Errorf("%q with a Trigger.dev of %d ms: got %d after %s, run %t; want 201 after %s, run %t",
					c.query, c.delay, r.status, took, has, c.took, c.hasRun)
			}
			w.faults()
			time.Sleep(20 * time.Second)
			if got := w.get(w.view(r).ID); got.Status != "COMPLETED" {
				t.Errorf("%q: a minute later it is %s, want COMPLETED", c.query, got.Status)
			}
		}
		begun := time.Now()
		if w.call("POST", "/api/jobs?waitMs=10000", `{"type":"work"}`); time.Since(begun) != 0 {
			t.Errorf("an internal job waits %s, want not at all", time.Since(begun))
		}
	})
}

func TestATriggerDevThatIsDownNeverFailsARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for n, fault := range []map[string]any{
			submitFault("reset"), submitFault("hang"), submitFault("garbage"), submitFault("truncate"), submitFault("redirect"),
			submitFault("status", "status", 503), submitFault("status", "status", 429, "delayMs", 5000),
			submitFault("status", "status", 401), submitFault("dropReply", "times", 1),
		} {
			w.faults(fault)
			begun := time.Now()
			r := w.call("POST", "/api/jobs", echoJob)
			j, took := w.view(r), time.Since(begun)
			// Where the submit arrived, the second try has found its run by now.
			arrived := fault["kind"] == "dropReply" || fault["kind"] == "truncate"
			if r.status != 201 || j.ID != int64(n)+1 || took > 2*time.Second || !arrived && (j.Status != "PENDING" || took < 2*time.Second) {
				t.Errorf("%v: got %d %s after %s, want 201, PENDING after 2s", fault, r.status, r.body, took)
			}
			if !arrived && j.TriggerRunID != "" {
				t.Errorf("%v: the job has run %s", fault, j.TriggerRunID)
			}
			if !arrived && fault["kind"] != "hang" && j.Error == "" {
				t.Errorf("%v: the reply says nothing of why there is no run", fault)
			}
			time.Sleep(10 * time.Second)
			w.faults()
			time.Sleep(30 * time.Second)
			if done := w.get(j.ID); done.Status != "COMPLETED" || done.Error != "" {
				t.Errorf("%v: mended, the job is %s with error %q, want COMPLETED", fault, done.Status, done.Error)
			}
			if runs := w.remoteRuns(); len(runs) != n+1 {
				t.Errorf("%v: there are %d runs, want one more than the %d before", fault, len(runs), n)
			}
		}
	})
}

func TestARefusalForGoodFailsTheJob(t *testing.T) {
	for status, message := range map[int]string{
		400: `Validation error: Expected number, received string at "options.maxAttempts"`,
		413: "Request body too large",
		422: "Task locked to version '20260101.1', but no worker found with that version.",
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, refusing(status, message))
			r := w.call("POST", "/api/jobs", echoJob)
			p := wantProblem(t, message, r, 422, "trigger_refused")
			if p.ID != 1 {
				t.Errorf("%d: the problem carries job %d, want 1", status, p.ID)
			}
			contains(t, p.Detail, message)
			j := w.get(1)
			if j.Status != "FAILED" || j.TriggerStatus != "FAILED" || j.Finished.IsZero() || j.Success == nil || *j.Success {
				t.Errorf("%d: the row is %+v, want it FAILED", status, j)
			}
			var result struct {
				Error   string
				Details struct {
					Status  int
					Message string
				}
			}
			if err := json.Unmarshal(j.Result, &result); err != nil {
				t.Fatal(err)
			}
			if result.Error != "Failed to schedule on Trigger.dev" || result.Details.Status != status || result.Details.Message != message {
				t.Errorf("%d: the result is %s", status, j.Result)
			}
			late := w.call("POST", "/api/jobs?waitMs=0", echoJob)
			if late.status != 201 || w.view(late).Status != "PENDING" {
				t.Errorf("%d: without waiting, got %d %s, want 201, PENDING", status, late.status, late.body)
			}
			time.Sleep(2 * time.Minute)
			if got := w.get(2).Status; got != "FAILED" {
				t.Errorf("%d: later that job is %s, want FAILED", status, got)
			}
			if want := []string{"created api > unsent", "refused submit > failed"}; !slices.Equal(w.history(2), want) {
				t.Errorf("%d: the history is %q, want %q: no second try", status, w.history(2), want)
			}
		})
	}
}

func TestATaskThatCannotStandInAPathIsRefusedForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.call("POST", "/api/jobs", `{"type":"x","executor":"trigger","triggerTaskId":".."}`)
		if p := wantProblem(t, "task ..", r, 422, "trigger_refused"); w.get(p.ID).Status != "FAILED" {
			t.Errorf("the row is %s, want FAILED", w.get(p.ID).Status)
		}
		if done := w.wait(w.triggerJob("a/../b?c#d é").ID); done.Status != "COMPLETED" {
			t.Errorf("an odd task ends %s, want COMPLETED", done.Status)
		}
	})
}

func TestGetWaitsUntilTheJobHasFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withTasks(map[string]emulator.Task{"long": {DurationMs: 30_000}}))
		j := w.triggerJob("long")
		path := "/api/jobs/1"
		for _, c := range []struct {
			query string
			took  time.Duration
		}{{"", 0}, {"?waitMs=0", 0}, {"?waitMs=1500", 1500 * time.Millisecond}} {
			begun := time.Now()
			r := w.call("GET", path+c.query, nil)
			if took := time.Since(begun); r.status != 200 || took != c.took || w.view(r).Success != nil {
				t.Errorf("%q: got %d after %s, want the unfinished job after %s", c.query, r.status, took, c.took)
			}
		}
		done := w.view(w.call("GET", path+"?waitMs=60000", nil))
		if done.Status != "COMPLETED" || time.Since(j.CreatedAt) > 35*time.Second {
			t.Errorf("it is %s after %s, want COMPLETED when it ends", done.Status, time.Since(j.CreatedAt))
		}
		begun := time.Now()
		w.call("GET", path+"?waitMs=60000", nil)
		if took := time.Since(begun); took != 0 {
			t.Errorf("a finished job is waited for %s", took)
		}
		wantProblem(t, "no such job", w.call("GET", "/api/jobs/99?waitMs=60000", nil), 404, "not_found")
	})
}

func TestManyWaitForOneJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.schedule(`{"type":"work"}`)
		w.workerTakes(1)
		ended := make(chan string, 20)
		for range cap(ended) {
			go func() { ended <- w.view(w.call("GET", "/api/jobs/1?waitMs=60000", nil)).Status }()
		}
		synctest.Wait()
		w.workerEnds(1, `1`)
		synctest.Wait()
		if len(ended) != cap(ended) {
			t.Fatalf("%d of %d were told at once", len(ended), cap(ended))
		}
		for range cap(ended) {
			if got := <-ended; got != "COMPLETED" {
				t.Errorf("got %s, want COMPLETED", got)
			}
		}
	})
}

func TestACallerThatLeavesIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.faults(submitFault("hang"))
		for _, c := range [][2]string{{"POST", "/api/jobs?waitMs=10000"}, {"GET", "/api/jobs/1?waitMs=60000"}, {"POST", "/api/jobs/1/cancel?waitMs=10000"}} {
			ctx, leave := context.WithCancel(t.Context())
			r := httptest.NewRequestWithContext(ctx, c[0], c[1], strings.NewReader(echoJob))
			r.Host = "localhost"
			r.Header.Set("Content-Type", "application/json")
			begun := time.Now()
			time.AfterFunc(time.Second, leave)
			w.srv.private.ServeHTTP(httptest.NewRecorder(), r)
			if took := time.Since(begun); took > time.Second {
				t.Errorf("%s %s goes on for %s after its caller has left", c[0], c[1], took-time.Second)
			}
		}
		if got := w.countAll(); got != 1 {
			t.Errorf("there are %d jobs, want the one that was committed", got)
		}
	})
}

func TestLongPollsEndWhenDrainingBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.faults(submitFault("hang"))
		w.call("POST", "/api/jobs?waitMs=0", echoJob)
		time.Sleep(100 * time.Millisecond) // its submit is under way
		w.schedule(`{"type":"work"}`)
		answers := map[string]chan answer{}
		for _, c := range []string{"GET /api/jobs/1?waitMs=60000", "GET /api/jobs/2?waitMs=60000", "POST /api/jobs/1/cancel?waitMs=10000", "POST /api/jobs?waitMs=10000"} {
			method, path, _ := strings.Cut(c, " ")
			replied := make(chan answer, 1)
			answers[c] = replied
			var body any
			if strings.HasPrefix(path, "/api/jobs?") {
				body = `{"type":"echo","executor":"trigger","triggerTaskId":"echo"}`
			}
			go func() { replied <- w.call(method, path, body) }()
		}
		time.Sleep(500 * time.Millisecond)
		w.srv.drain()
		synctest.Wait()
		want := map[string]int{"GET /api/jobs/1?waitMs=60000": 200, "GET /api/jobs/2?waitMs=60000": 200, "POST /api/jobs/1/cancel?waitMs=10000": 202, "POST /api/jobs?waitMs=10000": 201}
		for c, got := range answers {
			select {
			case r := <-got:
				if r.status != want[c] {
					t.Errorf("%s: got %d %s, want %d", c, r.status, r.body, want[c])
				}
			default:
				t.Errorf("%s still waits", c)
			}
		}
		begun := time.Now()
		w.call("GET", "/api/jobs/2?waitMs=60000", nil)
		if wait := time.Since(begun); wait != 0 {
			t.Errorf("a wait begun while draining lasted %s, want none", wait)
		}
	})
}

// deadlines is a connection that notes until when it may be read from.
type deadlines struct {
	http.ResponseWriter
	set []time.Time
}

// SetReadDeadline implements what http.ResponseController asks for.
func (d *deadlines) SetReadDeadline(at time.Time) error {
	d.set = append(d.set, at)
	return nil
}

// TestNoDeadlineCutsAWaitShort: net/http ends the context of a request when it can
// read no more from the connection, and with it every wait.
func TestNoDeadlineCutsAWaitShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, path := range []string{"/api/jobs", "/api/jobs/1/cancel", "/api/jobs/1/retry", "/api/reconcile"} {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(`{"type":"work"}`))
			r.Host = "localhost"
			r.Header.Set("Content-Type", "application/json")
			conn := &deadlines{ResponseWriter: httptest.NewRecorder()}
			w.srv.private.ServeHTTP(conn, r)
			for _, at := range conn.set {
				if !at.IsZero() {
					t.Errorf("%s: the connection may be read until %s only, want no deadline", path, at)
				}
			}
		}
	})
}
