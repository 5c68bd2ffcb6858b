package job

import (
	"testing"
	"time"
)

func TestAnOccurrenceIsMissedWhenItIsLateByMoreThanAMinute(t *testing.T) {
	for _, m := range []Misfire{"", FireOnce, FireAll} {
		j := internalJob(t, recurs("0 8 * * *"), misfire(m, 0))
		for _, when := range []time.Time{clock("07:00:00"), clock("08:00:00"), clock("08:01:00")} {
			changesNothing(t, j, at(when, missed()))
		}
		step := next(t, j, at(clock("08:01:01"), missed()))
		if !step.Job.Missed.Equal(clock("08:01:01")) || !step.Changed || step.Quiet {
			t.Errorf("misfire %q: missed %v, changed %v, quiet %v, want 08:01:01, told", m, step.Job.Missed, step.Changed, step.Quiet)
		}
		isDue(t, step.Job, clock("08:00:00"))
		changesNothing(t, step.Job, at(clock("09:00:00"), missed()))
		for _, ev := range []Event{at(clock("09:00:00"), claim()), at(clock("09:00:00"), worker(Fail, "")), pause()} {
			again := step.Job
			again.Retry = &RetryConfig{}
			if got := after(t, again, ev).Missed; !got.IsZero() {
				t.Errorf("%s: missed since %v, want it forgotten", ev.Kind, got)
			}
		}
	}
}

func TestWhatHasBegunOrWillNotBeginIsNotMissed(t *testing.T) {
	j := internalJob(t, recurs("0 8 * * *"))
	byHost := j
	byHost.CancelRequested = true
	for _, j := range []Job{
		after(t, j, claim()), after(t, j, claim(), release()), after(t, j, pause()), after(t, j, cancel("")),
		after(t, j, claim(), complete(`1`)), byHost,
	} {
		for _, m := range []Misfire{FireOnce, FireSkip, FireAll} {
			j.Misfire = m
			changesNothing(t, j, at(clock("23:00:00"), missed()))
		}
	}
}

// slow is the job at work, under a lease that lasts.
func slow(t *testing.T, j Job) Job {
	t.Helper()
	ev := claim()
	ev.Lease.For = time.Hour
	return after(t, j, ev)
}

func TestOnceFiresOneTimeForAllThatPassed(t *testing.T) {
	for _, m := range []Misfire{"", FireOnce} {
		j := everyMinute(t, misfire(m, 0))
		step := next(t, after(t, j, at(clock("11:30:19"), missed()), at(clock("11:30:20"), claim())), at(clock("11:30:25"), complete(`1`)))
		isDue(t, step.Job, clock("08:00:00"))
		isDue(t, follower(t, step), clock("11:31:00"))
	}
	long := next(t, slow(t, everyMinute(t)), at(clock("08:02:00"), complete(`1`)))
	isDue(t, follower(t, long), clock("08:03:00"))
}

