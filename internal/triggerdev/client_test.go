package triggerdev

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const testKey = "tr_prod_abcdefghijklmnopqrstuvwx"

func fixedKey() string { return testKey }

// roundTrip is an in-process transport.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// clientOf makes a client of cfg, with the test key unless it has another.
func clientOf(t *testing.T, cfg Config) *Client {
	t.Helper()
	if cfg.Key == nil {
		cfg.Key = fixedKey
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// quietServer serves h on a socket.
func quietServer(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// serve gives a client of a socket served by h.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	return clientOf(t, Config{BaseURL: quietServer(t, h).URL})
}

// answer replies with a JSON body.
func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func golden(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// seen is a request as a server got it.
type seen struct {
	Method, URI, Body string
	Header            http.Header
	Length            int64
}

// record gives a client whose requests, answered with body, are written to the
// result.
func record(t *testing.T, cfg Config, body string) (*Client, *seen) {
	t.Helper()
	var got seen
	s := quietServer(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = seen{r.Method, r.RequestURI, string(b), r.Header, r.ContentLength}
		answer(http.StatusOK, body)(w, r)
	})
	cfg.BaseURL = s.URL
	return clientOf(t, cfg), &got
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no key function":          {},
		"another scheme":           {BaseURL: "ftp://example.net", Key: fixedKey},
		"a relative address":       {BaseURL: "example.net", Key: fixedKey},
		"credentials":              {BaseURL: "https://u:secret@example.net", Key: fixedKey},
		"a query":                  {BaseURL: "https://example.net?x=secret", Key: fixedKey},
		"a broken address":         {BaseURL: "https://exa mple.net/secret", Key: fixedKey},
		"a branch with a line end": {Branch: "a\nb", Key: fixedKey},
		"an agent with a line end": {UserAgent: "a\r\nb", Key: fixedKey},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(cfg)
			if err == nil {
				t.Fatal("got no error")
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("got %q, want no part of the address", err)
			}
		})
	}
}

