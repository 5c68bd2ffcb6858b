package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// provingDatabase is where the server under test keeps its jobs: a throw-away one, of
// which nobody else knows.
type provingDatabase interface {
	// address is the server's DATABASE_URL. It may hold a password.
	address() string
	// engine and name are how people are told of it.
	engine() string
	name() string
	// password is what no log may hold, as it stands in the address; "" for none.
	password() string
	// backup copies it aside, as it is between two lives of the server. restore goes
	// back to that copy; false when there is none.
	backup(ctx context.Context) error
	restore(ctx context.Context) (bool, error)
	// outlive makes what the dead server has left look as if it had died long ago.
	outlive(ctx context.Context) error
	hindrances() []hindrance
	// remove leaves nothing of it.
	remove(ctx context.Context) error
}

// hindrance keeps a running server from its database until it is lifted.
type hindrance struct {
	name  string
	begin func(ctx context.Context, server *child, random *rand.Rand) (lift func() error, err error)
}

// makeDatabase makes one on the PostgreSQL server at the address; without an address,
// in the folder.
func makeDatabase(ctx context.Context, address *string, dir string) (provingDatabase, error) {
	if address == nil {
		return newProvingSQLite(dir), nil
	}
	return makeProvingPostgres(ctx, *address)
}

// freeWithin is how long the server may take, when it has its database again, to
// answer everybody. What a server had begun that was killed just before is held for
// longer: nobody knows yet that it is dead.
const freeWithin = 10 * time.Second

func (w *proving) freeWithin() time.Duration {
	if w.outlived {
		return freeWithin
	}
	return freeWithin + aliveWithin
}

// hinder keeps the server from its database until the host was refused a few times,
// and then lets it go on: every worker of the host must be answered again, by the same
// life of the server.
func (w *proving) hinder(h hindrance) func(context.Context) error {
	return func(ctx context.Context) error {
		refused := w.host.refused.Load()
		lift, err := h.begin(ctx, w.server, w.random)
		if err != nil {
			return w.unlessDead(err)
		}
		said := w.await(ctx, freeWithin, func() bool { return w.host.refused.Load() >= refused+3 })
		if err := lift(); err != nil {
			return w.unlessDead(err)
		}
		before := w.host.answers()
		answered := w.await(ctx, w.freeWithin(), func() bool { return allMore(before, w.host.answers()) })
		if w.server.dead() || ctx.Err() != nil {
			return nil // at a failpoint
		}
		w.hindered.hold(said, "%s, and no request was refused", h.name)
		w.hindered.hold(answered, "%s, and %s after that the host's workers have had answers: %v before, %v now",
			h.name, w.freeWithin(), before, w.host.answers())
		return nil
	}
}

// allMore tells whether each number has grown.
func allMore(before, now []int64) bool {
	for n := range now {
		if now[n] == before[n] {
			return false
		}
	}
	return true
}

// await waits until so is true; false when the server dies or it takes too long.
func (w *proving) await(ctx context.Context, within time.Duration, so func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for !so() {
		if ctx.Err() != nil || w.server.dead() {
			return false
		}
		pause(ctx, 5*time.Millisecond)
	}
	return true
}

// unlessDead is the error, unless the server has met its failpoint meanwhile.
func (w *proving) unlessDead(err error) error {
	select {
	case <-w.server.done:
		return nil
	case <-time.After(time.Second):
		return fmt.Errorf("keep the server from its database: %w", err)
	}
}
