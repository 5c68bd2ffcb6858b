package emulator

import (
	"encoding/json"
	"fmt"
	"time"
)

// The pace of the emulator's worker, and what the real one would show.
const (
	dequeueAfter    = 20 * time.Millisecond  // from QUEUED to DEQUEUED
	startAfter      = 20 * time.Millisecond  // from DEQUEUED to EXECUTING
	unversionAfter  = time.Second            // from QUEUED to PENDING_VERSION, task unknown
	stopAfter       = 200 * time.Millisecond // from a cancel to the worker's report
	stepLength      = 2 * time.Second        // one step of a task in steps
	parkedAtMost    = time.Hour              // waiting for an external deployment
	longRetry       = 30 * time.Second       // a longer wait goes back to QUEUED
	retryAtMost     = time.Minute
	defaultAttempts = 3
	attemptsAtMost  = 250
	workerVersion   = "20260820.1"
	baseCost        = 0.0025 // cents
	canceledByUser  = "Canceled by user"
)

// plan says what happens to the run next, and when; 0 is when somebody reports.
// Whatever was planned before is off.
func (e *Emulator) plan(r *run, next step, when instant) {
	e.clock.drop(r.alarm)
	r.alarm, r.Then, r.Next = nil, next, when
	if next != stepNone && when != 0 {
		r.alarm = e.clock.at(when, func() { e.take(r) })
	}
}

func (e *Emulator) planIn(r *run, next step, after time.Duration) {
	e.plan(r, next, e.clock.now().plus(after))
}

// take does the planned step. Each one plans the next.
func (e *Emulator) take(r *run) {
	next := r.Then
	e.plan(r, stepNone, 0)
	switch next {
	case stepEnqueue:
		e.enqueue(r)
	case stepDequeue:
		e.dequeue(r)
	case stepStart:
		e.startAttempt(r)
	case stepWork:
		e.finishWork(r)
	case stepStopped:
		e.stopped(r)
	case stepExpire:
		e.expire(r)
	case stepUnversion:
		r.Status = pendingVersion
		e.nameStrayer(r.Task, "unknown task waits for a version that has it")
	}
	e.changed(r)
}

// resume goes on with a run from the journal. A command or call that was under way
// is made again, as the same attempt.
func (e *Emulator) resume(r *run) {
	switch {
	case r.Then == stepNone:
	case r.Next != 0:
		e.plan(r, r.Then, r.Next)
	case r.Then == stepWork:
		task, _ := e.task(r.Task)
		e.launch(r, task)
	default:
		e.plan(r, r.Then, e.clock.now())
	}
}

// admit gives a new run its first state.
func (e *Emulator) admit(r *run) {
	task, _ := e.task(r.Task)
	switch {
	case task.Status == string(delayed):
		r.Status = delayed
	case r.Delay != nil:
		r.Status = delayed
		e.plan(r, stepEnqueue, max(*r.Delay, e.clock.now()))
	default:
		e.enqueue(r)
	}
}

// enqueue makes the run wait for the worker. Its ttl counts from here, and only
// until the worker takes it.
func (e *Emulator) enqueue(r *run) {
	r.Status, r.Queued = pending, e.clock.now()
	task, known := e.task(r.Task)
	switch {
	case r.Deployment != "" && r.Env.Kind != dev:
		r.Status = pendingVersion
		if ttl, ok := parseDuration(r.TTL); ok && ttl < parkedAtMost {
			e.planIn(r, stepExpire, ttl)
			return
		}
		e.planIn(r, stepExpire, parkedAtMost)
	case task.Status == string(expired):
		e.planIn(r, stepExpire, task.duration())
	case task.Status == "QUEUED":
		e.planQueued(r, stepNone, 0)
	case !known && e.cfg.Strict:
		e.planQueued(r, stepUnversion, unversionAfter)
	default:
		e.planQueued(r, stepDequeue, dequeueAfter)
	}
}

// planQueued plans a step unless the run's ttl is over before it.
func (e *Emulator) planQueued(r *run, next step, after time.Duration) {
	ttl, ok := parseDuration(r.TTL)
	switch {
	case ok && (next == stepNone || ttl < after):
		e.planIn(r, stepExpire, ttl)
	case next != stepNone:
		e.planIn(r, next, after)
	}
}

func (e *Emulator) dequeue(r *run) {
	task, known := e.task(r.Task)
	if !known {
		e.nameStrayer(r.Task, "unknown task completes with its payload as output")
	}
	if task.Status == string(pendingVersion) {
		r.Status = pendingVersion
		return
	}
	r.Status, r.Version = dequeued, workerVersion
	if r.Started == 0 {
		r.Started = e.clock.now()
	}
	if task.Status != string(dequeued) {
		e.planIn(r, stepStart, startAfter)
	}
}

