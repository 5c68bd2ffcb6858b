package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sidejob/internal/job/cron"
)

// Limits of a request. Sizes are bytes but for tags and labels, which are
// characters.
const (
	MaxTag      = 512
	MaxType     = 512
	MaxData     = 1 << 20
	MaxMetadata = 252 << 10 // Trigger.dev's 256 KiB less room for sidejob's own members
	MaxLabels   = 50
	MaxDelay    = 100 * 365 * 24 * time.Hour
	DefaultTZ   = "UTC"
)

// Spec is what a caller asks for. Zero members take their defaults.
type Spec struct {
	Tag, Type, Name string
	UserID          int64
	Executor        Executor
	TriggerTask     string
	Data            json.RawMessage
	Due             time.Time
	Retry           *RetryConfig
	Persistent      bool
	RemoveDelay     time.Duration
	AutoReschedule  bool
	RescheduleWait  time.Duration
	CronSchedule    string
	Timezone        string
	Misfire         Misfire
	MisfireLimit    int
	FireLocally     bool
	Metadata        json.RawMessage
	Labels          []string
	OnConflict      OnConflict
}

// OnConflict says what becomes of unfinished jobs of the same tag.
type OnConflict string

const (
	Replace    OnConflict = "replace"    // pending ones are canceled; the default
	ReplaceAll OnConflict = "replaceAll" // running ones too
	Keep       OnConflict = "keep"       // nothing new is made
	Reject     OnConflict = "reject"     // the request is refused

	// Beside leaves them alone. It is not for callers: it is for a row that only
	// writes down what already runs.
	Beside OnConflict = "beside"
)

// ReplacedReason is the error in the result of a job that made way for another.
const ReplacedReason = "Job cancelled due to new job being created"

// Problem is one thing wrong with a request.
type Problem struct {
	Member string // as the caller spelled it, e.g. "retryConfig.factor"
	Why    string // what is wrong and what would be right
}

// Problems is all that is wrong with a request.
type Problems []Problem

func (p Problems) Error() string {
	parts := make([]string, len(p))
	for i, one := range p {
		parts[i] = one.Member + ": " + one.Why
	}
	return strings.Join(parts, "; ")
}

// New makes the job that a caller asked for, or says everything that is wrong with
// it (Problems). uuid must be fresh: it becomes the idempotency key, and part of
// the tag of a job that has none. The texts in warnings are for the caller.
func New(s Spec, at time.Time, uuid string) (j Job, warnings []string, err error) {
	s = s.withDefaults(at, uuid)
	if wrong := s.check(at); len(wrong) > 0 {
		return Job{}, nil, wrong
	}
	j = Job{
		Tag: s.Tag, Type: s.Type, Name: s.Name, UserID: s.UserID, Data: s.Data,
		Due: s.Due, CronSchedule: s.CronSchedule, Timezone: s.Timezone,
		AutoReschedule: s.AutoReschedule, AutoRescheduleWait: s.RescheduleWait,
		RemoveDelay: s.RemoveDelay, Persistent: s.Persistent, Retry: s.Retry,
		Executor: s.Executor, Metadata: s.Metadata, Labels: s.Labels,
		Misfire: s.Misfire, MisfireLimit: s.MisfireLimit, FireLocally: s.FireLocally,
		Created: at, Updated: at,
	}
	switch {
	case j.OnTrigger():
		j.Due = firstDue(j, later(j.Due, at)) // it makes up for nothing
	case j.Recurs():
		j.Due = firstDue(j, j.Due)
	}
	j.RemoveAt = j.Due.Add(j.removeDelay())
	if s.Executor == Trigger {
		j.TriggerTask = s.TriggerTask
		j.TriggerStatus = Pending
		j.IdempotencyKey = "job-" + uuid
		warnings = triggerWarnings(j)
	}
	return j, warnings, nil
}

func (s Spec) withDefaults(at time.Time, uuid string) Spec {
	if s.Executor == "" {
		s.Executor = Internal
	}
	if s.Tag == "" && s.Type != "" {
		s.Tag = cut(s.Type, MaxTag-1-len(uuid)) + ":" + uuid
	}
	if len(s.Data) == 0 {
		s.Data = json.RawMessage(`{}`)
	}
	if len(s.Metadata) == 0 || string(s.Metadata) == "null" {
		s.Metadata = json.RawMessage(`{}`)
	}
	if s.Due.IsZero() {
		s.Due = at
	}
	if s.Timezone == "" {
		s.Timezone = DefaultTZ
	}
	return s
}

