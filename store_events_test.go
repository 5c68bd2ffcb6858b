package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sidejob/internal/job"
)

func testHear(promise promise) {
	told := func(s storeTest, run, raw string, ms int64) job.Event {
		return job.Event{Kind: job.Told, At: s.at(ms), Source: "webhook", Run: job.Run{ID: run, Raw: raw}}
	}

	promise("an event is applied to the row of its run", func(s storeTest) {
		j := s.jobIn(job.Trigger, job.StateQueued, "tag")
		if !s.hear("evt_1", told(s, j.RunID, "EXECUTING", 99)) {
			s.Error("got not matched, want matched")
		}
		s.same("state", s.get(j.ID).State(), job.StateRunning)
		s.same("history", s.told(j.ID)[2:], []string{"told: queued > running"})
	})

	promise("an event id heard before changes nothing and is answered as the first time", func(s storeTest) {
		j := s.jobIn(job.Trigger, job.StateQueued, "tag")
		s.hear("evt_known", told(s, j.RunID, "EXECUTING", 99))
		s.hear("evt_early", told(s, "run_later", "EXECUTING", 99))
		later := s.put(job.Trigger, "later")
		s.happen(later.ID, job.Event{Kind: job.Submitted, At: s.at(100), Run: job.Run{ID: "run_later"}})
		j, later = s.get(j.ID), s.get(later.ID)

		if !s.hear("evt_known", told(s, j.RunID, "FAILED", 200)) {
			s.Error("the event of a run that had a row: got not matched, want matched as the first time")
		}
		if s.hear("evt_early", told(s, "run_later", "FAILED", 200)) {
			s.Error("the event of a run that had none: got matched, want not matched as the first time")
		}
		s.sameJob("the row", s.get(j.ID), j)
		s.sameJob("the row that came later", s.get(later.ID), later)
	})

	promise("an event of several ids has been heard when one of them was", func(s storeTest) {
		j := s.jobIn(job.Trigger, job.StateQueued, "tag")
		hear := func(raw string, want bool, eventIDs ...string) {
			s.Helper()
			matched, err := s.Hear(s.Context(), Heard{EventIDs: eventIDs, Event: told(s, j.RunID, raw, 99)})
			if matched != want || err != nil {
				s.Errorf("%s by %q: got matched %v, error %v; want %v", raw, eventIDs, matched, err, want)
			}
		}
		hear("EXECUTING", true, "evt_1", "msg_1")
		hear("FAILED", true, "evt_2", "msg_1")
		hear("FAILED", true, "evt_1", "msg_2")
		s.same("state", s.get(j.ID).State(), job.StateRunning)
		hear("COMPLETED", true, "evt_3", "evt_3") // the same id in both places
		s.same("state", s.get(j.ID).State(), job.StateToldCompleted)
	})

	promise("an event proved to be of a row gives the row its run", func(s storeTest) {
		j := s.put(job.Trigger, "tag")
		matched, err := s.Hear(s.Context(), Heard{EventIDs: []string{"evt_1"}, JobID: j.ID, Event: told(s, "run_1", "EXECUTING", 5)})
		if !matched || err != nil {
			s.Fatalf("got matched %v, error %v; want true", matched, err)
		}
		is := s.get(j.ID)
		s.same("run", is.RunID, "run_1")
		s.same("state", is.State(), job.StateRunning)
	})

	promise("an event that fails was not heard", func(s storeTest) {
		heard := Heard{EventIDs: []string{"evt_1"}, JobID: 4711, Event: told(s, "run_1", "EXECUTING", 5)}
		if _, err := s.Hear(s.Context(), heard); !errors.Is(err, ErrNotFound) {
			s.Errorf("the event of a row that does not exist: got error %v, want ErrNotFound", err)
		}
		heard.JobID = s.put(job.Trigger, "tag").ID
		if matched, err := s.Hear(s.Context(), heard); !matched || err != nil {
			s.Errorf("the same event again: got matched %v, error %v; want true", matched, err)
		}
	})
}

