package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sidejob/internal/emulator"
	"sidejob/internal/job"
)

func TestAnEventMovesTheRow(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		const begun, ended = "2000-01-01T00:00:01.250Z", "2000-01-01T00:00:02.500Z"
		at := "2000-01-01T00:00:00.000Z" // now: in a bubble time stands still
		failure := map[string]any{"message": "no paper", "name": "PrinterError", "stackTrace": "at print"}
		for name, c := range map[string]struct {
			kind    string
			members []any
			want    string // status, Trigger.dev's word, started, finished, success
			result  string
		}{
			"created":                         {"RUN_CREATED", nil, "PENDING – – – –", "null"},
			"created, whatever its status":    {"RUN_CREATED", []any{"status", "COMPLETED", "completedAt", ended}, "PENDING – – – –", "null"},
			"started":                         {"RUN_STARTED", []any{"status", "EXECUTING", "startedAt", begun}, "EXECUTING EXECUTING " + begun + " – –", "null"},
			"started, no time given":          {"RUN_STARTED", nil, "EXECUTING EXECUTING " + at + " – –", "null"},
			"started, a more precise word":    {"RUN_STARTED", []any{"status", "WAITING", "startedAt", begun}, "EXECUTING WAITING " + begun + " – –", "null"},
			"started, a final status":         {"RUN_STARTED", []any{"status", "COMPLETED", "startedAt", begun}, "EXECUTING EXECUTING " + begun + " – –", "null"},
			"started, a word nobody knows":    {"RUN_STARTED", []any{"status", "NAPPING"}, "EXECUTING EXECUTING " + at + " – –", "null"},
			"completed":                       {"RUN_COMPLETED", []any{"status", "COMPLETED", "startedAt", begun, "completedAt", ended, "output", map[string]any{"a": 1}}, "COMPLETED COMPLETED " + begun + " " + ended + " true", `{"a":1}`},
			"completed, no times given":       {"RUN_COMPLETED", []any{"output", "x"}, "COMPLETED COMPLETED " + at + " " + at + " true", `"x"`},
			"completed, a failed status":      {"RUN_COMPLETED", []any{"status", "FAILED", "completedAt", ended, "startedAt", begun}, "COMPLETED COMPLETED " + begun + " " + ended + " true", "null"},
			"completed, a database's word":    {"RUN_COMPLETED", []any{"status", "COMPLETED_SUCCESSFULLY"}, "COMPLETED COMPLETED " + at + " " + at + " true", "null"},
			"completed with 0":                {"RUN_COMPLETED", []any{"output", 0}, "COMPLETED COMPLETED " + at + " " + at + " true", "0"},
			"completed with false":            {"RUN_COMPLETED", []any{"output", false}, "COMPLETED COMPLETED " + at + " " + at + " true", "false"},
			"completed with an empty text":    {"RUN_COMPLETED", []any{"output", ""}, "COMPLETED COMPLETED " + at + " " + at + " true", `""`},
			"completed with null":             {"RUN_COMPLETED", []any{"output", nil}, "COMPLETED COMPLETED " + at + " " + at + " true", "null"},
			"completed with a long number":    {"RUN_COMPLETED", []any{"output", json.RawMessage("12345678901234567890.10")}, "COMPLETED COMPLETED " + at + " " + at + " true", "12345678901234567890.10"},
			"failed":                          {"RUN_FAILED", []any{"status", "FAILED", "startedAt", begun, "completedAt", ended, "error", failure, "attemptCount", 3}, "FAILED FAILED " + begun + " " + ended + " false", `{"attemptCount":3,"error":{"message":"no paper","name":"PrinterError","stackTrace":"at print"},"reason":"FAILED"}`},
			"failed, a more precise word":     {"RUN_FAILED", []any{"status", "CRASHED", "error", "boom"}, "FAILED CRASHED – " + at + " false", `{"attemptCount":0,"error":"boom","reason":"CRASHED"}`},
			"failed, expired":                 {"RUN_FAILED", []any{"status", "EXPIRED", "startedAt", begun}, "FAILED EXPIRED – " + at + " false", `{"error":"expired before start","reason":"EXPIRED"}`},
			"failed, a running status":        {"RUN_FAILED", []any{"status", "EXECUTING", "error", nil}, "FAILED FAILED – " + at + " false", `{"attemptCount":0,"error":"the run ended FAILED without an error message","reason":"FAILED"}`},
			"failed, its output is no result": {"RUN_FAILED", []any{"output", 1, "error", "boom"}, "FAILED FAILED – " + at + " false", `{"attemptCount":0,"error":"boom","reason":"FAILED"}`},
			"canceled":                        {"RUN_CANCELED", []any{"status", "CANCELED", "completedAt", ended}, "CANCELED CANCELED – " + ended + " false", `{"canceled":true}`},
			"canceled, while it ran":          {"RUN_CANCELED", []any{"status", "EXECUTING", "startedAt", begun, "error", map[string]any{"message": "Canceled by user"}}, "CANCELED CANCELED " + begun + " " + at + " false", `{"canceled":true,"error":{"message":"Canceled by user"}}`},
			"times in milliseconds":           {"RUN_COMPLETED", []any{"startedAt", 946684801250, "completedAt", 946684802500}, "COMPLETED COMPLETED " + begun + " " + ended + " true", "null"},
			"times of another zone":           {"RUN_COMPLETED", []any{"startedAt", "2000-01-01T02:00:01.25+02:00", "completedAt", "2000-01-01T00:00:02.5009Z"}, "COMPLETED COMPLETED " + begun + " " + ended + " true", "null"},
			"times that are null and empty":   {"RUN_COMPLETED", []any{"startedAt", nil, "completedAt", ""}, "COMPLETED COMPLETED " + at + " " + at + " true", "null"},
		} {
			id, run := w.hookRun(name)
			if !w.hookHears(hookEvent(name, c.kind, run, c.members...)) {
				t.Errorf("%s: matched is false", name)
			}
			got := w.get(id)
			if line := hookLine(got); line != c.want {
				t.Errorf("%s: got %s, want %s", name, line, c.want)
			}
			if string(got.Result) != c.result {
				t.Errorf("%s: the result is %s, want %s", name, got.Result, c.result)
			}
			if got.TriggerStatus != got.Status {
				t.Errorf("%s: triggerStatus is %s beside %s", name, got.TriggerStatus, got.Status)
			}
		}
	}, withConfig(offline))
}

