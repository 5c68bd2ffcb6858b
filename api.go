package main

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"sidejob/internal/dashboard"
	"sidejob/internal/job"
)

// api answers the private listener. Each handler decodes, makes one call and
// encodes; rules live below.
type api struct {
	store      Store
	desk       *desk
	outbox     *outbox
	reconciler *reconciler
	registry   registry
	health     *health
	triggerOn  bool
	token      tokens
	hosts      allowedHosts
	owner      string // names this process beside idempotency keys and in lease tokens
	underWay   keysUnderWay
	draining   context.Context // ends when long polls must
	failpoint  *failpoint
	schemas    huma.Registry // of the request bodies, made by humaAPI
	log        *slog.Logger
}

const (
	maxBody      = 1 << 20
	maxBatchBody = 16 << 20
	maxBatch     = 1000
)

// routes is every call of the private listener.
func (a *api) routes(h huma.API) {
	const jobs, recurring, worker, triggerDev, server = "Jobs", "Recurring jobs", "Workers", "Trigger.dev", "Server"
	post(h, jobs, "/api/jobs", "Schedule a job", http.StatusCreated, whileOpen(a, a.schedule))
	post(h, jobs, "/api/jobs/batch", "Schedule up to 1000 jobs", http.StatusOK, whileOpen(a, a.scheduleBatch))
	get(h, jobs, "/api/jobs/{id}", "Read a job, or wait until it has finished", a.getJob)
	get(h, jobs, "/api/jobs", "List jobs", a.listJobs)
	get(h, jobs, "/api/jobs/count", "Count jobs", a.countJobs)
	get(h, jobs, "/api/jobs/{id}/events", "Read the history of a job, oldest first", a.jobEvents)
	post(h, jobs, "/api/jobs/{id}/cancel", "Cancel a job", http.StatusOK, a.cancelJob)
	post(h, jobs, "/api/jobs/{id}/retry", "Make a new job from one that has ended", http.StatusCreated, whileOpen(a, a.retryJob))
	post(h, recurring, "/api/jobs/{id}/pause", "Pause a recurring job", http.StatusOK, a.pauseRecurring)
	post(h, recurring, "/api/jobs/{id}/resume", "Resume a recurring job", http.StatusOK, a.resumeRecurring)
	register(h, http.MethodDelete, recurring, "/api/jobs/{id}/schedule", "End a recurring job", http.StatusOK, a.endRecurring)
	post(h, recurring, "/api/cron/preview", "Read when an expression is due", http.StatusOK, a.previewCron)
	post(h, jobs, "/api/jobs/cleanup", "Remove finished jobs whose time is past", http.StatusOK, a.cleanup)
	post(h, worker, "/api/worker/claim", "Take internal jobs that are due, or wait for some", http.StatusOK, whileOpen(a, a.claimJobs))
	post(h, worker, "/api/jobs/{id}/start", "Take this one internal job", http.StatusOK, whileOpen(a, a.startJob))
	post(h, worker, "/api/jobs/{id}/heartbeat", "Extend the lease, and hear whether the job is canceled", http.StatusOK, a.heartbeat)
	post(h, worker, "/api/jobs/{id}/complete", "End an internal job well", http.StatusOK, a.completeJob)
	post(h, worker, "/api/jobs/{id}/fail", "End a try of an internal job badly", http.StatusOK, a.failJob)
	post(h, worker, "/api/jobs/{id}/release", "Give an internal job back unharmed", http.StatusOK, a.releaseJob)
	post(h, triggerDev, "/api/reconcile", "Compare all unfinished jobs with Trigger.dev", http.StatusOK, a.reconcile)
	post(h, triggerDev, "/api/sync", "Ask Trigger.dev about the active jobs", http.StatusOK, a.sync)
	get(h, server, "/api/registry", "Read the job registry", a.getRegistry)
	get(h, server, "/api/stats", "Read what the server knows of itself", a.getStats)
}

func get[I, O any](h huma.API, group, path, summary string, do func(context.Context, *I) (*O, error)) {
	register(h, http.MethodGet, group, path, summary, http.StatusOK, do)
}

