package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/job"
)

// seenRecurring is a job as a caller reads it, with the members of recurring ones.
type seenRecurring struct {
	seenJob
	CronSchedule, Misfire, TriggerScheduleID string
	MisfireLimit, ScheduleID                 int64
	FireLocally                              bool
	MissedAt                                 time.Time
}

func (w *world) recurring(r answer) (v seenRecurring) {
	w.t.Helper()
	r.into(w.t, &v)
	return v
}

// every schedules a recurring job; more are further members of the request.
func (w *world) every(cron, more string) seenRecurring {
	w.t.Helper()
	r := w.call("POST", "/api/jobs?waitMs=0", fmt.Sprintf(`{"type":"work","tag":"again","cronSchedule":%q%s}`, cron, more))
	if r.status != http.StatusCreated {
		w.t.Fatalf("schedule %s%s: %d %s", cron, more, r.status, r.body)
	}
	return w.recurring(r)
}

const (
	onTrigger = `,"executor":"trigger","triggerTaskId":"echo"`
	locally   = onTrigger + `,"fireLocally":true`
)

// act makes a call about a recurring job: pause, resume, or schedule, which ends it.
func (w *world) act(id int64, does string) answer {
	w.t.Helper()
	method := http.MethodPost
	if strings.HasPrefix(does, "schedule") {
		method = http.MethodDelete
	}
	return w.call(method, fmt.Sprintf("/api/jobs/%d/%s", id, does), nil)
}

// occurrence has the waiting row of a recurring internal job claimed, done when it is
// due, and followed. It returns the id of the row that follows.
func (w *world) occurrence(j seenRecurring) int64 {
	w.t.Helper()
	time.Sleep(time.Until(j.Due))
	w.workerTakes(j.ID)
	w.workerEnds(j.ID, `1`)
	row, err := w.srv.store.RecurringRow(w.t.Context(), j.ID)
	if err != nil || row.ID == j.ID {
		w.t.Fatalf("after job %d: got %d, error %v; want another row", j.ID, row.ID, err)
	}
	return row.ID
}

// cutOff keeps sidejob from reaching Trigger.dev.
func cutOff() worldOption {
	return withConfig(func(c *config) {
		c.transport = roundTrip(func(*http.Request) (*http.Response, error) { return nil, errNoRoute })
	})
}

// standing is a schedule that Trigger.dev has made, of a world that is cut off from
// it since.
func (w *world) standing() seenRecurring {
	w.t.Helper()
	j := w.every("0 9 * * *", onTrigger)
	synctest.Wait()
	w.happens(j.ID, job.Event{Kind: job.Send, Lease: job.Lease{Token: "held", For: time.Minute}})
	w.happens(j.ID, job.Event{Kind: job.Scheduled, ScheduleID: "sched_1", Active: true})
	return j
}

func (w *world) wantState(id int64, want job.State) {
	w.t.Helper()
	j, err := w.srv.store.Get(w.t.Context(), id)
	if err != nil || j.State() != want {
		w.t.Errorf("job %d is %s, error %v; want it %s", id, j.State(), err, want)
	}
}

