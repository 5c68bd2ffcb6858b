package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// submitFaults is all that can go wrong with a submit without Trigger.dev refusing
// it.
func submitFaults() []map[string]any {
	const post, path = "POST", submitPath
	return []map[string]any{
		fault(post, path, "dropReply"),
		fault(post, path, "truncate"),
		fault(post, path, "reset"),
		fault(post, path, "hang"),
		fault(post, path, "delay", "delayMs", 60_000),
		fault(post, path, "garbage"),
		fault(post, path, "redirect"),
		fault(post, path, "notFound"),
		fault(post, path, "status", "status", 500),
		fault(post, path, "status", "status", 502),
		fault(post, path, "status", "status", 503),
		fault(post, path, "status", "status", 408),
		fault(post, path, "status", "status", 429, "delayMs", 20_000),
		fault(post, path, "status", "status", 401),
		fault(post, path, "status", "status", 403),
	}
}

// Whatever goes wrong on the way, a job gets one run, and shows what goes wrong as
// long as it does.
func TestNoFaultOfTheWayFailsAJobOrGivesItTwoRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuietScene(t, withTasks(sceneTasks()))
		for _, f := range submitFaults() {
			name := fmt.Sprint(f["kind"], f["status"])
			f["times"] = 2
			s.faults(f)
			r := s.call("POST", "/api/jobs?waitMs=1", map[string]any{"type": "ok", "tag": name, "executor": "trigger", "triggerTaskId": "ok"})
			id := s.view(r).ID
			bad := s.soonEnough(id, 12*time.Second, name+": the row shows the error", hasError)
			if r.status != http.StatusCreated || bad.Status != "PENDING" || hasEnded(bad) {
				t.Errorf("%s: the reply was %d and the row is %s", name, r.status, bad.Status)
			}
			if next := s.nextTry(id); !next.After(time.Now()) || next.After(time.Now().Add(time.Minute)) {
				t.Errorf("%s: the next try is at %s, want it in the next minute after %s", name, next, time.Now())
			}
			if f["status"] == 429 && s.nextTry(id).Before(time.Now().Add(15*time.Second)) {
				t.Errorf("%s: the next try is at %s, before the limit's reset", name, s.nextTry(id))
			}
			good := s.soonEnough(id, 90*time.Second, name+": it has a run", hasRun)
			if good.Error != "" {
				t.Errorf("%s: after success the row still shows %q", name, good.Error)
			}
			s.faults()
		}
		time.Sleep(10 * time.Second)
		s.wantTruth()
		for _, j := range s.rows() {
			if j.Status != "COMPLETED" {
				t.Errorf("%s: the job is %s", j.Tag, j.Status)
			}
		}
	})
}

// nextTry is when a job's history says that Trigger.dev is tried again.
func (s *scene) nextTry(id int64) (at time.Time) {
	s.t.Helper()
	var body struct {
		Events []struct {
			Detail struct{ NextTry time.Time }
		}
	}
	s.call("GET", fmt.Sprintf("/api/jobs/%d/events", id), nil).into(s.t, &body)
	for _, e := range body.Events {
		if !e.Detail.NextTry.IsZero() {
			at = e.Detail.NextTry
		}
	}
	return at
}

// A run that has failed frees its key: only looking first keeps a lost reply from
// becoming a second run.
func TestALostReplyToAJobThatFailsAtOnceGivesNoSecondRun(t *testing.T) {
	for _, kind := range []string{"dropReply", "truncate"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newQuietScene(t, withTasks(sceneTasks()))
				s.faults(fault("POST", submitPath, kind, "times", 1), fault("GET", listPath, "status", "status", 503, "times", 3))
				j := s.triggerJob("bad")
				time.Sleep(time.Minute)
				if n := len(s.out.calls("POST", submitPath)); n != 1 {
					t.Errorf("it was submitted %d times, want 1: the run could be found", n)
				}
				if got := s.get(j.ID); got.Status != "FAILED" || got.Attempt != 1 {
					t.Errorf("it is %s after %d attempts, want FAILED after 1", got.Status, got.Attempt)
				}
				s.wantTruth()
			})
		})
	}
}

