package job

import (
	"encoding/json"
	"fmt"
	"time"
)

// Next decides what an event does to a job. It is the only place that does: it
// reads no clock, touches nothing, and answers the same for the same arguments.
//
// News that is late, repeated or about another run changes nothing and is no
// error. A request that does not fit is a RefusedError.
func Next(j Job, ev Event) (Step, error) {
	switch ev.Kind {
	case Pause, Resume:
		return onPause(j, ev)
	case End:
		return onEnd(j, ev)
	case Missed:
		return onMissed(j, ev), nil
	}
	if j.IsSchedule() {
		return nextSchedule(j, ev)
	}
	switch ev.Kind {
	case Cancel:
		return onCancel(j, ev), nil
	case Send:
		return onSend(j, ev)
	case Claim, Renew, Complete, Fail, Release, LeaseLost:
		return nextInternal(j, ev)
	case Retry:
		return onRetry(j, ev)
	case Submitted:
		return onSubmitted(j, ev), nil
	case Refused:
		return onRefused(j, ev), nil
	case Unreached:
		return onUnreached(j, ev), nil
	case Stopping:
		return onStopping(j, ev), nil
	case Told:
		return onTold(j, ev), nil
	case Seen:
		return onSeen(j, ev), nil
	case Missing:
		return onMissing(j, ev), nil
	case Fired, Scheduled, Drifted, Unscheduled:
		return Step{Job: j}, nil // news of schedules
	}
	return unknown(j, ev)
}

func unknown(j Job, ev Event) (Step, error) {
	return Step{Job: j}, fmt.Errorf("unknown event %q", ev.Kind)
}

// onCancel settles what nobody else has a hand in and marks the rest: only
// Trigger.dev can say that its run has stopped.
func onCancel(j Job, ev Event) Step {
	if j.Done() {
		return Step{Job: j}
	}
	if j.Executor != Trigger {
		return cancelInternal(j, ev)
	}
	if j.State() == StateUnsent {
		return settleCanceled(j, ev)
	}
	if j.CancelRequested {
		return Step{Job: j}
	}
	j.CancelRequested = true
	j.CancelReason = ev.Reason
	j.NextTry = time.Time{}
	return changed(j, ev)
}

// settleCanceled ends a job that no run stands behind. An internal job keeps its
// lease token, so that its holder's next heartbeat still learns of the cancel.
func settleCanceled(j Job, ev Event) Step {
	if (ev.Kind == Cancel || ev.Kind == End) && !j.CancelRequested {
		j.CancelReason = ev.Reason
	}
	j.CancelRequested = true
	j.Error = ""
	if j.Executor == Trigger {
		j.TriggerStatus = Canceled
	}
	return end(j, ev, ev.At, false, canceledResult(j.CancelReason))
}

func onSend(j Job, ev Event) (Step, error) {
	switch {
	case j.Executor != Trigger:
		return refuse(j, ev, "it is not executed by Trigger.dev")
	case j.Done():
		return refuse(j, ev, "it has ended")
	case j.RunID != "":
		return refuse(j, ev, "it has a run")
	case j.leased(ev.At):
		return refuse(j, ev, "another submit is under way")
	case j.CancelRequested && j.SentAt.IsZero():
		return refuse(j, ev, "it is to be canceled")
	}
	if j.SentAt.IsZero() {
		j.SentAt = ev.At
	}
	if j.IdempotencyKey == "" {
		j.IdempotencyKey = ev.Key
	}
	if j.TriggerTask == "" {
		j.TriggerTask = ev.Task
	}
	if j.TriggerStatus == "" {
		j.TriggerStatus = Pending
	}
	j = withLease(j, ev)
	return quiet(j, ev), nil
}

func onSubmitted(j Job, ev Event) Step {
	if j.Executor == Trigger && j.RunID != "" && j.RunID == ev.Run.ID && j.Environment == "" && ev.Run.Environment != "" && !j.Done() {
		// Another channel brought the run first, without its environment.
		j.Environment = ev.Run.Environment
		return quiet(j, ev)
	}
	if j.Executor != Trigger || j.Done() || j.RunID != "" || ev.Run.ID == "" {
		return Step{Job: j}
	}
	return changed(adopt(j, ev), ev)
}

