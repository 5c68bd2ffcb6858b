package job

import (
	"time"

	"sidejob/internal/job/cron"
)

// Misfire says what becomes of the nominal times of a recurring job that pass while
// nothing can begin: sidejob or the workers are down, or the job is paused.
type Misfire string

const (
	FireOnce Misfire = "once" // one run stands for all of them; the default
	FireSkip Misfire = "skip" // they are left out
	FireAll  Misfire = "all"  // each is made up for, the latest MisfireLimit of them
)

const (
	// DefaultMisfireLimit is how many nominal times FireAll makes up for.
	DefaultMisfireLimit = 100
	// MaxMisfireLimit bounds what a caller may ask for.
	MaxMisfireLimit = 10_000
	// Grace is how late an occurrence may begin without counting as missed.
	Grace = time.Minute
	// KeptOccurrences is how many finished occurrences of a schedule finer than a
	// minute are kept.
	KeptOccurrences = 100
)

// Recurs tells whether the job is a recurring one.
func (j Job) Recurs() bool { return j.CronSchedule != "" }

// IsSchedule tells whether the row is a schedule and not the work itself: of a
// recurring trigger job, each run has a row of its own.
func (j Job) IsSchedule() bool { return j.Executor == Trigger && j.Recurs() }

// OnTrigger tells whether the row is a schedule that Trigger.dev fires.
func (j Job) OnTrigger() bool { return j.IsSchedule() && !j.FireLocally }

// Recurring is the id of the first row of the recurring job that the row belongs to.
func (j Job) Recurring() int64 {
	if j.ScheduleRow != 0 {
		return j.ScheduleRow
	}
	return j.ID
}

// Frequent tells whether the job recurs more often than by the minute, so that its
// rows would flood the table.
func (j Job) Frequent() bool {
	s, err := cron.Parse(j.CronSchedule, j.Timezone)
	if err != nil || !s.HasSeconds() {
		return false
	}
	first := s.Next(j.Due)
	return first.Sub(j.Due) < time.Minute || s.Next(first).Sub(first) < time.Minute
}

// firstDue is the first nominal time from a time on, that time included.
func firstDue(j Job, from time.Time) time.Time {
	s, err := cron.Parse(j.CronSchedule, j.Timezone)
	if err != nil {
		return from
	}
	return s.Next(from.Add(-time.Millisecond))
}

// nextDue is when a recurring job is due after its occurrence of j.Due, by what its
// policy says of the nominal times that have passed.
func nextDue(j Job, at time.Time) (time.Time, error) {
	s, err := cron.Parse(j.CronSchedule, j.Timezone)
	if err != nil {
		return time.Time{}, err
	}
	if j.Misfire == FireAll {
		return catchUp(s, j.Due, at, j.misfireLimit()), nil
	}
	return s.Next(later(j.Due, at)), nil
}

func (j Job) misfireLimit() int {
	if j.MisfireLimit == 0 {
		return DefaultMisfireLimit
	}
	return j.MisfireLimit
}

// catchUp is the first nominal time after due of which at most limit have passed. It
// looks back from now, twice as far each time: as many may have passed as there are
// seconds in a year.
func catchUp(s *cron.Schedule, due, at time.Time, limit int) time.Time {
	next := s.Next(due)
	for span := time.Duration(limit) * time.Second; next.Before(at) && span < at.Sub(due); span *= 2 {
		passed := between(s, at.Add(-span), at)
		if len(passed) >= limit {
			return passed[len(passed)-limit]
		}
	}
	if passed := between(s, due, at); len(passed) > limit {
		return passed[len(passed)-limit]
	}
	return next
}

// between are the nominal times after a time, up to another.
func between(s *cron.Schedule, after, upTo time.Time) (times []time.Time) {
	for t := s.Next(after); !t.IsZero() && !t.After(upTo); t = s.Next(t) {
		times = append(times, t)
	}
	return times
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// skips tells whether the occurrence is to be left out: it has not begun, and it is
// late by more than Grace or the one after it is due as well.
func (j Job) skips(at time.Time) bool {
	if !j.Recurs() || j.Misfire != FireSkip || !j.Started.IsZero() || !j.Due.Before(at) {
		return false
	}
	if at.Sub(j.Due) > Grace {
		return true
	}
	s, err := cron.Parse(j.CronSchedule, j.Timezone)
	return err == nil && !s.Next(j.Due).After(at)
}

// nextOccurrence is the row that follows an occurrence of an internal job, however
// that has ended; nil where there is none.
func nextOccurrence(j Job, ev Event) *Job {
	if !j.Recurs() || j.IsSchedule() || j.LastOccurrence {
		return nil
	}
	due, err := nextDue(j, ev.At)
	if err != nil || due.IsZero() {
		return nil // what a host wrote into its own row; requests are checked
	}
	f := follow(j, ev, due)
	return &f
}

// onEnd lets a recurring job recur no more. An occurrence that is at work goes on.
func onEnd(j Job, ev Event) (Step, error) {
	switch {
	case !j.Recurs():
		return refuse(j, ev, "it does not recur")
	case j.Done() || j.LastOccurrence:
		return Step{Job: j}, nil
	case j.IsSchedule():
		return cancelSchedule(j, ev), nil
	case j.LeaseToken != "":
		j.LastOccurrence = true
		return changed(j, ev), nil
	}
	return settleCanceled(j, ev), nil
}

func onPause(j Job, ev Event) (Step, error) {
	pause := ev.Kind == Pause
	switch {
	case !j.Recurs():
		return refuse(j, ev, "it does not recur")
	case j.Done() || j.LastOccurrence || j.CancelRequested:
		return refuse(j, ev, "it has ended")
	case j.Paused == pause:
		return Step{Job: j}, nil
	}
	j.Paused = pause
	if j.OnTrigger() {
		j.ScheduleSettled, j.NextTry = false, time.Time{}
		j.Due, j.Missed = firstDue(j, ev.At), time.Time{}
	}
	return changed(j, ev), nil
}

// onMissed notes that an occurrence has not begun in time, or leaves it out, as its
// policy says. Of a schedule that Trigger.dev fires, who brings the news has asked
// there.
func onMissed(j Job, ev Event) Step {
	switch {
	case !j.Recurs() || j.Done() || j.CancelRequested || j.Paused || j.LeaseToken != "" || !j.Started.IsZero():
		return Step{Job: j}
	case j.OnTrigger():
		return missedThere(j, ev)
	case j.skips(ev.At):
		due, err := nextDue(j, ev.At)
		if err != nil {
			return Step{Job: j}
		}
		j.Due, j.RemoveAt, j.Missed = due, due.Add(j.removeDelay()), time.Time{}
		return changed(j, ev)
	case !j.Missed.IsZero() || ev.At.Sub(j.Due) <= Grace:
		return Step{Job: j}
	}
	j.Missed = ev.At
	return changed(j, ev)
}
