package job

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// clock is a time of the day on which the tests' jobs are made, at 08:00:00.
func clock(text string) time.Time {
	at, err := time.Parse(time.DateTime, "2026-03-01 "+text)
	if err != nil {
		panic(err)
	}
	return at
}

func recurs(expression string) func(*Spec) { return func(s *Spec) { s.CronSchedule = expression } }

func misfire(m Misfire, limit int) func(*Spec) {
	return func(s *Spec) { s.Misfire, s.MisfireLimit = m, limit }
}

// everyMinute is a recurring internal job that is due at 08:00:00.
func everyMinute(t *testing.T, edit ...func(*Spec)) Job {
	t.Helper()
	return internalJob(t, append([]func(*Spec){recurs("* * * * *")}, edit...)...)
}

func ended(reason string) Event { return Event{Kind: End, Reason: reason} }
func pause() Event              { return Event{Kind: Pause} }
func resume() Event             { return Event{Kind: Resume} }
func missed() Event             { return Event{Kind: Missed} }

// follower is the row that follows, as the store inserts it.
func follower(t *testing.T, step Step) Job {
	t.Helper()
	if step.Follow == nil {
		t.Fatalf("%s at %s: got no row that follows, want one", step.Job.State(), step.Job.Updated.Format(time.TimeOnly))
	}
	j := *step.Follow
	j.ID = step.Job.ID + 1
	return j
}

func hasNoFollower(t *testing.T, step Step) {
	t.Helper()
	if step.Follow != nil {
		t.Errorf("follow: got one due %v, want none", step.Follow.Due)
	}
}

func isDue(t *testing.T, j Job, want time.Time) {
	t.Helper()
	if !j.Due.Equal(want) {
		t.Errorf("due: got %s, want %s", j.Due.Format(time.RFC3339Nano), want.Format(time.RFC3339Nano))
	}
	if want := j.Due.Add(j.removeDelay()); !j.Done() && !j.RemoveAt.Equal(want) {
		t.Errorf("remove at: got %v, want %v, counted from due", j.RemoveAt, want)
	}
}

// ends are the ways in which an occurrence of a recurring job comes to its end.
func ends() map[State][]Event {
	return map[State][]Event{
		StateCompleted: {claim(), at(clock("08:00:10"), complete(`1`))},
		StateFailed:    {claim(), at(clock("08:00:10"), failure(`"no"`))},
		StateCanceled:  {claim(), at(clock("08:00:10"), cancel("by a user"))},
	}
}

func TestEachOccurrenceMakesTheNextHoweverItEnds(t *testing.T) {
	for state, events := range ends() {
		t.Run(string(state), func(t *testing.T) {
			j := everyMinute(t)
			step := next(t, after(t, j, events[0]), events[1])
			hasState(t, step.Job, state)
			f := follower(t, step)
			hasState(t, f, StateWaiting)
			isDue(t, f, clock("08:01:00"))
			if step.OnConflict != Beside || f.RescheduledFrom != j.ID || f.ScheduleRow != j.ID {
				t.Errorf("on conflict, rescheduled from, schedule row: got %q, %d, %d, want beside, 7, 7", step.OnConflict, f.RescheduledFrom, f.ScheduleRow)
			}
			second := follower(t, next(t, after(t, f, at(f.Due, claim())), complete(`2`)))
			isDue(t, second, clock("08:02:00"))
			if second.RescheduledFrom != f.ID || second.ScheduleRow != j.ID || second.Recurring() != j.ID || j.Recurring() != j.ID {
				t.Errorf("rescheduled from, schedule row: got %d, %d, want %d and the first row", second.RescheduledFrom, second.ScheduleRow, f.ID)
			}
		})
	}
}

func TestAnOccurrenceWhoseWorkersKeepDyingMakesTheNext(t *testing.T) {
	j := after(t, everyMinute(t), claim())
	j.Attempt = MaxLostLeases - 1
	again := next(t, j, at(j.LeaseExpires, leaseLost()))
	hasState(t, again.Job, StateWaiting)
	hasNoFollower(t, again)
	j.Attempt = MaxLostLeases
	step := next(t, j, at(j.LeaseExpires, leaseLost()))
	hasState(t, step.Job, StateFailed)
	isDue(t, follower(t, step), clock("08:02:00"))
}

func TestTheNextOccurrenceKeepsEveryPropertyOfTheRecurringJob(t *testing.T) {
	j := everyMinute(t, misfire(FireAll, 5), retries(RetryConfig{MaxAttempts: 1}), reschedules(time.Hour), func(s *Spec) {
		s.Name, s.UserID, s.Persistent, s.RemoveDelay = "chain", 7, true, time.Minute
		s.Timezone, s.Labels = "Europe/Rome", []string{"a"}
	})
	step := next(t, after(t, j, claim()), at(clock("08:00:10"), complete(`1`)))
	want := j
	want.ID, want.RescheduledFrom, want.ScheduleRow = 8, 7, 7
	want.Due, want.RemoveAt = clock("08:01:00"), clock("08:02:00")
	want.Created, want.Updated = clock("08:00:10"), clock("08:00:10")
	equal(t, "the next occurrence", follower(t, step), want)
}

// An early report stands for the nominal time that its row waits for.
func TestAnOccurrenceReportedEarlyIsNotFiredAgain(t *testing.T) {
	j := internalJob(t, recurs("0 9 * * *"))
	step := next(t, j, at(clock("08:30:00"), worker(Complete, "")))
	isDue(t, follower(t, step), clock("09:00:00").AddDate(0, 0, 1))
	step = next(t, internalJob(t, recurs("0 9 * * *"), reschedules(0)), at(clock("08:30:00"), worker(Fail, "")))
	try := follower(t, step)
	isDue(t, try, clock("09:00:00"))
	isDue(t, follower(t, next(t, after(t, try, at(clock("09:00:00"), claim())), complete(`1`))), clock("09:00:00").AddDate(0, 0, 1))
}

func TestNoNominalTimeComesTwiceWhenTheClockIsSetBack(t *testing.T) {
	back := clock("05:00:00")
	for _, m := range []Misfire{"", FireOnce, FireSkip, FireAll} {
		running := after(t, everyMinute(t, misfire(m, 0), reschedules(0)), at(clock("08:00:01"), claim()))
		f := follower(t, next(t, running, at(back, complete(`1`))))
		isDue(t, f, clock("08:01:00"))
		refuses(t, f, at(back, claim()), "it is not due before 2026-03-01T08:01:00Z")
		changesNothing(t, f, at(back, missed()))
		try := follower(t, next(t, running, at(back, failure(`"no"`))))
		isDue(t, try, clock("08:00:00"))
		isDue(t, follower(t, next(t, try, at(back, worker(Complete, "")))), clock("08:01:00"))
	}
}

func TestAFailureIsFollowedByWhicheverIsDueFirst(t *testing.T) {
	for _, c := range []struct {
		name    string
		wait    time.Duration
		want    time.Time
		attempt int
	}{
		{"the try comes first", 20 * time.Second, clock("08:00:30"), 1},
		{"the next nominal time comes first", 70 * time.Second, clock("08:01:00"), 0},
		{"both at once: the nominal one", 50 * time.Second, clock("08:01:00"), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := everyMinute(t, reschedules(c.wait))
			step := next(t, after(t, j, claim()), at(clock("08:00:10"), failure(`"no"`)))
			f := follower(t, step)
			isDue(t, f, c.want)
			if f.Attempt != c.attempt || step.OnConflict != Beside || f.CronSchedule != j.CronSchedule || f.ScheduleRow != j.ID {
				t.Errorf("attempt, on conflict, cron, schedule row: got %d, %q, %q, %d, want %d, beside, that of the job, 7",
					f.Attempt, step.OnConflict, f.CronSchedule, f.ScheduleRow, c.attempt)
			}
			// The try carries the chain on.
			isDue(t, follower(t, next(t, after(t, f, at(f.Due, claim())), complete(`1`))), f.Due.Truncate(time.Minute).Add(time.Minute))
		})
	}
}

func TestMaxAttemptsBoundsTheTriesOfOneOccurrence(t *testing.T) {
	j := internalJob(t, recurs("0 * * * *"), reschedules(0), retries(RetryConfig{MaxAttempts: 2, MinTimeout: 1000}))
	try := follower(t, fails(t, j))
	isDue(t, try, clock("08:00:02"))
	tomorrow := follower(t, fails(t, try))
	isDue(t, tomorrow, clock("09:00:00"))
	if tomorrow.Attempt != 0 {
		t.Errorf("attempt: got %d, want 0: the next occurrence has tries of its own", tomorrow.Attempt)
	}
	isDue(t, follower(t, fails(t, tomorrow)), clock("09:00:02"))
}

func TestATryOnTheSameRowIsNoEndOfTheOccurrence(t *testing.T) {
	step := fails(t, internalJob(t, recurs("0 * * * *"), retries(RetryConfig{MaxAttempts: 2})))
	hasState(t, step.Job, StateWaiting)
	hasNoFollower(t, step)
	isDue(t, step.Job, clock("08:00:00"))
	step = fails(t, step.Job)
	hasState(t, step.Job, StateFailed)
	isDue(t, follower(t, step), clock("09:00:00"))
}

func TestAReleasedOccurrenceMakesNoOther(t *testing.T) {
	step := next(t, after(t, everyMinute(t), claim()), release())
	hasState(t, step.Job, StateWaiting)
	hasNoFollower(t, step)
}

func TestCancelEndsARecurringJobThatWaitsAndOnlyTheOccurrenceThatRuns(t *testing.T) {
	waiting := everyMinute(t)
	step := next(t, waiting, cancel("by a user"))
	hasState(t, step.Job, StateCanceled)
	hasResult(t, step.Job, `{"canceled":true,"error":"by a user"}`)
	hasNoFollower(t, step)

	step = next(t, after(t, waiting, claim()), at(clock("08:00:10"), cancel("by a user")))
	hasState(t, step.Job, StateCanceled)
	f := follower(t, step)
	isDue(t, f, clock("08:01:00"))
	if f.CancelRequested || f.CancelReason != "" {
		t.Errorf("the next occurrence: got cancelRequested %v, reason %q, want neither", f.CancelRequested, f.CancelReason)
	}
	changesNothing(t, step.Job, cancel("again"))
}

func TestARunningOccurrenceThatMakesWayIsTheLast(t *testing.T) {
	ev := cancel(ReplacedReason)
	ev.Replaced = true
	step := next(t, after(t, everyMinute(t), claim()), ev)
	hasState(t, step.Job, StateCanceled)
	hasNoFollower(t, step)
}

func TestEndLetsAWaitingJobEndAndARunningOneGoOn(t *testing.T) {
	for _, waiting := range []Job{everyMinute(t), after(t, everyMinute(t), pause()), after(t, everyMinute(t), claim(), release())} {
		step := next(t, waiting, ended("over"))
		hasState(t, step.Job, StateCanceled)
		hasResult(t, step.Job, `{"canceled":true,"error":"over"}`)
		hasNoFollower(t, step)
		changesNothing(t, step.Job, ended("again"))
	}
	last := after(t, everyMinute(t), claim(), ended("over"))
	hasState(t, last, StateLeased)
	changesNothing(t, last, ended("again"))
	for name, ev := range map[string]Event{"completed": complete(`1`), "failed": failure(`"no"`), "canceled": cancel("")} {
		step := next(t, last, ev)
		if !step.Job.Done() || step.Follow != nil {
			t.Errorf("%s: got %s and follow %v, want its end and nothing more", name, step.Job.State(), step.Follow)
		}
	}
	hasNoFollower(t, next(t, after(t, everyMinute(t, reschedules(0)), claim(), ended("")), failure(`"no"`)))
}

func TestTheLastOccurrenceMayBeTriedAgain(t *testing.T) {
	j := everyMinute(t, retries(RetryConfig{MaxAttempts: 2}))
	j = fails(t, after(t, j, claim(), ended(""), release())).Job
	hasState(t, j, StateWaiting)
	changesNothing(t, j, ended(""))
	step := fails(t, j)
	hasState(t, step.Job, StateFailed)
	hasNoFollower(t, step)
}

// Nobody could resume it.
func TestTheLastOccurrenceOfAPausedJobDoesNotRest(t *testing.T) {
	j := after(t, everyMinute(t), claim(), pause(), ended(""), release())
	hasState(t, j, StateWaiting)
	hasState(t, after(t, j, claim()), StateLeased)
	refuses(t, j, pause(), "it has ended")
}

