package emulator

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestARunGoesThroughEveryState(t *testing.T) {
	inBubble(t, Config{Tasks: map[string]Task{"x": {DurationMs: 1000, Output: []byte(`{"a":1}`)}}},
		func(t *testing.T, e *Emulator, a *api) {
			id := a.trigger("x", `{"options":{"delay":"1m"}}`)
			updated := ""
			for _, step := range []struct {
				wait   time.Duration
				status string
				count  float64
			}{{0, "DELAYED", 0}, {time.Minute, "QUEUED", 0}, {dequeueAfter, "DEQUEUED", 0}, {startAfter, "EXECUTING", 1},
				{999 * time.Millisecond, "EXECUTING", 1}, {time.Millisecond, "COMPLETED", 1}} {
				after(step.wait)
				r := a.run(id)
				if r["status"] != step.status || r["attemptCount"] != step.count {
					t.Errorf("got %v after %v attempts, want %s after %v", r["status"], r["attemptCount"], step.status, step.count)
				}
				if r["updatedAt"].(string) < updated {
					t.Errorf("updatedAt goes back to %v", r["updatedAt"])
				}
				updated = r["updatedAt"].(string)
			}
			r := a.run(id)
			if r["durationMs"] != 1000.0 || r["output"].(map[string]any)["a"] != 1.0 || r["delayedUntil"] == nil {
				t.Errorf("completed run is %v", r)
			}
		})
}

func TestATaskEndsInTheStatusThatItIsGiven(t *testing.T) {
	for word, final := range map[string]bool{"FAILED": true, "CRASHED": true, "SYSTEM_FAILURE": true, "TIMED_OUT": true, "EXPIRED": true,
		"CANCELED": true, "COMPLETED": true, "WAITING": false, "QUEUED": false, "PENDING_VERSION": false, "DELAYED": false,
		"DEQUEUED": false, "EXECUTING": false, "DANCING": false} {
		t.Run(word, func(t *testing.T) {
			inBubble(t, Config{Tasks: map[string]Task{"x": {Status: word}}}, func(t *testing.T, e *Emulator, a *api) {
				id := a.trigger("x", `{}`)
				after(time.Hour)
				a.wantStatus(id, word)
				if finished := a.run(id)["finishedAt"] != nil; finished != final {
					t.Errorf("finishedAt present is %v, want %v", finished, final)
				}
			})
		})
	}
}

func TestFalsyOutputsAreKept(t *testing.T) {
	for _, output := range []string{`false`, `0`, `""`, `null`, `[]`} {
		inBubble(t, Config{Tasks: map[string]Task{"x": {Output: []byte(output)}}}, func(t *testing.T, e *Emulator, a *api) {
			id := a.trigger("x", `{}`)
			after(time.Second)
			if raw := a.get("/api/v3/runs/" + id).raw; string(member([]byte(raw), "output")) != output {
				t.Errorf("want output %s in %s", output, raw)
			}
		})
	}
}

func TestFailedAttemptsAreRetried(t *testing.T) {
	tasks := map[string]Task{"twice": {FailAttempts: 2}, "always": {Error: &TaskError{Message: "no"}}, "long": {FailAttempts: 6}}
	inBubble(t, Config{Tasks: tasks}, func(t *testing.T, e *Emulator, a *api) {
		twice, always, once := a.trigger("twice", `{}`), a.trigger("always", `{}`), a.trigger("always", `{"options":{"maxAttempts":1}}`)
		long := a.trigger("long", `{"options":{"maxAttempts":7}}`)
		after(2 * time.Second)
		a.wantStatus(once, "FAILED")
		if r := a.run(twice); r["status"] != "EXECUTING" || r["attemptCount"] != 2.0 || r["error"] != nil {
			t.Errorf("between attempts: %v", r)
		}
		began := a.run(long)["startedAt"]
		after(2 * time.Second)
		a.wantStatus(twice, "COMPLETED")
		if r := a.run(always); r["status"] != "FAILED" || r["attemptCount"] != 3.0 || r["error"].(map[string]any)["message"] != "no" {
			t.Errorf("after all attempts: %v", r)
		}
		after(30 * time.Second) // 1+2+4+8+16, then a wait of 32 s
		if r := a.run(long); r["status"] != "QUEUED" || r["startedAt"] != began {
			t.Errorf("a long wait for a retry is spent as %v", r["status"])
		}
		after(32 * time.Second)
		if r := a.run(long); r["status"] != "COMPLETED" || r["startedAt"] != began {
			t.Errorf("got %v begun at %v, want COMPLETED and begun at %v", r["status"], r["startedAt"], began)
		}
	})
}