func TestSkipLeavesOutWhatIsLateByMoreThanAMinuteOrOvertaken(t *testing.T) {
	hourly, minutely, often, always := "0 * * * *", "* * * * *", "*/10 * * * * *", "* * * * * *"
	for _, c := range []struct {
		cron, at, due string
	}{
		{hourly, "07:59:00", "08:00:00"}, // not due at all
		{hourly, "08:00:00", "08:00:00"},
		{hourly, "08:01:00", "08:00:00"},
		{hourly, "08:01:01", "09:00:00"},
		{hourly, "11:59:59", "12:00:00"},
		{hourly, "12:00:00", "12:00:00"},
		{hourly, "12:01:00", "12:00:00"}, // late, but not too late
		{hourly, "12:01:01", "13:00:00"},
		{minutely, "08:00:59", "08:00:00"},
		{minutely, "08:01:00", "08:01:00"},
		{minutely, "08:30:30", "08:30:00"},
		{often, "08:00:09", "08:00:00"},
		{often, "08:00:10", "08:00:10"},
		{often, "09:59:59", "09:59:50"},
		{always, "08:00:01", "08:00:01"},
		{always, "09:59:59", "09:59:59"},
	} {
		j := internalJob(t, recurs(c.cron), misfire(FireSkip, 0))
		when := clock(c.at)
		step := next(t, j, at(when, missed()))
		isDue(t, step.Job, clock(c.due))
		if moved := c.due != "08:00:00"; step.Changed != moved || !step.Job.Missed.IsZero() {
			t.Errorf("%s at %s: changed %v, missed %v, want %v, never", c.cron, c.at, step.Changed, step.Job.Missed, moved)
		}
		changesNothing(t, step.Job, at(when, missed()))
		if step.Changed {
			refuses(t, j, at(when, claim()), "its time has passed, and misfire is skip")
		}
		if !when.Before(step.Job.Due) {
			hasState(t, after(t, step.Job, at(when, claim())), StateLeased)
		}
	}
	exact := next(t, everyMinute(t, misfire(FireSkip, 0)), at(clock("08:01:00").Add(500*time.Millisecond), missed()))
	isDue(t, exact.Job, clock("08:01:00"))
	late := next(t, internalJob(t, recurs("0 * * * *"), misfire(FireSkip, 0)), at(clock("09:01:00").Add(500*time.Millisecond), missed()))
	isDue(t, late.Job, clock("10:00:00"))
}

func TestSkipDoesNotLeaveOutWhatHasBegun(t *testing.T) {
	j := after(t, internalJob(t, recurs("0 8 * * *"), misfire(FireSkip, 0)), claim(), release())
	hasState(t, after(t, j, at(clock("23:00:00"), claim())), StateLeased)
}

// madeUp lets a worker do every occurrence that is due by then, each in no time, and
// returns their nominal times.
func madeUp(t *testing.T, j Job, when time.Time) (nominal []time.Time) {
	t.Helper()
	for {
		j = after(t, j, at(when, missed()))
		if when.Before(j.Due) {
			return nominal
		}
		nominal = append(nominal, j.Due)
		j = follower(t, next(t, after(t, j, at(when, claim())), at(when, complete(`1`))))
	}
}

func TestEachPolicyAfterThreeHoursOfDowntime(t *testing.T) {
	half := func(texts ...string) (times []time.Time) {
		for _, text := range texts {
			times = append(times, clock(text))
		}
		return times
	}
	for _, c := range []struct {
		name  string
		m     Misfire
		limit int
		want  []time.Time
	}{
		{"once", FireOnce, 0, half("08:00:00")},
		{"skip", FireSkip, 0, nil},
		{"all", FireAll, 0, half("08:00:00", "08:30:00", "09:00:00", "09:30:00", "10:00:00", "10:30:00")},
		{"all, as many as passed", FireAll, 6, half("08:00:00", "08:30:00", "09:00:00", "09:30:00", "10:00:00", "10:30:00")},
		{"all, up to fewer", FireAll, 5, half("08:30:00", "09:00:00", "09:30:00", "10:00:00", "10:30:00")},
		{"all, up to one", FireAll, 1, half("10:30:00")},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := internalJob(t, recurs("*/30 * * * *"), misfire(c.m, c.limit))
			equal(t, "made up for at 10:50", madeUp(t, j, clock("10:50:00")), c.want)
			local := after(t, localJob(t, recurs("*/30 * * * *"), misfire(c.m, c.limit)), at(clock("10:50:00"), missed()))
			var fired []time.Time
			for {
				step := next(t, local, at(clock("10:50:00"), fire()))
				if step.Follow == nil {
					break
				}
				fired, local = append(fired, step.Follow.Due), step.Job
			}
			equal(t, "fired here at 10:50", fired, c.want)
		})
	}
}

func TestAllKeepsAtMostItsLimitOutstandingWhileAJobIsSlow(t *testing.T) {
	j := everyMinute(t, misfire(FireAll, 3))
	step := next(t, slow(t, j), at(clock("08:03:30"), complete(`1`)))
	isDue(t, follower(t, step), clock("08:01:00"))
	step = next(t, slow(t, j), at(clock("08:04:00"), complete(`1`)))
	isDue(t, follower(t, step), clock("08:02:00"))
}

