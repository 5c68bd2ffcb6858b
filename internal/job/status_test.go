package job

import (
	"encoding/json"
	"testing"
	"time"
)

// word is a status of Trigger.dev and what the public contract makes of it.
type word struct {
	raw    string
	shown  string // triggerRawStatus, the API's word
	status Status // of the row
}

// apiWords are all that the API knows.
func apiWords() []word {
	return []word{
		{"DELAYED", "DELAYED", Pending},
		{"PENDING_VERSION", "PENDING_VERSION", Pending},
		{"QUEUED", "QUEUED", Pending},
		{"DEQUEUED", "DEQUEUED", Pending},
		{"EXECUTING", "EXECUTING", Executing},
		{"WAITING", "WAITING", Executing},
		{"COMPLETED", "COMPLETED", Completed},
		{"CANCELED", "CANCELED", Canceled},
		{"FAILED", "FAILED", Failed},
		{"CRASHED", "CRASHED", Failed},
		{"TIMED_OUT", "TIMED_OUT", Failed},
		{"SYSTEM_FAILURE", "SYSTEM_FAILURE", Failed},
		{"EXPIRED", "EXPIRED", Failed},
	}
}

// allWords adds those of clients without the version header, and the database's.
func allWords() []word {
	return append(apiWords(),
		word{"WAITING_FOR_DEPLOY", "WAITING_FOR_DEPLOY", Pending},
		word{"REATTEMPTING", "REATTEMPTING", Executing},
		word{"FROZEN", "FROZEN", Executing},
		word{"INTERRUPTED", "INTERRUPTED", Failed},

		word{"PENDING", "QUEUED", Pending},
		word{"RETRYING_AFTER_FAILURE", "EXECUTING", Executing},
		word{"WAITING_TO_RESUME", "WAITING", Executing},
		word{"PAUSED", "WAITING", Executing},
		word{"COMPLETED_SUCCESSFULLY", "COMPLETED", Completed},
		word{"COMPLETED_WITH_ERRORS", "FAILED", Failed},
	)
}

// shown is what callers see of a trigger job's life.
type shown struct {
	Status, TriggerStatus Status
	Raw                   string
	Started, Finished     time.Time
	RemoveAt              time.Time
	Success               string
	Result                string
	Attempt               int
	AttemptID             string
	Environment           string
}

func show(j Job) shown {
	success := "null"
	if j.Success != nil && *j.Success {
		success = "true"
	} else if j.Success != nil {
		success = "false"
	}
	return shown{
		Status: j.Status(), TriggerStatus: j.TriggerStatus, Raw: j.RawStatus,
		Started: j.Started, Finished: j.Finished, RemoveAt: j.RemoveAt, Success: success, Result: string(j.Result),
		Attempt: j.Attempt, AttemptID: j.AttemptID, Environment: j.Environment,
	}
}

// expected is the contract's row for a word, of a run that tells all there is.
func expected(w word) shown {
	want := shown{
		Status: w.status, TriggerStatus: w.status, Raw: w.shown, Success: "null",
		RemoveAt: second(0).Add(DefaultRemoveDelay),
		Attempt:  2, AttemptID: "attempt_2", Environment: "env_1",
	}
	if w.status != Pending && w.raw != "EXPIRED" {
		want.Started = second(10)
	}
	if !w.status.Final() {
		return want
	}
	want.Finished, want.RemoveAt = second(20), second(20).Add(DefaultRemoveDelay)
	switch {
	case w.status == Completed:
		want.Success, want.Result = "true", `{"rows":3}`
	case w.status == Canceled:
		want.Success, want.Result = "false", `{"canceled":true,"error":{"message":"boom"}}`
	case w.raw == "EXPIRED":
		want.Success, want.Result = "false", `{"error":"expired before start","reason":"EXPIRED"}`
	default:
		want.Success, want.Result = "false", `{"attemptCount":2,"error":{"message":"boom"},"reason":"`+w.shown+`"}`
	}
	return want
}

// whole fills in everything that a run can say of itself.
func whole(r *Run) {
	r.Started, r.Finished = second(10), second(20)
	r.Attempts, r.AttemptID, r.Environment = 2, "attempt_2", "env_1"
	r.Output, r.Error = json.RawMessage(`{"rows":3}`), json.RawMessage(`{"message":"boom"}`)
}