func post[I, O any](h huma.API, group, path, summary string, status int, do func(context.Context, *I) (*O, error)) {
	register(h, http.MethodPost, group, path, summary, status, do)
}

func register[I, O any](h huma.API, method, group, path, summary string, status int, do func(context.Context, *I) (*O, error)) {
	huma.Register(h, huma.Operation{
		OperationID: operationID(method, path), Method: method, Path: path, Summary: summary, Tags: []string{group},
		DefaultStatus: status,
		// The guard has bounded and read the body. A read deadline on the connection,
		// 5 s by default, would end the request's context in the middle of a long poll.
		MaxBodyBytes: -1, BodyReadTimeout: -1,
	}, do)
}

// humaAPI makes the API on a mux of its own.
func (a *api) humaAPI(mux *http.ServeMux) huma.API {
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: readJSON}
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "sidejob", Version: version(),
				Description: "Every job is a row. POST bodies are JSON; every POST takes Idempotency-Key; errors are problem+json with a stable code.",
				License:     &huma.License{Name: "MIT", Identifier: "MIT"},
			},
			Components: &huma.Components{
				Schemas:         huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}},
			},
			Security: []map[string][]string{{"token": {}}, {}},
		},
		OpenAPIPath:                  "/openapi",
		Formats:                      map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	}
	h := humago.New(mux, config)
	a.schemas = h.OpenAPI().Components.Schemas
	a.routes(h)
	describeReplies(h.OpenAPI())
	describeWebhook(h)
	describeProbes(h)
	return h
}

// handler is the private listener: the API behind its guard, and the pages and
// probes beside it.
func (a *api) handler(webhook http.Handler) http.Handler {
	mux := http.NewServeMux()
	a.humaAPI(mux)
	mux.Handle("POST "+webhookPath, webhook)
	mux.Handle("GET /livez", http.HandlerFunc(livez))
	mux.Handle("GET /readyz", http.HandlerFunc(a.health.readyz))
	mux.Handle("GET /metrics", http.HandlerFunc(a.health.metrics))
	pages := dashboard.Handler()
	mux.Handle("GET /{$}", pages)
	mux.Handle("GET /docs", pages)
	mux.Handle("GET /dashboard/", pages)
	return a.guard(mux)
}

// publicHandler is the public listener: the webhook, and whether we live.
func publicHandler(webhook http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+webhookPath, webhook)
	mux.Handle("GET /livez", http.HandlerFunc(livez))
	return problemsFor(mux)
}

const webhookPath = "/api/trigger/webhook"

// IDInput names a job. It is exported because huma fills no embedded struct that is
// not, like those below.
type IDInput struct {
	ID int64 `path:"id" minimum:"1" doc:"The job's id"`
}

type bodyOutput[T any] struct{ Body T }

// jobOutput is a job with the status that says how far it is.
type jobOutput struct {
	Status   int
	Location string `header:"Location"`
	Body     jobView
}

func (a *api) getJob(ctx context.Context, in *struct {
	IDInput
	WaitMs int `query:"waitMs" minimum:"0" maximum:"60000" doc:"Wait until it has finished, at most so many milliseconds"`
}) (*bodyOutput[jobView], error) {
	j, err := a.waitFor(ctx, in.ID, in.WaitMs, job.Job.Done)
	return &bodyOutput[jobView]{viewJob(j)}, err
}

// waitFor reads a job and waits until it is as wanted, or the time is over. What other
// sidejobs write may be told late or never.
func (a *api) waitFor(ctx context.Context, id int64, waitMs int, enough func(job.Job) bool) (job.Job, error) {
	changed, stop := a.store.Watch(id)
	defer stop()
	timer := time.NewTimer(time.Duration(waitMs) * time.Millisecond)
	defer timer.Stop()
	var again <-chan time.Time
	if !a.store.Alone() {
		ticker := time.NewTicker(lookAgain)
		defer ticker.Stop()
		again = ticker.C
	}
	for {
		j, err := a.store.Get(ctx, id)
		if err != nil || waitMs == 0 || enough(j) {
			return j, a.problem(err)
		}
		select {
		case <-changed:
		case <-again:
		case <-timer.C:
			waitMs = 0
		case <-a.draining.Done():
			return j, nil
		case <-ctx.Done():
			return j, a.problem(ctx.Err())
		}
	}
}

