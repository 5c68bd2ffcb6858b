package job

import (
	"encoding/json"
	"testing"
	"time"
)

// remoteJob is a schedule that Trigger.dev is to fire, every hour, next at 08:00:00.
func remoteJob(t *testing.T, edit ...func(*Spec)) Job {
	t.Helper()
	return triggerJob(t, append([]func(*Spec){recurs("0 * * * *"), func(s *Spec) { s.Labels, s.Metadata = nil, nil }}, edit...)...)
}

// localJob is a schedule whose runs sidejob starts.
func localJob(t *testing.T, edit ...func(*Spec)) Job {
	t.Helper()
	return triggerJob(t, append([]func(*Spec){recurs("0 * * * *"), func(s *Spec) { s.FireLocally = true }}, edit...)...)
}

// settled is a schedule that Trigger.dev has had since before its first time.
func settled(t *testing.T, edit ...func(*Spec)) Job {
	t.Helper()
	return after(t, remoteJob(t, edit...), at(clock("07:59:58"), send()), at(clock("07:59:59"), scheduled(true)))
}

func scheduled(active bool) Event {
	return Event{Kind: Scheduled, ScheduleID: "sched_1", Active: active, Run: Run{Environment: "env_1"}}
}

func drifted() Event     { return Event{Kind: Drifted} }
func unscheduled() Event { return Event{Kind: Unscheduled} }

// fire is the clock's word that a nominal time has come; fired Trigger.dev's.
func fire() Event { return Event{Kind: Fired, Key: "job-fresh"} }

func fired(run string, nominal time.Time) Event {
	return Event{Kind: Fired, Key: "job-fresh", Nominal: nominal, Run: Run{ID: run, Environment: "env_2"}}
}

func TestAScheduleIsMadeOnTriggerDev(t *testing.T) {
	j := remoteJob(t)
	hasState(t, j, StateScheduling)
	isDue(t, j, clock("08:00:00"))
	held := next(t, j, at(clock("07:59:58"), send()))
	hasState(t, held.Job, StateScheduling)
	if !held.Quiet || !held.Job.SentAt.Equal(clock("07:59:58")) || held.Job.LeaseToken != "sender" || held.Job.InDoubt() {
		t.Errorf("quiet %v, sent at %v, held by %q, in doubt %v", held.Quiet, held.Job.SentAt, held.Job.LeaseToken, held.Job.InDoubt())
	}
	refuses(t, held.Job, send(), "another call is under way")
	hasState(t, after(t, held.Job, at(held.Job.LeaseExpires, send())), StateScheduling)
	step := next(t, held.Job, at(clock("07:59:59"), scheduled(true)))
	want := j
	want.ScheduleID, want.ScheduleSettled, want.Environment = "sched_1", true, "env_1"
	want.SentAt, want.LastSynced, want.Updated = clock("07:59:58"), clock("07:59:59"), clock("07:59:59")
	equal(t, "the schedule", step.Job, want)
	hasState(t, step.Job, StateScheduled)
	if step.Quiet || step.Job.Owes() || step.Job.Asked() {
		t.Errorf("quiet %v, owes %v, asked about a run %v, want none of it", step.Quiet, step.Job.Owes(), step.Job.Asked())
	}
	refuses(t, step.Job, send(), "it owes Trigger.dev nothing")
	if again := next(t, step.Job, scheduled(true)); !again.Quiet {
		t.Error("the same answer again: got a line of history, want none")
	}
	moved := scheduled(true)
	moved.ScheduleID, moved.Run.Environment = "sched_2", ""
	again := next(t, step.Job, moved)
	if again.Quiet || again.Job.ScheduleID != "sched_2" || again.Job.Environment != "env_1" {
		t.Errorf("another schedule: quiet %v, id %q, environment %q, want it told, and the environment kept", again.Quiet, again.Job.ScheduleID, again.Job.Environment)
	}
	nameless := scheduled(true)
	nameless.ScheduleID = ""
	changesNothing(t, step.Job, nameless)
}

