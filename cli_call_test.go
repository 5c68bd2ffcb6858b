package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var errReset = errors.New("connection reset by peer")

func TestALostConnection(t *testing.T) {
	post := apiCall{method: http.MethodPost, path: "/api/jobs", body: map[string]any{"type": "a"}}
	underWay := problemReply(409, "idempotency_in_progress", "a request with this Idempotency-Key is under way")
	for _, c := range []struct {
		name    string
		answers []any // a reply or an error, in order
		code    int
		calls   int
		text    string
	}{
		{"once: the request is made again", []any{errReset, jobReply(201, nil)}, 0, 2, ""},
		{"while the body comes: likewise", []any{brokenBody{}, jobReply(201, nil)}, 0, 2, ""},
		{"and the first is under way: its reply is asked for", []any{errReset, underWay, underWay, jobReply(201, nil)}, 0, 4, ""},
		{"twice: it is given up", []any{errReset, errReset}, 5, 2, "may have been done all the same"},
		{"and nobody listens any more", []any{errReset, refusal()}, 5, 2, "is sidejob running?"},
		{"nobody listened from the start: not again", []any{refusal()}, 5, 1, "is sidejob running?"},
		{"a problem is an answer: not again", []any{problemReply(503, "database_unavailable", "busy")}, 1, 1, "busy"},
		{"a conflict at once is an answer", []any{underWay}, 1, 1, "under way"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				keys := map[string]bool{}
				calls := 0
				server := callerBy(func(r *http.Request) (*http.Response, error) {
					body, _ := io.ReadAll(r.Body)
					keys[r.Header.Get("Idempotency-Key")+string(body)] = true
					answer := c.answers[calls]
					calls++
					return answerWith(answer)
				})
				got, err := server.do(t.Context(), post)
				if code := codeOfError(err); code != c.code {
					t.Errorf("got exit code %d (%v), want %d", code, err, c.code)
				}
				if c.code == 0 && got.status != 201 {
					t.Errorf("got status %d, want 201", got.status)
				}
				if calls != c.calls || len(keys) != 1 || keys[""] {
					t.Errorf("got %d requests with the keys and bodies %v, want %d with the same", calls, keys, c.calls)
				}
				if err != nil && !strings.Contains(err.Error(), c.text) {
					t.Errorf("got %q, want in it %q", err, c.text)
				}
			})
		})
	}
}

// brokenBody is a reply that ends too soon.
type brokenBody struct{}

func answerWith(answer any) (*http.Response, error) {
	switch a := answer.(type) {
	case reply:
		return response(a), nil
	case brokenBody:
		broken := response(reply{status: 201})
		broken.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"id"`), failing{}))
		return broken, nil
	}
	return nil, answer.(error)
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func codeOfError(err error) int {
	return exitCode(streams{out: io.Discard, err: io.Discard}, err)
}

func TestEveryPostHasAFreshKey(t *testing.T) {
	keys := map[string]bool{}
	server := callerBy(func(r *http.Request) (*http.Response, error) {
		keys[r.Header.Get("Idempotency-Key")] = true
		return response(jobReply(201, nil)), nil
	})
	for range 3 {
		if _, err := server.do(t.Context(), apiCall{method: http.MethodPost, path: "/api/jobs/1/retry"}); err != nil {
			t.Fatal(err)
		}
	}
	if len(keys) != 3 || keys[""] {
		t.Errorf("got keys %v, want three", keys)
	}
}

func TestAServerThatHangs(t *testing.T) {
	hang := func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		_, err := callerBy(hang).do(t.Context(), apiCall{method: http.MethodPost, path: "/x", wait: 10 * time.Second})
		if got := time.Since(begun); got != 10*time.Second+answerPatience {
			t.Errorf("got an end after %s, want the wait and %s", got, answerPatience)
		}
		if codeOfError(err) != exitUnreachable || !strings.Contains(err.Error(), "did not answer in time; what was asked for may have been done") {
			t.Errorf("got %v (exit %d), want no answer in time, exit 5", err, codeOfError(err))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		_, err := callerBy(hang).do(ctx, apiCall{method: http.MethodPost, path: "/x", wait: noLimit})
		if codeOfError(err) != exitFailure || !strings.Contains(err.Error(), "interrupted") {
			t.Errorf("got %v (exit %d), want that only the user ends a call without a limit", err, codeOfError(err))
		}
	})
}
