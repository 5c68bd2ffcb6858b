package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// drains begins the server's shutdown; over tells how long that took.
func (w *world) drains() (over <-chan time.Duration) {
	w.t.Helper()
	took, begun, srv := make(chan time.Duration, 1), time.Now(), w.srv
	go func() {
		if err := srv.shutdown(); err != nil {
			w.t.Errorf("shut the server down: %v", err)
		}
		took <- time.Since(begun)
	}()
	synctest.Wait()
	return took
}

func wantDrained(t *testing.T, w *world, over <-chan time.Duration, want time.Duration) {
	t.Helper()
	if took := <-over; took != want {
		t.Errorf("the shutdown took %s, want %s", took, want)
	}
	w.srv = nil
}

func TestAServerThatDrainsTakesNothingNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.schedule(`{"type":"work"}`).ID
		ended := w.schedule(`{"type":"work"}`).ID
		w.says(ended, "complete", `{}`)
		j := w.claimOne(`{}`)
		w.schedule(`{"type":"work"}`)
		over := w.drains()
		for path, body := range map[string]string{
			"/api/jobs": `{"type":"work"}`, "/api/jobs/batch": `{"jobs":[{"type":"work"}]}`, fmt.Sprintf("/api/jobs/%d/retry", ended): `{}`,
			"/api/worker/claim": `{"waitMs":60000}`, "/api/jobs/3/start": `{}`,
		} {
			r := w.call("POST", path, body)
			wantProblem(t, path, r, 503, "draining")
			if r.header.Get("Retry-After") == "" {
				t.Errorf("%s: no Retry-After in %v", path, r.header)
			}
		}
		if n := w.countAll(); n != 3 {
			t.Errorf("there are %d jobs, want the three from before", n)
		}
		w.says(id, "complete", withToken(j.LeaseToken))
		wantDrained(t, w, over, 0)
	})
}

func TestAServerDrainsWhileWorkersHoldJobs(t *testing.T) {
	for name, c := range map[string]struct {
		does   func(w *world, j takenJob)
		took   time.Duration
		status string
	}{
		"and one completes":   {func(w *world, j takenJob) { w.says(j.ID, "complete", withToken(j.LeaseToken)) }, 3 * time.Second, "COMPLETED"},
		"and one fails":       {func(w *world, j takenJob) { w.says(j.ID, "fail", withToken(j.LeaseToken)) }, 3 * time.Second, "FAILED"},
		"and one gives back":  {func(w *world, j takenJob) { w.says(j.ID, "release", withToken(j.LeaseToken)) }, 3 * time.Second, "PENDING"},
		"and one is canceled": {func(w *world, j takenJob) { w.says(j.ID, "cancel", `{}`) }, 3 * time.Second, "CANCELED"},
		"at most its timeout": {func(*world, takenJob) {}, 25 * time.Second, "EXECUTING"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, withConfig(func(c *config) { c.drain = 25 * time.Second }))
				w.schedule(`{"type":"work"}`)
				j := w.claimOne(`{"leaseMs":60000}`)
				over := w.drains()
				time.Sleep(3 * time.Second)
				if r := w.says(j.ID, "heartbeat", withToken(j.LeaseToken)); r.status != 200 {
					t.Errorf("a heartbeat while draining: got %d %s, want it taken", r.status, r.body)
				}
				c.does(w, j)
				wantDrained(t, w, over, c.took)
				w.boot()
				if got := w.get(j.ID).Status; got != c.status {
					t.Errorf("afterwards the job is %s, want %s", got, c.status)
				}
			})
		})
	}
}

func TestADrainWaitsForNoLeaseThatHasRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withConfig(func(c *config) { c.drain = 25 * time.Second }))
		w.schedule(`{"type":"work"}`)
		w.claimOne(`{"leaseMs":4000}`)
		wantDrained(t, w, w.drains(), 4*time.Second)
		w.boot()
		synctest.Wait()
		if got := w.get(1); got.Status != "PENDING" || got.Attempt != 1 {
			t.Errorf("afterwards it is %s after %d tries, want it claimable again", got.Status, got.Attempt)
		}
	})
}

func TestLongPollsOfWorkersEndWhenDrainingBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		came := w.poll(`{"waitMs":60000}`)
		time.Sleep(3 * time.Second)
		over := w.drains()
		if got := <-came; got.after != 3*time.Second || len(got.jobs) != 0 {
			t.Errorf("got %+v, want no jobs at once", got)
		}
		wantDrained(t, w, over, 0)
	})
}

// TestTERMWaitsForTheWorker is the drain as an operator sees it.
func TestTERMWaitsForTheWorker(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	p := startProcess(t, t.TempDir(), []string{"SIDEJOB_TOKEN=process-token"}, "serve", "--no-trigger", "--listen", address)
	if _, err := p.err.waitFor(t.Context(), "sidejob serves"); err != nil {
		t.Fatal(err)
	}
	host := hostApp{client: &http.Client{Timeout: 30 * time.Second}, base: "http://" + address}
	post := func(path, body string, want int) []byte {
		t.Helper()
		status, answer, err := host.do("POST", path, body)
		if err != nil || status != want {
			t.Errorf("POST %s: got %d %s, error %v; want %d", path, status, answer, err, want)
		}
		return answer
	}
	post("/api/jobs", `{"type":"work","tag":"held"}`, 201)
	var claimed struct{ Jobs []takenJob }
	if err := json.Unmarshal(post("/api/worker/claim", `{"worker":"host"}`, 200), &claimed); err != nil || len(claimed.Jobs) != 1 {
		t.Fatalf("claim: got %+v, error %v; want one job", claimed, err)
	}
	j := claimed.Jobs[0]
	polled := make(chan int, 1)
	go func() {
		status, _, _ := host.do("POST", "/api/worker/claim", `{"waitMs":60000}`)
		polled <- status
	}()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := p.err.waitFor(t.Context(), "draining"); err != nil {
		t.Fatal(err)
	}
	if status := <-polled; !slices.Contains([]int{200, 503}, status) {
		t.Errorf("the long poll got %d, want no jobs, or the news that the server drains", status)
	}
	contains(t, string(post("/api/jobs", `{"type":"work"}`, 503)), `"draining"`)
	post(fmt.Sprintf("/api/jobs/%d/heartbeat", j.ID), withToken(j.LeaseToken), 200)
	post(fmt.Sprintf("/api/jobs/%d/complete", j.ID), withToken(j.LeaseToken, `"result":"done"`), 200)
	if code := p.exit(10 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0; stderr: %s", code, p.err.text())
	}
}
