package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sidejob runs a command line in this process.
func sidejob(t *testing.T, env map[string]string, args ...string) (code int, out, errs string) {
	t.Helper()
	for _, name := range []string{"TRIGGER_SECRET_KEY", "TRIGGER_SECRET_KEY_FILE", "TRIGGER_ENABLED", "DATABASE_URL", "SIDEJOB_LISTEN", "SIDEJOB_URL"} {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code = run(ctx, args, streams{in: strings.NewReader(""), out: &stdout, err: &stderr, env: os.Getenv})
	return code, stdout.String(), stderr.String()
}

func TestBadStartsAreRefusedClearly(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	keyed := map[string]string{"TRIGGER_SECRET_KEY": "tr_dev_x"}
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		code int
		says []string
	}{
		{"no key", nil, []string{"serve"}, 2, []string{"TRIGGER_SECRET_KEY", "--no-trigger", "sidejob dev"}},
		{"switched on without a key", map[string]string{"TRIGGER_ENABLED": "true"}, []string{"serve"}, 2, []string{"TRIGGER_SECRET_KEY"}},
		{"key and key file", map[string]string{"TRIGGER_SECRET_KEY": "a", "TRIGGER_SECRET_KEY_FILE": "b"}, []string{"serve"}, 2, []string{"TRIGGER_SECRET_KEY_FILE", "both"}},
		{"key file that is not there", map[string]string{"TRIGGER_SECRET_KEY_FILE": filepath.Join(dir, "none")}, []string{"serve"}, 2, []string{"TRIGGER_SECRET_KEY_FILE"}},
		{"unknown flag", keyed, []string{"serve", "--bogus"}, 2, []string{"--bogus"}},
		{"unknown command", nil, []string{"swim"}, 2, []string{"swim"}},
		{"bad duration", keyed, []string{"serve", "--sync-interval", "often"}, 2, []string{"--sync-interval"}},
		{"too short a sync interval", keyed, []string{"serve", "--sync-interval", "1ms"}, 2, []string{"--sync-interval"}},
		{"bad log level", keyed, []string{"serve", "--log-level", "loud"}, 2, []string{"--log-level"}},
		{"bad environment", map[string]string{"LOG_LEVEL": "loud", "TRIGGER_SECRET_KEY": "x"}, []string{"serve"}, 2, []string{"log-level"}},
		{"bad worker count", keyed, []string{"serve", "--worker-count", "many"}, 2, []string{"--worker-count"}},
		{"bad API address", keyed, []string{"serve", "--listen", "127.0.0.1:0", "--database", filepath.Join(dir, "a.db"), "--trigger-api-url", "ftp://x"}, 2, []string{"base URL"}},
		{"registry that is none", keyed, []string{"serve", "--registry", file("r.json", `{"x":{"executor":"robot"}}`)}, 2, []string{"x", "executor", "robot"}},
		{"a PostgreSQL that is away", keyed, []string{"serve", "--listen", "127.0.0.1:0", "--database", "postgres://u:secret@127.0.0.1:1/d"}, 1, []string{"database"}},
		{"taken port", keyed, []string{"serve", "--listen", taken.Addr().String(), "--database", filepath.Join(dir, "b.db")}, 1, []string{taken.Addr().String(), "--listen"}},
		{"taken emulator port", nil, []string{"dev", "--listen", "127.0.0.1:0", "--emulator-listen", taken.Addr().String(), "--database", filepath.Join(dir, "c.db")}, 1, []string{taken.Addr().String(), "--emulator-listen"}},
		{"a database that is none", keyed, []string{"serve", "--listen", "127.0.0.1:0", "--database", file("text.db", "this is no database, it is a text")}, 1, []string{"text.db", "not a SQLite database"}},
		{"a database in no folder", keyed, []string{"serve", "--listen", "127.0.0.1:0", "--database", filepath.Join(dir, "none", "x.db")}, 1, []string{"folder"}},
		{"tasks that are none", nil, []string{"emulator", "--emulator-tasks", file("tasks.json", `{"t":{"durationMs":"long"}}`)}, 2, []string{"durationMs"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := sidejob(t, c.env, c.args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d; stderr: %s", code, c.code, errs)
			}
			if out != "" {
				t.Errorf("stdout has %q", out)
			}
			contains(t, errs, c.says...)
			if strings.Contains(errs, "secret@") || strings.Contains(errs, "goroutine") {
				t.Errorf("stderr shows too much: %s", errs)
			}
		})
	}
	for _, name := range []string{"b.db", "c.db", "c.db.emulator"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("a refused start has left %s behind", name)
		}
	}
}

// A column that is missing is met only after the database was opened.
func TestAStartThatFailsEndsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odd.db")
	if code, _, errs := sidejob(t, nil, "db", "init", "--database", path); code != 0 {
		t.Fatalf("db init: exit code %d: %s", code, errs)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`ALTER TABLE worker_jobs RENAME COLUMN missed_at TO gone`); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	code, _, errs := sidejob(t, map[string]string{"TRIGGER_SECRET_KEY": "tr_dev_x"}, "serve", "--listen", "127.0.0.1:0", "--database", path)
	if took := time.Since(begun); code != exitFailure || took > 10*time.Second {
		t.Errorf("exit code %d after %s, want %d at once; stderr: %s", code, took, exitFailure, errs)
	}
	contains(t, errs, "read schedules")
}

