package emulator

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The server's token bucket.
const (
	defaultLimit  = 750
	defaultRefill = 250
	refillEvery   = 10 * time.Second
)

// bucket is what an environment has left. It goes by the wall clock, not by the
// emulator's: clients compare its reset with their own.
type bucket struct {
	left     int
	refilled time.Time
}

// allowance is the bucket after one request took its token.
type allowance struct {
	limit, left int // left is -1 when there was none to take
	reset       time.Time
}

// take uses up one token. Tokens come back in portions, every ten seconds.
func (b *bucket) take(limit, refill int, now time.Time) allowance {
	if portions := int(now.Sub(b.refilled) / refillEvery); portions > 0 {
		b.left = min(limit, b.left+min(portions, limit)*refill)
		b.refilled = b.refilled.Add(time.Duration(portions) * refillEvery)
	}
	a := allowance{limit: limit, left: -1, reset: b.refilled.Add(refillEvery)}
	if b.left > 0 {
		b.left--
		a.left = b.left
	}
	return a
}

func (e *Emulator) takeToken(token string) allowance {
	limit, refill := e.cfg.RateLimit, e.cfg.RateRefill
	if limit == 0 {
		limit = defaultLimit
	}
	if refill == 0 {
		refill = defaultRefill
	}
	now := time.Now()
	if limit < 0 || !keyShape.MatchString(token) {
		shown := max(limit, defaultLimit)
		return allowance{limit: shown, left: shown, reset: now.Add(refillEvery)}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.buckets[token]
	if b == nil {
		b = &bucket{left: limit, refilled: now}
		e.buckets[token] = b
	}
	return b.take(limit, refill, now)
}

// limited stands before every route of the API: no header is refused, an empty
// bucket too, and every other answer says how full it is.
func (e *Emulator) limited(r *http.Request, next func() *reply) *reply {
	if !strings.HasPrefix(r.URL.Path, "/api/") {
		return next()
	}
	if r.Header.Get("Authorization") == "" {
		return unauthorizedProblem()
	}
	a := e.takeToken(bearer(r))
	p := (*reply)(nil)
	if a.left < 0 {
		p = tooMany(a, time.Now())
	} else {
		p = next()
	}
	return a.mark(p)
}

func (a allowance) mark(p *reply) *reply {
	return p.set("x-ratelimit-limit", strconv.Itoa(a.limit)).
		set("x-ratelimit-remaining", strconv.Itoa(max(0, a.left))).
		set("x-ratelimit-reset", strconv.FormatInt(a.reset.UnixMilli(), 10))
}

// tooMany is the refusal. Its remaining may be negative, the header's never is.
func tooMany(a allowance, now time.Time) *reply {
	seconds := math.Max(0, float64(a.reset.UnixMilli()-now.UnixMilli())/1000)
	detail := fmt.Sprintf("Rate limit exceeded %d/%d requests remaining. Retry in %s seconds.",
		max(0, a.left), a.limit, strconv.FormatFloat(seconds, 'f', -1, 64))
	return &reply{status: http.StatusTooManyRequests, kind: "application/problem+json", body: problem{
		Title: "Rate Limit Exceeded", Status: http.StatusTooManyRequests,
		Type:   "https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/429",
		Detail: detail, Reset: a.reset.UnixMilli(), Limit: a.limit, Remaining: &a.left,
		SecondsUntilReset: &seconds, Error: detail,
	}}
}