func TestSendFillsInWhatAHostLeftOutOfASchedule(t *testing.T) {
	bare := Job{ID: 7, Type: "report", Executor: Trigger, CronSchedule: "0 * * * *", Updated: second(0)}
	j := after(t, bare, send())
	if j.IdempotencyKey != "job-late" || j.TriggerTask != "late-task" || j.TriggerStatus != Pending {
		t.Errorf("key, task, status: got %q, %q, %q, want job-late, late-task, PENDING", j.IdempotencyKey, j.TriggerTask, j.TriggerStatus)
	}
	j = after(t, remoteJob(t), send())
	if j.IdempotencyKey != "job-uuid" || j.TriggerTask != "daily-report" {
		t.Errorf("key, task: got %q, %q, want the row's own", j.IdempotencyKey, j.TriggerTask)
	}
	again := after(t, j, unreached(true), at(second(9000), send()))
	if !again.SentAt.Equal(j.SentAt) {
		t.Errorf("sent at: got %v, want %v, the first time", again.SentAt, j.SentAt)
	}
}

func TestATryToReachTriggerDevThatFailsIsRepeated(t *testing.T) {
	for _, inDoubt := range []bool{true, false} {
		j := after(t, remoteJob(t), send(), unreached(inDoubt))
		hasState(t, j, StateScheduling)
		if !j.Owes() || j.Error != "no route to host" || j.Tries != 1 || !j.NextTry.Equal(second(9000)) || j.LeaseToken != "" {
			t.Errorf("owes %v, error %q, tries %d, next try %v, held by %q", j.Owes(), j.Error, j.Tries, j.NextTry, j.LeaseToken)
		}
		if j.SentAt.IsZero() == inDoubt {
			t.Errorf("sent at: got %v; in doubt %v", j.SentAt, inDoubt)
		}
		j = after(t, j, send(), scheduled(true))
		if j.Error != "" || j.Tries != 0 || !j.NextTry.IsZero() || j.LeaseToken != "" {
			t.Errorf("after it was made: error %q, tries %d, next try %v, held by %q", j.Error, j.Tries, j.NextTry, j.LeaseToken)
		}
	}
	drifting := after(t, settled(t), drifted(), send(), unreached(false))
	if drifting.SentAt.IsZero() {
		t.Error("sent at: got none, want it kept: Trigger.dev has the schedule")
	}
}

func TestAScheduleThatTriggerDevRefusesFails(t *testing.T) {
	j := after(t, remoteJob(t, reschedules(0)), send())
	step := next(t, j, rejected())
	hasState(t, step.Job, StateFailed)
	hasResult(t, step.Job, `{"details":{"status":422},"error":"Failed to schedule on Trigger.dev"}`)
	hasNoFollower(t, step)
	hasState(t, after(t, j, cancel(""), rejected()), StateCanceled)
	hasState(t, after(t, settled(t), drifted(), send(), rejected()), StateFailed)
	changesNothing(t, settled(t), rejected())
}

func TestCancelOfAScheduleIsSettledOnceTriggerDevHasItNoMore(t *testing.T) {
	for name, ev := range map[string]Event{"canceled": cancel("by a user"), "ended": ended("by a user")} {
		ending := after(t, settled(t), at(clock("08:10:00"), ev))
		hasState(t, ending, StateEnding)
		if !ending.Owes() || !ending.CancelRequested {
			t.Errorf("%s: owes %v, cancelRequested %v, want both", name, ending.Owes(), ending.CancelRequested)
		}
		changesNothing(t, ending, ev)
		refuses(t, ending, pause(), "it has ended")
		refuses(t, ending, resume(), "it has ended")
		over := after(t, ending, send(), unscheduled())
		hasState(t, over, StateCanceled)
		hasResult(t, over, `{"canceled":true,"error":"by a user"}`)
		if over.TriggerStatus != Canceled || over.LeaseToken != "" {
			t.Errorf("%s: triggerStatus %s, held by %q", name, over.TriggerStatus, over.LeaseToken)
		}
		hasState(t, after(t, ending, send(), unreached(false)), StateEnding)
		hasState(t, after(t, ending, scheduled(true)), StateEnding)
		hasState(t, after(t, ending, drifted()), StateEnding)
	}
}

