package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"sidejob/internal/triggerdev"
)

// triggerHealth is what the last calls say about Trigger.dev: whether it answers,
// and takes the key. It is for people; no decision about a job rests on it.
type triggerHealth struct {
	log *slog.Logger

	mu         sync.Mutex
	failing    int       // calls in a row that did not get through
	since      time.Time // the first of them
	reason     string
	keyRefused bool
}

// degradedAfter is how many calls in a row must fail before Trigger.dev counts as
// down: a single reset is everyday life.
const degradedAfter = 3

// note takes the outcome of one call.
func (h *triggerHealth) note(err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, errPaused) {
		return // sidejob itself gave up, or never called
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	refused := triggerdev.KeyRefused(err)
	if !refused && answered(err) {
		if h.keyRefused || h.failing >= degradedAfter {
			h.log.Info("trigger.dev answers again")
		}
		h.failing, h.reason, h.keyRefused = 0, "", false
		return
	}
	if h.failing == 0 {
		h.since = now()
	}
	h.failing++
	h.reason = err.Error()
	switch {
	case refused && !h.keyRefused:
		h.log.Error("trigger.dev refuses the key: no job changes, and sending goes on when the key works again", "err", err)
	case !refused && h.failing == degradedAfter:
		h.log.Warn("trigger.dev does not answer; jobs wait", "err", err)
	}
	h.keyRefused = refused
}

// answered tells whether the service itself replied, whatever it said.
func answered(err error) bool {
	switch triggerdev.OutcomeOf(err) {
	case triggerdev.Accepted, triggerdev.Refused:
		return true
	}
	return triggerdev.NotFound(err)
}

// state is ok or degraded, with the reason of the latter.
func (h *triggerHealth) state() (state, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.keyRefused:
		return "degraded", "Trigger.dev refuses the key: " + h.reason
	case h.failing >= degradedAfter:
		return "degraded", "Trigger.dev has not answered since " + h.since.Format(timeLayout) + ": " + h.reason
	}
	return "ok", ""
}
