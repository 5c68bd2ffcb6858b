package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sidejob/internal/job"
)

// promise runs a test against a fresh store of its own. The sentence is what the
// Store interface promises.
type promise func(sentence string, holds func(s storeTest))

// testStore is what every engine must pass. open makes an empty store that is closed
// when the test ends, and gives a connection to the same database besides.
func testStore(t *testing.T, open func(*testing.T) (Store, *sql.DB)) {
	for _, group := range []struct {
		name  string
		tests func(promise)
	}{
		{"schedule", testSchedule}, {"tags", testTags},
		{"apply", testApply}, {"follow", testFollow}, {"at once", testAtOnce},
		{"hear", testHear}, {"inbox", testInbox}, {"watch", testWatch},
		{"list", testList}, {"pages", testPages}, {"stats", testStats},
		{"owed", testOwed}, {"asked", testAsked}, {"remove", testRemove}, {"replies", testReplies},
		{"values", testValues}, {"host", testHost},
		{"claim", testClaim}, {"ripe", testRipe}, {"recurring", testRecurring},
	} {
		t.Run(group.name, func(t *testing.T) {
			t.Parallel()
			group.tests(func(sentence string, holds func(storeTest)) {
				t.Run(sentence, func(t *testing.T) {
					t.Parallel()
					store, host := open(t)
					holds(storeTest{t, store, host})
				})
			})
		})
	}
}

func testSchedule(promise promise) {
	promise("a new job is read back as it was placed, and its history says that it was created", func(s storeTest) {
		for _, executor := range []job.Executor{job.Internal, job.Trigger} {
			asked := s.newJob(executor, "tag-"+string(executor))
			p := s.place(asked, job.Replace)
			if p.Existing || len(p.Canceled) != 0 || p.Job.ID == 0 {
				s.Errorf("placed: got existing %v, canceled %d, id %d; want a new job and nobody to make way", p.Existing, len(p.Canceled), p.Job.ID)
			}
			asked.ID = p.Job.ID
			s.sameJob("placed", p.Job, asked)
			s.sameJob("read back", s.get(p.Job.ID), asked)
			s.same("history", s.told(p.Job.ID), []string{"created:  > " + string(asked.State())})
		}
	})

	promise("ids grow, and none is used twice", func(s storeTest) {
		first := s.jobIn(job.Internal, job.StateCanceled, "first")
		second := s.jobIn(job.Internal, job.StateCanceled, "second")
		s.sweep(second.RemoveAt, nil, 10, 2)
		third := s.put(job.Internal, "third")
		if second.ID <= first.ID || third.ID <= second.ID {
			s.Errorf("got ids %d, %d and, these removed, %d; want them to grow", first.ID, second.ID, third.ID)
		}
	})

	promise("one order of a batch that is refused leaves the others alone, and answers come in order", func(s storeTest) {
		taken := s.put(job.Internal, "taken")
		placed, err := s.Schedule(s.Context(), []Order{
			{Job: s.newJob(job.Internal, "before"), Source: "test"},
			{Job: s.newJob(job.Internal, "taken"), OnConflict: job.Reject, Source: "test"},
			{Job: s.newJob(job.Trigger, "after"), Source: "test"},
		}, Keyed{})
		if err != nil || len(placed) != 3 {
			s.Fatalf("got %d answers, error %v; want 3 and none", len(placed), err)
		}
		if placed[0].Err != nil || !errors.Is(placed[1].Err, job.ErrTagTaken) || placed[2].Err != nil {
			s.Errorf("errors: got %v, %v, %v; want only the second, job.ErrTagTaken", placed[0].Err, placed[1].Err, placed[2].Err)
		}
		s.same("tags in order", []string{placed[0].Job.Tag, placed[2].Job.Tag}, []string{"before", "after"})
		s.same("jobs", s.listed(Filter{}), []int64{placed[2].Job.ID, placed[0].Job.ID, taken.ID})
	})

	promise("later orders of a batch see the earlier ones", func(s storeTest) {
		placed, err := s.Schedule(s.Context(), []Order{
			{Job: s.newJob(job.Internal, "tag"), Source: "test"},
			{Job: s.newJob(job.Internal, "tag"), OnConflict: job.Replace, Source: "test"},
			{Job: s.newJob(job.Internal, "tag"), OnConflict: job.Keep, Source: "test"},
		}, Keyed{})
		if err != nil {
			s.Fatal(err)
		}
		s.same("made way for the second", jobIDs(placed[1].Canceled), []int64{placed[0].Job.ID})
		if !placed[2].Existing || placed[2].Job.ID != placed[1].Job.ID {
			s.Errorf("third: got existing %v, job %d; want job %d kept", placed[2].Existing, placed[2].Job.ID, placed[1].Job.ID)
		}
	})

	promise("a batch that the database will not have leaves nothing behind", func(s storeTest) {
		waiting := s.put(job.Internal, "waiting")
		twin := s.newJob(job.Trigger, "twin")
		other := twin
		other.Tag = "other"
		placed, err := s.Schedule(s.Context(), []Order{
			{Job: s.newJob(job.Internal, "waiting"), Source: "test"}, {Job: twin, Source: "test"}, {Job: other, Source: "test"},
		}, Keyed{})
		if err == nil {
			s.Fatalf("two jobs of one idempotency key: got %+v, want an error", placed)
		}
		s.same("jobs", s.listed(Filter{}), []int64{waiting.ID})
		s.sameJob("the job that would have made way", s.get(waiting.ID), waiting)
		s.same("its history", s.told(waiting.ID), []string{"created:  > waiting"})
	})

	promise("no orders are no jobs", func(s storeTest) {
		if placed, err := s.Schedule(s.Context(), nil, Keyed{}); len(placed) != 0 || err != nil {
			s.Errorf("got %v, error %v; want nothing", placed, err)
		}
	})
}