func TestARecurringJobIsScheduled(t *testing.T) {
	for _, c := range []struct {
		name, cron, more string
		due              string
		misfire          string
		limit            int64
	}{
		{"internal", "0 9 * * *", "", "2000-01-01T09:00:00Z", "once", 0},
		{"internal, six fields", "*/20 * * * * *", `,"due":"2000-01-01T00:00:01Z"`, "2000-01-01T00:00:20Z", "once", 0},
		{"a time that is due is taken", "0 0 * * *", "", "2000-01-01T00:00:00Z", "once", 0},
		{"not before due", "0 9 * * *", `,"due":"2000-02-01T09:00:00Z"`, "2000-02-01T09:00:00Z", "once", 0},
		{"an alias, in a zone", "@daily", `,"timezone":"Asia/Kathmandu"`, "2000-01-01T18:15:00Z", "once", 0},
		{"skip", "0 9 * * *", `,"misfire":"skip"`, "2000-01-01T09:00:00Z", "skip", 0},
		{"all", "0 9 * * *", `,"misfire":"all"`, "2000-01-01T09:00:00Z", "all", 100},
		{"all, but not too many", "0 9 * * *", `,"misfire":"all","misfireLimit":3`, "2000-01-01T09:00:00Z", "all", 3},
		{"on Trigger.dev", "0 9 * * 1#2", onTrigger, "2000-01-10T09:00:00Z", "once", 0},
		{"six fields of a Trigger.dev job", "30 0 9 * * *", locally, "2000-01-01T09:00:30Z", "once", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, cutOff())
				j := w.every(c.cron, c.more)
				if j.CronSchedule != c.cron || !j.Due.Equal(instantOf(t, c.due)) || j.Status != "PENDING" || j.ScheduleID != j.ID {
					t.Errorf("got %s due %s, %s, schedule %d; want %s due %s, PENDING, itself", j.CronSchedule, j.Due, j.Status, j.ScheduleID, c.cron, c.due)
				}
				if j.Misfire != c.misfire || j.MisfireLimit != c.limit || j.FireLocally != strings.Contains(c.more, "fireLocally") {
					t.Errorf("got misfire %s %d, fireLocally %t; want %s %d", j.Misfire, j.MisfireLimit, j.FireLocally, c.misfire, c.limit)
				}
			})
		})
	}
}

func TestWhatCannotRecurIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, c := range []struct{ members, wrong, says string }{
			{`"cronSchedule":"0 0 30 2 *"`, "cronSchedule", "30 never comes"},
			{`"cronSchedule":"61 * * * *"`, "cronSchedule", "minute"},
			{`"cronSchedule":"* * * *"`, "cronSchedule", "4 fields"},
			{`"cronSchedule":"@daily","timezone":"Mars/Base"`, "timezone", "IANA"},
			{`"timezone":"Local"`, "timezone", "IANA"},
			{`"cronSchedule":"0 * * * * *"` + onTrigger, "cronSchedule", "with fireLocally sidejob fires it itself"},
			{`"cronSchedule":"0  9 * * *"` + onTrigger, "cronSchedule", "fireLocally"},
			{`"cronSchedule":"@daily","misfire":"often"`, "misfire", "once, skip or all"},
			{`"misfire":"skip"`, "misfire", "give cronSchedule"},
			{`"cronSchedule":"@daily","misfireLimit":5`, "misfireLimit", "misfire all"},
			{`"cronSchedule":"@daily","misfire":"all","misfireLimit":10001`, "misfireLimit", "10000"},
			{`"fireLocally":true` + onTrigger, "fireLocally", "give cronSchedule"},
			{`"cronSchedule":"@daily","fireLocally":true`, "fireLocally", "executor trigger"},
		} {
			body := `{"type":"work",` + c.members + `}`
			p := wantProblem(t, body, w.call("POST", "/api/jobs", body), 422, "invalid", "body."+c.wrong)
			contains(t, p.Detail, c.says)
			r := w.call("POST", "/api/jobs/batch", `{"jobs":[`+body+`]}`)
			contains(t, string(r.body), `"problem"`, `"body.`+c.wrong+`"`)
		}
		if n := w.countAll(); n != 0 {
			t.Errorf("there are %d jobs, want none", n)
		}
	})
}

func TestABatchTakesRecurringJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.call("POST", "/api/jobs/batch", `{"jobs":[{"type":"a","cronSchedule":"0 9 * * *","misfire":"skip"},{"type":"b"},{"type":"c","executor":"trigger","triggerTaskId":"echo","cronSchedule":"0 0 9 * * *","fireLocally":true}]}`)
		var got struct{ Results []struct{ Job seenRecurring } }
		r.into(t, &got)
		if r.status != 200 || len(got.Results) != 3 {
			t.Fatalf("got %d %s, want three jobs", r.status, r.body)
		}
		if a, b, c := got.Results[0].Job, got.Results[1].Job, got.Results[2].Job; a.Misfire != "skip" || b.Misfire != "" || b.ScheduleID != 0 || !c.FireLocally {
			t.Errorf("got %s", r.body)
		}
	})
}

