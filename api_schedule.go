package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"sidejob/internal/job"
)

func (a *api) schedule(ctx context.Context, in *struct {
	WaitInput
	Body jobRequest
}) (*jobOutput, error) {
	if made := replyOf(ctx).JobIDs; len(made) == 1 && made[0] != 0 {
		return a.scheduledBefore(ctx, made[0])
	}
	order, warnings, err := a.order(in.Body)
	if err != nil {
		return nil, a.problem(err)
	}
	settled, stop := a.outbox.await(order.Job.IdempotencyKey)
	defer stop()
	placed, err := a.store.Schedule(ctx, []Order{order}, requestOf(ctx))
	if err != nil {
		return nil, a.problem(err)
	}
	a.failpoint.at("schedule.committed")
	p := placed[0]
	if p.Err != nil {
		return nil, a.problem(p.Err)
	}
	a.outbox.nudge()
	out := scheduled(p.Job, warnings)
	if p.Existing {
		out.Status = http.StatusOK
		return out, nil
	}
	if !p.Job.Owes() || in.WaitMs == 0 {
		return out, nil
	}
	return a.awaitSubmit(ctx, out, settled, in.WaitMs)
}

func scheduled(j job.Job, warnings []string) *jobOutput {
	return &jobOutput{Status: http.StatusCreated, Location: fmt.Sprintf("/api/jobs/%d", j.ID), Body: viewJob(j, warnings...)}
}

// scheduledBefore answers a request whose reply was lost in a crash after its job
// was made.
func (a *api) scheduledBefore(ctx context.Context, id int64) (*jobOutput, error) {
	j, err := a.store.Get(ctx, id)
	if err != nil {
		return nil, a.problem(err)
	}
	return scheduled(j, nil), nil
}

// awaitSubmit waits a while for the job's run. A Trigger.dev that is down is no
// failure of the request: the row is there.
func (a *api) awaitSubmit(ctx context.Context, out *jobOutput, settled <-chan settledSubmit, waitMs int) (*jobOutput, error) {
	timer := time.NewTimer(time.Duration(waitMs) * time.Millisecond)
	defer timer.Stop()
	var changed <-chan struct{}
	if !a.store.Alone() { // another sidejob may send it
		var stop func()
		changed, stop = a.store.Watch(out.Body.ID)
		defer stop()
	}
	for {
		select {
		case s := <-settled:
			return answerSettled(out, s)
		case <-changed:
			if j, err := a.store.Get(ctx, out.Body.ID); err == nil && !j.Owes() {
				return answerSettled(out, settledElsewhere(j))
			}
			continue
		case <-timer.C:
			return a.asItIs(ctx, out)
		case <-a.draining.Done():
		case <-ctx.Done():
		}
		return out, nil
	}
}

func answerSettled(out *jobOutput, s settledSubmit) (*jobOutput, error) {
	if s.refused != "" {
		p := problemf(http.StatusUnprocessableEntity, "trigger_refused", "Trigger.dev refuses the job: %s", s.refused)
		p.ID = s.job.ID
		return nil, p
	}
	out.Body = viewJob(s.job, append(out.Body.Warnings, s.warnings...)...)
	return out, nil
}

// settledElsewhere is what the row says of a submit that another sidejob has sent.
func settledElsewhere(j job.Job) settledSubmit {
	s := settledSubmit{job: j}
	if j.Status() == job.Failed && j.RunID == "" {
		s.refused = j.Error
	}
	return s
}

// asItIs shows the row when the wait is over: it may say by now why Trigger.dev was
// not reached.
func (a *api) asItIs(ctx context.Context, out *jobOutput) (*jobOutput, error) {
	j, err := a.store.Get(ctx, out.Body.ID)
	if err == nil {
		out.Body = viewJob(j, out.Body.Warnings...)
	}
	return out, nil
}

// order makes the job that a request asks for, or says what is wrong with it.
func (a *api) order(r jobRequest) (Order, []string, error) {
	if len(r.Data) > job.MaxData {
		return Order{}, nil, wrongMember("body.data", "is larger than %d bytes", job.MaxData).as(http.StatusRequestEntityTooLarge, "too_large")
	}
	r, err := a.registry.fill(r)
	if err != nil {
		return Order{}, nil, err
	}
	spec, wrong := r.spec()
	if spec.Executor == job.Trigger && !a.triggerOn {
		return Order{}, nil, triggerOff("body.executor")
	}
	j, warnings, err := job.New(spec, now(), uuid.NewString())
	var more job.Problems
	if errors.As(err, &more) || len(wrong) > 0 {
		err = append(wrong, more...)
	}
	return Order{Job: j, OnConflict: spec.OnConflict, Source: "api"}, warnings, err
}

