package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sidejob/internal/job"
)

// runEvent is what a webhook body says of a run.
type runEvent struct {
	id      string // the event's
	run     job.Run
	task    string
	key     string // the run's idempotency key, where the body carries it
	tags    []string
	jobID   int64 // metadata.dbJobId: a hint, never a proof
	jobTag  string
	ignored bool // well-formed, and nothing to us
}

// readEvent reads a verified body: an event of the task hooks, or an alert of
// Trigger.dev's own.
func readEvent(body []byte) (runEvent, error) {
	var head struct {
		ID     string          `json:"id"`
		Type   string          `json:"type"`
		Run    json.RawMessage `json:"run"`
		Object json.RawMessage `json:"object"`
	}
	if !utf8.Valid(body) {
		return runEvent{}, errors.New("the body is not UTF-8, as JSON is")
	}
	if err := json.Unmarshal(body, &head); err != nil {
		return runEvent{}, misread("", err)
	}
	switch {
	case strings.HasPrefix(head.Type, "RUN_"):
		if head.ID == "" {
			return runEvent{}, errors.New("id: is missing; each event has one of its own")
		}
		return readRunEvent(head.ID, head.Type, head.Run)
	case head.Type == "alert.run.failed":
		return readAlert(head.ID, head.Object)
	case strings.HasPrefix(head.Type, "alert."):
		return runEvent{ignored: true}, nil
	}
	return runEvent{}, fmt.Errorf("type: is %q; it is RUN_CREATED, RUN_STARTED, RUN_COMPLETED, RUN_FAILED, RUN_CANCELED or an alert", head.Type)
}

// misread names the member that cannot be read, and never what it holds.
func misread(part string, err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return fmt.Errorf("%s: is missing or no JSON", cmp.Or(part, "the body"))
	}
	member := strings.Trim(part+"."+wrong.Field, ".")
	return fmt.Errorf("%s: does not take a JSON %s", cmp.Or(member, "the body"), wrong.Value)
}

// hookRun is the run of a task hook's event. Members of the wrong type are errors
// where they matter and ignored where they do not.
type hookRun struct {
	ID             string          `json:"id"`
	Status         string          `json:"status"`
	Task           string          `json:"taskIdentifier"`
	Output         json.RawMessage `json:"output"`
	Error          json.RawMessage `json:"error"`
	Metadata       json.RawMessage `json:"metadata"`
	StartedAt      wireTime        `json:"startedAt"`
	CompletedAt    wireTime        `json:"completedAt"`
	AttemptCount   int             `json:"attemptCount"`
	Attempt        json.RawMessage `json:"attempt"`
	IdempotencyKey string          `json:"idempotencyKey"`
	Tags           []string        `json:"tags"`
}

func readRunEvent(id, kind string, raw json.RawMessage) (runEvent, error) {
	var r hookRun
	if err := json.Unmarshal(raw, &r); err != nil {
		return runEvent{}, misread("run", err)
	}
	if r.ID == "" {
		return runEvent{}, errors.New("run.id: is missing")
	}
	raws, err := statusOf(kind, r.Status)
	if err != nil {
		return runEvent{}, err
	}
	ev := runEvent{
		id: "event:" + id, task: r.Task, key: r.IdempotencyKey, tags: r.Tags,
		run: job.Run{
			ID: r.ID, Raw: raws, Started: toMilli(time.Time(r.StartedAt)), Finished: toMilli(time.Time(r.CompletedAt)),
			Attempts: r.AttemptCount, AttemptID: attemptID(r.Attempt),
		},
	}
	if kind == "RUN_COMPLETED" {
		ev.run.Output = r.Output
	}
	if !isNull(r.Error) {
		ev.run.Error = r.Error
	}
	ev.jobID, ev.jobTag = namedJob(r.Metadata)
	return ev, nil
}

// statusOf is the status an event stands for. Its type decides; the run's own word
// is kept where it says the same more precisely.
func statusOf(kind, word string) (string, error) {
	want, plain := job.Pending, "QUEUED"
	switch kind {
	case "RUN_CREATED":
	case "RUN_STARTED":
		want, plain = job.Executing, "EXECUTING"
	case "RUN_COMPLETED":
		want, plain = job.Completed, "COMPLETED"
	case "RUN_FAILED":
		want, plain = job.Failed, "FAILED"
	case "RUN_CANCELED":
		want, plain = job.Canceled, "CANCELED"
	default:
		return "", fmt.Errorf("type: is %q; it is RUN_CREATED, RUN_STARTED, RUN_COMPLETED, RUN_FAILED or RUN_CANCELED", kind)
	}
	if job.StatusOf(word) == want {
		return word, nil
	}
	return plain, nil
}

