package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/job"
)

// TestEverySecondThroughAKill has jobs recur every second for half a minute of real
// time, in the midst of which sidejob is killed and started again three seconds later.
// No second fires twice, and one that does not fire is one that the policy leaves out.
func TestEverySecondThroughAKill(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	t.Parallel()
	e := newEverySecond(t)
	e.start()
	ids := map[string]int64{}
	for tag, more := range map[string]string{
		"all": `"misfire":"all"`, "once": `"misfire":"once"`,
		"local": `"executor":"trigger","triggerTaskId":"tick","fireLocally":true`,
	} {
		ids[tag] = e.schedule(fmt.Sprintf(`{"type":"tick","tag":%q,"cronSchedule":"*/1 * * * * *",%s}`, tag, more))
	}
	work, rest := context.WithCancel(t.Context())
	var worker sync.WaitGroup
	worker.Go(func() { e.work(work) })
	pause(work, 13*time.Second+rand.N(time.Second))
	e.server.kill()
	pause(work, 3*time.Second)
	e.start()
	pause(work, 14*time.Second)
	for _, id := range ids {
		e.call("DELETE", fmt.Sprintf("/api/jobs/%d/schedule", id), "", 200)
	}
	e.settle()
	rest()
	worker.Wait()

	for tag := range ids {
		e.wantSeconds(tag, e.fired(tag, ids[tag]))
	}
	e.wantDoneOnce()
	e.wantOneRunEach(e.fired("local", ids["local"]))
}

// everySecond is a sidejob and a Trigger.dev that are programs of their own, and a
// host with a worker.
type everySecond struct {
	*testing.T
	hostApp
	dir, address, trigger string
	server                *process

	mu   sync.Mutex
	done map[string]int // outcomes that were taken, by tag and second
}

func newEverySecond(t *testing.T) *everySecond {
	e := &everySecond{T: t, dir: t.TempDir(), address: freeAddress(t), done: map[string]int{}}
	e.trigger = startEmulatorProcess(t, "", `{"tick":{"durationMs":50,"output":1}}`)
	e.hostApp = hostApp{base: "http://" + e.address, client: &http.Client{Timeout: 30 * time.Second}}
	return e
}

// start runs sidejob on the database there is.
func (e *everySecond) start() {
	e.Helper()
	env := []string{"SIDEJOB_TOKEN=process-token", "TRIGGER_SECRET_KEY=tr_dev_process", "TRIGGER_API_URL=" + e.trigger}
	e.server = startProcess(e.T, e.dir, env, "serve", "--listen", e.address, "--database", "seconds.db")
	for e.Context().Err() == nil {
		if status, _, err := e.do("GET", "/livez", ""); err == nil && status == http.StatusOK {
			return
		}
		pause(e.Context(), 20*time.Millisecond)
	}
}

// call makes a call that must succeed.
func (e *everySecond) call(method, path, body string, want int) []byte {
	e.Helper()
	status, answer, err := e.do(method, path, body)
	if err != nil || status != want {
		e.Fatalf("%s %s: got %d %s, error %v; want %d", method, path, status, answer, err, want)
	}
	return answer
}

func (e *everySecond) schedule(request string) int64 {
	e.Helper()
	var j seenJob
	e.read(e.call("POST", "/api/jobs?waitMs=0", request, 201), &j)
	return j.ID
}

func (e *everySecond) read(text []byte, v any) {
	e.Helper()
	if err := json.Unmarshal(text, v); err != nil {
		e.Fatalf("decode %s: %v", text, err)
	}
}

