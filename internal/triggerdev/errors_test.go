package triggerdev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// recorded is an error reply as the files in testdata hold it.
type recorded struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    json.RawMessage   `json:"body"`
}

func (r recorded) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	for k, v := range r.Headers {
		w.Header().Set(k, v)
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write(r.Body)
}

func TestEveryRecordedErrorHasItsOutcome(t *testing.T) {
	files, err := filepath.Glob("testdata/error-*.json")
	if err != nil || len(files) < 18 {
		t.Fatalf("got %d files, %v; want all recorded errors", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			var rec recorded
			if err := json.Unmarshal([]byte(golden(t, name)), &rec); err != nil {
				t.Fatal(err)
			}
			_, err := serve(t, rec.ServeHTTP).Retrieve(t.Context(), "run_1")
			want := map[string]Outcome{"200": Unknown, "400": Refused, "401": NotReached, "403": NotReached,
				"404": NotReached, "413": Refused, "422": Refused, "429": NotReached, "500": Unknown}[name[6:9]]
			if got := OutcomeOf(err); err == nil || got != want {
				t.Fatalf("got %v (%v), want %v", err, got, want)
			}
			if rec.Status == http.StatusOK {
				return
			}
			var e *Error
			if !errors.As(err, &e) || e.Status != rec.Status || e.Message == "" {
				t.Errorf("got %#v, want status %d with a message", e, rec.Status)
			}
			if got, want := KeyRefused(err), rec.Status == 401 || rec.Status == 403; got != want {
				t.Errorf("KeyRefused: got %v, want %v", got, want)
			}
			if got, want := NotFound(err), rec.Status == 404; got != want {
				t.Errorf("NotFound: got %v, want %v", got, want)
			}
		})
	}
}

func TestStatusesAndTheirOutcomes(t *testing.T) {
	for _, tc := range []struct {
		status int
		retry  string
		want   Outcome
	}{
		{400, "", Refused}, {400, "false", Refused}, {400, "true", Unknown}, {413, "", Refused}, {422, "true", Unknown},
		{401, "", NotReached}, {403, "", NotReached}, {404, "true", NotReached}, {405, "", NotReached}, {429, "", NotReached},
		{301, "", NotReached}, {307, "", NotReached},
		{402, "", Unknown}, {408, "", Unknown}, {409, "", Unknown}, {500, "", Unknown}, {502, "", Unknown}, {503, "false", Unknown},
	} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if tc.retry != "" {
				w.Header().Set("x-should-retry", tc.retry)
			}
			w.WriteHeader(tc.status)
		})
		_, err := c.Trigger(t.Context(), "t", TriggerRequest{})
		if got := OutcomeOf(fmt.Errorf("wrapped: %w", err)); got != tc.want {
			t.Errorf("%d, retry %q: got %v, want %v", tc.status, tc.retry, got, tc.want)
		}
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("%d: got %v, want an Error", tc.status, err)
		}
		if got := e.ShouldRetry != nil; got != (tc.retry != "") {
			t.Errorf("%d: ShouldRetry given is %v, want %v", tc.status, got, !got)
		}
	}
}

func TestOutcomeOfWhatIsNotOurs(t *testing.T) {
	if got := OutcomeOf(nil); got != Accepted {
		t.Errorf("nil: got %v, want accepted", got)
	}
	if got := OutcomeOf(io.EOF); got != Unknown {
		t.Errorf("EOF: got %v, want unknown", got)
	}
	if got := fmt.Sprint(Unknown, Accepted, Refused, NotReached); got != "unknown accepted refused not reached" {
		t.Errorf("names: got %s", got)
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	calls := 0
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		calls++
		http.Redirect(w, r, "/elsewhere", http.StatusMovedPermanently)
	})
	_, err := c.Trigger(t.Context(), "t", TriggerRequest{})
	if calls != 1 || OutcomeOf(err) != NotReached {
		t.Errorf("got %d requests and %v (%v), want one and not reached", calls, err, OutcomeOf(err))
	}
}

func TestTheMessageSaysWhatAndWhere(t *testing.T) {
	for file, want := range map[string]string{
		"error-400-schedule-body.json": "GET /api/v3/runs/r: 400 Bad Request: Invalid request body: deduplicationKey: Required",
		"error-422-tags.json":          "GET /api/v3/runs/r: 422 Unprocessable Entity: Runs can only have 10 tags, you're trying to set 12.",
	} {
		var rec recorded
		if err := json.Unmarshal([]byte(golden(t, file)), &rec); err != nil {
			t.Fatal(err)
		}
		_, err := serve(t, rec.ServeHTTP).Retrieve(t.Context(), "r")
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", file, err, want)
		}
	}
}

