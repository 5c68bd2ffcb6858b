package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// inProcess carries requests to a handler without a socket, so that it works inside
// a synctest bubble. A handler that aborts is a connection that closes.
type inProcess struct{ http.Handler }

var errClosed = errors.New("connection closed")

func (p inProcess) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	w := httptest.NewRecorder()
	defer func() {
		if recover() != nil {
			resp, err = nil, errClosed
		}
	}()
	in := r.Clone(r.Context())
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	p.ServeHTTP(w, in)
	resp = w.Result()
	resp.Request = r
	return resp, nil
}

// api is a client of one environment.
type api struct {
	t      *testing.T
	http   *http.Client
	key    string
	header http.Header
}

func start(t *testing.T, cfg Config) (*Emulator, *api) {
	t.Helper()
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e, clientOf(t, e, "tr_prod_test")
}

func clientOf(t *testing.T, h http.Handler, key string) *api {
	client := &http.Client{Transport: inProcess{h}, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	return &api{t: t, http: client, key: key, header: http.Header{"X-Trigger-Api-Version": {apiVersion}}}
}

// answer is a reply that has been read.
type answer struct {
	t      *testing.T
	status int
	header http.Header
	raw    string
}

func (a *api) try(method, path, body string) (answer, error) {
	req, err := http.NewRequestWithContext(a.t.Context(), method, "http://emulator.test"+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header = a.header.Clone()
	if a.key != "" {
		req.Header.Set("Authorization", "Bearer "+a.key)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return answer{a.t, resp.StatusCode, resp.Header, string(raw)}, err
}

func (a *api) do(method, path, body string) answer {
	a.t.Helper()
	got, err := a.try(method, path, body)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	return got
}

// with returns a client that sends one more header.
func (a *api) with(name, value string) *api {
	other := *a
	other.header = a.header.Clone()
	other.header.Set(name, value)
	return &other
}

func (a *api) get(path string) answer { a.t.Helper(); return a.do("GET", path, "") }

// trigger makes a run and returns its id.
func (a *api) trigger(task, body string) string {
	a.t.Helper()
	return a.do("POST", "/api/v1/tasks/"+task+"/trigger", body).ok().text("id")
}

func (a *api) run(id string) map[string]any {
	a.t.Helper()
	return a.get("/api/v3/runs/" + id).ok().object()
}

func (a *api) wantStatus(id, want string) {
	a.t.Helper()
	if got := a.run(id)["status"]; got != want {
		a.t.Errorf("run is %v, want %s", got, want)
	}
}

func (a *api) advance(d time.Duration) {
	a.t.Helper()
	a.do("POST", "/emulator/advance", string(object("ms", d.Milliseconds()))).ok()
}

func (g answer) ok() answer {
	g.t.Helper()
	if g.status != http.StatusOK {
		g.t.Fatalf("got %d %s, want 200", g.status, g.raw)
	}
	return g
}

func (g answer) object() map[string]any {
	g.t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(g.raw), &v); err != nil {
		g.t.Fatalf("body %q: %v", g.raw, err)
	}
	return v
}

func (g answer) text(name string) string {
	g.t.Helper()
	s, ok := g.object()[name].(string)
	if !ok {
		g.t.Fatalf("%s has no text %q", g.raw, name)
	}
	return s
}

// is compares status and body to the letter.
func (g answer) is(status int, body string) {
	g.t.Helper()
	if g.status != status || g.raw != body {
		g.t.Errorf("got %d %s\nwant %d %s", g.status, g.raw, status, body)
	}
}

// inBubble runs a test with a clock of its own, which stands still while it works.
func inBubble(t *testing.T, cfg Config, f func(t *testing.T, e *Emulator, a *api)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e, a := start(t, cfg)
		f(t, e, a)
	})
}

// after lets time pass, and everything that is due happen.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// everyHour stands for a cron library: full hours, and an error for "bad".
func everyHour(cron, _ string, at time.Time) (time.Time, error) {
	if strings.Contains(cron, "bad") {
		return time.Time{}, errors.New("no such field")
	}
	return at.Truncate(time.Hour).Add(time.Hour), nil
}

func example(t *testing.T, name string) map[string]any {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func appendLine(t *testing.T, path, line string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(line); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
