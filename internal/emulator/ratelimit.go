package emulator

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The server's limits: a bucket for each key, and less for public tokens.
const (
	defaultLimit  = 750
	defaultRefill = 250
	refillEvery   = 10 * time.Second
	tokenLimit    = 60
	tokenWindow   = time.Minute
	bucketsAtMost = 10_000 // before those that are full again are thrown out
)

// pace is how much there is at most, and how much comes back how often.
type pace struct {
	limit, refill int
	every         time.Duration
}

// bucket is what a key has left. It goes by the wall clock, not by the emulator's:
// clients compare its reset with their own.
type bucket struct {
	pace
	left     int
	refilled time.Time
}

// allowance is the bucket after one request took its token.
type allowance struct {
	limit, left int // left is -1 when there was none to take
	reset       time.Time
}

// take uses up one token. Tokens come back in portions.
func (b *bucket) take(now time.Time) allowance {
	if portions := int(now.Sub(b.refilled) / b.every); portions > 0 {
		b.left = min(b.limit, b.left+min(portions, b.limit)*b.refill)
		b.refilled = b.refilled.Add(time.Duration(portions) * b.every)
	}
	a := allowance{limit: b.limit, left: -1, reset: b.refilled.Add(b.every)}
	if b.left > 0 {
		b.left--
		a.left = b.left
	}
	return a
}

// paceOf is how a key or a public token is limited.
func (e *Emulator) paceOf(key string) pace {
	if isToken(key) {
		return pace{tokenLimit, tokenLimit, tokenWindow}
	}
	return pace{cmp.Or(e.cfg.RateLimit, defaultLimit), cmp.Or(e.cfg.RateRefill, defaultRefill), refillEvery}
}

func (e *Emulator) takeToken(key string) allowance {
	now, p := time.Now(), e.paceOf(key)
	if e.cfg.RateLimit < 0 || !isToken(key) && !keyShape.MatchString(key) {
		shown := max(p.limit, defaultLimit)
		return allowance{limit: shown, left: shown, reset: now.Add(p.every)}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.buckets[key]
	if b == nil {
		e.sweepBuckets(now)
		b = &bucket{pace: p, left: p.limit, refilled: now}
		if isToken(key) {
			b.refilled = now.Truncate(p.every)
		}
		e.buckets[key] = b
	}
	return b.take(now)
}

func (e *Emulator) sweepBuckets(now time.Time) {
	if len(e.buckets) < bucketsAtMost {
		return
	}
	maps.DeleteFunc(e.buckets, func(_ string, b *bucket) bool {
		return int(now.Sub(b.refilled)/b.every)*b.refill >= b.limit
	})
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