func (a *api) jobEvents(ctx context.Context, in *IDInput) (*bodyOutput[eventsView], error) {
	if _, err := a.store.Get(ctx, in.ID); err != nil {
		return nil, a.problem(err)
	}
	entries, err := a.store.History(ctx, in.ID)
	return &bodyOutput[eventsView]{eventsView{viewHistory(entries)}}, a.problem(err)
}

type eventsView struct {
	Events []eventView `json:"events"`
}

type WaitInput struct {
	WaitMs int `query:"waitMs" minimum:"0" maximum:"10000" default:"2000" doc:"How long the reply waits for Trigger.dev, in milliseconds"`
}

// Resolve implements huma.Resolver. Where a body has been read, huma takes a 0 for
// a parameter that was left out, and has put the default in its place.
func (in *WaitInput) Resolve(ctx huma.Context) []error {
	if ms, err := strconv.Atoi(ctx.Query("waitMs")); err == nil {
		in.WaitMs = ms
	}
	return nil
}

func (a *api) cancelJob(ctx context.Context, in *struct {
	IDInput
	WaitInput
}) (*jobOutput, error) {
	step, err := a.store.Apply(ctx, in.ID, job.Event{Kind: job.Cancel, At: now(), Source: "api"})
	if err != nil {
		return nil, a.problem(err)
	}
	out := &jobOutput{Status: http.StatusOK}
	j := step.Job
	if !j.Done() {
		a.outbox.nudge()
		if j, err = a.waitFor(ctx, in.ID, in.WaitMs, job.Job.Done); err != nil {
			return nil, err
		}
	}
	if !j.Done() {
		out.Status = http.StatusAccepted
	}
	out.Body = viewJob(j)
	return out, nil
}

func (a *api) cleanup(ctx context.Context, in *struct {
	Body *struct {
		Exclude []int64 `json:"exclude,omitempty" doc:"Ids of jobs to keep" maxItems:"10000"`
	}
}) (*bodyOutput[removedView], error) {
	var exclude []int64
	if in.Body != nil {
		exclude = in.Body.Exclude
	}
	removed, err := removeAll(ctx, a.store, exclude)
	return &bodyOutput[removedView]{removedView{removed}}, a.problem(err)
}

func (a *api) reconcile(ctx context.Context, in *struct {
	DryRun bool `query:"dryRun" doc:"Only look: no row changes and nothing is sent"`
	Adopt  bool `query:"adopt" doc:"Make rows for runs of this installation that have none"`
	Cancel bool `query:"cancel" doc:"Cancel such runs"`
}) (*bodyOutput[Report], error) {
	if in.Adopt && in.Cancel {
		return nil, problemf(http.StatusUnprocessableEntity, "invalid", "adopt and cancel exclude each other")
	}
	report, err := a.reconciler.reconcile(ctx, sweepOptions{dry: in.DryRun, adopt: in.Adopt, cancel: in.Cancel})
	return &bodyOutput[Report]{report}, a.problem(err)
}

func (a *api) sync(ctx context.Context, _ *struct{}) (*bodyOutput[Report], error) {
	report, err := a.reconciler.sync(ctx)
	return &bodyOutput[Report]{report}, a.problem(err)
}

func (a *api) getRegistry(context.Context, *struct{}) (*bodyOutput[registryView], error) {
	return &bodyOutput[registryView]{registryView{a.registry.jobs}}, nil
}

func (a *api) getStats(ctx context.Context, _ *struct{}) (*bodyOutput[statsView], error) {
	view, err := a.health.stats(ctx)
	return &bodyOutput[statsView]{view}, a.problem(err)
}

// problem turns an error into what the caller reads, and logs what only the
// operator can act on.
func (a *api) problem(err error) error {
	if err == nil {
		return nil
	}
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError {
		a.log.Error("request failed", "code", p.Code, "err", err)
	}
	return p
}
