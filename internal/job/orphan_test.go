package job

import (
	"testing"
	"time"
)

func TestAnOrphanTakesThreeProvedAnswersOverTenMinutes(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []Event
		want   State
	}{
		{"one", []Event{notFound(second(1000), true)}, StateQueued},
		{"two, long apart", []Event{notFound(second(1000), true), notFound(second(9000), true)}, StateQueued},
		{"many, at once", []Event{
			notFound(second(1000), true), notFound(second(1001), true), notFound(second(1002), true), notFound(second(1599), true),
		}, StateQueued},
		{"three over ten minutes", lost(), StateOrphaned},
		{"an answer in between starts the count anew", []Event{
			notFound(second(1000), true), notFound(second(1300), true), at(second(1400), seen("QUEUED")),
			notFound(second(1600), true), notFound(second(2300), true),
		}, StateQueued},
		{"a key that is not proved good proves nothing", []Event{
			notFound(second(1000), false), notFound(second(1300), false), notFound(second(9000), false),
		}, StateQueued},
		{"nor does it help a later one to", []Event{
			notFound(second(1000), false), notFound(second(1300), false), notFound(second(9000), true),
		}, StateQueued},
	} {
		t.Run(c.name, func(t *testing.T) {
			hasState(t, after(t, queued(t), c.events...), c.want)
		})
	}
}

func TestAKeyOfAnotherEnvironmentMakesNoOrphan(t *testing.T) {
	for _, env := range []string{"env_2", ""} {
		for _, ev := range lost() {
			ev.Run.Environment = env
			changesNothing(t, queued(t), ev)
		}
	}
}

func TestARunOfUnknownEnvironmentCanBeAnOrphan(t *testing.T) {
	j := queued(t)
	j.Environment = ""
	hasState(t, after(t, j, lost()...), StateOrphaned)
}

func TestAnOrphanHasFailed(t *testing.T) {
	j := after(t, running(t, func(s *Spec) { s.RemoveDelay = time.Minute }), lost()...)
	hasResult(t, j, `{"error":"orphaned: Trigger.dev does not know run run_1","reason":"ORPHANED"}`)
	if j.Status() != Failed || j.TriggerStatus != Failed || j.Success == nil || *j.Success {
		t.Errorf("status, triggerStatus, success: got %s, %s, %v, want FAILED, FAILED, false", j.Status(), j.TriggerStatus, j.Success)
	}
	if !j.Finished.Equal(second(1600)) || !j.RemoveAt.Equal(second(1660)) || !j.Orphaned.Equal(second(1600)) {
		t.Errorf("finished, remove at, orphaned: got %v, %v, %v", j.Finished, j.RemoveAt, j.Orphaned)
	}
	if j.Unconfirmed() || j.Asked() {
		t.Errorf("unconfirmed, asked: got %v, %v, want false, false", j.Unconfirmed(), j.Asked())
	}
}

func TestA404IsQuietUntilItMakesAnOrphan(t *testing.T) {
	j := queued(t)
	for i, ev := range lost() {
		step := next(t, j, ev)
		if quiet := i < OrphanCount-1; !step.Changed || step.Quiet != quiet {
			t.Errorf("404 number %d: got changed %v, quiet %v, want true, %v", i+1, step.Changed, step.Quiet, quiet)
		}
		j = step.Job
	}
}

func TestAnOrphanMakesNoNewRowItsRunMayBeAlive(t *testing.T) {
	j := after(t, running(t, func(s *Spec) { s.AutoReschedule = true }), lost()[:2]...)
	if step := next(t, j, lost()[2]); step.Follow != nil {
		t.Errorf("follow: got %+v, want none", step.Follow)
	}
}

func TestAnOrphanThatIsFoundAliveLivesOn(t *testing.T) {
	orphan := after(t, running(t), lost()...)
	for _, w := range apiWords() {
		t.Run(w.raw, func(t *testing.T) {
			step := next(t, orphan, seen(w.raw, whole))
			want := expected(w)
			if w.status == Pending {
				want.Started = orphan.Started // it had begun before
			}
			equal(t, "the job", show(step.Job), want)
			if !step.Job.Orphaned.IsZero() || step.Job.MissingCount != 0 || step.Quiet {
				t.Errorf("orphaned, missing, quiet: got %v, %d, %v, want none, 0, false", step.Job.Orphaned, step.Job.MissingCount, step.Quiet)
			}
			if confirmed := !step.Job.Confirmed.IsZero(); confirmed != w.status.Final() {
				t.Errorf("confirmed: got %v, want %v", confirmed, w.status.Final())
			}
		})
	}
}

func TestAnOrphanStaysOneWhileNoKnownWordIsHeard(t *testing.T) {
	orphan := after(t, running(t), lost()...)
	hasState(t, after(t, orphan, seen("LEVITATING")), StateOrphaned)
	changesNothing(t, orphan, notFound(second(9000), true))
}

func TestARevivedOrphanCanBeLostAgain(t *testing.T) {
	j := after(t, running(t), lost()...)
	j = after(t, j, at(second(2000), seen("EXECUTING")), notFound(second(3000), true), notFound(second(3300), true))
	hasState(t, j, StateRunning)
	hasState(t, after(t, j, notFound(second(3600), true)), StateOrphaned)
}

func TestAnEventStandsWhenTriggerDevHasForgottenTheRun(t *testing.T) {
	for _, raw := range []string{"COMPLETED", "FAILED", "CANCELED"} {
		closed := after(t, running(t), told(raw, whole))
		j := after(t, closed, lost()...)
		equal(t, "the job that was told "+raw, show(j), show(closed))
		if j.Confirmed.IsZero() || j.Unconfirmed() {
			t.Errorf("told %s: got unconfirmed, want confirmed", raw)
		}
		changesNothing(t, j, seen("EXECUTING"))
	}
}
