package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"sidejob/internal/job"
)

func testAtOnce(promise promise) {
	promise("of many workers that claim a job at once exactly one gets it", func(s storeTest) {
		j := s.put(job.Internal, "tag")
		var mu sync.Mutex
		won := []string{}
		s.together(16, func(i int) {
			token := fmt.Sprint("token ", i)
			_, err := s.Apply(s.Context(), j.ID, job.Event{
				Kind: job.Claim, At: s.at(1), Source: "worker", Lease: job.Lease{Token: token, For: time.Minute},
			})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won = append(won, token)
			case !errors.Is(err, job.ErrRefused):
				s.Errorf("claim: got error %v, want job.ErrRefused", err)
			}
		})
		s.same("tokens that won", won, []string{s.get(j.ID).LeaseToken})
		s.same("history", s.told(j.ID), []string{"created:  > waiting", "claim: waiting > leased"})
	})

	promise("events of one row wait for each other, and none is lost", func(s storeTest) {
		j := s.put(job.Trigger, "tag")
		const many = 32
		s.together(many, func(int) {
			ev := job.Event{Kind: job.Unreached, At: s.at(1), Source: "submit", Err: "no route", NextTry: s.at(1)}
			if _, err := s.Apply(s.Context(), j.ID, ev); err != nil {
				s.Errorf("apply: %v", err)
			}
		})
		s.same("tries", s.get(j.ID).Tries, many)
		s.same("lines of history", len(s.history(j.ID)), many+1)
	})

	promise("one event heard by many goroutines counts once", func(s storeTest) {
		j := s.jobIn(job.Trigger, job.StateQueued, "tag")
		s.together(16, func(int) {
			heard := Heard{EventIDs: []string{"evt_1"}, Event: job.Event{
				Kind: job.Told, At: s.at(99), Run: job.Run{ID: j.RunID, Raw: "EXECUTING"},
			}}
			if matched, err := s.Hear(s.Context(), heard); !matched || err != nil {
				s.Errorf("hear: got matched %v, error %v; want true", matched, err)
			}
		})
		s.same("history", s.told(j.ID), []string{
			"created:  > unsent", "submitted: sending > queued", "told: queued > running",
		})
	})

	promise("a storm of schedules, events and cancels loses nothing and leaves every history whole", func(s storeTest) {
		storm := &storm{storeTest: s, lines: map[int64]int{}}
		s.together(8, storm.blow)
		storm.check()
	})
}

// storm counts what the store acknowledged, to compare it with what is there.
type storm struct {
	storeTest
	mu    sync.Mutex
	known []int64
	lines map[int64]int // of history, by job
}

const (
	stormSteps = 250 // of each goroutine
	stormTags  = 40
)

func (s *storm) blow(seed int) {
	dice := rand.New(rand.NewPCG(uint64(seed), 1))
	for range stormSteps {
		if dice.IntN(3) == 0 {
			s.schedule(dice)
			continue
		}
		s.event(dice)
	}
}

func (s *storm) schedule(dice *rand.Rand) {
	executor := []job.Executor{job.Internal, job.Trigger}[dice.IntN(2)]
	policy := []job.OnConflict{job.Replace, job.ReplaceAll, job.Keep, job.Reject}[dice.IntN(4)]
	j := s.newJob(executor, fmt.Sprint("tag ", dice.IntN(stormTags)))
	j.AutoReschedule = dice.IntN(2) == 0
	placed, err := s.Schedule(s.Context(), []Order{{Job: j, OnConflict: policy, Source: "test"}}, Keyed{})
	if err != nil {
		s.Errorf("schedule: %v", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, old := range placed[0].Canceled {
		s.lines[old.ID]++
	}
	if placed[0].Err == nil && !placed[0].Existing {
		s.born(placed[0].Job.ID)
	}
}

func (s *storm) born(id int64) {
	s.known = append(s.known, id)
	s.lines[id]++
}

func (s *storm) event(dice *rand.Rand) {
	id, ok := s.someJob(dice)
	if !ok {
		return
	}
	lease := job.Lease{Token: "token", Owner: "worker", For: time.Minute}
	run := func(raw string) job.Run { return job.Run{ID: fmt.Sprint("run_", id), Raw: raw} }
	events := []job.Event{
		{Kind: job.Cancel}, {Kind: job.Claim, Lease: lease}, {Kind: job.Complete, Lease: lease}, {Kind: job.Fail, Lease: lease},
		{Kind: job.Release, Lease: lease}, {Kind: job.Submitted, Run: run("")}, {Kind: job.Told, Run: run("EXECUTING")},
		{Kind: job.Told, Run: run("COMPLETED")}, {Kind: job.Seen, Run: run("FAILED")}, {Kind: job.Unreached, InDoubt: true},
	}
	ev := events[dice.IntN(len(events))]
	ev.At, ev.Source = s.at(100), "storm"
	step, err := s.Apply(s.Context(), id, ev)
	if err != nil && !errors.Is(err, job.ErrRefused) {
		s.Errorf("%s: %v", ev.Kind, err)
	}
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if step.Changed && !step.Quiet {
		s.lines[id]++
	}
	if step.Follow != nil {
		s.born(step.Follow.ID)
	}
}

func (s *storm) someJob(dice *rand.Rand) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) == 0 {
		return 0, false
	}
	return s.known[dice.IntN(len(s.known))], true
}

func (s *storm) check() {
	all := s.list(Filter{})
	s.same("jobs in the store", len(all), len(s.known))
	untouched := map[string]int64{}
	for _, j := range all {
		s.checkHistory(j)
		// One that a worker took and gave back is pending beside the one that came meanwhile.
		if s.lines[j.ID] > 1 {
			continue
		}
		if other := untouched[j.Tag]; other != 0 {
			s.Errorf("%s: got jobs %d and %d that nothing has happened to, want one", j.Tag, other, j.ID)
		}
		untouched[j.Tag] = j.ID
	}
}

// checkHistory follows the history of a job from its making to what it is now.
func (s *storm) checkHistory(j job.Job) {
	entries := s.history(j.ID)
	if len(entries) != s.lines[j.ID] {
		s.Errorf("job %d: got %d lines of history, want the %d that were acknowledged", j.ID, len(entries), s.lines[j.ID])
	}
	last := ""
	for _, e := range entries {
		if e.From != last {
			s.Errorf("job %d: its history goes on from %q, want %q: %s", j.ID, e.From, last, strings.Join(s.told(j.ID), "; "))
		}
		last = e.To
	}
	if last != string(j.State()) {
		s.Errorf("job %d: its history ends with %q, but it is %q", j.ID, last, j.State())
	}
}