func (s Spec) check(at time.Time) (wrong Problems) {
	no := func(bad bool, member, why string, args ...any) {
		if bad {
			wrong = append(wrong, Problem{member, fmt.Sprintf(why, args...)})
		}
	}
	no(strings.TrimSpace(s.Type) == "", "type", "is required: the name of the work to do")
	no(utf8.RuneCountInString(s.Type) > MaxType, "type", "is longer than %d characters", MaxType)
	no(hasControl(s.Type), "type", "contains a control character")
	no(s.Type != "" && strings.TrimSpace(s.Tag) == "", "tag", "is blank; leave it out to get a fresh one")
	no(utf8.RuneCountInString(s.Tag) > MaxTag, "tag", "is longer than %d characters", MaxTag)
	no(hasControl(s.Tag) && !hasControl(s.Type), "tag", "contains a control character")
	no(s.UserID < 0, "userId", "is negative; 0 is the system, users are positive")
	no(s.Executor != Internal && s.Executor != Trigger, "executor", "is %q; it is internal or trigger", s.Executor)
	no(s.Executor == Trigger && strings.TrimSpace(s.TriggerTask) == "", "triggerTaskId", "is required when executor is trigger: the task's id on Trigger.dev")
	no(s.Executor == Internal && s.TriggerTask != "", "triggerTaskId", "is given but executor is internal; set executor to trigger")
	no(s.Due.Before(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)), "due", "is %s; epoch times are milliseconds, not seconds, and not before the year 2000", s.Due.Format(time.RFC3339))
	no(s.Due.After(at.Add(MaxDelay)), "due", "is more than 100 years ahead")
	no(len(s.Metadata) > MaxMetadata, "metadata", "is larger than %d bytes, what Trigger.dev takes", MaxMetadata)
	no(depth(s.Data) > MaxDepth, "data", "is nested deeper than %d levels", MaxDepth)
	no(depth(s.Metadata) > MaxDepth, "metadata", "is nested deeper than %d levels", MaxDepth)
	no(!isObject(s.Metadata), "metadata", "is not a JSON object")
	no(s.RemoveDelay.Abs() > MaxDelay, "removeDelay", "is more than 100 years, in milliseconds")
	no(s.RescheduleWait < 0, "autoRescheduleOnFailureDelay", "is negative")
	no(s.RescheduleWait > MaxDelay, "autoRescheduleOnFailureDelay", "is more than 100 years, in milliseconds")
	no(len(s.Labels) > MaxLabels, "labels", "has %d items; at most %d are kept", len(s.Labels), MaxLabels)
	for i, label := range s.Labels {
		member := fmt.Sprintf("labels[%d]", i)
		no(strings.TrimSpace(label) == "", member, "is blank")
		no(utf8.RuneCountInString(label) > MaxTag, member, "is longer than %d characters", MaxTag)
		no(hasControl(label), member, "contains a control character")
	}
	if _, known := conflictPolicies()[s.OnConflict]; !known {
		no(true, "onConflict", "is %q; it is replace, replaceAll, keep or reject", s.OnConflict)
	}
	return append(append(wrong, s.checkRecurring()...), s.Retry.check()...)
}

// checkRecurring says what is wrong with the members of a recurring job.
func (s Spec) checkRecurring() (wrong Problems) {
	no := func(bad bool, member, why string, args ...any) {
		if bad {
			wrong = append(wrong, Problem{member, fmt.Sprintf(why, args...)})
		}
	}
	expression := s.CronSchedule
	if expression == "" {
		const why = "is for recurring jobs; give cronSchedule as well"
		no(s.Misfire != "", "misfire", why)
		no(s.MisfireLimit != 0, "misfireLimit", why)
		no(s.FireLocally, "fireLocally", why)
		expression = "@daily" // so that the zone is judged by itself
	}
	_, err := cron.Parse(expression, s.Timezone)
	if err == nil && s.CronSchedule != "" && s.Executor == Trigger && !s.FireLocally {
		err = cron.CheckRemote(s.CronSchedule)
	}
	wrong = append(wrong, cronProblems(err, s)...)
	no(!slices.Contains([]Misfire{"", FireOnce, FireSkip, FireAll}, s.Misfire), "misfire", "is %q; it is once, skip or all", s.Misfire)
	no(s.MisfireLimit < 0 || s.MisfireLimit > MaxMisfireLimit, "misfireLimit", "is not from 1 to %d", MaxMisfireLimit)
	no(s.MisfireLimit > 0 && s.Misfire != FireAll, "misfireLimit", "is for misfire all")
	no(s.FireLocally && s.Executor != Trigger, "fireLocally", "is for jobs of executor trigger: sidejob fires internal ones anyway")
	return wrong
}

// cronProblems is what is wrong with an expression or a zone, and the way out where
// only Trigger.dev would not take it.
func cronProblems(err error, s Spec) Problems {
	var e *cron.Error
	if !errors.As(err, &e) {
		return nil
	}
	why := e.Why
	if e.Field != "" {
		why = e.Field + ": " + why
	}
	if _, fits := cron.Parse(s.CronSchedule, s.Timezone); fits == nil {
		why += "; with fireLocally sidejob fires it itself"
	}
	return Problems{{e.Member, why}}
}

