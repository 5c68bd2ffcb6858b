package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// move is one call of Next: what was, what happened, what is.
type move struct {
	was  Job
	ev   Event
	step Step
	is   Job
	err  error
}

func (m move) same() bool { return reflect.DeepEqual(m.was, m.is) }

// invariant is what holds for every move, whatever happened before.
type invariant struct {
	name  string
	holds func(move) bool
}

func invariants() []invariant {
	return []invariant{
		{"a run id once set never changes", func(m move) bool {
			return m.was.RunID == "" || m.is.RunID == m.was.RunID
		}},
		{"a row gets its run from a submit or an event", func(m move) bool {
			return m.is.RunID == m.was.RunID || m.ev.Kind == Submitted || m.ev.Kind == Told
		}},
		{"a final state that Trigger.dev has confirmed never changes", func(m move) bool {
			return m.was.Confirmed.IsZero() || m.same()
		}},
		{"a final internal job never changes", func(m move) bool {
			return !m.was.Done() || m.was.Executor == Trigger || m.same()
		}},
		{"a job without a run that has ended never changes", func(m move) bool {
			return !m.was.Done() || m.was.RunID != "" || m.same()
		}},
		{"only Trigger.dev's answers change a job that an event closed", func(m move) bool {
			return !m.was.Done() || m.ev.Kind == Seen || m.ev.Kind == Missing || m.same()
		}},
		{"only a seen orphan is opened again", func(m move) bool {
			return !m.was.Done() || m.is.Done() || (m.was.State() == StateOrphaned && m.ev.Kind == Seen)
		}},
		{"only an answer of Trigger.dev leads a run back", func(m move) bool {
			return rank(m.is.TriggerStatus) >= rank(m.was.TriggerStatus) || m.ev.Kind == Seen
		}},
		{"finished and success are set together, as the schema demands", func(m move) bool {
			return m.is.Finished.IsZero() == (m.is.Success == nil)
		}},
		{"only an ended job has a result, and it is JSON", func(m move) bool {
			return m.is.Result == nil || (m.is.Done() && json.Valid(m.is.Result))
		}},
		{"removeAt counts from due, then from finished", func(m move) bool {
			from := m.is.Due
			if m.is.Done() {
				from = m.is.Finished
			}
			return m.is.RemoveAt.Equal(from.Add(DefaultRemoveDelay))
		}},
		{"the state is known and agrees with the status", func(m move) bool {
			status, known := statuses()[m.is.State()]
			return known && m.is.Status() == status && m.is.Done() == status.Final()
		}},
		{"only trigger jobs have a triggerStatus, the one callers see", func(m move) bool {
			if m.is.Executor != Trigger {
				return m.is.TriggerStatus == "" && m.is.RunID == ""
			}
			return m.is.TriggerStatus == m.is.Status()
		}},
		{"no open trigger job is forgotten", func(m move) bool {
			rests := m.is.IsSchedule() && (m.is.FireLocally || m.is.ScheduleSettled && m.is.ScheduleID != "")
			return m.is.Done() || m.is.Executor != Trigger || m.is.Owes() || m.is.Asked() || rests
		}},
		{"what is unchanged is the same", func(m move) bool {
			return m.step.Changed || m.same()
		}},
		{"what changes says when", func(m move) bool {
			return !m.step.Changed || m.is.Updated.Equal(m.ev.At)
		}},
		{"quiet changes leave the state alone, but for a submit's hold", func(m move) bool {
			return !m.step.Quiet || m.is.State() == m.was.State() || m.ev.Kind == Send
		}},
		{"news is never refused", func(m move) bool {
			return m.err == nil || (errors.Is(m.err, ErrRefused) && !isNews(m.ev.Kind))
		}},
		{"what is refused changes nothing", func(m move) bool {
			return m.err == nil || reflect.DeepEqual(m.step, Step{Job: m.was})
		}},
		{"a cancel is never taken back", func(m move) bool {
			return !m.was.CancelRequested || (m.is.CancelRequested && m.is.CancelReason == m.was.CancelReason)
		}},
		{"a live lease of a worker goes to nobody else", func(m move) bool {
			return m.was.Executor == Trigger || !m.was.leased(m.ev.At) ||
				m.ev.Lease.Token == m.was.LeaseToken || m.is.LeaseToken == m.was.LeaseToken
		}},
		{"attempts are not negative", func(m move) bool { return m.is.Attempt >= 0 }},
		{"a trigger job's attempts never count down", func(m move) bool {
			return m.is.Executor != Trigger || m.is.Attempt >= m.was.Attempt
		}},
		{"a row that follows is open, new, and says whence", func(m move) bool {
			f := m.step.Follow
			return f == nil || (f.ID == 0 && f.RescheduledFrom == m.is.ID && !f.Done() && !f.CancelRequested && f.Started.IsZero() &&
				f.LeaseToken == "" && f.Missed.IsZero() && !f.LastOccurrence && f.Created.Equal(m.ev.At) &&
				f.RemoveAt.Equal(f.Due.Add(DefaultRemoveDelay)))
		}},
		{"only a run that Trigger.dev has made is more than asked for", func(m move) bool {
			f := m.step.Follow
			if f == nil {
				return true
			}
			if m.was.OnTrigger() && m.ev.Kind == Fired {
				return f.State() == StateQueued && f.RunID == m.ev.Run.ID
			}
			fresh := []State{StateWaiting, StatePaused, StateUnsent, StateScheduling, StateScheduled}
			return f.RunID == "" && f.ScheduleID == m.is.ScheduleID[:0] && slices.Contains(fresh, f.State())
		}},
		{"only a failure, a wish or a schedule makes a row follow", func(m move) bool {
			return m.step.Follow == nil || m.ev.Kind == Retry || m.was.IsSchedule() && m.ev.Kind == Fired ||
				m.is.Done() && !m.was.Recurs() && m.is.AutoReschedule && m.is.Status() == Failed && !m.is.CancelRequested ||
				m.is.Done() && m.was.Recurs() && !m.was.IsSchedule()
		}},
	}
}

