package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"sidejob/internal/job"
)

// outbox pays what rows owe to Trigger.dev: submits and cancels. The rows are the
// list; it keeps nothing that a crash could lose. A try that fails is written on the
// row with the time of the next one.
type outbox struct {
	store   Store
	adapter *adapter // nil when Trigger.dev is switched off
	log     *slog.Logger
	owner   string // names this process in leases
	task    func(job.Job) string
	// submitted hears of every job that has just got its run.
	submitted func(job.Job)
	// scheduled hears of every schedule that now stands as its row says, and ending of
	// every one that is about to be deleted, while its runs can still be listed.
	scheduled func(job.Job)
	ending    func(context.Context, job.Job)
	turns     *turns
	failpoint *failpoint
	restore   restoreCheck

	wake  chan struct{}
	reads streak        // of run
	slots chan struct{} // one for each send under way
	sends sync.WaitGroup

	mu      sync.Mutex
	life    context.Context // of sends; nil before run begins and after it has ended
	busy    map[int64]bool
	waiting map[string]chan settledSubmit // by idempotency key
}

// settledSubmit tells a waiting request that its job's submit is settled.
type settledSubmit struct {
	job      job.Job
	refused  string // why Trigger.dev will never take it
	warnings []string
}

const (
	sendsAtOnce = 16
	owedAtOnce  = 128
	// lookAgain bounds how long a row that somebody else wrote goes unnoticed.
	lookAgain = 5 * time.Second
)

func newOutbox(store Store, a *adapter, owner string, task func(job.Job) string, log *slog.Logger) *outbox {
	return &outbox{
		store: store, adapter: a, log: log, owner: owner, task: task, submitted: func(job.Job) {},
		scheduled: func(job.Job) {}, ending: func(context.Context, job.Job) {}, turns: newTurns(), restore: restoreCheck{begun: now(), turn: make(chan struct{}, 1)},
		wake: make(chan struct{}, 1), slots: make(chan struct{}, sendsAtOnce),
		busy: map[int64]bool{}, waiting: map[string]chan settledSubmit{},
	}
}

// nudge makes the outbox look at the rows now.
func (o *outbox) nudge() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// run pays until draining ends, then waits for the sends under way, which stop when
// ctx does.
func (o *outbox) run(ctx, draining context.Context) {
	o.open(ctx)
	defer o.sends.Wait()
	defer o.close()
	written, stop := o.store.Watch(owingJobs)
	defer stop()
	for draining.Err() == nil {
		next := o.payAll(ctx, draining)
		timer := time.NewTimer(time.Until(next))
		select {
		case <-o.wake:
		case <-written:
		case <-timer.C:
		case <-draining.Done():
		}
		timer.Stop()
	}
}

// payAll begins a send for each row that may be tried now and says when to look
// again.
func (o *outbox) payAll(ctx, draining context.Context) time.Time {
	at := now()
	ids, next, err := o.store.Owed(ctx, at, owedAtOnce)
	o.reads.note(o.log, err, "cannot read what is owed to trigger.dev")
	for _, id := range ids {
		if !o.take(id) {
			continue
		}
		select {
		case o.slots <- struct{}{}:
		case <-draining.Done():
			o.release(id)
			return next
		}
		o.sends.Go(func() {
			moved := o.pay(ctx, id)
			<-o.slots
			o.release(id)
			if moved {
				o.nudge()
			}
		})
	}
	if len(ids) == 0 && o.adapter != nil {
		o.sends.Go(func() { o.adapter.signOfLife(draining) })
	}
	if again := at.Add(lookAgain); next.IsZero() || next.After(again) {
		return again
	}
	return next
}

// take marks a row as being paid; false when it is already.
func (o *outbox) take(id int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.busy[id] {
		return false
	}
	o.busy[id] = true
	return true
}

func (o *outbox) release(id int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.busy, id)
}

// payNow pays one row whatever its back-off says, unless it is being paid already,
// and returns the row afterwards. A send that has begun outlives ctx.
func (o *outbox) payNow(ctx context.Context, id int64) (job.Job, error) {
	select {
	case <-o.beginNow(id):
		return o.store.Get(ctx, id)
	case <-ctx.Done():
		return job.Job{}, ctx.Err()
	}
}

// beginNow begins to pay a row, if it may be paid now. The channel is closed when
// that is over.
func (o *outbox) beginNow(id int64) <-chan struct{} {
	over := make(chan struct{})
	o.mu.Lock()
	defer o.mu.Unlock()
	life := o.life
	if life == nil || o.busy[id] {
		close(over)
		return over
	}
	o.busy[id] = true
	o.sends.Go(func() {
		defer close(over)
		moved := o.pay(life, id)
		o.release(id)
		if moved {
			o.nudge()
		}
	})
	return over
}

// open lets sends begin; they stop when ctx does.
func (o *outbox) open(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.life = ctx
}

// close lets no further send begin.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.life = nil
}

// pay tells whether the row moved.
func (o *outbox) pay(ctx context.Context, id int64) (moved bool) {
	j, err := o.store.Get(ctx, id)
	if err != nil {
		if !errors.Is(err, ErrNotFound) {
			o.log.Error("cannot read a job that owes trigger.dev", "job", id, "err", err)
		}
		return false
	}
	switch {
	case j.Done():
	case j.CancelRequested && (j.Executor != job.Trigger || j.State() == job.StateUnsent || j.IsSchedule() && (j.FireLocally || j.SentAt.IsZero())):
		// The host wrote the request into its own row; nobody has settled it yet.
		_, moved = o.apply(ctx, id, job.Event{Kind: job.Cancel, At: now(), Source: "host"})
	case o.adapter != nil && j.Owes():
		moved = o.call(ctx, j)
	}
	return moved
}