// attemptID reads attempt, which is an object with an id, or the id.
func attemptID(raw json.RawMessage) string {
	var a struct {
		ID string `json:"id"`
	}
	var id string
	if json.Unmarshal(raw, &a) == nil {
		return a.ID
	}
	_ = json.Unmarshal(raw, &id) // a number, or nothing we know
	return id
}

// namedJob reads which job the metadata names.
func namedJob(metadata json.RawMessage) (id int64, tag string) {
	var m struct {
		DBJobID json.RawMessage `json:"dbJobId"`
		Tag     string          `json:"tag"`
	}
	_ = json.Unmarshal(metadata, &m) // whatever else it may hold names no job
	id, err := strconv.ParseInt(strings.Trim(string(m.DBJobID), `"`), 10, 64)
	if err != nil || id <= 0 {
		return 0, ""
	}
	return id, m.Tag
}

// alertRun is the run of an alert.
type alertRun struct {
	ID             string          `json:"id"`
	Status         string          `json:"status"`
	StartedAt      wireTime        `json:"startedAt"`
	CompletedAt    wireTime        `json:"completedAt"`
	IdempotencyKey string          `json:"idempotencyKey"`
	Tags           []string        `json:"tags"`
	Error          json.RawMessage `json:"error"`
}

// readAlert reads alert.run.failed. It has no time and its id may be absent; then
// the run's id stands in, since a run fails once.
func readAlert(id string, raw json.RawMessage) (runEvent, error) {
	var o struct {
		Task struct {
			ID string `json:"id"`
		} `json:"task"`
		Run alertRun `json:"run"`
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return runEvent{}, misread("object", err)
	}
	if o.Run.ID == "" {
		return runEvent{}, errors.New("object.run.id: is missing")
	}
	if id == "" {
		id = o.Run.ID
	}
	word, err := statusOf("RUN_FAILED", o.Run.Status)
	if err != nil {
		return runEvent{}, err
	}
	return runEvent{
		id: "alert:" + id, task: o.Task.ID, key: o.Run.IdempotencyKey, tags: o.Run.Tags,
		run: job.Run{
			ID: o.Run.ID, Raw: word, Started: toMilli(time.Time(o.Run.StartedAt)),
			Finished: toMilli(time.Time(o.Run.CompletedAt)), Error: alertError(o.Run.Error),
		},
	}, nil
}

// alertError turns the tagged error of an alert into the shape that the API shows.
func alertError(raw json.RawMessage) json.RawMessage {
	var e struct {
		Type, Name, Message, StackTrace, Raw, Code string
	}
	switch err := json.Unmarshal(raw, &e); {
	case isNull(raw):
		return nil
	case err != nil:
		return raw
	}
	switch e.Type {
	case "BUILT_IN_ERROR":
		return runError(e.Message, e.Name, e.StackTrace)
	case "STRING_ERROR", "CUSTOM_ERROR":
		return runError(e.Raw, "", "")
	case "INTERNAL_ERROR":
		return runError("trigger.dev internal error ("+e.Code+")", "", "")
	}
	return raw
}

func isNull(raw json.RawMessage) bool {
	return len(raw) == 0 || bytes.Equal(bytes.TrimSpace(raw), []byte("null"))
}

// belongsTo tells whether the event's own words prove that its run is the job's:
// idempotency key, task and tag agree. The key is a secret between sidejob and
// Trigger.dev; metadata proves nothing.
func (e runEvent) belongsTo(j job.Job) bool {
	tagged := e.jobTag == j.Tag || slices.Contains(e.tags, remoteTag(j.Tag))
	return j.IdempotencyKey != "" && e.key == j.IdempotencyKey && e.task == j.TriggerTask && tagged
}

// wireTime reads a time as events carry it: RFC 3339, milliseconds since 1970,
// null or an empty text.
type wireTime time.Time

// The times that a year of four digits can show. Nothing later could be shown again.
const (
	firstMilli = -62_135_596_800_000
	lastMilli  = 253_402_300_799_999
)

// UnmarshalJSON implements json.Unmarshaler.
func (t *wireTime) UnmarshalJSON(raw []byte) error {
	var text string
	var ms float64
	switch {
	case isNull(raw):
		return nil
	case json.Unmarshal(raw, &ms) == nil && ms >= firstMilli && ms <= lastMilli:
		*t = wireTime(time.UnixMilli(int64(ms)))
		return nil
	case json.Unmarshal(raw, &text) == nil && text == "":
		return nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.UnixMilli() < firstMilli || at.UnixMilli() > lastMilli {
		return &json.UnmarshalTypeError{Value: "value that is neither RFC 3339 nor milliseconds since 1970", Type: reflect.TypeFor[time.Time]()}
	}
	*t = wireTime(at)
	return nil
}