func testInbox(promise promise) {
	promise("events of a run that no row has are applied when a row gets that run, in the order heard", func(s storeTest) {
		j := s.put(job.Trigger, "tag")
		for i, raw := range []string{"QUEUED", "EXECUTING", "COMPLETED", "FAILED"} {
			ev := job.Event{Kind: job.Told, At: s.at(int64(10 + i)), Source: "webhook", Run: job.Run{ID: "run_1", Raw: raw}}
			// The ids are in the opposite order: it is not they that count.
			if s.hear(fmt.Sprint("evt_", 9-i), ev) {
				s.Errorf("%s: got matched, want not matched: no row has the run", raw)
			}
		}
		submit := s.happen(j.ID, job.Event{Kind: job.Submitted, At: s.at(20), Source: "submit", Run: job.Run{ID: "run_1"}})
		s.same("the step of the submit itself", submit.State(), job.StateQueued)
		is := s.get(j.ID)
		s.same("state", is.State(), job.StateToldCompleted)
		s.same("finished", is.Finished, s.at(12))
		s.same("history", s.told(j.ID), []string{
			"created:  > unsent", "submitted: unsent > queued", "told: queued > running", "told: running > told completed",
		})
	})

	promise("events of other runs stay where they are", func(s storeTest) {
		j := s.put(job.Trigger, "tag")
		s.hear("evt_1", job.Event{Kind: job.Told, At: s.at(1), Run: job.Run{ID: "run_other", Raw: "COMPLETED"}})
		s.happen(j.ID, job.Event{Kind: job.Submitted, At: s.at(2), Run: job.Run{ID: "run_1"}})
		s.same("state", s.get(j.ID).State(), job.StateQueued)
	})

	promise("the event that gives a row its run brings along what was kept for that run", func(s storeTest) {
		j := s.put(job.Trigger, "tag")
		s.hear("evt_1", job.Event{Kind: job.Told, At: s.at(1), Run: job.Run{ID: "run_1", Raw: "COMPLETED"}})
		ev := job.Event{Kind: job.Told, At: s.at(2), Run: job.Run{ID: "run_1", Raw: "EXECUTING"}}
		if _, err := s.Hear(s.Context(), Heard{EventIDs: []string{"evt_2"}, JobID: j.ID, Event: ev}); err != nil {
			s.Fatal(err)
		}
		s.same("state", s.get(j.ID).State(), job.StateToldCompleted)
	})

	raw := func(text string) json.RawMessage { return json.RawMessage(text) }
	for name, run := range map[string]job.Run{
		"without an output":          {Raw: "COMPLETED"},
		"with null as its output":    {Raw: "COMPLETED", Output: raw(`null`)},
		"with an output of any text": {Raw: "COMPLETED", Output: raw(`{ "html": "<b>&amp;\u0041", "n": 90071992547409931, "a": 1, "a": 2 }`)},
		"without an error":           {Raw: "FAILED"},
		"with an error":              {Raw: "CRASHED", Error: raw(`{"message":"out of memory"}`), Attempts: 3, AttemptID: "attempt_1"},
		"with an error not in JSON":  {Raw: "FAILED", Error: raw(`it broke`)},
		"that was canceled":          {Raw: "CANCELED", Started: time.UnixMilli(5).UTC(), Finished: time.UnixMilli(7).UTC()},
	} {
		promise("an event that was kept does what it does at once: a run "+name, func(s storeTest) {
			early, late := s.put(job.Trigger, "early"), s.put(job.Trigger, "late")
			submitted := job.Event{Kind: job.Submitted, At: s.at(1), Run: job.Run{ID: "run_early"}}
			event := job.Event{Kind: job.Told, At: s.at(2), Source: "webhook", Run: run}

			event.Run.ID = "run_early"
			s.hear("evt_early", event)
			s.happen(early.ID, submitted)

			submitted.Run.ID, event.Run.ID = "run_late", "run_late"
			s.happen(late.ID, submitted)
			s.hear("evt_late", event)

			got, want := s.get(early.ID), s.get(late.ID)
			got.ID, got.Tag, got.RunID, got.IdempotencyKey = want.ID, want.Tag, want.RunID, want.IdempotencyKey
			s.sameJob("the row", got, want)
			s.same("its history", s.told(early.ID), s.told(late.ID))
		})
	}

	promise("an event that no row asked for is forgotten after a day, its id after a week", func(s storeTest) {
		heard := job.Event{Kind: job.Told, At: s.at(0), Run: job.Run{ID: "run_1", Raw: "COMPLETED"}}
		s.hear("evt_1", heard)
		day, week := s.at(0).Add(inboxLife), s.at(0).Add(eventIDLife)
		s.sweep(day, nil, 10, 0)
		first := s.put(job.Trigger, "within a day")
		s.happen(first.ID, job.Event{Kind: job.Submitted, At: day, Run: job.Run{ID: "run_1"}})
		s.same("a row within a day", s.get(first.ID).State(), job.StateToldCompleted)

		heard.Run.ID = "run_2"
		s.hear("evt_2", heard)
		s.sweep(day.Add(time.Millisecond), nil, 0, 0)
		second := s.put(job.Trigger, "after a day")
		s.happen(second.ID, job.Event{Kind: job.Submitted, At: day, Run: job.Run{ID: "run_2"}})
		s.same("a row after a day", s.get(second.ID).State(), job.StateQueued)

		s.sweep(week, nil, 0, 0)
		if s.hear("evt_2", heard) {
			s.Error("the same id within a week: got matched, want not matched as the first time")
		}
		s.sweep(week.Add(time.Millisecond), nil, 0, 0)
		if !s.hear("evt_2", heard) {
			s.Error("the same id after a week: got not matched, want matched as a new one")
		}
	})
}

