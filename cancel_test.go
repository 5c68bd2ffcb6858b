package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestCancelInEveryState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		for _, task := range []struct {
			name    string
			due     time.Duration
			after   time.Duration // the cancel comes so long after the submit
			started bool
		}{
			{"ok", time.Hour, time.Second, false}, // delayed
			{"queues", 0, time.Second, false},
			{"dequeues", 0, time.Second, true}, // a worker has it, so Trigger.dev gives a start
			{"stays", 0, time.Second, true},
			{"cancellable-task", 0, 5 * time.Second, true},
			{"minute", 0, 0, false}, // at once
		} {
			j := s.triggerJob(task.name, "due", time.Now().Add(task.due))
			time.Sleep(task.after)
			v, code := s.cancelJob(j.ID, "")
			if code != http.StatusOK || v.Status != "CANCELED" || v.TriggerStatus != "CANCELED" || !v.CancelRequested {
				t.Errorf("%s: cancel is answered %d, %s (%s), cancelRequested %v; want 200, CANCELED", task.name, code, v.Status, v.TriggerStatus, v.CancelRequested)
			}
			if v.Success == nil || *v.Success || hasEnded(v) == v.Finished.IsZero() || v.Started.IsZero() == task.started {
				t.Errorf("%s: success %v, started %s, finished %s; want false, started %v", task.name, v.Success, v.Started, v.Finished, task.started)
			}
			again, code := s.cancelJob(j.ID, "")
			if code != http.StatusOK || again.UpdatedAt != v.UpdatedAt {
				t.Errorf("%s: the second cancel is answered %d and changed the row", task.name, code)
			}
		}
		time.Sleep(10 * time.Second)
		for _, j := range s.rows() {
			sameMeaning(t, j.Type+": the result", j.Result, []byte(`{"canceled":true,"error":{"message":"Canceled by user"}}`))
		}
		s.wantTruth()
	})
}

func TestCancelOfAJobThatHasEndedChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		for _, task := range []string{"ok", "bad"} {
			j := s.wait(s.triggerJob(task).ID)
			time.Sleep(5 * time.Second)
			before := s.get(j.ID)
			s.out.forget()
			v, code := s.cancelJob(j.ID, "")
			if code != http.StatusOK || v.Status != before.Status || v.CancelRequested || v.UpdatedAt != before.UpdatedAt {
				t.Errorf("%s: cancel is answered %d, %s, cancelRequested %v; want 200 and the row unchanged", task, code, v.Status, v.CancelRequested)
			}
			time.Sleep(10 * time.Second)
			if n := len(s.out.calls("POST", "")); n > 0 {
				t.Errorf("%s: %d requests were sent to cancel what has ended", task, n)
			}
		}
	})
}

// News of the canceled run come before the answer to the cancel does.
func TestTheHistoryHasEveryReceiptOfACancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		j := s.triggerJob("stays")
		time.Sleep(time.Second)
		s.out.tapWith(func(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
			res, err := pass()
			if r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, cancelPath) {
				time.Sleep(time.Second)
			}
			return res, err
		})
		s.cancelJob(j.ID, "")
		time.Sleep(5 * time.Second)
		told := strings.Join(s.history(j.ID), "\n")
		for _, want := range []string{"cancel api > running canceling", "> told canceled", "seen poll > canceled", "stopping cancel > canceled"} {
			if !strings.Contains(told, want) {
				t.Errorf("the history lacks %q:\n%s", want, told)
			}
		}
	})
}

// What Trigger.dev says last is what the row says.
func TestACancelThatComesTooLateIsCompleted(t *testing.T) {
	for _, events := range []bool{true, false} {
		t.Run(fmt.Sprint("events ", events), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, withTasks(sceneTasks()))
				if !events {
					s.in.cut(errNoRoute)
				}
				j := s.triggerJob("ok")
				// The cancel leaves while the run goes on, and arrives when it is over.
				s.out.tapWith(func(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
					if r.Method == "POST" || r.URL.Path == retrievePath+j.TriggerRunID {
						time.Sleep(2 * time.Second)
					}
					return pass()
				})
				time.Sleep(300 * time.Millisecond)
				v, _ := s.cancelJob(j.ID, "?waitMs=10000")
				time.Sleep(10 * time.Second)
				if v = s.get(j.ID); v.Status != "COMPLETED" || !v.CancelRequested || string(v.Result) != `{"ok":true}` {
					t.Errorf("it is %s with %s, cancelRequested %v; want COMPLETED with the output, true", v.Status, v.Result, v.CancelRequested)
				}
				s.wantTruth()
			})
		})
	}
}