func (e *Emulator) startAttempt(r *run) {
	r.Status = executing
	r.Attempts++
	r.Steps, r.AttemptStarted = 0, e.clock.now()
	e.emit(r, "RUN_STARTED")
	task, _ := e.task(r.Task)
	switch {
	case task.Status == string(executing):
	case task.external() && task.Status == "" && r.Attempts > task.FailAttempts:
		e.launch(r, task)
	case task.steps != nil:
		e.planIn(r, stepWork, stepLength)
	default:
		e.planIn(r, stepWork, task.duration())
	}
}

// finishWork ends an attempt, or one of its steps, of a task that runs in here.
func (e *Emulator) finishWork(r *run) {
	task, _ := e.task(r.Task)
	if task.steps != nil {
		all := task.steps(r.inlinePayload())
		r.Steps++
		r.setMetadata("progress", float64(r.Steps)/float64(all))
		if r.Steps < all {
			e.planIn(r, stepWork, stepLength)
			return
		}
	}
	switch task.Status {
	case "", "COMPLETED":
	case "WAITING":
		r.Status = waiting
		return
	case "FAILED":
		e.lose(r, failed, task.failure())
		return
	case "CRASHED", "TIMED_OUT", "SYSTEM_FAILURE", "CANCELED":
		e.lose(r, status(task.Status), task.failure())
		return
	default: // a word that no client knows: the run stays in it
		r.Status = status(task.Status)
		return
	}
	if task.fails(r.Attempts) {
		e.failAttempt(r, task.failure())
		return
	}
	e.succeed(r, task.output(r))
}

func (e *Emulator) succeed(r *run, output json.RawMessage) {
	r.Status, r.Output = completed, output
	e.settle(r)
	e.emit(r, "RUN_COMPLETED")
}

// failAttempt ends the attempt and plans the next one, or the run with it.
func (e *Emulator) failAttempt(r *run, why *TaskError) {
	if r.Attempts >= r.attemptsAllowed() {
		e.lose(r, failed, why)
		return
	}
	e.bill(r)
	wait := min(retryAtMost, time.Second<<min(r.Attempts-1, 10))
	if wait < longRetry {
		e.planIn(r, stepStart, wait)
		return
	}
	r.Status = pending
	e.planIn(r, stepDequeue, wait)
}

// lose ends the run without success. Hooks learn of it only where the real ones
// would: the process of a crashed or timed out run is gone.
func (e *Emulator) lose(r *run, as status, why *TaskError) {
	r.Status, r.Error = as, why
	e.settle(r)
	if as == failed {
		e.emit(r, "RUN_FAILED")
	}
}

func (e *Emulator) expire(r *run) {
	r.Status = expired
	r.Finished, r.Expired = e.clock.now(), e.clock.now()
	r.Error = &TaskError{Message: "Run expired because the TTL was reached"}
	if r.Env.Kind == dev && r.TTL != "" {
		r.Error.Message = fmt.Sprintf("Run expired because the TTL (%s) was reached", r.TTL)
	}
}

// cancel does what the real one does: a run that no worker holds is canceled and
// never gets a finishedAt; one that executes shows CANCELED at once and finishedAt
// when its worker has stopped. A final run is left alone.
func (e *Emulator) cancel(r *run) {
	if r.Status.final() {
		return
	}
	running, held := r.Status == executing, r.Status == executing || r.Status == dequeued
	e.plan(r, stepNone, 0)
	r.Status, r.Error = canceled, &TaskError{Message: canceledByUser}
	if stop := e.working[r.ID]; stop != nil {
		e.plan(r, stepStopped, 0)
		stop()
	} else if held {
		e.planIn(r, stepStopped, stopAfter)
	}
	if running {
		e.emit(r, "RUN_CANCELED")
	}
	e.changed(r)
}

func (e *Emulator) stopped(r *run) { e.settle(r) }

// settle ends the work on a run.
func (e *Emulator) settle(r *run) {
	e.bill(r)
	r.Finished = e.clock.now()
}

// bill counts the time of the attempt that has just ended.
func (e *Emulator) bill(r *run) {
	if r.AttemptStarted != 0 {
		r.UsedMs += int64(e.clock.now() - r.AttemptStarted)
		r.AttemptStarted = 0
	}
}

func (r *run) attemptsAllowed() int {
	if r.MaxAttempts != 0 {
		return min(r.MaxAttempts, attemptsAtMost)
	}
	return defaultAttempts
}

// task is what the emulator does for a task id. An unknown one gives back its
// payload.
func (e *Emulator) task(id string) (task Task, known bool) {
	if t, ok := e.tasks[id]; ok {
		return t, true
	}
	return Task{DurationMs: 200, result: (*run).inlinePayload}, false
}

// nameStrayer tells the operator, once, that a task is not known and what that means.
func (e *Emulator) nameStrayer(task, meaning string) {
	if !e.strayers[task] {
		e.strayers[task] = true
		e.log.Info(meaning, "task", task)
	}
}
