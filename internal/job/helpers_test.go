package job

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	runID = "run_1"
	token = "token of worker one"
	hold  = time.Minute // how long the tests' leases last
)

// second is the tests' clock: so many seconds after the jobs were made.
func second(n int) time.Time {
	return time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Second)
}

func newJob(t *testing.T, s Spec, edit []func(*Spec)) Job {
	t.Helper()
	for _, e := range edit {
		e(&s)
	}
	j, _, err := New(s, second(0), "uuid")
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	j.ID = 7
	return j
}

func internalJob(t *testing.T, edit ...func(*Spec)) Job {
	t.Helper()
	return newJob(t, Spec{Type: "watchChain", Tag: "chain", Data: json.RawMessage(`{"chain":1}`)}, edit)
}

func triggerJob(t *testing.T, edit ...func(*Spec)) Job {
	t.Helper()
	return newJob(t, Spec{
		Type: "report", Tag: "report:7", UserID: 7, Executor: Trigger, TriggerTask: "daily-report",
		Data: json.RawMessage(`{"day":1}`), Labels: []string{"nightly"}, Metadata: json.RawMessage(`{"a":1}`),
	}, edit)
}

// queued is a trigger job whose submit has arrived.
func queued(t *testing.T, edit ...func(*Spec)) Job {
	t.Helper()
	return after(t, triggerJob(t, edit...), send(), submitted())
}

// running is a trigger job whose run has begun.
func running(t *testing.T, edit ...func(*Spec)) Job {
	t.Helper()
	return after(t, queued(t, edit...), seen("EXECUTING"))
}

// The events of the tests. One without a time happens a second after the job's last
// change.

func cancel(reason string) Event { return Event{Kind: Cancel, Reason: reason} }

func send() Event {
	return Event{Kind: Send, Key: "job-late", Task: "late-task", Lease: Lease{Token: "sender", Owner: "sidejob", For: 15 * time.Second}}
}

func submitted() Event { return Event{Kind: Submitted, Run: Run{ID: runID, Environment: "env_1"}} }

func rejected() Event {
	return Event{Kind: Refused, Err: "422: no such task", Details: map[string]any{"status": 422}}
}

func unreached(inDoubt bool) Event {
	return Event{Kind: Unreached, Err: "no route to host", InDoubt: inDoubt, NextTry: second(9000)}
}

func news(kind Kind, raw string, edit []func(*Run)) Event {
	ev := Event{Kind: kind, Run: Run{ID: runID, Raw: raw}}
	for _, e := range edit {
		e(&ev.Run)
	}
	return ev
}

func told(raw string, edit ...func(*Run)) Event { return news(Told, raw, edit) }
func seen(raw string, edit ...func(*Run)) Event { return news(Seen, raw, edit) }

func notFound(at time.Time, proved bool) Event {
	return Event{Kind: Missing, At: at, Run: Run{ID: runID, Environment: "env_1"}, KeyProved: proved}
}

// lost is three 404s over ten minutes, which make an orphan.
func lost() []Event {
	return []Event{notFound(second(1000), true), notFound(second(1300), true), notFound(second(1600), true)}
}

func claim() Event   { return worker(Claim, token) }
func renew() Event   { return worker(Renew, token) }
func release() Event { return worker(Release, token) }

func complete(result string) Event {
	ev := worker(Complete, token)
	ev.Result = json.RawMessage(result)
	return ev
}

func failure(why string) Event {
	ev := worker(Fail, token)
	ev.Result = json.RawMessage(why)
	return ev
}

func worker(kind Kind, token string) Event {
	return Event{Kind: kind, Lease: Lease{Token: token, Owner: "one", For: hold}}
}

func leaseLost() Event { return Event{Kind: LeaseLost} }

func at(when time.Time, ev Event) Event {
	ev.At = when
	return ev
}

func timed(j Job, ev Event) Event {
	if ev.At.IsZero() {
		ev.At = j.Updated.Add(time.Second)
	}
	return ev
}

// next is what follows from an event that is not refused.
func next(t *testing.T, j Job, ev Event) Step {
	t.Helper()
	step, err := Next(j, timed(j, ev))
	if err != nil {
		t.Fatalf("%s on a job that is %s: got error %v, want none", ev.Kind, j.State(), err)
	}
	return step
}

// after is the job once all of that has happened to it.
func after(t *testing.T, j Job, events ...Event) Job {
	t.Helper()
	for _, ev := range events {
		j = next(t, j, ev).Job
	}
	return j
}

// changesNothing checks that an event is no error and has no effect.
func changesNothing(t *testing.T, j Job, ev Event) {
	t.Helper()
	step := next(t, j, ev)
	equal(t, string(ev.Kind)+" on a job that is "+string(j.State())+": the step", step, Step{Job: j})
}

