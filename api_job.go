package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sidejob/internal/job"
)

// jobView is a job as callers see it. Members that have no value are null.
type jobView struct {
	ID             int64            `json:"id"`
	Tag            string           `json:"tag" doc:"The deduplication name"`
	Type           string           `json:"type"`
	UserID         int64            `json:"userId" doc:"0 is the system"`
	Data           json.RawMessage  `json:"data" doc:"Any JSON"`
	Due            instant          `json:"due"`
	Started        instant          `json:"started"`
	Finished       instant          `json:"finished"`
	RemoveAt       instant          `json:"removeAt" doc:"May be removed from then on, unless persistent"`
	Success        *bool            `json:"success"`
	Result         json.RawMessage  `json:"result" doc:"Any JSON or null"`
	CronSchedule   *string          `json:"cronSchedule" doc:"Of a recurring job"`
	Timezone       string           `json:"timezone"`
	Misfire        *job.Misfire     `json:"misfire" enum:"once,skip,all" doc:"What becomes of nominal times that pass unused; null for a job that does not recur"`
	MisfireLimit   *int             `json:"misfireLimit" doc:"How many of them misfire all makes up for; else null"`
	FireLocally    bool             `json:"fireLocally" doc:"sidejob itself starts the runs of a recurring Trigger.dev job"`
	Recurring      *int64           `json:"scheduleId" doc:"Row id of the recurring job, on its own row and on each of its occurrences"`
	MissedAt       instant          `json:"missedAt" doc:"When it was noticed that the recurring job had not begun in time; null once it has"`
	AutoReschedule bool             `json:"autoRescheduleOnFailure"`
	AutoDelay      int64            `json:"autoRescheduleOnFailureDelay" doc:"Milliseconds"`
	RemoveDelay    int64            `json:"removeDelay" doc:"Milliseconds; 0 is one hour, negative is already past"`
	Rescheduled    *int64           `json:"rescheduledFromJob"`
	Persistent     bool             `json:"persistent"`
	Executor       job.Executor     `json:"executor" enum:"internal,trigger"`
	TriggerTaskID  *string          `json:"triggerTaskId"`
	TriggerRunID   *string          `json:"triggerRunId"`
	AttemptID      *string          `json:"triggerAttemptId"`
	TriggerStatus  *string          `json:"triggerStatus" enum:"PENDING,EXECUTING,COMPLETED,FAILED,CANCELED"`
	ScheduleID     *string          `json:"triggerScheduleId"`
	Cancel         bool             `json:"cancelRequested"`
	LastSyncedAt   instant          `json:"lastSyncedAt"`
	CreatedAt      instant          `json:"createdAt"`
	UpdatedAt      instant          `json:"updatedAt"`
	Name           *string          `json:"name" doc:"Name in the registry"`
	RetryConfig    *job.RetryConfig `json:"retryConfig"`
	Attempt        int              `json:"attempt" doc:"Tries begun"`
	Paused         bool             `json:"paused"`
	Metadata       json.RawMessage  `json:"metadata" doc:"An object"`
	Labels         []string         `json:"labels"`
	Status         job.Status       `json:"status" enum:"PENDING,EXECUTING,COMPLETED,FAILED,CANCELED"`
	RawStatus      *string          `json:"triggerRawStatus" doc:"The word Trigger.dev last used"`
	Error          *string          `json:"error" doc:"Why the last try to reach Trigger.dev failed"`
	Warnings       []string         `json:"warnings,omitempty" doc:"In the reply to a request only"`
}

// viewJob shows a job.
func viewJob(j job.Job, warnings ...string) jobView {
	return jobView{
		ID: j.ID, Tag: j.Tag, Type: j.Type, UserID: j.UserID, Data: orNull(j.Data),
		Due: instant(j.Due), Started: instant(j.Started), Finished: instant(j.Finished), RemoveAt: instant(j.RemoveAt),
		Success: j.Success, Result: orNull(j.Result),
		CronSchedule: orNil(j.CronSchedule), Timezone: j.Timezone, FireLocally: j.FireLocally,
		Misfire: misfireOf(j), MisfireLimit: misfireLimitOf(j), Recurring: recurringOf(j), MissedAt: instant(j.Missed),
		AutoReschedule: j.AutoReschedule, AutoDelay: j.AutoRescheduleWait.Milliseconds(), RemoveDelay: j.RemoveDelay.Milliseconds(),
		Rescheduled: orNil(j.RescheduledFrom), Persistent: j.Persistent, Executor: j.Executor,
		TriggerTaskID: orNil(j.TriggerTask), TriggerRunID: orNil(j.RunID), AttemptID: orNil(j.AttemptID),
		TriggerStatus: orNil(string(j.TriggerStatus)), ScheduleID: orNil(j.ScheduleID), Cancel: j.CancelRequested,
		LastSyncedAt: instant(j.LastSynced), CreatedAt: instant(j.Created), UpdatedAt: instant(j.Updated),
		Name: orNil(j.Name), RetryConfig: j.Retry, Attempt: j.Attempt, Paused: j.Paused,
		Metadata: orNull(j.Metadata), Labels: append([]string{}, j.Labels...), Status: j.Status(),
		RawStatus: orNil(j.RawStatus), Error: orNil(j.Error), Warnings: warnings,
	}
}