func TestAScheduleThatTriggerDevCannotKnowIsCanceledAtOnce(t *testing.T) {
	for name, j := range map[string]Job{
		"never sent":             remoteJob(t),
		"certainly never sent":   after(t, remoteJob(t), send(), unreached(false)),
		"fired here":             localJob(t),
		"fired here, and paused": after(t, localJob(t), pause()),
	} {
		step := next(t, j, cancel("by a user"))
		if got := step.Job.State(); got != StateCanceled {
			t.Errorf("%s: got %s, want canceled", name, got)
		}
		hasState(t, after(t, j, ended("")), StateCanceled)
		changesNothing(t, step.Job, cancel("again"))
	}
	sent := after(t, remoteJob(t), send())
	waiting := after(t, sent, cancel("by a user"))
	hasState(t, waiting, StateEnding)
	hasState(t, after(t, waiting, unreached(false)), StateCanceled)
	hasState(t, after(t, waiting, unreached(true)), StateEnding)
	if j := after(t, sent, unreached(true), cancel("")); !j.NextTry.IsZero() {
		t.Errorf("next try: got %v, want a cancel to wait for no back-off", j.NextTry)
	}
	byHost := remoteJob(t)
	byHost.ScheduleID = "sched_1" // an adopted row knows the schedule, not when it was made
	hasState(t, after(t, byHost, cancel("")), StateEnding)
	late := after(t, sent, unreached(false), scheduled(true), cancel(""))
	hasState(t, late, StateEnding)
	if late.SentAt.IsZero() {
		t.Error("sent at: got none, want one: Trigger.dev has it")
	}
}

func TestAScheduleThatAnotherRowCarriesOnIsNotDeleted(t *testing.T) {
	ev := cancel(ReplacedReason)
	ev.Replaced, ev.CarriedOver = true, true
	for _, j := range []Job{settled(t), after(t, remoteJob(t), send()), after(t, settled(t), pause())} {
		over := after(t, j, ev)
		hasState(t, over, StateCanceled)
		hasResult(t, over, `{"canceled":true,"error":"`+ReplacedReason+`"}`)
	}
	over := after(t, settled(t), cancel("by a user"), ev)
	hasState(t, over, StateCanceled)
	hasResult(t, over, `{"canceled":true,"error":"by a user"}`)
	ev.CarriedOver = false
	hasState(t, after(t, settled(t), ev), StateEnding)
}

func TestPauseAndResumeAreOwedToTriggerDev(t *testing.T) {
	j := after(t, settled(t), unreached(true))
	pausing := after(t, j, at(clock("08:10:00"), pause()))
	hasState(t, pausing, StateScheduling)
	isDue(t, pausing, clock("09:00:00"))
	if !pausing.Owes() || !pausing.NextTry.IsZero() {
		t.Errorf("owes %v, next try %v, want it owed at once", pausing.Owes(), pausing.NextTry)
	}
	changesNothing(t, pausing, pause())
	paused := after(t, pausing, send(), scheduled(false))
	hasState(t, paused, StatePaused)
	changesNothing(t, paused, at(clock("23:00:00"), missed()))
	resuming := after(t, paused, at(clock("11:10:00"), resume()))
	hasState(t, resuming, StateScheduling)
	isDue(t, resuming, clock("12:00:00"))
	hasState(t, after(t, resuming, send(), scheduled(true)), StateScheduled)
}

