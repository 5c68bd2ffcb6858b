package main

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestAFullDiskIsARefusalAndNoEnd lets no file of a server grow, as ulimit -f does,
// and then lifts that. What was acknowledged before and after is there.
func TestAFullDiskIsARefusalAndNoEnd(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	p := startProcess(t, dir, []string{"SIDEJOB_TOKEN=process-token"}, "serve", "--no-trigger", "--listen", address, "--database", "full.db", "--worker-count", "0")
	if _, err := p.err.waitFor(t.Context(), "sidejob serves"); err != nil {
		t.Fatal(err)
	}
	app := hostApp{base: "http://" + address, client: &http.Client{Timeout: 10 * time.Second}}
	want := func(what, key string, status int, part string) {
		t.Helper()
		got, body, err := app.do("POST", "/api/jobs", `{"type":"work"}`, "Idempotency-Key", key)
		if err != nil || got != status || !strings.Contains(string(body), part) {
			t.Errorf("%s: got %d %s (%v), want %d %s", what, got, body, err, status, part)
		}
	}
	limit := func(bytes uint64) {
		t.Helper()
		if err := limitFiles(p.cmd.Process.Pid, bytes); err != nil {
			t.Fatal(err)
		}
	}
	want("before", "before", 201, `"id":1`)
	for range 3 {
		limit(0)
		want("full", "key", 503, "database_unavailable")
		limit(unlimited)
	}
	want("freed", "key", 201, `"id":2`)
	want("before, again", "before", 201, `"id":1`)
}