func TestBuiltInTasksKeepTheirTimes(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		data, mail := a.trigger("process-large-dataset", `{"payload":{"datasetId":"7"}}`), a.trigger("reliable-email-sender", `{"payload":{"to":"a@b"}}`)
		steps := a.trigger("cancellable-task", `{"payload":{"iterations":4}}`)
		after(2900 * time.Millisecond)
		a.wantStatus(data, "EXECUTING")
		a.wantStatus(mail, "COMPLETED")
		if m := a.run(steps)["metadata"]; fmt.Sprint(m) != "map[progress:0.25]" {
			t.Errorf("metadata after a step is %v", m)
		}
		after(200 * time.Millisecond)
		if out := a.run(data)["output"]; fmt.Sprint(out) != "map[datasetId:7 processed:true]" {
			t.Errorf("output %v", out)
		}
		if got := a.run(mail)["attemptCount"]; got != 2.0 {
			t.Errorf("mail sent at attempt %v, want 2", got)
		}
		a.do("POST", "/api/v2/runs/"+steps+"/cancel", "").is(200, `{"id":"`+steps+`"}`)
		after(time.Minute)
		if r := a.run(steps); r["status"] != "CANCELED" || fmt.Sprint(r["metadata"]) != "map[progress:0.25]" {
			t.Errorf("it went on after the cancel: %v", r)
		}
	})
}

func TestCancelDependsOnWhatTheRunDoes(t *testing.T) {
	tasks := map[string]Task{"x": {DurationMs: 60000}, "stuck": {Status: "QUEUED"}, "quick": {}}
	inBubble(t, Config{Tasks: tasks}, func(t *testing.T, e *Emulator, a *api) {
		delayed, queued := a.trigger("x", `{"options":{"delay":"1h"}}`), a.trigger("stuck", `{}`)
		running, done := a.trigger("x", `{}`), a.trigger("quick", `{}`)
		after(time.Second)
		for _, id := range []string{delayed, queued, running, done} {
			a.do("POST", "/api/v2/runs/"+id+"/cancel", "").is(200, `{"id":"`+id+`"}`)
		}
		a.wantStatus(done, "COMPLETED")
		for _, id := range []string{delayed, queued, running} {
			r := a.run(id)
			if r["status"] != "CANCELED" || r["finishedAt"] != nil || r["error"].(map[string]any)["message"] != "Canceled by user" {
				t.Errorf("right after the cancel: %v", r)
			}
		}
		after(2 * time.Hour)
		if a.run(running)["finishedAt"] == nil || a.run(delayed)["finishedAt"] != nil || a.run(queued)["finishedAt"] != nil {
			t.Error("only the run that a worker held gets a finishedAt")
		}
		a.get("/api/v1/runs/"+running+"/result").is(200, `{"ok":false,"id":"`+running+
			`","taskIdentifier":"x","error":{"type":"INTERNAL_ERROR","code":"TASK_RUN_CANCELLED"}}`)
		a.get("/api/v1/runs/"+done+"/result").is(404, `{"error":"Run either doesn't exist or is not finished"}`)
		a.do("POST", "/api/v2/runs/run_none/cancel", "").is(404, `{"error":"Resource not found"}`)
	})
}