// With events, the run itself says whose it is before sidejob has asked.
func TestAnEventFindsTheRowOfALostReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		s.faults(fault("POST", submitPath, "dropReply", "times", 1), fault("GET", "", "status", "status", 503))
		j := s.triggerJob("minute")
		s.soonEnough(j.ID, time.Second, "the event brings the run", isRunning)
		s.faults()
		if got := s.wait(j.ID); got.Status != "COMPLETED" || got.Attempt != 1 {
			t.Errorf("it ended %s", got.Status)
		}
		time.Sleep(5 * time.Second)
		if n := len(s.out.calls("POST", submitPath)); n != 1 {
			t.Errorf("it was submitted %d times, want 1", n)
		}
		s.wantTruth()
	})
}

// When the stream has brought the run, nobody misses the reply.
func TestALostReplyAfterTheStreamHasBroughtTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withoutWebhook(), withTasks(sceneTasks()))
		s.out.tapWith(loseReplies)
		j := s.triggerJob("ok", "due", time.Now().Add(time.Hour))
		if !hasRun(j) || j.Error != "" {
			t.Errorf("the reply has run %q and error %q, want the run and none", j.TriggerRunID, j.Error)
		}
		time.Sleep(10 * time.Second)
		if n := len(s.out.calls("POST", submitPath)); n != 1 {
			t.Errorf("it was submitted %d times, want 1", n)
		}
		s.wantTruth()
	})
}

// The list of runs lags, so a run that is not in it may be there all the same;
// realtime shows it.
func TestALostReplyIsLookedUpWhereNothingLags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const key = `"public"."TaskRun"/"cm1"`
		d := newDouble()
		d.retrieve = answerJSON(200, `{"id":"run_d1","status":"FAILED","taskIdentifier":"bad","attemptCount":1,"error":{"message":"no good"}}`)
		d.realtime = func(w http.ResponseWriter, r *http.Request) {
			tags := r.URL.Query().Get("tags")
			w.Header().Set("electric-handle", "h1")
			w.Header().Set("electric-offset", "0_0")
			answerJSON(200, fmt.Sprintf(`[{"key":%q,"value":{"id":"cm1","friendlyId":"run_d1","taskIdentifier":"bad","status":"COMPLETED_WITH_ERRORS","createdAt":"2000-01-01T00:00:00.000","runTags":"{\"%s\"}"},"headers":{"operation":"insert"}},{"headers":{"control":"up-to-date"}}]`,
				key, tags))(w, r)
		}
		s := newQuietScene(t, withDouble(d))
		s.out.tapWith(func(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
			if res, err := pass(); err != nil || r.Method != "POST" {
				return res, err
			}
			return nil, errBroken
		})
		j := s.triggerJob("bad")
		got := s.wait(j.ID)
		if n := len(s.out.calls("POST", submitPath)); n != 1 {
			t.Errorf("it was submitted %d times, want 1: realtime shows its run", n)
		}
		if got.Status != "FAILED" || got.TriggerRunID != "run_d1" {
			t.Errorf("it ended %s with run %q", got.Status, got.TriggerRunID)
		}
	})
}

func TestARefusalForGoodEndsTheJobAndSaysWhy(t *testing.T) {
	for _, status := range []int{400, 413, 422} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDouble()
				d.trigger = answerJSON(status, `{"error":"this cannot be"}`)
				s := newScene(t, withDouble(d))
				r := s.call("POST", "/api/jobs", `{"type":"t","executor":"trigger","triggerTaskId":"t","autoRescheduleOnFailure":true}`)
				var p struct {
					ID     int64
					Code   string
					Detail string
				}
				r.into(t, &p)
				if r.status != http.StatusUnprocessableEntity || p.ID != 1 || p.Code != "trigger_refused" || !strings.Contains(p.Detail, "this cannot be") {
					t.Errorf("the reply is %d %s, want a 422 that names job 1 and says why", r.status, r.body)
				}
				j := s.get(1)
				if j.Status != "FAILED" || j.TriggerRunID != "" || !strings.Contains(j.Error, "this cannot be") {
					t.Errorf("the row is %s with run %q and error %q", j.Status, j.TriggerRunID, j.Error)
				}
				sameMeaning(t, "the result", j.Result,
					fmt.Appendf(nil, `{"error":"Failed to schedule on Trigger.dev","details":{"status":%d,"message":"this cannot be"}}`, status))
				time.Sleep(5 * time.Minute)
				if n := len(s.out.calls("POST", submitPath)); n != 1 {
					t.Errorf("it was submitted %d times, want 1", n)
				}
			})
		})
	}
}

