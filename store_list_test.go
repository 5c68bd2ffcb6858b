package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"sidejob/internal/job"
)

// everyKind places a job for each combination of the columns that Status reads, and
// with them values of all that can be filtered for. Newest first.
func everyKind(s storeTest) []job.Job {
	s.Helper()
	var orders []Order
	add := func(executor job.Executor, status job.Status, success *bool, cancel bool, token string) {
		n := len(orders)
		j := s.newJob(executor, fmt.Sprint("tag ", n))
		j.TriggerStatus, j.CancelRequested, j.LeaseToken, j.Success = status, cancel, token, success
		if success != nil {
			j.Finished = s.at(500)
		}
		j.Type = []string{"mail", "report"}[n%2]
		j.Name = []string{"", "a-name", "b-name"}[n%3]
		j.Labels = [][]string{nil, {"red"}, {"red", `gr"ün`}, {"re"}}[n%4]
		j.UserID = int64(n % 5)
		j.RescheduledFrom, j.ScheduleRow = int64(n%3), int64((n+1)%3)
		j.Created = s.at(int64(n / 2))
		if n%7 == 0 {
			j.CronSchedule = "0 0 * * *"
		}
		orders = append(orders, Order{Job: j, Source: "test"})
	}
	yes, no := true, false
	for _, success := range []*bool{nil, &yes, &no} {
		for _, cancel := range []bool{false, true} {
			for _, token := range []string{"", "token"} {
				add(job.Internal, "", success, cancel, token)
				for _, status := range append(statuses(), "") {
					add(job.Trigger, status, success, cancel, token)
				}
			}
		}
	}
	placed, err := s.Schedule(s.Context(), orders, Keyed{})
	if err != nil {
		s.Fatalf("place jobs of every kind: %v", err)
	}
	all := []job.Job{}
	for _, p := range slices.Backward(placed) {
		all = append(all, p.Job)
	}
	return all
}

func statuses() []job.Status {
	return []job.Status{job.Pending, job.Executing, job.Completed, job.Failed, job.Canceled}
}

// selection is a filter by one member, and what it says, in Go.
type selection struct {
	member string
	value  any
	set    func(*Filter)
	is     func(job.Job) bool
}

func (s selection) String() string { return fmt.Sprint(s.member, " ", s.value) }

func selections(s storeTest) []selection {
	user, nobody, yes, no := int64(3), int64(0), true, false
	success := func(want bool) func(job.Job) bool {
		return func(j job.Job) bool { return j.Success != nil && *j.Success == want }
	}
	label := func(label string) selection {
		return selection{"label", label, func(f *Filter) { f.Label = label }, func(j job.Job) bool { return slices.Contains(j.Labels, label) }}
	}
	all := []selection{
		{"nothing", "", func(*Filter) {}, func(job.Job) bool { return true }},
		{"type", "mail", func(f *Filter) { f.Type = "mail" }, func(j job.Job) bool { return j.Type == "mail" }},
		{"tag", "tag 7", func(f *Filter) { f.Tag = "tag 7" }, func(j job.Job) bool { return j.Tag == "tag 7" }},
		{"name", "a-name", func(f *Filter) { f.Name = "a-name" }, func(j job.Job) bool { return j.Name == "a-name" }},
		{"user", 3, func(f *Filter) { f.UserID = &user }, func(j job.Job) bool { return j.UserID == 3 }},
		{"user", 0, func(f *Filter) { f.UserID = &nobody }, func(j job.Job) bool { return j.UserID == 0 }},
		{"finished", true, func(f *Filter) { f.Finished = &yes }, job.Job.Done},
		{"finished", false, func(f *Filter) { f.Finished = &no }, func(j job.Job) bool { return !j.Done() }},
		{"success", true, func(f *Filter) { f.Success = &yes }, success(true)},
		{"success", false, func(f *Filter) { f.Success = &no }, success(false)},
		{"schedule", 2, func(f *Filter) { f.ScheduleID = 2 }, func(j job.Job) bool { return j.ScheduleRow == 2 }},
		{"recurring", true, func(f *Filter) { f.Recurring = &yes }, job.Job.Recurs},
		{"recurring", false, func(f *Filter) { f.Recurring = &no }, func(j job.Job) bool { return !j.Recurs() }},
		{"created after", 9, func(f *Filter) { f.CreatedAfter = s.at(9) }, func(j job.Job) bool { return j.Created.After(s.at(9)) }},
		{"created before", 9, func(f *Filter) { f.CreatedBefore = s.at(9) }, func(j job.Job) bool { return j.Created.Before(s.at(9)) }},
		label("red"), label(`gr"ün`),
	}
	for _, e := range []job.Executor{job.Internal, job.Trigger} {
		all = append(all, selection{"executor", e, func(f *Filter) { f.Executor = e }, func(j job.Job) bool { return j.Executor == e }})
	}
	for _, st := range statuses() {
		all = append(all, selection{"status", st, func(f *Filter) { f.Status = st }, func(j job.Job) bool { return j.Status() == st }})
	}
	return all
}

