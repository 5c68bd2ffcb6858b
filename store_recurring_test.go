package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"sidejob/internal/job"
)

// ripe is what the clock makes happen by a time, as "kind id", and when there is more.
func (s storeTest) ripe(ms int64, limit int) (now []string, next time.Time) {
	s.Helper()
	rows, next, err := s.Ripe(s.Context(), s.at(ms), limit)
	if err != nil {
		s.Fatalf("ripe: %v", err)
	}
	now = []string{}
	for _, r := range rows {
		now = append(now, fmt.Sprint(r.Kind, " ", r.ID))
	}
	return now, next
}

func (s storeTest) wantRipe(what string, ms int64, next time.Time, want ...string) {
	s.Helper()
	got, more := s.ripe(ms, 10)
	if !slices.Equal(got, want) {
		s.Errorf("%s: got %q, want %q", what, got, want)
	}
	if !more.Equal(next) {
		s.Errorf("%s: there is more at %s, want %s", what, more, next)
	}
}

const minute = int64(60_000)

func testRipe(promise promise) {
	promise("leases run out when their time is over, and not before", func(s storeTest) {
		s.wantRipe("of nothing", 0, time.Time{})
		a, b := s.typed("work", "a", 0), s.typed("work", "b", 5)
		s.claimed(s.asks(0, 1))
		s.claimed(s.asks(5, 1))
		s.wantRipe("before", minute-1, s.at(minute))
		s.wantRipe("of the first", minute, s.at(minute+5), fmt.Sprint("leaseLost ", a.ID))
		s.wantRipe("of both", minute+5, time.Time{}, fmt.Sprint("leaseLost ", a.ID), fmt.Sprint("leaseLost ", b.ID))
		s.happen(a.ID, job.Event{Kind: job.LeaseLost, At: s.at(minute)})
		s.happen(b.ID, job.Event{Kind: job.Complete, At: s.at(6), Lease: job.Lease{Token: s.get(b.ID).LeaseToken}})
		s.wantRipe("afterwards", minute+5, time.Time{})
	})

	promise("a lease that a clock set back since has taken does not hold", func(s storeTest) {
		j := s.typed("work", "a", 0)
		s.claimed(s.asks(0, 1))
		s.hostExec("UPDATE worker_jobs SET lease_expires_at = " + s.literal(s.at(0).AddDate(1, 0, 0)))
		got, _ := s.ripe(10, 10)
		s.same("ripe", got, []string{fmt.Sprint("leaseLost ", j.ID)})
		s.same("the row", s.happen(j.ID, job.Event{Kind: job.LeaseLost, At: s.at(10)}).State(), job.StateWaiting)
	})

	promise("schedules that sidejob fires come due, paused ones and those of Trigger.dev do not", func(s storeTest) {
		local := s.recurring(job.Spec{Tag: "local", CronSchedule: "*/5 * * * *", Executor: job.Trigger, TriggerTask: "task", FireLocally: true, Due: s.at(1)})
		s.recurring(job.Spec{Tag: "there", CronSchedule: "* * * * *", Executor: job.Trigger, TriggerTask: "task", Due: s.at(1)})
		s.wantRipe("before", 5*minute-1, s.at(5*minute))
		s.wantRipe("then", 5*minute, time.Time{}, fmt.Sprint("fired ", local.ID))
		s.happen(local.ID, job.Event{Kind: job.Fired, At: s.at(5 * minute), Key: "job-1"})
		s.wantRipe("fired", 5*minute, s.at(10*minute))
		s.happen(local.ID, job.Event{Kind: job.Pause, At: s.at(6 * minute)})
		s.wantRipe("paused", 20*minute, time.Time{})
	})

	promise("an occurrence that has not begun within its grace is missed, once", func(s storeTest) {
		late := s.recurring(job.Spec{Tag: "late", CronSchedule: "0 * * * *"})
		taken := s.recurring(job.Spec{Tag: "taken", CronSchedule: "0 * * * *"})
		s.happen(taken.ID, job.Event{Kind: job.Claim, At: s.at(1), Lease: job.Lease{Token: "t", For: time.Hour}})
		s.typed("work", "plain", 0)
		s.wantRipe("in time", minute, s.at(minute+1))
		s.wantRipe("late", minute+1, s.at(60*minute+1), fmt.Sprint("missed ", late.ID))
		s.happen(late.ID, job.Event{Kind: job.Missed, At: s.at(minute + 1)})
		s.wantRipe("noted", minute+1, s.at(60*minute+1))
	})

	promise("of each kind at most so many are told at once, the longest due first", func(s storeTest) {
		var want []string
		for i := range 3 {
			j := s.typed("work", fmt.Sprint(i), int64(10-i))
			want = append([]string{fmt.Sprint("leaseLost ", j.ID)}, want...)
		}
		for _, ms := range []int64{8, 9, 10} {
			s.claimed(s.asks(ms, 1))
		}
		got, _ := s.ripe(10*minute, 2)
		s.same("two of three", got, want[:2])
	})
}

