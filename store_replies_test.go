package main

import (
	"errors"
	"sync/atomic"

	"sidejob/internal/job"
)

// replyTest holds requests with an Idempotency-Key against a store.
type replyTest struct{ storeTest }

func (s replyTest) reserve(key, body, owner string, ms int64) (Reply, error) {
	return s.Reserve(s.Context(), Reservation{Key: ReplyKey(key), Digest: body, Owner: owner, At: s.at(ms)})
}

// want reserves the key of a request by the process me and must get the reply; the
// zero one is a fresh reservation.
func (s replyTest) want(what, key, body string, ms int64, want Reply) {
	s.Helper()
	got, err := s.reserve(key, body, "me", ms)
	if err != nil {
		s.Errorf("%s: got error %v, want a reply", what, err)
	}
	s.same(what, got, want)
}

// mine is the request that the process me carries out.
func mine(key string) Keyed { return Keyed{ReplyKey(key), "me"} }

func (s replyTest) refused(what, key, body, owner string, want error) {
	s.Helper()
	if _, err := s.reserve(key, body, owner, 5); !errors.Is(err, want) {
		s.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func (s replyTest) keep(key string, reply Reply) {
	s.Helper()
	if err := s.Keep(s.Context(), mine(key), reply); err != nil {
		s.Fatalf("keep: %v", err)
	}
}

func testReplies(storePromise promise) {
	promise := func(sentence string, holds func(s replyTest)) {
		storePromise(sentence, func(s storeTest) { holds(replyTest{s}) })
	}
	created := Reply{Status: 201, Headers: map[string]string{"Location": "/api/jobs/1"}, Body: []byte("{\"a\":\"\\u00e9\xff\x00\"}\n")}

	promise("a reply that was kept is given again, byte for byte, to the same body only", func(s replyTest) {
		for key, reply := range map[string]Reply{"full": created, "bare": {Status: 204}} {
			s.want("first", key, "body", 0, Reply{})
			s.keep(key, reply)
			s.want("again", key, "body", 5, reply)
			got, err := s.reserve(key, "body", "another process", 5)
			if err != nil {
				s.Error(err)
			}
			s.same("to another process", got, reply)
			s.refused("another body", key, "another body", "me", ErrReplyMismatch)
		}
	})

	promise("a key under way is refused to its own process", func(s replyTest) {
		s.want("first", "key", "body", 0, Reply{})
		s.refused("again", "key", "body", "me", ErrReplyUnderWay)
		s.refused("another body", "key", "another body", "me", ErrReplyMismatch)
		s.want("another key", "another key", "body", 5, Reply{})
	})

	promise("a key is taken over from a request that is over, once", func(s replyTest) {
		s.want("first", "key", "body", 0, Reply{})
		again := Reservation{Key: "key", Digest: "body", Owner: "me", At: s.at(1), Over: true}
		if got, err := s.Reserve(s.Context(), again); err != nil || got.Status != 0 {
			s.Errorf("taken over: got %+v (%v), want no reply yet", got, err)
		}
		s.refused("again", "key", "body", "me", ErrReplyUnderWay)
	})

	promise("another process takes over a key that was left under way, with the jobs made by then", func(s replyTest) {
		if _, err := s.reserve("key", "body", "dead", 0); err != nil {
			s.Fatal(err)
		}
		s.want("taken over before a job was made", "key", "body", 1, Reply{})
		placed, err := s.Schedule(s.Context(), []Order{
			{Job: s.newJob(job.Internal, "one")}, {Job: s.newJob(job.Internal, "one"), OnConflict: job.Reject}, {Job: s.newJob(job.Internal, "two")},
		}, mine("key"))
		if err != nil {
			s.Fatal(err)
		}
		got, err := s.reserve("key", "body", "third", 2)
		if err != nil {
			s.Fatal(err)
		}
		s.same("taken over after", got, Reply{JobIDs: []int64{placed[0].Job.ID, 0, placed[2].Job.ID}})
		s.refused("again", "key", "body", "third", ErrReplyUnderWay)
	})

	promise("the job of a retry is noted beside its request", func(s replyTest) {
		ended := s.jobIn(job.Internal, job.StateFailed, "tag")
		s.want("first", "key", "body", 0, Reply{})
		step, err := s.Retry(s.Context(), ended.ID, job.Event{Kind: job.Retry, At: s.at(9)}, mine("key"))
		if err != nil {
			s.Fatal(err)
		}
		got, err := s.reserve("key", "body", "another process", 10)
		if err != nil {
			s.Fatal(err)
		}
		s.same("taken over", got, Reply{JobIDs: []int64{step.Follow.ID}})
	})

	promise("who has had a request taken from him makes no job, keeps no reply and frees no key", func(s replyTest) {
		ended := s.jobIn(job.Internal, job.StateFailed, "tag")
		if _, err := s.reserve("key", "body", "frozen", 0); err != nil {
			s.Fatal(err)
		}
		s.want("taken over", "key", "body", 1, Reply{})
		woken := Keyed{"key", "frozen"}
		if _, err := s.Schedule(s.Context(), []Order{{Job: s.newJob(job.Internal, "new")}}, woken); !errors.Is(err, ErrReplyUnderWay) {
			s.Errorf("schedule: got error %v, want ErrReplyUnderWay", err)
		}
		if _, err := s.Retry(s.Context(), ended.ID, job.Event{Kind: job.Retry, At: s.at(9)}, woken); !errors.Is(err, ErrReplyUnderWay) {
			s.Errorf("retry: got error %v, want ErrReplyUnderWay", err)
		}
		for _, reply := range []Reply{{}, created} {
			if err := s.Keep(s.Context(), woken, reply); err != nil {
				s.Errorf("keep %+v: %v", reply, err)
			}
		}
		s.refused("again", "key", "body", "me", ErrReplyUnderWay)
		if jobs := s.listed(Filter{}); len(jobs) != 1 {
			s.Errorf("there are %d jobs, want the one that was there", len(jobs))
		}
		s.keep("key", Reply{Status: 204})
		s.want("in the end", "key", "body", 2, Reply{Status: 204})
	})

	promise("a key given back is free again, but the jobs made under it are not forgotten", func(s replyTest) {
		s.want("first", "key", "body", 0, Reply{})
		s.keep("key", Reply{})
		s.want("given back before a job was made", "key", "another body", 1, Reply{})
		placed, err := s.Schedule(s.Context(), []Order{{Job: s.newJob(job.Internal, "one")}}, mine("key"))
		if err != nil {
			s.Fatal(err)
		}
		s.keep("key", Reply{})
		s.want("given back after a job was made", "key", "another body", 2, Reply{JobIDs: []int64{placed[0].Job.ID}})
		s.refused("and again", "key", "another body", "me", ErrReplyUnderWay)
	})

	promise("a reply that was kept is not given back", func(s replyTest) {
		s.want("first", "key", "body", 0, Reply{})
		s.keep("key", created)
		s.keep("key", Reply{})
		s.want("again", "key", "body", 1, created)
	})

	promise("a key lives for a day, and is then as new", func(s replyTest) {
		day := replyLife.Milliseconds()
		s.want("first", "key", "body", 0, Reply{})
		placed, err := s.Schedule(s.Context(), []Order{{Job: s.newJob(job.Internal, "one")}}, mine("key"))
		if err != nil {
			s.Fatal(err)
		}
		s.keep("key", created)
		s.sweep(s.at(day), nil, 10, 0)
		kept := created
		kept.JobIDs = []int64{placed[0].Job.ID}
		s.want("within the day", "key", "body", day, kept)
		s.want("after the day", "key", "another body", day+1, Reply{})
		got, err := s.reserve("key", "another body", "another process", day+2)
		if err != nil {
			s.Error(err)
		}
		s.same("and taken over", got, Reply{})
		s.sweep(s.at(2*day+2), nil, 10, 0)
		s.want("removed", "key", "a third body", day+2, Reply{})
	})

	promise("of many requests with one key exactly one is carried out", func(s replyTest) {
		var served atomic.Int64
		s.together(16, func(int) {
			switch _, err := s.reserve("key", "body", "me", 0); {
			case err == nil:
				served.Add(1)
			case !errors.Is(err, ErrReplyUnderWay):
				s.Errorf("got error %v, want ErrReplyUnderWay", err)
			}
		})
		s.same("carried out", served.Load(), int64(1))
	})
}