func testTags(promise promise) {
	executors := map[job.State]job.Executor{
		job.StateWaiting: job.Internal, job.StateLeased: job.Internal, job.StatePaused: job.Internal,
		job.StateScheduling: job.Trigger, job.StateScheduled: job.Trigger,
		job.StateUnsent: job.Trigger, job.StateSending: job.Trigger, job.StateQueued: job.Trigger, job.StateRunning: job.Trigger,
	}
	for policy, becomes := range map[job.OnConflict]map[job.State]job.State{
		job.Replace: {
			job.StateWaiting: job.StateCanceled, job.StateLeased: job.StateLeased, job.StateUnsent: job.StateCanceled,
			job.StateSending: job.StateSendingCanceling, job.StateQueued: job.StateQueuedCanceling, job.StateRunning: job.StateRunning,
			job.StatePaused: job.StateCanceled, job.StateScheduling: job.StateEnding, job.StateScheduled: job.StateEnding,
		},
		job.ReplaceAll: {
			job.StateWaiting: job.StateCanceled, job.StateLeased: job.StateCanceled, job.StateUnsent: job.StateCanceled,
			job.StateSending: job.StateSendingCanceling, job.StateQueued: job.StateQueuedCanceling, job.StateRunning: job.StateRunningCanceling,
			job.StatePaused: job.StateCanceled, job.StateScheduling: job.StateEnding, job.StateScheduled: job.StateEnding,
		},
	} {
		promise("under "+string(policy)+" each job of the tag makes way, and is named, or goes on", func(s storeTest) {
			for state, want := range becomes {
				old := s.jobIn(executors[state], state, string(state))
				p := s.place(s.newJob(job.Internal, string(state)), policy)
				is := s.get(old.ID)
				if is.State() != want {
					s.Errorf("a job that was %s: got %s, want %s", state, is.State(), want)
				}
				s.same("the new job", s.get(p.Job.ID).Status(), job.Pending)
				if want == state {
					s.sameJob("a job that goes on", is, old)
					s.same("jobs that make way", jobIDs(p.Canceled), []int64{})
					continue
				}
				s.same("jobs that make way", p.Canceled, []job.Job{is})
				if want == job.StateCanceled {
					s.same("its result", string(is.Result), `{"canceled":true,"error":"Job cancelled due to new job being created"}`)
				}
			}
		})
	}

	promise("keep and reject make nothing and touch nothing", func(s storeTest) {
		for state, executor := range executors {
			old := s.jobIn(executor, state, string(state))
			p := s.place(s.newJob(job.Internal, string(state)), job.Keep)
			if !p.Existing {
				s.Errorf("keep, a job that is %s: got a new one, want that one", state)
			}
			s.sameJob("the job kept", p.Job, old)
			placed, err := s.Schedule(s.Context(), []Order{{Job: s.newJob(job.Internal, string(state)), OnConflict: job.Reject}}, Keyed{})
			if err != nil || !errors.Is(placed[0].Err, job.ErrTagTaken) {
				s.Errorf("reject, a job that is %s: got %+v, error %v; want job.ErrTagTaken", state, placed, err)
			}
			s.sameJob("afterwards", s.get(old.ID), old)
			s.same("jobs of the tag", s.listed(Filter{Tag: string(state)}), []int64{old.ID})
		}
	})

	promise("a job that has ended or is to be canceled does not count for its tag", func(s storeTest) {
		for _, executor := range []job.Executor{job.Internal, job.Trigger} {
			for _, state := range s.states(executor) {
				if executors[state] != "" {
					continue
				}
				tag := string(executor) + " " + string(state)
				old := s.jobIn(executor, state, tag)
				p := s.place(s.newJob(executor, tag), job.Reject)
				s.same("jobs that make way", jobIDs(p.Canceled), []int64{})
				s.sameJob("the one before", s.get(old.ID), old)
			}
		}
	})

	promise("schedules of one tag from many goroutines leave exactly one open job", func(s storeTest) {
		const many = 24
		s.together(many, func(int) {
			if _, err := s.Schedule(s.Context(), []Order{{Job: s.newJob(job.Internal, "tag"), Source: "test"}}, Keyed{}); err != nil {
				s.Errorf("schedule: %v", err)
			}
		})
		open := false
		s.same("open jobs", len(s.listed(Filter{Tag: "tag", Finished: &open})), 1)
		s.same("jobs that made way", len(s.listed(Filter{Tag: "tag", Status: job.Canceled})), many-1)
	})

	promise("of many goroutines that keep one makes the job and the others get it, of those that reject one is served", func(s storeTest) {
		const many = 16
		got := make([]Placed, 2*many)
		s.together(2*many, func(i int) {
			order := Order{Job: s.newJob(job.Trigger, "kept"), OnConflict: job.Keep}
			if i >= many {
				order = Order{Job: s.newJob(job.Trigger, "rejected"), OnConflict: job.Reject}
			}
			placed, err := s.Schedule(s.Context(), []Order{order}, Keyed{})
			if err != nil {
				s.Errorf("schedule: %v", err)
				return
			}
			got[i] = placed[0]
		})
		made, served := 0, 0
		for i, p := range got {
			switch {
			case i < many && p.Job.ID != got[0].Job.ID:
				s.Errorf("keep: got jobs %d and %d, want the same for all", got[0].Job.ID, p.Job.ID)
			case i < many && !p.Existing:
				made++
			case i >= many && p.Err == nil:
				served++
			case i >= many && !errors.Is(p.Err, job.ErrTagTaken):
				s.Errorf("reject: got error %v, want job.ErrTagTaken", p.Err)
			}
		}
		if made != 1 || served != 1 {
			s.Errorf("got %d made under keep and %d under reject, want 1 and 1", made, served)
		}
	})
}

