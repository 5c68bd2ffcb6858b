package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sidejob/internal/job"
)

// Store keeps every job, its history, and what must outlive a crash beside them.
//
// All methods are safe from many goroutines at once. Times are UTC to the
// millisecond and always the caller's: the store reads no clock. A method that
// returns nil has committed; a commit survives power loss. No method waits for the
// network.
type Store interface {
	// Schedule inserts jobs, each under its tag's lock: unfinished jobs of the same
	// tag make way as the order's policy says, or are kept, or refuse it. All orders
	// are one transaction; one that is refused leaves the others alone, and its
	// answer carries the error (job.ErrTagTaken). The jobs are noted beside the
	// request's key; ErrReplyUnderWay where another process carries that out by now,
	// and then nothing is scheduled.
	Schedule(ctx context.Context, orders []Order, request Keyed) ([]Placed, error)

	// Apply is the only way a row changes: it reads the row under a lock, asks
	// job.Next, and writes the row, the row that follows and a line of history. The
	// step returned is what was written: the row as of this event, and the row that
	// follows with its id, nil where there is none. ErrNotFound; job.ErrRefused.
	Apply(ctx context.Context, id int64, ev job.Event) (job.Step, error)

	// Retry applies a job.Retry and notes the new job beside the request's key, as
	// Schedule does.
	Retry(ctx context.Context, id int64, ev job.Event, request Keyed) (job.Step, error)

	// Hear applies a signed event to the row of its run, once: an event id heard
	// before changes nothing and is answered as the first time. The event of a run
	// that no row has is kept and applied when a row gets that run.
	Hear(ctx context.Context, heard Heard) (matched bool, err error)

	// Get returns one job, ErrNotFound.
	Get(ctx context.Context, id int64) (job.Job, error)
	// FindRun returns the id of the row whose run it is, ErrNotFound.
	FindRun(ctx context.Context, runID string) (int64, error)
	// List returns a page of jobs in the filter's order.
	List(ctx context.Context, f Filter) (Page, error)
	Count(ctx context.Context, f Filter) (int64, error)
	// History returns what happened to a job, oldest first.
	History(ctx context.Context, id int64) ([]Entry, error)

	// Owed returns the rows that owe somebody a submit or a cancel and may be tried
	// at that time, longest due first, and when the next one after them may be.
	Owed(ctx context.Context, at time.Time, limit int) (ids []int64, next time.Time, err error)
	// Unsent returns the unfinished Trigger.dev rows that have no run, by id.
	Unsent(ctx context.Context) ([]int64, error)
	// Asked returns rows whose runs Trigger.dev is to be asked about: unfinished ones,
	// ones closed by an event that it has not confirmed and, if orphans is set, given
	// up ones. By id, after the given one. Only what asking needs is set: ID, RunID,
	// TriggerStatus, Due, Created, Orphaned.
	Asked(ctx context.Context, after int64, limit int, orphans bool) ([]job.Job, error)

	// Claim hands out due internal jobs that nobody holds, soonest due first, then by
	// id, each with a lease and a token of its own. No job is handed out twice. A claim
	// of one job is answered like any other request: ErrNotFound; job.ErrRefused.
	Claim(ctx context.Context, c Claim) ([]job.Job, error)
	// NextClaimable returns when the next job that the claim could take becomes due
	// after its time; zero when there is none.
	NextClaimable(ctx context.Context, c Claim) (time.Time, error)
	// Leases counts the workers' leases that have not run out at that time and whose
	// token begins so, and says when the last of them will.
	Leases(ctx context.Context, at time.Time, token string) (held int64, until time.Time, err error)
	// Ripe returns what the clock alone makes happen by that time, at most limit of
	// each kind: leases that have run out, schedules to be fired here, occurrences
	// that have not begun; and when there is more.
	Ripe(ctx context.Context, at time.Time, limit int) (ripe []RipeRow, next time.Time, err error)

	// Schedules returns the open rows that are schedules on Trigger.dev, by id.
	Schedules(ctx context.Context) ([]job.Job, error)
	// RecurringRow returns the open row of the recurring job that the row is of, or was
	// of before it was removed; the last row of one that has ended; the row itself if
	// it never recurred. ErrNotFound.
	RecurringRow(ctx context.Context, id int64) (job.Job, error)
	// MissedRecurring returns open recurring jobs that should have fired and have not.
	MissedRecurring(ctx context.Context, limit int) ([]job.Job, error)
	// ScheduleOnce schedules the job unless one was scheduled under that name before,
	// whatever has become of it.
	ScheduleOnce(ctx context.Context, name string, o Order) error

	// Remove deletes at most limit finished jobs whose time is past, but persistent
	// and excluded ones and those whose end Trigger.dev is still to confirm, and what
	// is kept of events and replies beyond its use.
	Remove(ctx context.Context, at time.Time, exclude []int64, limit int) (removed int64, err error)

	// Reserve takes an idempotency key for a request, or says how that key stands.
	Reserve(ctx context.Context, r Reservation) (Reply, error)
	// Keep stores the reply of a reserved request; without a status it gives the key
	// back. Where another process has taken the request over, it does nothing.
	Keep(ctx context.Context, request Keyed, reply Reply) error

	// Alone tells whether no other sidejob can use the database.
	Alone() bool
	// Lead asks for the lead among the sidejobs on this database, or renews it: the
	// right to do periodic work until life is over, by the database's own clock. Each
	// change of the lead is a term of its own; 0 says that another has it.
	Lead(ctx context.Context, owner string, life time.Duration) (term int64, err error)
	// Leader returns who leads now.
	Leader(ctx context.Context) (Leader, error)
	// Resign gives the lead up, if the owner has it.
	Resign(ctx context.Context, owner string) error
	// Attend notes that a process uses the database, which it must say again every few
	// seconds; Leave, that it will not any more. Others tells whether another one does.
	Attend(ctx context.Context, owner string) error
	Leave(ctx context.Context, owner string) error
	Others(ctx context.Context, owner string) (bool, error)

	Stats(ctx context.Context, at time.Time) (Stats, error)
	// Watch returns a channel that gets a value soon after every commit that changed
	// the job (or concerns the topic, such as everyJob), coalesced. Call stop when done.
	Watch(id int64) (changed <-chan struct{}, stop func())
	// Installation is this database's own name, made once.
	Installation() string
	Ping(ctx context.Context) error
	Close() error
}

