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
	first := s.Next(j.Due) // the row's own time may be none by the schedule
	second := s.Next(first)
	return second.Sub(first) < time.Minute || s.Next(second).Sub(second) < time.Minute
}

// firstDue is the first nominal time from a time on, that time included.
func firstDue(j Job, from time.Time) time.Time { return dueAfter(j, from.Add(-time.Millisecond)) }

// dueAfter is the first nominal time after a time; the next moment, where the
// expression is none.
func dueAfter(j Job, at time.Time) time.Time {
	s, err := cron.Parse(j.CronSchedule, j.Timezone)
	if err != nil {
		return at.Add(time.Millisecond)
	}
	return s.Next(at)
}

// withDue is the job with another nominal time.
func withDue(j Job, due time.Time) Job {
	j.Due, j.RemoveAt = due, due.Add(j.removeDelay())
	return j
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

// misfireLimit is from 1 to MaxMisfireLimit, whatever a host wrote into its row.
func (j Job) misfireLimit() int {
	if j.MisfireLimit <= 0 {
		return DefaultMisfireLimit
	}
	return min(j.MisfireLimit, MaxMisfireLimit)
}

// catchUp is the first nominal time after due of which at most limit have passed. As
// many may have passed as there are seconds in years, so it searches how far to look
// back from now to find a few more than limit.
func catchUp(s *cron.Schedule, due, at time.Time, limit int) time.Time {
	if len(between(s, due, at, limit+1)) <= limit {
		return s.Next(due)
	}
	few, many := int64(0), at.Unix()-due.Unix()
	for span := min(int64(limit), many); ; {
		passed := between(s, time.Unix(at.Unix()-span, 0), at, 2*limit)
		switch {
		case len(passed) < limit:
			few, span = span, (span+many+1)/2
		case len(passed) < 2*limit:
			return passed[len(passed)-limit]
		default:
			many, span = span, (few+span)/2
		}
	}
}

// between are the nominal times after a time, up to another; the first ones, at most
// so many.
func between(s *cron.Schedule, after, upTo time.Time, most int) (times []time.Time) {
	for t := s.Next(after); !t.IsZero() && !t.After(upTo) && len(times) < most; t = s.Next(t) {
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

// skips tells whether the occurrence is to be left out.
func (j Job) skips(at time.Time) bool {
	_, skips := j.skipsTo(at)
	return skips
}

// skipsTo tells whether the occurrence is to be left out: it has not begun, and it is
// late by more than Grace or the one after it is due as well. What may begin instead
// is the last nominal time that is not late by more than that, else the first to
// come. One whose expression is none begins late: there is nothing to move on to.
func (j Job) skipsTo(at time.Time) (due time.Time, skips bool) {
	if !j.Recurs() || j.Misfire != FireSkip || !j.Started.IsZero() {
		return time.Time{}, false
	}
	s, err := cron.Parse(j.CronSchedule, j.Timezone)
	if err != nil || at.Sub(j.Due) <= Grace && s.Next(j.Due).After(at) {
		return time.Time{}, false
	}
	bound := at.Add(-Grace - time.Millisecond)
	if begins := between(s, bound, at, 1+int(Grace/time.Second)); len(begins) > 0 {
		return begins[len(begins)-1], true
	}
	return s.Next(at), true
}

// nextOccurrence is the row that follows an occurrence of an internal job, however
// that has ended; nil where there is none.
func nextOccurrence(j Job, ev Event) *Job {
	if !j.Recurs() || j.LastOccurrence {
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
		j.LastOccurrence, j.Paused = true, false
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
	j.Paused, j.Missed = pause, time.Time{}
	if j.OnTrigger() {
		j.ScheduleSettled, j.NextTry = false, time.Time{}
		j = withDue(j, firstDue(j, later(j.Due, ev.At)))
	}
	return changed(j, ev), nil
}

// onMissed notes that an occurrence has not begun in time, or leaves it out, as its
// policy says. Of a schedule that Trigger.dev fires, who brings the news has asked
// there.
func onMissed(j Job, ev Event) Step {
	due, skips := j.skipsTo(ev.At)
	switch {
	case !j.Recurs() || j.Done() || j.CancelRequested || j.Paused || j.LeaseToken != "" || !j.Started.IsZero():
		return Step{Job: j}
	case j.OnTrigger():
		return missedThere(j, ev)
	case skips:
		j = withDue(j, due)
		j.Missed = time.Time{}
		return changed(j, ev)
	}
	is := withinLimit(j, ev.At)
	if j.Missed.IsZero() && ev.At.Sub(j.Due) > Grace {
		is.Missed = ev.At
	}
	if is.Due.Equal(j.Due) && is.Missed.Equal(j.Missed) {
		return Step{Job: j}
	}
	return changed(is, ev)
}

// withinLimit leaves out what misfire all does not make up for: but for the latest
// ones, nominal times that have passed.
func withinLimit(j Job, at time.Time) Job {
	s, err := cron.Parse(j.CronSchedule, j.Timezone)
	limit := j.misfireLimit()
	if err != nil || j.Misfire != FireAll || len(between(s, j.Due, at, limit)) < limit {
		return j
	}
	return withDue(j, catchUp(s, j.Due, at, limit))
}
