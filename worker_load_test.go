package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// crowd is many workers of the host at once, and what they have done.
type crowd struct {
	*world
	mu        sync.Mutex
	held      map[int64]string // who works on it
	completed map[int64]int
	refused   int
	left      int
	over      chan struct{}
}

// newCrowd schedules so many jobs.
func newCrowd(t *testing.T, jobs int) *crowd {
	c := &crowd{world: newWorld(t, withoutWebhook()), held: map[int64]string{}, completed: map[int64]int{}, left: jobs, over: make(chan struct{})}
	for done := 0; done < jobs; done += maxBatch {
		r := c.call("POST", "/api/jobs/batch", `{"jobs":[`+strings.TrimSuffix(strings.Repeat(`{"type":"work"},`, min(maxBatch, jobs-done)), ",")+`]}`)
		if r.status != 200 {
			t.Fatalf("schedule: %d %s", r.status, r.body)
		}
	}
	return c
}

// take notes that a worker begins a job, which nobody else may be at.
func (c *crowd) take(id int64, worker string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if other, held := c.held[id]; held {
		c.t.Errorf("%s got job %d while %s works on it", worker, id, other)
	}
	c.held[id] = worker
}

// leave notes that a worker works on a job no more.
func (c *crowd) leave(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.held, id)
}

// done notes the answer to a completion.
func (c *crowd) done(id int64, r answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.status {
	case http.StatusConflict:
		c.refused++
	case http.StatusOK:
		c.completed[id]++
		if c.left--; c.left == 0 {
			close(c.over)
		}
	default:
		c.t.Errorf("complete job %d: %d %s", id, r.status, r.body)
	}
}

// work claims and completes until all jobs are done. Now and then a worker dies with
// a job in its hands; now and then one sleeps through its lease and reports too late.
func (c *crowd) work(name string, limit, leaseMs int, dies float64) {
	request := fmt.Sprintf(`{"worker":%q,"limit":%d,"leaseMs":%d,"waitMs":500}`, name, limit, leaseMs)
	for {
		select {
		case <-c.over:
			return
		default:
		}
		for _, j := range c.claim(request) {
			c.take(j.ID, name)
			fate := rand.Float64()
			if fate < dies {
				c.leave(j.ID)
			}
			if fate < dies/2 {
				continue // it dies
			}
			if fate < dies {
				waitUntil(c.t.Context(), j.LeaseExpiresAt.Add(time.Duration(leaseMs)*time.Millisecond), nil)
			} else {
				c.leave(j.ID)
			}
			c.done(j.ID, c.says(j.ID, "complete", withToken(j.LeaseToken)))
		}
	}
}

// settle runs the workers and checks that every job was completed once.
func (c *crowd) settle(workers, limit, leaseMs int, dies float64) {
	begun, jobs := time.Now(), c.left
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() { c.work(fmt.Sprint("worker-", i), limit, leaseMs, dies) })
	}
	all.Wait()
	took := time.Since(begun)
	if len(c.completed) != jobs {
		c.t.Errorf("%d jobs were completed, want %d", len(c.completed), jobs)
	}
	for id, times := range c.completed {
		if times != 1 {
			c.t.Errorf("job %d was completed %d times", id, times)
		}
	}
	var body struct{ Count json.Number }
	c.call("GET", "/api/jobs/count?status=COMPLETED", nil).into(c.t, &body)
	if body.Count.String() != fmt.Sprint(jobs) {
		c.t.Errorf("%s rows are completed, want %d", body.Count, jobs)
	}
	c.t.Logf("%d workers, up to %d jobs a claim: %d jobs in %s, %.0f a second; %d completions refused",
		workers, limit, jobs, took.Round(time.Millisecond), float64(jobs)/took.Seconds(), c.refused)
}

func TestEightWorkersShareFiveThousandJobs(t *testing.T) {
	for _, limit := range []int{1, 20} {
		t.Run(fmt.Sprintf("up to %d a claim", limit), func(t *testing.T) {
			c := newCrowd(t, jobsAtLeisure(5000))
			c.settle(8, limit, 60_000, 0)
			if c.refused != 0 {
				t.Errorf("%d completions were refused, want none", c.refused)
			}
		})
	}
}

func TestWorkersThatDieLoseNoJob(t *testing.T) {
	t.Parallel()
	jobs := jobsAtLeisure(1500)
	c := newCrowd(t, jobs)
	c.settle(8, 1, 1000, 30/float64(jobs))
	if c.refused == 0 {
		t.Error("no completion was refused, want those of workers that woke too late")
	}
}

// jobsAtLeisure is how many jobs a crowd shares: under the race detector a fifth, which
// meet as often; all of them among the stories.
func jobsAtLeisure(all int) int {
	if raceDetector {
		return all / 5
	}
	return all
}