func TestARefusalThatAsksToBeTriedAgainIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDouble()
		d.trigger = once(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("x-should-retry", "true")
			answerJSON(422, `{"error":"the queue is full"}`)(w, r)
		}, d.trigger)
		s := newScene(t, withDouble(d))
		j := s.triggerJob("t")
		if j.TriggerRunID == "" || j.Status != "PENDING" {
			t.Errorf("got %s with run %q and error %q, want a run on the second try", j.Status, j.TriggerRunID, j.Error)
		}
	})
}

// The account may run out of credits between a submit whose reply was lost and the
// next one: the refusal says nothing of the run that may be there.
func TestARefusalAfterALostReplyEndsNothingYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDouble()
		d.trigger = answerJSON(422, `{"error":"out of credits"}`)
		s := newQuietScene(t, withDouble(d))
		s.out.tapWith(onceTap(errBroken))
		j := s.triggerJob("t")
		time.Sleep(20 * time.Second)
		if got := s.get(j.ID); hasEnded(got) || !strings.Contains(got.Error, "out of credits") {
			t.Fatalf("it is %s with %s and error %q; its first submit may have made a run", got.Status, got.Result, got.Error)
		}
		d.set(func() {
			d.list = answerJSON(200, `{"data":[{"id":"run_d1","status":"EXECUTING","taskIdentifier":"t"}],"pagination":{}}`)
			d.retrieve = answerJSON(200, `{"id":"run_d1","status":"COMPLETED","taskIdentifier":"t","output":1,"attemptCount":1}`)
		})
		if got := s.wait(j.ID); got.Status != "COMPLETED" || got.TriggerRunID != "run_d1" {
			t.Errorf("it ended %s with run %q, want COMPLETED: the run was there", got.Status, got.TriggerRunID)
		}
	})
}

// A sweep may send again in the very millisecond in which the first reply was lost.
func TestASecondSubmitInTheSameMillisecondIsInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDouble()
		d.trigger = answerJSON(422, `{"error":"out of credits"}`)
		s := newQuietScene(t, withDouble(d))
		time.Sleep(time.Second)
		s.out.tapWith(onceTap(errBroken))
		s.call("POST", "/api/jobs/batch", `{"jobs":[{"type":"t","executor":"trigger","triggerTaskId":"t"}]}`)
		synctest.Wait()
		report := s.sweepReport("reconcile")
		sent := s.out.calls("POST", submitPath)
		if len(sent) != 2 || !sent[0].at.Equal(sent[1].at) || report.FailedJobs != 1 {
			t.Fatalf("%d submits, report %+v; want two in one moment, and the job still open", len(sent), report)
		}
		if j := s.get(1); hasEnded(j) {
			t.Errorf("it is %s with %s; its first submit may have made a run", j.Status, j.Result)
		}
	})
}

func TestARefusalAfterALostReplyEndsTheJobWhenNoRunShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDouble()
		d.trigger = answerJSON(422, `{"error":"out of credits"}`)
		s := newQuietScene(t, withDouble(d))
		s.out.tapWith(onceTap(errBroken))
		j := s.triggerJob("t")
		time.Sleep(5 * time.Minute)
		if got := s.get(j.ID); got.Status != "FAILED" || !strings.Contains(string(got.Result), "out of credits") {
			t.Errorf("it is %s with %s, want FAILED: no run has shown for minutes", got.Status, got.Result)
		}
	})
}

func TestAFirstSubmitThatMeetsARunIsWarnedOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDouble()
		d.trigger = answerJSON(200, `{"id":"run_d1","isCached":true}`)
		s := newScene(t, withDouble(d))
		j := s.triggerJob("t")
		contains(t, strings.Join(j.Warnings, "\n"), "isCached")
		s.down()
		contains(t, s.log.String(), "answered a first submit with a run it already had")
	})
}