func TestEveryStatusOfTriggerDevIsReadAsTheContractSays(t *testing.T) {
	for _, w := range allWords() {
		t.Run("seen "+w.raw, func(t *testing.T) {
			j := after(t, queued(t), seen(w.raw, whole))
			equal(t, "the job", show(j), expected(w))
			if confirmed := !j.Confirmed.IsZero(); confirmed != w.status.Final() {
				t.Errorf("confirmed: got %v, want %v", confirmed, w.status.Final())
			}
		})
		t.Run("told "+w.raw, func(t *testing.T) {
			j := after(t, queued(t), told(w.raw, whole))
			if w.status == Pending {
				equal(t, "a queued job that is told it is queued", j, queued(t))
				return
			}
			equal(t, "the job", show(j), expected(w))
			if j.Unconfirmed() != w.status.Final() {
				t.Errorf("unconfirmed: got %v, want %v", j.Unconfirmed(), w.status.Final())
			}
		})
		t.Run("the first word of a run is told "+w.raw, func(t *testing.T) {
			j := after(t, triggerJob(t), send(), told(w.raw, whole))
			if got := j.RunID; got != runID {
				t.Errorf("run: got %q, want %q", got, runID)
			}
			if got := j.Status(); got != w.status {
				t.Errorf("status: got %s, want %s", got, w.status)
			}
			if j.LeaseToken != "" {
				t.Errorf("lease: got %q, want the sender's gone", j.LeaseToken)
			}
		})
		t.Run("known "+w.raw, func(t *testing.T) {
			if !KnownStatus(w.raw) {
				t.Errorf("KnownStatus(%q): got false, want true", w.raw)
			}
			if got := StatusOf(w.raw); got != w.status {
				t.Errorf("StatusOf(%q): got %q, want %q", w.raw, got, w.status)
			}
			if got, want := FinalStatus(w.raw), w.status.Final(); got != want {
				t.Errorf("FinalStatus(%q): got %v, want %v", w.raw, got, want)
			}
		})
	}
}

func TestTheAPIHasThirteenStatusesOfWhichSevenAreFinal(t *testing.T) {
	final := 0
	for _, w := range apiWords() {
		if FinalStatus(w.raw) {
			final++
		}
	}
	if got := len(apiWords()); got != 13 || final != 7 {
		t.Errorf("got %d statuses, %d of them final, want 13 and 7", got, final)
	}
}

func TestAnUnknownStatusLeavesTheRunOpen(t *testing.T) {
	for _, raw := range []string{"LEVITATING", "", "completed", "COMPLETED "} {
		if KnownStatus(raw) || FinalStatus(raw) || StatusOf(raw) != "" {
			t.Errorf("%q: got known, final or %q, want none of it", raw, StatusOf(raw))
		}
		changesNothing(t, running(t), told(raw, whole))
		changesNothing(t, after(t, triggerJob(t), send()), told(raw, whole))

		before := running(t)
		j := after(t, before, seen(raw, whole))
		want := show(before)
		want.Raw = raw
		equal(t, "a running job that was seen "+raw, show(j), want)
		if j.LastSynced.IsZero() {
			t.Errorf("last synced: got none, want the time of the answer")
		}
	}
}

func TestAnUnknownStatusIsTakenBackByTheNextOne(t *testing.T) {
	j := after(t, running(t), seen("LEVITATING"), seen("COMPLETED", whole))
	equal(t, "the job", show(j), expected(word{"COMPLETED", "COMPLETED", Completed}))
}

func TestTheOutputIsKeptAsItIs(t *testing.T) {
	for _, output := range []string{`null`, `false`, `0`, `""`, `[]`, `{}`, `-0.0`, `12345678901234567890`, `{"a" : 1}`} {
		for _, ev := range []Event{told("COMPLETED"), seen("COMPLETED")} {
			ev.Run.Output = json.RawMessage(output)
			j := after(t, running(t), ev)
			hasResult(t, j, output)
			if j.Success == nil || !*j.Success {
				t.Errorf("%s %s: got no success, want success", ev.Kind, output)
			}
		}
		hasResult(t, after(t, internalJob(t), claim(), complete(output)), output)
	}
}

func TestARunWithoutOutputHasNoResult(t *testing.T) {
	for _, ev := range []Event{told("COMPLETED"), seen("COMPLETED")} {
		if got := after(t, running(t), ev).Result; got != nil {
			t.Errorf("%s: got result %s, want none", ev.Kind, got)
		}
	}
}

func TestAnOutputOfARunThatDidNotCompleteIsNoResult(t *testing.T) {
	for _, raw := range []string{"FAILED", "CANCELED", "EXPIRED"} {
		j := after(t, running(t), seen(raw, func(r *Run) { r.Output = json.RawMessage(`"out"`) }))
		var result map[string]any
		if err := json.Unmarshal(j.Result, &result); err != nil {
			t.Errorf("%s: got result %s, want an object that says why", raw, j.Result)
		}
	}
}