func TestBaseURL(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "https://api.trigger.dev",
		"http://localhost:8030/":   "http://localhost:8030",
		"https://example.net/api/": "https://example.net/api",
	} {
		if got, err := baseURL(in); err != nil || got != want {
			t.Errorf("baseURL(%q): got %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestEveryRequestCarriesTheHeaders(t *testing.T) {
	cfg := Config{Branch: "feature/x", UserAgent: "sidejob/1"}
	c, got := record(t, cfg, golden(t, "trigger-response.json"))
	if _, err := c.Trigger(t.Context(), "ship-order", TriggerRequest{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Authorization":         "Bearer " + testKey,
		"Content-Type":          "application/json",
		"Accept":                "application/json",
		"X-Trigger-Api-Version": "2025-07-16",
		"X-Trigger-Branch":      "feature/x",
		"User-Agent":            "sidejob/1",
	} {
		if g := got.Header.Get(name); g != want {
			t.Errorf("%s: got %q, want %q", name, g, want)
		}
	}
	if got.Length != int64(len(got.Body)) || got.Length == 0 {
		t.Errorf("content length: got %d for %d bytes", got.Length, len(got.Body))
	}
}

func TestACancelCarriesNoBodyAndNoBranch(t *testing.T) {
	c, got := record(t, Config{}, golden(t, "cancel-response.json"))
	if err := c.Cancel(t.Context(), "run_cmekq3v7x0001a4l8h2df0015"); err != nil {
		t.Fatal(err)
	}
	if got.Body != "" || got.Header.Get("Content-Type") != "" || got.Header.Get("X-Trigger-Branch") != "" {
		t.Errorf("got %q and headers %v, want neither body, content type nor branch", got.Body, got.Header)
	}
}

// wire serves one connection, without net/http, and gives the lines of the
// request that came over it up to the first empty one.
func wire(t *testing.T, reply string) (address string, head <-chan []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	lines := make(chan []string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		var got []string
		for in := bufio.NewScanner(conn); in.Scan() && in.Text() != ""; {
			got = append(got, in.Text())
		}
		lines <- got
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(reply), reply)
	}()
	return "http://" + l.Addr().String(), lines
}

func TestTheBytesOfAPostTellItsLength(t *testing.T) {
	for name, tc := range map[string]struct {
		reply, line, length string
		call                func(*Client) error
	}{
		"without a body": {`{"id":"run_1"}`, "POST /api/v2/runs/run_1/cancel HTTP/1.1", "Content-Length: 0",
			func(c *Client) error { return c.Cancel(t.Context(), "run_1") }},
		"with a body": {`{"id":"run_1"}`, "POST /api/v1/tasks/t/trigger HTTP/1.1", "Content-Length: 14",
			func(c *Client) error { _, err := c.Trigger(t.Context(), "t", TriggerRequest{}); return err }},
		"activate": {golden(t, "schedule-retrieved.json"), "POST /api/v1/schedules/s/activate HTTP/1.1", "Content-Length: 0",
			func(c *Client) error { _, err := c.ActivateSchedule(t.Context(), "s"); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			address, head := wire(t, tc.reply)
			if err := tc.call(clientOf(t, Config{BaseURL: address})); err != nil {
				t.Fatal(err)
			}
			got := <-head
			if got[0] != tc.line || !slices.Contains(got, tc.length) {
				t.Errorf("got %q, want %q with %q", got, tc.line, tc.length)
			}
			if strings.Contains(strings.Join(got, "\n"), "Transfer-Encoding") {
				t.Errorf("got %q, want no chunks", got)
			}
		})
	}
}

func TestTheKeyIsAskedForEachRequest(t *testing.T) {
	keys := []string{"first", " second\n"}
	c, got := record(t, Config{Key: func() string {
		k := keys[0]
		keys = keys[1:]
		return k
	}}, golden(t, "list-runs-last-page.json"))
	for _, want := range []string{"Bearer first", "Bearer second"} {
		if err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		if g := got.Header.Get("Authorization"); g != want {
			t.Errorf("authorization: got %q, want %q", g, want)
		}
	}
	if got.URI != "/api/v1/runs?page%5Bsize%5D=1" {
		t.Errorf("ping: got %s, want the list with one row", got.URI)
	}
}

func TestAMissingKeyIsNotSent(t *testing.T) {
	for _, key := range []string{"", " \n", "tr_prod\nX: y"} {
		c := clientOf(t, Config{Key: func() string { return key }, HTTP: &http.Client{
			Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				t.Errorf("key %q: a request was sent", key)
				return nil, io.EOF
			}),
		}})
		err := c.Ping(t.Context())
		if !KeyRefused(err) || OutcomeOf(err) != NotReached {
			t.Errorf("key %q: got %v (%v), want a refused key that reached nobody", key, err, OutcomeOf(err))
		}
	}
}

func TestRateLimitIsThatOfTheNewestReply(t *testing.T) {
	var n sync.Mutex
	left := []string{"12", "-1", ""}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Lock()
		defer n.Unlock()
		if left[0] != "" {
			w.Header().Set("x-ratelimit-limit", "750")
			w.Header().Set("x-ratelimit-remaining", left[0])
			w.Header().Set("x-ratelimit-reset", "1787216407430")
		}
		left = left[1:]
		answer(http.StatusOK, `{"data":[],"pagination":{}}`)(w, r)
	})
	if got := c.RateLimit(); got != (RateLimit{}) {
		t.Errorf("before the first reply: got %+v, want nothing", got)
	}
	reset := time.UnixMilli(1787216407430).UTC()
	for _, want := range []RateLimit{{750, 12, reset}, {750, 0, reset}, {750, 0, reset}} {
		if err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.RateLimit(); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestManyGoroutinesMayUseOneClient(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-ratelimit-limit", "750")
		w.Header().Set("x-ratelimit-remaining", "1")
		answer(http.StatusOK, `{"data":[],"pagination":{}}`)(w, r)
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := c.Ping(context.Background()); err != nil {
				t.Error(err)
			}
			c.RateLimit()
		})
	}
	wg.Wait()
}

// sameJSON compares two bodies as JSON values.
func sameJSON(t *testing.T, what, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%s: got %q: %v", what, got, err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	gb, _ := json.Marshal(g)
	wb, _ := json.Marshal(w)
	if string(gb) != string(wb) {
		t.Errorf("%s:\n got %s\nwant %s", what, gb, wb)
	}
}