func TestTheRegistryMakesAJobRecur(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cutOff(), withRegistry(t, `{
			"daily":  {"executor":"trigger","triggerTaskId":"t","cronSchedule":"0 9 * * *","timezone":"Europe/Berlin"},
			"often":  {"executor":"trigger","triggerTaskId":"t","cronSchedule":"*/5 * * * * *","fireLocally":true,"misfire":"all","misfireLimit":7},
			"nightly":{"executor":"internal","cronSchedule":"0 2 * * *","misfire":"skip"}}`))
		for request, want := range map[string]seenRecurring{
			`{"name":"daily"}`:                             {CronSchedule: "0 9 * * *", Misfire: "once", seenJob: seenJob{Timezone: "Europe/Berlin", Executor: "trigger"}},
			`{"name":"daily","timezone":"Asia/Tokyo"}`:     {CronSchedule: "0 9 * * *", Misfire: "once", seenJob: seenJob{Timezone: "Asia/Tokyo", Executor: "trigger"}},
			`{"name":"often"}`:                             {CronSchedule: "*/5 * * * * *", Misfire: "all", MisfireLimit: 7, FireLocally: true, seenJob: seenJob{Timezone: "UTC", Executor: "trigger"}},
			`{"name":"often","misfire":"skip"}`:            {CronSchedule: "*/5 * * * * *", Misfire: "skip", FireLocally: true, seenJob: seenJob{Timezone: "UTC", Executor: "trigger"}},
			`{"name":"often","executor":"internal"}`:       {CronSchedule: "*/5 * * * * *", Misfire: "all", MisfireLimit: 7, seenJob: seenJob{Timezone: "UTC", Executor: "internal"}},
			`{"name":"nightly","cronSchedule":"@monthly"}`: {CronSchedule: "@monthly", Misfire: "skip", seenJob: seenJob{Timezone: "UTC", Executor: "internal"}},
		} {
			r := w.call("POST", "/api/jobs?waitMs=0", request)
			got := w.recurring(r)
			same := got.CronSchedule == want.CronSchedule && got.Misfire == want.Misfire && got.MisfireLimit == want.MisfireLimit && got.FireLocally == want.FireLocally
			if r.status != 201 || !same || got.Timezone != want.Timezone || got.Executor != want.Executor {
				t.Errorf("%s: got %d %s, want %+v", request, r.status, r.body, want)
			}
		}
	})
}

// TestTheSameTagReplaces schedules every kind of job after every other kind under
// one tag, for another user and of another type.
func TestTheSameTagReplaces(t *testing.T) {
	kinds := map[string]string{
		"a job":                         ``,
		"a recurring job":               `,"cronSchedule":"0 9 * * *"`,
		"a Trigger.dev job":             onTrigger + `,"due":"2000-01-02T00:00:00Z"`,
		"a schedule that sidejob fires": `,"cronSchedule":"0 9 * * *"` + locally,
		"a schedule on Trigger.dev":     `,"cronSchedule":"0 9 * * *","executor":"trigger","triggerTaskId":"daily-report-generation"`,
	}
	for old, is := range kinds {
		for fresh, becomes := range kinds {
			t.Run(old+", then "+fresh, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					first := w.schedule(`{"type":"one","tag":"same","userId":1` + is + `}`)
					other := w.schedule(`{"type":"one","tag":"same ","userId":1` + is + `}`)
					second := w.schedule(`{"type":"two","tag":"same","userId":2` + becomes + `}`)
					first = w.wait(first.ID)
					wantJSON(t, "result", first.Result, replacedResult)
					if first.Status != "CANCELED" {
						t.Errorf("the first is %s, want CANCELED", first.Status)
					}
					for _, j := range []seenJob{w.get(other.ID), w.get(second.ID)} {
						if j.Status != "PENDING" || j.CancelRequested {
							t.Errorf("job %d of tag %q is %s, cancel requested %t; want it left alone", j.ID, j.Tag, j.Status, j.CancelRequested)
						}
					}
				})
			})
		}
	}
}

func TestEndingARecurringJob(t *testing.T) {
	t.Run("that waits, by its first row, twice", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			first := w.every("*/10 * * * *", "")
			last := w.occurrence(first)
			r := w.act(first.ID, "schedule")
			if got := w.recurring(r); r.status != 200 || got.ID != last || got.Status != "CANCELED" || got.ScheduleID != first.ID {
				t.Errorf("got %d %s, want 200 and row %d CANCELED", r.status, r.body, last)
			}
			for _, id := range []int64{first.ID, last} {
				if again := w.act(id, "schedule"); again.status != 200 || string(again.body) != string(r.body) {
					t.Errorf("again, by job %d: got %d %s, want 200 %s", id, again.status, again.body, r.body)
				}
			}
			if n := w.countAll(); n != 2 {
				t.Errorf("there are %d rows, want 2", n)
			}
		})
	})
	t.Run("that runs: the occurrence goes on and is the last", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			j := w.every("*/10 * * * *", "")
			w.workerTakes(j.ID)
			for range 2 {
				if r := w.act(j.ID, "schedule"); r.status != 200 || w.view(r).Status != "EXECUTING" || w.view(r).CancelRequested {
					t.Errorf("got %d %s, want 200 and it EXECUTING", r.status, r.body)
				}
			}
			w.workerEnds(j.ID, `1`)
			if got := w.get(j.ID); got.Status != "COMPLETED" || w.countAll() != 1 {
				t.Errorf("got %s and %d rows, want COMPLETED and nothing after it", got.Status, w.countAll())
			}
		})
	})
	t.Run("that sidejob fires, by a run of it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			schedule := w.every("*/10 * * * * *", locally+`,"due":"2000-01-01T00:00:01Z"`)
			time.Sleep(15 * time.Second)
			ids, _ := w.listed(fmt.Sprintf("?scheduleId=%d", schedule.ID))
			if len(ids) != 1 {
				t.Fatalf("got runs %d, want one", ids)
			}
			run := w.recurring(w.call("GET", fmt.Sprintf("/api/jobs/%d", ids[0]), nil))
			if run.CronSchedule != "" || run.Misfire != "" || run.ScheduleID != schedule.ID || run.Status != "COMPLETED" {
				t.Errorf("the run is %+v, want a COMPLETED job of schedule %d that does not recur itself", run, schedule.ID)
			}
			r := w.act(run.ID, "schedule")
			if got := w.view(r); r.status != 200 || got.ID != schedule.ID || got.Status != "CANCELED" {
				t.Errorf("got %d %s, want 200 and the schedule CANCELED", r.status, r.body)
			}
			time.Sleep(time.Minute)
			if n := w.countAll(); n != 2 {
				t.Errorf("there are %d rows, want no more runs", n)
			}
		})
	})
	t.Run("that Trigger.dev never had", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, cutOff())
			j := w.every("0 9 * * *", onTrigger)
			synctest.Wait()
			begun := time.Now()
			if r := w.act(j.ID, "schedule"); r.status != 200 || w.view(r).Status != "CANCELED" || time.Since(begun) != 0 {
				t.Errorf("got %d %s after %s, want 200, CANCELED at once", r.status, r.body, time.Since(begun))
			}
		})
	})
	t.Run("that Trigger.dev has: 200 when it is deleted there", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, cutOff())
			j := w.standing()
			time.AfterFunc(700*time.Millisecond, func() { w.happens(j.ID, job.Event{Kind: job.Unscheduled}) })
			begun := time.Now()
			r := w.act(j.ID, "schedule")
			if got := w.view(r); r.status != 200 || got.Status != "CANCELED" || time.Since(begun) != 700*time.Millisecond {
				t.Errorf("got %d %s after %s, want 200, CANCELED after 0.7s", r.status, r.body, time.Since(begun))
			}
		})
	})
	t.Run("that Trigger.dev has and cannot be asked to delete: 200 after the wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, cutOff())
			j := w.standing()
			for query, wait := range map[string]time.Duration{"": 2 * time.Second, "?waitMs=0": 0, "?waitMs=300": 300 * time.Millisecond} {
				begun := time.Now()
				r := w.act(j.ID, "schedule"+query)
				if got := w.view(r); r.status != 200 || !got.CancelRequested || !got.Finished.IsZero() || time.Since(begun) != wait {
					t.Errorf("%q: got %d %s after %s, want 200 and cancelRequested after %s", query, r.status, r.body, time.Since(begun), wait)
				}
			}
			w.wantState(j.ID, job.StateEnding)
		})
	})
}

func TestPauseAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.every("*/10 * * * *", "")
		second := w.occurrence(first)
		paused := func(does string, id int64, want bool) {
			t.Helper()
			r := w.act(id, does)
			if got := w.recurring(r); r.status != 200 || got.ID != second || got.Paused != want {
				t.Errorf("%s by job %d: got %d %s, want 200 and job %d paused %t", does, id, r.status, r.body, second, want)
			}
		}
		claimed := func(want int) {
			t.Helper()
			jobs, err := w.srv.store.Claim(t.Context(), Claim{At: now(), Limit: 9, Lease: job.Lease{Token: "lease-x", Owner: "w", For: time.Minute}})
			if err != nil || len(jobs) != want {
				t.Errorf("a worker got %d jobs, error %v; want %d", len(jobs), err, want)
			}
		}
		paused("pause", first.ID, true)
		paused("pause", second, true)
		time.Sleep(time.Hour)
		claimed(0)
		paused("resume", first.ID, false)
		paused("resume", second, false)
		claimed(1)
		want := []string{"created ", "pause api > paused", "resume api > waiting", "missed clock > waiting", "claim worker > leased"}
		if got := w.history(second); fmt.Sprint(got[1:]) != fmt.Sprint(want[1:]) {
			t.Errorf("the history is %q, want each change once: %q", got, want)
		}
	})
}

func TestPauseDuringAnOccurrenceHoldsTheNextOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		j := w.every("*/10 * * * *", "")
		w.workerTakes(j.ID)
		if r := w.act(j.ID, "pause"); r.status != 200 || w.view(r).Status != "EXECUTING" {
			t.Errorf("got %d %s, want 200 and it goes on", r.status, r.body)
		}
		w.workerEnds(j.ID, `1`)
		next, err := w.srv.store.RecurringRow(t.Context(), j.ID)
		if err != nil || next.ID == j.ID || !next.Paused {
			t.Errorf("got %+v, error %v; want another row, paused", next, err)
		}
	})
}

func TestPausingAScheduleOnTriggerDevIsOwedToIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cutOff())
		j := w.standing()
		w.wantState(j.ID, job.StateScheduled)
		for _, does := range []string{"pause", "resume"} {
			if r := w.act(j.ID, does); r.status != 200 || w.view(r).Paused != (does == "pause") {
				t.Errorf("%s: got %d %s, want 200", does, r.status, r.body)
			}
			w.wantState(j.ID, job.StateScheduling)
			w.happens(j.ID, job.Event{Kind: job.Scheduled, ScheduleID: "sched_1", Active: does == "resume"})
			w.wantState(j.ID, map[string]job.State{"pause": job.StatePaused, "resume": job.StateScheduled}[does])
		}
	})
}

// TestTheOutboxIsToldOfWhatARowOwes calls the handlers beside an outbox that does not
// run.
func TestTheOutboxIsToldOfWhatARowOwes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cutOff())
		j := w.standing()
		idle := newOutbox(w.srv.store, nil, "idle", nil, w.srv.log)
		a := &api{store: w.srv.store, outbox: idle, log: w.srv.log}
		for _, kind := range []job.Kind{job.Pause, job.Resume, job.End} {
			if _, err := a.applyRecurring(t.Context(), j.ID, kind); err != nil {
				t.Fatal(err)
			}
			select {
			case <-idle.wake:
			default:
				t.Errorf("%s: the outbox was not told", kind)
			}
		}
	})
}

func TestWhatDoesNotRecurIsAConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		once := w.schedule(`{"type":"work"}`)
		ended := w.every("@daily", "")
		w.act(ended.ID, "schedule")
		running := w.every("@daily", "")
		w.workerTakes(running.ID)
		w.act(running.ID, "schedule")
		for _, does := range []string{"pause", "resume", "schedule"} {
			p := wantProblem(t, does, w.act(once.ID, does), 409, "conflict")
			contains(t, p.Detail, "it does not recur")
			wantProblem(t, does, w.act(99, does), 404, "not_found")
			wantProblem(t, does, w.act(0, does), 422, "invalid", "path.id")
			if does == "schedule" {
				continue
			}
			for _, id := range []int64{ended.ID, running.ID} {
				p := wantProblem(t, does, w.act(id, does), 409, "conflict")
				contains(t, p.Detail, "it has ended")
			}
		}
	})
}