// adopt makes the run the job's own.
func adopt(j Job, ev Event) Job {
	j.RunID = ev.Run.ID
	j.Environment = ev.Run.Environment
	j.TriggerStatus = Pending
	j.Error = ""
	j.Tries = 0
	j.NextTry = time.Time{}
	if j.SentAt.IsZero() {
		j.SentAt = ev.At
	}
	return withoutLease(j)
}

// onRefused ends a job that Trigger.dev will never take. One that was to be
// canceled anyway is canceled: no run of it exists.
func onRefused(j Job, ev Event) Step {
	if j.Executor != Trigger || j.Done() || j.RunID != "" || outdated(j, ev) {
		return Step{Job: j}
	}
	j = withoutLease(j)
	if j.CancelRequested {
		return settleCanceled(j, ev)
	}
	j.TriggerStatus = Failed
	j.Error = ev.Err
	return end(j, ev, ev.At, false, marshal(map[string]any{
		"error": "Failed to schedule on Trigger.dev", "details": ev.Details,
	}))
}

// onUnreached keeps the job as it is and says when to try again. A submit that
// certainly did not arrive, of a run or of a schedule, leaves no doubt, and a cancel
// can then be settled here.
func onUnreached(j Job, ev Event) Step {
	if j.Executor != Trigger || j.Done() || outdated(j, ev) {
		return Step{Job: j}
	}
	j.Error = ev.Err
	j.Tries++
	j.NextTry = ev.NextTry
	j = withoutLease(j)
	if !j.stands() && !ev.InDoubt {
		j.SentAt = time.Time{}
		if j.CancelRequested {
			return settleCanceled(j, ev)
		}
	}
	return changed(j, ev)
}

// outdated tells whether the event is what came of a send for which the row is held no
// more, as of a process that was frozen: another send may be under way, and only that
// one's outcome counts. A run that was made counts whoever brings it.
func outdated(j Job, ev Event) bool {
	return ev.Lease.Token != "" && ev.Lease.Token != j.LeaseToken
}

// onStopping notes that Trigger.dev has taken the cancel. Only its word on the run
// closes the job; NextTry is when to ask for the cancel again should that not come.
// News of the run's end may have overtaken the answer to the cancel.
func onStopping(j Job, ev Event) Step {
	if j.Executor != Trigger || !j.CancelRequested {
		return Step{Job: j}
	}
	if j.Done() {
		return Step{Job: j, Noted: j.RunID != ""}
	}
	j.Error, j.Tries, j.NextTry = "", 0, ev.NextTry
	return changed(j, ev)
}

// onTold believes an event only where it leads further than the row is: events
// are late, doubled and shuffled, and each channel has its own pace.
func onTold(j Job, ev Event) Step {
	status, known := rawStatus(ev.Run.Raw)
	if !known || j.Executor != Trigger || !sameRun(j, ev) {
		return Step{Job: j}
	}
	if j.Done() {
		return Step{Job: j}
	}
	first := j.RunID == ""
	if first {
		j = adopt(j, ev)
	}
	if rank(status) <= rank(j.TriggerStatus) {
		if first {
			return changed(j, ev)
		}
		return Step{Job: j}
	}
	j.LastSynced = ev.At
	if status.Final() {
		return endByRun(j, ev, status)
	}
	return changed(progress(j, ev, status), ev)
}