// recurring is what holds for recurring jobs besides.
func recurring() []invariant {
	return []invariant{
		{"a schedule never gets a run", func(m move) bool {
			return !m.is.IsSchedule() || m.is.RunID == "" && !m.is.Asked() && !m.is.InDoubt()
		}},
		{"an internal recurring job that ends has a follower unless it was ended", func(m move) bool {
			if !m.was.Recurs() || m.was.Executor == Trigger || m.was.Done() || !m.is.Done() {
				return true
			}
			stops := m.ev.Kind == End || m.was.LastOccurrence || m.ev.Kind == Cancel && (m.was.LeaseToken == "" || m.ev.Replaced)
			return (m.step.Follow == nil) == stops && (stops || m.step.OnConflict == Beside && m.step.Follow.Recurs())
		}},
		{"an occurrence that goes on has no follower", func(m move) bool {
			return !m.was.Recurs() || m.was.Executor == Trigger || m.is.Done() || m.step.Follow == nil
		}},
		{"the next nominal time is one, and later than the one before; a try is not earlier", func(m move) bool {
			f := m.step.Follow
			if f == nil || !f.Recurs() || f.IsSchedule() {
				return true
			}
			if f.Attempt > 0 {
				return m.is.Status() == Failed && !f.Due.Before(m.was.Due)
			}
			return f.Due.After(m.was.Due) && isNominal(*f)
		}},
		{"what follows belongs to the same recurring job", func(m move) bool {
			f := m.step.Follow
			return f == nil || !m.was.Recurs() || m.was.IsSchedule() && m.ev.Kind == Retry || f.ScheduleRow == m.was.Recurring()
		}},
		{"no nominal time comes back", func(m move) bool { return !m.is.Due.Before(m.was.Due) }},
		{"only recurring jobs move on in time, to a nominal one", func(m move) bool {
			return m.is.Due.Equal(m.was.Due) || m.was.Recurs() && isNominal(m.is)
		}},
		{"what is fired here is fired once, at its own time", func(m move) bool {
			if !m.was.IsSchedule() || !m.was.FireLocally || m.ev.Kind != Fired || m.step.Follow == nil {
				return true
			}
			f := m.step.Follow
			return f.Due.Equal(m.was.Due) && !f.Due.After(m.ev.At) && m.is.Due.After(f.Due) && !f.Recurs() && !m.was.Paused
		}},
		{"what is claimed is not skipped, and what is skipped can be claimed in time", func(m move) bool {
			if m.ev.Kind == Claim && m.err == nil {
				return !m.was.skips(m.ev.At)
			}
			return m.ev.Kind != Missed || m.is.Paused || m.is.Done() || m.is.OnTrigger() || !m.is.skips(m.ev.At)
		}},
		{"a missed job is one that waits", func(m move) bool {
			return m.is.Missed.IsZero() || m.is.Done() || m.is.Recurs() && !m.is.Paused && (m.is.IsSchedule() || m.is.LeaseToken == "")
		}},
		{"only a recurring job pauses, and the last occurrence does not rest", func(m move) bool {
			return !m.is.Paused || m.is.Recurs() && !m.is.LastOccurrence
		}},
	}
}

