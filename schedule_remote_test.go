package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/emulator"
	"sidejob/internal/job"
)

const schedulePath = "/api/v1/schedules"

// recurringRow is a recurring job, or a run of it, as a caller reads it.
type recurringRow struct {
	seenJob
	CronSchedule, TriggerScheduleID string
}

// remoteSchedule is a schedule as Trigger.dev lists it.
type remoteSchedule struct {
	ID, Task, DeduplicationKey, ExternalID, Timezone string
	Active                                           bool
	Generator                                        struct{ Expression string }
}

// newScheduleScene is a scene whose project has two scheduled tasks and a plain one.
func newScheduleScene(t *testing.T, options ...worldOption) *scene {
	t.Helper()
	return newScene(t, append([]worldOption{withTasks(map[string]emulator.Task{
		"report": {DurationMs: 1000, Scheduled: true, Output: json.RawMessage(`"sent"`)},
		"digest": {DurationMs: 1000, Scheduled: true, Output: json.RawMessage(`"sent"`)},
		"plain":  {DurationMs: 500},
	})}, options...)...)
}

// askRecurring asks for a recurring job of Trigger.dev.
func (s *scene) askRecurring(query, task, tag, cron string, members ...any) answer {
	s.t.Helper()
	request := map[string]any{"type": "report", "executor": "trigger", "triggerTaskId": task, "tag": tag, "cronSchedule": cron, "removeDelay": (72 * time.Hour).Milliseconds()}
	for i := 0; i+1 < len(members); i += 2 {
		request[members[i].(string)] = members[i+1]
	}
	return s.call("POST", "/api/jobs"+query, request)
}

func (s *scene) recurring(task, tag, cron string, members ...any) recurringRow {
	s.t.Helper()
	r := s.askRecurring("", task, tag, cron, members...)
	var row recurringRow
	r.into(s.t, &row)
	if r.status != http.StatusCreated || row.TriggerScheduleID == "" {
		s.t.Fatalf("schedule %s: %d %s; want 201 with a triggerScheduleId", tag, r.status, r.body)
	}
	return row
}

func (s *scene) recurringRow(id int64) (row recurringRow) {
	s.t.Helper()
	s.call("GET", fmt.Sprintf("/api/jobs/%d", id), nil).into(s.t, &row)
	return row
}

// schedulesOf are the schedules in the environment of a key.
func (s *scene) schedulesOf(key string) []remoteSchedule {
	s.t.Helper()
	var page struct{ Data []remoteSchedule }
	callHandler(s.t, s.emu, "GET", schedulePath+"?perPage=100", nil, "Authorization", "Bearer "+key).into(s.t, &page)
	return page.Data
}

// wantSchedule is the only schedule there is, as the row asks for it.
func (s *scene) wantSchedule(row recurringRow, active bool) remoteSchedule {
	s.t.Helper()
	all := s.schedulesOf("tr_dev_test")
	if len(all) != 1 {
		s.t.Fatalf("Trigger.dev has %d schedules, want 1: %+v", len(all), all)
	}
	is := all[0]
	want := remoteSchedule{
		ID: is.ID, Task: row.TriggerTaskID, DeduplicationKey: "sidejob:" + s.srv.store.Installation() + ":dev:" + row.Tag,
		ExternalID: fmt.Sprint(row.ID), Timezone: row.Timezone, Active: active,
	}
	want.Generator.Expression = row.CronSchedule
	if is != want {
		s.t.Errorf("the schedule is %+v, want %+v", is, want)
	}
	if got := s.recurringRow(row.ID).TriggerScheduleID; got != is.ID {
		s.t.Errorf("the row names schedule %q, want %q; history %q", got, is.ID, s.history(row.ID))
	}
	return is
}

func (s *scene) wantNoSchedule() {
	s.t.Helper()
	if all := s.schedulesOf("tr_dev_test"); len(all) != 0 {
		s.t.Errorf("Trigger.dev has schedules %+v, want none", all)
	}
}

// occurrences are the rows of a recurring job's runs, by due time.
func (s *scene) occurrences(id int64) []recurringRow {
	s.t.Helper()
	var page struct{ Jobs []recurringRow }
	s.call("GET", fmt.Sprintf("/api/jobs?scheduleId=%d&limit=200&order=due", id), nil).into(s.t, &page)
	return slices.DeleteFunc(page.Jobs, func(j recurringRow) bool { return j.CronSchedule != "" })
}