func TestAPauseDuringACallIsStillOwed(t *testing.T) {
	calling := after(t, remoteJob(t), send())
	pausing := after(t, calling, pause(), scheduled(true))
	hasState(t, pausing, StateScheduling)
	if !pausing.Owes() || pausing.LeaseToken != "" || pausing.ScheduleID != "sched_1" {
		t.Errorf("owes %v, held by %q, schedule %q, want the pause owed", pausing.Owes(), pausing.LeaseToken, pausing.ScheduleID)
	}
	hasState(t, after(t, pausing, send(), scheduled(false)), StatePaused)
	hasState(t, after(t, calling, pause(), scheduled(false)), StatePaused)
	hasState(t, after(t, calling, pause(), resume(), scheduled(true)), StateScheduled)
	hasState(t, after(t, settled(t), pause(), send(), resume(), scheduled(false)), StateScheduling)
}

// Trigger.dev's clock may be ahead, and sidejob's be set back.
func TestAPauseDoesNotExpectAgainWhatHasFired(t *testing.T) {
	j := after(t, settled(t), fired("run_1", clock("08:00:00")))
	for _, ev := range []Event{pause(), resume()} {
		j = after(t, j, at(clock("07:59:59"), ev))
		isDue(t, j, clock("09:00:00"))
	}
}

func TestDriftIsRepaired(t *testing.T) {
	j := after(t, settled(t), unreached(true), drifted())
	hasState(t, j, StateScheduling)
	if !j.Owes() || !j.NextTry.IsZero() || j.ScheduleID != "sched_1" {
		t.Errorf("owes %v, next try %v, schedule %q", j.Owes(), j.NextTry, j.ScheduleID)
	}
	changesNothing(t, j, drifted())
	gone := after(t, settled(t), unreached(true), unscheduled())
	hasState(t, gone, StateScheduling)
	if !gone.Owes() || !gone.NextTry.IsZero() || gone.ScheduleID != "" {
		t.Errorf("owes %v, next try %v, schedule %q", gone.Owes(), gone.NextTry, gone.ScheduleID)
	}
	changesNothing(t, gone, unscheduled())
	calling := after(t, gone, send(), unscheduled())
	if calling.LeaseToken != "" {
		t.Error("the call that found no schedule is over, want its hold gone")
	}
}

func TestAnEndedScheduleHearsNothingButOfItsRuns(t *testing.T) {
	for _, j := range []Job{after(t, remoteJob(t), rejected()), after(t, remoteJob(t), cancel("")), after(t, settled(t), cancel(""), unscheduled())} {
		for _, ev := range []Event{
			scheduled(true), drifted(), unscheduled(), rejected(), unreached(true), unreached(false),
			submitted(), told("COMPLETED"), at(clock("23:00:00"), missed()), ended(""), cancel(""),
		} {
			changesNothing(t, j, ev)
		}
		refuses(t, j, send(), "it owes Trigger.dev nothing")
		refuses(t, j, pause(), "it has ended")
		step := next(t, j, fired("run_8", clock("08:00:00")))
		equal(t, "the schedule", step.Job, j)
		equal(t, "the run heard of late", step.Follow.RunID, "run_8")
	}
}

func TestAScheduleIsNoWorkToBeDone(t *testing.T) {
	for _, j := range []Job{remoteJob(t), settled(t), localJob(t)} {
		for _, ev := range []Event{claim(), renew(), complete(`1`), failure(`1`), release()} {
			refuses(t, j, ev, "Trigger.dev executes it")
		}
		for _, ev := range []Event{submitted(), {Kind: Stopping}, told("COMPLETED"), seen("COMPLETED"), notFound(second(1000), true), leaseLost()} {
			changesNothing(t, j, ev)
		}
		if _, err := Next(j, Event{Kind: "explode"}); err == nil {
			t.Error("an unknown event: got no error, want one")
		}
	}
	for _, s := range append(triggerSamples(t), internalSamples(t)...) {
		for _, ev := range []Event{fired("run_8", clock("08:00:00")), fire(), scheduled(true), drifted(), unscheduled()} {
			changesNothing(t, s.job, ev)
		}
	}
}

