package job

import (
	"encoding/json"
	"testing"
	"time"
)

func TestSubmittedGivesTheRowItsRun(t *testing.T) {
	sending := after(t, triggerJob(t), send(), unreached(true), at(second(60), send()))
	j := after(t, sending, submitted())
	hasState(t, j, StateQueued)
	want := sending
	want.RunID, want.Environment = runID, "env_1"
	want.Error, want.Tries, want.NextTry = "", 0, time.Time{}
	want.LeaseToken, want.LeaseOwner, want.LeaseFor, want.LeaseExpires = "", "", 0, time.Time{}
	want.Updated = j.Updated
	equal(t, "the job", j, want)
}

func TestARowKeepsItsRun(t *testing.T) {
	other := submitted()
	other.Run.ID = "run_2"
	changesNothing(t, queued(t), submitted())
	changesNothing(t, queued(t), other)
	changesNothing(t, triggerJob(t), Event{Kind: Submitted})
	changesNothing(t, internalJob(t), submitted())
	changesNothing(t, after(t, triggerJob(t), cancel("")), submitted())
}

func TestARunThatIsSubmittedUnheldIsTakenAsSent(t *testing.T) {
	byHost := triggerJob(t)
	byHost.TriggerStatus = "" // a host that inserts a row need not know the word
	j := after(t, byHost, at(second(9), submitted()))
	hasState(t, j, StateQueued)
	if !j.SentAt.Equal(second(9)) || j.TriggerStatus != Pending {
		t.Errorf("sent at, triggerStatus: got %v, %q, want %v, PENDING", j.SentAt, j.TriggerStatus, second(9))
	}
}

func TestNewsOfAnotherRunChangesNothing(t *testing.T) {
	stranger := func(r *Run) { r.ID = "run_2" }
	nameless := func(r *Run) { r.ID = "" }
	for _, s := range triggerSamples(t) {
		if s.job.RunID == "" {
			continue
		}
		for _, edit := range []func(*Run){stranger, nameless} {
			changesNothing(t, s.job, told("COMPLETED", edit))
			changesNothing(t, s.job, seen("COMPLETED", edit))
		}
		missing := notFound(second(1000), true)
		missing.Run.ID = "run_2"
		changesNothing(t, s.job, missing)
	}
}

func TestAnInternalJobHearsNothingOfRuns(t *testing.T) {
	for _, s := range internalSamples(t) {
		for _, ev := range []Event{
			submitted(), rejected(), unreached(true), unreached(false), {Kind: Stopping},
			told("COMPLETED"), seen("COMPLETED"), notFound(second(1000), true),
		} {
			changesNothing(t, s.job, ev)
		}
	}
}

func TestLateAndRepeatedNewsChangesNothing(t *testing.T) {
	begun := running(t)
	again := after(t, triggerJob(t), send(), at(second(60), send()))
	again.LeaseToken = "another" // who sends it now
	late := func(ev Event) Event { ev.Lease.Token = "sender"; return ev }
	for _, c := range []struct {
		name string
		job  Job
		ev   Event
	}{
		{"queued again", queued(t), told("QUEUED")},
		{"running again", begun, told("EXECUTING", whole)},
		{"queued after it ran", begun, told("QUEUED", whole)},
		{"running after its end", after(t, begun, told("FAILED")), told("EXECUTING")},
		{"the same end again", after(t, begun, told("FAILED")), told("FAILED", whole)},
		{"another end, told", after(t, begun, told("FAILED")), told("COMPLETED", whole)},
		{"another end, told, after the confirmed one", after(t, begun, seen("FAILED")), told("COMPLETED", whole)},
		{"another end, seen, after the confirmed one", after(t, begun, seen("FAILED")), seen("COMPLETED", whole)},
		{"running, seen, after the confirmed end", after(t, begun, seen("FAILED")), seen("EXECUTING", whole)},
		{"a refusal after the run was made", queued(t), rejected()},
		{"a refusal after the end", after(t, begun, seen("FAILED")), rejected()},
		{"not reached after the end", after(t, begun, seen("FAILED")), unreached(false)},
		{"not reached by one who holds the row no more", again, late(unreached(false))},
		{"a refusal to one who holds the row no more", again, late(rejected())},
		{"not reached by one whose hold has been given up", after(t, again, unreached(true)), late(unreached(false))},
		{"stopping, though nobody asked for it", begun, Event{Kind: Stopping}},
		{"told of an orphan", after(t, begun, lost()...), told("COMPLETED", whole)},
		{"seen before the row knows its run", after(t, triggerJob(t), send()), seen("COMPLETED")},
		{"missing before the row knows its run", after(t, triggerJob(t), send()), notFound(second(1000), true)},
	} {
		t.Run(c.name, func(t *testing.T) { changesNothing(t, c.job, c.ev) })
	}
}

