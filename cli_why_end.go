package main

import (
	"fmt"
	"slices"
	"time"

	"sidejob/internal/job"
)

// ending says how the job ended or what it waits for, and what is wrong with
// Trigger.dev where something is.
func (s story) ending(at time.Time) []string {
	if !s.job.Finished.IsZero() {
		return s.ended()
	}
	sentences := []string{s.waits(at)}
	switch {
	case s.job.CancelRequested && s.job.CronSchedule != "" && s.job.Executor == job.Trigger:
		sentences = append(sentences, "It is to be canceled; it ends when its schedule is deleted on Trigger.dev.")
	case s.job.CancelRequested:
		sentences = append(sentences, "It is to be canceled; it ends when Trigger.dev says that its run has stopped.")
	}
	if s.job.Error != "" {
		sentences = append(sentences, s.trouble(at)...)
	}
	return sentences
}

// ended says how the job ended.
func (s story) ended() []string {
	j := s.job
	text := fmt.Sprintf("It ended %s at %s", j.Status, stamp(j.Finished))
	if !j.Started.IsZero() {
		text += ", " + spanText(j.Finished.Sub(j.Started)) + " after it started"
	}
	if j.Attempt > 1 {
		text += fmt.Sprintf(", in attempt %d", j.Attempt)
	}
	sentences := []string{text + "."}
	if reason := failureText(j.Result); reason != "" && j.Status != job.Completed {
		sentences = append(sentences, "The reason given: "+reason)
	}
	switch s.state() {
	case job.StateToldCompleted, job.StateToldFailed, job.StateToldCanceled:
		sentences = append(sentences, "That is what an event said; Trigger.dev itself has yet to confirm it.")
	}
	return sentences
}

// state is where the last line of the history left the job.
func (s story) state() job.State {
	if len(s.lines) == 0 {
		return ""
	}
	return s.lines[len(s.lines)-1].To
}

// waits says what an unfinished job waits for.
func (s story) waits(at time.Time) string {
	j := s.job
	switch {
	case j.CronSchedule != "" && j.Executor == job.Trigger:
		return s.waitsToFire(at)
	case j.Paused:
		return "It is paused, and waits to be resumed."
	case j.Status == job.Executing && j.Executor == job.Trigger:
		return fmt.Sprintf("Its run %s is under way on Trigger.dev%s.", j.RunID, startedText(j, at))
	case j.Status == job.Executing:
		return fmt.Sprintf("%s is at work on it%s%s.", s.last(job.Claim).worker(), attemptText(j.Attempt), startedText(j, at))
	case j.Executor == job.Trigger:
		return s.waitsForTrigger(at)
	case j.Due.After(at):
		return "It waits until it is due, " + timeText(j.Due, at) + "."
	case j.Attempt > 0:
		return fmt.Sprintf("It waits for a worker to try it again, after attempt %d.", j.Attempt)
	}
	return fmt.Sprintf("It is due and waits for a worker that claims jobs of type %s.", j.Type)
}

// waitsForTrigger is about a job whose run has not started.
func (s story) waitsForTrigger(at time.Time) string {
	j := s.job
	switch {
	case j.RunID == "":
		return "It waits to be handed to Trigger.dev."
	case j.Due.After(at):
		return fmt.Sprintf("Its run %s waits on Trigger.dev until it is due, %s.", j.RunID, timeText(j.Due, at))
	case j.RawStatus == "PENDING_VERSION":
		return fmt.Sprintf("Its run %s waits on Trigger.dev for a version that has the task %s: is it deployed?", j.RunID, j.Task)
	}
	return fmt.Sprintf("Its run %s waits on Trigger.dev to be started%s.", j.RunID, rawText(j))
}

// trouble says why Trigger.dev could not be reached, and when it is tried again.
func (s story) trouble(at time.Time) []string {
	sentences := []string{"The last try to reach Trigger.dev failed: " + s.job.Error}
	next := s.last(job.Unreached).Detail.NextTry
	switch {
	case next.IsZero():
		return sentences
	case next.After(at):
		return append(sentences, "The next try is at "+timeText(next, at)+".")
	}
	return append(sentences, "The next try is due now.")
}

// last is the latest line of a kind, a zero one where there is none.
func (s story) last(kind job.Kind) historyLine {
	for _, l := range slices.Backward(s.lines) {
		if l.Kind == kind {
			return l
		}
	}
	return historyLine{}
}

func startedText(j shownJob, at time.Time) string {
	if j.Started.IsZero() {
		return ""
	}
	return ", since " + timeText(j.Started, at)
}

func rawText(j shownJob) string {
	if j.RawStatus == "" {
		return ""
	}
	return " (" + j.RawStatus + ")"
}
