package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"sidejob/internal/job"
)

type jobWhyCommand struct {
	jobArg
	printFlags
	serverFlags
}

// Run tells what happened to the job, oldest first, and what it waits for or how it
// ended. As JSON it is {"job": …, "events": […]}, the bodies of the two calls.
func (c *jobWhyCommand) Run(ctx context.Context, std streams) error {
	server, err := c.caller(std)
	if err != nil {
		return err
	}
	story, body, err := c.fetch(ctx, server)
	if err != nil {
		return err
	}
	return c.print(std, body, func(w io.Writer) error { return story.write(w, time.Now()) })
}

// fetch asks for the history first, so that the job is at least as new.
func (c *jobWhyCommand) fetch(ctx context.Context, server *caller) (s story, body []byte, err error) {
	events, err := server.get(ctx, c.path("/events"), nil)
	if err != nil {
		return s, nil, err
	}
	row, err := server.get(ctx, c.path(""), nil)
	if err != nil {
		return s, nil, err
	}
	var list struct{ Events json.RawMessage }
	if err := readAnswer(events, &list); err != nil {
		return s, nil, err
	}
	if err := readAnswer(apiAnswer{body: list.Events}, &s.lines); err != nil {
		return s, nil, err
	}
	if err := readAnswer(row, &s.job); err != nil {
		return s, nil, err
	}
	body, err = json.Marshal(map[string]json.RawMessage{"job": row.body, "events": list.Events})
	return s, body, err
}

// story is a job and what happened to it.
type story struct {
	job   shownJob
	lines []historyLine
}

// historyLine is one thing that happened.
type historyLine struct {
	At     time.Time      `json:"at"`
	Kind   job.Kind       `json:"kind"`
	Source string         `json:"source"`
	From   job.State      `json:"from"`
	To     job.State      `json:"to"`
	Detail historyDetails `json:"detail"`
}

// historyDetails are what a line says beyond its kind.
type historyDetails struct {
	Reason, Error, Run, Status, Worker string
	Before                             job.Status
	Attempt                            int
	RemoteAt, NextTry                  time.Time
	RescheduledFromJob                 int64
	Schedule                           string    // id on Trigger.dev
	Nominal                            time.Time // the time that was missed
	Cancel                             string    // confirmed or too late
}

// UnmarshalJSON takes what it understands: a newer server may say more, or otherwise.
func (d *historyDetails) UnmarshalJSON(text []byte) error {
	type plain historyDetails
	var known plain
	_ = json.Unmarshal(text, &known) // a member that does not fit is left out
	*d = historyDetails(known)
	return nil
}

func (s story) write(out io.Writer, at time.Time) error {
	fmt.Fprintf(out, "Job %d: %s\n\n", s.job.ID, s.subject())
	for _, l := range s.lines {
		fmt.Fprintf(out, "%s  %s\n", stamp(l.At), oneLine(l.sentence(s.job), 1000))
	}
	if len(s.lines) > 0 {
		fmt.Fprintln(out)
	}
	for _, sentence := range s.ending(at) {
		if _, err := fmt.Fprintln(out, oneLine(sentence, 1000)); err != nil {
			return err
		}
	}
	return nil
}

// subject says what the story is about.
func (s story) subject() string {
	j := s.job
	text := fmt.Sprintf("%s, tag %s, of user %s, ", j.Type, j.Tag, userText(j.UserID))
	if j.Executor == job.Trigger {
		text += "for Trigger.dev"
		if j.Task != "" && j.Task != j.Type {
			text += " (task " + j.Task + ")"
		}
	} else {
		text += "for a worker"
	}
	if j.CronSchedule != "" {
		text += ", recurring: " + j.CronSchedule + " (" + j.Timezone + ")"
	}
	return oneLine(text, 1000)
}

// sentence tells the line. Kinds that it does not know are told by their name.
func (l historyLine) sentence(j shownJob) string {
	d := l.Detail
	switch l.Kind {
	case "created":
		return l.created(j)
	case job.Cancel:
		return l.canceled()
	case job.Claim:
		return fmt.Sprintf("%s took it%s.", l.worker(), attemptText(d.Attempt))
	case job.Release:
		return l.worker() + " gave it back unharmed."
	case job.Complete:
		return l.worker() + " reported that it is done."
	case job.Fail:
		return l.failed()
	case job.LeaseLost:
		return l.leaseLost()
	case job.Submitted:
		return "Trigger.dev took it as run " + d.Run + "."
	case job.Refused:
		return "Trigger.dev refused it for good" + because(d.Error) + "."
	case job.Unreached:
		return l.unreached()
	case job.Stopping:
		return "Trigger.dev was asked to cancel the run and took it on."
	case job.Told:
		return fmt.Sprintf("%s said that the run is %s%s.", l.teller(), d.Status, l.remoteAt())
	case job.Seen:
		return l.seen()
	case job.Missing:
		return l.missing()
	}
	if text := l.ofSchedule(j); text != "" {
		return text
	}
	return fmt.Sprintf("%s%s: %s became %s%s.", l.Kind, l.through(), orWord(string(l.From), "new"), l.To, because(d.Reason+d.Error))
}

