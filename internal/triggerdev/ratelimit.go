package triggerdev

import (
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

type limits struct {
	mu   sync.Mutex
	last RateLimit
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
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = RateLimit{Limit: limit, Remaining: max(remaining, 0), Reset: rateReset(h)}
}

// resetAt gives the instant from which trying again makes sense, zero when the
// reply names none. Retry-After counts from now.
func resetAt(h http.Header, now time.Time) time.Time {
	if at := rateReset(h); !at.IsZero() {
		return at
	}
	after := h.Get("Retry-After")
	if s, err := strconv.ParseUint(after, 10, 31); err == nil {
		return now.Add(time.Duration(s) * time.Second).UTC()
	}
	if at, err := http.ParseTime(after); err == nil {
		return at.UTC()
	}
	return time.Time{}
}

// rateReset reads x-ratelimit-reset. The API's limiter counts in milliseconds,
// the batch limiter under the same name in seconds: a count below 1e11 is read
// as seconds, since as milliseconds it would lie before 1973.
func rateReset(h http.Header) time.Time {
	n, err := strconv.ParseInt(h.Get("X-Ratelimit-Reset"), 10, 64)
	if err != nil || n <= 0 {
		return time.Time{}
	}
	if n < 1e11 {
		return time.Unix(n, 0).UTC()
	}
	return time.UnixMilli(n).UTC()
}
