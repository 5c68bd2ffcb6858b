package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/emulator"
)

// Runs go on while sidejob is not there, and end.
func TestAStartFindsWhatEndedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuietScene(t, withTasks(map[string]emulator.Task{
			"completes": {DurationMs: 60_000, Output: json.RawMessage(`0`)},
			"fails":     {DurationMs: 60_000, Status: "FAILED", Error: &emulator.TaskError{Message: "no"}},
			"times out": {DurationMs: 60_000, Status: "TIMED_OUT"},
			"canceled":  {DurationMs: 60_000, Status: "CANCELED"},
			"expires":   {DurationMs: 60_000, Status: "EXPIRED"},
			"goes on":   {Status: "EXECUTING"},
		}))
		want := map[string]string{
			"completes": "COMPLETED", "fails": "FAILED", "times out": "FAILED", "canceled": "CANCELED",
			"expires": "FAILED", "goes on": "EXECUTING",
		}
		for task := range want {
			s.triggerJob(task)
		}
		s.triggerJob("completes", "due", time.Now().Add(30*time.Minute))
		time.Sleep(5 * time.Second)
		s.down()
		time.Sleep(time.Hour)
		s.up()
		time.Sleep(time.Second)
		for _, j := range s.rows() {
			if j.Status != want[j.Type] {
				t.Errorf("a second after the start %s is %s, want %s", j.Type, j.Status, want[j.Type])
			}
			if hasEnded(j) && time.Since(j.Finished) < 20*time.Minute {
				t.Errorf("%s finished at %s, want the time of the run", j.Type, j.Finished)
			}
		}
		s.wantReady("ready")
		s.wantTruth()
	})
}

func TestTheLogSaysWhatAReconciliationDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		time.Sleep(time.Second) // the one at the start is over
		s.triggerJob("stays")
		s.triggerJob("queues")
		time.Sleep(time.Second)
		s.sweepReport("reconcile")
		s.down()
		var lines []string
		for text := range strings.Lines(s.log.String()) {
			var line struct{ Msg, Category, Level string }
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Fatalf("read the log: %v: %s", err, text)
			}
			if line.Category == "trigger-reconcile" && line.Level == "INFO" {
				lines = append(lines, line.Msg)
			}
		}
		want := []string{
			"Starting Trigger.dev job reconciliation", "Found 0 unfinished Trigger.dev jobs", "Reconciliation complete",
			"Starting Trigger.dev job reconciliation", "Found 2 unfinished Trigger.dev jobs", "Reconciliation complete",
		}
		if got := fmt.Sprint(lines); got != fmt.Sprint(want) {
			t.Errorf("the log says %q, want %q", lines, want)
		}
	})
}

// Each job is counted once, for what was found.
func TestTheReportOfAReconciliation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stays := emulator.Task{Status: "EXECUTING"}
		s := newQuietScene(t, withTasks(map[string]emulator.Task{
			"completes": {DurationMs: 40_000}, "fails": {DurationMs: 40_000, Status: "FAILED"}, "ends": {DurationMs: 500},
			"runs": stays, "hidden": stays, "failing": stays, "strange": {Status: "HIBERNATING"},
		}))
		s.wait(s.triggerJob("ends").ID) // is nothing to reconcile
		made := time.Now()
		for _, task := range []string{"completes", "completes", "completes", "completes", "fails", "fails", "runs", "strange"} {
			s.triggerJob(task)
		}
		hidden, failing := s.triggerJob("hidden"), s.triggerJob("failing")
		s.remote("POST", submitPath+"foreign/trigger", map[string]any{"options": map[string]any{
			"tags": []string{installationOf(s.truth()[0]), "db-id:999"}, "delay": "1h",
		}})
		s.faults(fault("POST", submitPath, "redirect"),
			fault("GET", retrievePath+hidden.TriggerRunID, "notFound"),
			fault("GET", retrievePath+failing.TriggerRunID, "status", "status", 500))
		time.Sleep(time.Until(made.Add(40 * time.Second)))
		s.call("POST", "/api/jobs?waitMs=1", `{"type":"unsent","executor":"trigger","triggerTaskId":"unsent"}`)
		time.Sleep(time.Until(made.Add(40*time.Second + 200*time.Millisecond))) // they have just ended
		want := s.foreseen(hidden.ID, failing.ID)
		want.RemoteOrphans = 1
		s.faults(fault("GET", retrievePath+hidden.TriggerRunID, "notFound"),
			fault("GET", retrievePath+failing.TriggerRunID, "status", "status", 500))
		report := s.sweepReport("reconcile")
		if len(report.Errors) != 1 || report.Errors[0].JobID != failing.ID || !strings.Contains(report.Errors[0].Error, "500") {
			t.Errorf("the errors are %+v, want one of job %d with the 500", report.Errors, failing.ID)
		}
		if got := figures(report); got != figures(want) || want.CompletedJobs == 0 {
			t.Errorf("the report is %s,\nwant %s, of which some completed", got, figures(want))
		}
		s.faults()
		time.Sleep(time.Minute)
		want = s.foreseen(0, 0)
		if got := figures(s.sweepReport("sync")); got != figures(want) {
			t.Errorf("the sync after it says %s,\nwant %s", got, figures(want))
		}
	})
}

