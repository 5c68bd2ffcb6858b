package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Kind names what happened. A request asks for something and is refused where it
// does not fit; news tells what already is, may be late, repeated or out of order,
// and then changes nothing.
type Kind string

const (
	// Requests.
	Cancel   Kind = "cancel"   // stop it; Reason is kept in the result
	Send     Kind = "send"     // hold the row while a submit is under way
	Claim    Kind = "claim"    // a worker takes an internal job
	Renew    Kind = "renew"    // its heartbeat
	Complete Kind = "complete" // its success, with Result
	Fail     Kind = "fail"     // its failure, with Result as the error
	Release  Kind = "release"  // it gives the job back unharmed
	Retry    Kind = "retry"    // a new job from one that has ended
	End      Kind = "end"      // a recurring job recurs no more
	Pause    Kind = "pause"    // it rests until Resume
	Resume   Kind = "resume"

	// News.
	Submitted Kind = "submitted" // Trigger.dev has made the run Run.ID
	Refused   Kind = "refused"   // Trigger.dev will never accept the submit
	Unreached Kind = "unreached" // a submit, cancel or question did not get through
	Stopping  Kind = "stopping"  // Trigger.dev has taken the cancel
	Told      Kind = "told"      // an event says so: believed, then checked
	Seen      Kind = "seen"      // Trigger.dev, asked, says so
	Missing   Kind = "missing"   // Trigger.dev, asked, knows no such run
	LeaseLost Kind = "leaseLost" // a worker's lease has run out

	// News of recurring jobs.
	Fired       Kind = "fired"       // a nominal time has come; Run, if Trigger.dev has made it
	Missed      Kind = "missed"      // it had come and nothing began
	Scheduled   Kind = "scheduled"   // Trigger.dev has the schedule ScheduleID
	Drifted     Kind = "drifted"     // … and it is not as the row says
	Unscheduled Kind = "unscheduled" // Trigger.dev has no such schedule
)

// Event is one thing that happened to a job. At is when sidejob learned it; Source
// is who brought it. The other members belong to the kinds that name them.
type Event struct {
	Kind   Kind
	At     time.Time
	Source string

	Reason string          // Cancel, End
	Result json.RawMessage // Complete: the result; Fail: the error
	Random float64         // Fail: in [0, 1), spreads retries

	Lease Lease // Send, Claim, Renew, Complete, Fail, Release; the token also Unreached, Refused

	Run Run // Submitted, Told, Seen

	Err     string    // Refused, Unreached: why, for people
	Details any       // Refused: what Trigger.dev answered
	InDoubt bool      // Unreached: a submit, this or an earlier one, may have arrived
	NextTry time.Time // Unreached, Stopping

	Key  string // Send: the idempotency key of a row that has none; Retry: of the new one
	Task string // Send: the task of a row that names none

	KeyProved bool // Missing: the API key is good, in the environment that Run names

	Replaced    bool      // Cancel: another job takes the tag
	CarriedOver bool      // … and the schedule on Trigger.dev with it
	Nominal     time.Time // Fired, of a run on Trigger.dev: the time by the schedule
	ScheduleID  string    // Scheduled
	Active      bool      // Scheduled: it fires
}

// Lease is a hold on a job: only who shows the token may act on it, and only until
// it runs out.
type Lease struct {
	Token string
	Owner string
	For   time.Duration
}

// Run is what is known of a run on Trigger.dev. Zero members are not known.
type Run struct {
	ID        string
	Raw       string // status, in the words of whoever told
	Started   time.Time
	Finished  time.Time
	Output    json.RawMessage // nil: none; JSON null is an output
	Error     json.RawMessage // {message, name, stackTrace} or a text
	Attempts  int
	AttemptID string

	Environment string // id of the environment it lives in
}

// Step is what follows from an event.
type Step struct {
	Job        Job        // the job as it is now
	Follow     *Job       // a new job to insert with it; its ID is not set
	OnConflict OnConflict // what Follow does about unfinished jobs of its tag
	Changed    bool       // Job differs from before and must be written
	Quiet      bool       // the change is bookkeeping that the history need not tell
	Noted      bool       // the history tells it although the job stays as it is
}

// ErrRefused is what a request that does not fit a job's state is.
var ErrRefused = errors.New("does not fit the job's state")

// RefusedError says why a request was refused. It is an ErrRefused.
type RefusedError struct {
	Kind  Kind
	State State
	Why   string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("cannot %s a job that is %s: %s", e.Kind, e.State, e.Why)
}

// Is makes every refusal an ErrRefused.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }
