package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"sidejob/internal/job"
)

// storeTest is a fresh store under test, and a connection to its database such as a
// host app has.
type storeTest struct {
	*testing.T
	Store
	host *sql.DB
}

// at is a time so many milliseconds after the tests begin.
func (s storeTest) at(ms int64) time.Time { return time.UnixMilli(1_772_366_400_000 + ms).UTC() }

// literal is a time as the engine's SQL writes it.
func (s storeTest) literal(t time.Time) string {
	if s.Alone() {
		return fmt.Sprint(t.UnixMilli())
	}
	return t.Format("'" + time.RFC3339Nano + "'")
}

// newJob is a job as a caller asks for it, not stored yet.
func (s storeTest) newJob(executor job.Executor, tag string) job.Job {
	s.Helper()
	spec := job.Spec{Tag: tag, Type: "work", Executor: executor}
	if executor == job.Trigger {
		spec.TriggerTask = "task"
	}
	j, _, err := job.New(spec, s.at(0), uuid.NewString())
	if err != nil {
		s.Fatalf("make a job: %v", err)
	}
	return j
}

// place schedules one job that must not be refused.
func (s storeTest) place(j job.Job, onConflict job.OnConflict) Placed {
	s.Helper()
	placed, err := s.Schedule(s.Context(), []Order{{Job: j, OnConflict: onConflict, Source: "test"}}, Keyed{})
	if err != nil || len(placed) != 1 || placed[0].Err != nil {
		s.Fatalf("schedule %s: got %+v, error %v; want one job", j.Tag, placed, err)
	}
	return placed[0]
}

func (s storeTest) put(executor job.Executor, tag string) job.Job {
	s.Helper()
	return s.place(s.newJob(executor, tag), job.Replace).Job
}

// happen applies events that must not be refused and returns the job after them.
func (s storeTest) happen(id int64, events ...job.Event) job.Job {
	s.Helper()
	var j job.Job
	for _, ev := range events {
		step, err := s.Apply(s.Context(), id, ev)
		if err != nil {
			s.Fatalf("apply %s to job %d: %v", ev.Kind, id, err)
		}
		j = step.Job
	}
	return j
}

func (s storeTest) hear(eventID string, ev job.Event) (matched bool) {
	s.Helper()
	matched, err := s.Hear(s.Context(), Heard{EventIDs: []string{eventID}, Event: ev})
	if err != nil {
		s.Fatalf("hear event %s: %v", eventID, err)
	}
	return matched
}

func (s storeTest) get(id int64) job.Job {
	s.Helper()
	j, err := s.Get(s.Context(), id)
	if err != nil {
		s.Fatalf("get job %d: %v", id, err)
	}
	return j
}

func (s storeTest) history(id int64) []Entry {
	s.Helper()
	entries, err := s.History(s.Context(), id)
	if err != nil {
		s.Fatalf("history of job %d: %v", id, err)
	}
	return entries
}

// told is the history of a job, a line each: kind, and the states before and after.
func (s storeTest) told(id int64) []string {
	s.Helper()
	lines := []string{}
	for _, e := range s.history(id) {
		lines = append(lines, fmt.Sprintf("%s: %s > %s", e.Kind, e.From, e.To))
	}
	return lines
}

func (s storeTest) list(f Filter) []job.Job {
	s.Helper()
	page, err := s.List(s.Context(), f)
	if err != nil {
		s.Fatalf("list %+v: %v", f, err)
	}
	return page.Jobs
}

// listed are the ids of every job that the filter selects, in the filter's order.
func (s storeTest) listed(f Filter) []int64 {
	s.Helper()
	return jobIDs(s.list(f))
}

// sweep removes at most limit jobs and must remove as many as wanted.
func (s storeTest) sweep(at time.Time, exclude []int64, limit int, want int64) {
	s.Helper()
	if n, err := s.Remove(s.Context(), at, exclude, limit); n != want || err != nil {
		s.Errorf("remove at %s: got %d, error %v; want %d", at, n, err, want)
	}
}

// narrow tells of a host's table, whose own numbers have 32 bits.
func (s storeTest) narrow() bool {
	of, ok := s.Store.(*sqlStore)
	return ok && of.dialect.host["user_id"].int4
}

func (s storeTest) largestUser() int64 {
	if s.narrow() {
		return math.MaxInt32
	}
	return math.MaxInt64
}

func (s storeTest) hostExec(query string) {
	s.Helper()
	if _, err := s.host.ExecContext(s.Context(), query); err != nil {
		s.Fatalf("the host's statement %s: %v", query, err)
	}
}

// same compares deeply and shows both sides as JSON.
func (s storeTest) same(what string, got, want any) {
	s.Helper()
	if !reflect.DeepEqual(got, want) {
		s.Errorf("%s:\n got %s\nwant %s", what, shownJSON(got), shownJSON(want))
	}
}

// sameJob compares two jobs and names the members in which they differ.
func (s storeTest) sameJob(what string, got, want job.Job) {
	s.Helper()
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		if a, b := g.Field(i).Interface(), w.Field(i).Interface(); !reflect.DeepEqual(a, b) {
			s.Errorf("%s: %s: got %s, want %s", what, g.Type().Field(i).Name, shownJSON(a), shownJSON(b))
		}
	}
}

func shownJSON(v any) string {
	if raw, ok := v.(json.RawMessage); ok {
		v = string(raw)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%+v", v)
	}
	const most = 2000
	return string(text[:min(len(text), most)])
}

// together runs do in n goroutines at once and waits for them.
func (s storeTest) together(n int, do func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { do(i) })
	}
	all.Wait()
}