// overtaken is a store in which an occurrence ends right after it was found.
type overtaken struct {
	Store
	w     *world
	times int
}

// RecurringRow implements Store.
func (o *overtaken) RecurringRow(ctx context.Context, id int64) (job.Job, error) {
	j, err := o.Store.RecurringRow(ctx, id)
	if o.times--; o.times >= 0 && err == nil {
		o.w.workerTakes(j.ID)
		o.w.workerEnds(j.ID, `1`)
	}
	return j, err
}

func TestAnOccurrenceThatEndsMeanwhileDoesNotSaveTheRecurringJob(t *testing.T) {
	for does, want := range map[string]string{"schedule": "CANCELED", "pause": "PENDING"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			j := w.every("* * * * * *", `,"misfire":"all"`)
			time.Sleep(time.Minute)
			w.srv.api.store = &overtaken{w.srv.store, w, 3}
			r := w.act(j.ID, does)
			w.srv.api.store = w.srv.store
			row, err := w.srv.store.RecurringRow(t.Context(), j.ID)
			if got := w.view(r); err != nil || r.status != 200 || got.ID != row.ID || got.Status != want || got.Paused != (does == "pause") || w.countAll() != 4 {
				t.Errorf("%s: got %d %s, want 200 and row %d, %s", does, r.status, r.body, row.ID, want)
			}
		})
	}
}

func TestEndingIsGuarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withConfig(func(c *config) { c.token = "correct-horse" }))
		const bearer = "Bearer correct-horse"
		r := w.call("POST", "/api/jobs", `{"type":"work","cronSchedule":"@daily"}`, "Authorization", bearer)
		path := fmt.Sprintf("/api/jobs/%d/schedule", w.view(r).ID)
		wantProblem(t, "no token", w.call("DELETE", path, nil), 401, "unauthorized")
		wantProblem(t, "a foreign page", w.call("DELETE", path, nil, "Authorization", bearer, "Origin", "https://evil.example"), 403, "cross_site")
		wantProblem(t, "a foreign name", w.call("DELETE", path, nil, "Authorization", bearer, "Host", "evil.example"), 421, "wrong_host")
		w.wantState(w.view(r).ID, job.StateWaiting)
		if r := w.call("DELETE", path, nil, "Authorization", bearer); r.status != 200 {
			t.Errorf("got %d %s, want 200", r.status, r.body)
		}
	})
}

func TestRecurringJobsAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.schedule(`{"type":"work"}`)
		first := w.every("*/10 * * * *", "")
		second := w.occurrence(first)
		for query, want := range map[string][]int64{
			"?recurring=true":                                  {second, first.ID},
			"?recurring=true&finished=false":                   {second},
			fmt.Sprintf("?scheduleId=%d", first.ID):            {second, first.ID},
			"?recurring=false":                                 {first.ID - 1},
			"?recurring=false&type=work&finished=false&tag=no": nil,
		} {
			ids, _ := w.listed(query)
			if fmt.Sprint(ids) != fmt.Sprint(want) {
				t.Errorf("%s: got %d, want %d", query, ids, want)
			}
			r := w.call("GET", "/api/jobs/count"+query, nil)
			if memberOf(t, r.body, "count") != fmt.Sprint(len(want)) {
				t.Errorf("%s: got %s, want %d", query, r.body, len(want))
			}
		}
		wantProblem(t, "a word", w.call("GET", "/api/jobs?recurring=yes", nil), 422, "invalid", "query.recurring")
	})
}

func TestAMissedOccurrenceIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		j := w.every("0 0 * * *", "")
		time.Sleep(2 * time.Minute)
		path := fmt.Sprintf("/api/jobs/%d", j.ID)
		if got := w.recurring(w.call("GET", path, nil)); got.MissedAt.IsZero() || got.MissedAt.Before(got.Due.Add(time.Minute)) {
			t.Errorf("missedAt is %s, want a minute after %s", got.MissedAt, got.Due)
		}
		w.workerTakes(j.ID)
		if got := w.recurring(w.call("GET", path, nil)); !got.MissedAt.IsZero() {
			t.Errorf("missedAt is %s, want null once it has begun", got.MissedAt)
		}
	})
}