func (r *RetryConfig) check() (wrong Problems) {
	if r == nil {
		return nil
	}
	no := func(bad bool, member, why string) {
		if bad {
			wrong = append(wrong, Problem{"retryConfig." + member, why})
		}
	}
	const year = int64(365 * 24 * time.Hour / time.Millisecond)
	no(r.MaxAttempts < 0 || r.MaxAttempts > 250, "maxAttempts", "is not from 1 to 250")
	no(r.MinTimeout < 0 || r.MinTimeout > year, "minTimeoutInMs", "is not from 0 to a year, in milliseconds")
	no(r.MaxTimeout < 0 || r.MaxTimeout > year, "maxTimeoutInMs", "is not from 0 to a year, in milliseconds")
	no(r.MaxTimeout != 0 && r.MaxTimeout < r.MinTimeout, "maxTimeoutInMs", "is less than minTimeoutInMs")
	no(r.Factor != 0 && !(r.Factor >= 1 && r.Factor <= 100), "factor", "is not from 1 to 100")
	return wrong
}

// triggerWarnings are for what Trigger.dev does not take at trigger time.
func triggerWarnings(j Job) (warnings []string) {
	if j.OnTrigger() {
		return scheduleWarnings(j)
	}
	if r := j.Retry; r != nil && (r.MinTimeout != 0 || r.MaxTimeout != 0 || r.Factor != 0 || r.Randomize) {
		warnings = append(warnings, "retryConfig: only maxAttempts is sent to Trigger.dev; the timing of retries is set in the task's own definition")
	}
	if len(j.Labels) > RemoteLabels {
		warnings = append(warnings, fmt.Sprintf("labels: a run takes 10 tags, so only the first %d labels are sent; all are kept here", RemoteLabels))
	}
	return warnings
}

// scheduleWarnings are for what Trigger.dev does otherwise when it fires the job
// itself.
func scheduleWarnings(j Job) (warnings []string) {
	const own = ": Trigger.dev gives the runs of a schedule a payload, options and tags of its own; this is kept on their rows here only. With fireLocally it is sent"
	for member, given := range map[string]bool{
		"data": string(j.Data) != "{}", "metadata": string(j.Metadata) != "{}", "labels": len(j.Labels) > 0, "retryConfig": j.Retry != nil,
	} {
		if given {
			warnings = append(warnings, member+own)
		}
	}
	if j.Due.After(firstDue(j, j.Created)) {
		warnings = append(warnings, "due: Trigger.dev fires a schedule from when it is made; with fireLocally the first run waits for due")
	}
	if j.Misfire != "" {
		warnings = append(warnings, "misfire: Trigger.dev fires the schedule and makes up for nothing; with fireLocally sidejob does as misfire says")
	}
	slices.Sort(warnings)
	return warnings
}

// RemoteLabels is how many labels fit beside sidejob's own four tags.
const RemoteLabels = 6

// conflictPolicies are the words onConflict takes; none is the default one.
func conflictPolicies() map[OnConflict]struct{} {
	return map[OnConflict]struct{}{"": {}, Replace: {}, ReplaceAll: {}, Keep: {}, Reject: {}}
}

// ErrTagTaken refuses a job whose tag has an unfinished one already.
var ErrTagTaken = fmt.Errorf("an unfinished job has this tag")

// Resolution is what becomes of the unfinished jobs of a tag.
type Resolution struct {
	Cancel []Job
	End    []Job // recurring ones of which an occurrence is at work: that goes on, and is the last
	Keep   *Job  // stays instead of the new one
}

// Resolve decides what becomes of the unfinished jobs of a tag, oldest first, when j
// is asked for. A job that is already to be canceled does not count, and a run of a
// schedule does not count as pending.
func Resolve(policy OnConflict, j Job, open []Job) (r Resolution, err error) {
	for _, old := range open {
		switch {
		case policy == Beside:
		case old.CancelRequested:
			// A schedule is carried over, not deleted. Of a recurring job, only an
			// occurrence may be meant by what its host wrote.
			if old.Recurs() && (!old.OnTrigger() || j.OnTrigger()) {
				r.Cancel = append(r.Cancel, old)
			}
		case policy == ReplaceAll:
			r.Cancel = append(r.Cancel, old)
		case old.Executor == Trigger && old.ScheduleRow != 0:
		case policy == Keep:
			r.Keep = &old
		case policy == Reject:
			return Resolution{}, fmt.Errorf("job %d: %w", old.ID, ErrTagTaken)
		case old.Status() == Pending:
			r.Cancel = append(r.Cancel, old)
		case old.Recurs():
			r.End = append(r.End, old)
		}
	}
	return r, nil
}

func isObject(b json.RawMessage) bool {
	var m map[string]json.RawMessage
	return json.Unmarshal(b, &m) == nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// cut is the first n characters of s.
func cut(s string, n int) string {
	runes := []rune(s)
	return string(runes[:min(n, len(runes))])
}
