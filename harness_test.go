package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"sidejob/internal/emulator"
)

// world is a whole sidejob before an emulator, joined without sockets, so that it
// runs in a synctest bubble as well as outside of one.
type world struct {
	t    *testing.T
	emu  *emulator.Emulator
	srv  *server
	cfg  config
	log  *sharedText
	mock emulator.Config
	hook bool // the emulator posts events

	shows string // the token that call shows, "" for none

	engine engine

	assembled func(*server) // sees each server before it starts
}

// worldOption changes a world before it starts.
type worldOption func(*world)

func withoutWebhook() worldOption { return func(w *world) { w.hook = false } }

func withTasks(tasks map[string]emulator.Task) worldOption {
	return func(w *world) { w.mock.Tasks = tasks }
}

func withConfig(change func(*config)) worldOption { return func(w *world) { change(&w.cfg) } }

const worldSecret = "whsec_c2lkZWpvYi10ZXN0LXNlY3JldA=="

// newWorld starts emulator and server; both end with the test.
func newWorld(t *testing.T, options ...worldOption) *world {
	t.Helper()
	w := &world{t: t, log: &sharedText{}, hook: true, engine: sqliteFiles{}, assembled: func(*server) {}}
	w.cfg = config{
		database: w.engine.place(t), registry: registry{jobs: map[string]definition{}},
		syncEvery: 5 * time.Minute, drain: 5 * time.Second, triggerOn: true, triggerURL: "http://trigger.test",
		key: func() string { return "tr_dev_test" }, secrets: webhookSecrets{worldSecret},
		transport: inProcess(func() http.Handler { return w.emu }),
	}
	w.mock = emulator.Config{
		WebhookSecret: worldSecret, NextRun: nextRun,
		Client: &http.Client{Transport: inProcess(func() http.Handler { return w.srv.private })},
	}
	for _, option := range options {
		option(w)
	}
	if w.hook {
		w.mock.WebhookURL = "http://localhost" + webhookPath
	}
	var err error
	if w.emu, err = emulator.New(w.mock); err != nil {
		t.Fatalf("start the emulator: %v", err)
	}
	w.boot()
	t.Cleanup(func() {
		w.halt()
		if err := w.emu.Close(); err != nil {
			t.Errorf("close the emulator: %v", err)
		}
	})
	return w
}

// boot starts a server on the world's database.
func (w *world) boot() {
	w.t.Helper()
	log := newLogger(w.log, slog.LevelDebug, "json", false)
	srv, err := newServer(context.Background(), w.cfg, log)
	if err != nil {
		w.t.Fatalf("start the server: %v", err)
	}
	w.srv = srv
	w.assembled(srv)
	srv.start()
}

// halt shuts the server down, if it runs.
func (w *world) halt() {
	w.t.Helper()
	if w.srv == nil {
		return
	}
	if err := w.srv.shutdown(); err != nil {
		w.t.Errorf("shut the server down: %v", err)
	}
	w.srv = nil
}

// answer is what the API said.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// into decodes the body.
func (r answer) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		t.Fatalf("decode %s: %v", r.body, err)
	}
}

// call makes a request of the API; body is a text, or anything that becomes JSON.
func (w *world) call(method, path string, body any, header ...string) answer {
	w.t.Helper()
	if w.shows != "" {
		header = append([]string{"Authorization", "Bearer " + w.shows}, header...)
	}
	return callHandler(w.t, w.srv.private, method, path, body, header...)
}

func callHandler(t *testing.T, h http.Handler, method, path string, body any, header ...string) answer {
	t.Helper()
	var text []byte
	switch b := body.(type) {
	case nil:
	case string:
		text = []byte(b)
	case []byte:
		text = b
	default:
		var err error
		if text, err = json.Marshal(b); err != nil {
			t.Fatalf("encode %v: %v", b, err)
		}
	}
	r := httptest.NewRequest(method, path, bytes.NewReader(text))
	r.Host = "localhost"
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return answer{status: rec.Code, header: rec.Header(), body: rec.Body.Bytes()}
}

// schedule makes a job and fails the test unless it is taken.
func (w *world) schedule(request any) seenJob {
	w.t.Helper()
	r := w.call("POST", "/api/jobs", request)
	if r.status != http.StatusCreated {
		w.t.Fatalf("schedule %v: %d %s", request, r.status, r.body)
	}
	return w.view(r)
}

// triggerJob schedules a job of the task on Trigger.dev.
func (w *world) triggerJob(task string, members ...any) seenJob {
	w.t.Helper()
	request := map[string]any{"type": task, "executor": "trigger", "triggerTaskId": task}
	for i := 0; i+1 < len(members); i += 2 {
		request[members[i].(string)] = members[i+1]
	}
	return w.schedule(request)
}

func (w *world) view(r answer) seenJob {
	w.t.Helper()
	var v seenJob
	r.into(w.t, &v)
	return v
}

func (w *world) get(id int64) seenJob {
	w.t.Helper()
	r := w.call("GET", fmt.Sprintf("/api/jobs/%d", id), nil)
	if r.status != http.StatusOK {
		w.t.Fatalf("get job %d: %d %s", id, r.status, r.body)
	}
	return w.view(r)
}

// wait long-polls until the job has finished.
func (w *world) wait(id int64) seenJob {
	w.t.Helper()
	for range 10 {
		r := w.call("GET", fmt.Sprintf("/api/jobs/%d?waitMs=60000", id), nil)
		if v := w.view(r); v.Success != nil {
			return v
		}
	}
	w.t.Fatalf("job %d does not finish: %+v", id, w.get(id))
	return seenJob{}
}