// hookLine is what an event changes of a row, – for null.
func hookLine(j seenJob) string {
	show := func(at time.Time) string {
		if at.IsZero() {
			return "–"
		}
		return at.Format(timeLayout)
	}
	raw, success := j.TriggerRawStatus, "–"
	if raw == "" {
		raw = "–"
	}
	if j.Success != nil {
		success = fmt.Sprint(*j.Success)
	}
	return strings.Join([]string{j.Status, raw, show(j.Started), show(j.Finished), success}, " ")
}

func TestAnEventNamesTheAttempt(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		for n, c := range []struct {
			attempt any
			want    string
		}{
			{map[string]any{"number": 2, "id": "attempt_1"}, "attempt_1"}, {"attempt_2", "attempt_2"},
			{2, ""}, {nil, ""}, {map[string]any{"id": 5}, ""}, {[]string{"attempt_3"}, ""},
		} {
			id, run := w.hookRun(fmt.Sprint(n))
			w.hookHears(hookEvent("evt of "+run, "RUN_STARTED", run, "attempt", c.attempt, "attemptCount", 2))
			if got := w.get(id); got.TriggerAttemptID != c.want || got.Attempt != 2 {
				t.Errorf("attempt %v: got %q, attempt %d, want %q, 2", c.attempt, got.TriggerAttemptID, got.Attempt, c.want)
			}
		}
	}, withConfig(offline))
}

