package triggerdev

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// RateLimit is what the service last said about the token bucket that all keys
// of an environment share. The zero value means it has said nothing yet.
type RateLimit struct {
	Limit     int       // size of the bucket, in requests
	Remaining int       // requests left, never below 0
	Reset     time.Time // when the bucket is to be refilled; UTC
}

// RateLimit gives the rate limit of the newest reply that carried one.
func (c *Client) RateLimit() RateLimit {
	c.limits.mu.Lock()
	defer c.limits.mu.Unlock()
	return c.limits.last
}

// maxPace bounds what Pace believes: a bucket is refilled within seconds.
const maxPace = time.Hour

// Pace waits until a call that can wait may be made. Share is the part of the
// bucket, between 0 and 1, that calls of this kind may use up: Pace blocks while
// fewer than the rest of the tokens remain by the newest reply and their reset
// lies ahead. With 0.5 the last half of the bucket is kept for calls that do not
// ask. After a 429 it blocks until the instant the reply named, whatever the share.
//
// It returns at once while nothing is known. An instant more than an hour ahead
// is not believed. Pace counts no calls of its own: callers it lets pass before
// the next reply arrives all draw on the same number. The error is that of ctx.
func (c *Client) Pace(ctx context.Context, share float64) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		wait := time.Until(c.limits.clearAt(share, time.Now()))
		if wait <= 0 {
			return nil
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// sleep waits for d, or less if ctx ends, which is then its error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type limits struct {
	mu     sync.Mutex
	last   RateLimit
	closed time.Time // a 429 asked for no call before
}

// clearAt is when a paced call may go ahead, as far as is known now. An instant
// that has passed, the zero one included, means at once.
func (l *limits) clearAt(share float64, now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	few := float64(l.last.Remaining) < (1-share)*float64(l.last.Limit)
	if few && l.last.Reset.After(l.closed) && l.last.Reset.Before(now.Add(maxPace)) {
		return l.last.Reset
	}
	return l.closed
}

// refused keeps the time that a 429 of the API names.
func (l *limits) refused(err error) {
	var e *Error
	if !errors.As(err, &e) || e.Status != http.StatusTooManyRequests {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.ResetAt.After(l.closed) && e.ResetAt.Before(time.Now().Add(maxPace)) {
		l.closed = e.ResetAt
	}
}

// note keeps the rate limit of a reply; one that carries none changes nothing.
func (l *limits) note(h http.Header) {
	limit, err := strconv.Atoi(h.Get("X-Ratelimit-Limit"))
	if err != nil {
		return
	}
	remaining, err := strconv.Atoi(h.Get("X-Ratelimit-Remaining"))
	if err != nil {
		return
	}
	reset := rateReset(h, time.Now())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = RateLimit{Limit: limit, Remaining: max(remaining, 0), Reset: reset}
}

// resetAt gives the instant from which trying again makes sense, zero when the
// reply names none. Retry-After counts from now.
func resetAt(h http.Header, now time.Time) time.Time {
	if at := rateReset(h, now); !at.IsZero() {
		return at
	}
	after := h.Get("Retry-After")
	if s, err := strconv.ParseUint(after, 10, 31); err == nil {
		return now.Add(time.Duration(s) * time.Second).UTC()
	}
	if at, err := http.ParseTime(after); err == nil {
		return ownClock(at, h, now)
	}
	return time.Time{}
}

// rateReset reads x-ratelimit-reset. The API's limiter counts in milliseconds,
// the batch limiter under the same name in seconds: a count below 1e11 is read
// as seconds, since as milliseconds it would lie before 1973.
func rateReset(h http.Header, now time.Time) time.Time {
	n, err := strconv.ParseInt(h.Get("X-Ratelimit-Reset"), 10, 64)
	if err != nil || n <= 0 {
		return time.Time{}
	}
	if n < 1e11 {
		return ownClock(time.Unix(n, 0), h, now)
	}
	return ownClock(time.UnixMilli(n), h, now)
}

// ownClock turns an instant of the service's clock into one of ours, which is
// now. The header tells the service's time to the second, so a difference of a
// few seconds says nothing.
func ownClock(at time.Time, h http.Header, now time.Time) time.Time {
	const blur = 5 * time.Second
	theirs, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return at.UTC()
	}
	if ahead := now.Sub(theirs); ahead.Abs() > blur {
		at = at.Add(ahead)
	}
	return at.UTC()
}
