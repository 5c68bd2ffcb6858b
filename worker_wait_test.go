package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/job"
)

// arrival is when a long poll was answered, and with what.
type arrival struct {
	after time.Duration
	jobs  []takenJob
}

// poll begins a claim that waits, and gives its answer when it comes.
func (w *world) poll(request string) <-chan arrival {
	w.t.Helper()
	came, begun := make(chan arrival, 1), time.Now()
	go func() {
		jobs := w.claim(request)
		came <- arrival{time.Since(begun), jobs}
	}()
	synctest.Wait()
	return came
}

func TestALongPollWakesWhenThereIsWork(t *testing.T) {
	const patient = `{"waitMs":60000,"types":["work"]}`
	taken := func(w *world, leaseMs int) (j takenJob) {
		id := w.schedule(`{"type":"work"}`).ID
		w.says(id, "start", fmt.Sprintf(`{"leaseMs":%d}`, leaseMs)).into(w.t, &j)
		return j
	}
	none := func(*world) takenJob { return takenJob{} }
	for name, c := range map[string]struct {
		before func(w *world) takenJob
		brings func(w *world, before takenJob)
		after  time.Duration
		jobs   int
	}{
		"a job is scheduled":         {none, func(w *world, _ takenJob) { w.schedule(`{"type":"work"}`) }, 7 * time.Second, 1},
		"a job becomes due":          {none, func(w *world, _ takenJob) { w.schedule(`{"type":"work","due":"2000-01-01T00:00:40.123Z"}`) }, 40_123 * time.Millisecond, 1},
		"a job of another type":      {none, func(w *world, _ takenJob) { w.schedule(`{"type":"other"}`) }, time.Minute, 0},
		"nothing":                    {none, func(*world, takenJob) {}, time.Minute, 0},
		"a job becomes due too late": {none, func(w *world, _ takenJob) { w.schedule(`{"type":"work","due":"2000-01-01T00:01:00.001Z"}`) }, time.Minute, 0},
		"a job is given back": {
			func(w *world) takenJob { return taken(w, 60_000) },
			func(w *world, j takenJob) { w.says(j.ID, "release", withToken(j.LeaseToken)) }, 7 * time.Second, 1,
		},
		"a worker dies": {func(w *world) takenJob { return taken(w, 12_345) }, func(*world, takenJob) {}, 12_345 * time.Millisecond, 1},
		"a failed try may be repeated": {func(w *world) takenJob {
			w.says(w.schedule(`{"type":"work","retryConfig":{"maxAttempts":2,"minTimeoutInMs":9500}}`).ID, "fail", `{}`)
			return takenJob{}
		}, func(*world, takenJob) {}, 9500 * time.Millisecond, 1},
		"a recurring job is resumed": {func(w *world) (j takenJob) {
			j.ID = w.put(job.Spec{Tag: "tick", Type: "work", CronSchedule: "* * * * * *"}).ID
			w.happens(j.ID, job.Event{Kind: job.Pause})
			return j
		}, func(w *world, j takenJob) { w.happens(j.ID, job.Event{Kind: job.Resume}) }, 7 * time.Second, 1},
		"the host writes a row itself": {none, func(w *world, _ takenJob) {
			w.hostWrites("INSERT INTO worker_jobs (tag, type, due) VALUES ('t', 'work', 1)")
		}, 10 * time.Second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				before := c.before(w)
				came := w.poll(patient)
				time.Sleep(7 * time.Second)
				c.brings(w, before)
				got := <-came
				if got.after != c.after || len(got.jobs) != c.jobs {
					t.Errorf("answered after %s with %d jobs, want %s and %d", got.after, len(got.jobs), c.after, c.jobs)
				}
			})
		})
	}
}

// hostWrites carries out a statement as the host app beside sidejob.
func (w *world) hostWrites(statement string) {
	w.t.Helper()
	if _, err := hostConnection(w.t, w.cfg.database).Exec(statement); err != nil {
		w.t.Fatalf("the host's statement %s: %v", statement, err)
	}
}

func TestAClaimWithoutAWaitAnswersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if got := <-w.poll(`{}`); got.after != 0 || len(got.jobs) != 0 {
			t.Errorf("got %+v, want nothing at once", got)
		}
	})
}

func TestManyLongPollsShareTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var polls []<-chan arrival
		for range 8 {
			polls = append(polls, w.poll(`{"waitMs":60000,"limit":2,"leaseMs":600000}`))
		}
		w.call("POST", "/api/jobs/batch", `{"jobs":[`+strings.TrimSuffix(strings.Repeat(`{"type":"work"},`, 10), ",")+`]}`)
		time.Sleep(50 * time.Millisecond)
		seen, answered := map[int64]bool{}, 0
		for _, came := range polls {
			got := <-came
			if got.after == 0 {
				answered++
			}
			for _, j := range got.jobs {
				if seen[j.ID] {
					t.Errorf("job %d was handed out twice", j.ID)
				}
				seen[j.ID] = true
			}
		}
		if len(seen) != 10 || answered != 5 {
			t.Errorf("%d jobs went to %d polls at once, want 10 to 5 of two each", len(seen), answered)
		}
	})
}

func TestWhoLeavesHoldsNoJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		claim := func(ctx context.Context, request string) {
			r := httptest.NewRequestWithContext(ctx, "POST", "/api/worker/claim", strings.NewReader(request))
			r.Host = "localhost"
			r.Header.Set("Content-Type", "application/json")
			w.srv.private.ServeHTTP(httptest.NewRecorder(), r)
		}
		ctx, leave := context.WithCancel(t.Context())
		go claim(ctx, `{"waitMs":60000}`)
		synctest.Wait()
		leave()
		synctest.Wait()
		j := w.schedule(`{"type":"work"}`)
		if got, want := w.history(j.ID), []string{"created api > waiting"}; !slices.Equal(got, want) {
			t.Errorf("the caller has left while it waited: got %q, want %q", got, want)
		}
		ctx, leave = context.WithCancel(t.Context())
		w.srv.api.desk = newDesk(leavingStore{w.srv.store, leave})
		claim(ctx, `{}`)
		if got := w.get(j.ID); got.Status != "PENDING" || got.Attempt != 0 {
			t.Errorf("the caller has left while the claim was written: the job is %s after %d tries, want it given back", got.Status, got.Attempt)
		}
		if got, want := w.history(j.ID), []string{"created api > waiting", "claim worker > leased", "release worker > waiting"}; !slices.Equal(got, want) {
			t.Errorf("history %q, want %q", got, want)
		}
	})
}

// leavingStore is one whose caller leaves as soon as it has claimed.
type leavingStore struct {
	Store
	leave func()
}

// Claim implements Store.
func (s leavingStore) Claim(ctx context.Context, c Claim) ([]job.Job, error) {
	jobs, err := s.Store.Claim(ctx, c)
	s.leave()
	return jobs, err
}

func TestAClaimIsRepeatedByItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 3 {
			w.schedule(`{"type":"work"}`)
		}
		first := w.call("POST", "/api/worker/claim", `{"limit":2}`, "Idempotency-Key", "k")
		again := w.call("POST", "/api/worker/claim", `{"limit":2}`, "Idempotency-Key", "k")
		if string(first.body) != string(again.body) || again.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("got %s and then %s, want the same jobs", first.body, again.body)
		}
		if rest := w.claim(`{"limit":9}`); len(rest) != 1 || rest[0].ID != 3 {
			t.Errorf("got %+v, want the third job alone", rest)
		}
		wantProblem(t, "another body", w.call("POST", "/api/worker/claim", `{"limit":1}`, "Idempotency-Key", "k"), 422, "idempotency_mismatch")
	})
}

func TestACancelIsToldInTheHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.schedule(`{"type":"work"}`)
		j := w.claimOne(`{"leaseMs":20000}`)
		for range 5 {
			time.Sleep(15 * time.Second)
			wantJSON(t, "heartbeat", w.says(j.ID, "heartbeat", withToken(j.LeaseToken)).body,
				fmt.Sprintf(`{"cancelRequested":false,"leaseExpiresAt":%q}`, now().Add(20*time.Second).Format(timeLayout)))
		}
		if got := w.get(j.ID); got.Attempt != 1 || got.Status != "EXECUTING" {
			t.Errorf("after five heartbeats it is %s, try %d; want the same lease", got.Status, got.Attempt)
		}
		if got := w.view(w.says(j.ID, "cancel", `{}`)); got.Status != "CANCELED" {
			t.Errorf("canceled: got %s", got.Status)
		}
		time.Sleep(15 * time.Second)
		r := w.says(j.ID, "heartbeat", withToken(j.LeaseToken))
		if r.status != 200 || memberOf(t, r.body, "cancelRequested") != "true" {
			t.Errorf("got %d %s, want its holder told of the cancel", r.status, r.body)
		}
		contains(t, wantProblem(t, "complete", w.says(j.ID, "complete", withToken(j.LeaseToken)), 409, "conflict").Detail, "it has ended")
	})
}

func TestARelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.schedule(`{"type":"work","retryConfig":{"maxAttempts":1}}`)
		for range 30 {
			j := w.claimOne(`{}`)
			if got := w.view(w.says(j.ID, "release", withToken(j.LeaseToken))); j.Attempt != 1 || got.Attempt != 0 || got.Status != "PENDING" {
				t.Fatalf("taken as try %d, given back as %s after %d; want a release to be no try", j.Attempt, got.Status, got.Attempt)
			}
		}
	})
}

