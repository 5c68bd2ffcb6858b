package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/emulator"
)

// scene is a world whose two ways can be watched and cut: out leads from sidejob to
// Trigger.dev, in from there to sidejob's webhook.
type scene struct {
	*world
	out, in *wire
}

func newScene(t *testing.T, options ...worldOption) *scene {
	t.Helper()
	return setScene(t, &scene{out: &wire{}, in: &wire{}}, options)
}

// newQuietScene is one without events, whose realtime stream brings nothing: all
// that sidejob learns it has asked for.
func newQuietScene(t *testing.T, options ...worldOption) *scene {
	t.Helper()
	return setScene(t, &scene{out: &wire{mute: true}, in: &wire{}}, append(options, withoutWebhook()))
}

func setScene(t *testing.T, s *scene, options []worldOption) *scene {
	t.Helper()
	s.in.cut(errNoRoute)
	s.world = newWorld(t, append(options, func(w *world) {
		s.out.to, w.cfg.transport = w.cfg.transport, s.out
		w.mock.Client = &http.Client{Transport: s.in}
	})...)
	t.Cleanup(func() { s.in.cut(errNoRoute) })
	s.open()
	return s
}

// open lets events in to the server that runs now.
func (s *scene) open() {
	handler := s.srv.private
	s.in.mu.Lock()
	s.in.to = inProcess(func() http.Handler { return handler })
	s.in.mu.Unlock()
	s.in.cut(nil)
}

// down shuts sidejob down in good order; up starts it again.
func (s *scene) down() {
	s.t.Helper()
	s.in.cut(errNoRoute)
	s.halt()
}

func (s *scene) up() {
	s.t.Helper()
	s.boot()
	s.open()
}

// crash kills sidejob as it stands, and starts what it left on disk.
func (s *scene) crash() {
	s.t.Helper()
	s.kill()
	s.up()
}

// kill leaves on disk what stands there. The rest of the old life happens where
// nobody sees it.
func (s *scene) kill() {
	s.t.Helper()
	synctest.Wait()
	s.in.cut(errNoRoute)
	before := s.out.cut(errNoRoute)
	s.cfg.database = s.engine.crash(s.t, s.cfg.database, s.halt)
	s.out.cut(before)
}

// What a way that is cut says: that nothing was sent, or that nobody knows.
var (
	errNoRoute = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("no route to host")}
	errBroken  = errors.New("connection reset by peer")
)

// wire carries requests and remembers them.
type wire struct {
	mu     sync.Mutex
	to     http.RoundTripper
	broken error
	tap    tap
	mute   bool // the stream of all runs hangs
	sent   []sentCall
}

// tap stands in the middle of a wire; pass carries the request on.
type tap func(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error)

// sentCall is one request as it left.
type sentCall struct {
	at           time.Time
	method, path string
	query        url.Values
	header       http.Header
	body         []byte
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.mute && strings.HasPrefix(r.URL.Query().Get("tags"), "sidejob:") {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	call := sentCall{at: time.Now(), method: r.Method, path: r.URL.Path, query: r.URL.Query(), header: r.Header.Clone()}
	onward := r.Clone(r.Context())
	if r.Body != nil {
		call.body = spareBody(onward)
	}
	w.mu.Lock()
	w.sent = append(w.sent, call)
	to, broken, tapped := w.to, w.broken, w.tap
	w.mu.Unlock()
	pass := func() (*http.Response, error) {
		if broken != nil {
			return nil, broken
		}
		return sized(to.RoundTrip(onward))
	}
	if tapped == nil {
		return pass()
	}
	return tapped(onward, pass)
}

// spareBody reads a request's body and leaves it unread.
func spareBody(r *http.Request) []byte {
	body, _ := io.ReadAll(r.Body) // it is in memory
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body
}

// sized reads the length off the header, as a real transport does.
func sized(res *http.Response, err error) (*http.Response, error) {
	if err != nil {
		return nil, err
	}
	if n, err := strconv.ParseInt(res.Header.Get("Content-Length"), 10, 64); err == nil {
		res.ContentLength = n
	}
	return res, nil
}

// cut breaks the wire, nil mends it, and tells how it was before.
func (w *wire) cut(with error) (before error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, w.broken = w.broken, with
	return before
}

// tapWith puts a tap on the wire; nil takes it off.
func (w *wire) tapWith(do tap) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tap = do
}

// forget forgets the requests so far.
func (w *wire) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = nil
}

// calls are the requests so far whose method and path fit; empty is any, a path is
// a prefix.
func (w *wire) calls(method, path string) []sentCall {
	w.mu.Lock()
	defer w.mu.Unlock()
	var fit []sentCall
	for _, call := range w.sent {
		if (method == "" || call.method == method) && strings.HasPrefix(call.path, path) {
			fit = append(fit, call)
		}
	}
	return fit
}

