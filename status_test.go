package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/emulator"
)

// ending is a task that ends or stays in a certain way, and what the row is then to
// say.
type ending struct {
	name string
	task emulator.Task

	status  string // of the row, both ways; unknownWord: whatever it was before
	raw     string
	started string // "", set, or any where the way there decides
	result  string // JSON; "": the run is not final
	attempt int
}

const unknownWord = "?"

func runEndings() []ending {
	boom := &emulator.TaskError{Name: "TypeError", Message: "boom", StackTrace: "TypeError: boom\n    at run"}
	internal := func(code string) string {
		return fmt.Sprintf(`{"message":"trigger.dev internal error (%s)"}`, code)
	}
	failed := func(err, reason string) string {
		return fmt.Sprintf(`{"error":%s,"reason":%q,"attemptCount":1}`, err, reason)
	}
	list := []ending{
		{name: "delayed", task: emulator.Task{Status: "DELAYED"}, status: "PENDING", raw: "DELAYED"},
		{name: "no version", task: emulator.Task{Status: "PENDING_VERSION"}, status: "PENDING", raw: "PENDING_VERSION"},
		{name: "queued", task: emulator.Task{Status: "QUEUED"}, status: "PENDING", raw: "QUEUED"},
		{name: "dequeued", task: emulator.Task{Status: "DEQUEUED"}, status: "PENDING", raw: "DEQUEUED"},
		{name: "executing", task: emulator.Task{Status: "EXECUTING"}, status: "EXECUTING", raw: "EXECUTING", started: "set", attempt: 1},
		{name: "waiting", task: emulator.Task{Status: "WAITING"}, status: "EXECUTING", raw: "WAITING", started: "set", attempt: 1},
		{name: "canceled", task: emulator.Task{Status: "CANCELED"}, status: "CANCELED", raw: "CANCELED", started: "set",
			result: `{"canceled":true,"error":{"message":"Canceled by user"}}`, attempt: 1},
		{name: "failed", task: emulator.Task{Status: "FAILED", Error: boom}, status: "FAILED", raw: "FAILED", started: "set",
			result: failed(`{"message":"boom","name":"TypeError","stackTrace":"TypeError: boom\n    at run"}`, "FAILED"), attempt: 1},
		{name: "crashed", task: emulator.Task{Status: "CRASHED"}, status: "FAILED", raw: "CRASHED", started: "set",
			result: failed(internal("TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE"), "CRASHED"), attempt: 1},
		{name: "timed out", task: emulator.Task{Status: "TIMED_OUT"}, status: "FAILED", raw: "TIMED_OUT", started: "set",
			result: failed(internal("MAX_DURATION_EXCEEDED"), "TIMED_OUT"), attempt: 1},
		{name: "system failure", task: emulator.Task{Status: "SYSTEM_FAILURE"}, status: "FAILED", raw: "SYSTEM_FAILURE", started: "set",
			result: failed(internal("TASK_RUN_HEARTBEAT_TIMEOUT"), "SYSTEM_FAILURE"), attempt: 1},
		{name: "expired", task: emulator.Task{Status: "EXPIRED"}, status: "FAILED", raw: "EXPIRED",
			result: `{"error":"expired before start","reason":"EXPIRED"}`},
		{name: "second try", task: emulator.Task{FailAttempts: 1, Output: json.RawMessage(`"at last"`)}, status: "COMPLETED", raw: "COMPLETED",
			started: "set", result: `"at last"`, attempt: 2},

		// The words of older servers, and one that nobody knows.
		{name: "waiting for deploy", task: emulator.Task{Status: "WAITING_FOR_DEPLOY"}, status: "PENDING", raw: "WAITING_FOR_DEPLOY", started: "any", attempt: 1},
		{name: "reattempting", task: emulator.Task{Status: "REATTEMPTING"}, status: "EXECUTING", raw: "REATTEMPTING", started: "set", attempt: 1},
		{name: "frozen", task: emulator.Task{Status: "FROZEN"}, status: "EXECUTING", raw: "FROZEN", started: "set", attempt: 1},
		{name: "interrupted", task: emulator.Task{Status: "INTERRUPTED"}, status: "FAILED", raw: "INTERRUPTED", started: "set",
			result: failed(`"the run ended INTERRUPTED without an error message"`, "INTERRUPTED"), attempt: 1},
		{name: "unknown", task: emulator.Task{Status: "HIBERNATING"}, status: unknownWord, raw: "HIBERNATING", started: "any"},
	}
	for _, output := range []string{`{"a":[1,null]}`, `null`, `false`, `0`, `""`, `[]`, `12345678901234567890.5`, ``} {
		list = append(list, ending{
			name: "completed with " + output, task: emulator.Task{Output: json.RawMessage(output)},
			status: "COMPLETED", raw: "COMPLETED", started: "set", result: string(orNull(json.RawMessage(output))), attempt: 1,
		})
		if output == "" {
			list[len(list)-1].task.Output = nil
		}
	}
	return list
}

