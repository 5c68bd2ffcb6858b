package triggerdev

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// limiter gives a client and a way to set what each reply says: tokens left of
// 100, until a reset so far from now.
func limiter(t *testing.T) (*Client, func(status, left int, reset time.Duration)) {
	t.Helper()
	var status, left int
	var reset time.Duration
	c := clientOf(t, Config{HTTP: inProcess(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-ratelimit-limit", "100")
		w.Header().Set("x-ratelimit-remaining", strconv.Itoa(left))
		w.Header().Set("x-ratelimit-reset", strconv.FormatInt(time.Now().Add(reset).UnixMilli(), 10))
		answer(status, `{"data":[],"pagination":{}}`)(w, r)
	}))})
	return c, func(s, l int, r time.Duration) {
		status, left, reset = s, l, r
		_ = c.Ping(t.Context())
	}
}

// paced is how long Pace blocks.
func paced(t *testing.T, c *Client, share float64) time.Duration {
	t.Helper()
	start := time.Now()
	if err := c.Pace(t.Context(), share); err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}

func TestPaceKeepsTheRestOfTheBucketForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, reply := limiter(t)
		if got := paced(t, c, 0.5); got != 0 {
			t.Errorf("before the first reply: waited %v", got)
		}
		for _, tc := range []struct {
			left  int
			share float64
			want  time.Duration
		}{
			{100, 0.5, 0}, {50, 0.5, 0}, {49, 0.5, 8 * time.Second}, {0, 0.5, 8 * time.Second},
			{74, 0.25, 8 * time.Second}, {75, 0.25, 0}, {0, 1, 0}, {99, 0, 8 * time.Second}, {100, 0, 0},
		} {
			reply(http.StatusOK, tc.left, 8*time.Second)
			if got := paced(t, c, tc.share); got != tc.want {
				t.Errorf("%d left, share %v: waited %v, want %v", tc.left, tc.share, got, tc.want)
			}
		}
		reply(http.StatusOK, 0, 8*time.Second)
		time.Sleep(8 * time.Second)
		if got := paced(t, c, 0.5); got != 0 {
			t.Errorf("after the reset: waited %v", got)
		}
	})
}

func TestNoPacedCallPassesBeforeTheEndOfA429(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, reply := limiter(t)
		reply(http.StatusTooManyRequests, 0, 30*time.Second)
		reply(http.StatusTooManyRequests, 0, 10*time.Second) // a late one takes nothing back
		time.Sleep(5 * time.Second)
		reply(http.StatusOK, 0, time.Second) // nor does an early reset
		if got := paced(t, c, 0.5); got != 25*time.Second {
			t.Errorf("waited %v, want the 25 s that are left", got)
		}
		if got := paced(t, c, 1); got != 0 {
			t.Errorf("afterwards: waited %v", got)
		}
	})
}

func TestPaceWaitsOnWhileTheBucketStaysLow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, reply := limiter(t)
		reply(http.StatusOK, 10, 10*time.Second)
		go func() {
			time.Sleep(9 * time.Second)
			reply(http.StatusOK, 10, 10*time.Second)
		}()
		if got := paced(t, c, 0.5); got != 19*time.Second {
			t.Errorf("waited %v, want 19 s, until the newest reset", got)
		}
	})
}

func TestPaceEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, reply := limiter(t)
		reply(http.StatusOK, 0, 10*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := c.Pace(ctx, 0.5); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("got %v after %v, want the error of the context after 1 s", err, time.Since(start))
		}
		if err := clientOf(t, Config{}).Pace(ctx, 0.5); err == nil {
			t.Error("got no error, want that of a context that has ended")
		}
	})
}

func TestAResetFarAheadIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, reply := limiter(t)
		reply(http.StatusOK, 0, 90*time.Minute)
		reply(http.StatusTooManyRequests, 0, 90*time.Minute)
		if got := paced(t, c, 0.5); got != 0 {
			t.Errorf("waited %v", got)
		}
	})
}

func TestAResetIsReadByTheServicesClock(t *testing.T) {
	now := at("2026-08-20T09:00:00Z")
	for name, tc := range map[string]struct {
		date time.Time
		want time.Duration // until the reset, from now
	}{
		"ours is an hour late":      {now.Add(time.Hour), 10*time.Second - time.Hour},
		"ours is an hour early":     {now.Add(-time.Hour), 10*time.Second + time.Hour},
		"both agree within blur":    {now.Add(-4 * time.Second), 10 * time.Second},
		"the header has no date":    {time.Time{}, 10 * time.Second},
		"ours is a minute too late": {now.Add(time.Minute), 10*time.Second - time.Minute},
	} {
		h := http.Header{}
		h.Set("x-ratelimit-reset", strconv.FormatInt(now.Add(10*time.Second).UnixMilli(), 10))
		if !tc.date.IsZero() {
			h.Set("Date", tc.date.Format(http.TimeFormat))
		}
		if got := resetAt(h, now).Sub(now); got != tc.want {
			t.Errorf("%s: got a reset in %v, want %v", name, got, tc.want)
		}
	}
}