// firedRun is a run of a schedule as the emulator's own control shows it.
type firedRun struct {
	ID, Status, ScheduleID string
	CreatedAt              time.Time
	Payload                struct{ ExternalID string }
}

func (s *scene) firedRuns() (fired []firedRun) {
	s.t.Helper()
	var body struct{ Runs []firedRun }
	callHandler(s.t, s.emu, "GET", "/emulator/runs", nil).into(s.t, &body)
	return slices.DeleteFunc(body.Runs, func(r firedRun) bool { return r.ScheduleID == "" })
}

// wantFired holds the rows of the runs that schedules have fired against Trigger.dev:
// each run has one row, due at its nominal time, and there are no others. The rows
// named are the schedules'.
func (s *scene) wantFired(count int, rows ...recurringRow) {
	s.t.Helper()
	byRun := map[string]recurringRow{}
	for _, row := range rows {
		for _, o := range s.occurrences(row.ID) {
			if o.Tag != row.Tag || o.Type != row.Type || o.UserID != row.UserID || string(o.Data) != string(row.Data) || o.RescheduledFromJob != row.ID {
				s.t.Errorf("the occurrence is %+v, want tag, type, user and data of %+v", o, row)
			}
			if twice, known := byRun[o.TriggerRunID]; known {
				s.t.Errorf("jobs %d and %d have one run", twice.ID, o.ID)
			}
			byRun[o.TriggerRunID] = o
		}
	}
	runs := s.firedRuns()
	if len(runs) != count {
		s.t.Errorf("the schedules have fired %d runs, want %d", len(runs), count)
	}
	for _, run := range runs {
		o, known := byRun[run.ID]
		delete(byRun, run.ID)
		switch {
		case !known:
			s.t.Errorf("the run of %s has no row", run.CreatedAt)
		case !o.Due.Equal(run.CreatedAt) || o.TriggerRawStatus != run.Status || o.Status != tableStatus(run.Status):
			s.t.Errorf("job %d is due %s and %s (%s); its run is of %s and %s", o.ID, o.Due, o.Status, o.TriggerRawStatus, run.CreatedAt, run.Status)
		case run.Payload.ExternalID != fmt.Sprint(o.RescheduledFromJob):
			s.t.Errorf("the run's payload names row %q, want %d", run.Payload.ExternalID, o.RescheduledFromJob)
		}
	}
	for _, o := range byRun {
		s.t.Errorf("job %d has a run %q that no schedule has fired", o.ID, o.TriggerRunID)
	}
}

// onSchedules tells the emulator's API something about a schedule behind sidejob's back.
func (s *scene) onSchedules(method, below string, body any) {
	s.t.Helper()
	if r := s.remote(method, schedulePath+below, body); r.status != http.StatusOK {
		s.t.Fatalf("%s %s: %d %s", method, below, r.status, r.body)
	}
}

func TestARecurringJobBecomesAScheduleOnTriggerDev(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		row := s.recurring("report", "daily", "0 9 * * *", "timezone", "Europe/Berlin", "userId", 7, "data", map[string]any{"a": 1})
		s.wantSchedule(row, true)
		if want := time.Date(2000, 1, 1, 8, 0, 0, 0, time.UTC); !row.Due.Equal(want) || row.Status != "PENDING" {
			t.Errorf("the row is %s and due %s, want PENDING and %s", row.Status, row.Due, want)
		}
		time.Sleep(time.Second) // the first reconciliation goes on beside
		s.wantReady("ready")
	})
}

func TestARecurringJobWaitsForATriggerDevThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		s.out.cut(errNoRoute)
		r := s.askRecurring("?waitMs=1500", "report", "daily", "0 9 * * *")
		row := s.recurringRow(s.view(r).ID)
		if r.status != http.StatusCreated || row.Error == "" || row.TriggerScheduleID != "" || row.Status != "PENDING" {
			t.Errorf("the reply is %d, the row %+v; want 201, and a pending row that says why", r.status, row)
		}
		time.Sleep(time.Hour)
		s.out.cut(nil)
		time.Sleep(2 * time.Minute)
		s.wantSchedule(row, true)
		if got := s.recurringRow(row.ID); got.Error != "" {
			t.Errorf("the row still shows the error %q", got.Error)
		}
	})
}