func TestEachStatusOfARunArrivesInTheRow(t *testing.T) {
	for _, way := range []struct {
		name string
		open func(*testing.T, ...worldOption) *scene
	}{
		{"by events and the stream", newScene},
		{"by asking alone", newQuietScene},
	} {
		t.Run(way.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tasks := map[string]emulator.Task{}
				var requests []map[string]any
				for _, e := range runEndings() {
					tasks[e.name] = e.task
					requests = append(requests, map[string]any{"type": "t", "executor": "trigger", "triggerTaskId": e.name, "tag": e.name})
				}
				s := way.open(t, withTasks(tasks))
				if r := s.call("POST", "/api/jobs/batch", map[string]any{"jobs": requests}); r.status != http.StatusOK {
					t.Fatalf("schedule: %d %s", r.status, r.body)
				}
				time.Sleep(12 * time.Second)
				rows := s.rows()
				for i, e := range runEndings() {
					s.wantEnding(rows[i], e)
				}
				counted := string(s.call("GET", "/metrics", nil).body)
				if strings.Contains(counted, "sidejob_unknown_status_total 0\n") {
					t.Errorf("the unknown word is not counted: %s", counted)
				}
			})
		})
	}
}

func (s *scene) wantEnding(j seenJob, e ending) {
	s.t.Helper()
	want := e.status
	if want == unknownWord {
		want = j.Status // held against the run below
		if j.Status != "PENDING" && j.Status != "EXECUTING" {
			s.t.Errorf("%s: the row is %s; a word that nobody knows leaves it open", e.name, j.Status)
		}
	}
	if j.Tag != e.name || j.Status != want || j.TriggerStatus != want || j.TriggerRawStatus != e.raw || j.Attempt != e.attempt && e.status != unknownWord {
		s.t.Errorf("%s: the row %q is %s, %s (%s) after %d attempts; want %s (%s) after %d; history %q",
			e.name, j.Tag, j.Status, j.TriggerStatus, j.TriggerRawStatus, j.Attempt, want, e.raw, e.attempt, s.history(j.ID))
	}
	if j.LastSyncedAt.IsZero() || e.started != "any" && j.Started.IsZero() == (e.started == "set") {
		s.t.Errorf("%s: started %s, synced %s; want started %q, synced", e.name, j.Started, j.LastSyncedAt, e.started)
	}
	if final := e.result != ""; j.Finished.IsZero() == final || (j.Success != nil) != final {
		s.t.Errorf("%s: finished %s, success %v; want final %v", e.name, j.Finished, j.Success, final)
	}
	if j.Success != nil && *j.Success != (want == "COMPLETED") {
		s.t.Errorf("%s: success is %v", e.name, *j.Success)
	}
	sameMeaning(s.t, e.name+": the result", j.Result, orNull(json.RawMessage(e.result)))
}

func TestALargeOutputIsFetchedFromWhereItLies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		output := json.RawMessage(`"` + strings.Repeat("x", 200<<10) + `"`) // too large to come inline, small enough for an event
		s := newScene(t, withTasks(map[string]emulator.Task{"large": {Output: output}}))
		j := s.wait(s.triggerJob("large").ID)
		if j.Status != "COMPLETED" || string(j.Result) != string(output) {
			t.Errorf("it ended %s with %d bytes, want COMPLETED with all %d", j.Status, len(j.Result), len(output))
		}
		time.Sleep(5 * time.Second)
		fetched := s.out.calls("GET", "/emulator/packets/")
		if len(fetched) == 0 || fetched[0].header.Get("Authorization") != "" {
			t.Errorf("it was fetched %d times, want once, and without the key", len(fetched))
		}
	})
}

func TestAnOutputThatCannotBeFetchedLeavesTheRowOpenUntilItCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuietScene(t, withTasks(map[string]emulator.Task{"large": {Output: json.RawMessage(`"` + strings.Repeat("x", 300<<10) + `"`)}}))
		s.faults(fault("GET", "/emulator/packets/", "status", "status", 403))
		j := s.triggerJob("large")
		time.Sleep(20 * time.Second)
		if got := s.get(j.ID); hasEnded(got) {
			t.Fatalf("it ended %s with %.100s while its output was not to be had", got.Status, got.Result)
		}
		s.wantReady("ready") // the store's 403 says nothing of the key
		s.faults()
		if got := s.wait(j.ID); got.Status != "COMPLETED" || len(got.Result) != 300<<10+2 {
			t.Errorf("it ended %s with %d bytes", got.Status, len(got.Result))
		}
	})
}

// The events of hooks may be lost, doubled and late; what they say must neither be
// needed nor do harm.
func TestEventsThatAreLostDoubledOrLateChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		s.in.tapWith(func(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
			text := string(spareBody(r))
			if strings.Contains(text, `"RUN_STARTED"`) || strings.Contains(text, `"RUN_FAILED"`) {
				return nil, errBroken
			}
			return pass()
		})
		done, bad := s.triggerJob("ok"), s.triggerJob("bad")
		time.Sleep(10 * time.Second)
		before := s.rows()
		events := s.in.calls("POST", webhookPath)
		if len(events) < 3 {
			t.Fatalf("%d events were posted, want 4 of which 3 are lost", len(events))
		}
		for _, ev := range append(events, events...) {
			r := s.call("POST", webhookPath, ev.body, "webhook-id", ev.header.Get("webhook-id"),
				"webhook-timestamp", ev.header.Get("webhook-timestamp"), "webhook-signature", ev.header.Get("webhook-signature"))
			if got := strings.TrimSpace(string(r.body)); got != `{"success":true,"matched":true}` {
				t.Errorf("a late event is answered %d %s", r.status, r.body)
			}
		}
		time.Sleep(10 * time.Second)
		for i, j := range s.rows() {
			if j.UpdatedAt != before[i].UpdatedAt {
				t.Errorf("job %d changed after its end: %q", j.ID, s.history(j.ID))
			}
		}
		if got := s.get(done.ID).Status + " " + s.get(bad.ID).Status; got != "COMPLETED FAILED" {
			t.Errorf("they ended %s", got)
		}
		s.wantTruth()
	})
}
