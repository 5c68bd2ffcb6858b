package main

import (
	"context"
	"sync"
)

// turns lets one at a time act on a key.
type turns struct {
	mu    sync.Mutex
	queue map[string]*queue
}

// queue is who acts on a key, and who waits to.
type queue struct {
	turn chan struct{}
	len  int
}

func newTurns() *turns { return &turns{queue: map[string]*queue{}} }

// take waits for the turn. Call done when it is over.
func (t *turns) take(ctx context.Context, key string) (done func(), err error) {
	q := t.join(key)
	select {
	case q.turn <- struct{}{}:
		return func() { <-q.turn; t.leave(key) }, nil
	case <-ctx.Done():
		t.leave(key)
		return nil, ctx.Err()
	}
}

func (t *turns) join(key string) *queue {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.queue[key]
	if q == nil {
		q = &queue{turn: make(chan struct{}, 1)}
		t.queue[key] = q
	}
	q.len++
	return q
}

func (t *turns) leave(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.queue[key].len--; t.queue[key].len == 0 {
		delete(t.queue, key)
	}
}