// The history shows every receipt of a cancel, in whichever order they come.
func TestACancelTakenAfterTheEndIsKnownIsNoted(t *testing.T) {
	for _, end := range []Event{told("CANCELED"), seen("CANCELED"), seen("COMPLETED")} {
		closed := after(t, queued(t), cancel(""), end)
		step := next(t, closed, Event{Kind: Stopping, NextTry: second(9000)})
		if !step.Noted || step.Changed {
			t.Errorf("after %s: noted %v, changed %v; want true, false", end.Kind, step.Noted, step.Changed)
		}
		equal(t, "the job", step.Job, closed)
	}
	for name, j := range map[string]Job{
		"one that nobody canceled":      after(t, queued(t), told("COMPLETED")),
		"one that was canceled without": after(t, triggerJob(t), cancel("")),
	} {
		if next(t, j, Event{Kind: Stopping}).Noted {
			t.Errorf("%s: got a note, want none", name)
		}
	}
}

func TestWhatTriggerDevSaysReplacesWhatAnEventSaid(t *testing.T) {
	for _, first := range []string{"COMPLETED", "FAILED", "CANCELED"} {
		for _, w := range apiWords() {
			t.Run(first+", in truth "+w.raw, func(t *testing.T) {
				closed := after(t, queued(t), told(first, whole))
				step := next(t, closed, seen(w.raw, whole))
				if w.status.Final() {
					equal(t, "the job", show(step.Job), expected(w))
					if step.Job.Unconfirmed() || step.Quiet {
						t.Errorf("unconfirmed %v, quiet %v: got true, want both false", step.Job.Unconfirmed(), step.Quiet)
					}
					return
				}
				// The event ran ahead: it stands, and Trigger.dev is asked again.
				equal(t, "the job", show(step.Job), show(closed))
				if !step.Job.Unconfirmed() || !step.Quiet {
					t.Errorf("unconfirmed %v, quiet %v: got false, want both true", step.Job.Unconfirmed(), step.Quiet)
				}
			})
		}
	}
}

func TestAStaleAnswerDoesNotUnstartARun(t *testing.T) {
	step := next(t, running(t), seen("QUEUED"))
	hasState(t, step.Job, StateRunning)
	if !step.Quiet {
		t.Error("quiet: got false, want true")
	}
}

func TestARunThatWaitsForItsNextTryIsQueuedAgain(t *testing.T) {
	step := next(t, running(t), seen("QUEUED", func(r *Run) { r.Attempts = 1 }))
	hasState(t, step.Job, StateQueued)
	if step.Quiet {
		t.Error("quiet: got true, want the history to tell it")
	}
}

func TestAnAnswerThatSaysNothingNewIsQuiet(t *testing.T) {
	step := next(t, running(t), at(second(50), seen("EXECUTING")))
	if !step.Changed || !step.Quiet {
		t.Errorf("changed %v, quiet %v: got false, want both true", step.Changed, step.Quiet)
	}
	if got := step.Job.LastSynced; !got.Equal(second(50)) {
		t.Errorf("last synced: got %v, want %v", got, second(50))
	}
}