// isNominal tells whether the job is due at a time that its expression names.
func isNominal(j Job) bool { return firstDue(j, j.Due).Equal(j.Due) }

// statuses says how callers see each state.
func statuses() map[State]Status {
	return map[State]Status{
		StateWaiting: Pending, StateLeased: Executing, StatePaused: Pending,
		StateScheduling: Pending, StateScheduled: Pending, StateEnding: Pending,
		StateUnsent: Pending, StateSending: Pending, StateSendingCanceling: Pending,
		StateQueued: Pending, StateQueuedCanceling: Pending,
		StateRunning: Executing, StateRunningCanceling: Executing,
		StateToldCompleted: Completed, StateToldFailed: Failed, StateToldCanceled: Canceled, StateOrphaned: Failed,
		StateCompleted: Completed, StateFailed: Failed, StateCanceled: Canceled,
	}
}

func requests() []Kind {
	return []Kind{Cancel, Send, Claim, Renew, Complete, Fail, Release, Retry, End, Pause, Resume}
}

func newsKinds() []Kind {
	return []Kind{
		Submitted, Refused, Unreached, Stopping, Told, Seen, Missing, LeaseLost,
		Fired, Missed, Scheduled, Drifted, Unscheduled,
	}
}

func isNews(k Kind) bool { return slices.Contains(newsKinds(), k) }

// The walks begin in every state, so that each is left in every way.
func TestInvariantsHoldOnRandomWalks(t *testing.T) {
	all := append(invariants(), recurring()...)
	fromEveryState(t, 150, func(t *testing.T, d dice, j Job) {
		j = drawPolicies(d, j)
		for range 1 + d.IntN(40) {
			m := call(t, j, drawEvent(d, j))
			for _, inv := range all {
				if !inv.holds(m) {
					t.Fatalf("%s: broken by %+v\nwas %s %+v\nis  %s %+v\nfollow %+v, err %v",
						inv.name, m.ev, m.was.State(), m.was, m.is.State(), m.is, m.step.Follow, m.err)
				}
			}
			j = m.is
		}
	})
}

// dice are thrown the same way in every run of the tests.
type dice struct{ *rand.Rand }

func (d dice) coin() bool { return d.IntN(2) == 0 }

func pick[T any](d dice, from ...T) T { return from[d.IntN(len(from))] }

// fromEveryState calls walk so many times for a job of each state, each time with
// dice of their own.
func fromEveryState(t *testing.T, times int, walk func(*testing.T, dice, Job)) {
	t.Helper()
	for i, s := range samples(t) {
		t.Run(fmt.Sprintf("%s %s, cron %q", s.job.Executor, s.state, s.job.CronSchedule), func(t *testing.T) {
			for seed := range times {
				walk(t, dice{rand.New(rand.NewPCG(uint64(i), uint64(seed)))}, s.job)
			}
		})
	}
}

