package main

import (
	"context"
	"time"
)

// timeLayout is how every time is shown: RFC 3339, UTC, milliseconds.
const timeLayout = "2006-01-02T15:04:05.000Z"

// now is the time as everything here keeps it.
func now() time.Time { return toMilli(time.Now()) }

// toMilli cuts a time to what the database keeps.
func toMilli(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) { waitUntil(ctx, time.Now().Add(d), nil) }

// waitUntil waits for a time, a wake-up or the end of ctx.
func waitUntil(ctx context.Context, at time.Time, wake <-chan struct{}) {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	case <-ctx.Done():
	}
}