// Whatever becomes of the answers, a tag has one schedule.
func TestLostAnswersMakeNoSecondSchedule(t *testing.T) {
	for _, kind := range []string{"dropReply", "reset", "truncate", "garbage", "status"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScheduleScene(t)
				s.faults(fault("POST", schedulePath, kind, "times", 3, "status", 500))
				r := s.askRecurring("", "report", "daily", "0 9 * * *")
				time.Sleep(time.Minute)
				s.wantSchedule(s.recurringRow(s.view(r).ID), true)
			})
		})
	}
}

func TestACrashWhileAScheduleIsMadeGivesOne(t *testing.T) {
	for _, arrived := range []bool{false, true} {
		t.Run(fmt.Sprint("arrived ", arrived), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScheduleScene(t)
				s.out.tapWith(holdFirst("POST", schedulePath, arrived))
				r := s.askRecurring("?waitMs=100", "report", "minutely", "* * * * *")
				s.crash()
				time.Sleep(30 * time.Second)
				row := s.recurringRow(s.view(r).ID)
				s.wantSchedule(row, true)
				time.Sleep(2 * time.Minute)
				s.wantFired(2, row)
			})
		})
	}
}

func TestAPlainTaskIsRefusedInPlainWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		r := s.askRecurring("", "plain", "daily", "0 9 * * *")
		var p problem
		r.into(t, &p)
		if r.status != http.StatusUnprocessableEntity || p.Code != "trigger_refused" || p.ID == 0 {
			t.Fatalf("got %d %s, want a 422 with the job's id", r.status, r.body)
		}
		contains(t, p.Detail, "schedules.task", "fireLocally", "is not a scheduled task")
		row := s.recurringRow(p.ID)
		if row.Status != "FAILED" {
			t.Errorf("the row is %s, want FAILED", row.Status)
		}
		contains(t, string(row.Result), "Failed to schedule on Trigger.dev", "is not a scheduled task")
		s.wantNoSchedule()
	})
}

func TestTheSameTagAgainUpdatesItsSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		first := s.recurring("report", "daily", "0 9 * * *")
		made := s.wantSchedule(first, true)
		second := s.recurring("report", "daily", "30 * * * *", "timezone", "Asia/Kathmandu", "userId", 3)
		if kept := s.wantSchedule(second, true); kept.ID != made.ID {
			t.Errorf("the schedule is %s, want %s as before", kept.ID, made.ID)
		}
		if got := s.recurringRow(first.ID); got.Status != "CANCELED" || !strings.Contains(string(got.Result), "due to new job being created") {
			t.Errorf("the first row is %s, %s; want it replaced", got.Status, got.Result)
		}
		time.Sleep(3 * time.Hour)
		s.wantFired(3, second)
	})
}

func TestAnotherTaskTakesAnotherSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		made := s.wantSchedule(s.recurring("report", "daily", "0 9 * * *"), true)
		second := s.recurring("digest", "daily", "0 9 * * *")
		if now := s.wantSchedule(second, true); now.ID == made.ID {
			t.Errorf("the schedule is still %s", now.ID)
		}
	})
}

func TestAPlainTaskThatTakesATagEndsItsSchedule(t *testing.T) {
	for name, members := range map[string][]any{
		"as an ordinary job":        {"cronSchedule", ""},
		"as a schedule, in vain":    {},
		"as one that sidejob fires": {"fireLocally", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScheduleScene(t)
				first := s.recurring("report", "daily", "0 9 * * *")
				s.askRecurring("", "plain", "daily", "0 9 * * *", members...)
				time.Sleep(10 * time.Second)
				s.wantNoSchedule()
				if got := s.recurringRow(first.ID); got.Status != "CANCELED" {
					t.Errorf("the first row is %s, want CANCELED", got.Status)
				}
			})
		})
	}
}

func TestCancelDeletesTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		row := s.recurring("report", "minutely", "* * * * *")
		time.Sleep(90 * time.Second)
		if got, code := s.cancelJob(row.ID, ""); code != http.StatusOK || got.Status != "CANCELED" {
			t.Errorf("cancel is answered %d, %s; want 200, CANCELED", code, got.Status)
		}
		s.wantNoSchedule()
		time.Sleep(5 * time.Minute)
		s.wantFired(1, row)
	})
}

// What Trigger.dev has done for the recurring job is not lost with it.
func TestCancelFirstLooksForWhatWasFired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		row := s.recurring("report", "minutely", "* * * * *")
		s.faults(fault("GET", listPath, "status", "status", 500))
		time.Sleep(3*time.Minute + 30*time.Second)
		s.wantFiredRows(0, row)
		s.faults()
		s.cancelJob(row.ID, "?waitMs=10000")
		time.Sleep(time.Minute)
		s.wantNoSchedule()
		s.wantFired(3, row)
	})
}

func (s *scene) wantFiredRows(count int, row recurringRow) {
	s.t.Helper()
	if got := s.occurrences(row.ID); len(got) != count {
		s.t.Errorf("there are rows of %d runs, want %d", len(got), count)
	}
}

func TestCancelWhileTriggerDevIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		row := s.recurring("report", "daily", "0 9 * * *")
		s.out.cut(errNoRoute)
		if got, code := s.cancelJob(row.ID, "?waitMs=10"); code != http.StatusAccepted || got.Status != "PENDING" || !got.CancelRequested {
			t.Errorf("cancel is answered %d, %s, cancelRequested %v; want 202, PENDING, true", code, got.Status, got.CancelRequested)
		}
		s.crash()
		time.Sleep(time.Minute)
		s.out.cut(nil)
		s.soonEnough(row.ID, 2*time.Minute, "it is canceled", hasEnded)
		s.wantNoSchedule()
	})
}

// The newer row of a tag was never sent when it is canceled, but what it carries over
// is there.
func TestCancelOfARowThatCarriesAScheduleOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		s.recurring("report", "daily", "0 9 * * *")
		s.out.cut(errNoRoute)
		second := s.view(s.askRecurring("?waitMs=1", "report", "daily", "0 10 * * *"))
		if got, code := s.cancelJob(second.ID, "?waitMs=10"); code != http.StatusAccepted {
			t.Errorf("cancel is answered %d, %s; want 202: the schedule is still there", code, got.Status)
		}
		s.out.cut(nil)
		s.soonEnough(second.ID, 2*time.Minute, "it is canceled", hasEnded)
		s.wantNoSchedule()
	})
}

// The late call of a row that was replaced must not undo the new one's.
func TestTwoRowsOfATagTakeTurns(t *testing.T) {
	for _, first := range []string{"makes", "deletes"} {
		t.Run("the older one "+first+" it", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScheduleScene(t)
				method := "POST"
				if first == "deletes" {
					s.cancelJob(s.recurring("report", "daily", "0 9 * * *").ID, "?waitMs=0")
					method = "DELETE"
				}
				s.faults(fault(method, schedulePath, "delay", "delayMs", 5000, "times", 1))
				if first == "makes" {
					s.askRecurring("?waitMs=1", "report", "daily", "0 9 * * *")
				}
				time.Sleep(time.Second)
				second := s.view(s.askRecurring("?waitMs=1", "report", "daily", "0 10 * * *"))
				time.Sleep(20 * time.Second)
				s.wantSchedule(s.recurringRow(second.ID), true)
			})
		})
	}
}

func TestEveryRunOfAScheduleBecomesARow(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]worldOption{"with events": nil, "without events": {withoutWebhook()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScheduleScene(t, options...)
				row := s.recurring("report", "minutely", "* * * * *", "userId", 4, "data", map[string]any{"b": 2})
				other := s.recurring("digest", "hourly", "0 * * * *")
				time.Sleep(60*time.Second + 1500*time.Millisecond)
				s.wantFiredRows(1, row)
				time.Sleep(28*time.Minute + 30*time.Second)
				s.wantFired(29, row, other)
				if got := s.recurringRow(row.ID); !got.Due.Equal(time.Date(2000, 1, 1, 0, 30, 0, 0, time.UTC)) {
					t.Errorf("the schedule's row is due %s, want 00:30", got.Due)
				}
				time.Sleep(31 * time.Minute)
				s.wantFired(61, row, other)
				s.wantReady("ready")
			})
		})
	}
}

