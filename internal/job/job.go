// Package job holds the rules of a job's life and nothing else: what a job is,
// what may happen to it, and what follows from that. It reads no clock, knows no
// SQL, no HTTP and no log, so every rule can be tested exhaustively.
//
// Next decides; whoever stores jobs writes down what it decided.
package job

import (
	"encoding/json"
	"time"
)

// Executor says who does the work.
type Executor string

const (
	Internal Executor = "internal" // a worker of the host, or sidejob for built-in types
	Trigger  Executor = "trigger"  // a run on Trigger.dev
)

// Status is what callers see of a job, the same five words for both executors.
type Status string

const (
	Pending   Status = "PENDING"
	Executing Status = "EXECUTING"
	Completed Status = "COMPLETED"
	Failed    Status = "FAILED"
	Canceled  Status = "CANCELED"
)

// Final tells whether a job of this status has ended.
func (s Status) Final() bool { return s == Completed || s == Failed || s == Canceled }

// Job is one row of worker_jobs. Times are UTC to the millisecond; a zero time, an
// empty string and a nil slice mean "not set".
type Job struct {
	ID     int64
	Tag    string // the deduplication name
	Type   string
	Name   string // name in the registry
	UserID int64  // 0 is the system
	Data   json.RawMessage

	Due      time.Time // not to be executed before
	Started  time.Time
	Finished time.Time
	RemoveAt time.Time // may be removed from then on, unless Persistent
	Success  *bool
	Result   json.RawMessage // any JSON; nil when there is none

	CronSchedule       string  // set: the job recurs
	Timezone           string  // IANA name
	Misfire            Misfire // what becomes of nominal times that pass unused
	MisfireLimit       int     // with FireAll; 0 is DefaultMisfireLimit
	FireLocally        bool    // a recurring trigger job whose runs sidejob itself starts
	ScheduleRow        int64   // id of the recurring job's first row, on all its later ones
	LastOccurrence     bool    // the recurring job was ended while this one ran
	Paused             bool
	Missed             time.Time     // when it was noticed that it had not begun in time
	AutoReschedule     bool          // a failure makes a new row
	AutoRescheduleWait time.Duration // the least time until that row is due
	RemoveDelay        time.Duration // 0 is DefaultRemoveDelay; negative is already past
	RescheduledFrom    int64         // id of the row this one follows
	Persistent         bool
	Retry              *RetryConfig
	Attempt            int // tries begun; for a trigger job what Trigger.dev counts

	Executor      Executor
	TriggerTask   string
	RunID         string
	Environment   string // id of the Trigger.dev environment the run lives in
	AttemptID     string
	TriggerStatus Status // empty for internal jobs
	RawStatus     string // the word Trigger.dev last used
	ScheduleID    string

	ScheduleSettled bool // the schedule on Trigger.dev is known to be as this row says

	CancelRequested bool
	CancelReason    string // the text a canceled job's result carries as its error
	LastSynced      time.Time
	Metadata        json.RawMessage // object
	Labels          []string
	Error           string // why the last try to reach Trigger.dev failed
	IdempotencyKey  string // job-UUID; also the tag by which the run is found again
	Created         time.Time
	Updated         time.Time

	// A lease is a worker's hold on an internal job, or a sender's on a submit.
	LeaseToken   string
	LeaseOwner   string
	LeaseExpires time.Time
	LeaseFor     time.Duration // what a renewal adds

	SentAt       time.Time // first submit that may have reached Trigger.dev
	Tries        int       // failed tries to reach Trigger.dev in a row
	NextTry      time.Time // not before: the next submit, cancel or internal try
	Confirmed    time.Time // when Trigger.dev itself said the final state
	MissingCount int       // 404s in a row
	MissingSince time.Time
	Orphaned     time.Time // given up as lost on Trigger.dev
}

// RetryConfig is the host's retry policy. Timeouts are milliseconds.
type RetryConfig struct {
	MaxAttempts int     `json:"maxAttempts,omitempty" minimum:"1" maximum:"250" doc:"Tries in all, the first included"`
	MinTimeout  int64   `json:"minTimeoutInMs,omitempty" minimum:"0" maximum:"31536000000" doc:"Wait after the first failed try, milliseconds"`
	MaxTimeout  int64   `json:"maxTimeoutInMs,omitempty" minimum:"0" maximum:"31536000000" doc:"Longest wait between tries, milliseconds"`
	Factor      float64 `json:"factor,omitempty" minimum:"1" maximum:"100" doc:"Each wait is the one before times this"`
	Randomize   bool    `json:"randomize,omitempty" doc:"Lengthen each wait by a random share of itself"`
}

const (
	// DefaultRemoveDelay is how long a finished job is kept when it does not say.
	DefaultRemoveDelay = time.Hour
	// MaxLostLeases ends an internal job whose workers keep dying.
	MaxLostLeases = 25
	// OrphanCount 404s over at least OrphanAge make an orphan.
	OrphanCount = 3
	OrphanAge   = 10 * time.Minute
)

// Status is the job's state in the words of callers.
func (j Job) Status() Status {
	switch {
	case j.Finished.IsZero() && j.Executor == Trigger:
		if j.TriggerStatus == Executing {
			return Executing
		}
		return Pending
	case j.Finished.IsZero():
		if j.LeaseToken != "" {
			return Executing
		}
		return Pending
	case j.Success != nil && *j.Success:
		return Completed
	case j.Executor == Trigger && j.TriggerStatus == Canceled,
		j.Executor != Trigger && j.CancelRequested:
		return Canceled
	}
	return Failed
}

// Done tells whether the job has ended.
func (j Job) Done() bool { return !j.Finished.IsZero() }

// leased tells whether somebody holds the job at that time. A lease that has more
// than twice its term to go was taken by a clock that has been set back since, and
// does not hold.
func (j Job) leased(at time.Time) bool {
	left := j.LeaseExpires.Sub(at)
	return j.LeaseToken != "" && left > 0 && left <= 2*j.LeaseFor
}

// removeDelay is how long the job is kept, with the default applied.
func (j Job) removeDelay() time.Duration {
	if j.RemoveDelay == 0 {
		return DefaultRemoveDelay
	}
	return j.RemoveDelay
}

// Backoff is the wait after the given failed attempt (1 is the first): the minimum
// times factor^(attempt-1), at most the maximum, and with Randomize up to twice
// that. random is in [0, 1). Members left out are those of Trigger.dev: 1 s, 60 s,
// factor 2.
func (r RetryConfig) Backoff(attempt int, random float64) time.Duration {
	wait, ceiling, factor := float64(r.MinTimeout), float64(r.MaxTimeout), r.Factor
	if wait == 0 {
		wait = 1000
	}
	if ceiling == 0 {
		ceiling = 60_000
	}
	if factor == 0 {
		factor = 2
	}
	for ; attempt > 1 && wait < ceiling; attempt-- {
		wait *= factor
		if factor <= 1 {
			break
		}
	}
	wait = min(wait, ceiling)
	if r.Randomize {
		wait *= 1 + random
	}
	return time.Duration(wait) * time.Millisecond
}