func testWatch(promise promise) {
	// told waits for a value, longer than any engine may take to bring it.
	told := func(s storeTest, ch <-chan struct{}) bool {
		select {
		case <-ch:
			return true
		case <-time.After(10 * time.Second):
			return false
		}
	}
	drain := func(ch <-chan struct{}) {
		for len(ch) > 0 {
			<-ch
		}
	}

	promise("whoever watches a job or every job is woken by a commit and sees the change", func(s storeTest) {
		j := s.put(job.Internal, "tag")
		one, stopOne := s.Watch(j.ID)
		defer stopOne()
		every, stopEvery := s.Watch(0)
		defer stopEvery()
		nobodys, stopNobodys := s.Watch(j.ID + 1000)
		defer stopNobodys()
		s.happen(j.ID, job.Event{Kind: job.Cancel, At: s.at(1)})
		if !told(s, one) || !s.get(j.ID).Done() {
			s.Error("watching the job: got no value with the change, want one")
		}
		if !told(s, every) {
			s.Error("watching every job: got no value, want one")
		}
		s.put(job.Internal, "other")
		if !told(s, every) || len(nobodys) != 0 {
			s.Errorf("another job made: want a value for who watches every job only; a job that never changed has %d", len(nobodys))
		}
	})

	promise("a job that makes way and a job whose kept event is applied wake too", func(s storeTest) {
		old := s.put(job.Internal, "tag")
		ch, stop := s.Watch(old.ID)
		defer stop()
		s.put(job.Internal, "tag")
		if !told(s, ch) || !s.get(old.ID).Done() {
			s.Error("a job that made way: got no value with the change, want one")
		}
		late := s.put(job.Trigger, "late")
		ch, stop = s.Watch(late.ID)
		defer stop()
		s.hear("evt_1", job.Event{Kind: job.Told, At: s.at(1), Run: job.Run{ID: "run_1", Raw: "COMPLETED"}})
		s.happen(late.ID, job.Event{Kind: job.Submitted, At: s.at(2), Run: job.Run{ID: "run_1"}})
		if !told(s, ch) || !s.get(late.ID).Done() {
			s.Error("a job whose run had ended: got no value with the change, want one")
		}
	})

	promise("what changes nothing wakes nobody", func(s storeTest) {
		j, other := s.put(job.Internal, "tag"), s.put(job.Internal, "other")
		last, stopLast := s.Watch(other.ID)
		defer stopLast()
		s.happen(other.ID, job.Event{Kind: job.Claim, At: s.at(1), Lease: job.Lease{Token: "t", For: time.Minute}})
		if !told(s, last) { // and so has what came before
			s.Fatal("another job: got no value, want one")
		}
		ch, stop := s.Watch(j.ID)
		defer stop()
		if _, err := s.Apply(s.Context(), j.ID, job.Event{Kind: job.Renew, At: s.at(1)}); !errors.Is(err, job.ErrRefused) {
			s.Fatalf("renew: got error %v, want job.ErrRefused", err)
		}
		s.happen(j.ID, job.Event{Kind: job.LeaseLost, At: s.at(1)})
		s.place(s.newJob(job.Internal, "tag"), job.Keep)
		s.happen(other.ID, job.Event{Kind: job.Cancel, At: s.at(1)}) // comes after all that
		if !told(s, last) || len(ch) != 0 {
			s.Errorf("got %d values, want none", len(ch))
		}
	})

	promise("changes that nobody has read yet are one value, and after stop there are none", func(s storeTest) {
		j := s.put(job.Trigger, "tag")
		ch, stop := s.Watch(j.ID)
		last, stopLast := s.Watch(0)
		defer stopLast()
		for i := range 5 {
			s.happen(j.ID, job.Event{Kind: job.Unreached, At: s.at(int64(i)), InDoubt: true})
		}
		if !told(s, ch) {
			s.Fatal("got no value, want one")
		}
		if len(ch) > 1 {
			s.Errorf("got %d values waiting, want at most one", len(ch))
		}
		stop()
		stop() // again does no harm
		drain(ch)
		drain(last)
		s.happen(j.ID, job.Event{Kind: job.Cancel, At: s.at(9)})
		if !told(s, last) || len(ch) != 0 {
			s.Errorf("after stop: got %d values, want none", len(ch))
		}
	})
}