func TestOnlyARecurringJobEndsPausesAndResumes(t *testing.T) {
	for _, s := range append(triggerSamples(t), internalSamples(t)...) {
		for _, ev := range []Event{ended(""), pause(), resume()} {
			refuses(t, s.job, ev, "it does not recur")
		}
		changesNothing(t, s.job, at(clock("23:00:00"), missed()))
	}
}

func TestAPausedJobRestsUntilItIsResumed(t *testing.T) {
	waiting := everyMinute(t)
	paused := after(t, waiting, pause())
	hasState(t, paused, StatePaused)
	changesNothing(t, paused, pause())
	changesNothing(t, waiting, resume())
	refuses(t, paused, at(clock("08:30:00"), claim()), "it is paused")
	changesNothing(t, paused, at(clock("08:30:00"), missed()))
	resumed := after(t, paused, at(clock("08:30:00"), resume()))
	hasState(t, resumed, StateWaiting)
	isDue(t, resumed, clock("08:00:00"))
	hasState(t, after(t, resumed, claim()), StateLeased)
	for _, ev := range []Event{pause(), resume()} {
		refuses(t, after(t, paused, cancel("")), ev, "it has ended")
		refuses(t, after(t, waiting, claim(), complete(`1`)), ev, "it has ended")
	}
	byHost := waiting
	byHost.CancelRequested = true
	refuses(t, byHost, pause(), "it has ended")
}

func TestAPauseLeavesTheOccurrenceThatRunsAloneAndRestsTheNext(t *testing.T) {
	for state, events := range ends() {
		running := after(t, everyMinute(t), events[0], pause())
		hasState(t, running, StateLeased)
		step := next(t, running, events[1])
		hasState(t, step.Job, state)
		hasState(t, follower(t, step), StatePaused)
	}
	resumed := after(t, everyMinute(t), claim(), pause(), resume())
	hasState(t, follower(t, next(t, resumed, complete(`1`))), StateWaiting)
	hasState(t, after(t, everyMinute(t), claim(), pause(), release()), StatePaused)
}

func TestRetryOfAnOccurrenceMakesAOneTimeJobBeside(t *testing.T) {
	first := after(t, everyMinute(t, misfire(FireAll, 5)), claim(), pause(), failure(`"no"`))
	later := first
	later.ID, later.ScheduleRow = 9, 7
	for _, j := range []Job{first, later} {
		step := next(t, j, Event{Kind: Retry, At: clock("08:00:30")})
		f := *step.Follow
		if step.OnConflict != Beside || f.Recurs() || f.Paused || f.Misfire != "" || f.MisfireLimit != 0 {
			t.Errorf("got %q, cron %q, paused %v, misfire %q %d, want a one-time job beside", step.OnConflict, f.CronSchedule, f.Paused, f.Misfire, f.MisfireLimit)
		}
		if f.ScheduleRow != 7 || f.RescheduledFrom != j.ID {
			t.Errorf("schedule row, rescheduled from: got %d, %d, want 7, %d", f.ScheduleRow, f.RescheduledFrom, j.ID)
		}
		isDue(t, f, clock("08:00:30"))
		hasNoFollower(t, next(t, after(t, f, claim()), complete(`1`)))
		again := next(t, f, Event{Kind: Fail, At: clock("08:00:40")})
		hasNoFollower(t, again)
		equal(t, "a retry of the retry", next(t, again.Job, Event{Kind: Retry}).OnConflict, Beside)
	}
	once := after(t, first, Event{Kind: Retry})
	equal(t, "the row that was tried again", once, first)
}

func TestAOneTimeRetryThatReschedulesItselfStaysBeside(t *testing.T) {
	failed := fails(t, everyMinute(t, reschedules(time.Second)))
	retry := follower(t, next(t, failed.Job, Event{Kind: Retry}))
	equal(t, "on conflict", fails(t, retry).OnConflict, Beside)
}

func TestFrequentIsWhatRecursMoreOftenThanByTheMinute(t *testing.T) {
	for _, c := range []struct {
		cron string
		want bool
	}{
		{"* * * * * *", true}, {"0,30 * * * * *", true}, {"59 * * * * *", false}, {"0 * * * * *", false},
		{"* * * * *", false}, {"0 8 * * *", false}, {"0,1 0 8 * * *", true}, {"0 0 8 * * *", false}, {"", false}, {"nonsense", false},
	} {
		j := internalJob(t)
		j.CronSchedule = c.cron
		for _, due := range []time.Time{clock("08:00:00"), clock("08:00:01")} {
			j.Due = due
			if got := j.Frequent(); got != c.want {
				t.Errorf("%q, due %s: got %v, want %v", c.cron, due.Format(time.TimeOnly), got, c.want)
			}
		}
	}
}