func TestAnEventThatLeadsFurtherSyncsTheRow(t *testing.T) {
	for _, raw := range []string{"EXECUTING", "FAILED"} {
		step := next(t, queued(t), at(second(50), told(raw)))
		if got := step.Job.LastSynced; !got.Equal(second(50)) || step.Quiet {
			t.Errorf("told %s: last synced, quiet: got %v, %v, want %v, false", raw, got, step.Quiet, second(50))
		}
	}
}

func TestAnAnswerClearsTheErrorOfFailedQuestions(t *testing.T) {
	j := after(t, running(t), unreached(true))
	if j.Error == "" {
		t.Fatal("error: got none, want that of the failed question")
	}
	if got := after(t, j, seen("EXECUTING")).Error; got != "" {
		t.Errorf("error after an answer: got %q, want none", got)
	}
}

func TestAttemptsNeverCountDown(t *testing.T) {
	j := after(t, running(t), seen("EXECUTING", func(r *Run) { r.Attempts, r.AttemptID = 3, "attempt_3" }), seen("FAILED"))
	if j.Attempt != 3 || j.AttemptID != "attempt_3" {
		t.Errorf("attempt: got %d, %q, want 3, attempt_3", j.Attempt, j.AttemptID)
	}
}

func TestARefusedSubmitEndsTheJob(t *testing.T) {
	for _, j := range []Job{triggerJob(t), after(t, triggerJob(t), send()), after(t, triggerJob(t), send(), unreached(true))} {
		got := after(t, j, at(second(99), rejected()))
		hasState(t, got, StateFailed)
		hasResult(t, got, `{"details":{"status":422},"error":"Failed to schedule on Trigger.dev"}`)
		if got.Error != rejected().Err || got.TriggerStatus != Failed || got.LeaseToken != "" {
			t.Errorf("error, triggerStatus, lease: got %q, %s, %q, want %q, FAILED and none", got.Error, got.TriggerStatus, got.LeaseToken, rejected().Err)
		}
		if want := second(99).Add(DefaultRemoveDelay); !got.RemoveAt.Equal(want) {
			t.Errorf("remove at: got %v, want %v", got.RemoveAt, want)
		}
	}
}

func TestARefusedSubmitMakesNoFurtherRow(t *testing.T) {
	j := triggerJob(t, func(s *Spec) { s.AutoReschedule = true })
	if step := next(t, j, rejected()); step.Follow != nil {
		t.Errorf("follow: got %+v, want none: it would be refused as well", step.Follow)
	}
}

func TestDetailsThatAreNoJSONDoNotHideARefusal(t *testing.T) {
	ev := rejected()
	ev.Details = json.RawMessage(`<html>`)
	hasResult(t, after(t, triggerJob(t), ev), `{"details":"\u003chtml\u003e","error":"Failed to schedule on Trigger.dev"}`)
	ev.Details = make(chan int)
	j := after(t, triggerJob(t), ev)
	hasState(t, j, StateFailed)
	if !json.Valid(j.Result) {
		t.Errorf("result: got %s, want JSON", j.Result)
	}
}

func TestASubmitThatDoesNotGetThroughIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		name    string
		inDoubt bool
		state   State
	}{
		{"in doubt", true, StateSending},
		{"certainly not sent", false, StateUnsent},
	} {
		t.Run(c.name, func(t *testing.T) {
			sending := after(t, triggerJob(t), send())
			j := after(t, sending, unreached(c.inDoubt))
			hasState(t, j, c.state)
			if j.InDoubt() != c.inDoubt || !j.Owes() {
				t.Errorf("in doubt, owes: got %v, %v, want %v, true", j.InDoubt(), j.Owes(), c.inDoubt)
			}
			if j.Error != "no route to host" || j.Tries != 1 || !j.NextTry.Equal(second(9000)) {
				t.Errorf("error, tries, next try: got %q, %d, %v", j.Error, j.Tries, j.NextTry)
			}
			if got := after(t, j, send(), unreached(c.inDoubt)).Tries; got != 2 {
				t.Errorf("tries after the second: got %d, want 2", got)
			}
			if j.TriggerStatus != Pending {
				t.Errorf("triggerStatus: got %s, want PENDING: a failed try is no end", j.TriggerStatus)
			}
		})
	}
}

