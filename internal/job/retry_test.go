package job

import (
	"encoding/json"
	"math"
	"testing"
	"time"
)

func retries(r RetryConfig) func(*Spec) { return func(s *Spec) { s.Retry = &r } }

func reschedules(after time.Duration) func(*Spec) {
	return func(s *Spec) { s.AutoReschedule, s.RescheduleWait = true, after }
}

// fails claims the job as soon as may be and fails it a second later.
func fails(t *testing.T, j Job) Step {
	t.Helper()
	when := j.Updated
	for _, bound := range []time.Time{j.Due, j.NextTry} {
		if bound.After(when) {
			when = bound
		}
	}
	return next(t, after(t, j, at(when, claim())), failure(`"no"`))
}

func TestAFailedTryGoesBackOnTheSameRow(t *testing.T) {
	j := internalJob(t, retries(RetryConfig{MaxAttempts: 3, MinTimeout: 10_000, Factor: 3}))
	for n, wait := range []time.Duration{10 * time.Second, 30 * time.Second} {
		step := fails(t, j)
		j = step.Job
		hasState(t, j, StateWaiting)
		if j.Attempt != n+1 || step.Follow != nil || j.Success != nil || j.Result != nil {
			t.Errorf("try %d: attempt %d, follow %v, success %v, result %s, want %d and nothing else", n+1, j.Attempt, step.Follow, j.Success, j.Result, n+1)
		}
		if got := j.NextTry.Sub(j.Updated); got != wait {
			t.Errorf("try %d: got a wait of %v, want %v", n+1, got, wait)
		}
	}
	step := fails(t, j)
	hasState(t, step.Job, StateFailed)
	hasResult(t, step.Job, `{"error":"no"}`)
	if step.Job.Attempt != 3 || step.Follow != nil {
		t.Errorf("attempt, follow: got %d, %v, want 3, none", step.Job.Attempt, step.Follow)
	}
}

func TestAPolicyThatDoesNotSayHowOftenAllowsThreeTries(t *testing.T) {
	j := internalJob(t, retries(RetryConfig{}))
	for range 2 {
		j = fails(t, j).Job
		hasState(t, j, StateWaiting)
	}
	hasState(t, fails(t, j).Job, StateFailed)
}

func TestWithoutAPolicyTheFirstFailureIsTheLast(t *testing.T) {
	hasState(t, fails(t, internalJob(t)).Job, StateFailed)
}

func TestAPolicyAllowsNoSecondTryOfWhatIsDone(t *testing.T) {
	hasState(t, after(t, internalJob(t, retries(RetryConfig{})), claim(), complete(`1`)), StateCompleted)
}

func TestEachFailureMakesANewRow(t *testing.T) {
	edit := func(s *Spec) {
		s.Name, s.UserID, s.Persistent, s.RemoveDelay = "chain", 7, true, time.Minute
		s.Timezone = "Europe/Rome"
		s.Labels, s.Metadata = []string{"a"}, json.RawMessage(`{"a":1}`)
	}
	step := fails(t, internalJob(t, edit, reschedules(time.Hour)))
	hasState(t, step.Job, StateFailed)
	hasResult(t, step.Job, `{"error":"no"}`)
	failed := step.Job.Finished
	equal(t, "the row that follows", step.Follow, &Job{
		Tag: "chain", Type: "watchChain", Name: "chain", UserID: 7, Data: json.RawMessage(`{"chain":1}`),
		Due: failed.Add(time.Hour), RemoveAt: failed.Add(time.Hour + time.Minute),
		Timezone:       "Europe/Rome",
		AutoReschedule: true, AutoRescheduleWait: time.Hour,
		RemoveDelay: time.Minute, RescheduledFrom: 7, Persistent: true,
		Executor: Internal, Metadata: json.RawMessage(`{"a":1}`), Labels: []string{"a"},
		Attempt: 1, Created: failed, Updated: failed,
	})
	if step.OnConflict != Keep {
		t.Errorf("on conflict: got %q, want keep: whoever took the tag meanwhile stays", step.OnConflict)
	}
}

func TestANewRowWaitsForTheLongerOfDelayAndBackOff(t *testing.T) {
	for _, c := range []struct {
		name        string
		delay, want time.Duration
		retry       *RetryConfig
	}{
		{"no delay, no policy", 0, 0, nil},
		{"the delay alone", time.Minute, time.Minute, nil},
		{"the delay is longer", time.Minute, time.Minute, &RetryConfig{MinTimeout: 1000}},
		{"the back-off is longer", time.Second, 20 * time.Second, &RetryConfig{MinTimeout: 20_000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			step := fails(t, internalJob(t, reschedules(c.delay), func(s *Spec) { s.Retry = c.retry }))
			if step.Follow == nil {
				t.Fatal("follow: got none, want one")
			}
			if got := step.Follow.Due.Sub(step.Job.Finished); got != c.want {
				t.Errorf("wait: got %v, want %v", got, c.want)
			}
		})
	}
}