func TestAllNotesWhatItLeavesOut(t *testing.T) {
	step := next(t, everyMinute(t, misfire(FireAll, 3)), at(clock("08:05:00"), missed()))
	isDue(t, step.Job, clock("08:03:00"))
	if !step.Job.Missed.Equal(clock("08:05:00")) || step.Quiet {
		t.Errorf("missed %v, quiet %v, want 08:05:00, told", step.Job.Missed, step.Quiet)
	}
	first := clock("08:05:00")
	step = next(t, step.Job, at(clock("08:09:00"), missed()))
	isDue(t, step.Job, clock("08:07:00"))
	if !step.Job.Missed.Equal(first) {
		t.Errorf("missed: got %v, want the first time it was noticed, %v", step.Job.Missed, first)
	}
	often := next(t, internalJob(t, recurs("* * * * * *"), misfire(FireAll, 3)), at(clock("08:00:10"), missed()))
	isDue(t, often.Job, clock("08:00:08"))
	if !often.Job.Missed.IsZero() {
		t.Errorf("missed: got %v, want none within a minute", often.Job.Missed)
	}
	often = next(t, often.Job, at(clock("08:02:00"), missed()))
	isDue(t, often.Job, clock("08:01:58"))
	if !often.Job.Missed.Equal(clock("08:02:00")) {
		t.Errorf("missed: got %v, want 08:02:00: what is left out was late", often.Job.Missed)
	}
}

func TestAHostsOwnLimitIsKeptWithinBounds(t *testing.T) {
	for limit, want := range map[int]int{-7: DefaultMisfireLimit, 0: DefaultMisfireLimit, 1: 1, MaxMisfireLimit: MaxMisfireLimit, MaxMisfireLimit + 1: MaxMisfireLimit} {
		if got := (Job{MisfireLimit: limit}).misfireLimit(); got != want {
			t.Errorf("limit %d: got %d, want %d", limit, got, want)
		}
	}
	j := everyMinute(t, misfire(FireAll, 0))
	j.MisfireLimit = -7
	if got := len(madeUp(t, j, clock("11:00:00"))); got != DefaultMisfireLimit {
		t.Errorf("made up for: got %d, want %d", got, DefaultMisfireLimit)
	}
}