func TestTheErrorOfARunIsWhatTriggerDevGivesOrAText(t *testing.T) {
	for _, c := range []struct{ name, given, want string }{
		{"an object", `{"message":"m","name":"n","stackTrace":"s"}`, `{"message":"m","name":"n","stackTrace":"s"}`},
		{"a text", `"m"`, `"m"`},
		{"no JSON", `it "broke"`, `"it \"broke\""`},
		{"nothing", ``, `"the run ended CRASHED without an error message"`},
		{"null", `null`, `"the run ended CRASHED without an error message"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := after(t, running(t), seen("CRASHED", func(r *Run) { r.Error, r.Attempts = json.RawMessage(c.given), 1 }))
			hasResult(t, j, `{"attemptCount":1,"error":`+c.want+`,"reason":"CRASHED"}`)
		})
	}
}

func TestTheResultOfACanceledRunSaysWhy(t *testing.T) {
	byServer := func(r *Run) { r.Error = json.RawMessage(`{"message":"Canceled by user"}`) }
	for _, c := range []struct {
		name   string
		events []Event
		want   string
	}{
		{"our own reason comes first", []Event{cancel("enough"), seen("CANCELED", byServer)}, `{"canceled":true,"error":"enough"}`},
		{"a replaced job says so", []Event{cancel(ReplacedReason), seen("CANCELED")}, `{"canceled":true,"error":"Job cancelled due to new job being created"}`},
		{"else what Trigger.dev says", []Event{seen("CANCELED", byServer)}, `{"canceled":true,"error":{"message":"Canceled by user"}}`},
		{"else nothing", []Event{seen("CANCELED")}, `{"canceled":true}`},
		{"null is nothing", []Event{seen("CANCELED", func(r *Run) { r.Error = json.RawMessage(`null`) })}, `{"canceled":true}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			hasResult(t, after(t, running(t), c.events...), c.want)
		})
	}
}

// A run that says less than it could.
func TestTimesThatARunDoesNotTell(t *testing.T) {
	bare := queued(t)
	later := second(100)
	for _, c := range []struct {
		name              string
		job               Job
		events            []Event
		started, finished time.Time
	}{
		{"executing: started is now", bare, []Event{at(later, seen("EXECUTING"))}, later, time.Time{}},
		{"executing twice: started is the first time", bare, []Event{at(later, told("EXECUTING")), at(second(200), seen("EXECUTING"))}, later, time.Time{}},
		{"the run's own start replaces a guess", bare, []Event{at(later, told("EXECUTING")), at(second(200), seen("EXECUTING", whole))}, second(10), time.Time{}},
		{"queued: not started", bare, []Event{at(later, seen("QUEUED"))}, time.Time{}, time.Time{}},
		{"dequeued: not started yet", bare, []Event{at(later, seen("DEQUEUED", whole))}, time.Time{}, time.Time{}},
		{"completed: finished is now, and started no later", bare, []Event{at(later, seen("COMPLETED"))}, later, later},
		{"failed before it began: never started", bare, []Event{at(later, seen("FAILED"))}, time.Time{}, later},
		{"canceled before it began: never started", bare, []Event{at(later, told("CANCELED"))}, time.Time{}, later},
		{"expired: never started", bare, []Event{at(later, told("EXECUTING")), at(later, seen("EXPIRED"))}, time.Time{}, later},
		{"confirmed: finished stays what the event said", bare, []Event{at(later, told("FAILED")), at(second(200), seen("CRASHED"))}, time.Time{}, later},
		{"another end: finished is when that was heard", bare, []Event{at(later, told("FAILED")), at(second(200), seen("CANCELED"))}, time.Time{}, second(200)},
		{"the run's own end replaces a guess", bare, []Event{at(later, told("FAILED")), at(second(200), seen("FAILED", whole))}, second(10), second(20)},
		{"back in the queue: started stays", bare, []Event{at(later, seen("EXECUTING")), at(second(200), seen("QUEUED", func(r *Run) { r.Attempts = 1 }))}, later, time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := after(t, c.job, c.events...)
			if !j.Started.Equal(c.started) || !j.Finished.Equal(c.finished) {
				t.Errorf("started, finished: got %v, %v, want %v, %v", j.Started, j.Finished, c.started, c.finished)
			}
		})
	}
}

func TestStatusReadsRowsThatAHostWroteItself(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		name string
		job  Job
		want Status
	}{
		{"nothing set", Job{}, Pending},
		{"a trigger row without a status", Job{Executor: Trigger}, Pending},
		{"finished well", Job{Executor: Internal, Finished: second(1), Success: &yes}, Completed},
		{"finished well, cancel too late", Job{Executor: Internal, Finished: second(1), Success: &yes, CancelRequested: true}, Completed},
		{"finished badly", Job{Executor: Internal, Finished: second(1), Success: &no}, Failed},
		{"finished, success not said", Job{Executor: Internal, Finished: second(1)}, Failed},
		{"finished badly after a cancel", Job{Executor: Internal, Finished: second(1), Success: &no, CancelRequested: true}, Canceled},
		{"a failed run whose cancel came too late", Job{Executor: Trigger, Finished: second(1), Success: &no, CancelRequested: true, TriggerStatus: Failed}, Failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.job.Status(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