// A host may write anything into its own row.
func TestARowWhoseExpressionIsNoneRunsOnceAndEnds(t *testing.T) {
	for _, spoil := range []func(*Job){
		func(j *Job) { j.CronSchedule = "every now and then" },
		func(j *Job) { j.Timezone = "Mars/Olympus" },
	} {
		for _, m := range []Misfire{"", FireOnce, FireSkip, FireAll} {
			j := everyMinute(t, misfire(m, 0))
			spoil(&j)
			noted := after(t, j, at(clock("09:00:00"), missed()))
			isDue(t, noted, clock("08:00:00"))
			if !noted.Missed.Equal(clock("09:00:00")) {
				t.Errorf("misfire %q: missed: got %v, want 09:00:00", m, noted.Missed)
			}
			step := next(t, after(t, noted, at(clock("09:00:00"), claim())), complete(`1`))
			hasState(t, step.Job, StateCompleted)
			hasNoFollower(t, step)
		}
	}
	j := everyMinute(t, reschedules(time.Second))
	j.CronSchedule = "every now and then"
	step := fails(t, j)
	isDue(t, follower(t, step), step.Job.Finished.Add(time.Second))
	equal(t, "on conflict", step.OnConflict, Keep)
}

func TestAHeldRowIsFreeWhenTheClockWasSetBackFar(t *testing.T) {
	leased := after(t, everyMinute(t), at(clock("08:00:00"), claim()))
	ahead := leased
	ahead.LeaseExpires = clock("08:00:00").Add(2 * hold)
	refuses(t, ahead, at(clock("08:00:00"), claim()), "another worker holds it")
	changesNothing(t, ahead, at(clock("08:00:00"), leaseLost()))
	ahead.LeaseExpires = ahead.LeaseExpires.Add(time.Millisecond)
	hasState(t, after(t, ahead, at(clock("08:00:00"), claim())), StateLeased)
	hasState(t, after(t, ahead, at(clock("08:00:00"), leaseLost())), StateWaiting)
	hasState(t, after(t, ahead, at(clock("08:00:00"), complete(`1`))), StateCompleted)
}

// The rows are kept as the store keeps them, and the clock is set back now and then.
func TestARecurringJobNeverForksNorRepeatsANominalTime(t *testing.T) {
	for seed := range 300 {
		d := dice{rand.New(rand.NewPCG(7, uint64(seed)))}
		rows := []Job{drawPolicies(d, everyMinute(t))}
		begun, when := map[time.Time]int64{}, second(0)
		for range 120 {
			when = when.Add(pick(d, 0, time.Second, 20*time.Second, time.Minute, 7*time.Minute, -3*time.Minute))
			i := d.IntN(len(rows))
			kind := pick(d, Missed, Claim, Claim, Claim, Complete, Complete, Fail, Fail, Release, LeaseLost, Cancel, Pause, Resume, Resume, Retry)
			step, err := Next(rows[i], Event{Kind: kind, At: when, Lease: Lease{Token: token, For: hold}})
			if err == nil && kind == Claim && rows[i].Started.IsZero() && rows[i].Recurs() && rows[i].Attempt == 0 {
				if other, twice := begun[rows[i].Due]; twice {
					t.Fatalf("seed %d: rows %d and %d both began for %v", seed, other, rows[i].ID, rows[i].Due)
				}
				begun[rows[i].Due] = rows[i].ID
			}
			rows[i] = step.Job
			if f := step.Follow; f != nil {
				f.ID = int64(100 + len(rows))
				rows = append(rows, *f)
			}
			open := slices.DeleteFunc(slices.Clone(rows), func(j Job) bool { return j.Done() || !j.Recurs() })
			if len(open) > 1 {
				t.Fatalf("seed %d: after %s at %v: got %d open occurrences, want one at most", seed, kind, when, len(open))
			}
			rows = slices.DeleteFunc(rows, func(j Job) bool { return j.Done() && d.IntN(20) > 0 })
			if len(rows) == 0 {
				break // it was canceled while it waited
			}
		}
	}
}
