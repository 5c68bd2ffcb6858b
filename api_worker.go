package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"sidejob/internal/job"
)

// whileOpen refuses new work once the server drains: whoever asks again soon finds
// its successor.
func whileOpen[I, O any](a *api, do func(context.Context, *I) (*O, error)) func(context.Context, *I) (*O, error) {
	return func(ctx context.Context, in *I) (*O, error) {
		if a.draining.Err() != nil {
			return nil, problemf(http.StatusServiceUnavailable, "draining", "sidejob is shutting down and takes nothing new; try again in a moment")
		}
		return do(ctx, in)
	}
}

// leaseRequest is who asks for work, and for how long.
type leaseRequest struct {
	Worker  string `json:"worker,omitempty" maxLength:"200" doc:"Who asks; the history of the job shows it"`
	LeaseMs int64  `json:"leaseMs,omitempty" minimum:"1000" maximum:"3600000" default:"60000" doc:"How long the job is the worker's, and what each heartbeat adds, in milliseconds"`
}

// lease gives a token that begins with the name of the process that hands it out.
func (r leaseRequest) lease(owner string) job.Lease {
	if r.LeaseMs == 0 {
		r.LeaseMs = time.Minute.Milliseconds()
	}
	return job.Lease{Token: owner + "." + uuid.NewString(), Owner: r.Worker, For: time.Duration(r.LeaseMs) * time.Millisecond}
}

// claimRequest asks for work.
type claimRequest struct {
	Worker  string   `json:"worker,omitempty" maxLength:"200" doc:"Who asks; the history of the jobs shows it"`
	Types   []string `json:"types,omitempty" nullable:"false" maxItems:"100" doc:"Only of these types; without, of every type that is not built in"`
	Limit   int      `json:"limit,omitempty" minimum:"1" maximum:"1000" default:"1" doc:"At most so many jobs"`
	LeaseMs int64    `json:"leaseMs,omitempty" minimum:"1000" maximum:"3600000" default:"60000" doc:"How long they are the worker's, and what each heartbeat adds, in milliseconds"`
	WaitMs  int64    `json:"waitMs,omitempty" minimum:"0" maximum:"60000" default:"0" doc:"Wait for work, at most so many milliseconds"`
}

// claim is the request as the store takes it.
func (r claimRequest) claim(owner string) (Claim, error) {
	for _, builtin := range builtinTypes() {
		if slices.Contains(r.Types, builtin) {
			return Claim{}, wrongMember("body.types", "%s is built in: sidejob carries it out itself, with WORKER_COUNT workers", builtin)
		}
	}
	types := slices.Compact(slices.Sorted(slices.Values(r.Types)))
	return Claim{
		Types: types, NotTypes: builtinTypes(), Limit: max(r.Limit, 1), Lease: leaseRequest{r.Worker, r.LeaseMs}.lease(owner),
	}, nil
}

// JobView is exported because huma describes no embedded struct that is not.
type JobView = jobView

// claimedJob is a job with its lease.
type claimedJob struct {
	JobView
	LeaseToken     string  `json:"leaseToken" doc:"Proves that the job is the worker's"`
	LeaseExpiresAt instant `json:"leaseExpiresAt" doc:"Somebody else's from then on, unless a heartbeat comes first"`
}

func viewClaimed(j job.Job) claimedJob {
	return claimedJob{viewJob(j), j.LeaseToken, instant(j.LeaseExpires)}
}

type claimedView struct {
	Jobs []claimedJob `json:"jobs" doc:"Soonest due first, then by id"`
}

// claimJobs waits until there is work. What was claimed for a caller who has left
// meanwhile is given back; after that moment only the end of the lease does so.
func (a *api) claimJobs(ctx context.Context, in *struct{ Body *claimRequest }) (*bodyOutput[claimedView], error) {
	request := claimRequest{}
	if in.Body != nil {
		request = *in.Body
	}
	want, err := request.claim(a.owner)
	if err != nil {
		return nil, err
	}
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(a.draining, stop)()
	jobs, err := a.desk.claim(waiting, want, time.Duration(request.WaitMs)*time.Millisecond)
	if err == nil && ctx.Err() != nil {
		a.giveBack(context.WithoutCancel(ctx), jobs)
		err = ctx.Err()
	}
	if err != nil {
		return nil, a.problem(err)
	}
	a.health.claimed(len(jobs))
	view := claimedView{Jobs: make([]claimedJob, len(jobs))}
	for i, j := range jobs {
		view.Jobs[i] = viewClaimed(j)
	}
	return &bodyOutput[claimedView]{view}, nil
}

