package emulator

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// How events are posted.
const (
	postTimeout  = 5 * time.Second
	postAttempts = 3
)

// event is one message of a task hook, with its body as it goes over the wire.
type event struct {
	id   string
	body []byte
}

// emit posts what a hook of the task would: start, success, final failure and
// cancel while executing. It never waits. Events of one run keep their order; like
// hooks, those not yet posted are lost when the process dies.
func (e *Emulator) emit(r *run, kind string) {
	if e.cfg.WebhookURL == "" {
		return
	}
	id := e.newID("evt_", 25)
	now := e.clock.now()
	var finished, output, failure, key json.RawMessage
	if kind != "RUN_STARTED" {
		finished = quoted(now.iso())
	}
	if r.Status == completed {
		output = r.Output
	}
	if r.Error != nil {
		failure = compactJSON(r.Error)
	}
	if r.Key != "" {
		key = quoted(r.Key)
	}
	metadata := r.Metadata
	if metadata == nil {
		metadata = json.RawMessage("{}")
	}
	body := object("id", id, "type", kind, "run", object(
		"id", r.ID, "status", r.Status.meaning().api, "taskIdentifier", r.Task, "output", output, "error", failure,
		"metadata", metadata, "createdAt", r.Created.iso(), "startedAt", r.Started.iso(), "completedAt", finished,
		"updatedAt", now.iso(), "attemptCount", r.Attempts,
		"attempt", object("number", r.Attempts, "id", fmt.Sprintf("attempt_%s_%d", r.internal(), r.Attempts)),
		"idempotencyKey", key, "tags", r.tagList()))
	e.queueEvent(r.ID, event{id: id, body: body})
}

// queueEvent appends to the run's queue. Whoever finds it empty works it off.
func (e *Emulator) queueEvent(runID string, ev event) {
	if e.closed {
		return
	}
	waiting, busy := e.events[runID]
	e.events[runID] = append(waiting, ev)
	if !busy {
		e.owned.Go(func() { e.postAll(runID) })
	}
}

// postAll posts a run's events one after the other until none is left.
func (e *Emulator) postAll(runID string) {
	for {
		e.mu.Lock()
		waiting := e.events[runID]
		if len(waiting) == 0 || e.closed {
			delete(e.events, runID)
			e.mu.Unlock()
			return
		}
		e.events[runID] = waiting[1:]
		e.mu.Unlock()
		e.post(runID, waiting[0])
	}
}

// post tries an event three times, one and two seconds apart.
func (e *Emulator) post(runID string, ev event) {
	var err error
	for attempt := range postAttempts {
		if attempt > 0 && !e.sleep(time.Duration(attempt)*time.Second) {
			return
		}
		if err = e.postOnce(ev); err == nil || e.ctx.Err() != nil {
			return
		}
	}
	e.log.Warn("webhook not delivered", "run", runID, "event", ev.id, "err", err)
}

// sleep waits unless the emulator is closed first.
func (e *Emulator) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-e.ctx.Done():
		return false
	}
}

func (e *Emulator) postOnce(ev event) error {
	select {
	case e.posts <- struct{}{}:
		defer func() { <-e.posts }()
	case <-e.ctx.Done():
		return e.ctx.Err()
	}
	ctx, cancel := context.WithTimeout(e.ctx, postTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.cfg.WebhookURL, bytes.NewReader(ev.body))
	if err != nil {
		return fmt.Errorf("post event: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	sign(req.Header, ev, e.cfg.WebhookSecret, time.Now())
	resp, err := e.client.Do(req)
	if err != nil {
		return fmt.Errorf("post event: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("post event: answered %s", resp.Status)
	}
	return nil
}

// sign adds both signatures that a receiver may know: the bare one over the body,
// and the three headers of Standard Webhooks, whose time is the real one.
func sign(h http.Header, ev event, secrets string, now time.Time) {
	secret, _, _ := strings.Cut(secrets, ",")
	secret = strings.TrimSpace(secret)
	if secret == "" {
		return
	}
	h.Set("trigger-signature", hex.EncodeToString(mac([]byte(secret), ev.body)))
	stamp := strconv.FormatInt(now.Unix(), 10)
	h.Set("webhook-id", ev.id)
	h.Set("webhook-timestamp", stamp)
	signed := mac(standardKey(secret), []byte(ev.id+"."+stamp+"."), ev.body)
	h.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(signed))
}

// standardKey is what whsec_ precedes, decoded; any other secret is its own bytes.
func standardKey(secret string) []byte {
	encoded, prefixed := strings.CutPrefix(secret, "whsec_")
	if key, err := base64.StdEncoding.DecodeString(encoded); prefixed && err == nil {
		return key
	}
	return []byte(secret)
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}