func TestARunThatTriggerDevFiredGetsARow(t *testing.T) {
	j := settled(t, misfire(FireSkip, 0), func(s *Spec) { s.Name, s.Persistent, s.RemoveDelay = "daily", true, time.Minute })
	step := next(t, j, at(clock("08:00:07"), fired("run_8", clock("08:00:00"))))
	equal(t, "the run's row", step.Follow, &Job{
		Tag: "report:7", Type: "report", Name: "daily", UserID: 7, Data: json.RawMessage(`{"day":1}`),
		Due: clock("08:00:00"), RemoveAt: clock("08:01:00"), Timezone: "UTC", Persistent: true, RemoveDelay: time.Minute,
		ScheduleRow: 7, RescheduledFrom: 7, ScheduleID: "sched_1", Executor: Trigger, TriggerTask: "daily-report",
		RunID: "run_8", Environment: "env_2", TriggerStatus: Pending, SentAt: clock("08:00:00"), Metadata: json.RawMessage(`{}`),
		Created: clock("08:00:07"), Updated: clock("08:00:07"),
	})
	hasState(t, *step.Follow, StateQueued)
	isDue(t, step.Job, clock("09:00:00"))
	if step.OnConflict != Beside || !step.Quiet {
		t.Errorf("on conflict %q, quiet %v, want beside, true", step.OnConflict, step.Quiet)
	}
	hasState(t, step.Job, StateScheduled)
	nowhere := fired("run_8", clock("08:00:00"))
	nowhere.Run.Environment = ""
	equal(t, "environment", next(t, j, nowhere).Follow.Environment, "env_1")
	paused := next(t, after(t, j, pause()), fired("run_8", clock("08:00:00")))
	equal(t, "the run of a paused schedule is not paused", paused.Follow.Paused, false)
	for _, ev := range []Event{fired("", clock("08:00:00")), fired("run_8", time.Time{})} {
		changesNothing(t, j, ev)
	}
	if _, follows := next(t, *step.Follow, seen("FAILED", func(r *Run) { r.ID = "run_8" })), step.Follow.Recurs(); follows {
		t.Error("the run's row recurs, want it to be one run")
	}
}

func TestARunHeardOfLateDoesNotMoveTheScheduleBack(t *testing.T) {
	j := after(t, settled(t), fired("run_9", clock("09:00:00")))
	isDue(t, j, clock("10:00:00"))
	step := next(t, j, fired("run_8", clock("08:00:00")))
	equal(t, "the schedule", step.Job, j)
	equal(t, "changed", step.Changed, false)
	isDue(t, *step.Follow, clock("08:00:00"))
	again := next(t, j, fired("run_9", clock("09:00:00")))
	equal(t, "changed by the same run again", again.Changed, false)
}

func TestAScheduleThatDoesNotFireIsMissedOnce(t *testing.T) {
	j := settled(t)
	changesNothing(t, j, at(clock("08:02:59"), missed()))
	step := next(t, j, at(clock("08:03:00"), missed()))
	isDue(t, step.Job, clock("09:00:00"))
	if !step.Job.Missed.Equal(clock("08:03:00")) || step.Quiet {
		t.Errorf("missed %v, quiet %v, want 08:03:00, told", step.Job.Missed, step.Quiet)
	}
	changesNothing(t, step.Job, at(clock("08:59:00"), missed()))
	again := next(t, step.Job, at(clock("11:02:30"), missed()))
	isDue(t, again.Job, clock("11:00:00"))
	if !again.Job.Missed.Equal(clock("08:03:00")) || !again.Quiet {
		t.Errorf("missed %v, quiet %v, want it told no second time", again.Job.Missed, again.Quiet)
	}
	for name, ev := range map[string]Event{"one in time": fired("run_8", clock("11:00:00")), "one heard of late": fired("run_8", clock("10:00:00"))} {
		if got := after(t, again.Job, ev).Missed; !got.IsZero() {
			t.Errorf("%s: missed since %v, want it forgotten", name, got)
		}
	}
	if after(t, again.Job, fired("run_8", clock("09:00:00"))).Missed.IsZero() {
		t.Error("an older one: got nothing missed, want it remembered")
	}
	if !after(t, again.Job, pause()).Missed.IsZero() {
		t.Error("paused: got it missed, want it forgotten")
	}
	calling := after(t, settled(t), drifted(), send())
	changesNothing(t, calling, at(clock("11:00:00"), missed()))
	busy := after(t, settled(t, recurs("* * * * *")), at(clock("08:10:00").Add(500*time.Millisecond), missed()))
	isDue(t, busy, clock("08:08:00"))
	changesNothing(t, busy, at(clock("08:10:00").Add(500*time.Millisecond), missed()))
}