// call pays what needs Trigger.dev. While that is not called, the row stays as it is.
func (o *outbox) call(ctx context.Context, j job.Job) (moved bool) {
	done, ok := o.adapter.breaker.admit()
	if !ok {
		return false
	}
	defer done()
	switch {
	case j.IsSchedule():
		return o.schedule(ctx, j)
	case j.RunID == "":
		return o.submit(ctx, j)
	}
	return o.cancel(ctx, j)
}

// submit holds the row, sends, and writes what came of it.
func (o *outbox) submit(ctx context.Context, j job.Job) bool {
	doubted, err := o.restore.doubts(ctx, o, j)
	if err != nil {
		o.log.Debug("an older job waits until trigger.dev can be asked whether it was sent before", "job", j.ID, "err", err)
		return false
	}
	doubted = doubted || j.InDoubt()
	j, held := o.hold(ctx, j)
	if !held {
		return false
	}
	o.failpoint.at("submit.held")
	sent := o.adapter.submit(ctx, j, doubted)
	sent.event.Lease.Token = j.LeaseToken
	o.failpoint.at("submit.answered")
	if sent.event.Kind == job.Unreached {
		if is, err := o.store.Get(ctx, j.ID); err == nil && is.RunID != "" {
			// An event or the stream has brought the run: the reply is not missed.
			o.report(is, submission{event: job.Event{Kind: job.Submitted}})
			return true
		}
	}
	j, ok := o.apply(ctx, j.ID, sent.event)
	o.failpoint.at("submit.stored")
	if ok {
		o.report(j, sent)
	}
	return ok
}

// hold takes the row for one send, so that nobody else sends it meanwhile.
func (o *outbox) hold(ctx context.Context, j job.Job) (job.Job, bool) {
	step, err := o.store.Apply(ctx, j.ID, job.Event{
		Kind: job.Send, At: now(), Source: "submit", Key: "job-" + uuid.NewString(), Task: o.task(j),
		Lease: job.Lease{Token: uuid.NewString(), Owner: o.owner, For: submitHold},
	})
	switch {
	case errors.Is(err, job.ErrRefused):
		o.log.Debug("a submit is not due", "job", j.ID, "err", err)
	case err != nil:
		o.log.Error("cannot hold a job for its submit", "job", j.ID, "err", err)
	}
	return step.Job, err == nil
}

func (o *outbox) cancel(ctx context.Context, j job.Job) (moved bool) {
	events := o.adapter.cancel(ctx, j)
	o.failpoint.at("cancel.answered")
	for _, ev := range events {
		after, ok := o.apply(ctx, j.ID, ev)
		if !ok {
			continue
		}
		moved = true
		if ev.Kind == job.Unreached {
			o.log.Warn("cannot cancel a run, trying again", "job", j.ID, "run", j.RunID, "err", ev.Err, "next", ev.NextTry)
		}
		if after.Done() && !j.Done() {
			o.log.Info("cancel settled", "job", j.ID, "run", j.RunID, "status", after.Status())
		}
		j = after
	}
	return moved
}

// apply writes an event that has already happened, so it does so even when the
// request that led to it is over.
func (o *outbox) apply(ctx context.Context, id int64, ev job.Event) (job.Job, bool) {
	step, err := o.store.Apply(context.WithoutCancel(ctx), id, ev)
	if err != nil {
		o.log.Error("cannot write what trigger.dev answered", "job", id, "event", ev.Kind, "err", err)
		return step.Job, false
	}
	return step.Job, true
}

// report logs the outcome of a submit and tells whoever waits for it.
func (o *outbox) report(j job.Job, sent submission) {
	out := settledSubmit{job: j}
	switch sent.event.Kind {
	case job.Unreached:
		o.log.Warn("cannot submit a job, trying again", "job", j.ID, "tries", j.Tries, "err", sent.event.Err, "next", sent.event.NextTry)
		if !j.Done() {
			return
		}
	case job.Refused:
		o.log.Error("trigger.dev refuses a job for good", "job", j.ID, "task", j.TriggerTask, "err", sent.event.Err)
		out.refused = sent.event.Err
	case job.Submitted:
		o.log.Debug("job submitted", "job", j.ID, "run", j.RunID, "task", j.TriggerTask)
		o.submitted(j)
	case job.Scheduled:
		o.log.Debug("schedule made", "job", j.ID, "schedule", j.ScheduleID, "task", j.TriggerTask)
		o.scheduled(j)
	case job.Unscheduled:
		o.log.Info("schedule deleted", "job", j.ID, "schedule", sent.event.ScheduleID, "status", j.Status())
	}
	if sent.cached {
		o.log.Warn("trigger.dev answered a first submit with a run it already had", "job", j.ID, "run", j.RunID)
		out.warnings = []string{"triggerRunId: Trigger.dev answered the first submit with a run it already had (isCached)"}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if ch, ok := o.waiting[j.IdempotencyKey]; ok {
		ch <- out
		delete(o.waiting, j.IdempotencyKey)
	}
}

// await returns a channel that gets the outcome of a submit, once. It goes by the
// idempotency key, which is known before the row is there, so that the outcome
// cannot come first. Call stop when done.
func (o *outbox) await(key string) (<-chan settledSubmit, func()) {
	ch := make(chan settledSubmit, 1)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting[key] = ch
	return ch, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.waiting, key)
	}
}