// call asks Next twice, and checks that it answers the same both times and leaves
// its arguments alone.
func call(t *testing.T, j Job, ev Event) move {
	t.Helper()
	was, given := deepCopy(j), ev
	given.Result, given.Run.Output, given.Run.Error = bytes.Clone(ev.Result), bytes.Clone(ev.Run.Output), bytes.Clone(ev.Run.Error)
	step, err := Next(j, ev)
	if !reflect.DeepEqual(was, j) || !reflect.DeepEqual(given, ev) {
		t.Fatalf("%s on a job that was %s: the arguments changed (-was +is)\n%s%s",
			ev.Kind, was.State(), cmp.Diff(was, j), cmp.Diff(given, ev))
	}
	again, errAgain := Next(j, ev)
	if !reflect.DeepEqual(step, again) || !reflect.DeepEqual(err, errAgain) {
		t.Fatalf("%s on a job that was %s: two answers (-first +second), %v, %v\n%s",
			ev.Kind, was.State(), err, errAgain, cmp.Diff(step, again))
	}
	return move{was: was, ev: ev, step: step, is: step.Job, err: err}
}

func deepCopy(j Job) Job {
	j.Data, j.Result, j.Metadata = bytes.Clone(j.Data), bytes.Clone(j.Result), bytes.Clone(j.Metadata)
	j.Labels = slices.Clone(j.Labels)
	if j.Success != nil {
		success := *j.Success
		j.Success = &success
	}
	if j.Retry != nil {
		retry := *j.Retry
		j.Retry = &retry
	}
	return j
}

// A 404 is left out: each is an answer of its own, and they are counted. That a run
// which Trigger.dev has fired is known already is seen by the store. A schedule that
// makes up for all fires one nominal time after the other, but none twice.
func TestNewsHeardTwiceChangesNothingTheSecondTime(t *testing.T) {
	kinds := slices.DeleteFunc(newsKinds(), func(k Kind) bool { return k == Missing })
	fromEveryState(t, 500, func(t *testing.T, d dice, j Job) {
		j = drawPolicies(d, j)
		ev := drawEvent(d, j)
		ev.Kind = pick(d, kinds...)
		once := call(t, j, ev)
		twice := call(t, once.is, ev)
		if j.OnTrigger() && ev.Kind == Fired {
			twice.step.Follow = nil
		}
		if j.FireLocally && j.Misfire == FireAll && ev.Kind == Fired {
			if f := twice.step.Follow; f != nil && !f.Due.After(once.step.Follow.Due) {
				t.Fatalf("fired twice: got due %v and %v, want one later than the other", once.step.Follow.Due, f.Due)
			}
			return
		}
		if twice.step.Follow != nil {
			t.Fatalf("%s on a job that was %s: got a second row to follow, want one at most", ev.Kind, j.State())
		}
		twice.is.Tries = once.is.Tries // counts each try, and nobody sees it
		if !reflect.DeepEqual(once.is, twice.is) {
			t.Fatalf("%s %s on a job that was %s: (-once +twice)\n%s",
				ev.Kind, ev.Run.Raw, j.State(), cmp.Diff(once.is, twice.is))
		}
	})
}

func TestTheOrderOfNewsIsForgottenWhenTriggerDevNamesTheEnd(t *testing.T) {
	fromEveryState(t, 200, func(t *testing.T, d dice, j Job) {
		if j.Executor != Trigger || j.IsSchedule() || (j.RunID == "" && j.Done()) || !j.Confirmed.IsZero() {
			return // no run's news changes it
		}
		j = drawPolicies(d, j)
		events := []Event{submitted()}
		for range 1 + d.IntN(8) {
			events = append(events, drawNewsOfRun(d))
		}
		last := seen(pick(d, finalWords()...), whole)
		one := walk(t, j, shuffled(d, events), last)
		other := walk(t, j, shuffled(d, events), last)
		if show(one.is) != show(other.is) {
			t.Fatalf("seen %s after two orders of %+v: (-one +other)\n%s",
				last.Run.Raw, events, cmp.Diff(show(one.is), show(other.is)))
		}
		if got, want := one.is.Status(), StatusOf(last.Run.Raw); got != want || one.is.Unconfirmed() {
			t.Fatalf("status, unconfirmed: got %s, %v, want %s, false", got, one.is.Unconfirmed(), want)
		}
		if (one.step.Follow == nil) != (other.step.Follow == nil) {
			t.Fatalf("follow: got %v after one order, %v after another", one.step.Follow, other.step.Follow)
		}
	})
}