func TestAScheduleIsFiredHere(t *testing.T) {
	j := localJob(t, misfire(FireSkip, 0), retries(RetryConfig{MaxAttempts: 2}))
	hasState(t, j, StateScheduled)
	if j.Owes() {
		t.Error("owes: got true, want nothing owed to Trigger.dev")
	}
	changesNothing(t, j, at(clock("07:59:59"), fire()))
	step := next(t, j, at(clock("08:00:01"), fire()))
	equal(t, "the run's row", step.Follow, &Job{
		Tag: "report:7", Type: "report", UserID: 7, Data: json.RawMessage(`{"day":1}`),
		Due: clock("08:00:00"), RemoveAt: clock("09:00:00"), Timezone: "UTC", Retry: &RetryConfig{MaxAttempts: 2},
		ScheduleRow: 7, RescheduledFrom: 7, Executor: Trigger, TriggerTask: "daily-report",
		TriggerStatus: Pending, IdempotencyKey: "job-fresh", Labels: []string{"nightly"}, Metadata: json.RawMessage(`{"a":1}`),
		Created: clock("08:00:01"), Updated: clock("08:00:01"),
	})
	hasState(t, *step.Follow, StateUnsent)
	isDue(t, step.Job, clock("09:00:00"))
	if step.OnConflict != Beside || !step.Quiet {
		t.Errorf("on conflict %q, quiet %v, want beside, true", step.OnConflict, step.Quiet)
	}
	changesNothing(t, step.Job, at(clock("08:00:01"), fire()))
	changesNothing(t, step.Job, at(clock("06:00:00"), fire()))
	for name, j := range map[string]Job{"paused": after(t, j, pause()), "over": after(t, j, cancel(""))} {
		t.Run(name, func(t *testing.T) { changesNothing(t, j, at(clock("08:00:01"), fire())) })
	}
	byHost := j
	byHost.CancelRequested = true
	changesNothing(t, byHost, at(clock("08:00:01"), fire()))
}

func TestAScheduleFiredHereIsToldFirstWhatItMissed(t *testing.T) {
	late := at(clock("11:10:00"), fire())
	skipping := localJob(t, misfire(FireSkip, 0))
	changesNothing(t, skipping, late)
	isDue(t, after(t, skipping, at(clock("11:10:00"), missed())), clock("12:00:00"))
	noted := after(t, localJob(t), at(clock("11:10:00"), missed()))
	if !noted.Missed.Equal(clock("11:10:00")) {
		t.Errorf("missed: got %v, want 11:10:00", noted.Missed)
	}
	step := next(t, noted, late)
	isDue(t, *step.Follow, clock("08:00:00"))
	isDue(t, step.Job, clock("12:00:00"))
	if !step.Job.Missed.IsZero() {
		t.Errorf("missed: got %v, want it forgotten", step.Job.Missed)
	}
	resumed := after(t, localJob(t), pause(), at(clock("11:10:00"), resume()))
	isDue(t, *next(t, resumed, late).Follow, clock("08:00:00"))
}