// history is the kinds of a job's events, oldest first.
func (w *world) history(id int64) []string {
	w.t.Helper()
	var body struct {
		Events []struct{ Kind, Source, To string }
	}
	w.call("GET", fmt.Sprintf("/api/jobs/%d/events", id), nil).into(w.t, &body)
	var kinds []string
	for _, e := range body.Events {
		kinds = append(kinds, e.Kind+" "+e.Source+" > "+e.To)
	}
	return kinds
}

// remote asks the emulator's own API, as the real one would be asked.
func (w *world) remote(method, path string, body any) answer {
	w.t.Helper()
	return callHandler(w.t, w.emu, method, path, body, "Authorization", "Bearer tr_dev_test", "x-trigger-api-version", "2025-07-16")
}

// remoteRun is a run as Trigger.dev shows it.
type remoteRun struct {
	ID, Status, TaskIdentifier, IdempotencyKey string
	DelayedUntil                               time.Time
	Tags                                       []string
	Metadata                                   map[string]any
}

func (w *world) remoteRun(id string) remoteRun {
	w.t.Helper()
	var run remoteRun
	w.remote("GET", "/api/v3/runs/"+id, nil).into(w.t, &run)
	return run
}

// remoteRuns are all runs that the emulator has.
func (w *world) remoteRuns() []remoteRun {
	w.t.Helper()
	var page struct{ Data []remoteRun }
	w.remote("GET", "/api/v1/runs?page[size]=100&filter[createdAt][from]=1", nil).into(w.t, &page)
	return page.Data
}

// faults makes the emulator misbehave; none mends it.
func (w *world) faults(list ...map[string]any) {
	w.t.Helper()
	if list == nil {
		list = []map[string]any{}
	}
	r := callHandler(w.t, w.emu, "PUT", "/emulator/faults", list)
	if r.status >= 300 {
		w.t.Fatalf("set faults: %d %s", r.status, r.body)
	}
}

// seenJob is a job as a caller reads it. What is null is zero here; success tells
// apart.
type seenJob struct {
	ID                                                int64
	Tag, Type, Name                                   string
	UserID, RescheduledFromJob                        int64
	Data, Result, Metadata                            json.RawMessage
	Due, Started, Finished, RemoveAt, LastSyncedAt    time.Time
	CreatedAt, UpdatedAt                              time.Time
	Success                                           *bool
	Executor, Status, TriggerStatus, TriggerRawStatus string
	TriggerTaskID, TriggerRunID, TriggerAttemptID     string
	CancelRequested, Persistent, Paused               bool
	AutoRescheduleOnFailure                           bool
	AutoRescheduleOnFailureDelay, RemoveDelay         int64
	Timezone, Error                                   string
	Attempt                                           int
	Labels, Warnings                                  []string
}

// inProcess carries requests to a handler without a socket. A handler that aborts
// looks like a connection that breaks; one that hangs ends with the request.
func inProcess(h func() http.Handler) http.RoundTripper { return processTransport{h} }

type processTransport struct{ handler func() http.Handler }

// RoundTrip implements http.RoundTripper.
func (p processTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	handler := p.handler()
	inner := r.Clone(r.Context())
	inner.RequestURI = r.URL.RequestURI()
	inner.Host = r.URL.Host
	inner.RemoteAddr = "127.0.0.1:1"
	if r.Body == nil {
		inner.Body = http.NoBody
	}
	rec := &pipeRecorder{header: http.Header{}, aborted: make(chan struct{})}
	go func() {
		defer close(rec.aborted)
		defer func() {
			if v := recover(); v != nil {
				rec.broken = true
			}
		}()
		handler.ServeHTTP(rec, inner)
	}()
	select {
	case <-rec.aborted:
	case <-r.Context().Done():
		<-rec.aborted
		return nil, r.Context().Err()
	}
	if rec.broken && rec.status == 0 {
		return nil, errors.New("connection reset")
	}
	body := io.Reader(bytes.NewReader(rec.body.Bytes()))
	if rec.broken {
		body = io.MultiReader(body, brokenReader{})
	}
	return &http.Response{
		StatusCode: rec.status, Status: http.StatusText(rec.status), Header: rec.header, Body: io.NopCloser(body),
		ContentLength: -1, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
	}, nil
}

type brokenReader struct{}

// Read implements io.Reader.
func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// pipeRecorder takes a handler's answer.
type pipeRecorder struct {
	header  http.Header
	status  int
	body    bytes.Buffer
	broken  bool
	aborted chan struct{}
}

// Header implements http.ResponseWriter.
func (r *pipeRecorder) Header() http.Header { return r.header }

// Write implements http.ResponseWriter.
func (r *pipeRecorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}

// WriteHeader implements http.ResponseWriter.
func (r *pipeRecorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

// contains fails the test unless text holds every one of the parts.
func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("got %s, want it to say %q", text, part)
		}
	}
}

// tellAtLeisure leaves a long story out unless STORIES is true: together they take
// minutes, under the race detector many. CI tells them beside the other tests.
func tellAtLeisure(t *testing.T) {
	t.Helper()
	if os.Getenv("STORIES") != "true" {
		t.Skip("a long story: make stories")
	}
}

// sharedText is a text that many write and anybody may read meanwhile.
type sharedText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (s *sharedText) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *sharedText) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}