func testRecurring(promise promise) {
	promise("schedules are the open ones that Trigger.dev fires", func(s storeTest) {
		want := []int64{}
		for _, j := range s.jobInEachState() {
			if j.OnTrigger() && !j.Done() {
				want = append(want, j.ID)
			}
		}
		s.recurring(job.Spec{Tag: "local", CronSchedule: "* * * * *", Executor: job.Trigger, TriggerTask: "task", FireLocally: true})
		s.recurring(job.Spec{Tag: "internal", CronSchedule: "* * * * *"})
		got, err := s.Schedules(s.Context())
		if err != nil || len(want) != 4 {
			s.Errorf("error %v, %d schedules; want none and one for each open state", err, len(want))
		}
		s.same("schedules", jobIDs(got), want)
	})

	promise("a recurring job is found by any of its rows, also when that is gone", func(s storeTest) {
		first := s.recurring(job.Spec{Tag: "tick", CronSchedule: "* * * * *", RemoveDelay: -time.Hour})
		s.typed("work", "other", 0)
		found := func(id int64) int64 {
			s.Helper()
			j, err := s.RecurringRow(s.Context(), id)
			if err != nil {
				s.Errorf("of row %d: %v", id, err)
			}
			return j.ID
		}
		s.same("while it waits", found(first.ID), first.ID)
		second := s.occurs(first.ID, 1)
		third := s.occurs(second.ID, minute)
		for _, id := range []int64{first.ID, second.ID, third.ID} {
			s.same("by any row", found(id), third.ID)
		}
		s.same("of the chain", []int64{second.ScheduleRow, third.ScheduleRow, third.RescheduledFrom}, []int64{first.ID, first.ID, second.ID})
		s.sweep(s.at(minute), nil, 10, 2)
		s.same("by the first row, which is gone", found(first.ID), third.ID)
		if _, err := s.RecurringRow(s.Context(), second.ID); !errors.Is(err, ErrNotFound) {
			s.Errorf("by a later row that is gone: got error %v, want ErrNotFound", err)
		}
		s.happen(third.ID, job.Event{Kind: job.End, At: s.at(2 * minute)})
		s.same("when it has ended", found(first.ID), third.ID)
	})

	promise("a job that does not recur is its own recurring row, and none is not found", func(s storeTest) {
		plain := s.typed("work", "plain", 0)
		j, err := s.RecurringRow(s.Context(), plain.ID)
		if err != nil {
			s.Fatal(err)
		}
		s.sameJob("the row", j, plain)
		if _, err := s.RecurringRow(s.Context(), 99); !errors.Is(err, ErrNotFound) {
			s.Errorf("got error %v, want ErrNotFound", err)
		}
	})

	promise("what should have fired and has not is told until it begins", func(s storeTest) {
		missed := func() []int64 {
			s.Helper()
			jobs, err := s.MissedRecurring(s.Context(), 10)
			if err != nil {
				s.Fatal(err)
			}
			return jobIDs(jobs)
		}
		a := s.recurring(job.Spec{Tag: "a", CronSchedule: "0 * * * *"})
		b := s.recurring(job.Spec{Tag: "b", CronSchedule: "0 * * * *"})
		s.recurring(job.Spec{Tag: "c", CronSchedule: "0 * * * *"})
		s.same("in time", missed(), []int64{})
		s.happen(b.ID, job.Event{Kind: job.Missed, At: s.at(2 * minute)})
		s.happen(a.ID, job.Event{Kind: job.Missed, At: s.at(3 * minute)})
		s.same("longest first", missed(), []int64{b.ID, a.ID})
		s.same("the longest", s.firstMissed(1), []int64{b.ID})
		s.happen(b.ID, job.Event{Kind: job.Claim, At: s.at(4 * minute), Lease: job.Lease{Token: "t", For: time.Minute}})
		s.happen(a.ID, job.Event{Kind: job.Cancel, At: s.at(4 * minute)})
		s.same("begun, and ended", missed(), []int64{})
	})

	promise("what is scheduled once is not scheduled again, whatever has become of it", func(s storeTest) {
		order := func(name, tag string) {
			s.Helper()
			if err := s.ScheduleOnce(s.Context(), name, Order{Job: s.newJob(job.Internal, tag), OnConflict: job.Keep, Source: "sidejob"}); err != nil {
				s.Errorf("schedule %s once: %v", name, err)
			}
		}
		s.together(8, func(int) { order("tidy", "tidy") })
		s.same("jobs", len(s.listed(Filter{})), 1)
		id := s.listed(Filter{})[0]
		s.happen(id, job.Event{Kind: job.Cancel, At: s.at(1)})
		order("tidy", "tidy")
		s.sweep(s.at(10_000_000), nil, 9, 1)
		order("tidy", "tidy again")
		s.same("ended and removed", s.listed(Filter{}), []int64{})
		order("sweep", "tidy")
		s.same("under another name", len(s.listed(Filter{Tag: "tidy"})), 1)
	})

	promise("a tag that is taken is left to who has it", func(s storeTest) {
		mine := s.put(job.Internal, "tidy")
		if err := s.ScheduleOnce(s.Context(), "tidy", Order{Job: s.newJob(job.Internal, "tidy"), OnConflict: job.Keep}); err != nil {
			s.Fatal(err)
		}
		s.same("jobs", s.listed(Filter{}), []int64{mine.ID})
	})

	promise("of a schedule finer than a minute the last finished occurrences are kept, and persistent ones", func(s storeTest) {
		for _, c := range []struct {
			spec job.Spec
			want int
		}{
			{job.Spec{Tag: "seconds", CronSchedule: "* * * * * *"}, job.KeptOccurrences},
			{job.Spec{Tag: "kept", CronSchedule: "* * * * * *", Persistent: true}, 120},
			{job.Spec{Tag: "minutes", CronSchedule: "* * * * *"}, 120},
		} {
			j := s.recurring(c.spec)
			for i := range int64(120) {
				j = s.occurs(j.ID, i*minute)
			}
			yes := true
			left := s.listed(Filter{Tag: c.spec.Tag, Finished: &yes})
			s.same(c.spec.Tag+": finished rows", len(left), c.want)
			s.same(c.spec.Tag+": the last finished one", slices.Max(left), j.RescheduledFrom)
			if c.spec.Tag == "seconds" {
				s.same("the history of one removed", len(s.history(slices.Min(left)-1)), 0)
				named, err := s.RecurringRow(s.Context(), j.ScheduleRow)
				if err != nil || named.ID != j.ID {
					s.Errorf("by its first row, which is gone: got job %d, error %v; want %d", named.ID, err, j.ID)
				}
			}
		}
	})

	promise("a run that a schedule has fired has one row, by its id and by its nominal time", func(s storeTest) {
		schedule := s.jobIn(job.Trigger, job.StateScheduled, "daily")
		fires := func(run string, nominal int64) *job.Job {
			s.Helper()
			step, err := s.Apply(s.Context(), schedule.ID, job.Event{
				Kind: job.Fired, At: s.at(nominal + 99), Source: "sync", Nominal: s.at(nominal), Run: job.Run{ID: run, Environment: "env_1"},
			})
			if err != nil {
				s.Fatalf("fired %s: %v", run, err)
			}
			return step.Follow
		}
		first := fires("run_a", minute)
		if first == nil || first.ID == 0 || first.RunID != "run_a" || first.ScheduleRow != schedule.ID || first.RescheduledFrom != schedule.ID || !first.Due.Equal(s.at(minute)) || first.Recurs() {
			s.Fatalf("got %s, want a row for the run", shownJSON(first))
		}
		for what, again := range map[string]*job.Job{
			"the same news": fires("run_a", minute), "the same run, another time": fires("run_a", 2*minute), "another run, the same time": fires("run_b", minute),
		} {
			if again != nil {
				s.Errorf("%s: got row %d, want none", what, again.ID)
			}
		}
		if next := fires("run_c", 3*minute); next == nil {
			s.Error("the next run has no row")
		}
		s.same("rows", len(s.listed(Filter{Tag: "daily"})), 3)
	})
}

func (s storeTest) firstMissed(limit int) []int64 {
	s.Helper()
	jobs, err := s.MissedRecurring(s.Context(), limit)
	if err != nil {
		s.Fatal(err)
	}
	return jobIDs(jobs)
}

// occurs has a worker carry out an occurrence; the next one is given.
func (s storeTest) occurs(id, ms int64) job.Job {
	s.Helper()
	step, err := s.Apply(s.Context(), id, job.Event{Kind: job.Complete, At: s.at(ms), Source: "worker"})
	if err != nil || step.Follow == nil {
		s.Fatalf("complete occurrence %d: %+v, error %v; want another to follow", id, step.Follow, err)
	}
	return *step.Follow
}