var (
	// ErrNotFound is the answer for a job that does not exist.
	ErrNotFound = errors.New("no such job")
	// ErrNotLeading refuses a write of a term that is over; see withTerm.
	ErrNotLeading = errors.New("another sidejob leads by now")
	// ErrBusy is a database that cannot take the call now; the same call may work
	// later.
	ErrBusy = errors.New("the database does not answer, or cannot be written now")
	// ErrUnsure is a commit without an answer: what the call was to do is done, or
	// not. It comes with ErrBusy.
	ErrUnsure = errors.New("the database was lost at the commit")
)

// misfitError refuses a value that a column of the host's table cannot hold.
type misfitError struct{ why string }

func (e *misfitError) Error() string { return e.why }

// Order asks for one job.
type Order struct {
	Job        job.Job
	OnConflict job.OnConflict
	Source     string
}

// Placed is what became of an order: the job, new or kept, or an error.
type Placed struct {
	Job      job.Job
	Existing bool      // the job was there before and was kept
	Canceled []job.Job // jobs that make way
	Err      error
}

// Claim asks for work. At is now; Lease says who asks, for how long, and what the
// tokens begin with.
type Claim struct {
	At       time.Time
	Types    []string // of these types; none: of every one but NotTypes
	NotTypes []string
	ID       int64 // this one job; 0: any
	Limit    int
	Lease    job.Lease
}

// RipeRow is a row to which the clock alone makes something happen.
type RipeRow struct {
	ID   int64
	Kind job.Kind
}

// Heard is one verified event.
type Heard struct {
	EventIDs []string // every id it goes by; one that was heard before is enough
	JobID    int64    // the row whose run it is proved to be; 0: found by the run's id
	Event    job.Event
}

// Filter selects jobs; zero members do not filter.
type Filter struct {
	Executor                    job.Executor
	Status                      job.Status
	Type, Tag, Name, Label      string
	UserID                      *int64
	Finished, Success           *bool
	Recurring                   *bool
	ScheduleID                  int64
	CreatedAfter, CreatedBefore time.Time
	ByDue                       bool // soonest due first; else newest first: by id, those of a period by their time
	Cursor                      Cursor
	Limit                       int
}