// misfireOf is the policy that holds for a recurring job, said or not.
func misfireOf(j job.Job) *job.Misfire {
	if !j.Recurs() {
		return nil
	}
	return new(cmp.Or(j.Misfire, job.FireOnce))
}

func misfireLimitOf(j job.Job) *int {
	if !j.Recurs() || j.Misfire != job.FireAll {
		return nil
	}
	return new(cmp.Or(j.MisfireLimit, job.DefaultMisfireLimit))
}

// recurringOf names the recurring job that the row is of, by its first row.
func recurringOf(j job.Job) *int64 {
	if !j.Recurs() && j.ScheduleRow == 0 {
		return nil
	}
	return new(j.Recurring())
}

func viewJobs(jobs []job.Job) []jobView {
	views := make([]jobView, len(jobs))
	for i, j := range jobs {
		views[i] = viewJob(j)
	}
	return views
}

func orNull(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("null")
	}
	return raw
}

func orNil[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// instant is a time as it is shown: RFC 3339 in UTC with milliseconds, or null.
type instant time.Time

// MarshalJSON implements json.Marshaler.
func (t instant) MarshalJSON() ([]byte, error) {
	if time.Time(t).IsZero() {
		return []byte("null"), nil
	}
	return time.Time(t).UTC().AppendFormat(nil, `"`+timeLayout+`"`), nil
}

var errNoInstant = errors.New("is not a time: use RFC 3339 such as 2026-01-31T12:00:00Z, or milliseconds since 1970")

func readInstant(text string) (time.Time, error) {
	if ms, err := strconv.ParseFloat(text, 64); err == nil {
		// What no four-digit year can show is no time.
		if !(ms >= -62_135_596_800_000 && ms <= 253_402_300_799_999) {
			return time.Time{}, errNoInstant
		}
		return time.UnixMilli(int64(ms)).UTC(), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, errNoInstant
	}
	return toMilli(at), nil
}

// Schema implements huma.SchemaProvider.
func (instant) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Nullable: true, Format: "date-time",
		Description: "RFC 3339, UTC, milliseconds; null for none", Examples: []any{"2026-01-31T12:00:00.000Z"},
	}
}

// givenTime is a time as a request gives it: RFC 3339, milliseconds since 1970, or
// null for none. What is wrong with it is told with all else that is wrong.
type givenTime struct {
	at  time.Time
	err error
}

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (t *givenTime) UnmarshalJSON(raw []byte) error {
	var text string
	switch {
	case bytes.Equal(raw, []byte("null")):
		*t = givenTime{}
		return nil
	case json.Unmarshal(raw, &text) != nil:
		text = string(raw)
	}
	t.at, t.err = readInstant(text)
	return nil
}

// Schema implements huma.SchemaProvider.
func (givenTime) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Description: "Not before then; at once by default. RFC 3339, or milliseconds since 1970.",
		Examples:    []any{"2026-01-31T12:00:00Z", 1769860800000},
	}
}