func testApply(promise promise) {
	promise("what is written is what job.Next decides, on the way into every state", func(s storeTest) {
		for _, executor := range []job.Executor{job.Internal, job.Trigger} {
			for _, state := range s.states(executor) {
				tag := string(executor) + "-" + string(state)
				is := s.putFor(executor, state, tag)
				lines := s.told(is.ID)
				for _, ev := range s.wayTo(executor, state, "run_"+tag) {
					want, err := job.Next(is, ev)
					if err != nil {
						s.Fatalf("%s: %v", ev.Kind, err)
					}
					s.sameJob("the step of "+string(ev.Kind), s.happen(is.ID, ev), want.Job)
					s.sameJob("the row after "+string(ev.Kind), s.get(is.ID), want.Job)
					if want.Changed && !want.Quiet {
						lines = append(lines, fmt.Sprintf("%s: %s > %s", ev.Kind, is.State(), want.Job.State()))
					}
					is = want.Job
				}
				s.same("history of "+tag, s.told(is.ID), lines)
			}
		}
	})

	promise("a line of history says when, who and what, and holds no payload and no result", func(s storeTest) {
		j := s.newJob(job.Trigger, "tag")
		j.Data = json.RawMessage(`{"secret":1}`)
		j = s.place(j, job.Replace).Job
		s.happen(j.ID,
			job.Event{Kind: job.Unreached, At: s.at(1), Source: "submit", Err: "no route", NextTry: s.at(500)},
			job.Event{Kind: job.Submitted, At: s.at(2), Source: "submit", Run: job.Run{ID: "run_1"}},
			job.Event{Kind: job.Told, At: s.at(3), Source: "webhook", Run: job.Run{
				ID: "run_1", Raw: "FAILED", Finished: s.at(1), Attempts: 2,
				Output: json.RawMessage(`"secret"`), Error: json.RawMessage(`{"message":"secret"}`),
			}})
		entries := s.history(j.ID)
		want := []Entry{
			{At: s.at(0), Kind: "created", Source: "test", To: "unsent", Detail: json.RawMessage(`{}`)},
			{At: s.at(1), Kind: "unreached", Source: "submit", From: "unsent", To: "unsent",
				Detail: json.RawMessage(`{"error":"no route","nextTry":"2026-03-01T12:00:00.500Z"}`)},
			{At: s.at(2), Kind: "submitted", Source: "submit", From: "unsent", To: "queued", Detail: json.RawMessage(`{"run":"run_1"}`)},
			{At: s.at(3), Kind: "told", Source: "webhook", From: "queued", To: "told failed",
				Detail: json.RawMessage(`{"attempt":2,"remoteAt":"2026-03-01T12:00:00.001Z","run":"run_1","status":"FAILED"}`)},
		}
		if len(entries) != len(want) {
			s.Fatalf("got %d lines, want %d", len(entries), len(want))
		}
		for i, e := range entries {
			want[i].ID = e.ID
			s.same(e.Kind, e, want[i])
			if i > 0 && e.ID <= entries[i-1].ID {
				s.Errorf("ids: got %d after %d, want a greater one", e.ID, entries[i-1].ID)
			}
		}
	})

	promise("a request that is refused changes nothing", func(s storeTest) {
		for executor, kinds := range map[job.Executor][]job.Kind{
			job.Internal: {job.Send, job.Renew, job.Release, job.Retry},
			job.Trigger:  {job.Claim, job.Renew, job.Complete, job.Fail, job.Release, job.Retry},
		} {
			j := s.put(executor, string(executor))
			before := s.told(j.ID)
			for _, kind := range kinds {
				step, err := s.Apply(s.Context(), j.ID, job.Event{Kind: kind, At: s.at(5), Source: "test"})
				if !errors.Is(err, job.ErrRefused) {
					s.Errorf("%s: got error %v, want job.ErrRefused", kind, err)
				}
				s.sameJob("the step", step.Job, j)
				s.sameJob("the row", s.get(j.ID), j)
			}
			s.same("history", s.told(j.ID), before)
		}
	})

	promise("news that changes nothing is no error and leaves no trace", func(s storeTest) {
		j := s.jobIn(job.Trigger, job.StateCompleted, "tag")
		before := s.told(j.ID)
		for _, ev := range []job.Event{
			{Kind: job.Told, At: s.at(90), Run: job.Run{ID: j.RunID, Raw: "FAILED"}},
			{Kind: job.Told, At: s.at(90), Run: job.Run{ID: "run_other", Raw: "EXECUTING"}},
			{Kind: job.Submitted, At: s.at(90), Run: job.Run{ID: "run_other"}},
			{Kind: job.Cancel, At: s.at(90)},
		} {
			s.happen(j.ID, ev)
		}
		s.sameJob("the row", s.get(j.ID), j)
		s.same("history", s.told(j.ID), before)
	})

	promise("a job that does not exist is not found", func(s storeTest) {
		_, applyErr := s.Apply(s.Context(), 4711, job.Event{Kind: job.Cancel, At: s.at(0)})
		_, retryErr := s.Retry(s.Context(), 4711, job.Event{Kind: job.Retry, At: s.at(0)}, Keyed{})
		_, getErr := s.Get(s.Context(), 4711)
		_, runErr := s.FindRun(s.Context(), "run_none")
		for call, err := range map[string]error{"apply": applyErr, "retry": retryErr, "get": getErr, "find run": runErr} {
			if !errors.Is(err, ErrNotFound) {
				s.Errorf("%s: got error %v, want ErrNotFound", call, err)
			}
		}
	})

	promise("a run is found by its id and belongs to one row only", func(s storeTest) {
		owner, other := s.jobIn(job.Trigger, job.StateQueued, "owner"), s.put(job.Trigger, "other")
		if id, err := s.FindRun(s.Context(), "run_owner"); id != owner.ID || err != nil {
			s.Errorf("find run: got %d, error %v; want %d", id, err, owner.ID)
		}
		if _, err := s.Apply(s.Context(), other.ID, job.Event{Kind: job.Submitted, At: s.at(9), Run: job.Run{ID: "run_owner"}}); err == nil {
			s.Error("the same run for another row: got no error, want one")
		}
		s.sameJob("the other row", s.get(other.ID), other)
	})

	promise("times are cut to the millisecond before anything is decided by them", func(s storeTest) {
		j := s.put(job.Internal, "tag")
		fine := s.at(5).Add(999_999 * time.Nanosecond).In(time.FixedZone("", 3600))
		is := s.happen(j.ID, job.Event{Kind: job.Claim, At: fine, Lease: job.Lease{Token: "t", For: time.Second}})
		s.same("started", is.Started, s.at(5))
		s.sameJob("the row", s.get(j.ID), is)
	})
}

