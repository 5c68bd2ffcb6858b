package main

import (
	"context"
	"errors"
	"time"

	"sidejob/internal/job"
)

// lastLookTimeout bounds looking for runs before their schedule is deleted.
const lastLookTimeout = 5 * time.Second

// schedule makes the schedule on Trigger.dev as the row says, or deletes it. Two rows
// of one tag have one schedule there, so the rows take turns, and each is read again
// in its turn: the late call of an older row must not undo what the newer one asks for.
func (o *outbox) schedule(ctx context.Context, j job.Job) (moved bool) {
	_ = o.inTurn(ctx, o.adapter.scheduleKey(j.Tag), func() { // who stops waiting leaves the row as it is
		is, err := o.store.Get(ctx, j.ID)
		switch {
		case err == nil && is.Owes():
			moved = o.scheduleInTurn(ctx, is)
		case err != nil && !errors.Is(err, ErrNotFound):
			o.log.Error("cannot read a job that owes trigger.dev", "job", j.ID, "err", err)
		}
	})
	return moved
}

func (o *outbox) scheduleInTurn(ctx context.Context, j job.Job) bool {
	doubted := !j.SentAt.IsZero()
	j, held := o.hold(ctx, j)
	if !held {
		return false
	}
	o.failpoint.at("submit.held")
	var sent submission
	if j.CancelRequested {
		o.lookOnce(ctx, j)
		sent = o.adapter.dropSchedule(ctx, j, doubted)
	} else {
		sent = o.adapter.putSchedule(ctx, j, doubted)
	}
	o.failpoint.at("submit.answered")
	j, ok := o.apply(ctx, j.ID, sent.event)
	o.failpoint.at("submit.stored")
	if ok {
		o.report(j, sent)
	}
	return ok
}

// lookOnce has the runs of a schedule found that is to be deleted. A cancel does not
// wait for a list that does not come.
func (o *outbox) lookOnce(ctx context.Context, j job.Job) {
	if j.ScheduleID == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastLookTimeout)
	defer cancel()
	o.ending(ctx, j)
}

// inTurn runs do while nothing else of the same key is under way.
func (o *outbox) inTurn(ctx context.Context, key string, do func()) error {
	done, err := o.turns.take(ctx, key)
	if err != nil {
		return err
	}
	defer done()
	do()
	return nil
}
