package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// provingHost is a host app that insists: a call that was not answered is repeated
// with the same Idempotency-Key. It remembers every answer it was given.
type provingHost struct {
	base     string
	seed     uint64
	client   *http.Client
	working  sync.WaitGroup
	end      context.CancelFunc
	answered chan struct{} // gets a value for each call that was answered

	mu       sync.Mutex
	jobs     map[int64]provingJob // acknowledged
	canceled map[int64]bool       // cancel acknowledged
	finals   map[int64]provingRow // as they were first seen finished and confirmed
	wrong    []string             // answers that no server may give
}

// provingJob is what the host knows of a job it has scheduled.
type provingJob struct{ tag, task string }

// provingRow is a row as the API shows it.
type provingRow struct {
	ID               int64
	Tag, Status      string
	TriggerRunID     string
	TriggerRawStatus string
	TriggerTaskID    string
	Success          *bool
	Result           json.RawMessage
	Finished         string
	Attempt          int
}

func newProvingHost(base string, seed uint64) *provingHost {
	return &provingHost{
		base: base, seed: seed, client: &http.Client{Timeout: 5 * time.Second}, end: func() {}, answered: make(chan struct{}, 1000),
		jobs: map[int64]provingJob{}, canceled: map[int64]bool{}, finals: map[int64]provingRow{},
	}
}

// start lets so many workers of the host call.
func (h *provingHost) start(ctx context.Context, workers int) {
	working, end := context.WithCancel(ctx)
	h.end = end
	for n := range workers {
		h.working.Go(func() { h.work(ctx, working, n) })
	}
}

// stop lets every worker finish what it insists on.
func (h *provingHost) stop() {
	h.end()
	h.working.Wait()
}

// call makes one call. An error says that no whole answer came.
func (h *provingHost) call(ctx context.Context, method, path, body, key string) (status int, answer []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, method, h.base+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+provingToken)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	res, err := h.client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// insist repeats a call until it is answered; status 0 when ctx ends before.
func (h *provingHost) insist(ctx context.Context, path, body, key string) (int, []byte) {
	for ctx.Err() == nil {
		status, answer, err := h.call(ctx, http.MethodPost, path, body, key)
		if err == nil && status < 500 && !strings.Contains(string(answer), "idempotency_in_progress") {
			select {
			case h.answered <- struct{}{}:
			default:
			}
			return status, answer
		}
		pause(ctx, 20*time.Millisecond)
	}
	return 0, nil
}

// work schedules jobs, cancels some, and looks at others, until working ends.
func (h *provingHost) work(ctx, working context.Context, worker int) {
	random := rand.New(rand.NewPCG(h.seed, uint64(worker)))
	tasks := []string{"quick", "falsy", "slow", "flaky", "bad", "crash", "time"}
	for n := 0; working.Err() == nil; n++ {
		j := provingJob{tag: fmt.Sprintf("host-%d-%d", worker, n), task: tasks[random.IntN(len(tasks))]}
		due := ""
		if random.IntN(5) == 0 {
			due = fmt.Sprintf(`,"due":%d`, time.Now().Add(2*time.Second).UnixMilli())
		}
		if random.IntN(6) == 0 && n > 0 {
			j.tag = fmt.Sprintf("host-%d-%d", worker, n-1) // replaces the one before, if that is pending
		}
		id, ok := h.schedule(ctx, j, due, fmt.Sprintf("schedule-%d-%d", worker, n))
		if !ok {
			return
		}
		switch random.IntN(6) {
		case 0, 1:
			h.cancel(ctx, id)
		case 2:
			h.lookBack(ctx, random, id)
		}
		pause(working, time.Duration(random.IntN(100))*time.Millisecond)
	}
}

