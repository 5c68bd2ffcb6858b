package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"sidejob/internal/job"
)

// health answers whether sidejob works, and counts what it does.
type health struct {
	store     Store
	instance  string         // the name of this process
	trigger   *triggerHealth // nil when Trigger.dev is switched off
	set       *metrics.Set
	begun     time.Time
	reconcile func() bool // the first sweep is over
	paused    func() bool // the circuit breaker is open
	runsURL   string
}

func newHealth(store Store, instance string, trigger *triggerHealth) *health {
	return &health{store: store, instance: instance, trigger: trigger, set: metrics.NewSet(), begun: time.Now(), reconcile: func() bool { return true }, paused: func() bool { return false }}
}

// livez says that the process serves requests, nothing more.
func livez(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Status string `json:"status"`
	}{"ok"})
}

// readyView is the body of /readyz.
type readyView struct {
	Status    string   `json:"status" enum:"ready,degraded,not ready"`
	Notes     []string `json:"notes"`
	Instance  string   `json:"instance" doc:"This sidejob: its machine, its process and a number of its own"`
	Leader    *string  `json:"leader" doc:"The instance that does the periodic work; null while nobody does"`
	Term      int64    `json:"term,omitempty" doc:"Counts the changes of the leader"`
	Instances int      `json:"instances,omitempty" doc:"Sidejobs on this database that were seen within 15 s"`
}

const readyTimeout = 2 * time.Second

// readyz is 503 only when requests cannot be served: without the database. All else
// that is amiss is told in notes.
func (h *health) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	if err := h.store.Ping(ctx); err != nil {
		w.Header().Set("Retry-After", "1")
		writeJSON(w, http.StatusServiceUnavailable, readyView{Status: "not ready", Notes: []string{"the database does not answer"}, Instance: h.instance})
		return
	}
	view := readyView{Status: "ready", Notes: []string{}, Instance: h.instance}
	view.Notes = append(view.Notes, h.showLeader(ctx, &view)...)
	if !h.reconcile() {
		view.Notes = append(view.Notes, "still reconciling with Trigger.dev")
	}
	if _, reason := h.triggerState(); reason != "" && h.trigger != nil {
		view.Notes = append(view.Notes, reason)
	}
	if h.paused() {
		view.Notes = append(view.Notes, "the circuit breaker is open: Trigger.dev is not called for a moment")
	}
	view.Notes = append(view.Notes, h.missedNotes(ctx)...)
	if len(view.Notes) > 0 {
		view.Status = "degraded"
	}
	writeJSON(w, http.StatusOK, view)
}

// showLeader fills in who leads, and notes when nobody does.
func (h *health) showLeader(ctx context.Context, view *readyView) (notes []string) {
	lead, err := h.store.Leader(ctx)
	if err != nil {
		return []string{"cannot read who leads"}
	}
	view.Term, view.Instances = lead.Term, lead.Instances
	switch {
	case h.store.Alone():
		view.Leader = &h.instance
	case lead.Owner != "":
		view.Leader = &lead.Owner
	case h.trigger != nil:
		return []string{"no sidejob leads: the periodic work is taken up within 12 s"}
	}
	return nil
}

const (
	// notedMisses bounds how many recurring jobs /readyz names.
	notedMisses = 20
	// countedMisses bounds how many the metric counts.
	countedMisses = 10_000
)

// missedNotes names the recurring jobs that should have fired and did not.
func (h *health) missedNotes(ctx context.Context) []string {
	jobs, err := h.store.MissedRecurring(ctx, notedMisses)
	if err != nil {
		return []string{"cannot read which recurring jobs did not fire"}
	}
	var notes []string
	for _, j := range jobs {
		if !j.Paused {
			notes = append(notes, fmt.Sprintf("recurring job %d (%s) should have fired at %s and did not", j.ID, j.Tag, h.missedTime(ctx, j).Format(timeLayout)))
		}
	}
	return notes
}

// missedTime is the nominal time that was missed. A schedule on Trigger.dev has gone
// on since, and its history tells.
func (h *health) missedTime(ctx context.Context, j job.Job) time.Time {
	if !j.OnTrigger() {
		return j.Due
	}
	entries, err := h.store.History(ctx, j.ID)
	if err != nil {
		return j.Missed
	}
	for _, e := range slices.Backward(entries) {
		var detail struct{ Nominal time.Time }
		if e.Kind == string(job.Missed) && json.Unmarshal(e.Detail, &detail) == nil {
			return detail.Nominal
		}
	}
	return j.Missed
}

// missedCount is how many recurring jobs should have fired and did not.
func (h *health) missedCount(ctx context.Context) int {
	jobs, err := h.store.MissedRecurring(ctx, countedMisses)
	if err != nil {
		return 0
	}
	return len(slices.DeleteFunc(jobs, func(j job.Job) bool { return j.Paused }))
}

func (h *health) triggerState() (state, reason string) {
	if h.trigger == nil {
		return "off", "Trigger.dev is switched off"
	}
	return h.trigger.state()
}