func testList(promise promise) {
	promise("every filter, and every two of them together, selects what it says, in list and count", func(s storeTest) {
		jobs := everyKind(s)
		check := func(what string, f Filter, is func(job.Job) bool) (found int) {
			s.Helper()
			want := slices.DeleteFunc(slices.Clone(jobs), func(j job.Job) bool { return !is(j) })
			s.same("list by "+what, s.listed(f), jobIDs(want))
			if n, err := s.Count(s.Context(), f); n != int64(len(want)) || err != nil {
				s.Errorf("count by %s: got %d, error %v; want %d", what, n, err, len(want))
			}
			return len(want)
		}
		for _, a := range selections(s) {
			var alone Filter
			a.set(&alone)
			if check(a.String(), alone, a.is) == 0 {
				s.Errorf("%s: no job of this test is selected, which proves nothing", a)
			}
			for _, b := range selections(s) {
				if a.member < b.member {
					both := alone
					b.set(&both)
					check(a.String()+" and "+b.String(), both, func(j job.Job) bool { return a.is(j) && b.is(j) })
				}
			}
		}
		none := func(job.Job) bool { return false }
		check("a label that is a pattern", Filter{Label: "r%"}, none)
		check("a tag in other letters", Filter{Tag: "TAG 7"}, none)
		check("a status that is none", Filter{Status: "LOST"}, none)
		check("a schedule without runs", Filter{ScheduleID: 99}, none)
	})

	promise("a listed job is whole", func(s storeTest) {
		j := s.jobIn(job.Trigger, job.StateToldFailed, "tag")
		s.sameJob("listed", s.list(Filter{Limit: 1})[0], j)
	})

	promise("a filter without a limit lists every job, and an empty store has an empty page", func(s storeTest) {
		page, err := s.List(s.Context(), Filter{})
		if err != nil || page.Jobs == nil || len(page.Jobs) != 0 || page.Next != (Cursor{}) {
			s.Errorf("nothing there: got %+v, error %v; want an empty list and no cursor", page, err)
		}
		one, two := s.put(job.Internal, "one"), s.put(job.Internal, "two")
		s.same("jobs", s.listed(Filter{}), []int64{two.ID, one.ID})
		s.same("jobs, soonest due first", s.listed(Filter{ByDue: true}), []int64{one.ID, two.ID})
	})
}