// jobRequest asks for a job. Its types are checked by huma against the schema made
// of it, its values by job.New.
type jobRequest struct {
	Type           string           `json:"type,omitempty" doc:"What work it is, required unless the registry gives it; for an internal job the name workers ask for" example:"process-large-dataset"`
	Tag            string           `json:"tag,omitempty" doc:"The deduplication name, at most 512 characters; a fresh one by default" example:"process-dataset-123"`
	UserID         *int64           `json:"userId,omitempty" doc:"Whose job it is; 0 is the system" maximum:"9007199254740991"`
	Executor       job.Executor     `json:"executor,omitempty" doc:"internal: a worker of the host; trigger: a run on Trigger.dev" example:"trigger"`
	TriggerTaskID  string           `json:"triggerTaskId,omitempty" doc:"The task's id on Trigger.dev; required for trigger unless the registry gives it" maxLength:"512" example:"process-large-dataset"`
	Data           json.RawMessage  `json:"data,omitempty" doc:"Any JSON, at most 1 MiB; {} by default"`
	Due            givenTime        `json:"due,omitempty"`
	RetryConfig    *job.RetryConfig `json:"retryConfig,omitempty"`
	Persistent     bool             `json:"persistent,omitempty" doc:"Never remove the row"`
	RemoveDelay    int64            `json:"removeDelay,omitempty" doc:"Milliseconds to keep the finished row; 0 is one hour"`
	AutoReschedule bool             `json:"autoRescheduleOnFailure,omitempty" doc:"A failure makes a new job"`
	AutoDelay      int64            `json:"autoRescheduleOnFailureDelay,omitempty" doc:"Milliseconds until that one is due, at least"`
	CronSchedule   string           `json:"cronSchedule,omitempty" doc:"Makes it a recurring job: five fields, or six with seconds in front, or an alias such as @daily" example:"0 9 * * 1-5"`
	Timezone       string           `json:"timezone,omitempty" doc:"IANA name; UTC by default"`
	Metadata       json.RawMessage  `json:"metadata,omitempty" doc:"An object, sent to Trigger.dev beside dbJobId, tag and userId"`
	Labels         []string         `json:"labels,omitempty" doc:"Searchable; sent to Trigger.dev as tags"`
	OnConflict     job.OnConflict   `json:"onConflict,omitempty" doc:"What becomes of unfinished jobs of the same tag: replace (default), replaceAll, keep or reject"`
	Name           string           `json:"name,omitempty" doc:"A job of the registry; fills in what is left out"`
	Misfire        job.Misfire      `json:"misfire,omitempty" doc:"What becomes of a recurring job's nominal times that pass unused: once (default) one run stands for all, skip, or all"`
	MisfireLimit   int              `json:"misfireLimit,omitempty" doc:"With misfire all: at most so many are made up for; 100 by default"`
	FireLocally    bool             `json:"fireLocally,omitempty" doc:"sidejob starts the runs of a recurring Trigger.dev job itself: for tasks that are no scheduled tasks, and for six fields"`
}

// spec is the request as the rules take it, and what they cannot see is wrong with it.
func (r jobRequest) spec() (s job.Spec, wrong job.Problems) {
	if r.Due.err != nil {
		wrong = append(wrong, job.Problem{Member: "due", Why: r.Due.err.Error()})
	}
	delay := func(member string, ms int64) time.Duration {
		if most := job.MaxDelay.Milliseconds(); ms > most || ms < -most {
			wrong = append(wrong, job.Problem{Member: member, Why: fmt.Sprintf("is %d milliseconds, more than 100 years", ms)})
			return 0
		}
		return time.Duration(ms) * time.Millisecond
	}
	s = job.Spec{
		Tag: r.Tag, Type: r.Type, Name: r.Name, Executor: r.Executor, TriggerTask: r.TriggerTaskID,
		Data: r.Data, Due: r.Due.at, Retry: r.RetryConfig, Persistent: r.Persistent,
		RemoveDelay: delay("removeDelay", r.RemoveDelay), AutoReschedule: r.AutoReschedule,
		RescheduleWait: delay("autoRescheduleOnFailureDelay", r.AutoDelay),
		CronSchedule:   r.CronSchedule, Timezone: r.Timezone,
		Misfire: r.Misfire, MisfireLimit: r.MisfireLimit, FireLocally: r.FireLocally,
		Metadata: r.Metadata, Labels: r.Labels, OnConflict: r.OnConflict,
	}
	if r.UserID != nil {
		s.UserID = *r.UserID
	}
	return s, wrong
}

// repeatedMember names a member that a JSON object has twice, which parsers take in
// different ways. Inside of retryConfig it looks too; other members may be the
// caller's own.
func repeatedMember(raw []byte) string {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return ""
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		var value json.RawMessage
		if err != nil || !ok || dec.Decode(&value) != nil {
			return ""
		}
		if seen[name] {
			return name
		}
		seen[name] = true
		if inner := repeatedMember(value); name == "retryConfig" && inner != "" {
			return "retryConfig." + inner
		}
	}
	return ""
}

// eventView is one line of a job's history.
type eventView struct {
	ID     int64           `json:"id"`
	At     instant         `json:"at"`
	Kind   string          `json:"kind" doc:"What happened"`
	Source string          `json:"source" doc:"Who brought it"`
	From   *string         `json:"from" doc:"The state before"`
	To     string          `json:"to" doc:"The state after"`
	Detail json.RawMessage `json:"detail"`
}

func viewHistory(entries []Entry) []eventView {
	views := make([]eventView, len(entries))
	for i, e := range entries {
		views[i] = eventView{ID: e.ID, At: instant(e.At), Kind: e.Kind, Source: e.Source, From: orNil(e.From), To: e.To, Detail: orNull(e.Detail)}
	}
	return views
}