func TestErrorsShowNeitherKeyNorForeignBodies(t *testing.T) {
	for name, body := range map[string]string{
		"an echoed key":   `{"error":"no such key: ` + testKey + `"}`,
		"a page of HTML":  `<html>your payload was "sesame"</html>`,
		"another shape":   `{"error":{"was":"sesame"}}`,
		"a very long one": `{"error":"` + strings.Repeat("é", 300) + `sesame"}`,
	} {
		c := serve(t, answer(http.StatusBadGateway, body))
		_, err := c.Trigger(t.Context(), "t", TriggerRequest{Payload: json.RawMessage(`"sesame"`)})
		if err == nil {
			t.Fatalf("%s: got no error", name)
		}
		noSecret(t, err, testKey)
		noSecret(t, err, "sesame")
	}
}

func TestWhenToTryAgain(t *testing.T) {
	now := time.UnixMilli(1787216400000).UTC()
	for name, tc := range map[string]struct {
		name, value string
		want        time.Time
	}{
		"milliseconds":        {"x-ratelimit-reset", "1787216407430", time.UnixMilli(1787216407430).UTC()},
		"seconds of a batch":  {"x-ratelimit-reset", "1787216410", time.Unix(1787216410, 0).UTC()},
		"seconds from now":    {"Retry-After", "10", now.Add(10 * time.Second)},
		"a date":              {"Retry-After", "Thu, 20 Aug 2026 09:00:10 GMT", at("2026-08-20T09:00:10Z")},
		"nonsense":            {"Retry-After", "-3", time.Time{}},
		"nothing":             {"X-Other", "1", time.Time{}},
		"a reset that is bad": {"x-ratelimit-reset", "soon", time.Time{}},
	} {
		h := http.Header{}
		h.Set(tc.name, tc.value)
		if got := resetAt(h, now); !got.Equal(tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func TestBadReplies(t *testing.T) {
	html := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, `{"id":"r","status":"QUEUED"}`)
	}
	cut := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		answer(http.StatusOK, `{"id":"r","status":"QUEUED"}`)(w, r)
	}
	for name, h := range map[string]http.HandlerFunc{
		"another content type": html,
		"cut off":              cut,
		"empty":                answer(http.StatusOK, ""),
		"no content":           func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"not JSON":             answer(http.StatusOK, `{"id":"r","status":"QUEUED"`),
		"more than JSON":       answer(http.StatusOK, `{"id":"r","status":"QUEUED"}{}`),
		"null":                 answer(http.StatusOK, `null`),
		"a list":               answer(http.StatusOK, `[]`),
		"without id":           answer(http.StatusOK, `{"status":"QUEUED"}`),
		"without status":       answer(http.StatusOK, `{"id":"r"}`),
		"a date that is none":  answer(http.StatusOK, `{"id":"r","status":"QUEUED","createdAt":"yesterday"}`),
		"about another run":    answer(http.StatusOK, `{"id":"other","status":"QUEUED"}`),
	} {
		t.Run(name, func(t *testing.T) {
			run, err := serve(t, h).Retrieve(t.Context(), "r")
			var bad *BadReplyError
			if !errors.As(err, &bad) || OutcomeOf(err) != Unknown {
				t.Fatalf("got %v (%v), want a BadReplyError of unknown outcome", err, OutcomeOf(err))
			}
			if run.ID != "" {
				t.Errorf("got run %+v beside the error, want none", run)
			}
		})
	}
	for name, call := range map[string]func(*Client) error{
		"trigger":   func(c *Client) error { _, err := c.Trigger(t.Context(), "t", TriggerRequest{}); return err },
		"cancel":    func(c *Client) error { return c.Cancel(t.Context(), "r") },
		"list":      func(c *Client) error { return c.Ping(t.Context()) },
		"schedule":  func(c *Client) error { _, err := c.ActivateSchedule(t.Context(), "s"); return err },
		"delete":    func(c *Client) error { return c.DeleteSchedule(t.Context(), "s") },
		"schedules": func(c *Client) error { _, err := c.ListSchedules(t.Context(), 1, 0); return err },
	} {
		for _, body := range []string{`{}`, `{"data":[{}]}`} {
			err := call(serve(t, answer(http.StatusOK, body)))
			var bad *BadReplyError
			if !errors.As(err, &bad) {
				t.Errorf("%s answered with %s: got %v, want a BadReplyError", name, body, err)
			}
		}
	}
	var bad *BadReplyError
	if err := serve(t, answer(200, `{"id":"other"}`)).Cancel(t.Context(), "r"); !errors.As(err, &bad) {
		t.Errorf("cancel of another run: got %v, want a BadReplyError", err)
	}
}

// endless is a body that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestAReplyWithoutEndIsABadOne(t *testing.T) {
	c := clientOf(t, Config{HTTP: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		header := http.Header{"Content-Type": {"application/json"}}
		return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(endless{})}, nil
	})}})
	_, err := c.Retrieve(t.Context(), "r")
	var bad *BadReplyError
	if !errors.As(err, &bad) || !errors.Is(err, errTooLong) {
		t.Errorf("got %v, want a bad reply that is too long", err)
	}
}