func TestAScheduleFiredHereHearsNothingOfTriggerDev(t *testing.T) {
	j := localJob(t)
	byHost := j
	byHost.CancelRequested = true
	for _, j := range []Job{j, byHost} {
		for _, ev := range []Event{scheduled(true), drifted(), unscheduled(), rejected(), unreached(true), unreached(false)} {
			changesNothing(t, j, ev)
		}
		refuses(t, j, send(), "it owes Trigger.dev nothing")
	}
	byHost.ScheduleID, byHost.SentAt = "sched_1", second(0)
	hasState(t, after(t, byHost, cancel("")), StateCanceled)
}

func TestAScheduleFiredHereWhoseExpressionIsNoneFails(t *testing.T) {
	j := localJob(t)
	j.CronSchedule = "every now and then"
	step := next(t, j, at(clock("08:00:00"), fire()))
	hasState(t, step.Job, StateFailed)
	hasNoFollower(t, step)
	if step.Job.TriggerStatus != Failed || len(step.Job.Result) < len(`{"error":""}`) {
		t.Errorf("triggerStatus, result: got %s, %s, want FAILED and why", step.Job.TriggerStatus, step.Job.Result)
	}
	remote := settled(t)
	remote.CronSchedule = "every now and then"
	isDue(t, after(t, remote, at(clock("08:03:00"), missed())), clock("08:00:00").Add(time.Millisecond))
}

func TestRetryOfAnEndedScheduleMakesTheScheduleAnew(t *testing.T) {
	refuses(t, settled(t), Event{Kind: Retry}, "it has not ended")
	for _, j := range []Job{
		after(t, remoteJob(t), pause(), send(), rejected()), after(t, settled(t), cancel(""), unscheduled()), after(t, localJob(t), pause(), cancel("")),
	} {
		j.ScheduleRow = 3
		step := next(t, j, Event{Kind: Retry, At: clock("08:10:00"), Key: "job-again"})
		f := *step.Follow
		isDue(t, f, clock("09:00:00"))
		if step.OnConflict != Replace || f.ScheduleRow != 0 || f.Paused || f.ScheduleID != "" || f.ScheduleSettled || f.IdempotencyKey != "job-again" {
			t.Errorf("got %q, %+v, want a fresh schedule that replaces others of its tag", step.OnConflict, f)
		}
		if !f.IsSchedule() || f.FireLocally != j.FireLocally || f.RescheduledFrom != j.ID {
			t.Errorf("got %+v, want a schedule as before", f)
		}
		j.CronSchedule = "every now and then"
		isDue(t, *next(t, j, Event{Kind: Retry, At: clock("08:10:00")}).Follow, clock("08:10:00"))
	}
}

func TestARunOfAScheduleIsTriedAgainBeside(t *testing.T) {
	row := *next(t, settled(t, reschedules(time.Minute)), fired("run_1", clock("08:00:00"))).Follow
	row.ID = 9
	step := next(t, row, at(clock("08:00:30"), seen("FAILED")))
	f := follower(t, step)
	isDue(t, f, clock("08:01:30"))
	if step.OnConflict != Beside || f.ScheduleRow != 7 || f.RescheduledFrom != 9 || f.Recurs() {
		t.Errorf("got %q, schedule row %d, from %d, recurs %v, want one more run beside", step.OnConflict, f.ScheduleRow, f.RescheduledFrom, f.Recurs())
	}
	retry := next(t, step.Job, Event{Kind: Retry})
	equal(t, "retry of a run", retry.OnConflict, Beside)
	equal(t, "its schedule", retry.Follow.ScheduleRow, int64(7))
}

func TestWhatAScheduleOwesIsReadOffIt(t *testing.T) {
	for _, s := range scheduleSamples(t) {
		want := s.state == StateScheduling || s.state == StateEnding
		if got := s.job.Owes(); got != want || s.job.Asked() || s.job.InDoubt() {
			t.Errorf("%s: owes %v, asked %v, in doubt %v, want %v and neither", s.state, got, s.job.Asked(), s.job.InDoubt(), want)
		}
	}
}