func TestMaxAttemptsBoundsTheWholeChain(t *testing.T) {
	j := internalJob(t, reschedules(0), retries(RetryConfig{MaxAttempts: 3, MinTimeout: 1000, Factor: 2}))
	for row, wait := range []time.Duration{time.Second, 2 * time.Second} {
		step := fails(t, j)
		hasState(t, step.Job, StateFailed)
		if step.Follow == nil {
			t.Fatalf("row %d: got no further row, want three rows", row+1)
		}
		if got := step.Follow.Due.Sub(step.Job.Finished); got != wait || step.Job.Attempt != row+1 {
			t.Errorf("row %d: got attempt %d and a wait of %v, want %d and %v", row+1, step.Job.Attempt, got, row+1, wait)
		}
		j = *step.Follow
	}
	step := fails(t, j)
	hasState(t, step.Job, StateFailed)
	if step.Follow != nil || step.Job.Attempt != 3 {
		t.Errorf("row 3: got attempt %d and follow %v, want 3 and none", step.Job.Attempt, step.Follow)
	}
}

func TestAChainWithoutMaxAttemptsGoesOn(t *testing.T) {
	j := internalJob(t, reschedules(0), retries(RetryConfig{MinTimeout: 1000}))
	for range 40 {
		step := fails(t, j)
		if step.Follow == nil {
			t.Fatalf("attempt %d: got no further row, want one", step.Job.Attempt)
		}
		j = *step.Follow
	}
}

func TestAFailedRunMakesANewRowOnceItIsConfirmed(t *testing.T) {
	begun := running(t, reschedules(time.Minute))
	closed := next(t, begun, told("FAILED"))
	if closed.Follow != nil {
		t.Error("told: got a new row, want none before Trigger.dev confirms")
	}
	for name, step := range map[string]Step{
		"seen at once":                next(t, begun, seen("CRASHED")),
		"seen after it was told":      next(t, closed.Job, seen("FAILED")),
		"told, then forgotten":        next(t, after(t, closed.Job, lost()[:2]...), lost()[2]),
		"orphaned, then seen to fail": next(t, after(t, begun, lost()...), seen("TIMED_OUT")),
	} {
		f := step.Follow
		if f == nil {
			t.Errorf("%s: got no new row, want one", name)
			continue
		}
		hasState(t, *f, StateUnsent)
		if f.RescheduledFrom != 7 || f.RunID != "" || f.TriggerTask != "daily-report" || f.TriggerStatus != Pending || f.Attempt != 0 {
			t.Errorf("%s: got %+v, want a fresh row of the same task", name, f)
		}
		if !f.Due.Equal(step.Job.Updated.Add(time.Minute)) {
			t.Errorf("%s: got due %v, want a minute after %v", name, f.Due, step.Job.Updated)
		}
		changesNothing(t, step.Job, seen("FAILED"))
	}
}

func TestARunThatDidNotFailMakesNoNewRow(t *testing.T) {
	begun := running(t, reschedules(0))
	for _, raw := range []string{"COMPLETED", "CANCELED"} {
		if step := next(t, begun, seen(raw)); step.Follow != nil {
			t.Errorf("%s: got a new row, want none", raw)
		}
		if step := next(t, after(t, begun, told("FAILED")), seen(raw)); step.Follow != nil {
			t.Errorf("told FAILED, in truth %s: got a new row, want none", raw)
		}
	}
}

func TestAFailureThatForestallsACancelMakesNoNewRow(t *testing.T) {
	canceling := after(t, running(t, reschedules(0)), cancel("by a user"))
	step := next(t, canceling, seen("FAILED"))
	hasState(t, step.Job, StateFailed)
	if step.Follow != nil {
		t.Errorf("follow: got %+v, want none: it was to be canceled", step.Follow)
	}
}

func TestMaxAttemptsBoundsTheRunsOfAChain(t *testing.T) {
	policy := RetryConfig{MaxAttempts: 5}
	j := triggerJob(t, reschedules(0), retries(policy))
	tries := []int{2, 0, 2} // attempts that each run makes; one that never began counts as one
	for n, attempts := range tries {
		step := next(t, after(t, j, send(), submitted()), seen("CRASHED", func(r *Run) { r.Attempts = attempts }))
		if step.Job.Attempt != attempts {
			t.Errorf("run %d: got attempt %d, want %d", n+1, step.Job.Attempt, attempts)
		}
		if last := n == len(tries)-1; (step.Follow == nil) != last {
			t.Fatalf("run %d: got follow %v, want none only after the last", n+1, step.Follow)
		}
		if step.Follow != nil {
			j = *step.Follow
			j.ID = int64(8 + n)
		}
	}
	equal(t, "what the last run could still try", j.Retry.MaxAttempts, 2)
	equal(t, "the policy it began with", policy.MaxAttempts, 5)
}

