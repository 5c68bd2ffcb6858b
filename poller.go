package main

import (
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"sidejob/internal/job"
)

// poller asks Trigger.dev about runs, one by one, each at its own pace: a young run
// every few seconds, an old one up to once in a sync interval, and one that an
// event has closed at once. What it knows is in memory only; reconcile, at start
// and with every sync, tells it of every open run again.
type poller struct {
	store    Store
	adapter  *adapter
	interval time.Duration // the slowest pace
	log      *slog.Logger

	wake  chan struct{}
	slots chan struct{}

	mu   sync.Mutex
	due  askHeap
	at   map[int64]*ask
	asks sync.WaitGroup
}

// ask is a run to be asked about.
type ask struct {
	job   int64
	when  time.Time
	place int // in the heap; -1 while it is being asked
}

const (
	// asksAtOnce leaves room for submits and cancels.
	asksAtOnce = 6
	// pollShare is the part of the rate limit that asking may use.
	pollShare = 0.5
	firstAsk  = 2 * time.Second
	// watchedAtMost is what polling one by one can keep up with.
	watchedAtMost = 1000
	// hurriedInterval is the slowest pace where there is no realtime stream.
	hurriedInterval = 30 * time.Second
)

func newPoller(store Store, a *adapter, interval time.Duration, log *slog.Logger) *poller {
	return &poller{
		store: store, adapter: a, interval: interval, log: log,
		wake: make(chan struct{}, 1), slots: make(chan struct{}, asksAtOnce), at: map[int64]*ask{},
	}
}

// soon has the job's run asked about at once.
func (p *poller) soon(id int64) { p.plan(id, now()) }

// watch has the job's run asked about when it may have moved, if it is not on the
// list already. A list that is full leaves runs to the stream and to sync, which
// compares many at a time.
func (p *poller) watch(j job.Job) {
	p.mu.Lock()
	_, known := p.at[j.ID]
	full := len(p.at) >= watchedAtMost
	p.mu.Unlock()
	if !known && !full {
		p.plan(j.ID, p.next(j, now()))
	}
}

// hurry makes the slowest pace faster: nobody else brings news.
func (p *poller) hurry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.interval = min(p.interval, hurriedInterval)
}

// slowest is the slowest pace.
func (p *poller) slowest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.interval
}

// plan moves an ask to an earlier time, never to a later one.
func (p *poller) plan(id int64, when time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.at[id]
	switch {
	case a == nil:
		a = &ask{job: id, when: when}
		p.at[id] = a
		heap.Push(&p.due, a)
	case a.when.After(when):
		a.when = when
		if a.place >= 0 {
			heap.Fix(&p.due, a.place)
		}
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// next is when to ask again: a tenth of the run's age later, from 2 s up to the
// sync interval, spread by a fifth so that runs made together part. A run that is
// delayed is left alone until it is due.
func (p *poller) next(j job.Job, at time.Time) time.Time {
	from := j.Created
	if j.Due.After(from) {
		from = j.Due
	}
	if j.Done() {
		from = j.Finished // closed by an event that Trigger.dev confirms in a moment
	}
	slowest := p.slowest()
	wait := min(max(at.Sub(from)/10, firstAsk), slowest)
	wait += time.Duration((rand.Float64() - 0.5) * 0.4 * float64(wait))
	if from.After(at) {
		return at.Add(min(from.Sub(at)+wait, slowest))
	}
	return at.Add(wait)
}

// run asks until ctx ends, and waits for what is under way.
func (p *poller) run(ctx context.Context) {
	defer p.asks.Wait()
	for ctx.Err() == nil {
		id, wait := p.take(now())
		if id != 0 {
			p.begin(ctx, id)
			continue
		}
		waitUntil(ctx, time.Now().Add(wait), p.wake)
	}
}

// take gives the job that is to be asked about now, or how long there is none.
func (p *poller) take(at time.Time) (id int64, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.due) == 0 {
		return 0, p.interval
	}
	if wait = p.due[0].when.Sub(at); wait > 0 {
		return 0, wait
	}
	a := heap.Pop(&p.due).(*ask)
	a.when = at.Add(p.interval)
	return a.job, 0
}

func (p *poller) begin(ctx context.Context, id int64) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	p.asks.Go(func() {
		defer func() { <-p.slots }()
		p.again(id, p.askOne(ctx, id))
	})
}

// again puts a job back on the list, or strikes it off where when is zero. A word
// that came while it was asked counts.
func (p *poller) again(id int64, when time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.at[id]
	if a == nil {
		return
	}
	if when.IsZero() {
		delete(p.at, id)
		return
	}
	if when.Before(a.when) {
		a.when = when
	}
	heap.Push(&p.due, a)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// askOne asks about one job's run and says when to ask again, zero for never.
func (p *poller) askOne(ctx context.Context, id int64) time.Time {
	if err := p.adapter.client.Pace(ctx, pollShare); err != nil {
		return now().Add(firstAsk)
	}
	if p.adapter.breaker.open() {
		return now().Add(openFor)
	}
	j, err := p.store.Get(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return time.Time{}
	case err != nil:
		return now().Add(firstAsk)
	case !j.Asked():
		return time.Time{}
	}
	j, err = p.adapter.refresh(ctx, p.store, j, "poll")
	if err != nil {
		p.log.Debug("run could not be asked about", "job", id, "run", j.RunID, "err", err)
		return p.next(j, now())
	}
	if !j.Asked() {
		return time.Time{}
	}
	return p.next(j, now())
}

// applier is what turns news into rows; the Store is one.
type applier interface {
	Apply(ctx context.Context, id int64, ev job.Event) (job.Step, error)
}

// refresh asks Trigger.dev about the job's run and has the answer written. An error
// says that it could not be asked, and then nothing has changed.
func (a *adapter) refresh(ctx context.Context, rows applier, j job.Job, source string) (job.Job, error) {
	ev, err := a.ask(ctx, j)
	if err != nil {
		return j, err
	}
	ev.Source = source
	step, err := rows.Apply(context.WithoutCancel(ctx), j.ID, ev)
	if err != nil {
		return j, err
	}
	return step.Job, nil
}

// askHeap has the soonest ask first.
type askHeap []*ask

func (h askHeap) Len() int           { return len(h) }
func (h askHeap) Less(i, j int) bool { return h[i].when.Before(h[j].when) }
func (h askHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push implements heap.Interface.
func (h *askHeap) Push(x any) {
	a := x.(*ask)
	a.place = len(*h)
	*h = append(*h, a)
}

// Pop implements heap.Interface.
func (h *askHeap) Pop() any {
	old := *h
	a := old[len(old)-1]
	*h = old[:len(old)-1]
	a.place = -1
	return a
}