func TestACancelIsRepeatedUntilTriggerDevHasTakenIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		for _, f := range []map[string]any{
			fault("POST", cancelPath, "reset"), fault("POST", cancelPath, "hang"), fault("POST", cancelPath, "garbage"),
			fault("POST", cancelPath, "dropReply"), fault("POST", cancelPath, "truncate"),
			fault("POST", cancelPath, "status", "status", 500), fault("POST", cancelPath, "status", "status", 503),
			fault("POST", cancelPath, "status", "status", 429), fault("POST", cancelPath, "status", "status", 401),
			fault("POST", cancelPath, "notFound"), fault("POST", cancelPath, "redirect"),
		} {
			name := fmt.Sprint(f["kind"], f["status"])
			j := s.triggerJob("stays", "tag", name)
			f["times"] = 3
			s.faults(f)
			v, code := s.cancelJob(j.ID, "?waitMs=1")
			if !v.CancelRequested || code == http.StatusAccepted != v.Finished.IsZero() {
				t.Errorf("%s: cancel is answered %d, cancelRequested %v, finished %s", name, code, v.CancelRequested, v.Finished)
			}
			done := s.soonEnough(j.ID, 2*time.Minute, name+": it is canceled", hasEnded)
			if done.Status != "CANCELED" {
				t.Errorf("%s: it ended %s", name, done.Status)
			}
			s.faults()
		}
		s.wantTruth()
	})
}

// The cancel is in the row, so it outlives every restart.
func TestACancelOutlivesOutagesAndRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		running, queued, done := s.triggerJob("stays"), s.triggerJob("queues"), s.triggerJob("minute")
		time.Sleep(5 * time.Second)
		s.out.cut(errNoRoute)
		s.in.cut(errNoRoute)
		for _, j := range []seenJob{running, queued, done} {
			if v, code := s.cancelJob(j.ID, "?waitMs=500"); code != http.StatusAccepted || !v.CancelRequested || v.Error == "" {
				t.Errorf("cancel without Trigger.dev is answered %d, cancelRequested %v, error %q; want 202, true, why", code, v.CancelRequested, v.Error)
			}
		}
		for range 3 {
			time.Sleep(3 * time.Minute)
			s.down()
			time.Sleep(time.Minute)
			s.up()
			s.in.cut(errNoRoute)
		}
		s.crash()
		if got := s.statuses([]int64{running.ID, queued.ID}); got[0] != "EXECUTING" || got[1] != "PENDING" {
			t.Errorf("without news the rows are %q", got)
		}
		s.out.cut(nil)
		time.Sleep(90 * time.Second)
		for i, want := range []string{"CANCELED", "FAILED", "COMPLETED"} { // queued expired meanwhile
			if j := s.get(int64(i + 1)); j.Status != want || !j.CancelRequested {
				t.Errorf("job %d is %s (%s), cancelRequested %v; want %s", j.ID, j.Status, j.TriggerRawStatus, j.CancelRequested, want)
			}
		}
		s.wantTruth()
	})
}

// A job whose submit certainly did not arrive is settled at once; nobody else has a
// hand in it.
func TestCancelOfAJobThatWasNeverSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.out.cut(errNoRoute)
		j := s.triggerJob("ok")
		time.Sleep(10 * time.Second)
		v, code := s.cancelJob(j.ID, "")
		if code != http.StatusOK || v.Status != "CANCELED" || v.TriggerRunID != "" || v.Error != "" {
			t.Errorf("cancel is answered %d, %s, run %q, error %q; want 200, CANCELED, none, none", code, v.Status, v.TriggerRunID, v.Error)
		}
		s.wantReady("degraded")
		s.out.cut(nil)
		time.Sleep(6 * time.Minute)
		if n := len(s.truth()); n != 0 {
			t.Errorf("Trigger.dev has %d runs, want none", n)
		}
		s.wantReady("ready") // though there was nothing left to send
		sameMeaning(t, "the result", s.get(j.ID).Result, []byte(`{"canceled":true}`))
	})
}

