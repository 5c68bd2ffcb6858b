package main

import (
	"context"
	"errors"

	"sidejob/internal/job"
)

// endRecurring lets a recurring job recur no more. A schedule on Trigger.dev is
// deleted there before its row ends; the reply waits for that, but not long, and is
// 200 all the same: the row is on record, and sidejob keeps at it.
func (a *api) endRecurring(ctx context.Context, in *struct {
	IDInput
	WaitInput
}) (*bodyOutput[jobView], error) {
	j, err := a.applyRecurring(ctx, in.ID, job.End)
	if err != nil {
		return nil, err
	}
	if j.CancelRequested && !j.Done() {
		if j, err = a.waitFor(ctx, j.ID, in.WaitMs, job.Job.Done); err != nil {
			return nil, err
		}
	}
	return &bodyOutput[jobView]{viewJob(j)}, nil
}

func (a *api) pauseRecurring(ctx context.Context, in *IDInput) (*bodyOutput[jobView], error) {
	j, err := a.applyRecurring(ctx, in.ID, job.Pause)
	return &bodyOutput[jobView]{viewJob(j)}, err
}

func (a *api) resumeRecurring(ctx context.Context, in *IDInput) (*bodyOutput[jobView], error) {
	j, err := a.applyRecurring(ctx, in.ID, job.Resume)
	return &bodyOutput[jobView]{viewJob(j)}, err
}

// applyRecurring applies an event to the open row of the recurring job that a row is
// of. Where that row ends in between and another follows it, the event is for the
// other one.
func (a *api) applyRecurring(ctx context.Context, id int64, kind job.Kind) (job.Job, error) {
	for {
		row, err := a.store.RecurringRow(ctx, id)
		if err != nil {
			return row, a.problem(err)
		}
		step, err := a.store.Apply(ctx, row.ID, job.Event{Kind: kind, At: now(), Source: "api"})
		gone := errors.Is(err, ErrNotFound) || step.Job.Done() && !step.Changed
		if gone && !row.Done() {
			continue
		}
		if step.Job.Owes() {
			a.outbox.nudge()
		}
		return step.Job, a.problem(err)
	}
}