// work does what there is to do, through the kill, until ctx ends.
func (e *everySecond) work(ctx context.Context) {
	for ctx.Err() == nil {
		var got struct{ Jobs []takenJob }
		status, answer, err := e.do("POST", "/api/worker/claim", `{"worker":"host","limit":10,"leaseMs":1500,"waitMs":500}`)
		if err != nil || status != http.StatusOK || json.Unmarshal(answer, &got) != nil {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		for _, j := range got.Jobs {
			status, _, err := e.do("POST", fmt.Sprintf("/api/jobs/%d/complete", j.ID), withToken(j.LeaseToken))
			if err == nil && status == http.StatusOK {
				e.mu.Lock()
				e.done[j.Tag+" "+j.Due.Format(time.RFC3339)]++
				e.mu.Unlock()
			}
		}
	}
}

// settle waits until everything that fired has ended.
func (e *everySecond) settle() {
	e.Helper()
	for end := time.Now().Add(time.Minute); ; pause(e.Context(), 50*time.Millisecond) {
		open := e.jobs("type=tick&finished=false")
		if len(open) == 0 {
			return
		}
		if time.Now().After(end) {
			e.Fatalf("a minute after the end %d jobs are open, such as %+v", len(open), open[0])
		}
	}
}

func (e *everySecond) jobs(filter string) []seenJob {
	e.Helper()
	var page struct{ Jobs []seenJob }
	e.read(e.call("GET", "/api/jobs?limit=200&"+filter, "", 200), &page)
	slices.Reverse(page.Jobs)
	return page.Jobs
}

// fired are the rows of a job that stand for a second, oldest first: not the
// schedule itself, and not the one that waited when it was ended.
func (e *everySecond) fired(tag string, schedule int64) []seenJob {
	e.Helper()
	return slices.DeleteFunc(e.jobs("tag="+url.QueryEscape(tag)), func(j seenJob) bool {
		return j.Status == "CANCELED" && (j.Started.IsZero() || j.Executor == "trigger" && j.ID == schedule)
	})
}

// wantSeconds checks that each row stands for the first second after the one before
// it, or by the policy once, after that had ended or was started on Trigger.dev.
func (e *everySecond) wantSeconds(tag string, rows []seenJob) {
	e.Helper()
	if len(rows) < 10 {
		e.Errorf("%s: it fired %d times in half a minute, want many more", tag, len(rows))
	}
	for i, row := range rows {
		if row.Status != "COMPLETED" || row.Due.Nanosecond() != 0 {
			e.Errorf("%s: second %s is %s, want it COMPLETED and full", tag, row.Due, row.Status)
		}
		if i == 0 {
			continue
		}
		before := rows[i-1]
		after := before.Due
		switch {
		case tag == "once" && before.Finished.After(after):
			after = before.Finished
		case tag == "local" && before.CreatedAt.After(after):
			after = before.CreatedAt
		}
		if want := after.Truncate(time.Second).Add(time.Second); !row.Due.Equal(want) {
			e.Errorf("%s: after %s, over by %s, comes %s; want %s", tag, before.Due, after, row.Due, want)
		}
	}
}

// wantDoneOnce checks that no second was taken from the worker twice.
func (e *everySecond) wantDoneOnce() {
	e.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for second, times := range e.done {
		if times != 1 {
			e.Errorf("%s was done %d times", second, times)
		}
	}
}

// wantOneRunEach checks that Trigger.dev has one run for each second that fired.
func (e *everySecond) wantOneRunEach(rows []seenJob) {
	e.Helper()
	there := hostApp{base: e.trigger, client: e.client}
	status, answer, err := there.do("GET", "/emulator/runs", "")
	if err != nil || status != http.StatusOK {
		e.Fatalf("ask for the runs: %d %s, error %v", status, answer, err)
	}
	var body struct{ Runs []remoteRow }
	e.read(answer, &body)
	runs := map[string]bool{}
	for _, row := range rows {
		runs[row.TriggerRunID] = true
	}
	if len(runs) != len(rows) || len(body.Runs) != len(rows) {
		e.Errorf("%d seconds have %d runs, and there are %d on Trigger.dev", len(rows), len(runs), len(body.Runs))
	}
}

// TestOfEverySecondTheLastHundredAreKept lets jobs recur for two minutes and more.
func TestOfEverySecondTheLastHundredAreKept(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{"internal": "", "fired locally": locally} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				first := s.every("*/1 * * * * *", more)
				for end := first.Due.Add(140 * time.Second); time.Now().Before(end); {
					time.Sleep(time.Until(now().Truncate(time.Second).Add(time.Second + time.Millisecond)))
					for _, j := range s.claim(`{}`) {
						s.says(j.ID, "complete", withToken(j.LeaseToken))
					}
				}
				finished := s.list("tag=again&finished=true")
				finished = slices.DeleteFunc(finished, func(j seenJob) bool { return j.ID == first.ID }) // the recurring job's own id
				n := len(finished)
				if n < job.KeptOccurrences || n > job.KeptOccurrences+5 {
					t.Fatalf("%d finished occurrences are kept, want the last %d, and few more", n, job.KeptOccurrences)
				}
				if span := finished[n-1].Due.Sub(finished[0].Due); span != time.Duration(n-1)*time.Second {
					t.Errorf("the %d that are kept span %s, want the last ones without a gap", n, span)
				}
			})
		})
	}
}