// A submit in doubt may have arrived, may yet arrive, or not at all. Whatever it is,
// what was canceled meanwhile must not run.
func TestACancelOfASubmitInDoubtNeverLetsItRun(t *testing.T) {
	for _, kind := range []string{"reset", "hang", "status", "garbage"} {
		t.Run("that did not arrive: "+kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, withTasks(sceneTasks()))
				s.faults(fault("POST", submitPath, kind, "status", 502, "times", 3),
					fault("POST", cancelPath, "status", "status", 503, "times", 3)) // time enough to begin
				r := s.call("POST", "/api/jobs?waitMs=1", `{"type":"ok","executor":"trigger","triggerTaskId":"ok"}`)
				id := s.view(r).ID
				if kind != "hang" { // then the cancel comes while the submit is under way
					s.soonEnough(id, 11*time.Second, "it is in doubt", hasError)
				}
				if v, code := s.cancelJob(id, "?waitMs=1"); code != http.StatusAccepted || !v.CancelRequested {
					t.Errorf("cancel in doubt is answered %d, cancelRequested %v; want 202, true", code, v.CancelRequested)
				}
				s.soonEnough(id, 2*time.Minute, "it is canceled", hasEnded)
				s.wantNothingRan()
				s.wantTruth()
			})
		})
	}
	t.Run("that arrives after the cancel is settled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newQuietScene(t, withTasks(sceneTasks()))
			stray := make(chan *http.Request, 1)
			s.out.tapWith(func(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
				if len(s.out.calls("POST", submitPath)) == 1 && r.Method == "POST" {
					stray <- r
					return nil, errBroken
				}
				return pass()
			})
			j := s.triggerJob("ok")
			if v, _ := s.cancelJob(j.ID, "?waitMs=10000"); v.Status != "CANCELED" {
				t.Errorf("it is %s, want CANCELED", v.Status)
			}
			late := <-stray
			r := s.remote("POST", late.URL.Path, spareBody(late))
			contains(t, string(r.body), `"isCached":true`)
			time.Sleep(10 * time.Second)
			s.wantNothingRan()
			s.wantTruth()
		})
	})
	t.Run("that is canceled while it is under way", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t, withTasks(sceneTasks()))
			s.faults(fault("POST", submitPath, "delay", "delayMs", 5000))
			r := s.call("POST", "/api/jobs?waitMs=1", map[string]any{"type": "ok", "executor": "trigger", "triggerTaskId": "ok", "due": time.Now().Add(6 * time.Second)})
			id := s.view(r).ID
			if v, code := s.cancelJob(id, "?waitMs=1000"); code != http.StatusAccepted || v.Status != "PENDING" {
				t.Errorf("cancel is answered %d, %s", code, v.Status)
			}
			s.soonEnough(id, 10*time.Second, "it is canceled", hasEnded)
			time.Sleep(10 * time.Second)
			s.wantNothingRan()
			s.wantTruth()
		})
	})
	t.Run("that had arrived", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newQuietScene(t, withTasks(sceneTasks()))
			s.faults(fault("POST", submitPath, "dropReply", "times", 1))
			r := s.call("POST", "/api/jobs?waitMs=1", `{"type":"stays","executor":"trigger","triggerTaskId":"stays"}`)
			if v, code := s.cancelJob(s.view(r).ID, "?waitMs=10000"); code != http.StatusOK || v.Status != "CANCELED" {
				t.Errorf("cancel is answered %d, %s; want 200, CANCELED", code, v.Status)
			}
			s.wantTruth()
		})
	})
}

// wantNothingRan checks that no run ever began.
func (s *scene) wantNothingRan() {
	s.t.Helper()
	for _, run := range s.truth() {
		if run.Status != "CANCELED" || run.AttemptCount != 0 || !run.StartedAt.IsZero() {
			s.t.Errorf("run %s is %s after %d attempts, started %s; want CANCELED, never begun", run.ID, run.Status, run.AttemptCount, run.StartedAt)
		}
	}
}