const (
	submitPath   = "/api/v1/tasks/"
	retrievePath = "/api/v3/runs/"
	cancelPath   = "/api/v2/runs/"
	listPath     = "/api/v1/runs"
	streamPath   = "/realtime/v1/runs"
)

// sceneTasks are tasks of all kinds: quick, slow, failing, staying.
func sceneTasks() map[string]emulator.Task {
	return map[string]emulator.Task{
		"ok":        {DurationMs: 500, Output: json.RawMessage(`{"ok":true}`)},
		"bad":       {DurationMs: 100, Status: "FAILED", Error: &emulator.TaskError{Name: "Error", Message: "no good", StackTrace: "Error: no good\n    at run"}},
		"flaky":     {DurationMs: 300, FailAttempts: 1, Output: json.RawMessage(`2`)},
		"crashes":   {DurationMs: 200, Status: "CRASHED"},
		"minute":    {DurationMs: 60_000, Output: json.RawMessage(`"done"`)},
		"half-hour": {DurationMs: 1_800_000, Output: json.RawMessage(`null`)},
		"stays":     {Status: "EXECUTING"},
		"queues":    {Status: "QUEUED"},
		"dequeues":  {Status: "DEQUEUED"},
	}
}

// fault is one fault of the emulator.
func fault(method, path, kind string, more ...any) map[string]any {
	f := map[string]any{"match": map[string]any{"method": method, "path": path}, "kind": kind}
	for i := 0; i+1 < len(more); i += 2 {
		f[more[i].(string)] = more[i+1]
	}
	return f
}

// remoteRow is a run as the emulator's own control shows it.
type remoteRow struct {
	ID, Status, TaskIdentifier, IdempotencyKey string
	Tags                                       []string
	Output                                     json.RawMessage
	Error                                      json.RawMessage
	AttemptCount                               int
	StartedAt, FinishedAt, UpdatedAt           time.Time
}

// truth is every run that the emulator has.
func (s *scene) truth() []remoteRow {
	s.t.Helper()
	var body struct{ Runs []remoteRow }
	callHandler(s.t, s.emu, "GET", "/emulator/runs", nil).into(s.t, &body)
	return body.Runs
}

// rows is every job of Trigger.dev, oldest first.
func (s *scene) rows() []seenJob {
	s.t.Helper()
	return s.list("executor=trigger")
}

// list is every job that a filter lets through, oldest first.
func (w *world) list(filter string) []seenJob {
	w.t.Helper()
	var all []seenJob
	for cursor := ""; ; {
		path := "/api/jobs?limit=200&" + filter
		if cursor != "" {
			path += "&cursor=" + url.QueryEscape(cursor)
		}
		var page struct {
			Jobs       []seenJob
			NextCursor string
		}
		w.call("GET", path, nil).into(w.t, &page)
		all = append(all, page.Jobs...)
		if cursor = page.NextCursor; cursor == "" {
			slices.Reverse(all)
			return all
		}
	}
}

// wantTruth holds every row against Trigger.dev: each has one run and says what the
// run says, and there is no other run. A job that never got a run was canceled
// before. Rows that have been removed by now are named.
func (s *scene) wantTruth(removed ...int64) {
	s.t.Helper()
	byRow, owner := map[string][]remoteRow{}, map[string]int64{}
	for _, run := range s.truth() {
		for _, tag := range run.Tags {
			if id, ok := strings.CutPrefix(tag, "db-id:"); ok {
				byRow[id] = append(byRow[id], run)
			}
		}
	}
	for _, j := range s.rows() {
		runs := byRow[fmt.Sprint(j.ID)]
		delete(byRow, fmt.Sprint(j.ID))
		if first, taken := owner[j.TriggerRunID]; taken && j.TriggerRunID != "" {
			s.t.Errorf("jobs %d and %d have one run", first, j.ID)
		}
		owner[j.TriggerRunID] = j.ID
		switch {
		case len(runs) == 0 && j.TriggerRunID == "" && j.Status == "CANCELED":
		case len(runs) != 1 || runs[0].ID != j.TriggerRunID:
			s.t.Errorf("job %d (%s, run %q) has %d runs on Trigger.dev; history %q", j.ID, j.Status, j.TriggerRunID, len(runs), s.history(j.ID))
		default:
			s.wantAgrees(j, runs[0])
		}
	}
	for _, id := range removed {
		delete(byRow, fmt.Sprint(id))
	}
	for id, runs := range byRow {
		s.t.Errorf("no row %s has the %d runs that name it", id, len(runs))
	}
}