func (l historyLine) created(j shownJob) string {
	if l.Source == "schedule" {
		return fmt.Sprintf("The schedule of job %d fired it on Trigger.dev, for %s.", l.Detail.RescheduledFromJob, stamp(j.Due))
	}
	text := "It was scheduled" + l.through()
	if from := l.Detail.RescheduledFromJob; from != 0 {
		text += fmt.Sprintf(", following job %d", from)
	}
	if wait := j.Due.Sub(l.At); wait >= time.Second {
		text += fmt.Sprintf(", due %s later at %s", spanText(wait), stamp(j.Due))
	}
	return text + "."
}

func (l historyLine) canceled() string {
	text := "Its cancel was asked for" + l.through()
	if l.Detail.Reason == job.ReplacedReason && (l.From == job.StateScheduled || l.From == job.StatePaused) && l.To == job.StateCanceled {
		return "Another job took its tag; that ended it."
	}
	if l.Detail.Reason == job.ReplacedReason {
		text = "Another job took its tag, so it was to be canceled"
	} else if l.Detail.Reason != "" {
		text += ", because: " + l.Detail.Reason
	}
	if l.To == job.StateCanceled {
		return text + "; nothing was under way, so that ended it."
	}
	return text + "."
}

func (l historyLine) failed() string {
	text := fmt.Sprintf("%s reported a failure%s", l.worker(), attemptText(l.Detail.Attempt))
	if l.To == job.StateWaiting {
		text += "; it is to be tried again"
	}
	return text + "."
}

func (l historyLine) leaseLost() string {
	text := fmt.Sprintf("Its worker was not heard of for too long and lost the lease%s", attemptText(l.Detail.Attempt))
	if l.To == job.StateWaiting {
		return text + "; another may take it."
	}
	return text + "; that was one time too many."
}

func (l historyLine) unreached() string {
	what := "Trigger.dev could not be asked about it"
	switch l.Source {
	case "submit":
		what = "Handing it to Trigger.dev did not work"
	case "cancel":
		what = "Canceling its run on Trigger.dev did not work"
	case "schedule":
		what = "Setting its schedule on Trigger.dev did not work"
	}
	what += because(l.Detail.Error)
	if !l.Detail.NextTry.IsZero() {
		what += "; next try at " + stamp(l.Detail.NextTry)
	}
	return what + "."
}

func (l historyLine) seen() string {
	text := fmt.Sprintf("Trigger.dev, when asked%s, said that the run is %s%s%s", l.occasion(), l.Detail.Status, l.remoteAt(), attemptText(l.Detail.Attempt))
	if l.Detail.Before != "" {
		text += fmt.Sprintf("; an event had said %s, and Trigger.dev's word counts", l.Detail.Before)
	}
	switch l.Detail.Cancel {
	case "confirmed":
		text += "; that confirms the cancel"
	case "too late":
		text += "; the cancel came too late"
	}
	return text + "."
}

func (l historyLine) missing() string {
	text := "Trigger.dev said again and again that it does not know the run"
	if l.To == job.StateOrphaned {
		return text + "; it was given up as orphaned."
	}
	return text + "; what the event said stands."
}

// attemptText names the attempt, where it is known.
func attemptText(attempt int) string {
	if attempt == 0 {
		return ""
	}
	return fmt.Sprintf(" (attempt %d)", attempt)
}

// worker names who holds the lease.
func (l historyLine) worker() string {
	if l.Detail.Worker == "" {
		return "Its worker"
	}
	return "Worker " + l.Detail.Worker
}

// through says by which way a request came.
func (l historyLine) through() string {
	switch l.Source {
	case "":
		return ""
	case "api":
		return " through the API"
	case "graphql":
		return " through GraphQL"
	case "host":
		return " by the host app, in its own row"
	}
	return " (" + l.Source + ")"
}

// teller says who brought news.
func (l historyLine) teller() string {
	switch l.Source {
	case "webhook":
		return "A webhook event"
	case "realtime":
		return "Trigger.dev's realtime stream"
	}
	return "An event (" + l.Source + ")"
}

// occasion says on what occasion Trigger.dev was asked.
func (l historyLine) occasion() string {
	if l.Source == "" || l.Source == "poll" {
		return ""
	}
	return " (" + l.Source + ")"
}

// remoteAt says when the run ended by Trigger.dev's own clock.
func (l historyLine) remoteAt() string {
	if l.Detail.RemoteAt.IsZero() {
		return ""
	}
	return ", ended at " + stamp(l.Detail.RemoteAt)
}

func orWord(s, word string) string {
	if s == "" {
		return word
	}
	return s
}