// onSeen takes Trigger.dev's answer. It beats what events said, but a final state
// that it has confirmed never changes again.
func onSeen(j Job, ev Event) Step {
	if j.Executor != Trigger || j.RunID == "" || !sameRun(j, ev) {
		return Step{Job: j}
	}
	if j.Done() && !j.Unconfirmed() && j.Orphaned.IsZero() {
		return Step{Job: j}
	}
	before := j
	status, known := rawStatus(ev.Run.Raw)
	j.LastSynced = ev.At
	j.Error = ""
	j.MissingCount, j.MissingSince = 0, time.Time{}
	switch {
	case !known:
		j.RawStatus = ev.Run.Raw
	case status.Final():
		j.Confirmed = ev.At
		return endByRun(j, ev, status)
	case j.Unconfirmed():
		// The event ran ahead of Trigger.dev's own record; ask again.
		return quiet(j, ev)
	case !j.Orphaned.IsZero():
		j = progress(reopen(j), ev, status)
	case rank(status) < rank(j.TriggerStatus) && ev.Run.Attempts == 0:
		// A stale answer. Only a run that waits for its next try goes back to
		// the queue, and that has attempts.
		return quiet(j, ev)
	default:
		j = progress(j, ev, status)
	}
	if j.State() == before.State() && j.RawStatus == before.RawStatus {
		return quiet(j, ev)
	}
	return changed(j, ev)
}

// onMissing counts 404s. One proves nothing: replicas lag behind. Enough of them,
// over long enough, make an orphan. A 404 for a key that is not proved good, or that
// is of another environment than the run, does not count.
func onMissing(j Job, ev Event) Step {
	if j.Executor != Trigger || j.RunID == "" || (ev.Run.ID != "" && ev.Run.ID != j.RunID) {
		return Step{Job: j}
	}
	if j.Done() && !j.Unconfirmed() {
		return Step{Job: j}
	}
	ours := j.Environment == "" || j.Environment == ev.Run.Environment
	if !ev.KeyProved || !ours {
		return Step{Job: j}
	}
	if j.MissingSince.IsZero() {
		j.MissingSince = ev.At
	}
	j.MissingCount++
	lost := j.MissingCount >= OrphanCount && ev.At.Sub(j.MissingSince) >= OrphanAge
	switch {
	case !lost:
		return quiet(j, ev)
	case j.Done():
		// Closed by an event, and nobody is left to ask: the event stands.
		j.Confirmed = ev.At
		return followed(changed(j, ev), ev)
	}
	j.Orphaned = ev.At
	j.TriggerStatus = Failed
	return end(j, ev, ev.At, false, marshal(map[string]any{
		"error":  "orphaned: Trigger.dev does not know run " + j.RunID,
		"reason": "ORPHANED",
	}))
}

// onRetry makes a new job like the one that has ended.
func onRetry(j Job, ev Event) (Step, error) {
	if !j.Done() {
		return refuse(j, ev, "it has not ended")
	}
	f, onConflict := follow(j, ev, ev.At), Replace
	switch {
	case j.IsSchedule():
		f.Due = firstDue(j, ev.At)
		f.ScheduleRow, f.Paused = 0, false
	case j.Recurs() || j.ScheduleRow != 0:
		// One more try of that occurrence, beside those to come.
		f.CronSchedule, f.Misfire, f.MisfireLimit = "", "", 0
		f.Paused, onConflict = false, Beside
	}
	f.RemoveAt = f.Due.Add(f.removeDelay())
	return Step{Job: j, Follow: &f, OnConflict: onConflict}, nil
}

// sameRun tells whether the event is about the job's own run. A row without a run
// takes the event's: whoever brings it has proved that the run is the row's.
func sameRun(j Job, ev Event) bool {
	return ev.Run.ID != "" && (j.RunID == "" || j.RunID == ev.Run.ID)
}

// progress takes over what an unfinished run says of itself.
func progress(j Job, ev Event, status Status) Job {
	j.TriggerStatus = status
	j.RawStatus = apiWord(ev.Run.Raw)
	j.Attempt = max(j.Attempt, ev.Run.Attempts)
	if ev.Run.Environment != "" {
		j.Environment = ev.Run.Environment
	}
	if ev.Run.AttemptID != "" {
		j.AttemptID = ev.Run.AttemptID
	}
	if status != Pending && !ev.Run.Started.IsZero() {
		j.Started = ev.Run.Started // a dequeued run has one too, but has not begun
	}
	if status == Executing && j.Started.IsZero() {
		j.Started = ev.At
	}
	return j
}

