package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"sidejob/internal/job"
)

func (w *world) keyed(key, path string, body any) answer {
	w.t.Helper()
	return w.call("POST", path, body, "Idempotency-Key", key)
}

// wantReplay fails the test unless again is first, given once more.
func wantReplay(t *testing.T, what string, first, again answer) {
	t.Helper()
	if first.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("%s: the first reply says it is a replay", what)
	}
	if again.header.Get("Idempotency-Replayed") != "true" || again.status != first.status || string(again.body) != string(first.body) {
		t.Errorf("%s: got %d %s, replayed %q; want %d %s again", what, again.status, again.body, again.header.Get("Idempotency-Replayed"), first.status, first.body)
	}
	for _, name := range []string{"Content-Type", "Location", "Allow"} {
		if again.header.Get(name) != first.header.Get(name) {
			t.Errorf("%s: %s is %q, want %q again", what, name, again.header.Get(name), first.header.Get(name))
		}
	}
}

func TestTheSameKeyGetsTheFirstReplyAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, c := range []struct {
			path   string
			body   any
			status int
		}{
			{"/api/jobs", `{"type":"work","tag":"a"}`, 201},
			{"/api/jobs", echoJob, 201},
			{"/api/jobs", `{"type":"work","tag":"a","onConflict":"keep"}`, 200},
			{"/api/jobs", `{"type":"work","tag":"a","onConflict":"reject"}`, 409},
			{"/api/jobs", `{"type":""}`, 422},
			{"/api/jobs", `{`, 400},
			{"/api/jobs/batch", `{"jobs":[{"type":"w"},{"type":""},{"type":"w"}]}`, 200},
			{"/api/jobs/1/retry", nil, 409},
			{"/api/jobs/1/cancel", nil, 200},
			{"/api/jobs/99/cancel", nil, 404},
			{"/api/jobs/cleanup", `{}`, 200},
			{"/api/reconcile", nil, 200},
			{"/api/sync", nil, 200},
			{"/api/nothing", `{}`, 404},
			{"/api/stats", `{}`, 405},
		} {
			what := c.path + fmt.Sprint(" ", c.body)
			first := w.keyed(what, c.path, c.body)
			if first.status != c.status {
				t.Errorf("%s: got %d %s, want %d", what, first.status, first.body, c.status)
			}
			before := w.countAll()
			wantReplay(t, what, first, w.keyed(what, c.path, c.body))
			if n := w.countAll(); n != before {
				t.Errorf("%s: the replay made %d jobs", what, n-before)
			}
		}
		if runs := len(w.remoteRuns()); runs != 1 {
			t.Errorf("there are %d runs, want 1", runs)
		}
	})
}

func TestAReplyIsOfItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.keyed("k", "/api/jobs", echoJob)
		w.wait(1)
		again := w.keyed("k", "/api/jobs?waitMs=0", echoJob) // the query is no part of the key
		wantReplay(t, "after the job has ended", first, again)
		if got := w.view(again).Status; got != "PENDING" {
			t.Errorf("the replay shows %s, want PENDING as the first reply", got)
		}
	})
}

func TestAnotherBodyWithTheKeyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.keyed("k", "/api/jobs", `{"type":"work"}`)
		for _, body := range []any{`{"type":"other"}`, `{"type":"work" }`, `{`} {
			wantProblem(t, fmt.Sprint(body), w.keyed("k", "/api/jobs", body), 422, "idempotency_mismatch")
		}
		wantProblem(t, "no body", w.keyed("k", "/api/jobs", nil), 422, "idempotency_mismatch")
		if n := w.countAll(); n != 1 {
			t.Errorf("there are %d jobs, want 1", n)
		}
	})
}

func TestAKeyIsOfItsPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.keyed("k", "/api/jobs", `{"type":"work"}`)
		w.keyed("k", "/api/jobs", `{"type":"work"}`)
		w.call("POST", "/api/jobs", `{"type":"work"}`, "Idempotency-Key", "K")
		for _, path := range []string{"/api/jobs/1/cancel", "/api/jobs/2/cancel", "/api/jobs/1/retry"} {
			if r := w.keyed("k", path, nil); r.header.Get("Idempotency-Replayed") != "" || r.status > 201 {
				t.Errorf("%s: got %d, replayed %q; want it carried out", path, r.status, r.header.Get("Idempotency-Replayed"))
			}
		}
		// A path with a space and a key without must not be taken for their twin.
		w.keyed("x", "/api/jobs%20k", `{"type":"work"}`)
		if r := w.keyed("k x", "/api/jobs", `{"type":"work"}`); r.status != 201 {
			t.Errorf("another path has spoiled the key: got %d %s", r.status, r.body)
		}
	})
}

func TestKeysThatAreNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, key := range []string{"", strings.Repeat("k", 256)} {
			wantProblem(t, fmt.Sprintf("%d characters", len(key)), w.keyed(key, "/api/jobs", `{"type":"work"}`), 422, "invalid", "header.Idempotency-Key")
		}
		longest := strings.Repeat("k", 255)
		wantReplay(t, "255 characters", w.keyed(longest, "/api/jobs", `{"type":"work"}`), w.keyed(longest, "/api/jobs", `{"type":"work"}`))
		if n := w.countAll(); n != 1 {
			t.Errorf("there are %d jobs, want 1", n)
		}
		r := w.call("GET", "/api/jobs/1", nil, "Idempotency-Key", "k")
		if again := w.call("GET", "/api/jobs/1", nil, "Idempotency-Key", "k"); r.status != 200 || again.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("a GET is replayed")
		}
	})
}

func TestARequestUnderWayIsAConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.faults(submitFault("delay", "delayMs", 1500))
		first := make(chan answer)
		go func() { first <- w.keyed("k", "/api/jobs", echoJob) }()
		time.Sleep(100 * time.Millisecond)
		wantProblem(t, "meanwhile", w.keyed("k", "/api/jobs", echoJob), 409, "idempotency_in_progress")
		wantProblem(t, "another body meanwhile", w.keyed("k", "/api/jobs", `{"type":"work"}`), 422, "idempotency_mismatch")
		wantReplay(t, "afterwards", <-first, w.keyed("k", "/api/jobs", echoJob))
	})
}

func TestManyAtOnceMakeOneJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, path := range []string{"/api/jobs", "/api/jobs/batch"} {
			body := `{"type":"work"}`
			if path == "/api/jobs/batch" {
				body = `{"jobs":[{"type":"work"}]}`
			}
			before := w.countAll()
			var asked sync.WaitGroup
			statuses := make(chan int, 50)
			for range cap(statuses) {
				asked.Go(func() { statuses <- w.keyed("k", path, body).status })
			}
			asked.Wait()
			close(statuses)
			for status := range statuses {
				if status != 200 && status != 201 && status != 409 {
					t.Errorf("%s: got %d, want the reply or 409", path, status)
				}
			}
			if n := w.countAll() - before; n != 1 {
				t.Errorf("%s: %d jobs were made, want one", path, n)
			}
		}
		w.workerTakes(1)
		w.workerEnds(1, `1`)
		var asked sync.WaitGroup
		for range 20 {
			asked.Go(func() { w.keyed("k", "/api/jobs/1/retry", nil) })
		}
		asked.Wait()
		if n := w.countAll(); n != 3 {
			t.Errorf("there are %d jobs, want one more by all retries", n)
		}
	})
}

func TestAFailureOfOursIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		whole := w.srv.api.store
		w.srv.api.store = stubbornStore{whole}
		wantProblem(t, "at first", w.keyed("k", "/api/jobs", `{"type":"work"}`), 503, "database_unavailable")
		wantProblem(t, "still", w.keyed("k", "/api/jobs", `{"type":"work"}`), 503, "database_unavailable")
		w.srv.api.store = whole
		if r := w.keyed("k", "/api/jobs", `{"type":"work"}`); r.status != 201 || r.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("mended: got %d %s, want it carried out", r.status, r.body)
		}
	})
}

