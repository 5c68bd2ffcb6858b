package job

// State is where a job stands, finer than its Status. It is read off the row's
// columns and kept nowhere.
type State string

const (
	// Internal jobs.
	StateWaiting State = "waiting" // for its due time or a worker
	StateLeased  State = "leased"  // a worker has it

	// Recurring jobs that wait for no time. Of Trigger.dev's, the row is the schedule.
	StatePaused     State = "paused"
	StateScheduling State = "scheduling" // Trigger.dev's schedule is to be made as the row says
	StateScheduled  State = "scheduled"  // it is
	StateEnding     State = "ending"     // it is to be deleted

	// Trigger jobs.
	StateUnsent           State = "unsent"            // never submitted
	StateSending          State = "sending"           // submitted, outcome not known
	StateSendingCanceling State = "sending canceling" // … and to be canceled as soon as it is
	StateQueued           State = "queued"            // has a run that has not started
	StateQueuedCanceling  State = "queued canceling"
	StateRunning          State = "running"
	StateRunningCanceling State = "running canceling"
	StateToldCompleted    State = "told completed" // an event said so, Trigger.dev is still to be asked
	StateToldFailed       State = "told failed"
	StateToldCanceled     State = "told canceled"
	StateOrphaned         State = "orphaned" // Trigger.dev does not know the run

	// Both.
	StateCompleted State = "completed"
	StateFailed    State = "failed"
	StateCanceled  State = "canceled"
)

// State reads the job's state off its columns.
func (j Job) State() State {
	switch {
	case j.Done():
		return j.finalState()
	case j.IsSchedule():
		return j.scheduleState()
	case j.Executor != Trigger && j.LeaseToken != "":
		return StateLeased
	case j.Executor != Trigger && j.Paused:
		return StatePaused
	case j.Executor != Trigger:
		return StateWaiting
	case j.RunID == "" && j.SentAt.IsZero():
		return StateUnsent
	}
	open := StateQueued
	switch {
	case j.RunID == "":
		open = StateSending
	case j.TriggerStatus == Executing:
		open = StateRunning
	}
	if j.CancelRequested {
		open += " canceling"
	}
	return open
}

func (j Job) scheduleState() State {
	switch {
	case j.CancelRequested:
		return StateEnding
	case !j.FireLocally && !j.ScheduleSettled:
		return StateScheduling
	case j.Paused:
		return StatePaused
	}
	return StateScheduled
}

func (j Job) finalState() State {
	if !j.Orphaned.IsZero() {
		return StateOrphaned
	}
	told := State("")
	if j.Unconfirmed() {
		told = "told "
	}
	switch j.Status() {
	case Completed:
		return told + StateCompleted
	case Canceled:
		return told + StateCanceled
	}
	return told + StateFailed
}

// Unconfirmed tells whether the job was closed by an event that Trigger.dev itself
// has not confirmed yet.
func (j Job) Unconfirmed() bool {
	return j.Done() && j.RunID != "" && j.Confirmed.IsZero() && j.Orphaned.IsZero()
}

// Owes tells whether the row owes Trigger.dev a submit, a cancel, or a change of its
// schedule.
func (j Job) Owes() bool {
	switch {
	case j.Executor != Trigger || j.Done():
		return false
	case j.IsSchedule():
		return j.CancelRequested || !j.FireLocally && !j.ScheduleSettled
	}
	return j.RunID == "" || j.CancelRequested
}

// Asked tells whether Trigger.dev is to be asked about the job's run: it is open, or
// closed by an event that is not confirmed.
func (j Job) Asked() bool {
	return j.RunID != "" && (!j.Done() || j.Unconfirmed())
}

// stands tells whether Trigger.dev is known to have what the row asks for: its run, or
// its schedule.
func (j Job) stands() bool {
	if j.IsSchedule() {
		return j.ScheduleID != ""
	}
	return j.RunID != ""
}

// InDoubt tells whether a submit may have arrived whose outcome is not known.
func (j Job) InDoubt() bool { return j.RunID == "" && !j.SentAt.IsZero() && !j.IsSchedule() }