func TestFailedTriesWaitAsRetryConfigSays(t *testing.T) {
	for config, want := range map[string][]int64{ // the waits between tries, milliseconds
		`{"maxAttempts":5,"minTimeoutInMs":100,"maxTimeoutInMs":500,"factor":3}`: {100, 300, 500, 500},
		`{"maxAttempts":3,"minTimeoutInMs":2000,"factor":1}`:                     {2000, 2000},
		`{}`:                {1000, 2000},
		`{"maxAttempts":1}`: nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			id := w.schedule(`{"type":"work","retryConfig":` + config + `}`).ID
			var waits []int64
			for last := time.Now(); ; last = time.Now() {
				j := w.claimOne(`{"waitMs":60000}`)
				if j.Attempt > 1 {
					waits = append(waits, time.Since(last).Milliseconds())
				}
				if j.ID != id || j.Attempt != len(waits)+1 {
					t.Errorf("%s: job %d, try %d, after %d waits; want all on one row", config, j.ID, j.Attempt, len(waits))
				}
				if w.view(w.says(id, "fail", withToken(j.LeaseToken, `"error":"no"`))).Status == "FAILED" {
					break
				}
			}
			if !slices.Equal(waits, want) {
				t.Errorf("%s: waited %v, want %v", config, waits, want)
			}
			if got := string(w.get(id).Result); got != `{"error":"no"}` {
				t.Errorf("%s: the result is %s, want the last error", config, got)
			}
		})
	}
}

func TestRandomizeLengthensWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		seen := map[time.Duration]bool{}
		for range 20 {
			w.schedule(`{"type":"work","retryConfig":{"maxAttempts":2,"minTimeoutInMs":1000,"randomize":true}}`)
			j := w.claimOne(`{}`)
			w.says(j.ID, "fail", withToken(j.LeaseToken))
			begun := time.Now()
			again := w.claimOne(`{"waitMs":60000}`)
			wait := time.Since(begun)
			if wait < time.Second || wait > 2*time.Second {
				t.Errorf("waited %s, want between one and two seconds", wait)
			}
			seen[wait] = true
			w.says(j.ID, "complete", withToken(again.LeaseToken))
		}
		if len(seen) < 10 {
			t.Errorf("20 waits were of %d lengths, want them spread", len(seen))
		}
	})
}

func TestAJobWhoseWorkersKeepDyingFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.schedule(`{"type":"work"}`).ID
		for try := 1; try <= job.MaxLostLeases; try++ {
			begun := time.Now()
			if j := w.claimOne(`{"leaseMs":1000,"waitMs":60000}`); j.Attempt != try {
				t.Fatalf("try %d is counted as %d", try, j.Attempt)
			}
			if late := time.Since(begun); try > 1 && late != time.Second {
				t.Fatalf("the lease of one second was lost after %s", late)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if j := w.get(id); j.Status != "FAILED" || string(j.Result) != `{"error":"lease lost, 25 tries"}` {
			t.Errorf("got %s %s, want it failed", j.Status, j.Result)
		}
		contains(t, string(w.call("GET", "/metrics", nil).body), "sidejob_lease_lost_total 25\n", "sidejob_claims_total 25\n", "sidejob_leases_held 0\n")
	})
}

func TestAWorkerThatWasStoppedForTwoLeasesIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.schedule(`{"type":"work"}`).ID
		slow := w.claimOne(`{"worker":"slow","leaseMs":5000}`)
		came := w.poll(`{"worker":"fast","waitMs":60000}`)
		time.Sleep(10 * time.Second)
		fast := <-came
		if fast.after != 5*time.Second || len(fast.jobs) != 1 || fast.jobs[0].Attempt != 2 {
			t.Fatalf("got %+v, want the job when the lease of 5s is over, as its second try", fast)
		}
		for _, call := range []string{"heartbeat", "complete", "fail", "release"} {
			contains(t, wantProblem(t, call, w.says(id, call, withToken(slow.LeaseToken)), 409, "conflict").Detail, "the lease is gone")
		}
		r := w.says(id, "complete", withToken(fast.jobs[0].LeaseToken, `"result":"fast"`))
		if r.status != 200 {
			t.Errorf("the other worker's completion: got %d %s, want it taken", r.status, r.body)
		}
		wantProblem(t, "complete once more", w.says(id, "complete", withToken(slow.LeaseToken)), 409, "conflict")
		if got := string(w.get(id).Result); got != `"fast"` {
			t.Errorf("the result is %s, want the other worker's", got)
		}
	})
}