func testPages(promise promise) {
	for name, byDue := range map[string]bool{"newest first": false, "soonest due first": true} {
		promise(name+", pages lose and repeat nothing while jobs are added and removed", func(s storeTest) {
			const many, size = 40, 7
			jobs := []job.Job{}
			for i := range many {
				j := s.newJob(job.Internal, fmt.Sprint("tag ", i))
				j.Due = s.at(int64(i * 13 % 10)) // many are due at once
				jobs = append(jobs, s.place(j, job.Replace).Job)
			}
			slices.Reverse(jobs)
			if byDue {
				slices.SortFunc(jobs, func(a, b job.Job) int {
					if by := a.Due.Compare(b.Due); by != 0 {
						return by
					}
					return int(a.ID - b.ID)
				})
			}
			seen, added := []int64{}, map[int64]bool{}
			f := Filter{ByDue: byDue, Limit: size}
			for pages := 1; ; pages++ {
				page, err := s.List(s.Context(), f)
				if err != nil || len(page.Jobs) > size || pages > many {
					s.Fatalf("page %d: got %d jobs, error %v; want at most %d", pages, len(page.Jobs), err, size)
				}
				for _, id := range jobIDs(page.Jobs) {
					if !added[id] {
						seen = append(seen, id)
					}
				}
				if page.Next == (Cursor{}) {
					break
				}
				f.Cursor = page.Next
				// Others come and go meanwhile, now and then the job at the cursor too.
				j := s.newJob(job.Internal, fmt.Sprint("added ", pages))
				j.Due = s.at(int64(pages * 3 % 10))
				added[s.place(j, job.Replace).Job.ID] = true
				if pages%2 == 0 {
					s.happen(page.Next.ID, job.Event{Kind: job.Cancel, At: s.at(9)})
					s.sweep(s.at(0).Add(48*time.Hour), nil, 1, 1)
				}
			}
			s.same("jobs over all pages", seen, jobIDs(jobs))
		})
	}

	promise("jobs that the host wrote, a microsecond apart, page like others; those of a period go by their time", func(s storeTest) {
		var want []int64
		for n := range int64(7) {
			at := s.literal(s.at(9).Add(time.Duration(-n*n) * time.Microsecond))
			s.hostExec(fmt.Sprintf("INSERT INTO worker_jobs (tag, type, due, created_at) VALUES ('tag %d', 'work', %s, %s)", n, at, at))
		}
		jobs := s.list(Filter{})
		byTime := func(a, b job.Job) int { return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.ID, b.ID)) }
		slices.SortFunc(jobs, byTime)
		want = jobIDs(jobs)
		s.same("by due", s.paged(Filter{ByDue: true, Limit: 2}), want)
		slices.Reverse(want)
		s.same("of a period", s.paged(Filter{CreatedAfter: s.at(0), Limit: 2}), want)
		s.same("of another", s.paged(Filter{CreatedBefore: s.at(60_000), Limit: 3}), want)
	})

	promise("a page that is just full is the last one", func(s storeTest) {
		s.put(job.Internal, "one")
		s.put(job.Internal, "two")
		page, err := s.List(s.Context(), Filter{Limit: 2})
		if err != nil || len(page.Jobs) != 2 || page.Next != (Cursor{}) {
			s.Errorf("got %d jobs and cursor %+v, error %v; want 2 and none", len(page.Jobs), page.Next, err)
		}
	})
}

// paged are the ids over all pages of a list, at most a hundred.
func (s storeTest) paged(f Filter) (ids []int64) {
	s.Helper()
	for range 100 {
		page, err := s.List(s.Context(), f)
		if err != nil {
			s.Fatalf("list %+v: %v", f, err)
		}
		ids = append(ids, jobIDs(page.Jobs)...)
		if f.Cursor = page.Next; f.Cursor == (Cursor{}) {
			break
		}
	}
	return ids
}

func testStats(promise promise) {
	stats := func(s storeTest) Stats {
		s.Helper()
		got, err := s.Stats(s.Context(), s.at(1000))
		if err != nil {
			s.Fatalf("stats: %v", err)
		}
		return got
	}

	promise("jobs are counted by executor and status, none as zero", func(s storeTest) {
		want := map[job.Executor]map[job.Status]int64{}
		for _, executor := range []job.Executor{job.Internal, job.Trigger} {
			want[executor] = map[job.Status]int64{}
			for _, status := range statuses() {
				want[executor][status] = 0
			}
		}
		s.same("of an empty store", stats(s), Stats{Jobs: want})
		for _, j := range everyKind(s) {
			want[j.Executor][j.Status()]++
		}
		s.same("jobs", stats(s).Jobs, want)
	})

	promise("what is owed is counted, with the age of the oldest and the cancels", func(s storeTest) {
		owed, cancels := int64(0), int64(0)
		for _, j := range s.jobInEachState() {
			if j.Owes() {
				owed++
			}
			if j.CancelRequested && !j.Done() {
				cancels++
			}
		}
		got := stats(s)
		s.same("owed", got.Owed, owed)
		s.same("cancels pending", got.CancelsPending, cancels)
		s.same("oldest owed", got.OldestOwed, s.at(0))
	})

	promise("the sync lag is that of the unfinished run asked about longest ago", func(s storeTest) {
		for i, ms := range []int64{70, 40, 90} {
			j := s.jobIn(job.Trigger, job.StateQueued, fmt.Sprint("tag ", i))
			s.happen(j.ID, job.Event{Kind: job.Seen, At: s.at(ms), Run: job.Run{ID: j.RunID, Raw: "EXECUTING"}})
		}
		s.jobIn(job.Trigger, job.StateToldCompleted, "ended")
		s.same("oldest synced", stats(s).OldestSynced, s.at(40))
		s.jobIn(job.Trigger, job.StateQueued, "never asked about")
		s.same("with a run never asked about", stats(s).OldestSynced, s.at(0))
	})
}