func TestATTLEndsTheWaitForAWorkerOnly(t *testing.T) {
	inBubble(t, Config{Strict: true, Tasks: map[string]Task{"stuck": {Status: "QUEUED"}, "slow": {DurationMs: 60000}}},
		func(t *testing.T, e *Emulator, prod *api) {
			devs := clientOf(t, e, "tr_dev_x")
			ttl, none, slow := prod.trigger("stuck", `{"options":{"ttl":30,"delay":"1m"}}`), prod.trigger("stuck", `{}`), prod.trigger("slow", `{"options":{"ttl":"2s"}}`)
			day, never, unknown := devs.trigger("stuck", `{}`), devs.trigger("stuck", `{"options":{"ttl":0}}`), devs.trigger("misspelled", `{}`)
			after(89 * time.Second)
			prod.wantStatus(ttl, "QUEUED")
			after(time.Second)
			prod.wantStatus(ttl, "EXPIRED")
			prod.wantStatus(slow, "COMPLETED")
			after(10 * time.Minute)
			prod.wantStatus(none, "QUEUED")
			devs.wantStatus(never, "QUEUED")
			devs.wantStatus(unknown, "PENDING_VERSION")
			if r := devs.run(day); r["status"] != "EXPIRED" || r["ttl"] != "10m" ||
				r["error"].(map[string]any)["message"] != "Run expired because the TTL (10m) was reached" {
				t.Errorf("run in dev: %v", r)
			}
			if _, has := devs.run(never)["ttl"]; has {
				t.Error("a ttl of 0 is shown")
			}
		})
}

func TestAnUnknownTaskGivesBackItsPayload(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		id := a.trigger("anything", `{"payload":{"a":[1]}}`)
		after(time.Second)
		if raw := a.get("/api/v3/runs/" + id).raw; !strings.Contains(raw, `"output":{"a":[1]}`) {
			t.Errorf("got %s", raw)
		}
	})
}

func TestAdvanceMovesEverythingAndStopsAtEachMoment(t *testing.T) {
	_, a := start(t, Config{Tasks: map[string]Task{"x": {DurationMs: 3_600_000}}})
	id := a.trigger("x", `{"options":{"delay":"2h"}}`)
	a.advance(2*time.Hour + time.Minute)
	a.wantStatus(id, "EXECUTING")
	a.advance(time.Hour)
	r := a.run(id)
	began, _ := time.Parse(time.RFC3339, r["startedAt"].(string))
	ended, _ := time.Parse(time.RFC3339, r["finishedAt"].(string))
	if took := ended.Sub(began).Round(time.Second); r["status"] != "COMPLETED" || took != time.Hour {
		t.Errorf("%v, took %s, want COMPLETED after 1h", r["status"], took)
	}
	for _, bad := range []string{``, `{}`, `{"ms":-1}`, `{"ms":"1"}`, `{"ms":1e300}`} {
		if got := a.do("POST", "/emulator/advance", bad); got.status != 400 {
			t.Errorf("%s: got %d, want 400", bad, got.status)
		}
	}
}

func TestACommandIsATask(t *testing.T) {
	tasks := map[string]Task{
		"json": {Command: `cat`}, "text": {Command: `echo "run $RUN_ATTEMPT"`}, "none": {Command: `true`},
		"bad": {Command: `echo oops >&2; exit 3`}, "long": {Command: `sleep 600 & wait`},
	}
	_, a := start(t, Config{Tasks: tasks})
	want := map[string]string{"json": `{"a":1}`, "text": `"run 1"`, "none": ``}
	for task, output := range want {
		id := a.trigger(task, `{"payload":{"a":1}}`)
		a.until(id, "COMPLETED")
		if got := string(member([]byte(a.get("/api/v3/runs/"+id).raw), "output")); got != output {
			t.Errorf("%s: output %s, want %s", task, got, output)
		}
	}
	id := a.trigger("bad", `{"options":{"maxAttempts":1}}`)
	a.until(id, "FAILED")
	if got := a.run(id)["error"].(map[string]any)["message"]; got != "oops" {
		t.Errorf("error %v, want oops", got)
	}
	id = a.trigger("long", `{}`)
	a.until(id, "EXECUTING")
	a.do("POST", "/api/v2/runs/"+id+"/cancel", "").ok()
	a.untilRun("the command has stopped", id, func(r map[string]any) bool { return r["finishedAt"] != nil })
}

// until waits in real time, for tasks that run outside.
func (a *api) until(id, status string) {
	a.t.Helper()
	a.untilRun(status, id, func(r map[string]any) bool { return r["status"] == status })
}

