package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"sidejob/internal/job"
)

// webhook receives signed events of runs. It believes no byte before the signature
// is verified, and acknowledges an event only when it is in the database.
type webhook struct {
	store   Store
	adapter *adapter // nil when Trigger.dev is switched off
	poller  *poller
	lookout *lookout
	secrets webhookSecrets
	log     *slog.Logger

	failpoint *failpoint
}

const (
	maxWebhookBody = 256 << 10
	// proofTimeout bounds asking Trigger.dev whose a run is while the sender waits.
	proofTimeout = 3 * time.Second
)

// heardReply is the answer to an event that was taken.
type heardReply struct {
	Success bool `json:"success" doc:"The event is in the database, or needs not be"`
	Matched bool `json:"matched" doc:"It is about a run that a job has"`
}

// ServeHTTP answers POST /api/trigger/webhook.
func (h *webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(h.secrets) == 0 {
		writeProblem(w, problemf(http.StatusServiceUnavailable, "webhook_off", "no webhook secret is configured: set TRIGGER_WEBHOOK_SECRET"))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWebhookBody))
	if err != nil {
		writeProblem(w, bodyProblem(err, maxWebhookBody))
		return
	}
	if err := h.secrets.verify(r.Header, body, now()); err != nil {
		h.log.Warn("event refused", "err", err, "remote", r.RemoteAddr)
		writeProblem(w, problemf(http.StatusUnauthorized, "bad_signature", "%s", err))
		return
	}
	ev, err := readEvent(body)
	if err != nil {
		writeProblem(w, problemf(http.StatusBadRequest, "bad_event", "%s", err))
		return
	}
	reply := heardReply{Success: true}
	if !ev.ignored {
		reply.Matched, err = h.hear(r.Context(), ev, r.Header.Get("Webhook-Id"))
	}
	if err != nil {
		p := problemOf(err)
		h.log.Error("event not kept, its sender must send it again", "run", ev.run.ID, "err", err)
		writeProblem(w, p)
		return
	}
	writeJSON(w, http.StatusOK, reply)
}

// hear finds the row, writes, and has Trigger.dev asked whether it agrees.
func (h *webhook) hear(ctx context.Context, ev runEvent, webhookID string) (bool, error) {
	heard := Heard{
		EventIDs: []string{ev.id},
		Event:    job.Event{Kind: job.Told, At: now(), Source: "webhook", Run: ev.run},
	}
	if webhookID != "" {
		heard.EventIDs = append(heard.EventIDs, "webhook:"+webhookID)
	}
	id, err := h.store.FindRun(ctx, ev.run.ID)
	if errors.Is(err, ErrNotFound) {
		id, err = h.proveRow(ctx, ev)
		heard.JobID = id
	}
	if err != nil {
		return false, err
	}
	matched, err := h.store.Hear(ctx, heard)
	if err != nil {
		return false, err
	}
	h.failpoint.at("webhook.committed")
	h.log.Debug("event", "run", ev.run.ID, "status", ev.run.Raw, "job", id, "matched", matched)
	switch {
	case h.adapter == nil:
	case !matched:
		h.lookout.hint()
	case id != 0:
		h.poller.soon(id)
	}
	return matched, nil
}

// proveRow finds the row of a run that no row has yet: the one that the metadata
// names, if the run proves to be its own, by its own words or Trigger.dev's. 0:
// none.
func (h *webhook) proveRow(ctx context.Context, ev runEvent) (int64, error) {
	if ev.jobID == 0 {
		return 0, nil
	}
	j, err := h.store.Get(ctx, ev.jobID)
	switch {
	case errors.Is(err, ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case j.Executor != job.Trigger || j.RunID != "" || j.Done():
		return 0, nil
	case ev.belongsTo(j):
		return j.ID, nil
	case h.adapter == nil:
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	own, err := h.adapter.isRunOf(ctx, ev.run.ID, j)
	if err != nil {
		h.log.Info("cannot ask whose run it is; its event is kept", "run", ev.run.ID, "err", err)
	}
	if err != nil || !own {
		return 0, nil
	}
	return j.ID, nil
}

// isRunOf asks Trigger.dev whether the run was made by a submit of this job.
func (a *adapter) isRunOf(ctx context.Context, runID string, j job.Job) (bool, error) {
	run, err := a.client.Retrieve(ctx, runID)
	a.health.note(err)
	if err != nil {
		return false, err
	}
	return j.IdempotencyKey != "" && run.IdempotencyKey == j.IdempotencyKey && run.TaskIdentifier == j.TriggerTask &&
		slices.Contains(run.Tags, remoteTag(j.Tag)), nil
}