func TestARunThatTriggerDevDoesNotKnowIsCanceledUntilItIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDouble()
		d.cancel = answerJSON(404, `{"error":"Resource not found"}`)
		d.retrieve = answerJSON(404, `{"error":"Not found"}`)
		d.list = answerJSON(200, `{"data":[{"id":"run_other","status":"QUEUED","env":{"id":"env_1","name":"dev"}}],"pagination":{}}`)
		d.trigger = inEnvironment("env_1", d.trigger)
		s := newScene(t, withDouble(d))
		j := s.triggerJob("t")
		v, code := s.cancelJob(j.ID, "")
		if code != http.StatusAccepted || !v.CancelRequested || hasEnded(v) {
			t.Errorf("cancel is answered %d, cancelRequested %v, finished %s; want 202, true, not", code, v.CancelRequested, v.Finished)
		}
		time.Sleep(9 * time.Minute)
		if v = s.get(j.ID); hasEnded(v) || v.Error == "" {
			t.Errorf("after nine minutes it is %s with error %q; want it open, with why", v.Status, v.Error)
		}
		time.Sleep(6 * time.Minute)
		if v = s.get(j.ID); v.Status != "FAILED" || !hasEnded(v) {
			t.Errorf("after a quarter of an hour of 404s it is %s, want FAILED", v.Status)
		}
		contains(t, string(v.Result), "orphaned")
		s.out.forget()
		time.Sleep(5 * time.Minute)
		if n := len(s.out.calls("POST", cancelPath)); n > 0 {
			t.Errorf("what was given up is still canceled, %d times", n)
		}
	})
}

func TestAJobThatTakesATagCancelsTheRunThatHadIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		first := s.triggerJob("ok", "tag", "nightly", "due", time.Now().Add(time.Minute))
		second := s.triggerJob("minute", "tag", "nightly")
		old := s.soonEnough(first.ID, 5*time.Second, "the replaced job is canceled", hasEnded)
		if old.Status != "CANCELED" || !old.CancelRequested {
			t.Errorf("the replaced job is %s, cancelRequested %v", old.Status, old.CancelRequested)
		}
		sameMeaning(t, "its result", old.Result, []byte(`{"error":"Job cancelled due to new job being created","canceled":true}`))
		if run := s.remoteRun(first.TriggerRunID); run.Status != "CANCELED" {
			t.Errorf("its run is %s, want CANCELED", run.Status)
		}

		s.soonEnough(second.ID, 5*time.Second, "it runs", isRunning)
		third := s.triggerJob("ok", "tag", "nightly", "due", time.Now().Add(time.Minute))
		time.Sleep(5 * time.Second)
		if got := s.get(second.ID); got.CancelRequested || got.Status != "EXECUTING" {
			t.Errorf("a job that runs is %s, cancelRequested %v; replace leaves it alone", got.Status, got.CancelRequested)
		}
		fourth := s.triggerJob("ok", "tag", "nightly", "onConflict", "replaceAll")
		time.Sleep(5 * time.Second)
		if got := s.statuses([]int64{second.ID, third.ID, fourth.ID}); got[0] != "CANCELED" || got[1] != "CANCELED" || got[2] != "COMPLETED" {
			t.Errorf("after replaceAll they are %q, want both others canceled", got)
		}
		s.wantTruth()
	})
}

// A replaced job does not count for its tag while its cancel is not settled, and a
// run that completes first says so.
func TestAReplacedJobWhoseRunCannotBeCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		first := s.triggerJob("ok", "tag", "nightly", "due", time.Now().Add(30*time.Second))
		s.faults(fault("POST", cancelPath, "status", "status", 503))
		second := s.triggerJob("ok", "tag", "nightly", "due", time.Now().Add(2*time.Minute))
		if got := s.get(first.ID); !got.CancelRequested || hasEnded(got) {
			t.Errorf("the replaced job is %s, cancelRequested %v; want open, true", got.Status, got.CancelRequested)
		}
		r := s.call("POST", "/api/jobs", map[string]any{"type": "ok", "executor": "trigger", "triggerTaskId": "ok", "tag": "nightly", "onConflict": "keep"})
		if kept := s.view(r); r.status != http.StatusOK || kept.ID != second.ID {
			t.Errorf("keep is answered %d with job %d, want 200 with %d", r.status, kept.ID, second.ID)
		}
		time.Sleep(time.Minute)
		if got := s.get(first.ID); got.Status != "COMPLETED" || string(got.Result) != `{"ok":true}` {
			t.Errorf("the replaced job is %s with %s; its run had completed", got.Status, got.Result)
		}
		s.faults()
		s.wait(second.ID)
		time.Sleep(5 * time.Second)
		s.wantTruth()
	})
}

// inEnvironment adds the environment's id to the reply of a trigger.
func inEnvironment(id string, answer http.HandlerFunc) http.HandlerFunc {
	claims, _ := json.Marshal(map[string]any{"sub": id, "pub": true})
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-trigger-jwt-claims", string(claims))
		answer(w, r)
	}
}
