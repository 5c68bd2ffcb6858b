package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestAPostgreSQLThatIsAwayIsARefusalAndNoEnd takes the database away from a server that
// runs and gives it back, for each call that needs it.
func TestAPostgreSQLThatIsAwayIsARefusalAndNoEnd(t *testing.T) {
	database, host := throwAwayCluster().freshDatabase(t)
	admin, address := throwAwayCluster().connect(t, throwAwayCluster().url(t)), freeAddress(t)
	var name string
	if err := host.QueryRow("SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, t.TempDir(), []string{"SIDEJOB_TOKEN=process-token", "DATABASE_URL=" + database}, "serve", "--no-trigger", "--listen", address)
	if _, err := p.err.waitFor(t.Context(), "sidejob serves"); err != nil {
		t.Fatal(err)
	}
	calls := []struct{ method, path, body string }{
		{"POST", "/api/jobs", `{"type":"work"}`},
		{"POST", "/api/jobs/batch", `{"jobs":[{"type":"work"}]}`},
		{"GET", "/api/jobs/2", ""},
		{"GET", "/api/jobs/2/events", ""},
		{"GET", "/api/jobs?limit=2", ""},
		{"GET", "/api/jobs/count", ""},
		{"GET", "/api/stats", ""},
		{"GET", "/readyz", ""},
		{"POST", "/api/worker/claim", `{"types":["other"]}`},
		{"POST", "/api/jobs/1/pause", "{}"},
		{"POST", "/api/jobs/2/cancel", "{}"},
		{"POST", "/api/jobs/cleanup", "{}"},
	}
	sql := func(text string) {
		t.Helper()
		if _, err := admin.Exec(text); err != nil {
			t.Fatal(err)
		}
	}
	const cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '%s' AND backend_type = 'client backend'"
	for _, c := range calls {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			call := func() (int, string) {
				t.Helper()
				return bearerCall(t, c.method, "http://"+address+c.path, c.body)
			}
			if status, body := call(); status >= 300 {
				t.Fatalf("at first: %d %s", status, body)
			}
			sql(fmt.Sprintf("ALTER DATABASE %s ALLOW_CONNECTIONS false", name))
			sql(fmt.Sprintf(cut, name))
			for range 12 { // each connection of the pool finds out for itself
				if status, body := call(); status != http.StatusServiceUnavailable {
					t.Errorf("away: %d %s, want 503", status, body)
				}
			}
			sql(fmt.Sprintf("ALTER DATABASE %s ALLOW_CONNECTIONS true", name))
			if status, body := call(); status >= 300 {
				t.Errorf("back: %d %s", status, body)
			}
		})
	}
}

// bearerCall makes a call as a host app does. A refusal must say when to come again.
func bearerCall(t *testing.T, method, url, body string, header ...string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer process-token")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Timeout: 10 * time.Second}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") == "" {
		t.Errorf("%s %s: a 503 without Retry-After: %s", method, url, text)
	}
	return res.StatusCode, string(text)
}