func shuffled(d dice, events []Event) []Event {
	events = slices.Clone(events)
	d.Shuffle(len(events), func(i, k int) { events[i], events[k] = events[k], events[i] })
	return events
}

// walk applies the events and then the last one, which it returns.
func walk(t *testing.T, j Job, events []Event, last Event) move {
	t.Helper()
	for _, ev := range events {
		j = call(t, j, timed(j, ev)).is
	}
	return call(t, j, timed(j, last))
}

// drawNewsOfRun is any event, or an answer that does not name the end.
func drawNewsOfRun(d dice) Event {
	ev := told(pick(d, allWords()...).raw)
	if !FinalStatus(ev.Run.Raw) && d.coin() {
		ev.Kind = Seen
	}
	ev.Run.Attempts = d.IntN(3)
	if d.coin() {
		whole(&ev.Run)
	}
	return ev
}

func finalWords() (words []string) {
	for _, w := range allWords() {
		if w.status.Final() {
			words = append(words, w.raw)
		}
	}
	return words
}

// drawPolicies gives the job policies at random. What they say does not change the
// state it is in.
func drawPolicies(d dice, j Job) Job {
	j.AutoReschedule = d.coin()
	if d.coin() {
		j.Retry = &RetryConfig{MaxAttempts: d.IntN(5)}
	}
	if j.Recurs() {
		j.Misfire, j.MisfireLimit = pick(d, "", FireOnce, FireSkip, FireAll), d.IntN(4)
		j.CronSchedule = pick(d, j.CronSchedule, "* * * * *", "30 2 * * *", "*/10 * * * * *")
		j.Timezone = pick(d, "UTC", "Europe/Rome", "")
		if !j.Done() {
			j = withDue(j, firstDue(j, j.Due))
		}
	}
	return j
}

func drawEvent(d dice, j Job) Event {
	words := append(allWords(), word{raw: "LEVITATING"}, word{})
	ev := Event{
		Kind:     pick(d, append(requests(), newsKinds()...)...),
		At:       j.Updated.Add(pick(d, 0, time.Second, 15*time.Second, time.Minute, OrphanAge, -time.Second)),
		Replaced: d.coin(), CarriedOver: d.coin(), Active: d.coin(), ScheduleID: pick(d, "sched_1", "sched_1", "sched_2", ""),
		Nominal: pick(d, j.Due, j.Due, dueAfter(j, j.Due), j.Due.Add(-time.Hour), time.Time{}),
		Source:  "test", Reason: pick(d, "", "by a user"), Result: drawJSON(d), Random: d.Float64(),
		Lease: Lease{Token: pick(d, "", token, "token two"), Owner: "one", For: hold},
		Err:   "no route to host", InDoubt: d.coin(), NextTry: second(9000),
		Key: "job-late", Task: "late-task", KeyProved: d.coin(),
		Run: Run{
			ID: pick(d, runID, runID, runID, "run_2", ""), Raw: pick(d, words...).raw,
			Output: drawJSON(d), Error: drawJSON(d), Attempts: d.IntN(4), AttemptID: "attempt",
			Environment: pick(d, "env_1", "env_1", "env_2", ""),
		},
	}
	if d.coin() {
		ev.Run.Started, ev.Run.Finished = second(10), second(20)
	}
	if j.Recurs() && d.coin() {
		ev.At = j.Due.Add(pick(d, 0, time.Second, time.Minute, Grace+time.Millisecond, FireGrace, time.Hour, 100*time.Hour, -time.Second))
	}
	return ev
}

func drawJSON(d dice) json.RawMessage {
	return json.RawMessage(pick(d, `null`, `0`, `""`, `{"message":"boom"}`))
}
