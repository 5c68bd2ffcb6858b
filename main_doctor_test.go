package main

import (
	"database/sql"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patient is a running sidejob before a Trigger.dev, over sockets, and what the doctor
// is told of both.
type patient struct {
	*world
	env map[string]string
}

func newPatient(t *testing.T, options ...worldOption) *patient {
	t.Helper()
	t.Chdir(t.TempDir())
	w := newWorld(t, append([]worldOption{withConfig(func(c *config) { c.token = "let-me-in" })}, options...)...)
	w.shows = w.cfg.token
	api, remote := httptest.NewServer(w.srv.private), httptest.NewServer(w.emu)
	t.Cleanup(api.Close)
	t.Cleanup(remote.Close)
	return &patient{world: w, env: map[string]string{
		"DATABASE_URL": w.cfg.database, "SIDEJOB_URL": api.URL, "SIDEJOB_TOKEN": "let-me-in",
		"TRIGGER_API_URL": remote.URL, "TRIGGER_SECRET_KEY": "tr_dev_test", "TRIGGER_WEBHOOK_SECRET": worldSecret,
	}}
}

// examine is what the doctor says, by check: the findings, and all the rest.
func (p *patient) examine(args ...string) (code int, found, rest map[string]string) {
	p.t.Helper()
	code, out, errs := sidejob(p.t, p.env, append([]string{"doctor", "-o", "json"}, args...)...)
	var report struct{ Checks []finding }
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		p.t.Fatalf("doctor: exit code %d, %s%s: %v", code, out, errs, err)
	}
	found, rest = map[string]string{}, map[string]string{}
	for _, f := range report.Checks {
		if f.State == "finding" {
			found[f.Check] += f.Says + " → " + f.Fix + "\n"
			continue
		}
		rest[f.Check] += f.State + ": " + f.Says + "\n"
	}
	return code, found, rest
}

