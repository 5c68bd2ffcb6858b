package main

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// Behind a pooler of transactions nobody is told what others write.
func TestWithoutNotificationsRowsOfTheHostAreTakenUpSoonAfter(t *testing.T) {
	throwAwayCluster().url(t)
	synctest.Test(t, func(t *testing.T) {
		e := postgresDatabases{throwAwayCluster()}
		s := newQuietScene(t, onEngine(e), withTasks(sceneTasks()))
		time.Sleep(time.Minute + 1234*time.Millisecond)
		e.do(t, s.cfg.database, fmt.Sprintf(`INSERT INTO worker_jobs (tag, type, due, executor)
			VALUES ('tag', 'stays', to_timestamp(%d), 'trigger'), ('tag', 'work', to_timestamp(%[1]d), 'internal')`, time.Now().Unix()))
		claimed := s.call("POST", "/api/worker/claim", `{"waitMs":20000}`)
		contains(t, string(claimed.body), `"id":2`)
		s.soonEnough(1, lookAgain, "it has a run", hasRun)
		e.do(t, s.cfg.database, "UPDATE worker_jobs SET cancel_requested = TRUE WHERE id = 1")
		s.soonEnough(1, lookAgain+cancelRecheck, "it is canceled", hasEnded)
	})
}

// Another sidejob ends a job, and this one is not told.
func TestWithoutNotificationsALongPollEndsSoonAfterTheJob(t *testing.T) {
	throwAwayCluster().url(t)
	for name, c := range map[string]struct{ waits, ends, answered time.Duration }{
		"it looks again":       {time.Minute, 6 * time.Second, 2 * lookAgain},
		"it looks at the last": {3 * time.Second, 2 * time.Second, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := postgresDatabases{throwAwayCluster()}
				w := newWorld(t, onEngine(e))
				id := w.schedule(map[string]any{"type": "work"}).ID
				begun := time.Now()
				time.AfterFunc(c.ends, func() {
					e.do(t, w.cfg.database, "UPDATE worker_jobs SET finished = due, success = TRUE")
				})
				j := w.view(w.call("GET", fmt.Sprintf("/api/jobs/%d?waitMs=%d", id, c.waits.Milliseconds()), nil))
				if took := time.Since(begun); !hasEnded(j) || took != c.answered {
					t.Errorf("answered %s after %s, want it completed after %s", j.Status, took, c.answered)
				}
			})
		})
	}
}

// A host may turn them off.
func TestNotificationsTakeAConnectionUnlessTurnedOff(t *testing.T) {
	e := postgresDatabases{throwAwayCluster()}
	for _, c := range []struct {
		args, env []string
		listens   bool
	}{
		{[]string{"--no-database-notify"}, nil, false},
		{nil, []string{"SIDEJOB_DATABASE_NOTIFY=false"}, false},
		{nil, nil, true},
	} {
		database := e.place(t)
		address := freeAddress(t)
		args := append([]string{"serve", "--no-trigger", "--listen", address, "--database", database}, c.args...)
		p := startProcess(t, t.TempDir(), append(c.env, "SIDEJOB_TOKEN=process-token"), args...)
		if _, err := p.err.waitFor(t.Context(), "sidejob serves"); err != nil {
			t.Fatal(err)
		}
		// Who listens has begun to before the first call is answered.
		if status, body, err := (hostApp{client: http.DefaultClient, base: "http://" + address}).do("POST", "/api/jobs", `{"type":"work"}`); err != nil || status != http.StatusCreated {
			t.Fatalf("schedule: got %d %s, error %v; stderr: %s", status, body, err, p.err.text())
		}
		listening := func() []string {
			return e.do(t, database, "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'")
		}
		listen := listening()
		for end := time.Now().Add(10 * time.Second); c.listens && len(listen) == 0 && time.Now().Before(end); <-time.After(20 * time.Millisecond) {
			listen = listening()
		}
		if (len(listen) > 0) != c.listens {
			t.Errorf("%v %v: connections that listen: %q; want some: %t", c.args, c.env, listen, c.listens)
		}
		p.kill()
	}
}