// statsView is the body of /api/stats.
type statsView struct {
	Jobs           map[job.Executor]map[job.Status]int64 `json:"jobs" doc:"By executor and status"`
	Outbox         outboxView                            `json:"outbox" doc:"Submits and cancels owed to Trigger.dev"`
	CancelsPending int64                                 `json:"cancelsPending"`
	SyncLagMs      int64                                 `json:"syncLagMs" doc:"How long ago the open run that was asked about longest ago was"`
	Trigger        triggerView                           `json:"trigger"`
	Version        string                                `json:"version"`
	UptimeMs       int64                                 `json:"uptimeMs"`
}

type outboxView struct {
	Depth    int64 `json:"depth"`
	OldestMs int64 `json:"oldestMs"`
}

type triggerView struct {
	State   string `json:"state" enum:"ok,degraded,off"`
	Reason  string `json:"reason"`
	RunsURL string `json:"runsUrl,omitempty" doc:"Where a run is shown, before its id; needs TRIGGER_PROJECT_REF"`
}

func (h *health) stats(ctx context.Context) (statsView, error) {
	at := now()
	s, err := h.store.Stats(ctx, at)
	if err != nil {
		return statsView{}, err
	}
	state, reason := h.triggerState()
	return statsView{
		Jobs: s.Jobs, Outbox: outboxView{Depth: s.Owed, OldestMs: age(at, s.OldestOwed)}, CancelsPending: s.CancelsPending,
		SyncLagMs: age(at, s.OldestSynced), Trigger: triggerView{State: state, Reason: reason, RunsURL: h.runsURL},
		Version: version(), UptimeMs: time.Since(h.begun).Milliseconds(),
	}, nil
}

// age is how many milliseconds ago then was, 0 for never.
func age(at, then time.Time) int64 {
	if then.IsZero() || then.After(at) {
		return 0
	}
	return at.Sub(then).Milliseconds()
}

// claimed counts jobs that were handed to workers.
func (h *health) claimed(jobs int) {
	h.set.GetOrCreateCounter("sidejob_claims_total").Add(jobs)
}

// leaseLost counts a lease that ran out before its worker was done.
func (h *health) leaseLost() { h.set.GetOrCreateCounter("sidejob_lease_lost_total").Inc() }

// unknownStatus counts a word that this sidejob does not know.
func (h *health) unknownStatus(string) {
	h.set.GetOrCreateCounter("sidejob_unknown_status_total").Inc()
}

// request counts an answered request.
func (h *health) request(method string, status int) {
	h.set.GetOrCreateCounter(fmt.Sprintf(`sidejob_http_requests_total{method=%q,status="%d"}`, knownMethod(method), status)).Inc()
}

// knownMethod keeps a caller from making metrics.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodHead:
		return method
	}
	return "other"
}

func oneIf(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// metricsTimeout is below what Prometheus waits for by default, 10 s.
const metricsTimeout = 9 * time.Second

// metrics writes everything in Prometheus' text format. What the rows say is read
// when it is asked for.
func (h *health) metrics(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), metricsTimeout)
	defer cancel()
	view, err := h.stats(ctx)
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	leases, _, uncounted := h.store.Leases(ctx, now(), "")
	lead, unknown := h.store.Leader(ctx)
	if err := cmp.Or(uncounted, unknown); err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	for _, executor := range []job.Executor{job.Internal, job.Trigger} {
		for _, status := range []job.Status{job.Pending, job.Executing, job.Completed, job.Failed, job.Canceled} {
			fmt.Fprintf(w, "sidejob_jobs{executor=%q,status=%q} %d\n", executor, status, view.Jobs[executor][status])
		}
	}
	up, paused := oneIf(view.Trigger.State == "ok"), oneIf(h.paused())
	fmt.Fprintf(w, "sidejob_outbox_depth %d\nsidejob_outbox_oldest_seconds %g\n", view.Outbox.Depth, float64(view.Outbox.OldestMs)/1000)
	fmt.Fprintf(w, "sidejob_cancels_pending %d\nsidejob_sync_lag_seconds %g\n", view.CancelsPending, float64(view.SyncLagMs)/1000)
	fmt.Fprintf(w, "sidejob_trigger_up %d\nsidejob_breaker_open %d\nsidejob_uptime_seconds %g\n", up, paused, float64(view.UptimeMs)/1000)
	fmt.Fprintf(w, "sidejob_recurring_missed %d\n", h.missedCount(ctx))
	fmt.Fprintf(w, "sidejob_build_info{version=%q} 1\n", version())
	fmt.Fprintf(w, "sidejob_leases_held %d\n", leases)
	fmt.Fprintf(w, "sidejob_leader %d\nsidejob_instances %d\n", oneIf(h.store.Alone() || lead.Owner == h.instance), lead.Instances)
	for _, counter := range []string{"sidejob_claims_total", "sidejob_lease_lost_total", "sidejob_unknown_status_total"} {
		h.set.GetOrCreateCounter(counter)
	}
	h.set.WritePrometheus(w)
}