// Cursor is where a page ends. The zero Cursor is the beginning. The times are
// microseconds, which a host's own rows may have.
type Cursor struct {
	ID      int64 `json:"i"`
	Due     int64 `json:"d,omitempty"`
	Created int64 `json:"c,omitempty"`
}

// Page is one page of a list. Next is zero on the last one.
type Page struct {
	Jobs []job.Job
	Next Cursor
}

// Entry is one line of a job's history.
type Entry struct {
	ID           int64
	At           time.Time
	Kind, Source string
	From, To     string
	Detail       json.RawMessage
}

// ReplyKey names a request that carried an Idempotency-Key; empty for others.
type ReplyKey string

// Keyed is a request that carried an Idempotency-Key, and the process that carries it
// out; zero for others.
type Keyed struct {
	Key   ReplyKey
	Owner string
}

// Reservation is a request about to be carried out by the process Owner. Digest is
// of its body. Over says that this process carries out no earlier request with the key,
// whatever the database says.
type Reservation struct {
	Key    ReplyKey
	Digest string
	Owner  string
	At     time.Time
	Over   bool
}

// Reply is what is kept of a request. Status 0: it was not answered; JobIDs are the
// jobs it had made by then.
type Reply struct {
	Status  int
	Headers map[string]string
	Body    []byte
	JobIDs  []int64 // in the order of the request; 0 for one that was refused
}

var (
	// ErrReplyUnderWay says a request with this key is being carried out now.
	ErrReplyUnderWay = errors.New("a request with this Idempotency-Key is under way")
	// ErrReplyMismatch says the key was used for another body.
	ErrReplyMismatch = errors.New("this Idempotency-Key was used with another body")
)

// How long things beside the jobs are kept.
const (
	replyLife   = 24 * time.Hour
	inboxLife   = 24 * time.Hour     // an event that matches no run
	eventIDLife = 7 * 24 * time.Hour // the id of an event, against replay
)

// Stats counts the jobs by executor and status, and what is owed.
type Stats struct {
	Jobs           map[job.Executor]map[job.Status]int64
	Owed           int64
	OldestOwed     time.Time // zero when nothing is owed
	CancelsPending int64
	OldestSynced   time.Time // of the unfinished trigger jobs with a run
}

// Leader is who does the periodic work of a database. Where a sidejob has the database
// to itself, nobody is named.
type Leader struct {
	Owner     string // "": nobody
	Term      int64
	Instances int // sidejobs that were seen within the last moments
}

type termKey struct{}

// withTerm binds what is written under the context to a term of the lead: once another
// has taken over, it is refused with ErrNotLeading.
func withTerm(ctx context.Context, term int64) context.Context {
	return context.WithValue(ctx, termKey{}, term)
}

func termOf(ctx context.Context) (term int64, bound bool) {
	term, bound = ctx.Value(termKey{}).(int64)
	return term, bound
}

// historyDetail is what a line of history says of an event beyond its kind. It
// holds no payload and no result.
func historyDetail(ev job.Event, was, is job.Job) map[string]any {
	d := map[string]any{}
	put := func(key, value string) {
		if value != "" {
			d[key] = value
		}
	}
	put("reason", ev.Reason)
	put("error", ev.Err)
	put("run", ev.Run.ID)
	put("status", ev.Run.Raw)
	put("schedule", ev.ScheduleID)
	if ev.Kind == job.Missed {
		put("nominal", was.Due.Format(timeLayout))
	}
	put("worker", ev.Lease.Owner)
	if ev.Kind == job.Seen && was.Done() && was.TriggerStatus != is.TriggerStatus {
		put("before", string(was.TriggerStatus))
	}
	if ev.Kind == job.Seen && is.CancelRequested && is.Done() {
		put("cancel", cancelReceipt(is))
	}
	if is.Attempt > 0 {
		d["attempt"] = is.Attempt
	}
	if !ev.Run.Finished.IsZero() {
		d["remoteAt"] = ev.Run.Finished.UTC().Format(timeLayout)
	}
	if !ev.NextTry.IsZero() {
		d["nextTry"] = ev.NextTry.UTC().Format(timeLayout)
	}
	return d
}

// cancelReceipt is what became of a cancel, once Trigger.dev has said how the run
// ended.
func cancelReceipt(j job.Job) string {
	if j.Status() == job.Canceled {
		return "confirmed"
	}
	return "too late"
}

func notFound(id int64) error { return fmt.Errorf("job %d: %w", id, ErrNotFound) }
