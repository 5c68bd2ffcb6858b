package job

import "time"

// FireGrace is how long after its nominal time a run of a schedule on Trigger.dev may
// be made: up to a minute by its own account, and then some to be heard of.
const FireGrace = 3 * time.Minute

// nextSchedule holds what may happen to a recurring trigger job: its row is the
// schedule, unfinished until that is ended.
func nextSchedule(j Job, ev Event) (Step, error) {
	switch ev.Kind {
	case Cancel:
		return cancelSchedule(j, ev), nil
	case Send:
		return onSendSchedule(j, ev)
	case Retry:
		return onRetry(j, ev)
	case Claim, Renew, Complete, Fail, Release:
		return refuse(j, ev, "Trigger.dev executes it")
	case Fired:
		return onFired(j, ev), nil
	case Scheduled, Drifted, Unscheduled, Refused, Unreached:
		return onAnswer(j, ev), nil
	case Submitted, Stopping, Told, Seen, Missing, LeaseLost:
		return Step{Job: j}, nil // news of runs
	}
	return unknown(j, ev)
}

// onAnswer takes what Trigger.dev says of its schedule. One that sidejob fires has
// none there.
func onAnswer(j Job, ev Event) Step {
	if j.Done() || j.FireLocally || ev.Kind == Refused && !j.Owes() {
		return Step{Job: j}
	}
	switch ev.Kind {
	case Scheduled:
		return onScheduled(j, ev)
	case Drifted:
		return onDrifted(j, ev)
	case Unscheduled:
		return onUnscheduled(j, ev)
	case Refused:
		return onRefused(j, ev)
	}
	return onUnreached(j, ev)
}

// cancelSchedule ends what Trigger.dev cannot know of, and what another row carries
// on; the rest is to be deleted there first.
func cancelSchedule(j Job, ev Event) Step {
	switch {
	case j.Done():
		return Step{Job: j}
	case j.FireLocally || ev.CarriedOver || j.SentAt.IsZero() && j.ScheduleID == "":
		return settleCanceled(j, ev)
	case j.CancelRequested:
		return Step{Job: j}
	}
	j.CancelRequested, j.CancelReason, j.NextTry = true, ev.Reason, time.Time{}
	return changed(j, ev)
}

// onSendSchedule holds the row while the schedule on Trigger.dev is made as it says.
func onSendSchedule(j Job, ev Event) (Step, error) {
	switch {
	case j.FireLocally || !j.Owes():
		return refuse(j, ev, "it owes Trigger.dev nothing")
	case j.leased(ev.At):
		return refuse(j, ev, "another call is under way")
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
	j.TriggerStatus = Pending
	return quiet(withLease(j, ev), ev), nil
}

// onScheduled takes over what Trigger.dev has made. A row that was paused, resumed or
// canceled meanwhile is still owed its change.
func onScheduled(j Job, ev Event) Step {
	if ev.ScheduleID == "" {
		return Step{Job: j}
	}
	before := j
	j.ScheduleID = ev.ScheduleID
	if j.SentAt.IsZero() {
		j.SentAt = ev.At
	}
	if ev.Run.Environment != "" {
		j.Environment = ev.Run.Environment
	}
	j.ScheduleSettled = ev.Active != j.Paused
	if late := ev.At.Sub(j.Due); before.LastSynced.IsZero() && late >= 0 && late <= Grace {
		j = withDue(j, dueAfter(j, ev.At)) // made a moment too late for its first time, it has missed nothing
	}
	j.Error, j.Tries, j.NextTry, j.LastSynced = "", 0, time.Time{}, ev.At
	j = withoutLease(j)
	if j.State() == before.State() && j.ScheduleID == before.ScheduleID {
		return quiet(j, ev)
	}
	return changed(j, ev)
}

func onDrifted(j Job, ev Event) Step {
	if !j.ScheduleSettled {
		return Step{Job: j}
	}
	j.ScheduleSettled, j.NextTry = false, time.Time{}
	return changed(j, ev)
}

// onUnscheduled settles a cancel; else the schedule is made anew.
func onUnscheduled(j Job, ev Event) Step {
	switch {
	case j.CancelRequested:
		return settleCanceled(withoutLease(j), ev)
	case j.ScheduleID == "" && !j.ScheduleSettled && j.LeaseToken == "":
		return Step{Job: j}
	}
	j = withoutLease(j)
	j.ScheduleID, j.ScheduleSettled, j.NextTry = "", false, time.Time{}
	return changed(j, ev)
}

// onFired makes the row of a run: one that Trigger.dev has made by the schedule, or
// one that sidejob is to start.
func onFired(j Job, ev Event) Step {
	if !j.FireLocally {
		return firedThere(j, ev)
	}
	if j.Done() || j.CancelRequested || j.Paused || ev.At.Before(j.Due) || j.skips(ev.At) {
		return Step{Job: j}
	}
	due, err := nextDue(j, ev.At)
	if err != nil {
		j.TriggerStatus = Failed
		return end(j, ev, ev.At, false, marshal(map[string]any{"error": err.Error()}))
	}
	f := occurrence(j, ev, j.Due)
	f.IdempotencyKey = ev.Key
	j = withDue(j, due)
	j.Missed = time.Time{}
	step := quiet(j, ev)
	step.Follow, step.OnConflict = &f, Beside
	return step
}

// firedThere writes down a run that Trigger.dev has made, also one that is heard of
// late: after the schedule was ended, or reported to have missed that time. Whether
// the run is known already is the store's to see: a run has one row.
func firedThere(j Job, ev Event) Step {
	if ev.Run.ID == "" || ev.Nominal.IsZero() {
		return Step{Job: j}
	}
	step := Step{Job: j}
	due := dueAfter(j, ev.Nominal)
	if !j.Done() && (due.After(j.Due) || due.Equal(j.Due) && !j.Missed.IsZero()) {
		j = withDue(j, due)
		j.Missed = time.Time{}
		step = quiet(j, ev)
	}
	f := occurrence(j, ev, ev.Nominal)
	f.RunID, f.Environment, f.SentAt = ev.Run.ID, ev.Run.Environment, ev.Nominal
	if f.Environment == "" {
		f.Environment = j.Environment
	}
	step.Follow, step.OnConflict = &f, Beside
	return step
}

// missedThere goes on to the nominal times that may still be heard of. The first
// miss in a row is told; a schedule in a development environment whose worker is
// off misses every one.
func missedThere(j Job, ev Event) Step {
	horizon := ev.At.Add(-FireGrace)
	if j.Due.After(horizon) {
		return Step{Job: j}
	}
	first := j.Missed.IsZero()
	j = withDue(j, dueAfter(j, horizon))
	if !first {
		return quiet(j, ev)
	}
	j.Missed = ev.At
	return changed(j, ev)
}

// occurrence is the row of one run of a schedule.
func occurrence(j Job, ev Event, nominal time.Time) Job {
	f := follow(j, ev, nominal)
	f.CronSchedule, f.Paused, f.FireLocally = "", false, false
	f.Misfire, f.MisfireLimit = "", 0
	f.ScheduleRow = j.ID
	f.ScheduleID = j.ScheduleID
	f.IdempotencyKey = ""
	return f
}