func TestABodyThatIsNoEventIsRefusedByName(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		id, runID := w.hookRun("open")
		run := func(members string) string {
			return fmt.Sprintf(`{"id":"evt_1","type":"RUN_COMPLETED","run":{"id":%q,%s}}`, runID, members)
		}
		before := w.hookRow(id)
		for name, c := range map[string]struct{ body, member string }{
			"no JSON":                     {`{"id":`, "the body:"},
			"two bodies":                  {`{}{}`, "the body:"},
			"an array":                    {`[]`, "the body:"},
			"null":                        {`null`, "type:"},
			"an empty object":             {`{}`, "type:"},
			"not UTF-8":                   {run(`"output":"` + "\xff" + `"`), "UTF-8"},
			"a type of the wrong kind":    {`{"id":"evt_1","type":7}`, "type:"},
			"another type":                {`{"id":"evt_1","type":"run.completed","run":{"id":"r"}}`, "type:"},
			"a type that is not sent":     {`{"id":"evt_1","type":"RUN_PAUSED","run":{"id":"r"}}`, "type:"},
			"a type in lower case":        {`{"id":"evt_1","type":"run_started","run":{"id":"r"}}`, "type:"},
			"no id":                       {`{"type":"RUN_STARTED","run":{"id":"r"}}`, "id:"},
			"an id that is a number":      {`{"id":1,"type":"RUN_STARTED","run":{"id":"r"}}`, "id:"},
			"no run":                      {`{"id":"evt_1","type":"RUN_STARTED"}`, "run:"},
			"a run that is null":          {`{"id":"evt_1","type":"RUN_STARTED","run":null}`, "run.id:"},
			"a run that is a text":        {`{"id":"evt_1","type":"RUN_STARTED","run":"run_1"}`, "run:"},
			"a run without id":            {`{"id":"evt_1","type":"RUN_STARTED","run":{"status":"EXECUTING"}}`, "run.id:"},
			"a run id that is a number":   {`{"id":"evt_1","type":"RUN_STARTED","run":{"id":1}}`, "run.id:"},
			"a status that is a number":   {run(`"status":1`), "run.status:"},
			"half an attempt":             {run(`"attemptCount":1.5`), "run.attemptCount:"},
			"tags that are a text":        {run(`"tags":"a"`), "run.tags:"},
			"a time that is a word":       {run(`"startedAt":"now"`), "run.startedAt:"},
			"a time that is true":         {run(`"completedAt":true`), "run.completedAt:"},
			"a time without a date":       {run(`"completedAt":"12:00:00Z"`), "run.completedAt:"},
			"a time after the year 9999":  {run(`"completedAt":253402300800000`), "run.completedAt:"},
			"… in its own zone":           {run(`"completedAt":"9999-12-31T23:59:59-01:00"`), "run.completedAt:"},
			"a time before the year 1":    {run(`"startedAt":-1e300`), "run.startedAt:"},
			"an alert without object":     {`{"id":"a","type":"alert.run.failed"}`, "object:"},
			"an alert without run":        {`{"id":"a","type":"alert.run.failed","object":{}}`, "object.run.id:"},
			"an alert with a text as run": {`{"id":"a","type":"alert.run.failed","object":{"run":"run_1"}}`, "object.run:"},
			"an alert with a wrong time":  {`{"id":"a","type":"alert.run.failed","object":{"run":{"id":"r","completedAt":"now"}}}`, "object.run.completedAt:"},
		} {
			r := w.hookPost(c.body)
			var p struct{ Code, Detail string }
			r.into(t, &p)
			if r.status != 400 || p.Code != "bad_event" || !strings.Contains(p.Detail, c.member) {
				t.Errorf("%s: got %d %s, want 400 bad_event that names %q", name, r.status, r.body, c.member)
			}
			if strings.Contains(p.Detail, "Go ") || strings.Contains(p.Detail, "json:") {
				t.Errorf("%s: the detail speaks of the program: %s", name, p.Detail)
			}
			if got := w.hookRow(id); got != before {
				t.Errorf("%s: the row changed:\n got %s\nwant %s", name, got, before)
				before = got
			}
		}
		if n := w.inboxSize(); n != 0 {
			t.Errorf("%d refused events are kept, want none", n)
		}
		if !w.hookHears(run(`"output":1`)) || w.get(id).Status != "COMPLETED" {
			t.Errorf("the refused ids are used up: got %s, want COMPLETED", w.get(id).Status)
		}
	}, withConfig(offline))
}

