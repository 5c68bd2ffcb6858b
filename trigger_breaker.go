package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// breaker stops the calls of Trigger.dev's API while it does not answer or refuses
// the key, and lets single ones through to see whether it does again. A call that
// it stops was certainly not made, and no row need say so.
type breaker struct {
	next   http.RoundTripper
	state  *gobreaker.TwoStepCircuitBreaker[any]
	trying atomic.Bool // somebody is seeing whether the service is back
}

const (
	// tripAfter failures in a row open the breaker.
	tripAfter = 8
	// openFor is how long it stays open before it lets a call through.
	openFor = 3 * time.Second
)

var errPaused = errors.New("trigger.dev is not called for a moment, after failures in a row")

// errUnwell is an answer that says the service is not well, or the key is not taken.
var errUnwell = errors.New("unwell")

func newBreaker(next http.RoundTripper, log *slog.Logger) *breaker {
	if next == nil {
		next = http.DefaultTransport
	}
	return &breaker{next: next, state: gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		Name: "trigger.dev", MaxRequests: 1, Timeout: openFor,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		IsExcluded:  func(err error) bool { return errors.Is(err, context.Canceled) }, // we gave up
		OnStateChange: func(_ string, from, to gobreaker.State) {
			log.Debug("circuit breaker", "from", from.String(), "to", to.String())
		},
	})}
}

// RoundTrip implements http.RoundTripper. Long polls and the object store are no
// part of the API and pass.
func (b *breaker) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.Contains(r.URL.Path, "/api/") {
		return b.next.RoundTrip(r)
	}
	done, err := b.state.Allow()
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errPaused} // as if nobody were there
	}
	res, err := b.next.RoundTrip(r)
	done(wellness(res, err))
	return res, err
}

// wellness is nil for an answer of a service that works and takes the key, whatever
// it says.
func wellness(res *http.Response, err error) error {
	switch {
	case err != nil:
		return err
	case res.StatusCode >= 500, res.StatusCode == http.StatusUnauthorized, res.StatusCode == http.StatusForbidden:
		return errUnwell
	}
	return nil
}

// open tells whether no call passes.
func (b *breaker) open() bool { return b.state.State() == gobreaker.StateOpen }

// admit tells whether a piece of work that needs the service may begin. After a
// pause one may, and the others wait for how it fares. Call done when it is over.
func (b *breaker) admit() (done func(), ok bool) {
	switch b.state.State() {
	case gobreaker.StateClosed:
		return func() {}, true
	case gobreaker.StateHalfOpen:
		if b.trying.CompareAndSwap(false, true) {
			return func() { b.trying.Store(false) }, true
		}
	}
	return nil, false
}
