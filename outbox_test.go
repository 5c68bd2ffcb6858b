package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// holdFirst holds the first request that fits until its sender gives it up, before
// or after it was carried out. Others pass.
func holdFirst(method, path string, carriedOut bool) tap {
	held := make(chan struct{}, 1)
	return func(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
		if r.Method != method || !strings.HasPrefix(r.URL.Path, path) {
			return pass()
		}
		select {
		case held <- struct{}{}:
		default:
			return pass()
		}
		if carriedOut {
			if _, err := pass(); err != nil {
				return nil, err
			}
		}
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
}

// A crash may come before Trigger.dev has the submit, or after, when nobody is left
// to hear of it.
func TestACrashInASubmitGivesOneRun(t *testing.T) {
	for _, arrived := range []bool{false, true} {
		for _, task := range []string{"ok", "bad"} {
			t.Run(fmt.Sprintf("%s, arrived %v", task, arrived), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newQuietScene(t, withTasks(sceneTasks()))
					s.out.tapWith(holdFirst("POST", submitPath, arrived))
					r := s.call("POST", "/api/jobs?waitMs=100", map[string]any{"type": task, "executor": "trigger", "triggerTaskId": task})
					j := s.view(r)
					if r.status != http.StatusCreated || hasRun(j) {
						t.Fatalf("the reply is %d with run %q, want 201 without", r.status, j.TriggerRunID)
					}
					s.crash()
					if got := s.get(j.ID); got.Status != "PENDING" || hasRun(got) {
						t.Errorf("after the crash it is %s with run %q, want PENDING without", got.Status, got.TriggerRunID)
					}
					s.out.forget()
					time.Sleep(time.Minute)
					if n := len(s.out.calls("POST", submitPath)); n == 1 == arrived || n > 1 {
						t.Errorf("it was submitted %d times after the crash", n)
					}
					want := map[string]string{"ok": "COMPLETED", "bad": "FAILED"}[task]
					if got := s.get(j.ID); got.Status != want {
						t.Errorf("it is %s with error %q, want %s", got.Status, got.Error, want)
					}
					s.wantTruth()
				})
			})
		}
	}
}

func TestACrashInACancelForgetsNothing(t *testing.T) {
	for _, arrived := range []bool{false, true} {
		t.Run(fmt.Sprint("arrived ", arrived), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newQuietScene(t, withTasks(sceneTasks()))
				j := s.triggerJob("stays")
				time.Sleep(5 * time.Second)
				s.out.tapWith(holdFirst("POST", cancelPath, arrived))
				if _, code := s.cancelJob(j.ID, "?waitMs=10"); code != http.StatusAccepted {
					t.Errorf("cancel is answered %d, want 202", code)
				}
				s.crash()
				if got := s.get(j.ID); !got.CancelRequested || hasEnded(got) {
					t.Errorf("after the crash it is %s, cancelRequested %v; want open, true", got.Status, got.CancelRequested)
				}
				s.soonEnough(j.ID, 10*time.Second, "it is canceled", hasEnded)
				s.wantTruth()
			})
		})
	}
}

// A canceled job whose submit was cut off by a crash must not run.
func TestACrashBetweenSubmitAndCancel(t *testing.T) {
	for _, arrived := range []bool{false, true} {
		t.Run(fmt.Sprint("arrived ", arrived), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newQuietScene(t, withTasks(sceneTasks()))
				s.out.tapWith(holdFirst("POST", submitPath, arrived))
				r := s.call("POST", "/api/jobs?waitMs=1", `{"type":"queues","executor":"trigger","triggerTaskId":"queues"}`)
				id := s.view(r).ID
				if _, code := s.cancelJob(id, "?waitMs=1"); code != http.StatusAccepted {
					t.Errorf("cancel is answered %d, want 202", code)
				}
				s.crash()
				s.soonEnough(id, time.Minute, "it is canceled", hasEnded)
				s.wantNothingRan()
				s.wantTruth()
			})
		})
	}
}

func TestAShutdownLetsSendsThatAreUnderWayFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		s.faults(fault("POST", submitPath, "delay", "delayMs", 3000))
		r := s.call("POST", "/api/jobs?waitMs=1", `{"type":"minute","executor":"trigger","triggerTaskId":"minute"}`)
		s.down()
		s.out.forget()
		s.up()
		if j := s.get(s.view(r).ID); !hasRun(j) || j.Error != "" {
			t.Errorf("after the restart it has run %q and error %q, want the run of the send that was under way", j.TriggerRunID, j.Error)
		}
		time.Sleep(30 * time.Second)
		if n := len(s.out.calls("POST", submitPath)); n != 0 {
			t.Errorf("it was submitted again %d times", n)
		}
		s.wantTruth()
	})
}

// The sends of a sweep are sends like others.
func TestAShutdownLetsSendsOfASweepFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		s.faults(fault("POST", submitPath, "redirect", "times", 1))
		r := s.call("POST", "/api/jobs?waitMs=1", `{"type":"minute","executor":"trigger","triggerTaskId":"minute"}`)
		s.faults(fault("POST", submitPath, "delay", "delayMs", 3000))
		over := make(chan struct{})
		go func(api http.Handler) {
			defer close(over)
			callHandler(t, api, "POST", "/api/reconcile", nil)
		}(s.srv.private)
		synctest.Wait()
		s.down()
		<-over
		s.up()
		if j := s.get(s.view(r).ID); !hasRun(j) || j.Error != "" {
			t.Errorf("after the restart it has run %q and error %q, want the run of the sweep's send", j.TriggerRunID, j.Error)
		}
	})
}

func TestAShutdownDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		s.faults(fault("POST", submitPath, "hang"))
		r := s.call("POST", "/api/jobs?waitMs=1", `{"type":"ok","executor":"trigger","triggerTaskId":"ok"}`)
		begun := time.Now()
		s.down()
		if took := time.Since(begun); took > 6*time.Second {
			t.Errorf("the shutdown took %s, want the drain timeout of 5 s", took)
		}
		s.faults()
		s.up()
		if j := s.wait(s.view(r).ID); j.Status != "COMPLETED" {
			t.Errorf("it ended %s", j.Status)
		}
		s.wantTruth()
	})
}

// What waits while sidejob is down goes out at the start, and not too much of it at
// once.
func TestWhatWaitsIsSentAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		s.out.cut(errNoRoute)
		const many = 30
		var requests []map[string]any
		for range many {
			requests = append(requests, map[string]any{"type": "ok", "executor": "trigger", "triggerTaskId": "ok"})
		}
		s.call("POST", "/api/jobs/batch", map[string]any{"jobs": requests})
		time.Sleep(5 * time.Second)
		s.down()
		underWay, most := make(chan struct{}, many), 0
		s.out.tapWith(func(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
			if r.Method != "POST" {
				return pass()
			}
			underWay <- struct{}{}
			defer func() { <-underWay }()
			time.Sleep(time.Second)
			return pass()
		})
		s.out.cut(nil)
		s.up()
		for range 50 {
			most = max(most, len(underWay))
			time.Sleep(100 * time.Millisecond)
		}
		if most < 6 || most > 16+asksAtOnce {
			t.Errorf("at most %d sends were under way at once, want many but no flood", most)
		}
		time.Sleep(10 * time.Second)
		for _, j := range s.rows() {
			if j.Status != "COMPLETED" {
				t.Errorf("job %d is %s with error %q", j.ID, j.Status, j.Error)
			}
		}
		s.wantTruth()
	})
}

// Each failure makes the next row, once, and only when Trigger.dev has confirmed it.
func TestAFailureIsFollowedByANewRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		first := s.triggerJob("bad", "tag", "again", "data", map[string]any{"n": 1}, "labels", []string{"l"}, "userId", 3,
			"autoRescheduleOnFailure", true, "autoRescheduleOnFailureDelay", 60_000, "retryConfig", map[string]any{"maxAttempts": 3})
		time.Sleep(5 * time.Minute)
		rows := s.rows()
		if len(rows) != 3 {
			t.Fatalf("there are %d rows, want three tries", len(rows))
		}
		for i, j := range rows {
			if j.Status != "FAILED" || j.Tag != first.Tag || j.UserID != 3 || string(j.Data) != `{"n":1}` || len(j.Labels) != 1 || !j.AutoRescheduleOnFailure {
				t.Errorf("try %d is %+v", i+1, j)
			}
			if i == 0 {
				continue
			}
			before := rows[i-1]
			if wait := j.Due.Sub(before.Finished); j.RescheduledFromJob != before.ID || wait < time.Minute || wait > 70*time.Second {
				t.Errorf("try %d follows job %d and is due %s after its end, want %d, a minute", i+1, j.RescheduledFromJob, wait, before.ID)
			}
			if j.Started.Before(j.Due) {
				t.Errorf("try %d started at %s, before it was due at %s", i+1, j.Started, j.Due)
			}
		}
		s.wantTruth()
	})
}

func TestAFailureThatForestallsACancelIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		j := s.triggerJob("bad", "due", time.Now().Add(3*time.Second), "autoRescheduleOnFailure", true)
		s.faults(fault("POST", cancelPath, "status", "status", 503, "times", 4))
		s.cancelJob(j.ID, "?waitMs=1")
		time.Sleep(time.Minute)
		if rows := s.rows(); len(rows) != 1 || rows[0].Status != "FAILED" {
			t.Errorf("there are %d rows, the first %s; want one that FAILED", len(rows), rows[0].Status)
		}
		k := s.triggerJob("stays", "autoRescheduleOnFailure", true)
		s.cancelJob(k.ID, "")
		time.Sleep(time.Minute)
		if rows := s.rows(); len(rows) != 2 {
			t.Errorf("a canceled job made %d rows of itself", len(rows)-2)
		}
	})
}

func TestRetryMakesANewJobOfOneThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		for _, task := range []string{"ok", "bad"} {
			old := s.wait(s.triggerJob(task, "metadata", map[string]any{"a": 1}).ID)
			r := s.call("POST", fmt.Sprintf("/api/jobs/%d/retry", old.ID), nil)
			j := s.view(r)
			if r.status != http.StatusCreated || j.RescheduledFromJob != old.ID || !hasRun(j) || j.TriggerRunID == old.TriggerRunID || j.Tag != old.Tag {
				t.Errorf("%s: retry is answered %d, job %d of %d with run %q", task, r.status, j.ID, j.RescheduledFromJob, j.TriggerRunID)
			}
			if got := s.wait(j.ID); got.Status != old.Status || string(got.Metadata) != `{"a":1}` {
				t.Errorf("%s: the new job ended %s with metadata %s", task, got.Status, got.Metadata)
			}
		}
		open := s.triggerJob("stays")
		if r := s.call("POST", fmt.Sprintf("/api/jobs/%d/retry", open.ID), nil); r.status != http.StatusConflict {
			t.Errorf("retry of a job that runs is answered %d, want 409", r.status)
		}
		time.Sleep(5 * time.Second)
		s.wantTruth()
	})
}
