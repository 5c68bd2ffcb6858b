package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// leadership has one sidejob of those on a database do what is to be done once: the
// stream, the sweeps, the watch over schedules. A leader that dies is replaced within
// leadLife; one that was frozen and wakes finds its writes refused.
type leadership struct {
	store Store
	owner string
	log   *slog.Logger
	work  func(ctx context.Context) // returns when ctx ends

	follows atomic.Bool // another one leads
}

const (
	leadLife  = 12 * time.Second
	leadRenew = 3 * time.Second
)

// run leads whenever it may, until ctx ends, and then lets another one lead. Who has
// the database to himself leads for good.
func (l *leadership) run(ctx context.Context) {
	if l.store.Alone() {
		l.work(ctx)
		return
	}
	defer l.resign(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		asked := time.Now()
		term, err := l.store.Lead(ctx, l.owner, leadLife)
		switch {
		case err != nil && ctx.Err() == nil:
			l.log.Warn("cannot ask who leads", "err", err)
		case term != 0:
			l.follows.Store(false)
			l.lead(ctx, term, asked)
		default:
			l.follows.Store(true)
		}
		pause(ctx, leadRenew)
	}
}

// lead does the work until ctx ends or the term is over.
func (l *leadership) lead(ctx context.Context, term int64, asked time.Time) {
	l.log.Info("leading", "term", term)
	working, stop := context.WithCancel(withTerm(ctx, term))
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.work(working)
	}()
	for ctx.Err() == nil && time.Since(asked) < leadLife {
		pause(ctx, leadRenew)
		again := time.Now()
		is, err := l.store.Lead(ctx, l.owner, leadLife)
		if err == nil && is != term {
			break
		}
		if err == nil {
			asked = again
		}
	}
	stop()
	<-done
	if ctx.Err() == nil {
		l.log.Warn("not leading any more", "term", term)
	}
}

// resign is a courtesy: without it the next one leads when the term has run out.
func (l *leadership) resign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := l.store.Resign(ctx, l.owner); err != nil {
		l.log.Debug("the lead was not given up", "err", err)
	}
}
