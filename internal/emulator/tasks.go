package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Task is what the emulator does when a run of that task is its turn. The zero
// value succeeds at once and returns nothing.
type Task struct {
	// DurationMs is how long one attempt takes.
	DurationMs int64
	// Output is what it returns: any JSON, also null and other falsy values. Nil is
	// no return value.
	Output json.RawMessage
	// Error is what a failing attempt throws. With neither FailAttempts nor Status
	// every attempt fails.
	Error *TaskError
	// FailAttempts is how many attempts fail before one succeeds. A run has three
	// unless its trigger says otherwise.
	FailAttempts int
	// Status is an API status to end in without further attempts (FAILED, CRASHED,
	// SYSTEM_FAILURE, TIMED_OUT, EXPIRED, CANCELED, COMPLETED) or to stay in (WAITING,
	// QUEUED, PENDING_VERSION, DELAYED, DEQUEUED, EXECUTING). Any other upper-case
	// word is shown as it is, and the run stays in it.
	Status string
	// Scheduled tasks are the ones that schedules may name.
	Scheduled bool
	// URL gets the payload as a POST for each attempt. A 2xx reply's JSON is the
	// output, anything else a failed attempt. Headers x-emulator-run-id and
	// x-emulator-attempt say which.
	URL string
	// Command runs with sh -c for each attempt, payload on its input, RUN_ID and
	// RUN_ATTEMPT in its environment. Its output, JSON or else a text, is the task's;
	// an exit status but 0 is a failed attempt with the end of its error output.
	Command string

	result func(*run) json.RawMessage        // output of a built-in one
	steps  func(payload json.RawMessage) int // number of steps of one in steps
}

// internalError begins the message of an error of the platform itself; its code and a
// parenthesis follow.
const internalError = "trigger.dev internal error ("

// TaskError is what a task throws, and what retrieve shows of a run that failed.
type TaskError struct {
	Name       string `json:"name,omitempty"`
	Message    string `json:"message"`
	StackTrace string `json:"stackTrace,omitempty"`
}

func (t Task) duration() time.Duration { return time.Duration(t.DurationMs) * time.Millisecond }

// external tasks run outside of the emulator.
func (t Task) external() bool { return t.URL != "" || t.Command != "" }

func (t Task) fails(attempt int) bool {
	if t.FailAttempts == 0 {
		return t.Error != nil && t.Status == ""
	}
	return attempt <= t.FailAttempts
}

// failure is the error of a failing attempt; where the platform itself ends a run,
// its own code.
func (t Task) failure() *TaskError {
	internal := func(code string) *TaskError {
		return &TaskError{Message: internalError + code + ")"}
	}
	switch {
	case t.Error != nil:
		given := *t.Error
		return &given
	case t.Status == "CANCELED":
		return &TaskError{Message: canceledByUser}
	case t.Status == "CRASHED":
		return internal("TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE")
	case t.Status == "TIMED_OUT":
		return internal("MAX_DURATION_EXCEEDED")
	case t.Status == "SYSTEM_FAILURE":
		return internal("TASK_RUN_HEARTBEAT_TIMEOUT")
	}
	return &TaskError{Name: "Error", Message: "this attempt fails", StackTrace: "Error: this attempt fails\n    at run (task.ts:1:1)"}
}

func (t Task) output(r *run) json.RawMessage {
	if t.result != nil {
		return t.result(r)
	}
	return t.Output
}

// builtIn are the tasks that every emulator knows.
func builtIn() map[string]Task {
	return map[string]Task{
		"process-large-dataset": {DurationMs: 3000, result: func(r *run) json.RawMessage {
			return object("processed", true, "datasetId", member(r.inlinePayload(), "datasetId"))
		}},
		"daily-report-generation": {DurationMs: 1000, Scheduled: true, result: func(*run) json.RawMessage {
			return object("generated", true)
		}},
		"reliable-email-sender": {DurationMs: 500, FailAttempts: 1,
			Error: &TaskError{Name: "Error", Message: "mail server not reached", StackTrace: "Error: mail server not reached\n    at run (task.ts:1:1)"},
			result: func(r *run) json.RawMessage {
				return object("sent", true, "to", member(r.inlinePayload(), "to"), "attempt", r.Attempts)
			}},
		"cancellable-task": {steps: iterations, result: func(r *run) json.RawMessage {
			return object("completed", true, "iterations", r.Steps)
		}},
	}
}

// iterations reads the number of steps from a payload, 10 if it names none.
func iterations(payload json.RawMessage) int {
	var n float64
	if json.Unmarshal(member(payload, "iterations"), &n) != nil || n < 1 || n > 1e6 {
		return 10
	}
	return int(n)
}

