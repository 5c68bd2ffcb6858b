package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sidejob/internal/job"
)

// provingHost is a host app that insists: a call that was not answered is repeated
// with the same Idempotency-Key. It remembers every answer it was given.
type provingHost struct {
	base     string
	seed     uint64
	client   *http.Client
	working  sync.WaitGroup
	end      context.CancelFunc
	answered chan struct{}  // gets a value for each call that was answered
	refused  atomic.Int64   // calls that the server could not take for its database
	calls    []atomic.Int64 // by worker: calls that were answered

	mu       sync.Mutex
	jobs     map[int64]provingJob // acknowledged
	newest   int64                // of them
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
	h.calls = make([]atomic.Int64, workers)
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
	if err == nil && res.StatusCode >= http.StatusInternalServerError {
		h.noteRefusal(res, answer)
	}
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

// noteRefusal looks at an answer that says: later. It must say when.
func (h *provingHost) noteRefusal(res *http.Response, answer []byte) {
	switch {
	case res.StatusCode != http.StatusServiceUnavailable, res.Header.Get("Retry-After") == "":
		h.blame("%s %s: a server that works answered %d %s", res.Request.Method, res.Request.URL.Path, res.StatusCode, answer)
	case strings.Contains(string(answer), `"database_unavailable"`):
		h.refused.Add(1)
	}
}

// answers is how many calls of each worker were answered so far.
func (h *provingHost) answers() []int64 {
	list := make([]int64, len(h.calls))
	for n := range h.calls {
		list[n] = h.calls[n].Load()
	}
	return list
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
		h.calls[worker].Add(1)
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
	h.jobs[row.ID], h.newest = j, max(h.newest, row.ID)
	return row.ID, true
}

// recent is one of the last jobs; 0 when there is none. back says which.
func (h *provingHost) recent(back int64) (id int64, j provingJob) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if j, ok := h.jobs[h.newest-back]; ok {
		return h.newest - back, j
	}
	return h.newest, h.jobs[h.newest]
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
// what Trigger.dev has confirmed may not: the history's last state tells, and is
// therefore read first.
func (h *provingHost) look(ctx context.Context, id int64) {
	states, err := h.states(ctx, id)
	if err != nil || len(states) == 0 {
		return
	}
	confirmed := []job.State{job.StateCompleted, job.StateFailed, job.StateCanceled}
	if !slices.Contains(confirmed, states[len(states)-1]) {
		return
	}
	row, err := h.read(ctx, id)
	if err != nil || row.Success == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, seen := h.finals[id]; !seen {
		h.finals[id] = row
	}
}

// states are those that a job has been in.
func (h *provingHost) states(ctx context.Context, id int64) (states []job.State, err error) {
	var history struct{ Events []struct{ To job.State } }
	if err := h.get(ctx, fmt.Sprintf("/api/jobs/%d/events", id), &history); err != nil {
		return nil, err
	}
	for _, e := range history.Events {
		states = append(states, e.To)
	}
	return states, nil
}

var errNoRow = errors.New("no such row")

func (h *provingHost) read(ctx context.Context, id int64) (row provingRow, err error) {
	return row, h.get(ctx, fmt.Sprintf("/api/jobs/%d", id), &row)
}

// get reads what there is at the path.
func (h *provingHost) get(ctx context.Context, path string, into any) error {
	status, answer, err := h.call(ctx, http.MethodGet, path, "", "")
	switch {
	case err != nil:
		return err
	case status == http.StatusNotFound:
		return fmt.Errorf("%s: %w", path, errNoRow)
	case status != http.StatusOK:
		return fmt.Errorf("%s: %d %s", path, status, answer)
	}
	return json.Unmarshal(answer, into)
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
	limit.Reset(then)
	select {
	case <-limit.C:
	case <-died:
	case <-ctx.Done():
	}
}