func testFollow(promise promise) {
	promise("the row that follows comes with its id, and says whom it follows", func(s storeTest) {
		j := s.newJob(job.Internal, "tag")
		j.AutoReschedule, j.AutoRescheduleWait, j.Labels = true, time.Minute, []string{"a"}
		j = s.place(j, job.Replace).Job
		step, err := s.Apply(s.Context(), j.ID, job.Event{Kind: job.Fail, At: s.at(5), Source: "worker", Result: json.RawMessage(`"bad"`)})
		if err != nil || step.Follow == nil {
			s.Fatalf("got %+v, error %v; want a row that follows", step, err)
		}
		follow := s.get(step.Follow.ID)
		s.sameJob("the row that follows", *step.Follow, follow)
		if follow.RescheduledFrom != j.ID || follow.ID == j.ID || !follow.Due.Equal(s.at(60_005)) {
			s.Errorf("got job %d from %d due %s; want a new one from %d due %s", follow.ID, follow.RescheduledFrom, follow.Due, j.ID, s.at(60_005))
		}
		entries := s.history(follow.ID)
		s.same("its history", s.told(follow.ID), []string{"created:  > waiting"})
		s.same("who brought it", entries[0].Source, "worker")
		s.same("whom it follows", string(entries[0].Detail), fmt.Sprintf(`{"rescheduledFromJob":%d}`, j.ID))
	})

	promise("a failed row that would follow itself gives way to the job that has taken the tag", func(s storeTest) {
		j := s.newJob(job.Internal, "tag")
		j.AutoReschedule = true
		j = s.place(j, job.Replace).Job
		lease := job.Lease{Token: "t", For: time.Minute}
		s.happen(j.ID, job.Event{Kind: job.Claim, At: s.at(1), Lease: lease})
		taker := s.put(job.Internal, "tag")
		step, err := s.Apply(s.Context(), j.ID, job.Event{Kind: job.Fail, At: s.at(5), Lease: lease, Result: json.RawMessage(`1`)})
		if err != nil || step.Follow != nil {
			s.Fatalf("got follower %+v, error %v; want none", step.Follow, err)
		}
		s.same("jobs of the tag", s.listed(Filter{Tag: "tag"}), []int64{taker.ID, j.ID})
	})

	promise("a retry makes a new job in place of a pending one, and leaves the one that has ended as it is", func(s storeTest) {
		ended := s.jobIn(job.Trigger, job.StateFailed, "tag")
		pending := s.put(job.Trigger, "tag")
		before := s.told(ended.ID)
		step, err := s.Retry(s.Context(), ended.ID, job.Event{Kind: job.Retry, At: s.at(9), Source: "user", Key: "job-fresh"}, Keyed{})
		if err != nil || step.Follow == nil {
			s.Fatalf("got %+v, error %v; want a row that follows", step, err)
		}
		s.sameJob("the new one", s.get(step.Follow.ID), *step.Follow)
		s.same("its key", step.Follow.IdempotencyKey, "job-fresh")
		s.same("whom it follows", step.Follow.RescheduledFrom, ended.ID)
		s.same("the pending one", s.get(pending.ID).State(), job.StateCanceled)
		s.sameJob("the old one", s.get(ended.ID), ended)
		s.same("history of the old one", s.told(ended.ID), before)
	})

	promise("a retry that is refused makes nothing", func(s storeTest) {
		open := s.put(job.Internal, "tag")
		_, err := s.Retry(s.Context(), open.ID, job.Event{Kind: job.Retry, At: s.at(9)}, Keyed{})
		if !errors.Is(err, job.ErrRefused) || !strings.Contains(err.Error(), "has not ended") {
			s.Errorf("got error %v, want job.ErrRefused that says why", err)
		}
		s.same("jobs", s.listed(Filter{}), []int64{open.ID})
	})
}