// object makes a JSON object of names and values; a nil json.RawMessage is left out.
func object(pairs ...any) json.RawMessage {
	var b bytes.Buffer
	for i := 0; i+1 < len(pairs); i += 2 {
		if raw, ok := pairs[i+1].(json.RawMessage); ok && raw == nil {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:%s", compactJSON(pairs[i]), compactJSON(pairs[i+1]))
	}
	return slices.Concat(json.RawMessage("{"), b.Bytes(), json.RawMessage("}"))
}

// member reads one member of a JSON object, nil if there is none.
func member(of json.RawMessage, name string) json.RawMessage {
	var members map[string]json.RawMessage
	if json.Unmarshal(of, &members) != nil {
		return nil
	}
	return members[name]
}

// ReadTasks reads a tasks file: one JSON object, members named by task, each an
// object with any of durationMs, output, error, failAttempts, status, scheduled,
// url and command. What it does not understand is an error that names task and
// member.
func ReadTasks(r io.Reader) (map[string]Task, error) {
	var file map[string]json.RawMessage
	dec := json.NewDecoder(r)
	if err := dec.Decode(&file); err != nil {
		return nil, fmt.Errorf("read tasks: want {\"TASK\":{…},…}: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read tasks: something follows the object")
	}
	tasks := make(map[string]Task, len(file))
	for _, id := range slices.Sorted(maps.Keys(file)) {
		t, err := readTask(file[id])
		if err != nil {
			return nil, fmt.Errorf("read tasks: task %q: %w", id, err)
		}
		tasks[id] = t
	}
	return tasks, nil
}

func readTask(raw json.RawMessage) (Task, error) {
	var t Task
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return t, fmt.Errorf("want an object, got %s", excerpt(raw))
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if err := t.set(name, members[name]); err != nil {
			return t, fmt.Errorf("member %q: %w", name, err)
		}
	}
	if t.URL != "" && t.Command != "" {
		return t, errors.New(`members "url" and "command" exclude each other`)
	}
	if t.external() && (t.Status != "" || t.Output != nil || t.Error != nil) {
		return t, errors.New(`"url" and "command" decide the outcome: no "status", "output" or "error" beside them`)
	}
	return t, nil
}

func (t *Task) set(name string, raw json.RawMessage) error {
	want := func(into any, what string) error {
		if string(raw) == "null" || json.Unmarshal(raw, into) != nil {
			return fmt.Errorf("want %s, got %s", what, excerpt(raw))
		}
		return nil
	}
	switch name {
	case "durationMs":
		err := want(&t.DurationMs, "a whole number of milliseconds")
		if err == nil && (t.DurationMs < 0 || t.DurationMs > math.MaxInt64/int64(time.Millisecond)) {
			return fmt.Errorf("out of range: %d", t.DurationMs)
		}
		return err
	case "failAttempts":
		err := want(&t.FailAttempts, "a whole number")
		if err == nil && t.FailAttempts < 0 {
			return fmt.Errorf("must not be negative: %d", t.FailAttempts)
		}
		return err
	case "output":
		t.Output = raw
		return nil
	case "error":
		return t.setError(raw)
	case "status":
		if err := want(&t.Status, "a status"); err != nil {
			return err
		}
		return checkStatus(t.Status)
	case "scheduled":
		return want(&t.Scheduled, "true or false")
	case "url":
		if err := want(&t.URL, "a text"); err != nil {
			return err
		}
		if !strings.HasPrefix(t.URL, "http://") && !strings.HasPrefix(t.URL, "https://") {
			return fmt.Errorf("want an http or https address, got %s", excerpt(raw))
		}
		return nil
	case "command":
		return want(&t.Command, "a text")
	}
	return errors.New("no such member (there are durationMs output error failAttempts status scheduled url command)")
}

func (t *Task) setError(raw json.RawMessage) error {
	var text string
	if json.Unmarshal(raw, &text) == nil && string(raw) != "null" {
		t.Error = &TaskError{Message: text}
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var given *TaskError
	if err := dec.Decode(&given); err != nil || given == nil {
		return fmt.Errorf("want a text or {name,message,stackTrace}, got %s", excerpt(raw))
	}
	t.Error = given
	return nil
}

// checkStatus takes any word that is shaped like a status, so that clients can be
// tried against one that they do not know, and refuses what looks like a slip.
func checkStatus(word string) error {
	if word == "" || strings.Trim(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" {
		return fmt.Errorf("unknown status %q (statuses are upper-case words such as COMPLETED)", word)
	}
	return nil
}

func excerpt(raw json.RawMessage) string {
	if len(raw) > 60 {
		return string(raw[:60]) + "…"
	}
	return string(raw)
}