func (a *api) untilRun(what, id string, is func(map[string]any) bool) {
	a.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-tick.C {
		if is(a.run(id)) {
			return
		}
	}
	a.t.Fatalf("waited in vain for: %s; run is %v", what, a.run(id))
}

func TestStateSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	cfg := Config{StatePath: path, NextRun: everyHour, Tasks: map[string]Task{"x": {DurationMs: 10_000}, "s": {Scheduled: true}}}
	inBubble(t, cfg, func(t *testing.T, e *Emulator, a *api) {
		a.advance(time.Hour)
		delayed, running, done := a.trigger("x", `{"options":{"delay":"1h"}}`), a.trigger("x", `{}`), a.trigger("y", `{"payload":1,"options":{"idempotencyKey":"k"}}`)
		a.do("POST", "/api/v1/schedules", `{"task":"s","cron":"0 * * * *","deduplicationKey":"d"}`).ok()
		gone := a.do("POST", "/api/v1/schedules", `{"task":"s","cron":"0 * * * *","deduplicationKey":"gone"}`).ok().text("id")
		a.do("DELETE", "/api/v1/schedules/"+gone, "").ok()
		after(5 * time.Second)
		before := a.get("/emulator/runs").raw
		appendLine(t, path, `{"run":{"id":"run_to`) // the line that a kill cuts off

		next, b := start(t, cfg)
		if again := b.get("/emulator/runs").raw; again != before {
			t.Errorf("before %s\nafter  %s", before, again)
		}
		if b.trigger("y", `{"options":{"idempotencyKey":"k"}}`) != done {
			t.Error("the idempotency key is forgotten")
		}
		if data := b.get("/api/v1/schedules").object()["data"].([]any); len(data) != 1 {
			t.Errorf("schedules %v, want one", data)
		}
		after(6 * time.Second)
		b.wantStatus(running, "COMPLETED")
		after(time.Hour)
		b.wantStatus(delayed, "COMPLETED")
		if runs := b.get("/emulator/runs?task=s").object()["runs"].([]any); len(runs) != 1 {
			t.Errorf("the schedule fired %d times in an hour, want 1", len(runs))
		}
		if err := next.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestABrokenJournalIsNotTakenInSilence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	appendLine(t, path, "not a line of ours\n")
	if _, err := New(Config{StatePath: path}); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("got %v, want an error that names line 1", err)
	}
}

func TestAJournalCutOffAnywhereStillOpens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	e, a := start(t, Config{StatePath: path, Tasks: map[string]Task{"x": {Status: "QUEUED"}}})
	for range 3 {
		a.trigger("x", `{"payload":{"a":1}}`)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for cut := range len(whole) + 1 {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		again := &Emulator{runs: map[string]*run{}, sched: map[string]*schedule{}, clock: newClock()}
		if err := again.readJournal(path); err != nil {
			t.Fatalf("cut after %d of %d bytes: %v", cut, len(whole), err)
		}
		if len(again.runs) < most {
			t.Fatalf("cut after %d bytes: %d runs, want at least %d", cut, len(again.runs), most)
		}
		most = len(again.runs)
	}
	if most != 3 {
		t.Errorf("%d runs in the whole file, want 3", most)
	}
}

func TestManyAtOnceDoNotDisturbEachOther(t *testing.T) {
	_, a := start(t, Config{StatePath: filepath.Join(t.TempDir(), "state"), RateLimit: -1})
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for n := range 20 {
				body := fmt.Sprintf(`{"options":{"idempotencyKey":"k%d"}}`, n)
				got, err := a.try("POST", "/api/v1/tasks/x/trigger", body)
				if err != nil || got.status != 200 {
					t.Errorf("worker %d: %d %v", worker, got.status, err)
					return
				}
				_, _ = a.try("POST", "/api/v2/runs/"+got.text("id")+"/cancel", "")
				_, _ = a.try("GET", "/api/v1/runs", "")
				_, _ = a.try("POST", "/emulator/advance", `{"ms":50}`)
			}
		})
	}
	all.Wait()
	if n := a.count(); n != 20 {
		t.Errorf("%d runs of 20 keys", n)
	}
}