func TestAFailedQuestionLeavesTheRunAlone(t *testing.T) {
	for _, inDoubt := range []bool{true, false} {
		j := after(t, running(t), unreached(inDoubt))
		hasState(t, j, StateRunning)
		if j.SentAt.IsZero() {
			t.Error("sent at: got none, want it kept")
		}
	}
}

func TestSendHoldsTheRowForOneSender(t *testing.T) {
	fresh := triggerJob(t)
	j := after(t, fresh, at(second(1), send()))
	refuses(t, j, at(second(15), send()), "another submit is under way")
	again := after(t, j, at(second(16), send()))
	if !again.SentAt.Equal(second(1)) || !again.LeaseExpires.Equal(second(31)) {
		t.Errorf("sent at, lease until: got %v, %v, want %v, %v", again.SentAt, again.LeaseExpires, second(1), second(31))
	}
	if !next(t, fresh, send()).Quiet {
		t.Error("quiet: got false, want true: a hold is no history")
	}
}

func TestSendFillsInWhatAHostLeftOut(t *testing.T) {
	bare := Job{ID: 7, Type: "report", Executor: Trigger, Updated: second(0)}
	j := after(t, bare, send())
	if j.IdempotencyKey != "job-late" || j.TriggerTask != "late-task" || j.TriggerStatus != Pending {
		t.Errorf("key, task, status: got %q, %q, %q, want job-late, late-task, PENDING", j.IdempotencyKey, j.TriggerTask, j.TriggerStatus)
	}
	j = after(t, triggerJob(t), send())
	if j.IdempotencyKey != "job-uuid" || j.TriggerTask != "daily-report" {
		t.Errorf("key, task: got %q, %q, want the row's own", j.IdempotencyKey, j.TriggerTask)
	}
}

func TestSendIsRefusedWhereNothingIsToBeSent(t *testing.T) {
	refuses(t, internalJob(t), send(), "it is not executed by Trigger.dev")
	refuses(t, after(t, triggerJob(t), cancel("")), send(), "it has ended")
	refuses(t, queued(t), send(), "it has a run")
	byHost := triggerJob(t)
	byHost.CancelRequested = true // written by the host into its own row
	refuses(t, byHost, send(), "it is to be canceled")
}

func TestWhatARowOwesIsReadOffIt(t *testing.T) {
	owing := map[State]bool{
		StateUnsent: true, StateSending: true, StateSendingCanceling: true,
		StateQueuedCanceling: true, StateRunningCanceling: true,
	}
	asked := map[State]bool{
		StateQueued: true, StateQueuedCanceling: true, StateRunning: true, StateRunningCanceling: true,
		StateToldCompleted: true, StateToldFailed: true, StateToldCanceled: true,
	}
	for _, s := range append(triggerSamples(t), internalSamples(t)...) {
		if got := s.job.Owes(); got != owing[s.state] {
			t.Errorf("%s owes: got %v, want %v", s.state, got, owing[s.state])
		}
		if got := s.job.Asked(); got != asked[s.state] {
			t.Errorf("%s is asked about: got %v, want %v", s.state, got, asked[s.state])
		}
		inDoubt := s.state == StateSending || s.state == StateSendingCanceling
		if got := s.job.InDoubt(); got != inDoubt {
			t.Errorf("%s in doubt: got %v, want %v", s.state, got, inDoubt)
		}
	}
}
