package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"sidejob/internal/job"
)

// seenProblem is a problem as a caller reads it.
type seenProblem struct {
	Type, Title, Code, Detail string
	Status                    int
	ID                        int64
	Errors                    []struct{ Location, Message string }
}

// wantProblem fails the test unless the answer is that problem and names just these
// locations, in any order.
func wantProblem(t *testing.T, what string, r answer, status int, code string, locations ...string) seenProblem {
	t.Helper()
	var p seenProblem
	if kind := r.header.Get("Content-Type"); kind != "application/problem+json" {
		t.Errorf("%s: got %d as %q with %.300s, want a problem %d %s", what, r.status, kind, r.body, status, code)
		return p
	}
	r.into(t, &p)
	checkProblem(t, what, p, status, code, locations...)
	if r.status != p.Status {
		t.Errorf("%s: the reply's status is %d, its body says %d", what, r.status, p.Status)
	}
	return p
}

func checkProblem(t *testing.T, what string, p seenProblem, status int, code string, locations ...string) {
	t.Helper()
	var named []string
	for _, e := range p.Errors {
		named = append(named, e.Location)
		if e.Message == "" {
			t.Errorf("%s: %s comes without a reason", what, e.Location)
		}
	}
	slices.Sort(named)
	slices.Sort(locations)
	if p.Status != status || p.Code != code || !slices.Equal(named, locations) {
		t.Errorf("%s: got %d %s naming %q (%.300s), want %d %s naming %q", what, p.Status, p.Code, named, p.Detail, status, code, locations)
	}
	if p.Type != "about:blank" || p.Title != http.StatusText(status) || p.Detail == "" {
		t.Errorf("%s: got type %q, title %q, detail %q; want about:blank, %q and a reason", what, p.Type, p.Title, p.Detail, http.StatusText(status))
	}
	if strings.Contains(p.Detail, "Go ") || strings.Contains(p.Detail, "unmarshal") {
		t.Errorf("%s: %q speaks of the inside of sidejob", what, p.Detail)
	}
}

func TestEveryErrorHasItsStatusAndCode(t *testing.T) {
	refused := &job.RefusedError{Kind: job.Retry, State: job.StateWaiting, Why: "it has not ended"}
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{fmt.Errorf("job 7: %w", ErrNotFound), 404, "not_found"},
		{fmt.Errorf("apply: %w", refused), 409, "conflict"},
		{fmt.Errorf("tag: %w", job.ErrTagTaken), 409, "tag_taken"},
		{ErrReplyUnderWay, 409, "idempotency_in_progress"},
		{ErrReplyMismatch, 422, "idempotency_mismatch"},
		{fmt.Errorf("insert job: %w", &misfitError{"integer out of range"}), 422, "invalid"},
		{fmt.Errorf("%w: disk full", ErrBusy), 503, "database_unavailable"},
		{fmt.Errorf("%w: commit: %w", ErrBusy, ErrUnsure), 503, "database_unavailable"},
		{errClosed, 503, "database_unavailable"},
		{fmt.Errorf("read: %w", context.Canceled), 503, "timeout"},
		{fmt.Errorf("read: %w", context.DeadlineExceeded), 503, "timeout"},
		{errors.New("secret of the inside"), 500, "internal"},
		{fmt.Errorf("wrapped: %w", problemf(418, "teapot", "no")), 418, "teapot"},
	} {
		p := problemOf(c.err)
		if p.Status != c.status || p.Code != c.code {
			t.Errorf("%v: got %d %s, want %d %s", c.err, p.Status, p.Code, c.status, c.code)
		}
		if strings.Contains(p.Detail, "inside") && !strings.Contains(p.Detail, "inside sidejob") || strings.Contains(p.Detail, "disk") {
			t.Errorf("%v: the caller reads %q, which is for the log", c.err, p.Detail)
		}
	}
}

func TestADatabaseThatIsGoneIsA503(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		synctest.Wait()
		if err := w.srv.store.Close(); err != nil {
			t.Fatal(err)
		}
		r := w.call("POST", "/api/jobs", `{"type":"work"}`)
		wantProblem(t, "schedule", r, 503, "database_unavailable")
		if got := r.header.Get("Retry-After"); got != "1" {
			t.Errorf("Retry-After is %q, want 1", got)
		}
		var ready readyView
		r = w.call("GET", "/readyz", nil)
		r.into(t, &ready)
		if r.status != 503 || ready.Status != "not ready" || len(ready.Notes) != 1 {
			t.Errorf("readyz says %d %s, want 503, not ready and a note", r.status, r.body)
		}
		if r := w.call("GET", "/livez", nil); r.status != 200 {
			t.Errorf("livez says %d, want 200: the process lives", r.status)
		}
		wantProblem(t, "list", w.call("GET", "/api/jobs", nil), 500, "internal")
		wantProblem(t, "metrics", w.call("GET", "/metrics", nil), 500, "internal")
	})
}

func TestUnknownPathsAndMethodsAreProblems(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/nothing", "/api", "/api/", "/api/job", "/api/jobs/", "/api/jobs/1/nothing", "/emulator/runs"} {
		wantProblem(t, path, w.call("GET", path, nil), 404, "no_such_path")
		wantProblem(t, "POST "+path, w.call("POST", path, `{}`), 404, "no_such_path")
	}
	for _, c := range []struct{ method, path, allow string }{
		{"PUT", "/api/jobs", "GET, HEAD, POST"},
		{"DELETE", "/api/jobs/1", "GET, HEAD"},
		{"GET", "/api/jobs/1/cancel", "POST"},
		{"OPTIONS", "/api/jobs/1/retry", "POST"},
		{"PATCH", "/api/stats", "GET, HEAD"},
		{"POST", "/livez", "GET, HEAD"},
		{"POST", "/readyz", "GET, HEAD"},
		{"POST", "/metrics", "GET, HEAD"},
		{"POST", "/openapi.json", "GET, HEAD"},
		{"GET", webhookPath, "POST"},
	} {
		what := c.method + " " + c.path
		r := w.call(c.method, c.path, nil)
		wantProblem(t, what, r, 405, "method_not_allowed")
		if got := r.header.Get("Allow"); got != c.allow {
			t.Errorf("%s: Allow is %q, want %q", what, got, c.allow)
		}
	}
}

func TestAProblemEchoesNoValues(t *testing.T) {
	w := newWorld(t)
	secret := "s3cr3t-payload"
	for _, body := range []string{
		`{"type":"work","persistent":"` + secret + `"}`, `{"type":"work","retryConfig":{"factor":"` + secret + `"}}`,
		`{"type":"work","data":"` + secret + `","userId":1.0}`, `{"type":"work","data":"` + secret + `"`,
	} {
		if r := w.call("POST", "/api/jobs", body); r.status < 400 || strings.Contains(string(r.body), secret) {
			t.Errorf("%s: got %d %s, want a refusal without the value", body, r.status, r.body)
		}
	}
	if strings.Contains(w.log.String(), secret) {
		t.Error("the log has the value")
	}
}

// wantJSON fails the test unless both texts are the same JSON.
func wantJSON(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	var a, b any
	if json.Unmarshal(got, &a) != nil || json.Unmarshal([]byte(want), &b) != nil || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("%s: got %s, want %s", what, got, want)
	}
}
