package main

import "sync"

// hub tells goroutines of this process that a job has changed. It carries no
// values: who is woken reads the store, so a missed or doubled wake-up does no harm.
type hub struct {
	mu      sync.Mutex
	waiting map[int64]map[chan struct{}]struct{} // by job or topic
}

// Topics beside the ids of jobs.
const (
	everyJob      int64 = 0
	claimableJobs int64 = -1 // an internal job that nobody holds was written
	timedJobs     int64 = -2 // a lease or a recurring job was
	owingJobs     int64 = -3 // somebody else wrote a row that may owe Trigger.dev something
)

func newHub() *hub { return &hub{waiting: map[int64]map[chan struct{}]struct{}{}} }

func (h *hub) watch(id int64) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting[id] == nil {
		h.waiting[id] = map[chan struct{}]struct{}{}
	}
	h.waiting[id][ch] = struct{}{}
	return ch, func() { h.leave(id, ch) }
}

func (h *hub) leave(id int64, ch chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.waiting[id], ch)
	if len(h.waiting[id]) == 0 {
		delete(h.waiting, id)
	}
}

// tell wakes whoever watches one of the jobs or topics, or every job.
func (h *hub) tell(ids []int64) {
	if len(ids) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wake(everyJob)
	for _, id := range ids {
		h.wake(id)
	}
}

func (h *hub) wake(id int64) {
	for ch := range h.waiting[id] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