func TestRunsOfAnHourOfDowntimeGetTheirRows(t *testing.T) {
	for _, how := range []string{"shutdown", "crash"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScheduleScene(t)
				row := s.recurring("report", "minutely", "* * * * *")
				time.Sleep(2*time.Minute + 30*time.Second)
				if how == "crash" {
					s.crash()
				}
				s.down()
				time.Sleep(time.Hour)
				s.up()
				time.Sleep(time.Minute)
				s.wantFired(63, row)
				for range 5 {
					s.down()
					s.up()
				}
				s.wantFired(63, row)
			})
		})
	}
}

// lateStore is slow to say which schedules there are.
type lateStore struct{ Store }

// Schedules implements Store.
func (l lateStore) Schedules(ctx context.Context) ([]job.Job, error) {
	time.Sleep(100 * time.Millisecond)
	return l.Store.Schedules(ctx)
}

// upLate starts sidejob with a lookout that is slow to begin.
func (s *scene) upLate() {
	s.t.Helper()
	srv, err := newServer(s.t.Context(), s.cfg, newLogger(s.log, slog.LevelDebug, "json", false))
	if err != nil {
		s.t.Fatalf("start the server: %v", err)
	}
	srv.lookout.store = lateStore{srv.store}
	srv.start()
	s.srv = srv
	s.open()
}

// Hosts schedule their recurring jobs at each start, before sidejob has looked.
func TestRunsOfADowntimeGoToTheRowThatTakesTheTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		first := s.recurring("report", "minutely", "* * * * *")
		time.Sleep(90 * time.Second)
		s.down()
		time.Sleep(time.Hour)
		s.out.cut(errNoRoute)
		s.upLate() // the host is faster than the first look
		second := s.view(s.askRecurring("?waitMs=1", "report", "minutely", "* * * * *"))
		s.out.cut(nil)
		time.Sleep(time.Minute)
		s.wantFiredRows(1, first)
		if got, want := len(s.occurrences(first.ID))+len(s.occurrences(second.ID)), len(s.firedRuns()); got != want {
			t.Errorf("there are rows of %d runs, want %d", got, want)
		}
	})
}

func TestATagThatIsTakenWhileItsRunsAreLookedForLosesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		first := s.recurring("report", "minutely", "* * * * *")
		time.Sleep(90 * time.Second)
		s.down()
		time.Sleep(time.Hour)
		s.faults(fault("GET", listPath, "delay", "delayMs", 3000))
		s.up()
		time.Sleep(time.Second)
		second := s.view(s.askRecurring("?waitMs=1", "report", "minutely", "* * * * *"))
		time.Sleep(10 * time.Second)
		s.faults()
		time.Sleep(time.Minute)
		if got, want := len(s.occurrences(first.ID))+len(s.occurrences(second.ID)), len(s.firedRuns()); got != want {
			t.Errorf("there are rows of %d runs, want %d", got, want)
		}
	})
}

func TestAListThatLagsLosesNoRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		row := s.recurring("report", "minutely", "* * * * *")
		s.faults(fault("GET", listPath, "staleList", "delayMs", 90_000))
		time.Sleep(20 * time.Minute)
		s.wantReady("ready")
		s.faults()
		time.Sleep(30 * time.Second)
		s.wantFired(20, row)
	})
}

func TestAnEventOfAnUnknownRunHurriesTheLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		row := s.recurring("report", "minutely", "* * * * *")
		s.faults(fault("GET", listPath, "staleList", "delayMs", 60_000))
		time.Sleep(95 * time.Second)
		s.faults()
		s.wantFiredRows(0, row)
		before := len(s.out.calls("GET", listPath))
		s.hookHears(hookEvent("evt_hint", "RUN_STARTED", "run_unknown"))
		time.Sleep(time.Second)
		s.wantFiredRows(1, row)
		if looks := len(s.out.calls("GET", listPath)) - before; looks > 3 {
			t.Errorf("it was looked for %d times", looks)
		}
	})
}

