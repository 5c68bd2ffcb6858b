package job

import (
	"errors"
	"testing"
)

func TestAJobThatWasNeverSentIsCanceledAtOnce(t *testing.T) {
	j := after(t, triggerJob(t), at(second(30), cancel("by a user")))
	hasState(t, j, StateCanceled)
	hasResult(t, j, `{"canceled":true,"error":"by a user"}`)
	if !j.CancelRequested || j.TriggerStatus != Canceled || !j.Finished.Equal(second(30)) || j.Success == nil || *j.Success {
		t.Errorf("cancelRequested, triggerStatus, finished, success: got %v, %s, %v, %v", j.CancelRequested, j.TriggerStatus, j.Finished, j.Success)
	}
	if j.Owes() || !j.Started.IsZero() {
		t.Errorf("owes, started: got %v, %v, want false and never", j.Owes(), j.Started)
	}
}

func TestASubmitThatCertainlyFailedLeavesAJobThatIsCanceledAtOnce(t *testing.T) {
	j := after(t, triggerJob(t), send(), unreached(false), cancel(""))
	hasState(t, j, StateCanceled)
	hasResult(t, j, `{"canceled":true}`)
	if j.Error != "" {
		t.Errorf("error: got %q, want none: nothing is to be sent any more", j.Error)
	}
}

func TestCancelOnlyMarksWhatMayRunOnTriggerDev(t *testing.T) {
	waiting := after(t, triggerJob(t), send(), unreached(true))
	for _, c := range []struct {
		name string
		job  Job
		want State
	}{
		{"a submit in doubt", waiting, StateSendingCanceling},
		{"a submit under way", after(t, triggerJob(t), send()), StateSendingCanceling},
		{"a queued run", queued(t), StateQueuedCanceling},
		{"a running run", running(t), StateRunningCanceling},
		{"a run whose cancel must not wait for a back-off", after(t, running(t), unreached(true)), StateRunningCanceling},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := after(t, c.job, cancel("by a user"))
			hasState(t, j, c.want)
			if !j.CancelRequested || j.CancelReason != "by a user" || !j.Owes() || !j.NextTry.IsZero() {
				t.Errorf("cancelRequested, reason, owes, next try: got %v, %q, %v, %v", j.CancelRequested, j.CancelReason, j.Owes(), j.NextTry)
			}
			if got, want := j.Status(), c.job.Status(); got != want || j.Result != nil {
				t.Errorf("status, result: got %s, %s, want %s and none yet", got, j.Result, want)
			}
			changesNothing(t, j, cancel("for another reason"))
		})
	}
}

func TestCancelLeavesFinalJobsUnchanged(t *testing.T) {
	for _, s := range append(triggerSamples(t), internalSamples(t)...) {
		if s.job.Done() {
			changesNothing(t, s.job, cancel("too late"))
		}
	}
}

func TestAnInternalJobIsCanceledAtOnceRunningOrNot(t *testing.T) {
	for _, j := range []Job{internalJob(t), after(t, internalJob(t), claim())} {
		j = after(t, j, at(second(30), cancel("")))
		hasState(t, j, StateCanceled)
		hasResult(t, j, `{"canceled":true}`)
		if j.TriggerStatus != "" || !j.Finished.Equal(second(30)) {
			t.Errorf("triggerStatus, finished: got %q, %v, want none, %v", j.TriggerStatus, j.Finished, second(30))
		}
	}
}

func TestAReplacedJobSaysSo(t *testing.T) {
	const want = `{"canceled":true,"error":"Job cancelled due to new job being created"}`
	hasResult(t, after(t, triggerJob(t), cancel(ReplacedReason)), want)
	hasResult(t, after(t, internalJob(t), cancel(ReplacedReason)), want)
	hasResult(t, after(t, queued(t), cancel(ReplacedReason), seen("CANCELED")), want)
}

func TestACancelInDoubtIsSettledByWhatBecomesOfTheSubmit(t *testing.T) {
	canceling := after(t, triggerJob(t), send(), cancel("by a user"))
	for _, c := range []struct {
		name   string
		events []Event
		want   State
		result string
	}{
		{"it arrived", []Event{submitted()}, StateQueuedCanceling, ""},
		{"it may have arrived", []Event{unreached(true)}, StateSendingCanceling, ""},
		{"it did not arrive", []Event{unreached(false)}, StateCanceled, `{"canceled":true,"error":"by a user"}`},
		{"it was refused: no run exists", []Event{rejected()}, StateCanceled, `{"canceled":true,"error":"by a user"}`},
		{"sent again to learn the run", []Event{at(second(60), send()), submitted()}, StateQueuedCanceling, ""},
		{"an event tells of the run", []Event{told("EXECUTING")}, StateRunningCanceling, ""},
		{"an event tells of its end", []Event{told("COMPLETED")}, StateToldCompleted, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := after(t, canceling, c.events...)
			hasState(t, j, c.want)
			hasResult(t, j, c.result)
			if !j.CancelRequested {
				t.Error("cancelRequested: got false, want true")
			}
		})
	}
}

func TestWhatTriggerDevSaysLastIsWhatACanceledJobSays(t *testing.T) {
	canceling := after(t, running(t), cancel("by a user"))
	for _, w := range apiWords() {
		if !w.status.Final() {
			continue
		}
		j := after(t, canceling, seen(w.raw, whole))
		if got := j.Status(); got != w.status {
			t.Errorf("%s: got status %s, want %s", w.raw, got, w.status)
		}
		if !j.CancelRequested || j.Owes() {
			t.Errorf("%s: cancelRequested %v, owes %v, want true, false", w.raw, j.CancelRequested, j.Owes())
		}
	}
}

func TestATakenCancelWaitsForTheRunsEnd(t *testing.T) {
	canceling := after(t, running(t), cancel("by a user"), unreached(false))
	j := after(t, canceling, Event{Kind: Stopping, NextTry: second(500)})
	hasState(t, j, StateRunningCanceling)
	if j.Error != "" || j.Tries != 0 || !j.NextTry.Equal(second(500)) {
		t.Errorf("error, tries, next try: got %q, %d, %v, want none, 0, %v", j.Error, j.Tries, j.NextTry, second(500))
	}
}

func TestACancelThatAHostWroteIntoItsRowIsSettled(t *testing.T) {
	byHost := func(j Job) Job {
		j.CancelRequested = true
		return j
	}
	j := byHost(internalJob(t))
	refuses(t, j, claim(), "it is to be canceled")
	for _, j := range []Job{j, byHost(triggerJob(t))} {
		j = after(t, j, cancel("the host's own"))
		hasState(t, j, StateCanceled)
		hasResult(t, j, `{"canceled":true}`)
	}
}

func TestARefusalIsAnErrRefusedThatSaysWhy(t *testing.T) {
	_, err := Next(queued(t), send())
	if !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want an ErrRefused", err)
	}
	if errors.Is(err, ErrTagTaken) {
		t.Error("got an ErrTagTaken, want only an ErrRefused")
	}
	if got, want := err.Error(), "cannot send a job that is queued: it has a run"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