// A fixed time that a clock skips runs once, later; one that it shows twice runs the
// first time; see the vectors of package cron.
func TestAllMakesUpForTheNightsWhenClocksChange(t *testing.T) {
	utc := func(text string) time.Time {
		at, err := time.Parse(time.DateTime, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, c := range []struct {
		name, cron, zone, due, at string
		limit                     int
		want                      []string
	}{
		{"a skipped time of day", "30 2 * * *", "Europe/Rome", "2026-03-28 01:30:00", "2026-03-30 12:00:00", 0,
			[]string{"2026-03-28 01:30:00", "2026-03-29 01:30:00", "2026-03-30 00:30:00"}},
		{"a time of day that comes twice", "30 2 * * *", "Europe/Rome", "2026-10-24 00:30:00", "2026-10-26 12:00:00", 0,
			[]string{"2026-10-24 00:30:00", "2026-10-25 00:30:00", "2026-10-26 01:30:00"}},
		{"every half hour over a shift by half an hour", "*/30 * * * *", "Australia/Lord_Howe", "2026-04-04 14:00:00", "2026-04-04 16:00:00", 4,
			[]string{"2026-04-04 14:30:00", "2026-04-04 15:00:00", "2026-04-04 15:30:00", "2026-04-04 16:00:00"}},
		{"the latest of them", "0 2 * * *", "America/New_York", "2026-03-07 07:00:00", "2026-03-09 12:00:00", 2,
			[]string{"2026-03-08 07:00:00", "2026-03-09 06:00:00"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := internalJob(t, recurs(c.cron), misfire(FireAll, c.limit), func(s *Spec) {
				s.Timezone, s.Due = c.zone, utc(c.due)
			})
			var want []time.Time
			for _, text := range c.want {
				want = append(want, utc(text))
			}
			equal(t, "made up for", madeUp(t, j, utc(c.at)), want)
		})
	}
}

// As many nominal times may have passed as there are seconds in years. What is left
// out must not be counted one by one.
func TestCatchingUpIsQuickHoweverLongItTakes(t *testing.T) {
	ages := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	now := clock("08:00:00").AddDate(0, 9, 0)
	for _, c := range []struct {
		name, cron string
		due        time.Time
		limit      int
		want       time.Time
	}{
		{"every second for years", "* * * * * *", now.AddDate(-5, 0, 0), 100, now.Add(-99 * time.Second)},
		{"and as many as may be", "* * * * * *", now.AddDate(-5, 0, 0), MaxMisfireLimit, now.Add(-9999 * time.Second)},
		{"every second of one month", "* * * * 1 *", now.AddDate(-5, 0, 0), 2, time.Date(2026, 1, 31, 23, 59, 58, 0, time.UTC)},
		{"the last of them", "* * * * 1 *", now.AddDate(-5, 0, 0), 1, time.Date(2026, 1, 31, 23, 59, 59, 0, time.UTC)},
		{"two seconds a year, of which one", "0,1 0 0 1 1 *", now.AddDate(-5, 0, 0), 1, time.Date(2026, 1, 1, 0, 0, 1, 0, time.UTC)},
		{"a row that is due at no time", "* * * * * *", time.Time{}, 3, now.Add(-2 * time.Second)},
		{"of leap days, since the year 1", "0 0 29 2 *", ages, 100, time.Date(1616, 2, 29, 0, 0, 0, 0, time.UTC)},
		{"of leap days, more than there were", "0 0 29 2 *", ages, 1000, time.Date(4, 2, 29, 0, 0, 0, 0, time.UTC)},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := internalJob(t, recurs(c.cron), misfire(FireAll, c.limit))
			j.Due = c.due
			begun := time.Now()
			due, err := nextDue(j, now)
			if err != nil || !due.Equal(c.want) {
				t.Errorf("got %v, error %v, want %v", due, err, c.want)
			}
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("took %v, want it at once", took)
			}
		})
	}
}

// The reference counts one by one.
func TestCatchingUpLeavesExactlyTheLimit(t *testing.T) {
	for _, expression := range []string{"* * * * * *", "*/7 * * * * *", "0,1,2 */5 * * * *", "* 8,9 * * *", "0 0 * * *"} {
		for _, due := range []time.Time{clock("00:00:00"), clock("08:00:00"), clock("08:59:50").Add(400 * time.Millisecond)} {
			for _, since := range []time.Duration{-time.Hour, 0, time.Second, 59 * time.Second, time.Hour, 100 * time.Minute} {
				for _, limit := range []int{1, 2, 3, 50} {
					j := internalJob(t, recurs(expression), misfire(FireAll, limit))
					j.Due = due
					when := due.Add(since)
					var all []time.Time
					for at := dueAfter(j, due); !at.After(when); at = dueAfter(j, at) {
						all = append(all, at)
					}
					want := dueAfter(j, due)
					if len(all) > limit {
						want = all[len(all)-limit]
					}
					if got, err := nextDue(j, when); err != nil || !got.Equal(want) {
						t.Errorf("%q due %s, %v later, limit %d: got %v, %v, want %v", expression, due.Format(time.TimeOnly), since, limit, got, err, want)
					}
				}
			}
		}
	}
}

// A host may have written 0.
func TestARowThatIsDueAtNoTimeIsDueAtOnce(t *testing.T) {
	for m, want := range map[Misfire][]time.Time{
		FireOnce: {{}}, FireSkip: {clock("08:10:00")}, FireAll: {clock("08:08:00"), clock("08:09:00"), clock("08:10:00")},
	} {
		j := everyMinute(t)
		j.Misfire, j.MisfireLimit, j.Due = m, 3, time.Time{}
		equal(t, string(m), madeUp(t, j, clock("08:10:30")), want)
	}
}