func TestWhatIsTooDeepForTheDatabaseClosesTheRowAllTheSame(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		deep := json.RawMessage(strings.Repeat("[", 2000) + strings.Repeat("]", 2000))
		for member, kind := range map[string]string{"output": "RUN_COMPLETED", "error": "RUN_FAILED"} {
			id, run := w.hookRun(member)
			early := w.hookJob("early " + member)
			matched := w.hookHears(hookEvent("evt of "+member, kind, run, member, deep))
			kept := !w.hookHears(hookEvent("early evt of "+member, kind, "run of early "+member, member, deep))
			w.hookSubmitted(early, "run of early "+member)
			for _, id := range []int64{id, early} {
				if got := w.get(id); !matched || !kept || "RUN_"+got.Status != kind || string(got.Result) != `{"tooDeep":true}` {
					t.Errorf("%s: got matched %v, kept %v, %s with %.100s, want the row closed with a note", member, matched, kept, got.Status, got.Result)
				}
			}
		}
	}, withConfig(offline))
}

func TestLateAndShuffledEventsChangeNothing(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		common := []any{"startedAt", "2000-01-01T00:00:01Z", "completedAt", "2000-01-01T00:00:02Z", "output", 7, "attemptCount", 1}
		kinds := []string{"RUN_CREATED", "RUN_STARTED", "RUN_COMPLETED"}
		for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
			id, run := w.hookRun(fmt.Sprint(order))
			for round := range 2 {
				for _, n := range order {
					ev := hookEvent(fmt.Sprint(run, kinds[n], round), kinds[n], run, common...)
					if !w.hookHears(ev) {
						t.Errorf("%v: %s does not match", order, kinds[n])
					}
				}
			}
			got := w.get(id)
			if line, want := hookLine(got), "COMPLETED COMPLETED 2000-01-01T00:00:01.000Z 2000-01-01T00:00:02.000Z true"; line != want || string(got.Result) != "7" {
				t.Errorf("%v: got %s with %s, want %s with 7", order, line, got.Result, want)
			}
		}
		kinds = append(kinds, "RUN_FAILED", "RUN_CANCELED")
		rank := map[string]int{"RUN_STARTED": 1, "RUN_COMPLETED": 2, "RUN_FAILED": 2, "RUN_CANCELED": 2}
		for _, first := range kinds {
			id, run := w.hookRun(first)
			w.hookHears(hookEvent(run, first, run, "output", 1, "error", "boom"))
			before := w.hookRow(id)
			for _, later := range kinds {
				if rank[later] > rank[first] {
					continue
				}
				w.hookHears(hookEvent(run+later, later, run, "output", 2, "error", "bang", "attemptCount", 9, "status", "WAITING"))
				if got := w.hookRow(id); got != before {
					t.Errorf("%s after %s changes the row:\n got %s\nwant %s", later, first, got, before)
					before = got
				}
			}
		}
	}, withConfig(offline))
}

// endings are tasks that end in half a second, each its own way.
func endings() map[string]emulator.Task {
	return map[string]emulator.Task{
		"COMPLETED": {DurationMs: 500, Output: json.RawMessage(`"theirs"`)},
		"FAILED":    {DurationMs: 500, Status: "FAILED", Error: &emulator.TaskError{Message: "theirs"}},
		"CANCELED":  {DurationMs: 500, Status: "CANCELED"},
		"slow":      {DurationMs: 10_000, Status: "FAILED", Error: &emulator.TaskError{Message: "theirs"}},
	}
}

func TestAFinalEventHoldsUntilTriggerDevSaysOtherwise(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		w.faults(map[string]any{"match": map[string]any{"method": "GET", "path": "/api/v3/runs/"}, "kind": "delay", "delayMs": 300})
		for _, told := range []string{"COMPLETED", "FAILED", "CANCELED"} {
			for _, truth := range []string{"COMPLETED", "FAILED", "CANCELED"} {
				j := w.triggerJob(truth)
				time.Sleep(time.Second) // it has ended, and nobody has asked yet
				if got := w.get(j.ID).Status; got != "PENDING" {
					t.Fatalf("%s: the row is %s before any event, want PENDING", truth, got)
				}
				ev := hookEvent(told+truth, "RUN_"+told, j.TriggerRunID, "output", "ours", "error", "ours", "completedAt", "2000-01-01T00:00:00Z")
				if !w.hookHears(ev) || w.get(j.ID).Status != told {
					t.Errorf("%s, in truth %s: got %s at once, want the event's word", told, truth, w.get(j.ID).Status)
				}
				time.Sleep(500 * time.Millisecond)
				got := w.get(j.ID)
				if got.Status != truth || got.TriggerStatus != truth || *got.Success != (truth == "COMPLETED") || got.Finished.Year() != got.CreatedAt.Year() || !got.Finished.After(got.CreatedAt) {
					t.Errorf("%s, in truth %s: once asked got %+v", told, truth, got)
				}
				if strings.Contains(string(got.Result), "ours") {
					t.Errorf("%s, in truth %s: the result is still the event's: %s", told, truth, got.Result)
				}
				states := map[string]string{"COMPLETED": "completed", "FAILED": "failed", "CANCELED": "canceled"}
				want := []string{"told webhook > told " + states[told], "seen poll > " + states[truth]}
				if history := w.history(j.ID); len(history) < 2 || !slices.Equal(history[len(history)-2:], want) {
					t.Errorf("%s, in truth %s: the history is %q, want it to end with %q", told, truth, history, want)
				}
				if told == "FAILED" {
					w.nothingMoves(j, truth)
				}
			}
		}
	}, withTasks(endings()))
}