// foreseen is what a sweep is to report of the rows as they are, with one run hidden
// and one that cannot be asked about.
func (s *scene) foreseen(hidden, failing int64) (want Report) {
	s.t.Helper()
	truth := map[string]string{}
	for _, run := range s.truth() {
		truth[run.ID] = run.Status
	}
	for _, j := range s.rows() {
		if hasEnded(j) {
			continue
		}
		want.TotalJobs++
		switch {
		case !hasRun(j):
			want.DispatchedJobs++
		case j.ID == failing:
			want.FailedJobs++
		case j.ID == hidden, truth[j.TriggerRunID] == "HIBERNATING":
			want.SkippedJobs++
		case truth[j.TriggerRunID] == "COMPLETED":
			want.CompletedJobs++
		default:
			want.SyncedJobs++
		}
	}
	return want
}

// figures is a report without what is checked apart.
func figures(r Report) string {
	r.Errors, r.DurationMs = nil, 0
	return fmt.Sprintf("%+v", r)
}

func installationOf(run remoteRow) string {
	for _, tag := range run.Tags {
		if strings.HasPrefix(tag, "sidejob:") {
			return tag
		}
	}
	return ""
}

func TestSweepsComeOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		s.triggerJob("stays")
		time.Sleep(time.Minute)
		s.faults(fault("GET", listPath, "delay", "delayMs", 2000), fault("GET", retrievePath, "delay", "delayMs", 2000))
		s.out.forget()
		done := make(chan time.Time, 2)
		begun := time.Now()
		for range 2 {
			go func() {
				callHandler(t, s.srv.private, "POST", "/api/reconcile", nil)
				done <- time.Now()
			}()
		}
		first, second := (<-done).Sub(begun), (<-done).Sub(begun)
		if first < 4*time.Second || second < 8*time.Second {
			t.Errorf("two sweeps of 4 s took %s and %s, want one after the other", first, second)
		}
	})
}

// A 404 proves little: three, over ten minutes, with a key that is proved good.
func TestWhatMakesAnOrphan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuietScene(t, withTasks(map[string]emulator.Task{"hour": {DurationMs: 3_600_000, Output: json.RawMessage(`null`)}}))
		id := s.triggerJob("hour").ID
		time.Sleep(10 * time.Second)
		hide := fault("GET", retrievePath, "notFound")
		open := func(why string) {
			t.Helper()
			if j := s.get(id); hasEnded(j) || j.Status != "EXECUTING" {
				t.Fatalf("%s: it is %s with %s, want it as it was", why, j.Status, j.Result)
			}
		}
		for range 2 {
			s.faults(fault("GET", retrievePath, "notFound", "times", 1), fault("GET", retrievePath, "status", "status", 500))
			time.Sleep(11 * time.Minute)
		}
		open("two 404s and many 500s")
		s.faults()
		s.sweepReport("reconcile")
		s.faults(hide)
		for range 5 {
			if got := s.sweepReport("reconcile"); got.OrphanedJobs != 0 || got.SkippedJobs != 1 {
				t.Errorf("a 404 is reported as %+v, want it skipped", got)
			}
			time.Sleep(100 * time.Second)
		}
		open("404s for eight minutes")
		s.faults()
		s.sweepReport("reconcile")
		s.faults(hide)
		time.Sleep(8 * time.Minute)
		open("404s for eight minutes more, with an answer in between")
		time.Sleep(13 * time.Minute)
		lost := s.get(id)
		if lost.Status != "FAILED" || lost.TriggerStatus != "FAILED" || !hasEnded(lost) || lost.Success == nil || *lost.Success {
			t.Fatalf("after more than ten minutes of 404s it is %s, finished %s; want FAILED", lost.Status, lost.Finished)
		}
		contains(t, string(lost.Result), "orphaned")
		s.out.forget()
		time.Sleep(7 * time.Minute)
		if n := len(s.out.calls("GET", retrievePath)); n != 0 {
			t.Errorf("what was given up is still asked about, %d times", n)
		}

		s.faults()
		if got := s.sweepReport("reconcile"); got.TotalJobs != 1 || got.CompletedJobs+got.SyncedJobs != 1 || got.OrphanedJobs != 0 {
			t.Errorf("a run that is there again is reported as %+v, want it synced", got)
		}
		if j := s.wait(id); j.Status != "COMPLETED" || string(j.Result) != "null" {
			t.Errorf("it ended %s with %s", j.Status, j.Result)
		}
		s.wantTruth()
	})
}

func TestAnOrphanComesBackToLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		s.out.tapWith(loseReplies)
		id := s.triggerJob("stays").ID
		s.out.tapWith(nil)
		time.Sleep(10 * time.Second)
		s.faults(fault("GET", retrievePath, "notFound"))
		time.Sleep(15 * time.Minute)
		if j := s.get(id); j.Status != "FAILED" {
			t.Fatalf("it is %s, want it given up", j.Status)
		}
		s.faults()
		s.sweepReport("reconcile")
		if j := s.get(id); j.Status != "EXECUTING" || hasEnded(j) || j.Success != nil || string(j.Result) != "null" {
			t.Errorf("found again it is %s, finished %s, success %v, result %s; want it open", j.Status, j.Finished, j.Success, j.Result)
		}
		s.cancelJob(id, "")
		s.wantTruth()
	})
}

// Where the key cannot be proved, 404s count for nothing, however many.
func TestNoOrphanWithoutAProvedKey(t *testing.T) {
	for _, f := range []map[string]any{
		fault("GET", listPath, "status", "status", 500), fault("GET", listPath, "garbage"), fault("GET", listPath, "emptyList"),
	} {
		t.Run(fmt.Sprint(f["kind"], f["status"]), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newQuietScene(t, withTasks(sceneTasks()), withConfig(func(c *config) { c.syncEvery = time.Minute }))
				id := s.triggerJob("stays").ID
				time.Sleep(10 * time.Second)
				s.faults(fault("GET", retrievePath, "notFound"), f)
				time.Sleep(12 * time.Minute)
				if j := s.get(id); hasEnded(j) {
					t.Errorf("it is %s with %s, want it open", j.Status, j.Result)
				}
			})
		})
	}
}

// A key of another environment sees none of our runs. That must cost no job its
// row, whatever happens in that environment meanwhile.
func TestAKeyOfAnotherEnvironmentOrphansNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var key atomic.Value
		key.Store("tr_dev_test")
		s := newScene(t, withTasks(sceneTasks()), withConfig(func(c *config) {
			c.key, c.syncEvery = func() string { return key.Load().(string) }, time.Minute
		}))
		s.out.tapWith(loseReplies)
		ours := []int64{s.triggerJob("stays").ID, s.triggerJob("ok", "due", time.Now().Add(3*time.Hour)).ID}
		time.Sleep(10 * time.Second)
		open := func(when string) {
			t.Helper()
			for _, id := range ours {
				if j := s.get(id); hasEnded(j) {
					t.Fatalf("%s job %d is %s with %s, want it open", when, id, j.Status, j.Result)
				}
			}
		}
		key.Store("tr_prod_other")
		time.Sleep(13 * time.Minute)
		open("with the key of an empty environment")
		theirs := s.triggerJob("stays").ID
		time.Sleep(13 * time.Minute)
		open("with the key of an environment that has runs")
		key.Store("tr_dev_test")
		time.Sleep(2 * time.Minute) // all rows are asked about once more
		open("with their own key")
		key.Store("tr_prod_other")
		time.Sleep(5 * time.Minute)
		s.down()
		s.up()
		time.Sleep(13 * time.Minute)
		open("with the other key again, and a restart")
		key.Store("tr_dev_test")
		if j, _ := s.cancelJob(ours[0], "?waitMs=10000"); j.Status != "CANCELED" {
			t.Errorf("with its own key job %d is %s, want it canceled", j.ID, j.Status)
		}
		if j := s.get(theirs); hasEnded(j) {
			t.Errorf("the other environment's job %d is %s with %s, want it open", j.ID, j.Status, j.Result)
		}
	})
}

// loseReplies loses the reply of every submit when the stream has brought its run,
// and with it the name of the environment.
func loseReplies(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
	res, err := pass()
	if r.Method != "POST" || err != nil {
		return res, err
	}
	time.Sleep(time.Second)
	return nil, errBroken
}

// Without events and without anybody asking, every end arrives in a sync interval.
func TestSyncFindsEveryEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuietScene(t, withTasks(sceneTasks()), withConfig(func(c *config) { c.syncEvery = 2 * time.Minute }))
		for _, task := range []string{"half-hour", "minute", "ok", "bad", "crashes", "flaky"} {
			s.triggerJob(task)
		}
		time.Sleep(32*time.Minute + time.Second)
		for _, j := range s.rows() {
			if !hasEnded(j) {
				t.Errorf("%s is %s a sync interval after its end", j.Type, j.Status)
			}
		}
		s.wantTruth()
	})
}

// A start under a Trigger.dev that is down serves from the first moment.
func TestAStartWithoutTriggerDev(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		j := s.triggerJob("minute")
		s.down()
		s.faults(fault("", "", "hang"))
		s.up()
		s.wantReady("degraded", "still reconciling")
		r := s.call("POST", "/api/jobs?waitMs=1", `{"type":"ok","executor":"trigger","triggerTaskId":"ok"}`)
		if r.status != http.StatusCreated {
			t.Errorf("schedule is answered %d %s", r.status, r.body)
		}
		time.Sleep(2 * time.Minute)
		s.wantReady("degraded", "not answered since")
		s.faults()
		time.Sleep(6 * time.Minute)
		s.wantReady("ready")
		if got := s.statuses([]int64{j.ID, s.view(r).ID}); got[0] != "COMPLETED" || got[1] != "COMPLETED" {
			t.Errorf("they are %q", got)
		}
		s.wantTruth()
	})
}
