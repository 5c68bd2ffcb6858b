package job

import (
	"encoding/json"
	"fmt"
	"time"
)

// nextInternal holds what may happen to jobs that workers of the host execute.
func nextInternal(j Job, ev Event) (Step, error) {
	if j.Executor == Trigger {
		if ev.Kind == LeaseLost {
			return Step{Job: j}, nil
		}
		return refuse(j, ev, "Trigger.dev executes it")
	}
	switch ev.Kind {
	case Claim:
		return onClaim(j, ev)
	case Renew:
		return onRenew(j, ev)
	case Release:
		return onRelease(j, ev)
	case LeaseLost:
		return onLeaseLost(j, ev), nil
	}
	return onOutcome(j, ev)
}

func onClaim(j Job, ev Event) (Step, error) {
	switch {
	case j.Done():
		return refuse(j, ev, "it has ended")
	case j.CancelRequested:
		return refuse(j, ev, "it is to be canceled")
	case j.leased(ev.At):
		return refuse(j, ev, "another worker holds it")
	case j.LeaseToken != "" && j.Attempt >= MaxLostLeases:
		return refuse(j, ev, "its leases were lost too often")
	case ev.At.Before(j.Due):
		return refuse(j, ev, "it is not due before "+j.Due.Format(time.RFC3339))
	case ev.At.Before(j.NextTry):
		return refuse(j, ev, "its next try is not before "+j.NextTry.Format(time.RFC3339))
	case j.Paused:
		return refuse(j, ev, "it is paused")
	case j.skips(ev.At):
		return refuse(j, ev, "its time has passed, and misfire is skip")
	}
	if j.Started.IsZero() {
		j.Started = ev.At
	}
	j.Attempt++
	j.NextTry, j.Missed = time.Time{}, time.Time{}
	return changed(withLease(j, ev), ev), nil
}

// cancelInternal ends the job at once. Of a recurring job that waits, that is the
// end; where an occurrence is at work it is canceled alone, and the next one follows.
func cancelInternal(j Job, ev Event) Step {
	running := j.LeaseToken != ""
	step := settleCanceled(j, ev)
	if running && !ev.Replaced {
		step.Follow, step.OnConflict = nextOccurrence(step.Job, ev), Beside
	}
	return step
}

// onRenew extends the lease. The last holder of a canceled job is answered too, so
// that it learns of the cancel.
func onRenew(j Job, ev Event) (Step, error) {
	if j.Done() && j.CancelRequested && ev.Lease.Token != "" && ev.Lease.Token == j.LeaseToken {
		return Step{Job: j}, nil
	}
	if err := heldBy(j, ev); err != nil {
		return Step{Job: j}, err
	}
	j.LeaseExpires = ev.At.Add(j.LeaseFor)
	return quiet(j, ev), nil
}

func onRelease(j Job, ev Event) (Step, error) {
	if err := heldBy(j, ev); err != nil {
		return Step{Job: j}, err
	}
	j.Attempt--
	return changed(withoutLease(j), ev), nil
}

// onLeaseLost makes the job claimable again, but not for ever.
func onLeaseLost(j Job, ev Event) Step {
	if j.Done() || j.LeaseToken == "" || j.leased(ev.At) {
		return Step{Job: j}
	}
	j = withoutLease(j)
	if j.Attempt < MaxLostLeases {
		return changed(j, ev)
	}
	return fail(j, ev, marshal(map[string]any{"error": fmt.Sprintf("lease lost, %d tries", j.Attempt)}))
}

// onOutcome closes a job with what its worker says. Who shows no token may do so
// only while nobody holds the job.
func onOutcome(j Job, ev Event) (Step, error) {
	if ev.Lease.Token != "" || j.LeaseToken != "" {
		if err := heldBy(j, ev); err != nil {
			return Step{Job: j}, err
		}
	}
	if j.Done() {
		return refuse(j, ev, "it has ended")
	}
	if j.Started.IsZero() {
		j.Started = ev.At
	}
	if j.LeaseToken == "" {
		j.Attempt++ // nobody had claimed this try
		j.Missed = time.Time{}
	}
	j = withoutLease(j)
	if ev.Kind == Complete {
		return withFollower(end(j, ev, ev.At, true, ev.Result), ev), nil
	}
	if again, ok := retryOnRow(j, ev); ok {
		return again, nil
	}
	return fail(j, ev, marshal(map[string]any{"error": ev.Result})), nil
}