// TestAKeyIsNotStuckWhereItsReplyCouldNotBeKept lets the disk fill up between the
// beginning and the end of a request, and frees it again.
func TestAKeyIsNotStuckWhereItsReplyCouldNotBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		whole := w.srv.api.store
		w.srv.api.store = fullStore{stubbornStore{whole}}
		wantProblem(t, "refused", w.keyed("refused", "/api/jobs", `{"type":"work"}`), 503, "database_unavailable")
		w.srv.api.store = fullStore{whole}
		made := w.keyed("made", "/api/jobs", `{"type":"work"}`)
		w.srv.api.store = whole
		wantProblem(t, "another body", w.keyed("made", "/api/jobs", `{"type":"x"}`), 422, "idempotency_mismatch")
		if r := w.keyed("refused", "/api/jobs", `{"type":"work"}`); r.status != 201 {
			t.Errorf("a request that was refused, again: got %d %s, want 201", r.status, r.body)
		}
		if again := w.keyed("made", "/api/jobs", `{"type":"work"}`); made.status != 201 || w.view(again).ID != w.view(made).ID {
			t.Errorf("a job that was made, again: got %d %s, want that of %s", again.status, again.body, made.body)
		}
		if n := w.countAll(); n != 2 {
			t.Errorf("there are %d jobs, want 2", n)
		}
	})
}

// fullStore keeps no replies.
type fullStore struct{ Store }

// Keep implements Store.
func (fullStore) Keep(context.Context, Keyed, Reply) error {
	return fmt.Errorf("keep: %w", ErrBusy)
}

// stubbornStore takes no jobs.
type stubbornStore struct{ Store }

// Schedule implements Store.
func (stubbornStore) Schedule(context.Context, []Order, Keyed) ([]Placed, error) {
	return nil, fmt.Errorf("schedule: %w", ErrBusy)
}

// clumsyStore panics over jobs.
type clumsyStore struct{ Store }

// Schedule implements Store.
func (clumsyStore) Schedule(context.Context, []Order, Keyed) ([]Placed, error) { panic("clumsy") }

func TestAPanicIsA500AndGivesTheKeyBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		whole := w.srv.api.store
		w.srv.api.store = clumsyStore{whole}
		wantProblem(t, "panic", w.keyed("k", "/api/jobs", `{"type":"work"}`), 500, "internal")
		w.srv.api.store = whole
		if r := w.keyed("k", "/api/jobs", `{"type":"work"}`); r.status != 201 {
			t.Errorf("afterwards: got %d %s, want 201", r.status, r.body)
		}
		contains(t, w.log.String(), "request panicked", "clumsy")
	})
}

func TestARefusalIsKeptForItsDayOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		created := w.keyed("created", "/api/jobs", `{"type":"work"}`)
		refused := w.keyed("refused", "/api/jobs", `{"type":""}`)
		w.halt()
		time.Sleep(24*time.Hour - time.Minute)
		w.boot()
		wantReplay(t, "201 after a restart", created, w.keyed("created", "/api/jobs", `{"type":"work"}`))
		wantReplay(t, "422 after a restart", refused, w.keyed("refused", "/api/jobs", `{"type":""}`))
		wantProblem(t, "another body after a restart", w.keyed("created", "/api/jobs", `{"type":"x"}`), 422, "idempotency_mismatch")
		time.Sleep(2 * time.Minute)
		if r := w.keyed("created", "/api/jobs", `{"type":"work"}`); r.status != 201 || r.header.Get("Idempotency-Replayed") != "" || w.view(r).ID == 1 {
			t.Errorf("after 24 h: got %d %s, want a new job", r.status, r.body)
		}
	})
}

// crashedAfter has an earlier process reserve the request and carry out what do does,
// without a reply.
func (w *world) crashedAfter(key, path, body string, do func(Keyed)) {
	w.t.Helper()
	sum := sha256.Sum256([]byte(body))
	reply := Keyed{ReplyKey("POST " + path + " " + key), "crashed"}
	_, err := w.srv.store.Reserve(w.t.Context(), Reservation{Key: reply.Key, Digest: hex.EncodeToString(sum[:]), Owner: reply.Owner, At: now()})
	if err != nil {
		w.t.Fatal(err)
	}
	do(reply)
}