// nothingMoves fails the test unless the row withstands every event and question.
func (w *world) nothingMoves(j seenJob, name string) {
	w.t.Helper()
	before := w.hookRow(j.ID)
	for _, kind := range []string{"RUN_CREATED", "RUN_STARTED", "RUN_COMPLETED", "RUN_FAILED", "RUN_CANCELED"} {
		ev := hookEvent(name+kind, kind, j.TriggerRunID, "output", "late", "error", "late", "attemptCount", 9)
		if !w.hookHears(ev) {
			w.t.Errorf("%s: a late %s does not match", name, kind)
		}
	}
	for _, raw := range []string{"QUEUED", "EXECUTING", "COMPLETED", "FAILED", "CANCELED"} {
		seen := job.Event{Kind: job.Seen, At: now(), Source: "test", Run: job.Run{ID: j.TriggerRunID, Raw: raw, Attempts: 9}}
		if _, err := w.srv.store.Apply(w.t.Context(), j.ID, seen); err != nil {
			w.t.Errorf("%s: an answer of %s: %v", name, raw, err)
		}
	}
	w.call("POST", "/api/sync", nil)
	w.call("POST", "/api/reconcile", nil)
	time.Sleep(5 * time.Second)
	if got := w.hookRow(j.ID); got != before {
		w.t.Errorf("%s: the row changed after its end was confirmed:\n got %s\nwant %s", name, got, before)
	}
}

func TestAnEventAheadOfTriggerDevIsCheckedUntilTheRunEnds(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		j := w.triggerJob("slow")
		time.Sleep(3 * time.Second)
		w.hookHears(hookEvent("evt_1", "RUN_COMPLETED", j.TriggerRunID, "output", "ours"))
		for range 3 { // Trigger.dev is asked meanwhile, and says that it goes on
			if got := w.get(j.ID); got.Status != "COMPLETED" || got.TriggerStatus != "COMPLETED" || string(got.Result) != `"ours"` {
				t.Errorf("while it runs: got %s, %s with %s, want COMPLETED with the event's output", got.Status, got.TriggerStatus, got.Result)
			}
			time.Sleep(2 * time.Second)
		}
		time.Sleep(10 * time.Second)
		got := w.get(j.ID)
		if got.Status != "FAILED" || !strings.Contains(string(got.Result), "theirs") {
			t.Errorf("after it: got %s with %s, want FAILED with Trigger.dev's error", got.Status, got.Result)
		}
		contains(t, w.hookRow(j.ID), `"before":"COMPLETED"`)
		w.nothingMoves(j, "slow")
	}, withTasks(endings()))
}

// hookAlert posts a body as Trigger.dev's alerts come.
func (w *world) hookAlert(body string) answer {
	w.t.Helper()
	return w.call("POST", webhookPath, body, "X-Trigger-Signature-Hmacsha256", hookHex(worldSecret, body))
}

