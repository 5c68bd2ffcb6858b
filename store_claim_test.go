package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sidejob/internal/job"
)

// typed stores a job of a type that is due so many milliseconds after the beginning.
func (s storeTest) typed(kind, tag string, due int64) job.Job {
	s.Helper()
	j := s.newJob(job.Internal, tag)
	j.Type, j.Due = kind, s.at(due)
	return s.place(j, job.Replace).Job
}

// recurring stores a job that recurs.
func (s storeTest) recurring(spec job.Spec) job.Job {
	s.Helper()
	spec.Type = "tick"
	j, _, err := job.New(spec, s.at(0), "uuid-"+spec.Tag)
	if err != nil {
		s.Fatalf("make %s: %v", spec.Tag, err)
	}
	return s.place(j, job.Replace).Job
}

// asks is a claim at a time, of at most limit jobs, for a minute.
func (s storeTest) asks(ms int64, limit int) Claim {
	return Claim{At: s.at(ms), Limit: limit, Lease: job.Lease{Token: fmt.Sprint("token-", ms), Owner: "worker", For: time.Minute}}
}

func (s storeTest) claimed(c Claim) []job.Job {
	s.Helper()
	jobs, err := s.Claim(s.Context(), c)
	if err != nil {
		s.Fatalf("claim: %v", err)
	}
	return jobs
}

func (s storeTest) nextClaimable(c Claim) time.Time {
	s.Helper()
	next, err := s.NextClaimable(s.Context(), c)
	if err != nil {
		s.Fatalf("next claimable: %v", err)
	}
	return next
}