func TestHelpIsComplete(t *testing.T) {
	code, out, _ := sidejob(t, nil, "--help")
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	contains(t, out, "dev", "serve", "emulator", "job schedule", "job why", "reconcile", "sync", "openapi", "version")
	code, out, _ = sidejob(t, nil, "serve", "--help")
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	contains(t, out, "--database", "DATABASE_URL", "--webhook-listen", "--drain-timeout", "--[no-]trigger")
}

func TestOpenAPIListsEveryCall(t *testing.T) {
	code, out, errs := sidejob(t, nil, "openapi")
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(out), &doc); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v, %s", code, err, errs)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("it is OpenAPI %s, want 3.1", doc.OpenAPI)
	}
	for path, method := range map[string]string{
		"/api/jobs": "post", "/api/jobs/batch": "post", "/api/jobs/{id}": "get", "/api/jobs/{id}/events": "get",
		"/api/jobs/{id}/cancel": "post", "/api/jobs/{id}/retry": "post", "/api/jobs/count": "get", "/api/jobs/cleanup": "post",
		"/api/reconcile": "post", "/api/sync": "post", "/api/registry": "get", "/api/stats": "get", webhookPath: "post",
	} {
		if _, ok := doc.Paths[path][method]; !ok {
			t.Errorf("%s %s is missing", method, path)
		}
	}
}

func TestANewerDatabaseIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "newer.db")
	store, err := openSQLite(t.Context(), path, now())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	code, _, errs := sidejob(t, nil, "serve", "--no-trigger", "--listen", "127.0.0.1:0", "--database", path)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	contains(t, errs, "newer sidejob")
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed (%v)", err)
	}
}

// TestServeDrainsAndLeaves starts a real process, uses it as a host would, and ends
// it with SIGTERM while a long poll is under way.
func TestServeDrainsAndLeaves(t *testing.T) {
	t.Parallel()
	address, dir := freeAddress(t), t.TempDir()
	truth := startEmulatorProcess(t, "", "")
	env := []string{"TRIGGER_SECRET_KEY=tr_dev_serve", "TRIGGER_API_URL=" + truth}
	p := startProcess(t, dir, env, "serve", "--listen", address)
	if _, err := p.err.waitFor(t.Context(), "sidejob serves"); err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(dir, "sidejob.token"))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "sidejob.token")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token file has mode %v (%v), want 0600", info.Mode(), err)
	}
	host := hostApp{base: "http://" + address, client: &http.Client{Timeout: 30 * time.Second}}
	if status, _, err := host.do("GET", "/api/jobs", ""); err != nil || status != http.StatusUnauthorized {
		t.Errorf("with a wrong token: %d %v, want 401", status, err)
	}
	bearer := "Bearer " + strings.TrimSpace(string(token))
	body := `{"type":"t","executor":"trigger","triggerTaskId":"cancellable-task","data":{"iterations":100}}`
	if status, answer, err := host.do("POST", "/api/jobs", body, "Authorization", bearer); err != nil || status != http.StatusCreated {
		t.Fatalf("schedule: %d %s %v", status, answer, err)
	}
	second := startProcess(t, dir, env, "serve", "--listen", freeAddress(t))
	if code := second.exit(20 * time.Second); code != 1 {
		t.Errorf("a second sidejob on the same file exits with %d, want 1", code)
	}
	contains(t, second.err.text(), "open in another sidejob")

	polled := make(chan int, 1)
	go func() {
		status, _, _ := host.do("GET", "/api/jobs/1?waitMs=60000", "", "Authorization", bearer)
		polled <- status
	}()
	if _, _, err := host.do("GET", "/livez", ""); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(20 * time.Second); code != 0 {
		t.Errorf("after SIGTERM it exits with %d, want 0; stderr: %s", code, p.err.text())
	}
	<-polled
	contains(t, p.err.text(), `"msg":"Starting Trigger.dev job reconciliation"`, `"msg":"Found 0 unfinished Trigger.dev jobs"`, `"msg":"Reconciliation complete"`)
}

// TestDevTellsItsStory does what the README's first lines say.
func TestDevTellsItsStory(t *testing.T) {
	t.Parallel()
	dir, address := t.TempDir(), freeAddress(t)
	p := startProcess(t, dir, nil, "dev", "--listen", address, "--emulator-listen", freeAddress(t))
	line, err := p.out.waitFor(t.Context(), "  curl ")
	if err != nil {
		t.Fatal(err)
	}
	words := shellWords(line)
	host := hostApp{client: &http.Client{Timeout: 10 * time.Second}, base: "http://" + address}
	if !strings.Contains(line, host.base+"/api/jobs") {
		t.Fatalf("the printed curl is %s, want it to call %s", line, host.base)
	}
	if status, answer, err := host.do("POST", "/api/jobs", words[len(words)-1]); err != nil || status != http.StatusCreated {
		t.Fatalf("%s: %d %s %v", line, status, answer, err)
	}
	if status, _, err := host.do("GET", "/api/jobs/2?waitMs=20000", ""); err != nil || status != http.StatusOK {
		t.Fatalf("wait: %d %v", status, err)
	}
	why := startProcess(t, dir, []string{"SIDEJOB_URL=http://" + address}, "job", "why", "2")
	if code := why.exit(20 * time.Second); code != 0 {
		t.Errorf("job why exits with %d: %s", code, why.err.text())
	}
	contains(t, why.out.text(), "scheduled", "run_", "COMPLETED")
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(20 * time.Second); code != 0 {
		t.Errorf("after an interrupt it exits with %d: %s", code, p.err.text())
	}
}