// refuses checks that a request is refused, with that reason, and has no effect.
func refuses(t *testing.T, j Job, ev Event, why string) {
	t.Helper()
	step, err := Next(j, timed(j, ev))
	var refusal *RefusedError
	if !errors.As(err, &refusal) {
		t.Fatalf("%s on a job that is %s: got error %v, want a RefusedError", ev.Kind, j.State(), err)
	}
	equal(t, "the refusal", *refusal, RefusedError{Kind: ev.Kind, State: j.State(), Why: why})
	equal(t, "the step of a refused request", step, Step{Job: j})
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: (-want +got)\n%s", what, diff)
	}
}

func hasState(t *testing.T, j Job, want State) {
	t.Helper()
	if got := j.State(); got != want {
		t.Errorf("state: got %q, want %q", got, want)
	}
}

func hasResult(t *testing.T, j Job, want string) {
	t.Helper()
	if got := string(j.Result); got != want {
		t.Errorf("result: got %s, want %s", got, want)
	}
}

// sample is a job of some state and how it came there.
type sample struct {
	state State
	job   Job
}

// internalSamples and triggerSamples hold a job of each state, each made by events
// from a fresh one, in the order of a job's life.
func internalSamples(t *testing.T) []sample {
	t.Helper()
	fresh := internalJob(t)
	return []sample{
		{StateWaiting, fresh},
		{StateLeased, after(t, fresh, claim())},
		{StateCompleted, after(t, fresh, claim(), complete(`1`))},
		{StateFailed, after(t, fresh, claim(), failure(`"no"`))},
		{StateCanceled, after(t, fresh, claim(), cancel("by a user"))},
	}
}

func triggerSamples(t *testing.T) []sample {
	t.Helper()
	fresh, begun := triggerJob(t), running(t)
	return []sample{
		{StateUnsent, fresh},
		{StateSending, after(t, fresh, send())},
		{StateSendingCanceling, after(t, fresh, send(), cancel("by a user"))},
		{StateQueued, queued(t)},
		{StateQueuedCanceling, after(t, queued(t), cancel("by a user"))},
		{StateRunning, begun},
		{StateRunningCanceling, after(t, begun, cancel("by a user"))},
		{StateToldCompleted, after(t, begun, told("COMPLETED"))},
		{StateToldFailed, after(t, begun, told("FAILED"))},
		{StateToldCanceled, after(t, begun, told("CANCELED"))},
		{StateOrphaned, after(t, begun, lost()...)},
		{StateCompleted, after(t, begun, seen("COMPLETED"))},
		{StateFailed, after(t, begun, seen("FAILED"))},
		{StateCanceled, after(t, begun, cancel("by a user"), seen("CANCELED"))},
	}
}

// recurringSamples hold an internal recurring job, scheduleSamples a schedule that
// Trigger.dev fires, and localSamples one that is fired here.
func recurringSamples(t *testing.T) []sample {
	t.Helper()
	fresh := everyMinute(t)
	return []sample{
		{StateWaiting, fresh},
		{StatePaused, after(t, fresh, pause())},
		{StateLeased, after(t, fresh, claim())},
		{StateCompleted, after(t, fresh, claim(), complete(`1`))},
		{StateFailed, after(t, fresh, claim(), failure(`"no"`))},
		{StateCanceled, after(t, fresh, cancel("by a user"))},
	}
}

func scheduleSamples(t *testing.T) []sample {
	t.Helper()
	fresh, made := remoteJob(t), settled(t)
	return []sample{
		{StateScheduling, fresh},
		{StateScheduled, made},
		{StatePaused, after(t, made, pause(), send(), scheduled(false))},
		{StateEnding, after(t, made, cancel("by a user"))},
		{StateFailed, after(t, fresh, send(), rejected())},
		{StateCanceled, after(t, made, cancel("by a user"), unscheduled())},
	}
}

func localSamples(t *testing.T) []sample {
	t.Helper()
	fresh := localJob(t)
	return []sample{
		{StateScheduled, fresh},
		{StatePaused, after(t, fresh, pause())},
		{StateCanceled, after(t, fresh, cancel("by a user"))},
	}
}

// samples are all of them.
func samples(t *testing.T) []sample {
	t.Helper()
	return slices.Concat(triggerSamples(t), internalSamples(t), recurringSamples(t), scheduleSamples(t), localSamples(t))
}

func TestSamplesAreWhatTheySay(t *testing.T) {
	for _, s := range samples(t) {
		hasState(t, s.job, s.state)
	}
}