func testClaim(promise promise) {
	promise("due jobs are handed out, soonest due first, then by id, at most as many as asked for", func(s storeTest) {
		third, first := s.typed("a", "1", 20), s.typed("b", "2", 10)
		fourth, second := s.typed("a", "3", 20), s.typed("c", "4", 15)
		later := s.typed("a", "5", 31)
		s.same("three of them", jobIDs(s.claimed(s.asks(30, 3))), jobIDs([]job.Job{first, second, third}))
		s.same("the rest", jobIDs(s.claimed(s.asks(30, 9))), jobIDs([]job.Job{fourth}))
		s.same("nothing is left", jobIDs(s.claimed(s.asks(30, 9))), []int64{})
		s.same("when it is due", jobIDs(s.claimed(s.asks(31, 9))), []int64{later.ID})
	})

	promise("each job has a lease with a token of its own, and the row is as it was answered", func(s storeTest) {
		s.typed("a", "1", 0)
		s.typed("a", "2", 0)
		jobs := s.claimed(s.asks(40, 9))
		for _, j := range jobs {
			s.sameJob("the row", s.get(j.ID), j)
			if j.State() != job.StateLeased || j.LeaseOwner != "worker" || j.LeaseFor != time.Minute || !j.LeaseExpires.Equal(s.at(60_040)) || j.Attempt != 1 || !j.Started.Equal(s.at(40)) {
				s.Errorf("got %s, want a lease of a minute from then on", shownJSON(j))
			}
			s.same("history", s.told(j.ID), []string{"created:  > waiting", "claim: waiting > leased"})
		}
		if jobs[0].LeaseToken == jobs[1].LeaseToken || jobs[0].LeaseToken == "" {
			s.Errorf("tokens %q and %q, want two", jobs[0].LeaseToken, jobs[1].LeaseToken)
		}
	})

	promise("only internal jobs that wait are handed out", func(s storeTest) {
		all := s.jobInEachState()
		backing := s.place(func() job.Job { j := s.newJob(job.Internal, "backing"); j.Retry = &job.RetryConfig{}; return j }(), job.Replace).Job
		s.happen(backing.ID, job.Event{Kind: job.Fail, At: s.at(60_000)})
		waiting := all[slices.IndexFunc(all, func(j job.Job) bool { return j.State() == job.StateWaiting })]
		s.same("claimed", jobIDs(s.claimed(s.asks(60_999, 1000))), []int64{waiting.ID})
		s.same("after the back-off", jobIDs(s.claimed(s.asks(61_000, 1000))), []int64{backing.ID})
	})

	promise("types are asked for, or left out", func(s storeTest) {
		a2, b1, c, b3 := s.typed("a", "1", 2), s.typed("b", "2", 1), s.typed("c", "3", 0), s.typed("b", "4", 3)
		of := func(types ...string) Claim { c := s.asks(9, 2); c.Types = types; return c }
		s.same("of none that there is", jobIDs(s.claimed(of("x", "A", ""))), []int64{})
		s.same("of two types, soonest first", jobIDs(s.claimed(of("b", "a", "b"))), []int64{b1.ID, a2.ID})
		without := s.asks(9, 9)
		without.NotTypes = []string{"c"}
		s.same("of all but one", jobIDs(s.claimed(without)), []int64{b3.ID})
		s.same("of all", jobIDs(s.claimed(s.asks(9, 9))), []int64{c.ID})
	})

	promise("a claim of one job says why it is refused, and changes nothing", func(s storeTest) {
		of := func(id int64) Claim { c := s.asks(100, 1); c.ID = id; return c }
		if _, err := s.Claim(s.Context(), of(99)); !errors.Is(err, ErrNotFound) {
			s.Errorf("of none: got error %v, want ErrNotFound", err)
		}
		for _, j := range s.jobInEachState() {
			if j.State() == job.StateWaiting {
				continue
			}
			if _, err := s.Claim(s.Context(), of(j.ID)); !errors.Is(err, job.ErrRefused) {
				s.Errorf("of one that is %s: got error %v, want job.ErrRefused", j.State(), err)
			}
			s.sameJob("afterwards", s.get(j.ID), j)
		}
		late, other := s.typed("a", "late", 101), s.typed("a", "other", 0)
		if _, err := s.Claim(s.Context(), of(late.ID)); err == nil || !strings.Contains(err.Error(), "not due before") {
			s.Errorf("before its time: got error %v, want one that says so", err)
		}
		s.same("the one that is due", jobIDs(s.claimed(of(other.ID))), []int64{other.ID})
	})

	promise("of many goroutines that claim, each job goes to one, and none is left", func(s storeTest) {
		const many = 200
		orders := make([]Order, many)
		for i := range orders {
			orders[i] = Order{Job: s.newJob(job.Internal, fmt.Sprint(i)), Source: "test"}
		}
		if _, err := s.Schedule(s.Context(), orders, Keyed{}); err != nil {
			s.Fatal(err)
		}
		var mu sync.Mutex
		got := map[int64]int{}
		s.together(8, func(i int) {
			c := s.asks(1, 1+i)
			c.Lease.Token = fmt.Sprint("worker-", i)
			for {
				jobs, err := s.Claim(s.Context(), c)
				if err != nil {
					s.Errorf("claim: %v", err)
				}
				if len(jobs) == 0 {
					return
				}
				mu.Lock()
				for _, j := range jobs {
					if got[j.ID]++; got[j.ID] > 1 {
						mu.Unlock()
						return
					}
				}
				mu.Unlock()
			}
		})
		if len(got) != many {
			s.Errorf("%d jobs were handed out, want %d", len(got), many)
		}
		for id, times := range got {
			if times != 1 {
				s.Errorf("job %d was handed out %d times", id, times)
			}
		}
	})

	promise("a recurring job that skips what it has missed is put off, and does not stand in the way of others", func(s storeTest) {
		skips := s.recurring(job.Spec{Tag: "skips", CronSchedule: "0 * * * *", Misfire: job.FireSkip})
		once := s.recurring(job.Spec{Tag: "once", CronSchedule: "0 * * * *"})
		plain := s.typed("work", "plain", 150_000)
		c := s.asks(200_000, 1)
		s.same("first", jobIDs(s.claimed(c)), []int64{once.ID})
		s.same("then", jobIDs(s.claimed(c)), []int64{plain.ID})
		if j := s.get(skips.ID); !j.Due.Equal(s.at(3_600_000)) || j.Attempt != 0 {
			s.Errorf("got due %s, %d tries; want the next hour and none", j.Due, j.Attempt)
		}
		s.same("its history", s.told(skips.ID), []string{"created:  > waiting", "missed: waiting > waiting"})
	})

	promise("a row that the host wrote with a schedule that is none does not stand in the way of others", func(s storeTest) {
		for i, cron := range []string{"nonsense", "0 0 30 2 *", "99 * * * *"} {
			s.hostExec(fmt.Sprintf(`INSERT INTO worker_jobs (tag, type, due, cron_schedule, misfire) VALUES ('bad %d', 'work', %s, '%s', 'skip')`, i, s.literal(s.at(-1000)), cron))
		}
		good := s.typed("work", "good", 0)
		jobs := jobIDs(s.claimed(s.asks(10, 4)))
		if !slices.Contains(jobs, good.ID) {
			s.Errorf("got jobs %d, want %d among them", jobs, good.ID)
		}
	})

	promise("the next time there is something to claim is told, for the types that are asked for", func(s storeTest) {
		c := s.asks(100, 1)
		s.same("of nothing", s.nextClaimable(c), time.Time{})
		s.typed("a", "due already", 50)
		s.typed("a", "leased", 200)
		s.claimed(Claim{At: s.at(200), Types: []string{"a"}, Limit: 9, Lease: job.Lease{Token: "t", For: time.Minute}})
		s.same("of none that waits", s.nextClaimable(c), time.Time{})
		s.typed("a", "1", 900)
		s.typed("b", "2", 400)
		s.same("of all", s.nextClaimable(c), s.at(400))
		c.NotTypes = []string{"b"}
		s.same("of all but b", s.nextClaimable(c), s.at(900))
		c.Types = []string{"x", "a", "b"}
		s.same("of three types", s.nextClaimable(c), s.at(400))
		c.Types = []string{"a"}
		s.same("of one", s.nextClaimable(c), s.at(900))
		retried := s.newJob(job.Internal, "retried")
		retried.Type, retried.Retry = "a", &job.RetryConfig{MinTimeout: 250, MaxAttempts: 9}
		retried = s.place(retried, job.Replace).Job
		s.happen(retried.ID, job.Event{Kind: job.Fail, At: s.at(100)})
		s.same("with a try to repeat", s.nextClaimable(c), s.at(350))
		c.Types = []string{"b"}
		s.same("of the other type", s.nextClaimable(c), s.at(400))
		c.At = s.at(400)
		s.same("from when it is due", s.nextClaimable(c), time.Time{})
	})

	promise("leases that hold are counted, and how long the last of them does", func(s storeTest) {
		s.jobInEachState() // one is leased, from 10 ms on for a minute
		held, until, err := s.Leases(s.Context(), s.at(60_009), "")
		if held != 1 || !until.Equal(s.at(60_010)) || err != nil {
			s.Errorf("got %d until %s, error %v; want one", held, until, err)
		}
		if held, until, err = s.Leases(s.Context(), s.at(60_010), ""); held != 0 || !until.IsZero() || err != nil {
			s.Errorf("when it has run out: got %d until %s, error %v; want none", held, until, err)
		}
	})

	promise("who waits for work is woken by what may be claimed, and by nothing else", func(s storeTest) {
		woken, stop := s.Watch(claimableJobs)
		defer stop()
		wakes := func(what string, want bool) {
			s.Helper()
			select {
			case <-woken:
				// Where others may write, what was written before is told again, and late.
				if !want && s.Alone() {
					s.Errorf("%s wakes who waits for work", what)
				}
			default:
				if want {
					s.Errorf("%s does not wake who waits for work", what)
				}
			}
		}
		s.put(job.Trigger, "trigger")
		wakes("a job of Trigger.dev", false)
		j := s.put(job.Internal, "tag")
		wakes("a new job", true)
		lease := s.claimed(s.asks(1, 1))[0].LeaseToken
		wakes("a claim", false)
		s.happen(j.ID, job.Event{Kind: job.Renew, At: s.at(2), Lease: job.Lease{Token: lease}})
		wakes("a heartbeat", false)
		s.happen(j.ID, job.Event{Kind: job.Release, At: s.at(3), Lease: job.Lease{Token: lease}})
		wakes("a release", true)
		s.claimed(s.asks(4, 1))
		s.happen(j.ID, job.Event{Kind: job.LeaseLost, At: s.at(60_004)})
		wakes("a lost lease", true)
		s.happen(j.ID, job.Event{Kind: job.Complete, At: s.at(70_000)})
		wakes("an end", false)
	})
}