func TestTwoEnvironmentsDoNotStealEachOthersSchedules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := "tr_dev_test"
		s := newScheduleScene(t, withConfig(func(c *config) { c.key = func() string { return key } }))
		first := s.recurring("report", "daily", "0 9 * * *")
		s.down()
		key = "tr_prod_test"
		s.up()
		second := s.recurring("report", "daily", "0 10 * * *")
		dev, prod := s.schedulesOf("tr_dev_test"), s.schedulesOf("tr_prod_test")
		if len(dev) != 1 || len(prod) != 1 || dev[0].ID == prod[0].ID {
			t.Fatalf("dev has %+v, prod %+v; want one each", dev, prod)
		}
		if dev[0].ExternalID != fmt.Sprint(first.ID) || prod[0].ExternalID != fmt.Sprint(second.ID) {
			t.Errorf("dev has %+v, prod %+v", dev, prod)
		}
	})
}

// A key of another environment finds no schedule and no run; that proves nothing.
func TestAKeyOfAnotherEnvironmentChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		key := "tr_prod_test"
		s := newScheduleScene(t, withConfig(func(c *config) { c.key = func() string { return key } }))
		row := s.recurring("report", "minutely", "* * * * *")
		time.Sleep(90 * time.Second)
		before := s.schedulesOf("tr_prod_test")
		s.remote("POST", submitPath+"plain/trigger", `{}`) // so that dev has a run
		s.down()
		key = "tr_dev_test"
		s.up()
		time.Sleep(time.Hour)
		if r := s.sweepReport("reconcile"); r.SkippedJobs != 1 || r.SchedulesSet != 0 {
			t.Errorf("the report is %+v, want one job skipped, nothing repaired", r)
		}
		s.wantReady("ready")
		if got, code := s.cancelJob(row.ID, "?waitMs=5000"); code != http.StatusAccepted || got.Error == "" {
			t.Errorf("cancel is answered %d, error %q; want 202, and why", code, got.Error)
		}
		if after := s.schedulesOf("tr_prod_test"); !slices.Equal(after, before) || len(s.schedulesOf(key)) != 0 {
			t.Errorf("prod has %+v, dev %+v; want %+v and none", after, s.schedulesOf(key), before)
		}
		s.down()
		key = "tr_prod_test"
		s.up()
		s.soonEnough(row.ID, 2*time.Minute, "it is canceled", hasEnded)
		s.wantFired(61, row)
	})
}

func TestDriftIsRepairedAndReported(t *testing.T) {
	for name, drift := range map[string]func(*scene, remoteSchedule){
		"deleted":     func(s *scene, r remoteSchedule) { s.onSchedules("DELETE", "/"+r.ID, nil) },
		"deactivated": func(s *scene, r remoteSchedule) { s.onSchedules("POST", "/"+r.ID+"/deactivate", nil) },
		"another cron": func(s *scene, r remoteSchedule) {
			s.onSchedules("PUT", "/"+r.ID, map[string]any{"task": r.Task, "cron": "5 5 * * *", "externalId": r.ExternalID})
		},
		"another zone": func(s *scene, r remoteSchedule) {
			s.onSchedules("PUT", "/"+r.ID, map[string]any{"task": r.Task, "cron": r.Generator.Expression, "externalId": r.ExternalID, "timezone": "Asia/Tokyo"})
		},
		"another task": func(s *scene, r remoteSchedule) {
			s.onSchedules("DELETE", "/"+r.ID, nil)
			s.onSchedules("POST", "", map[string]any{"task": "digest", "cron": r.Generator.Expression, "externalId": r.ExternalID, "deduplicationKey": r.DeduplicationKey})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScheduleScene(t)
				row := s.recurring("report", "daily", "0 9 * * *")
				drift(s, s.wantSchedule(row, true))
				if r := s.sweepReport("reconcile?dryRun=true"); r.SchedulesSet != 1 {
					t.Errorf("a dry run reports %+v, want one to repair", r)
				}
				time.Sleep(10 * time.Second)
				if h := s.history(row.ID); strings.Contains(strings.Join(h, "\n"), "reconcile") {
					t.Errorf("a dry run has changed the row: %q", h)
				}
				if r := s.sweepReport("sync"); r.SchedulesSet != 1 || r.Schedules != 1 || r.FailedJobs != 0 {
					t.Errorf("sync reports %+v, want one repaired", r)
				}
				time.Sleep(5 * time.Second)
				s.wantSchedule(row, true)
				if r := s.sweepReport("sync"); r.SchedulesSet != 0 || r.Schedules != 1 {
					t.Errorf("sync reports %+v afterwards, want nothing repaired", r)
				}
			})
		})
	}
}