func TestAnAlertFailsTheRow(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		for name, c := range map[string]struct{ run, errored, want string }{
			"a thrown error":              {`"status":"FAILED"`, `{"type":"BUILT_IN_ERROR","name":"CarrierError","message":"refused","stackTrace":"at label"}`, `{"attemptCount":0,"error":{"message":"refused","name":"CarrierError","stackTrace":"at label"},"reason":"FAILED"}`},
			"a thrown text":               {`"status":"FAILED"`, `{"type":"STRING_ERROR","raw":"out of paper"}`, `{"attemptCount":0,"error":{"message":"out of paper"},"reason":"FAILED"}`},
			"a thrown value":              {`"status":"FAILED"`, `{"type":"CUSTOM_ERROR","raw":"{\"code\":7}"}`, `{"attemptCount":0,"error":{"message":"{\"code\":7}"},"reason":"FAILED"}`},
			"the platform's error":        {`"status":"CRASHED"`, `{"type":"INTERNAL_ERROR","code":"TASK_PROCESS_OOM_KILLED","message":"killed"}`, `{"attemptCount":0,"error":{"message":"trigger.dev internal error (TASK_PROCESS_OOM_KILLED)"},"reason":"CRASHED"}`},
			"an error of a new type":      {`"status":"TIMED_OUT"`, `{"type":"NEW_ERROR","what":1}`, `{"attemptCount":0,"error":{"type":"NEW_ERROR","what":1},"reason":"TIMED_OUT"}`},
			"an error of another form":    {`"status":"SYSTEM_FAILURE"`, `"boom"`, `{"attemptCount":0,"error":"boom","reason":"SYSTEM_FAILURE"}`},
			"a member of another type":    {`"status":"FAILED"`, `{"type":"CUSTOM_ERROR","raw":{"code":7}}`, `{"attemptCount":0,"error":{"type":"CUSTOM_ERROR","raw":{"code":7}},"reason":"FAILED"}`},
			"no error":                    {`"status":"FAILED"`, `null`, `{"attemptCount":0,"error":"the run ended FAILED without an error message","reason":"FAILED"}`},
			"a status that contradicts":   {`"status":"COMPLETED"`, `{"type":"STRING_ERROR","raw":"x"}`, `{"attemptCount":0,"error":{"message":"x"},"reason":"FAILED"}`},
			"no status, and tags of null": {`"tags":null`, `{"type":"STRING_ERROR","raw":"x"}`, `{"attemptCount":0,"error":{"message":"x"},"reason":"FAILED"}`},
		} {
			for _, head := range []string{`"id":"alert of ` + name + `",`, ""} { // an alert may have no id
				id, run := w.hookRun(head + name)
				body := fmt.Sprintf(`{%s"type":"alert.run.failed","object":{"task":{"id":"stays"},"run":{"id":%q,%s,"startedAt":"2000-01-01T00:00:01Z","completedAt":"2000-01-01T00:00:02Z","error":%s}}}`,
					head, run, c.run, c.errored)
				if !w.hookTook(w.hookAlert(body), body) {
					t.Errorf("%s: matched is false", name)
				}
				got := w.get(id)
				if line, want := hookLine(got), "FAILED "+got.TriggerRawStatus+" 2000-01-01T00:00:01.000Z 2000-01-01T00:00:02.000Z false"; line != want || string(got.Result) != c.want {
					t.Errorf("%s: got %s with %s, want %s with %s", name, line, got.Result, want, c.want)
				}
			}
		}
	}, withConfig(offline))
}

func TestTheRecordedAlertFailsItsRow(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		body := string(hookFile(t, "alert-run-failed.json"))
		const name = "X-Trigger-Signature-Hmacsha256"
		alert := func() bool {
			return w.hookTook(w.call("POST", webhookPath, body, name, recordedHeader(t).Get(name)), body)
		}
		if alert() {
			t.Error("matched is true while no row has the run")
		}
		id := w.hookJob("order")
		w.hookSubmitted(id, "run_cmekq3v7x0001a4l8h2df0013")
		got := w.get(id)
		if line, want := hookLine(got), "FAILED FAILED 2026-08-20T09:10:00.711Z 2026-08-20T09:10:08.120Z false"; line != want {
			t.Errorf("got %s, want %s", line, want)
		}
		contains(t, string(got.Result), `"message":"carrier rejected label"`, `"name":"CarrierError"`, `"reason":"FAILED"`)
		row := w.hookRow(id)
		if alert() || w.hookRow(id) != row {
			t.Errorf("the alert once more is matched, or changes the row:\n got %s\nwant %s", w.hookRow(id), row)
		}
	}, withConfig(offline), withConfig(func(c *config) { c.secrets = webhookSecrets{recordedSecret} }))
}

