package main

import (
	"fmt"
	"time"

	"sidejob/internal/job"
)

// ofSchedule tells a line that is about recurring; "" for others.
func (l historyLine) ofSchedule(j shownJob) string {
	switch l.Kind {
	case job.Scheduled:
		return l.scheduled()
	case job.Drifted:
		return "On Trigger.dev its schedule was found otherwise" + because(l.Detail.Reason) + "; it is to be set right."
	case job.Unscheduled:
		if l.To == job.StateCanceled {
			return "Its schedule is deleted on Trigger.dev; that ended it."
		}
		return "Its schedule was found to be gone from Trigger.dev; it is to be made again."
	case job.Missed:
		return l.missed(j)
	case job.Pause:
		return "It was paused" + l.through() + "."
	case job.Resume:
		return "It was resumed" + l.through() + "."
	case job.End:
		return l.recursNoMore()
	}
	return ""
}

func (l historyLine) scheduled() string {
	text := "Trigger.dev has its schedule " + l.Detail.Schedule
	switch l.To {
	case job.StatePaused:
		return text + ", which rests."
	case job.StateScheduling:
		return text + "; it was changed meanwhile, which is yet to be told there."
	case job.StateEnding:
		return text + "; it is to be deleted."
	}
	return text + ", as it was asked for."
}

func (l historyLine) missed(j shownJob) string {
	who := "It should have begun"
	if j.Executor == job.Trigger && j.ScheduleID != "" {
		who = "Trigger.dev should have fired it"
	}
	if !l.Detail.Nominal.IsZero() {
		who += " at " + stamp(l.Detail.Nominal)
	}
	return who + " and did not."
}

func (l historyLine) recursNoMore() string {
	text := "Its recurring was ended" + l.through()
	switch l.To {
	case job.StateLeased:
		return text + "; this occurrence goes on, and is the last."
	case job.StateEnding:
		return text + "; its schedule is to be deleted on Trigger.dev."
	}
	return text + "."
}

// waitsToFire is about a recurring job of Trigger.dev, whose row waits for no run.
func (s story) waitsToFire(at time.Time) string {
	j := s.job
	switch {
	case j.CancelRequested && j.ScheduleID != "":
		return fmt.Sprintf("Its schedule %s is still on Trigger.dev.", j.ScheduleID)
	case j.Paused:
		return "It is paused: nothing fires until it is resumed."
	case s.state() == job.StateScheduled && j.ScheduleID == "":
		return fmt.Sprintf("sidejob fires it next %s; every run of it is a job of its own.", timeText(j.Due, at))
	case j.ScheduleID == "" || s.state() == job.StateScheduling:
		return "Its schedule is yet to be made on Trigger.dev as it was asked for."
	}
	return fmt.Sprintf("Its schedule %s on Trigger.dev fires next %s; every run of it is a job of its own.", j.ScheduleID, timeText(j.Due, at))
}