// A list without rows is what an environment shows that nothing was ever deployed to.
func TestAnEmptyListOfSchedulesProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		row := s.recurring("report", "daily", "0 9 * * *")
		s.faults(fault("GET", schedulePath, "emptyList", "times", 1))
		if r := s.sweepReport("sync"); r.SchedulesSet != 0 || r.Schedules != 1 || r.FailedJobs != 0 {
			t.Errorf("sync reports %+v, want one compared and nothing repaired", r)
		}
		s.wantSchedule(row, true)
	})
}

func TestAScheduleWhoseRowHasEndedIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		row := s.recurring("report", "daily", "0 9 * * *")
		key := s.wantSchedule(row, true).DeduplicationKey
		s.cancelJob(row.ID, "")
		s.onSchedules("POST", "", map[string]any{"task": "report", "cron": "0 9 * * *", "externalId": fmt.Sprint(row.ID), "deduplicationKey": key})
		s.onSchedules("POST", "", map[string]any{"task": "report", "cron": "0 9 * * *", "deduplicationKey": "somebody's own"})
		if r := s.sweepReport("reconcile?dryRun=true"); r.SchedulesDeleted != 0 || len(s.schedulesOf("tr_dev_test")) != 2 {
			t.Errorf("a dry run reports %+v", r)
		}
		if r := s.sweepReport("sync"); r.SchedulesDeleted != 1 || r.SchedulesOrphan != 0 {
			t.Errorf("sync reports %+v, want one deleted", r)
		}
		if left := s.schedulesOf("tr_dev_test"); len(left) != 1 || left[0].DeduplicationKey != "somebody's own" {
			t.Errorf("left are %+v, want somebody's own", left)
		}
	})
}

func TestAScheduleWithoutARowIsReportedAndDeletedOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		row := s.recurring("report", "daily", "0 9 * * *")
		s.lose(row.ID)
		for range 2 {
			if r := s.sweepReport("reconcile"); r.SchedulesOrphan != 1 || r.SchedulesDeleted != 0 {
				t.Errorf("the report is %+v, want one without a row, left alone", r)
			}
		}
		if r := s.sweepReport("reconcile?cancel=true"); r.SchedulesOrphan != 1 || r.SchedulesDeleted != 1 {
			t.Errorf("the report is %+v, want one without a row, deleted", r)
		}
		s.wantNoSchedule()
	})
}

func TestAMissedFireIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t, withConfig(func(c *config) { c.syncEvery = 24 * time.Hour }))
		row := s.recurring("report", "hourly", "0 * * * *")
		time.Sleep(90 * time.Minute)
		s.onSchedules("POST", "/"+row.TriggerScheduleID+"/deactivate", nil)
		time.Sleep(30*time.Minute + 2*time.Minute + 50*time.Second)
		s.wantReady("ready")
		time.Sleep(time.Minute)
		s.wantReady("degraded", fmt.Sprintf("recurring job %d (hourly) should have fired at 2000-01-01T02:00:00.000Z and did not", row.ID))
		contains(t, string(s.call("GET", "/metrics", nil).body), "\nsidejob_recurring_missed 1\n")
		contains(t, strings.Join(s.history(row.ID), "\n"), "missed schedule")
		s.wantSchedule(row, true) // and it is set right at once
		time.Sleep(time.Hour)
		s.wantReady("ready")
		contains(t, string(s.call("GET", "/metrics", nil).body), "\nsidejob_recurring_missed 0\n")
		s.wantFired(2, row)
	})
}

// While Trigger.dev cannot be asked, nothing counts as missed.
func TestNothingIsMissedUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		row := s.recurring("report", "minutely", "* * * * *")
		s.faults(fault("GET", listPath, "status", "status", 500))
		time.Sleep(30 * time.Minute)
		s.faults()
		time.Sleep(2*time.Minute + 30*time.Second)
		if h := strings.Join(s.history(row.ID), "\n"); strings.Contains(h, "missed") {
			t.Errorf("the history says %q", h)
		}
		s.wantFired(32, row)
	})
}