func TestOtherAlertsAreIgnored(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		for _, body := range []string{
			string(hookFile(t, "alert-deployment-success.json")), string(hookFile(t, "alert-deployment-failed.json")),
			string(hookFile(t, "alert-error.json")), `{"type":"alert.dashboard_agent_watch","id":"watch:1:channel:2"}`,
		} {
			if w.hookTook(w.hookAlert(body), body) {
				t.Errorf("%.60s: matched is true", body)
			}
		}
		if n := w.inboxSize(); n != 0 {
			t.Errorf("%d of them are kept, want none", n)
		}
	})
}

// inboxSize is how many event ids the database holds.
func (w *world) inboxSize() (n int) {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+w.cfg.database)
	if err != nil {
		w.t.Fatalf("open the database beside sidejob: %v", err)
	}
	defer db.Close()
	if err := db.QueryRow("SELECT COUNT(*) FROM inbox").Scan(&n); err != nil {
		w.t.Fatalf("count the inbox: %v", err)
	}
	return n
}

// offline is a world without Trigger.dev. Jobs get their runs from the test alone.
func offline(c *config) { c.triggerOn = false }

// hookJob stores a job that waits for its run.
func (w *world) hookJob(tag string) int64 {
	w.t.Helper()
	j, _, err := job.New(job.Spec{Tag: tag, Type: "work", Executor: job.Trigger, TriggerTask: "task"}, now(), "key of "+tag)
	if err != nil {
		w.t.Fatalf("make a job: %v", err)
	}
	placed, err := w.srv.store.Schedule(w.t.Context(), []Order{{Job: j, OnConflict: job.Replace, Source: "test"}}, Keyed{})
	if err != nil || placed[0].Err != nil {
		w.t.Fatalf("schedule: %v, %+v", err, placed)
	}
	return placed[0].Job.ID
}

// hookSubmitted settles a job's submit: it has this run.
func (w *world) hookSubmitted(id int64, runID string) {
	w.t.Helper()
	_, err := w.srv.store.Apply(w.t.Context(), id, job.Event{Kind: job.Submitted, At: now(), Source: "test", Run: job.Run{ID: runID}})
	if err != nil {
		w.t.Fatalf("submit job %d: %v", id, err)
	}
}

// hookRun stores a job whose run is known.
func (w *world) hookRun(tag string) (id int64, run string) {
	w.t.Helper()
	id, run = w.hookJob(tag), "run of "+tag
	w.hookSubmitted(id, run)
	return id, run
}

// tidiedAfter lets time pass, as a restart would, and tidies up.
func (w *world) tidiedAfter(d time.Duration) {
	w.t.Helper()
	w.halt()
	time.Sleep(d)
	w.boot()
	if r := w.call("POST", "/api/jobs/cleanup", "{}"); r.status != http.StatusOK {
		w.t.Fatalf("clean up: %d %s", r.status, r.body)
	}
}

func TestAnUnknownRunIsForgottenAfterADay(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		early, late := w.hookJob("early"), w.hookJob("late")
		ev := hookEvent("evt_late", "RUN_COMPLETED", "run_late")
		if w.hookHears(hookEvent("evt_early", "RUN_COMPLETED", "run_early"), ev) {
			t.Error("matched is true for a run that nobody knows")
		}
		w.tidiedAfter(24*time.Hour - time.Minute)
		w.hookSubmitted(early, "run_early")
		if got := w.get(early).Status; got != "COMPLETED" {
			t.Errorf("a row that learns its run within a day: got %s, want COMPLETED", got)
		}
		w.tidiedAfter(2 * time.Minute)
		w.hookSubmitted(late, "run_late")
		if got := w.get(late).Status; got != "PENDING" {
			t.Errorf("a row that learns its run after a day: got %s, want PENDING", got)
		}
		if w.hookHears(ev) || w.get(late).Status != "PENDING" {
			t.Errorf("the same event once more: got %s, want it unmatched and PENDING", w.get(late).Status)
		}
		if !w.hookHears(hookEvent("evt_new", "RUN_COMPLETED", "run_late")) || w.get(late).Status != "COMPLETED" {
			t.Errorf("a new event: got %s, want it matched and COMPLETED", w.get(late).Status)
		}
	}, withConfig(offline))
}
