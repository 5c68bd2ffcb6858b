package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
)

func TestOnlyOurNamesAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withConfig(func(c *config) {
			c.hosts = []string{"jobs.internal", "Sidejob.Example:8080", "192.0.2.7:7766", "[fd00::7]:7766", "fd00::8"}
		}))
		for _, host := range []string{
			"localhost", "LocalHost", "localhost:7766", "127.0.0.1", "127.0.0.1:7766", "127.8.9.10", "[::1]", "[::1]:7766", "[0:0:0:0:0:0:0:1]:1",
			"[::ffff:127.0.0.1]:80", "jobs.internal", "JOBS.internal:1", "sidejob.example", "sidejob.example:8080", "192.0.2.7", "192.0.2.7:1", "[fd00::7]", "[fd00::8]:7766",
		} {
			if r := w.call("GET", "/api/stats", nil, "Host", host); r.status != 200 {
				t.Errorf("%s: got %d %s, want 200", host, r.status, r.body)
			}
		}
		for _, host := range []string{
			"", "evil.example", "evil.example:7766", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io", "evil.example:localhost",
			"0.0.0.0", "0.0.0.0:7766", "[::]:7766", "192.0.2.8", "10.0.0.1:7766", "[fd00::9]", "[::2]", "notlocalhost", "jobs.internal.", "xjobs.internal",
			"2130706433", "0x7f000001", "localhost@evil.example", "evil.example#localhost", " localhost",
		} {
			for _, call := range []string{"GET /api/stats", "POST /api/jobs", "GET /", "GET /docs", "GET /openapi.json", "GET /metrics", "GET /nothing", "POST " + webhookPath} {
				method, path, _ := strings.Cut(call, " ")
				wantProblem(t, host+" "+call, w.call(method, path, `{"type":"work"}`, "Host", host), 421, "wrong_host")
			}
			for _, probe := range []string{"/livez", "/readyz"} {
				if r := w.call("GET", probe, nil, "Host", host); r.status != 200 {
					t.Errorf("%s %s: got %d, want 200: probes come from anywhere", host, probe, r.status)
				}
			}
		}
		if n := w.countAll(); n != 0 {
			t.Errorf("there are %d jobs, want none", n)
		}
	})
}

func TestPagesOfOtherSitesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, header := range [][]string{
			{"Origin", "https://evil.example"}, {"Origin", "http://localhost:3000"}, {"Origin", "null"}, {"Origin", "http://localhost.evil.example"},
			{"Origin", "http://evil.example/localhost"}, {"Origin", "http://localhost@evil.example"}, {"Origin", "localhost"}, {"Origin", "%%"},
			{"Origin", "http://127.0.0.1"}, // not the name it was called by
			{"Sec-Fetch-Site", "cross-site"}, {"Origin", "http://localhost", "Sec-Fetch-Site", "cross-site"},
		} {
			for _, call := range []string{"POST /api/jobs", "GET /api/jobs", "GET /", "OPTIONS /api/jobs", "POST " + webhookPath} {
				method, path, _ := strings.Cut(call, " ")
				wantProblem(t, fmt.Sprint(header, call), w.call(method, path, `{"type":"work"}`, header...), 403, "cross_site")
			}
		}
		for i, header := range [][]string{
			{}, {"Origin", "http://localhost"}, {"Origin", "https://LOCALHOST"}, {"Sec-Fetch-Site", "same-origin"}, {"Sec-Fetch-Site", "none"},
			{"Host", "127.0.0.1:7766", "Origin", "http://127.0.0.1:7766"}, {"Host", "[::1]:7766", "Origin", "http://[::1]:7766"},
		} {
			if r := w.call("POST", "/api/jobs", `{"type":"work"}`, header...); r.status != 201 || w.countAll() != int64(i)+1 {
				t.Errorf("%q: got %d %s, want 201", header, r.status, r.body)
			}
		}
		if r := w.call("GET", "/livez", nil, "Origin", "https://evil.example"); r.status != 200 {
			t.Errorf("livez: got %d, want 200", r.status)
		}
	})
}

func TestTheTokenOpensEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withConfig(func(c *config) { c.token = "correct-horse" }))
		closed := []string{
			"GET /api/jobs", "POST /api/jobs", "POST /api/jobs/batch", "GET /api/jobs/1", "POST /api/jobs/1/cancel", "GET /api/stats", "GET /metrics",
			"GET /openapi.json", "GET /openapi.yaml", "GET /nothing", "GET " + webhookPath, "GET /api", "POST /", "POST /docs", "POST /dashboard/app.js",
			"PUT /dashboard/x", "GET /dashboard", "GET /docs/", "GET //", "GET /livez/", "GET /readyz/..", "DELETE /docs",
		}
		for _, call := range closed {
			method, path, _ := strings.Cut(call, " ")
			for _, sent := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "Bearer correct-hors", "Bearer correct-horse2", "Basic correct-horse", "correct-horse", "Bearercorrect-horse", "Bearer correct-horse,x"} {
				header := []string{"Authorization", sent, "Idempotency-Key", "k"}
				if sent == "" {
					header = header[2:]
				}
				r := w.call(method, path, `{"type":"work"}`, header...)
				wantProblem(t, call+" with "+sent, r, 401, "unauthorized")
				if got := r.header.Get("WWW-Authenticate"); got != "Bearer" {
					t.Errorf("%s: WWW-Authenticate is %q, want Bearer", call, got)
				}
			}
		}
		for _, sent := range []string{"Bearer correct-horse", "bearer correct-horse", "BEARER  correct-horse "} {
			if r := w.call("GET", "/api/jobs", nil, "Authorization", sent); r.status != 200 {
				t.Errorf("%q: got %d, want 200", sent, r.status)
			}
		}
		for _, open := range []string{"GET /livez", "GET /readyz", "GET /", "HEAD /", "GET /docs", "GET /dashboard/app.js"} {
			method, path, _ := strings.Cut(open, " ")
			if r := w.call(method, path, nil); r.status != 200 {
				t.Errorf("%s: got %d %.100s, want 200 without a token", open, r.status, r.body)
			}
		}
		wantProblem(t, "an event that is not signed", w.call("POST", webhookPath, `{}`), 401, "bad_signature")
		if n := w.jobsOf("correct-horse"); n != 0 {
			t.Errorf("there are %d jobs, want none", n)
		}
		kept, err := w.srv.store.Reserve(t.Context(), Reservation{Key: "POST /api/jobs k", Digest: "x", Owner: "test", At: now()})
		if err != nil || kept.Status != 0 {
			t.Errorf("who showed no token has left a reply %+v, error %v", kept, err)
		}
	})
}

func (w *world) jobsOf(token string) (n int) {
	w.t.Helper()
	var body struct{ Count int }
	w.call("GET", "/api/jobs/count", nil, "Authorization", "Bearer "+token).into(w.t, &body)
	return body.Count
}

func TestNobodyGetsAroundTheGuard(t *testing.T) {
	w := newWorld(t, withConfig(func(c *config) { c.token = "correct-horse" }))
	for _, path := range []string{
		"/dashboard/../api/jobs", "/dashboard/%2e%2e/api/jobs", "/dashboard/..%2fapi/jobs", "/docs/../api/jobs", "//api/jobs", "/./api/jobs", "/livez/../api/jobs",
		"/dashboard//../api/jobs", "/dashboard/%2e%2e%2fapi%2fjobs", "/%61pi/jobs", "/API/jobs",
	} {
		for _, method := range []string{"GET", "POST"} {
			if r := w.call(method, path, `{"type":"work"}`); r.status < 300 {
				t.Errorf("%s %s: got %d %s without a token", method, path, r.status, r.body)
			}
		}
	}
	if n := w.jobsOf("correct-horse"); n != 0 {
		t.Errorf("there are %d jobs, want none", n)
	}
}

func TestUnderDevNobodyNeedsAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, sent := range []string{"", "Bearer whatever", "Basic eDp5"} {
			if r := w.call("GET", "/api/jobs", nil, "Authorization", sent); r.status != 200 {
				t.Errorf("%q: got %d, want 200", sent, r.status)
			}
		}
	})
}

func TestTheTokenFileIsMadeOnceAndForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sidejob.token")
	token, err := readToken(path)
	if err != nil || len(token) != 64 {
		t.Fatalf("got token %q, error %v; want 64 hex digits", token, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, error %v; want 0600", info.Mode(), err)
	}
	if again, err := readToken(path); again != token || err != nil {
		t.Errorf("read again, it is %q, error %v; want the same", again, err)
	}
	other, err := readToken(filepath.Join(t.TempDir(), "sidejob.token"))
	if err != nil || other == token {
		t.Errorf("another file has the token %q, error %v; want a fresh one", other, err)
	}
	if err := os.WriteFile(path, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := readToken(path); err == nil {
		t.Errorf("an empty file gives the token %q, want an error", token)
	}
	if token, err := readToken(filepath.Join(path, "beside")); err == nil {
		t.Errorf("no folder gives the token %q, want an error", token)
	}
	w := newWorld(t, withConfig(func(c *config) { c.tokenFile = filepath.Join(t.TempDir(), "t") }))
	made, err := os.ReadFile(w.cfg.tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	wantProblem(t, "without it", w.call("GET", "/api/jobs", nil), 401, "unauthorized")
	if r := w.call("GET", "/api/jobs", nil, "Authorization", "Bearer "+strings.TrimSpace(string(made))); r.status != 200 {
		t.Errorf("with the file's token: got %d, want 200", r.status)
	}
}

func TestAServerOverASocket(t *testing.T) {
	w := newWorld(t)
	srv := httptest.NewServer(w.srv.private)
	defer srv.Close()
	res, err := http.Get(srv.URL + "/api/jobs/1")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	wantProblem(t, "no such job", answer{res.StatusCode, res.Header, body}, 404, "not_found")
	for name, c := range map[string]struct{ raw, status string }{
		"a chunked body":             {"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n{\"type\":\"work\"}\r\n0\r\n\r\n", "201"},
		"a chunked body of no type":  {"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n{\"type\":\"work\"}\r\n0\r\n\r\n", "415"},
		"a body announced too large": {"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 1048577\r\n\r\n" + strings.Repeat(" ", 1<<20+1), "413"},
		"an absolute target":         {"GET http://evil.example/api/stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "421"},
		"no host":                    {"GET /api/stats HTTP/1.0\r\n\r\n", "421"},
		"a body cut off":             {"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{\"type\":\"work\"}", "400"},
	} {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, c.raw); err != nil {
			t.Fatal(err)
		}
		if name == "a body cut off" {
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		got, _ := io.ReadAll(conn)
		if !strings.HasPrefix(string(got), "HTTP/1.1 "+c.status) && !strings.HasPrefix(string(got), "HTTP/1.0 "+c.status) {
			t.Errorf("%s: got %.200q, want %s", name, got, c.status)
		}
		conn.Close()
	}
	if n := w.countAll(); n != 1 {
		t.Errorf("there are %d jobs, want the one of the chunked body", n)
	}
}

func TestThePublicListenerServesTheWebhookAlone(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/", "/docs", "/api/jobs", "/api/stats", "/metrics", "/readyz", "/openapi.json", "/dashboard/app.js", "/api/jobs/1/cancel"} {
		for _, method := range []string{"GET", "POST"} {
			wantProblem(t, method+" "+path, callHandler(t, w.srv.public, method, path, nil, "Host", "hooks.example.com"), 404, "no_such_path")
		}
	}
	if r := callHandler(t, w.srv.public, "GET", "/livez", nil, "Host", "hooks.example.com"); r.status != 200 {
		t.Errorf("livez: got %d, want 200", r.status)
	}
	if r := callHandler(t, w.srv.public, "POST", webhookPath, `{}`, "Host", "hooks.example.com"); r.status != 401 {
		t.Errorf("the webhook: got %d, want 401 for an event that is not signed", r.status)
	}
	wantProblem(t, "another method", callHandler(t, w.srv.public, "GET", webhookPath, nil), 405, "method_not_allowed")
}