// outcome triggers a task and says whether the transport failed, and how far
// the request came.
func outcome(t *testing.T, ctx context.Context, c *Client) (*TransportError, Outcome) {
	t.Helper()
	_, err := c.Trigger(ctx, "t", TriggerRequest{Payload: json.RawMessage(`"sesame"`)})
	var e *TransportError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a TransportError", err)
	}
	noSecret(t, err, testKey)
	noSecret(t, err, "sesame")
	return e, OutcomeOf(err)
}

func TestARefusedConnectionReachesNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	e, got := outcome(t, t.Context(), clientOf(t, Config{BaseURL: "http://" + l.Addr().String()}))
	if got != NotReached || !errors.Is(e, syscall.ECONNREFUSED) {
		t.Errorf("got %v (%v), want a refused connection, not reached", e, got)
	}
}

func TestAnUnknownCertificateReachesNobody(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = quietServer(t, http.NotFound).Config.ErrorLog
	s.StartTLS()
	t.Cleanup(s.Close)
	if e, got := outcome(t, t.Context(), clientOf(t, Config{BaseURL: s.URL})); got != NotReached {
		t.Errorf("got %v (%v), want not reached", e, got)
	}
}

func TestATimeoutWhileConnectingReachesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			<-release
			return nil, io.EOF
		}}
		start := time.Now()
		e, got := outcome(t, t.Context(), clientOf(t, Config{HTTP: &http.Client{Transport: tr, Timeout: time.Second}}))
		if got != NotReached || !errors.Is(e, context.DeadlineExceeded) {
			t.Errorf("got %v (%v), want a timeout, not reached", e, got)
		}
		if d := time.Since(start); d != DefaultTimeout {
			t.Errorf("got a timeout after %v, want %v whatever the client given has", d, DefaultTimeout)
		}
	})
}

func TestATimeoutAfterConnectingIsUnknown(t *testing.T) {
	release := make(chan struct{})
	s := quietServer(t, func(_ http.ResponseWriter, r *http.Request) { <-release })
	defer close(release)
	c := clientOf(t, Config{BaseURL: s.URL, Timeout: 30 * time.Millisecond})
	e, got := outcome(t, t.Context(), c)
	if got != Unknown || !errors.Is(e, context.DeadlineExceeded) {
		t.Errorf("got %v (%v), want a timeout of unknown outcome", e, got)
	}
}

func TestAStalledBodyEndsWithTheDeadline(t *testing.T) {
	release := make(chan struct{})
	s := quietServer(t, func(w http.ResponseWriter, r *http.Request) {
		answer(http.StatusOK, `{"id":`)(w, r)
		w.(http.Flusher).Flush()
		<-release
	})
	defer close(release)
	c := clientOf(t, Config{BaseURL: s.URL, Timeout: 30 * time.Millisecond})
	_, err := c.Trigger(t.Context(), "t", TriggerRequest{})
	if OutcomeOf(err) != Unknown || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v (%v), want a timeout of unknown outcome", err, OutcomeOf(err))
	}
}

// reset reads the request and then drops its connection.
func reset(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	panic(http.ErrAbortHandler)
}

func TestAResetAfterTheRequestIsUnknown(t *testing.T) {
	t.Run("over HTTP/1", func(t *testing.T) {
		if e, got := outcome(t, t.Context(), serve(t, reset)); got != Unknown {
			t.Errorf("got %v (%v), want unknown", e, got)
		}
	})
	t.Run("over HTTP/2", func(t *testing.T) {
		s := httptest.NewUnstartedServer(http.HandlerFunc(reset))
		s.EnableHTTP2 = true
		s.StartTLS()
		t.Cleanup(s.Close)
		c := clientOf(t, Config{BaseURL: s.URL, HTTP: s.Client()})
		if e, got := outcome(t, t.Context(), c); got != Unknown {
			t.Errorf("got %v (%v), want unknown", e, got)
		}
	})
}

func TestATransportThatReportsNothingProvesNothing(t *testing.T) {
	c := clientOf(t, Config{HTTP: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		return nil, errors.New("reply lost")
	})}})
	if e, got := outcome(t, t.Context(), c); got != Unknown {
		t.Errorf("got %v (%v), want unknown", e, got)
	}
}

func TestACallThatIsCanceledBeforehandReachesNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := clientOf(t, Config{HTTP: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		t.Error("a request was sent")
		return nil, io.EOF
	})}})
	e, got := outcome(t, ctx, c)
	if got != NotReached || !errors.Is(e, context.Canceled) {
		t.Errorf("got %v (%v), want a canceled call, not reached", e, got)
	}
}