// tell applies a request to a recurring job and has what it owes paid.
func (s *scene) tell(id int64, kind job.Kind) {
	s.t.Helper()
	if _, err := s.srv.store.Apply(s.t.Context(), id, job.Event{Kind: kind, At: now(), Source: "api"}); err != nil {
		s.t.Fatalf("%s job %d: %v", kind, id, err)
	}
	s.srv.outbox.nudge()
}

func TestPauseAndResumeReachTriggerDev(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		row := s.recurring("report", "minutely", "* * * * *")
		time.Sleep(2*time.Minute + 30*time.Second)
		s.tell(row.ID, job.Pause)
		time.Sleep(5 * time.Second)
		made := s.wantSchedule(row, false)
		time.Sleep(30 * time.Minute)
		s.wantReady("ready")
		s.wantFired(2, row)
		s.onSchedules("POST", "/"+made.ID+"/activate", nil) // somebody else lets it fire
		if r := s.sweepReport("sync"); r.SchedulesSet != 1 {
			t.Errorf("sync reports %+v, want one repaired", r)
		}
		time.Sleep(5 * time.Second)
		s.wantSchedule(row, false)
		s.tell(row.ID, job.Resume)
		time.Sleep(2 * time.Minute)
		s.wantSchedule(row, true)
		s.wantFired(4, row)
		s.wantReady("ready")
	})
}

// A Trigger.dev that does not do as it is told is not asked without end.
func TestAScheduleThatStaysActiveIsTriedWithBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		row := s.recurring("report", "daily", "0 9 * * *")
		s.out.tapWith(func(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/deactivate") {
				r.URL.Path = strings.Replace(r.URL.Path, "/deactivate", "/activate", 1)
			}
			return pass()
		})
		s.out.forget()
		s.tell(row.ID, job.Pause)
		time.Sleep(time.Minute)
		if n := len(s.out.calls("POST", schedulePath)); n > 16 {
			t.Errorf("%d calls in a minute", n)
		}
		contains(t, s.recurringRow(row.ID).Error, "is active, whatever was asked for")
		s.out.tapWith(nil)
		time.Sleep(time.Minute)
		s.wantSchedule(row, false)
	})
}

func TestPauseWhileTheScheduleIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		s.faults(fault("POST", schedulePath, "delay", "delayMs", 3000, "times", 1))
		id := s.view(s.askRecurring("?waitMs=1", "report", "daily", "0 9 * * *")).ID
		time.Sleep(time.Second)
		s.tell(id, job.Pause)
		time.Sleep(10 * time.Second)
		s.wantSchedule(s.recurringRow(id), false)
	})
}

// A row may be removed while the list still shows its run.
func TestARemovedRowIsNotMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		row := s.recurring("report", "minutely", "* * * * *", "removeDelay", -1)
		rows := map[int64]bool{}
		for n := range 12 {
			time.Sleep(time.Minute)
			for _, o := range s.occurrences(row.ID) {
				rows[o.ID] = true
			}
			s.call("POST", "/api/jobs/cleanup", nil)
			if n == 5 {
				s.down()
				s.up()
			}
		}
		if runs := len(s.firedRuns()); len(rows) > runs || len(rows) < runs-1 {
			t.Errorf("%d rows were made for %d runs", len(rows), runs)
		}
	})
}

// A host writes its wish into the row itself.
func TestAHostCancelsInItsOwnRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduleScene(t)
		rows := []recurringRow{s.recurring("report", "daily", "0 9 * * *")}
		var local recurringRow
		s.askRecurring("", "plain", "local", "*/10 * * * * *", "fireLocally", true).into(t, &local)
		db, err := sql.Open("sqlite", sqliteDSN(s.cfg.database))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec("UPDATE worker_jobs SET cancel_requested = 1 WHERE cron_schedule IS NOT NULL AND executor = 'trigger'"); err != nil {
			t.Fatal(err)
		}
		db.Close()
		for _, row := range append(rows, local) {
			s.soonEnough(row.ID, 15*time.Second, "it is canceled", hasEnded)
		}
		s.wantNoSchedule()
	})
}