// exec writes the database as somebody else would.
func (p *patient) exec(t *testing.T, text string) {
	t.Helper()
	db, err := sql.Open("sqlite", p.cfg.database+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(text); err != nil {
		t.Fatal(err)
	}
}

func TestDoctorFindsNothingWhereAllIsWell(t *testing.T) {
	for engine, address := range map[string]func(*testing.T) string{
		"SQLite": func(t *testing.T) string { return filepath.Join(t.TempDir(), "sidejob.db") },
		"PostgreSQL": func(t *testing.T) string {
			address, _ := throwAwayCluster().freshDatabase(t)
			return address
		},
	} {
		t.Run(engine, func(t *testing.T) {
			p := newPatient(t, withTasks(sceneTasks()), withConfig(func(c *config) { c.database = address(t) }))
			p.wait(p.triggerJob("ok").ID)
			await(t, "the server is ready", func() bool { v, _ := ready(t, p.world); return v.Status == "ready" })
			code, found, rest := p.examine()
			if code != 0 || len(found) > 0 {
				t.Errorf("exit code %d, found %q; want 0 and nothing", code, found)
			}
			contains(t, rest["key"], "takes the key (environment dev)")
			contains(t, rest["database"], engine+", schema")
			contains(t, rest["webhook"], "ok: an event went to "+p.env["SIDEJOB_URL"])
			for _, check := range []string{"environment", "workers", "runs", "server", "token", "clock"} {
				contains(t, rest[check], "ok: ")
			}
			v, leader := ready(t, p.world)
			if engine == "PostgreSQL" {
				contains(t, rest["leader"], leader+" leads, in term 1; 1 instance")
			}
			contains(t, rest["server"], "led by itself ("+v.Instance+")")
			for check, says := range rest {
				for _, secret := range []string{"tr_dev_test", "let-me-in", worldSecret} {
					if strings.Contains(says, secret) {
						t.Errorf("%s shows a secret: %s", check, says)
					}
				}
			}
		})
	}
}

func TestDoctorNamesEachAilmentAndItsCure(t *testing.T) {
	for name, c := range map[string]struct {
		ail   func(*testing.T, *patient)
		check string
		want  []string
	}{
		"a flag that serve refuses": {func(_ *testing.T, p *patient) { p.env["WORKER_COUNT"] = "many" }, "environment", []string{"--worker-count", "refuse"}},
		"a key that is not taken": {func(_ *testing.T, p *patient) { p.env["TRIGGER_SECRET_KEY"] = "tr_nonsense" }, "key",
			[]string{"401", "API keys"}},
		"no Trigger.dev": {func(_ *testing.T, p *patient) { p.env["TRIGGER_API_URL"] = "http://127.0.0.1:1" }, "key", []string{"refused", "HTTPS_PROXY"}},
		"a clock of its own": {func(t *testing.T, p *patient) {
			early := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", time.Now().Add(-time.Minute).UTC().Format(http.TimeFormat))
				p.emu.ServeHTTP(w, r)
			}))
			t.Cleanup(early.Close)
			p.env["TRIGGER_API_URL"] = early.URL
		}, "clock", []string{"1m", "ahead of Trigger.dev's", "NTP"}},
		"a key of another environment": {func(t *testing.T, p *patient) {
			p.exec(t, `INSERT INTO worker_jobs (tag, type, due, created_at, updated_at, executor, trigger_run_id, trigger_environment, trigger_status)
				VALUES ('t', 't', 1, 1, 1, 'trigger', 'run_elsewhere', 'env_prod', 'EXECUTING')`)
		}, "runs", []string{"1 open runs are in another environment", "(dev)"}},
		"a worker without leases": {func(t *testing.T, p *patient) {
			p.exec(t, `INSERT INTO worker_jobs (tag, type, due, created_at, updated_at, started) VALUES ('t', 't', 1, 1, 1, 2)`)
		}, "workers", []string{"1 internal jobs", "own worker loop off"}},
		"a database of somebody else": {func(t *testing.T, p *patient) {
			p.env["DATABASE_URL"] = filepath.Join(t.TempDir(), "foreign.db")
			makeSQLite(t, p.env["DATABASE_URL"], "CREATE TABLE worker_jobs (id INTEGER)")
		}, "database", []string{"sidejob did not make"}},
		"another token":  {func(_ *testing.T, p *patient) { p.env["SIDEJOB_TOKEN"] = "guess" }, "token", []string{"does not take the token"}},
		"another secret": {func(_ *testing.T, p *patient) { p.env["TRIGGER_WEBHOOK_SECRET"] = worldSecret + ",guess" }, "webhook", []string{"secret 2 of 2", "does not fit"}},
		"a wrong address before the server": {func(t *testing.T, p *patient) {
			wall := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(wall.Close)
			p.env["WALL"] = wall.URL
		}, "webhook", []string{"answered 404", webhookPath}},
		"a Trigger.dev that fails": {func(t *testing.T, p *patient) {
			p.faults(fault("", "", "status", "status", 500))
			for range degradedAfter {
				p.call("POST", "/api/jobs?waitMs=0", `{"type":"ok","executor":"trigger","triggerTaskId":"ok"}`)
			}
			await(t, "the failures are noticed", func() bool { v, _ := ready(t, p.world); return v.Status == "degraded" })
			p.env["TRIGGER_API_URL"] = "http://127.0.0.1:1"
		}, "server", []string{"Trigger.dev"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t, withTasks(sceneTasks()))
			p.wait(p.triggerJob("ok").ID)
			await(t, "the server is ready", func() bool { v, _ := ready(t, p.world); return v.Status == "ready" })
			c.ail(t, p)
			var args []string
			if wall := p.env["WALL"]; wall != "" {
				args = []string{"--webhook-url", wall}
			}
			code, found, _ := p.examine(args...)
			if code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			contains(t, found[c.check], c.want...)
			for check := range found {
				if check != c.check && check != "key" {
					t.Errorf("%s was found as well: %s", check, found[check])
				}
			}
		})
	}
}

func TestDoctorLooksBeforeTheFirstStart(t *testing.T) {
	t.Chdir(t.TempDir())
	p := &patient{world: &world{t: t}, env: map[string]string{"TRIGGER_ENABLED": "false", "SIDEJOB_URL": "http://127.0.0.1:1"}}
	code, found, rest := p.examine()
	if code != 0 || len(found) > 0 {
		t.Errorf("exit code %d, found %q; want 0 and nothing", code, found)
	}
	contains(t, rest["database"], "there is none yet")
	contains(t, rest["key"], "skipped: Trigger.dev is switched off")
	contains(t, rest["server"], "skipped: no sidejob answers")
	if files, err := filepath.Glob("*"); err != nil || len(files) > 0 {
		t.Errorf("it left %v behind, error %v; want nothing", files, err)
	}
}