// triggerOff refuses a job that nobody would ever run.
func triggerOff(where string) *problem {
	return wrongMember(where, "is trigger, but Trigger.dev is switched off here; set TRIGGER_SECRET_KEY and leave TRIGGER_ENABLED on, or use internal").
		as(http.StatusUnprocessableEntity, "trigger_off")
}

func (a *api) retryJob(ctx context.Context, in *struct {
	IDInput
	WaitInput
}) (*jobOutput, error) {
	if made := replyOf(ctx).JobIDs; len(made) == 1 && made[0] != 0 {
		return a.scheduledBefore(ctx, made[0])
	}
	if !a.triggerOn {
		if j, err := a.store.Get(ctx, in.ID); err == nil && j.Executor == job.Trigger {
			return nil, triggerOff("executor")
		}
	}
	key := "job-" + uuid.NewString()
	settled, stop := a.outbox.await(key)
	defer stop()
	step, err := a.store.Retry(ctx, in.ID, job.Event{Kind: job.Retry, At: now(), Source: "api", Key: key}, requestOf(ctx))
	if err != nil {
		return nil, a.problem(err)
	}
	a.outbox.nudge()
	out := scheduled(*step.Follow, nil)
	if !step.Follow.Owes() || in.WaitMs == 0 {
		return out, nil
	}
	return a.awaitSubmit(ctx, out, settled, in.WaitMs)
}

// batchRequest holds the jobs raw: one that is wrong must not take the others with
// it.
type batchRequest struct {
	Jobs []json.RawMessage `json:"jobs" nullable:"false" minItems:"1" maxItems:"1000" doc:"Requests as for POST /api/jobs"`
}

// batchResult is one of job and problem.
type batchResult struct {
	Job     *jobView `json:"job,omitempty"`
	Problem *problem `json:"problem,omitempty"`
}

type batchView struct {
	Results []batchResult `json:"results" doc:"In the order of the request"`
}

// scheduleBatch makes all jobs in one transaction and waits for none of their runs.
func (a *api) scheduleBatch(ctx context.Context, in *struct{ Body batchRequest }) (*bodyOutput[batchView], error) {
	results := make([]batchResult, len(in.Body.Jobs))
	var orders []Order
	var places []int
	var warned [][]string
	for i, raw := range in.Body.Jobs {
		order, warnings, err := a.readOrder(raw)
		if err != nil {
			results[i].Problem = problemOf(err)
			continue
		}
		orders, places, warned = append(orders, order), append(places, i), append(warned, warnings)
	}
	placed, err := a.scheduleOnce(ctx, orders)
	if err != nil {
		return nil, a.problem(err)
	}
	for n, p := range placed {
		if p.Err != nil {
			results[places[n]].Problem = problemOf(p.Err)
			continue
		}
		view := viewJob(p.Job, warned[n]...)
		results[places[n]].Job = &view
	}
	a.outbox.nudge()
	return &bodyOutput[batchView]{batchView{results}}, nil
}

// scheduleOnce places the orders, unless an earlier life of this very request has
// done so before its reply was lost.
func (a *api) scheduleOnce(ctx context.Context, orders []Order) ([]Placed, error) {
	made := replyOf(ctx).JobIDs
	if len(made) != len(orders) || len(made) == 0 {
		return a.store.Schedule(ctx, orders, requestOf(ctx))
	}
	placed := make([]Placed, len(made))
	for i, id := range made {
		if id == 0 {
			placed[i].Err = fmt.Errorf("tag %q: %w", orders[i].Job.Tag, job.ErrTagTaken)
			continue
		}
		placed[i].Job, placed[i].Err = a.store.Get(ctx, id)
	}
	return placed, nil
}

// readOrder checks one request of a batch as strictly as a request of its own.
func (a *api) readOrder(raw json.RawMessage) (Order, []string, error) {
	var parsed any
	var r jobRequest
	if err := readJSON(raw, &parsed); err != nil {
		return Order{}, nil, newHumaProblem(http.StatusBadRequest, "bad JSON", &huma.ErrorDetail{Location: "body", Message: err.Error()})
	}
	path := huma.NewPathBuffer([]byte{}, 0)
	path.Push("body")
	var found huma.ValidateResult
	huma.Validate(a.schemas, a.schemas.Schema(reflect.TypeFor[jobRequest](), true, ""), path, huma.ModeWriteToServer, parsed, &found)
	if len(found.Errors) > 0 {
		return Order{}, nil, newHumaProblem(http.StatusUnprocessableEntity, "validation failed", found.Errors...)
	}
	if err := readJSON(raw, &r); err != nil {
		return Order{}, nil, newHumaProblem(http.StatusUnprocessableEntity, "validation failed", &huma.ErrorDetail{Location: "body", Message: err.Error()})
	}
	if twice := repeatedMember(raw); twice != "" {
		return Order{}, nil, wrongMember("body."+twice, "is given more than once")
	}
	return a.order(r)
}