func (a *api) giveBack(ctx context.Context, jobs []job.Job) {
	for _, j := range jobs {
		ev := job.Event{Kind: job.Release, At: now(), Source: "worker", Lease: job.Lease{Token: j.LeaseToken}}
		if _, err := a.store.Apply(ctx, j.ID, ev); err != nil {
			a.log.Error("a job claimed for a worker that has left was not given back", "job", j.ID, "err", err)
		}
	}
}

func (a *api) startJob(ctx context.Context, in *struct {
	IDInput
	Body *leaseRequest
}) (*bodyOutput[claimedJob], error) {
	var request leaseRequest
	if in.Body != nil {
		request = *in.Body
	}
	j, err := a.store.Get(ctx, in.ID)
	if err != nil {
		return nil, a.problem(err)
	}
	if slices.Contains(builtinTypes(), j.Type) {
		return nil, problemf(http.StatusConflict, "built_in", "%s is built in: sidejob carries it out itself, with WORKER_COUNT workers", j.Type)
	}
	jobs, err := a.store.Claim(ctx, Claim{At: now(), ID: in.ID, Limit: 1, Lease: request.lease(a.owner)})
	if err != nil {
		return nil, a.problem(err)
	}
	a.health.claimed(1)
	return &bodyOutput[claimedJob]{viewClaimed(jobs[0])}, nil
}

type heldRequest struct {
	LeaseToken string `json:"leaseToken" minLength:"1" maxLength:"200" doc:"As it came with the job"`
}

type heartbeatView struct {
	CancelRequested bool    `json:"cancelRequested" doc:"Stop: the job is canceled"`
	LeaseExpiresAt  instant `json:"leaseExpiresAt"`
}

func (a *api) heartbeat(ctx context.Context, in *struct {
	IDInput
	Body heldRequest
}) (*bodyOutput[heartbeatView], error) {
	j, err := a.tell(ctx, in.ID, job.Event{Kind: job.Renew, Lease: job.Lease{Token: in.Body.LeaseToken}})
	return &bodyOutput[heartbeatView]{heartbeatView{j.CancelRequested, instant(j.LeaseExpires)}}, err
}

func (a *api) completeJob(ctx context.Context, in *struct {
	IDInput
	Body *struct {
		LeaseToken string          `json:"leaseToken,omitempty" maxLength:"200" doc:"As it came with the job; left out where no worker holds it"`
		Result     json.RawMessage `json:"result,omitempty" doc:"Any JSON; null by default"`
	}
}) (*bodyOutput[jobView], error) {
	ev := job.Event{Kind: job.Complete}
	if in.Body != nil {
		ev.Lease.Token, ev.Result = in.Body.LeaseToken, in.Body.Result
	}
	return a.outcome(ctx, in.ID, ev)
}

func (a *api) failJob(ctx context.Context, in *struct {
	IDInput
	Body *struct {
		LeaseToken string          `json:"leaseToken,omitempty" maxLength:"200" doc:"As it came with the job; left out where no worker holds it"`
		Error      json.RawMessage `json:"error,omitempty" doc:"Any JSON; null by default"`
	}
}) (*bodyOutput[jobView], error) {
	ev := job.Event{Kind: job.Fail, Random: rand.Float64()}
	if in.Body != nil {
		ev.Lease.Token, ev.Result = in.Body.LeaseToken, in.Body.Error
	}
	ev.Result = orNull(ev.Result)
	return a.outcome(ctx, in.ID, ev)
}

func (a *api) releaseJob(ctx context.Context, in *struct {
	IDInput
	Body heldRequest
}) (*bodyOutput[jobView], error) {
	return a.outcome(ctx, in.ID, job.Event{Kind: job.Release, Lease: job.Lease{Token: in.Body.LeaseToken}})
}

func (a *api) outcome(ctx context.Context, id int64, ev job.Event) (*bodyOutput[jobView], error) {
	j, err := a.tell(ctx, id, ev)
	return &bodyOutput[jobView]{viewJob(j)}, err
}

// tell writes down what a worker says of its job.
func (a *api) tell(ctx context.Context, id int64, ev job.Event) (job.Job, error) {
	ev.At, ev.Source = now(), "worker"
	step, err := a.store.Apply(ctx, id, ev)
	return step.Job, a.problem(err)
}