func TestARunChainWithoutMaxAttemptsKeepsItsPolicy(t *testing.T) {
	begun := running(t, reschedules(0), retries(RetryConfig{MinTimeout: 5000}))
	step := next(t, begun, seen("FAILED", whole))
	equal(t, "the policy", step.Follow.Retry, begun.Retry)
	if got, want := step.Follow.Due.Sub(step.Job.Updated), 10*time.Second; got != want {
		t.Errorf("wait after two attempts: got %v, want %v", got, want)
	}
}

func TestRetryMakesANewJobFromAFinalOne(t *testing.T) {
	for _, s := range append(triggerSamples(t), internalSamples(t)...) {
		ev := Event{Kind: Retry, At: second(5000), Key: "job-again"}
		if !s.job.Done() {
			refuses(t, s.job, ev, "it has not ended")
			continue
		}
		step := next(t, s.job, ev)
		f := step.Follow
		if f == nil || step.Changed {
			t.Fatalf("%s: got follow %v, changed %v, want a new row and the old one unchanged", s.state, f, step.Changed)
		}
		equal(t, "the old row", step.Job, s.job)
		want := fresh(s.job)
		want.RescheduledFrom, want.Due, want.Created, want.Updated = 7, second(5000), second(5000), second(5000)
		want.RemoveAt = second(5000).Add(DefaultRemoveDelay)
		if s.job.Executor == Trigger {
			want.IdempotencyKey = "job-again"
		}
		equal(t, "the new row", *f, want)
		if step.OnConflict != Replace {
			t.Errorf("%s: on conflict: got %q, want replace", s.state, step.OnConflict)
		}
	}
}

// fresh is what remains of a job when its life is taken away.
func fresh(j Job) Job {
	f := Job{
		Tag: j.Tag, Type: j.Type, UserID: j.UserID, Data: j.Data, Timezone: j.Timezone,
		Executor: j.Executor, TriggerTask: j.TriggerTask, Metadata: j.Metadata, Labels: j.Labels,
	}
	if f.Executor == Trigger {
		f.TriggerStatus = Pending
	}
	return f
}

func TestBackoff(t *testing.T) {
	for _, c := range []struct {
		name    string
		policy  RetryConfig
		attempt int
		random  float64
		want    time.Duration
	}{
		{"what is left out: first", RetryConfig{}, 1, 0.9, time.Second},
		{"what is left out: second", RetryConfig{}, 2, 0.9, 2 * time.Second},
		{"what is left out: seventh", RetryConfig{}, 7, 0.9, time.Minute},
		{"attempt 0 is as the first", RetryConfig{}, 0, 0, time.Second},
		{"min and factor", RetryConfig{MinTimeout: 100, Factor: 1.5}, 3, 0, 225 * time.Millisecond},
		{"factor 1 stays", RetryConfig{MinTimeout: 100, Factor: 1}, 250, 0, 100 * time.Millisecond},
		{"at most the maximum", RetryConfig{MinTimeout: 1000, MaxTimeout: 5000, Factor: 10}, 2, 0, 5 * time.Second},
		{"random lengthens", RetryConfig{Randomize: true}, 2, 0.5, 3 * time.Second},
		{"random 0 does not", RetryConfig{Randomize: true}, 2, 0, 2 * time.Second},
		{"random lengthens the maximum too", RetryConfig{MaxTimeout: 5000, Randomize: true}, 9, 0.5, 7500 * time.Millisecond},
		{"no overflow", RetryConfig{MaxTimeout: 31_536_000_000, Factor: 100, Randomize: true}, 250, 0.5, 3 * 365 * 12 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.policy.Backoff(c.attempt, c.random); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestBackoffNeverShrinks(t *testing.T) {
	for _, policy := range []RetryConfig{{}, {Factor: 1.01, MaxTimeout: math.MaxInt32}, {MinTimeout: 7, Factor: 3}} {
		for attempt := 1; attempt < 250; attempt++ {
			is, then := policy.Backoff(attempt, 0), policy.Backoff(attempt+1, 0)
			if then < is {
				t.Fatalf("%+v: got %v after attempt %d and then %v, want no less", policy, is, attempt, then)
			}
		}
	}
}