func (w *world) placed(reply Keyed, types ...string) {
	w.t.Helper()
	var orders []Order
	for _, text := range types {
		j, _, err := job.New(job.Spec{Type: text, Tag: text, Executor: job.Trigger, TriggerTask: "echo"}, now(), uuid.NewString())
		if err != nil {
			w.t.Fatal(err)
		}
		orders = append(orders, Order{Job: j, OnConflict: job.Reject, Source: "api"})
	}
	if _, err := w.srv.store.Schedule(w.t.Context(), orders, reply); err != nil {
		w.t.Fatal(err)
	}
}

func TestAReplyLostInACrashIsGivenForTheSameJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.crashedAfter("k", "/api/jobs", echoJob, func(reply Keyed) { w.placed(reply, "echo") })
		wantProblem(t, "another body", w.keyed("k", "/api/jobs", `{"type":"work"}`), 422, "idempotency_mismatch")
		first := w.keyed("k", "/api/jobs", echoJob)
		if first.status != 201 || w.view(first).ID != 1 || first.header.Get("Location") != "/api/jobs/1" {
			t.Errorf("got %d %s at %q, want 201 and job 1", first.status, first.body, first.header.Get("Location"))
		}
		wantReplay(t, "from then on", first, w.keyed("k", "/api/jobs", echoJob))
		time.Sleep(time.Minute)
		if jobs, runs := w.countAll(), len(w.remoteRuns()); jobs != 1 || runs != 1 {
			t.Errorf("there are %d jobs and %d runs, want one of each", jobs, runs)
		}
	})
}

func TestABatchReplyLostInACrashIsGivenForTheSameJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const body = `{"jobs":[{"type":"a"},{"type":""},{"type":"b"},{"type":"a"}]}`
		w.crashedAfter("k", "/api/jobs/batch", body, func(reply Keyed) { w.placed(reply, "a", "b", "a") })
		var got batchAnswer
		w.keyed("k", "/api/jobs/batch", body).into(t, &got)
		if len(got.Results) != 4 || got.Results[0].Job == nil || got.Results[0].Job.ID != 1 || got.Results[2].Job == nil || got.Results[2].Job.ID != 2 {
			t.Fatalf("got %+v, want jobs 1 and 2 in their places", got)
		}
		checkProblem(t, "the wrong one", *got.Results[1].Problem, 422, "invalid", "body.type")
		checkProblem(t, "the refused one", *got.Results[3].Problem, 409, "tag_taken")
		if n := w.countAll(); n != 2 {
			t.Errorf("there are %d jobs, want 2", n)
		}
	})
}

func TestARetryLostInACrashIsGivenForTheSameJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.wait(w.triggerJob("echo").ID)
		w.crashedAfter("k", "/api/jobs/1/retry", "", func(reply Keyed) {
			ev := job.Event{Kind: job.Retry, At: now(), Source: "api", Key: "job-" + uuid.NewString()}
			if _, err := w.srv.store.Retry(t.Context(), 1, ev, reply); err != nil {
				t.Fatal(err)
			}
		})
		if r := w.keyed("k", "/api/jobs/1/retry", nil); r.status != http.StatusCreated || w.view(r).ID != 2 {
			t.Errorf("got %d %s, want 201 and job 2", r.status, r.body)
		}
		if n := w.countAll(); n != 2 {
			t.Errorf("there are %d jobs, want 2", n)
		}
	})
}

func TestARequestThatCrashedBeforeItsCommitIsCarriedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.crashedAfter("k", "/api/jobs", `{"type":"work"}`, func(Keyed) {})
		first := w.keyed("k", "/api/jobs", `{"type":"work"}`)
		if first.status != 201 || w.countAll() != 1 {
			t.Errorf("got %d %s, %d jobs; want 201 and one job", first.status, first.body, w.countAll())
		}
		wantReplay(t, "from then on", first, w.keyed("k", "/api/jobs", `{"type":"work"}`))
	})
}