// heldBy is nil when the event shows the token of a lease that has not run out.
func heldBy(j Job, ev Event) error {
	why := ""
	switch {
	case j.Done():
		why = "it has ended"
	case ev.Lease.Token == "" && j.LeaseToken != "":
		why = "a worker holds it and no leaseToken was shown"
	case ev.Lease.Token != j.LeaseToken || j.LeaseToken == "":
		why = "the lease is gone"
	case !ev.At.Before(j.LeaseExpires):
		why = "the lease has run out"
	default:
		return nil
	}
	return &RefusedError{Kind: ev.Kind, State: j.State(), Why: why}
}

// retryOnRow gives a failed try another one on the same row, as its retry policy
// says.
func retryOnRow(j Job, ev Event) (Step, bool) {
	if j.AutoReschedule || j.Retry == nil || j.Attempt >= maxAttempts(j) {
		return Step{}, false
	}
	j.NextTry = ev.At.Add(j.Retry.Backoff(j.Attempt, ev.Random))
	return changed(j, ev), true
}

// maxAttempts is the number of tries the job may have; a policy that does not say
// allows three, as Trigger.dev's does.
func maxAttempts(j Job) int {
	if j.Retry.MaxAttempts == 0 {
		return 3
	}
	return j.Retry.MaxAttempts
}

// fail ends an internal job badly, and begins the next row where it reschedules
// itself.
func fail(j Job, ev Event, result json.RawMessage) Step {
	return withFollower(end(j, ev, ev.At, false, result), ev)
}

// withFollower adds the row that follows one that has ended: another try of what has
// failed, or the next occurrence, whichever is due first. A try gives way to a job
// that has taken the tag meanwhile; nothing keeps a recurring job from recurring.
func withFollower(step Step, ev Event) Step {
	try, next := reschedule(step.Job, ev), nextOccurrence(step.Job, ev)
	switch {
	case next != nil && (try == nil || !try.Due.Before(next.Due)):
		step.Follow, step.OnConflict = next, Beside
	case try != nil && (next != nil || step.Job.ScheduleRow != 0):
		step.Follow, step.OnConflict = try, Beside
	case try != nil:
		step.Follow, step.OnConflict = try, Keep
	}
	return step
}

// reschedule is the row that follows a failed one, nil where none does or where the
// failure forestalled a cancel. It waits for the longer of the job's own delay and
// the back-off, and the tries of the whole chain count. Of a recurring job it is not
// due before what it tries again, or that nominal time would come once more.
func reschedule(j Job, ev Event) *Job {
	if !j.AutoReschedule || j.CancelRequested || j.LastOccurrence || j.Status() != Failed {
		return nil
	}
	wait, tries := j.AutoRescheduleWait, max(j.Attempt, 1)
	if j.Retry != nil {
		if j.Retry.MaxAttempts > 0 && tries >= j.Retry.MaxAttempts {
			return nil
		}
		wait = max(wait, j.Retry.Backoff(tries, ev.Random))
	}
	due := ev.At.Add(wait)
	if j.Recurs() {
		due = later(due, j.Due)
	}
	f := follow(j, ev, due)
	if f.Executor == Trigger {
		f.Retry = j.Retry.less(tries)
		return &f
	}
	f.Attempt = j.Attempt
	return &f
}

// less is the policy for what remains after some tries. A run counts its attempts
// from the first again, so the row that follows it may have only the remaining ones.
func (r *RetryConfig) less(tries int) *RetryConfig {
	if r == nil || r.MaxAttempts == 0 {
		return r
	}
	rest := *r
	rest.MaxAttempts -= tries
	return &rest
}

// follow is a fresh row with every property of the one it follows.
func follow(j Job, ev Event, due time.Time) Job {
	f := Job{
		Tag: j.Tag, Type: j.Type, Name: j.Name, UserID: j.UserID, Data: j.Data,
		Due: due, RemoveAt: due.Add(j.removeDelay()),
		CronSchedule: j.CronSchedule, Timezone: j.Timezone, Paused: j.Paused,
		Misfire: j.Misfire, MisfireLimit: j.MisfireLimit, FireLocally: j.FireLocally, ScheduleRow: j.ScheduleRow,
		AutoReschedule: j.AutoReschedule, AutoRescheduleWait: j.AutoRescheduleWait,
		RemoveDelay: j.RemoveDelay, RescheduledFrom: j.ID, Persistent: j.Persistent,
		Retry: j.Retry, Executor: j.Executor, TriggerTask: j.TriggerTask,
		Metadata: j.Metadata, Labels: j.Labels,
		Created: ev.At, Updated: ev.At,
	}
	if f.Recurs() && f.ScheduleRow == 0 {
		f.ScheduleRow = j.ID
	}
	if f.Executor == Trigger {
		f.TriggerStatus = Pending
		f.IdempotencyKey = ev.Key
	}
	return f
}