// jobIn is a stored job that has come into the state by the events that lead there.
func (s storeTest) jobIn(executor job.Executor, state job.State, tag string) job.Job {
	s.Helper()
	j := s.putFor(executor, state, tag)
	s.happen(j.ID, s.wayTo(executor, state, "run_"+tag)...)
	j = s.get(j.ID)
	if j.State() != state {
		s.Fatalf("job %s is %q, want %q", tag, j.State(), state)
	}
	return j
}

// putFor is a job that can come into the state: some only a recurring one knows.
func (s storeTest) putFor(executor job.Executor, state job.State, tag string) job.Job {
	s.Helper()
	j := s.newJob(executor, tag)
	if slices.Contains([]job.State{job.StatePaused, job.StateScheduling, job.StateScheduled, job.StateEnding}, state) {
		j.CronSchedule = "0 0 * * *"
	}
	return s.place(j, job.Replace).Job
}

// wayTo are the events that lead a new job into the state.
func (s storeTest) wayTo(executor job.Executor, state job.State, run string) []job.Event {
	lease := job.Lease{Token: "token-" + run, Owner: "worker", For: time.Minute}
	cancel := job.Event{Kind: job.Cancel, At: s.at(50), Source: "user"}
	claim := job.Event{Kind: job.Claim, At: s.at(10), Source: "worker", Lease: lease}
	if executor == job.Internal {
		return map[job.State][]job.Event{
			job.StateWaiting:   {},
			job.StatePaused:    {{Kind: job.Pause, At: s.at(10), Source: "api"}},
			job.StateLeased:    {claim},
			job.StateCompleted: {claim, {Kind: job.Complete, At: s.at(20), Lease: lease, Result: json.RawMessage(`{"n":1}`)}},
			job.StateFailed:    {claim, {Kind: job.Fail, At: s.at(20), Lease: lease, Result: json.RawMessage(`"bad"`)}},
			job.StateCanceled:  {cancel},
		}[state]
	}
	send := job.Event{Kind: job.Send, At: s.at(10), Source: "submit", Lease: lease}
	submitted := job.Event{Kind: job.Submitted, At: s.at(20), Source: "submit", Run: job.Run{ID: run, Environment: "env_1"}}
	told := func(raw string) job.Event {
		return job.Event{Kind: job.Told, At: s.at(30), Source: "event", Run: job.Run{ID: run, Raw: raw}}
	}
	seen := func(raw string) job.Event {
		return job.Event{Kind: job.Seen, At: s.at(60), Source: "sync", Run: job.Run{ID: run, Raw: raw}}
	}
	missing := func(ms int64) job.Event {
		return job.Event{Kind: job.Missing, At: s.at(ms), Source: "sync", Run: job.Run{ID: run, Environment: "env_1"}, KeyProved: true}
	}
	scheduled := job.Event{Kind: job.Scheduled, At: s.at(20), Source: "schedule", ScheduleID: "sched_" + run, Active: true}
	pause := job.Event{Kind: job.Pause, At: s.at(30), Source: "api"}
	return map[job.State][]job.Event{
		job.StateScheduling:       {send},
		job.StateScheduled:        {send, scheduled},
		job.StatePaused:           {send, scheduled, pause, {Kind: job.Scheduled, At: s.at(40), ScheduleID: "sched_" + run}},
		job.StateEnding:           {send, scheduled, cancel},
		job.StateUnsent:           {},
		job.StateSending:          {send},
		job.StateSendingCanceling: {send, cancel},
		job.StateQueued:           {send, submitted},
		job.StateQueuedCanceling:  {send, submitted, cancel},
		job.StateRunning:          {send, submitted, told("EXECUTING")},
		job.StateRunningCanceling: {send, submitted, told("EXECUTING"), cancel},
		job.StateToldCompleted:    {send, submitted, told("COMPLETED")},
		job.StateToldFailed:       {send, submitted, told("FAILED")},
		job.StateToldCanceled:     {send, submitted, told("CANCELED")},
		job.StateOrphaned:         {send, submitted, missing(100), missing(200), missing(700_000)},
		job.StateCompleted:        {send, submitted, seen("COMPLETED")},
		job.StateFailed:           {send, submitted, seen("FAILED")},
		job.StateCanceled:         {send, submitted, cancel, seen("CANCELED")},
	}[state]
}

// states are all the states that a job of the executor can be in.
func (s storeTest) states(executor job.Executor) []job.State {
	if executor == job.Internal {
		return []job.State{job.StateWaiting, job.StatePaused, job.StateLeased, job.StateCompleted, job.StateFailed, job.StateCanceled}
	}
	return []job.State{
		job.StateScheduling, job.StateScheduled, job.StatePaused, job.StateEnding,
		job.StateUnsent, job.StateSending, job.StateSendingCanceling, job.StateQueued, job.StateQueuedCanceling,
		job.StateRunning, job.StateRunningCanceling, job.StateToldCompleted, job.StateToldFailed, job.StateToldCanceled,
		job.StateOrphaned, job.StateCompleted, job.StateFailed, job.StateCanceled,
	}
}

// jobInEachState stores one job for every state of both executors.
func (s storeTest) jobInEachState() []job.Job {
	s.Helper()
	return append(s.jobInEachStateOf(job.Internal), s.jobInEachStateOf(job.Trigger)...)
}

func (s storeTest) jobInEachStateOf(executor job.Executor) (jobs []job.Job) {
	s.Helper()
	for _, state := range s.states(executor) {
		jobs = append(jobs, s.jobIn(executor, state, string(executor)+"-"+strings.ReplaceAll(string(state), " ", "-")))
	}
	return jobs
}

func jobIDs(jobs []job.Job) []int64 {
	got := []int64{}
	for _, j := range jobs {
		got = append(got, j.ID)
	}
	return got
}