// The second submit after a lost reply is to meet the run of the first.
func TestASecondSubmitThatMeetsItsRunIsNotWarnedOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDouble() // neither the list nor realtime shows the run
		d.trigger = once(d.trigger, answerJSON(200, `{"id":"run_d1","isCached":true}`))
		s := newQuietScene(t, withDouble(d))
		s.out.tapWith(onceTap(errBroken))
		j := s.triggerJob("t")
		if n := len(s.out.calls("POST", submitPath)); j.TriggerRunID != "run_d1" || n != 2 || len(j.Warnings) > 0 {
			t.Errorf("after %d submits it has run %q and warnings %q; want 2, run_d1, none", n, j.TriggerRunID, j.Warnings)
		}
	})
}

func TestARefusedKeyChangesNoRowAndSendingGoesOnWhenItWorksAgain(t *testing.T) {
	for _, status := range []int{401, 403} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, withTasks(sceneTasks()))
				open := []int64{s.triggerJob("minute").ID, s.triggerJob("queues").ID, s.triggerJob("ok", "due", time.Now().Add(time.Hour)).ID}
				time.Sleep(5 * time.Second)
				before := s.statuses(open)
				s.faults(fault("", "", "status", "status", status))
				s.in.cut(errNoRoute)
				for range 6 {
					r := s.call("POST", "/api/jobs?waitMs=1", `{"type":"ok","executor":"trigger","triggerTaskId":"ok"}`)
					open = append(open, s.view(r).ID)
				}
				canceled, code := s.cancelJob(open[1], "?waitMs=100")
				if code != http.StatusAccepted || !canceled.CancelRequested {
					t.Errorf("cancel is answered %d, cancelRequested %v", code, canceled.CancelRequested)
				}
				for range 10 {
					time.Sleep(12 * time.Second)
					s.wantReady("degraded", "refuses the key")
				}
				s.out.forget()
				report := s.sweepReport("reconcile")
				if n := len(s.out.calls("", "")); n > 8 {
					t.Errorf("a sweep with a refused key made %d requests, want it to stop", n)
				}
				if report.TotalJobs != len(open) || report.FailedJobs+report.SkippedJobs != len(open) || report.FailedJobs == 0 || len(report.Errors) != report.FailedJobs {
					t.Errorf("the report is %+v, want all %d failed, or skipped when nothing was tried", report, len(open))
				}
				if got := s.statuses(open[:3]); !slices.Equal(got, before) {
					t.Errorf("the rows changed from %q to %q", before, got)
				}
				said := 0
				for _, id := range open[3:] {
					j := s.get(id)
					if j.Status != "PENDING" || hasRun(j) {
						t.Fatalf("job %d is %s with run %q", id, j.Status, j.TriggerRunID)
					}
					if strings.Contains(j.Error, fmt.Sprint(status)) {
						said++
					}
				}
				if said == 0 {
					t.Errorf("no waiting row says why")
				}
				s.faults()
				s.in.cut(nil)
				time.Sleep(2 * time.Minute)
				s.wantReady("ready")
				if got := s.statuses(open[:3]); !slices.Equal(got, []string{"COMPLETED", "CANCELED", "PENDING"}) {
					t.Errorf("the rows are %q", got)
				}
				for _, id := range open[3:] {
					if j := s.get(id); j.Status != "COMPLETED" {
						t.Errorf("job %d is %s with error %q", id, j.Status, j.Error)
					}
				}
				s.wantTruth()
			})
		})
	}
}

func (s *scene) statuses(ids []int64) (list []string) {
	for _, id := range ids {
		list = append(list, s.get(id).Status)
	}
	return list
}

func TestWithoutTriggerDevItsJobsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withConfig(func(c *config) { c.triggerOn = false }))
		r := s.call("POST", "/api/jobs", `{"type":"t","executor":"trigger","triggerTaskId":"t"}`)
		if r.status != http.StatusUnprocessableEntity {
			t.Errorf("got %d %s, want 422", r.status, r.body)
		}
		if report := s.sweepReport("reconcile"); report.TotalJobs != 0 {
			t.Errorf("the report is %+v", report)
		}
		time.Sleep(time.Minute)
		if n := len(s.out.calls("", "")); n != 0 {
			t.Errorf("%d requests were made of a Trigger.dev that is switched off", n)
		}
		s.wantReady("ready")
	})
}
