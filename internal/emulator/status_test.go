package emulator

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestStatusesAreShownAsTheVersionHeaderWants(t *testing.T) {
	yes := func(names string) flags {
		var f flags
		for n, set := range map[string]*bool{"queued": &f.IsQueued, "executing": &f.IsExecuting, "completed": &f.IsCompleted,
			"failed": &f.IsFailed, "success": &f.IsSuccess, "canceled": &f.IsCancelled, "waiting": &f.IsWaiting} {
			*set = strings.Contains(names, n)
		}
		return f
	}
	for _, tt := range []struct {
		status      status
		api, legacy string
		final       bool
		flags       string
		freesKey    bool
	}{
		{"DELAYED", "DELAYED", "DELAYED", false, "queued", false},
		{"PENDING", "QUEUED", "QUEUED", false, "queued", false},
		{"PENDING_VERSION", "PENDING_VERSION", "PENDING_VERSION", false, "queued", false},
		{"DEQUEUED", "DEQUEUED", "EXECUTING", false, "executing", false},
		{"EXECUTING", "EXECUTING", "EXECUTING", false, "executing", false},
		{"WAITING_TO_RESUME", "WAITING", "FROZEN", false, "waiting", false},
		{"COMPLETED_SUCCESSFULLY", "COMPLETED", "COMPLETED", true, "completed success", false},
		{"CANCELED", "CANCELED", "CANCELED", true, "completed failed canceled", false},
		{"COMPLETED_WITH_ERRORS", "FAILED", "FAILED", true, "completed failed", true},
		{"CRASHED", "CRASHED", "CRASHED", true, "completed failed", true},
		{"SYSTEM_FAILURE", "SYSTEM_FAILURE", "SYSTEM_FAILURE", true, "completed failed", true},
		{"EXPIRED", "EXPIRED", "EXPIRED", true, "", true},
		{"TIMED_OUT", "TIMED_OUT", "TIMED_OUT", true, "", true},
		{"DANCING", "DANCING", "DANCING", false, "", false},
	} {
		word, set := tt.status.show(apiVersion)
		if word != tt.api || set != yes(tt.flags) || tt.status.final() != tt.final || tt.status.meaning().freesKey != tt.freesKey {
			t.Errorf("%s: shown as %s %+v", tt.status, word, set)
		}
		for _, header := range []string{"", "2025-07-15", "2026-01-01"} {
			if word, _ := tt.status.show(header); word != tt.legacy {
				t.Errorf("%s with version %q: got %s, want %s", tt.status, header, word, tt.legacy)
			}
		}
	}
}

func TestTheLogNamesAnUnknownTaskOnce(t *testing.T) {
	var log bytes.Buffer
	inBubble(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, e *Emulator, a *api) {
		a.trigger("mystery", `{"payload":"secret"}`)
		a.trigger("mystery", `{"payload":"secret"}`)
		after(time.Second)
	})
	if n := strings.Count(log.String(), "task=mystery"); n != 1 || strings.Contains(log.String(), "secret") {
		t.Errorf("log says it %d times, want once and no payload: %s", n, log.String())
	}
}

func TestTheLogSaysThatAnUnknownTaskWaits(t *testing.T) {
	var log bytes.Buffer
	inBubble(t, Config{Strict: true, Log: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, e *Emulator, a *api) {
		a.trigger("mystery", `{}`)
		after(2 * time.Second)
	})
	if !strings.Contains(log.String(), "unknown task waits") || !strings.Contains(log.String(), "task=mystery") {
		t.Errorf("log is %s", log.String())
	}
}