func (h *provingHost) schedule(ctx context.Context, j provingJob, due, key string) (id int64, ok bool) {
	body := fmt.Sprintf(`{"tag":%q,"type":%q,"executor":"trigger","triggerTaskId":%q,"persistent":true,"data":{"secret":%q}%s}`,
		j.tag, j.task, j.task, provingPayload, due)
	status, answer := h.insist(ctx, "/api/jobs?waitMs=50", body, key)
	if status == 0 {
		return 0, false
	}
	var row provingRow
	if err := json.Unmarshal(answer, &row); err != nil || status != http.StatusCreated {
		h.blame("schedule %s: %d %s", j.tag, status, answer)
		return 0, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if before, doubled := h.jobs[row.ID]; doubled {
		h.wrong = append(h.wrong, fmt.Sprintf("job %d was given to %s and to %s", row.ID, before.tag, j.tag))
	}
	h.jobs[row.ID] = j
	return row.ID, true
}

func (h *provingHost) cancel(ctx context.Context, id int64) {
	status, answer := h.insist(ctx, fmt.Sprintf("/api/jobs/%d/cancel?waitMs=0", id), "{}", fmt.Sprintf("cancel-%d", id))
	switch status {
	case 0:
	case http.StatusOK, http.StatusAccepted:
		h.mu.Lock()
		h.canceled[id] = true
		h.mu.Unlock()
	default:
		h.blame("cancel job %d: %d %s", id, status, answer)
	}
}

// lookBack looks at one of the last jobs.
func (h *provingHost) lookBack(ctx context.Context, random *rand.Rand, newest int64) {
	for id := newest - 1; id > newest-40 && id > 0; id -= 1 + random.Int64N(8) {
		h.look(ctx, id)
	}
}

// look reads a job and remembers an end, to see later that it has not changed. Only
// what Trigger.dev has confirmed may not: the history's last state tells.
func (h *provingHost) look(ctx context.Context, id int64) {
	row, err := h.read(ctx, id)
	if err != nil || row.Success == nil {
		return
	}
	_, answer, err := h.call(ctx, http.MethodGet, fmt.Sprintf("/api/jobs/%d/events", id), "", "")
	var history struct{ Events []struct{ To string } }
	if err != nil || json.Unmarshal(answer, &history) != nil || len(history.Events) == 0 {
		return
	}
	if last := history.Events[len(history.Events)-1].To; strings.HasPrefix(last, "told") || last == string("orphaned") {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, seen := h.finals[id]; !seen {
		h.finals[id] = row
	}
}

var errNoRow = errors.New("no such row")

func (h *provingHost) read(ctx context.Context, id int64) (row provingRow, err error) {
	status, answer, err := h.call(ctx, http.MethodGet, fmt.Sprintf("/api/jobs/%d", id), "", "")
	switch {
	case err != nil:
		return row, err
	case status == http.StatusNotFound:
		return row, fmt.Errorf("job %d: %w", id, errNoRow)
	case status != http.StatusOK:
		return row, fmt.Errorf("job %d: %d %s", id, status, answer)
	}
	return row, json.Unmarshal(answer, &row)
}

func (h *provingHost) blame(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrong = append(h.wrong, fmt.Sprintf(format, args...))
}

// use lets the host have so many answers and then some time, at most as long as the
// server lives. How much a life gets done is random and does not hang on the
// machine's speed.
func (h *provingHost) use(ctx context.Context, answers int, then time.Duration, died <-chan struct{}) {
	for len(h.answered) > 0 {
		<-h.answered
	}
	limit := time.NewTimer(3 * time.Second)
	defer limit.Stop()
	for range answers {
		select {
		case <-h.answered:
		case <-limit.C:
			return
		case <-died:
			return
		case <-ctx.Done():
			return
		}
	}
	pause(ctx, then)
}

// settle waits until no job is unfinished and every end is confirmed.
func (h *provingHost) settle(ctx context.Context, within time.Duration) error {
	deadline := time.Now().Add(within)
	for {
		_, answer, err := h.call(ctx, http.MethodGet, "/api/jobs/count?finished=false", "", "")
		if err == nil && strings.Contains(string(answer), `"count":0}`) {
			break
		}
		if time.Now().After(deadline) {
			_, open, _ := h.call(ctx, http.MethodGet, "/api/jobs?finished=false&limit=3", "", "")
			return fmt.Errorf("jobs do not settle within %s: %s %w %s", within, answer, err, open)
		}
		pause(ctx, 100*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	// What an event has closed is asked about once more, at the pace of the rate limit.
	h.client.Timeout = within
	_, _, err := h.call(ctx, http.MethodPost, "/api/reconcile", "{}", "")
	return err
}