// wantAgrees holds a row against its run, by the table of the contract.
func (s *scene) wantAgrees(j seenJob, run remoteRow) {
	s.t.Helper()
	want := tableStatus(run.Status)
	if j.TriggerStatus != want || j.Status != want {
		s.t.Errorf("job %d is %s, its run %s; want %s; history %q", j.ID, j.Status, run.Status, want, s.history(j.ID))
		return
	}
	final := want == "COMPLETED" || want == "FAILED" || want == "CANCELED"
	if j.Finished.IsZero() == final || (j.Success != nil) != final || final && *j.Success != (want == "COMPLETED") {
		s.t.Errorf("job %d is %s but finished %s, success %v", j.ID, j.Status, j.Finished, j.Success)
	}
	if j.Error != "" {
		s.t.Errorf("job %d still shows the error %q", j.ID, j.Error)
	}
	if !final {
		return
	}
	if j.TriggerRawStatus != run.Status || j.Attempt != run.AttemptCount {
		s.t.Errorf("job %d says %s after %d attempts, its run %s after %d", j.ID, j.TriggerRawStatus, j.Attempt, run.Status, run.AttemptCount)
	}
	switch want {
	case "COMPLETED":
		sameMeaning(s.t, fmt.Sprint("result of job ", j.ID), j.Result, orNull(run.Output))
	case "CANCELED":
		var result struct{ Canceled bool }
		if json.Unmarshal(j.Result, &result) != nil || !result.Canceled {
			s.t.Errorf("the result of canceled job %d is %s", j.ID, j.Result)
		}
	case "FAILED":
		if run.Status != "EXPIRED" {
			sameMeaning(s.t, fmt.Sprint("result of job ", j.ID), j.Result,
				fmt.Appendf(nil, `{"error":%s,"reason":%q,"attemptCount":%d}`, orNull(run.Error), run.Status, run.AttemptCount))
		}
	}
}

// tableStatus is the contract's table of statuses.
func tableStatus(raw string) string {
	switch raw {
	case "DELAYED", "PENDING_VERSION", "QUEUED", "DEQUEUED", "WAITING_FOR_DEPLOY":
		return "PENDING"
	case "EXECUTING", "WAITING", "REATTEMPTING", "FROZEN":
		return "EXECUTING"
	case "COMPLETED", "CANCELED":
		return raw
	case "FAILED", "CRASHED", "TIMED_OUT", "SYSTEM_FAILURE", "INTERRUPTED", "EXPIRED":
		return "FAILED"
	}
	return "unknown " + raw
}

// sameMeaning compares two JSON texts by what they mean; numbers to the digit.
func sameMeaning(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !reflect.DeepEqual(meaning(t, got), meaning(t, want)) {
		t.Errorf("%s is %s, want %s", what, got, want)
	}
}

func meaning(t *testing.T, text []byte) (v any) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Errorf("decode %s: %v", text, err)
	}
	return v
}

// wantReady checks /readyz: its status, and that its notes say all parts.
func (s *scene) wantReady(status string, parts ...string) {
	s.t.Helper()
	var ready struct {
		Status string
		Notes  []string
	}
	s.call("GET", "/readyz", nil).into(s.t, &ready)
	if ready.Status != status {
		s.t.Errorf("readyz says %s, %q; want %s", ready.Status, ready.Notes, status)
	}
	contains(s.t, strings.Join(ready.Notes, "\n"), parts...)
}

// soonEnough reads a job again and again until it is as wanted, at most for so long.
func (s *scene) soonEnough(id int64, atMost time.Duration, what string, as func(seenJob) bool) seenJob {
	s.t.Helper()
	step := 20 * time.Millisecond
	for end := time.Now().Add(atMost); ; time.Sleep(step) {
		step = min(2*step, 400*time.Millisecond)
		j := s.get(id)
		if as(j) {
			return j
		}
		if time.Now().After(end) {
			s.t.Errorf("job %d: %s, not within %s: it is %s (%s), run %q, error %q; history %q",
				id, what, atMost, j.Status, j.TriggerRawStatus, j.TriggerRunID, j.Error, s.history(id))
			return j
		}
	}
}

func hasRun(j seenJob) bool   { return j.TriggerRunID != "" }
func hasError(j seenJob) bool { return j.Error != "" }
func hasEnded(j seenJob) bool { return !j.Finished.IsZero() }
func isRunning(j seenJob) bool {
	return j.Status == "EXECUTING"
}

// sweepReport makes reconcile or sync and reads its report.
func (s *scene) sweepReport(which string) Report {
	s.t.Helper()
	r := s.call("POST", "/api/"+which, nil)
	if r.status != http.StatusOK {
		s.t.Fatalf("%s: %d %s", which, r.status, r.body)
	}
	var report Report
	r.into(s.t, &report)
	return report
}

// cancelJob cancels and reads the reply.
func (s *scene) cancelJob(id int64, query string) (seenJob, int) {
	s.t.Helper()
	r := s.call("POST", fmt.Sprintf("/api/jobs/%d/cancel%s", id, query), nil)
	if r.status != http.StatusOK && r.status != http.StatusAccepted {
		s.t.Fatalf("cancel job %d: %d %s", id, r.status, r.body)
	}
	return s.view(r), r.status
}