// endByRun closes the job with the end state its run has reached.
func endByRun(j Job, ev Event, status Status) Step {
	before := j
	j = progress(reopen(j), ev, status)
	finished := ev.Run.Finished
	if finished.IsZero() {
		finished = ev.At
		if !before.Finished.IsZero() && before.TriggerStatus == status {
			finished = before.Finished
		}
	}
	result := runResult(j, ev.Run, status)
	switch {
	case status == Completed && j.Started.IsZero():
		j.Started = finished
	case j.RawStatus == "EXPIRED":
		j.Started = time.Time{}
	}
	return followed(end(j, ev, finished, status == Completed, result), ev)
}

// followed adds the next row to a failure that is confirmed; before that, the run
// may turn out to have ended otherwise.
func followed(step Step, ev Event) Step {
	if step.Job.Status() != Failed || step.Job.Confirmed.IsZero() {
		return step
	}
	return withFollower(step, ev)
}

// runResult is the row's result for a run that has ended.
func runResult(j Job, run Run, status Status) json.RawMessage {
	switch {
	case status == Completed:
		return run.Output
	case status == Canceled:
		reason := j.CancelReason
		if reason == "" && run.hasError() {
			return marshal(map[string]any{"canceled": true, "error": run.Error})
		}
		return canceledResult(reason)
	case j.RawStatus == "EXPIRED":
		return marshal(map[string]any{"error": "expired before start", "reason": "EXPIRED"})
	}
	result := map[string]any{"error": run.Error, "reason": j.RawStatus, "attemptCount": j.Attempt}
	if !run.hasError() {
		result["error"] = "the run ended " + j.RawStatus + " without an error message"
	}
	return marshal(result)
}

// hasError tells whether the run gives an error; some channels write null for none.
func (r Run) hasError() bool { return len(r.Error) > 0 && string(r.Error) != "null" }

func canceledResult(reason string) json.RawMessage {
	if reason == "" {
		return json.RawMessage(`{"canceled":true}`)
	}
	return marshal(map[string]any{"canceled": true, "error": reason})
}

// end closes the job. A result that no database could keep is told by what it is.
func end(j Job, ev Event, finished time.Time, success bool, result json.RawMessage) Step {
	if depth(result) > MaxDepth {
		result = json.RawMessage(`{"tooDeep":true}`)
	}
	j.Finished = finished
	j.Success = &success
	j.Result = result
	j.RemoveAt = finished.Add(j.removeDelay())
	return changed(j, ev)
}

// reopen takes back an end.
func reopen(j Job) Job {
	j.Finished, j.Success, j.Result, j.Orphaned = time.Time{}, nil, nil, time.Time{}
	j.RemoveAt = j.Due.Add(j.removeDelay())
	return j
}

func withLease(j Job, ev Event) Job {
	j.LeaseToken, j.LeaseOwner = ev.Lease.Token, ev.Lease.Owner
	j.LeaseFor, j.LeaseExpires = ev.Lease.For, ev.At.Add(ev.Lease.For)
	return j
}

func withoutLease(j Job) Job {
	j.LeaseToken, j.LeaseOwner, j.LeaseFor, j.LeaseExpires = "", "", 0, time.Time{}
	return j
}

func changed(j Job, ev Event) Step {
	j.Updated = ev.At
	return Step{Job: j, Changed: true}
}

func quiet(j Job, ev Event) Step {
	j.Updated = ev.At
	return Step{Job: j, Changed: true, Quiet: true}
}

func refuse(j Job, ev Event, why string) (Step, error) {
	return Step{Job: j}, &RefusedError{Kind: ev.Kind, State: j.State(), Why: why}
}

// marshal encodes what this package itself put together. Error texts of others
// come as json.RawMessage; one that is not JSON is kept as a text.
func marshal(m map[string]any) json.RawMessage {
	for k, v := range m {
		if raw, ok := v.(json.RawMessage); ok && !json.Valid(raw) {
			m[k] = string(raw)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return json.RawMessage(`{"error":"a result that could not be encoded"}`)
	}
	return b
}
