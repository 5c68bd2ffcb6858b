package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"sidejob/internal/job"
)

func testOwed(promise promise) {
	owed := func(s storeTest, ms int64, limit int) ([]int64, time.Time) {
		s.Helper()
		got, next, err := s.Owed(s.Context(), s.at(ms), limit)
		if err != nil {
			s.Fatalf("owed: %v", err)
		}
		return got, next
	}

	promise("the rows that owe a submit or a cancel are those of which job.Owes says so", func(s storeTest) {
		const late = 10_000_000 // every lease has run out
		want := []int64{}
		for _, j := range s.jobInEachState() {
			if j.Owes() {
				want = append(want, j.ID)
			}
		}
		slices.Sort(want)
		got, next := owed(s, late, 100)
		s.same("owed", got, want)
		s.same("next", next, time.Time{})
	})

	promise("they come longest due first, then by id, not before their time, and the next one is named", func(s storeTest) {
		var made []int64
		for i, ms := range []int64{300, 0, 200, 0, 100} {
			j := s.put(job.Trigger, fmt.Sprint("tag ", i))
			made = append(made, j.ID)
			if ms > 0 {
				s.happen(j.ID, job.Event{Kind: job.Unreached, At: s.at(1), Err: "no route", InDoubt: true, NextTry: s.at(ms)})
			}
		}
		for _, c := range []struct {
			at   int64
			want []int64
			next time.Time
		}{
			{50, []int64{made[1], made[3]}, s.at(100)},
			{99, []int64{made[1], made[3]}, s.at(100)},
			{100, []int64{made[1], made[3], made[4]}, s.at(200)},
			{300, []int64{made[1], made[3], made[4], made[2], made[0]}, time.Time{}},
		} {
			got, next := owed(s, c.at, 100)
			s.same(fmt.Sprintf("owed at %d", c.at), got, c.want)
			s.same(fmt.Sprintf("next at %d", c.at), next, c.next)
		}
		got, _ := owed(s, 300, 2)
		s.same("owed, at most 2", got, []int64{made[1], made[3]})
	})

	promise("a row with a send under way is not owed until its lease has run out, and hides nobody", func(s storeTest) {
		for i := range 3 {
			j := s.put(job.Trigger, fmt.Sprint("held ", i))
			s.happen(j.ID, job.Event{Kind: job.Send, At: s.at(0), Lease: job.Lease{Token: "t", For: time.Duration(100+i) * time.Millisecond}})
		}
		free := s.put(job.Trigger, "free")
		got, next := owed(s, 50, 2)
		s.same("owed", got, []int64{free.ID})
		s.same("next", next, s.at(100))
		got, next = owed(s, 101, 10)
		s.same("owed after two leases", len(got), 3)
		s.same("next after two leases", next, s.at(102))
	})

	promise("what a clock that has been set back wrote far ahead is owed now", func(s storeTest) {
		const day = 24 * 60 * 60 * 1000
		backedOff, held := s.put(job.Trigger, "backed off"), s.put(job.Trigger, "held")
		s.happen(backedOff.ID, job.Event{Kind: job.Unreached, At: s.at(day), Err: "no route", NextTry: s.at(day + 1000)})
		s.happen(held.ID, job.Event{Kind: job.Send, At: s.at(day), Lease: job.Lease{Token: "t", For: 15 * time.Second}})
		got, _ := owed(s, 0, 10)
		s.same("owed a day before", got, []int64{held.ID, backedOff.ID})
		s.happen(held.ID, job.Event{Kind: job.Send, At: s.at(0), Lease: job.Lease{Token: "u", For: 15 * time.Second}})
	})

	promise("a cancel that the host writes into its row is owed, whoever executes the job", func(s storeTest) {
		var want []int64
		for executor, states := range map[job.Executor][]job.State{
			job.Internal: {job.StateWaiting, job.StateLeased}, job.Trigger: {job.StateUnsent, job.StateQueued, job.StateRunning},
		} {
			for _, state := range states {
				j := s.jobIn(executor, state, string(state))
				want = append(want, j.ID)
				s.hostExec(fmt.Sprint("UPDATE worker_jobs SET cancel_requested = TRUE WHERE id = ", j.ID))
			}
		}
		s.jobIn(job.Internal, job.StateWaiting, "not canceled")
		got, _ := owed(s, 20, 10)
		slices.Sort(got)
		slices.Sort(want)
		s.same("owed", got, want)
	})

	promise("the rows without a run are Trigger.dev's that owe something", func(s storeTest) {
		want := []int64{}
		for _, j := range s.jobInEachState() {
			if j.Owes() && j.RunID == "" {
				want = append(want, j.ID)
			}
		}
		got, err := s.Unsent(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		s.same("unsent", got, want)
	})
}

func testAsked(promise promise) {
	promise("rows with runs that are unfinished or not confirmed are to be asked about, orphans if wanted", func(s storeTest) {
		want, orphans := []int64{}, []int64{}
		for _, j := range s.jobInEachState() {
			orphan := !j.Orphaned.IsZero()
			if j.RunID == "" || (j.Done() && !j.Unconfirmed() && !orphan) {
				continue
			}
			orphans = append(orphans, j.ID)
			if !orphan {
				want = append(want, j.ID)
			}
		}
		for with, want := range map[bool][]int64{false: want, true: orphans} {
			jobs, err := s.Asked(s.Context(), 0, 100, with)
			if err != nil {
				s.Fatal(err)
			}
			s.same(fmt.Sprint("asked, orphans ", with), jobIDs(jobs), want)
			for _, j := range jobs {
				is := s.get(j.ID)
				s.sameJob("what asking needs", j, job.Job{ID: is.ID, RunID: is.RunID, TriggerStatus: is.TriggerStatus, Due: is.Due, Created: is.Created, Orphaned: is.Orphaned})
			}
		}
		paged := []int64{}
		for after := int64(0); ; {
			jobs, err := s.Asked(s.Context(), after, 2, true)
			if err != nil || len(jobs) > 2 {
				s.Fatalf("got %d rows, error %v; want at most 2", len(jobs), err)
			}
			if len(jobs) == 0 {
				break
			}
			paged = append(paged, jobIDs(jobs)...)
			after = jobs[len(jobs)-1].ID
		}
		s.same("asked, two at a time", paged, orphans)
	})
}

func testRemove(promise promise) {
	promise("finished jobs whose time is past go, with their history; others stay", func(s storeTest) {
		gone := s.jobIn(job.Internal, job.StateCompleted, "gone")
		open := s.put(job.Internal, "open")
		kept, long := s.newJob(job.Internal, "kept"), s.newJob(job.Internal, "long")
		kept.Persistent = true
		long.RemoveDelay = 30 * 24 * time.Hour
		kept, long = s.place(kept, job.Replace).Job, s.place(long, job.Replace).Job
		for _, id := range []int64{kept.ID, long.ID} {
			s.happen(id, job.Event{Kind: job.Cancel, At: s.at(0)})
		}
		s.sweep(gone.RemoveAt.Add(-time.Millisecond), nil, 100, 0)
		s.sweep(gone.RemoveAt, nil, 100, 1)
		s.sweep(s.at(0).Add(29*24*time.Hour), nil, 100, 0)
		if _, err := s.Get(s.Context(), gone.ID); !errors.Is(err, ErrNotFound) {
			s.Errorf("get: got error %v, want ErrNotFound", err)
		}
		s.same("its history", s.told(gone.ID), []string{})
		s.same("jobs that stay", s.listed(Filter{}), []int64{long.ID, kept.ID, open.ID})
		s.same("history that stays", len(s.history(long.ID)), 2)
	})

	promise("a job whose end is only told stays until Trigger.dev confirms it", func(s storeTest) {
		told := s.jobIn(job.Trigger, job.StateToldFailed, "told")
		orphan := s.jobIn(job.Trigger, job.StateOrphaned, "orphan")
		later := s.at(0).Add(24 * time.Hour)
		s.sweep(later, nil, 100, 1)
		s.same("jobs that stay", s.listed(Filter{}), []int64{told.ID})
		if _, err := s.Get(s.Context(), orphan.ID); !errors.Is(err, ErrNotFound) {
			s.Errorf("get the orphan: got error %v, want ErrNotFound", err)
		}
		s.happen(told.ID, job.Event{Kind: job.Seen, At: s.at(90), Run: job.Run{ID: told.RunID, Raw: "FAILED"}})
		s.sweep(later, nil, 100, 1)
	})

	promise("excluded jobs stay and do not count for the limit", func(s storeTest) {
		var made []int64
		for i := range 5 {
			made = append(made, s.jobIn(job.Internal, job.StateCanceled, fmt.Sprint("tag ", i)).ID)
		}
		later := s.at(0).Add(24 * time.Hour)
		for _, want := range []int64{2, 1, 0} {
			s.sweep(later, []int64{made[0], made[1], 4711}, 2, want)
		}
		s.same("jobs that stay", s.listed(Filter{}), []int64{made[1], made[0]})
	})
}
