package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sidejob/internal/job"
	"sidejob/internal/job/cron"
)

// previewRequest asks when an expression is due. It is checked as a job's is: what
// cannot be scheduled is refused here too.
type previewRequest struct {
	CronSchedule string       `json:"cronSchedule" example:"30 2 * * *"`
	Timezone     string       `json:"timezone,omitempty" doc:"IANA name; UTC by default" example:"America/New_York"`
	Count        int          `json:"count,omitempty" minimum:"1" maximum:"100" default:"10" doc:"How many times to show"`
	Executor     job.Executor `json:"executor,omitempty" doc:"With trigger, what Trigger.dev does not take is refused, unless fireLocally is set; by default nobody's limits hold"`
	FireLocally  bool         `json:"fireLocally,omitempty" doc:"As for a job of executor trigger"`
	From         givenTime    `json:"from,omitempty"`
}

type previewView struct {
	Next        []nominalView `json:"next" nullable:"false" doc:"By sidejob's own reckoning, soonest first"`
	Differences []string      `json:"differences" nullable:"false" doc:"What Trigger.dev does otherwise with this expression, in words"`
}

type nominalView struct {
	At    instant    `json:"at"`
	Local string     `json:"local" doc:"What the clock of the time zone shows" example:"2026-03-08T03:30:00-04:00"`
	Note  *cron.Note `json:"note" enum:"skipped hour,repeated hour" doc:"skipped hour: the clock leaves that time out, so it is later by as much; repeated hour: the clock shows it twice"`
}

func (a *api) previewCron(_ context.Context, in *struct{ Body previewRequest }) (*bodyOutput[previewView], error) {
	view, err := preview(in.Body, now())
	return &bodyOutput[previewView]{view}, a.problem(err)
}

// preview is the whole answer: it needs no database and no server.
func preview(r previewRequest, at time.Time) (previewView, error) {
	s, err := r.schedule(at)
	if err != nil {
		return previewView{}, err
	}
	if !r.From.at.IsZero() {
		at = r.From.at
	}
	view := previewView{Next: []nominalView{}, Differences: differences(r.CronSchedule, s, at)}
	for range r.Count {
		next, note := s.NextNoted(at)
		if next.IsZero() {
			break
		}
		view.Next = append(view.Next, nominalView{At: instant(next), Local: next.In(s.Zone()).Format(time.RFC3339), Note: orNil(note)})
		at = next
	}
	return view, nil
}

// schedule reads the expression, or says what is wrong with the request.
func (r previewRequest) schedule(at time.Time) (*cron.Schedule, error) {
	spec := job.Spec{
		Type: "preview", Executor: r.Executor, CronSchedule: r.CronSchedule, Timezone: r.Timezone, FireLocally: r.FireLocally,
	}
	if r.Executor == job.Trigger {
		spec.TriggerTask = "preview"
	}
	var wrong job.Problems
	if _, _, err := job.New(spec, at, ""); err != nil && !errors.As(err, &wrong) {
		return nil, err
	}
	if r.From.err != nil {
		wrong = append(wrong, job.Problem{Member: "from", Why: r.From.err.Error()})
	}
	s, err := cron.Parse(r.CronSchedule, r.Timezone)
	var bad *cron.Error
	if len(wrong) == 0 && errors.As(err, &bad) {
		wrong = job.Problems{{Member: bad.Member, Why: bad.Why}} // a blank one, which to job.New is none
	}
	if len(wrong) > 0 {
		return nil, wrong
	}
	return s, nil
}

// differences says what Trigger.dev (cron-parser 4) does otherwise with an expression
// within a year.
func differences(expr string, s *cron.Schedule, from time.Time) []string {
	var refusal *cron.Error
	if errors.As(cron.CheckRemote(expr), &refusal) {
		return []string{"Trigger.dev does not take it: " + refusal.Why + "; with fireLocally sidejob fires it itself"}
	}
	found := []string{}
	if f := strings.Fields(expr); len(f) == 5 && f[2] != "*" && f[2] != "?" && strings.Contains(f[4], "#") {
		found = append(found, "Trigger.dev takes the day of month otherwise beside # in the day of week; here a day that fits one of them is due")
	}
	for _, c := range clockChanges(s.Zone(), from, from.AddDate(1, 0, 0)) {
		if c.matters(expr) {
			found = append(found, c.String())
		}
	}
	return found
}

// clockChange is a moment at which a zone's clock jumps.
type clockChange struct {
	at          time.Time // in the zone; the first moment by the new offset
	before, now int       // seconds ahead of UTC
}

// clockChanges are those after a time, up to another.
func clockChanges(zone *time.Location, from, to time.Time) (changes []clockChange) {
	for t := from.In(zone); ; {
		_, end := t.ZoneBounds()
		if end.IsZero() || !end.After(t) || end.After(to) {
			return changes
		}
		c := clockChange{at: end}
		_, c.before = end.Add(-time.Second).Zone()
		_, c.now = end.Zone()
		if c.before != c.now {
			changes = append(changes, c)
		}
		t = end
	}
}

// wall is what the clock leaves out or shows twice, as if it were UTC; end is not in it.
func (c clockChange) wall() (begin, end time.Time) {
	at := func(offset int) time.Time { return c.at.UTC().Add(time.Duration(offset) * time.Second) }
	return at(min(c.before, c.now)), at(max(c.before, c.now))
}

// matters tells whether the expression names a time that the clock leaves out or
// shows twice, and Trigger.dev may treat that otherwise. It does not where the hour is
// a plain *, nor where fixed hours, but not all 24, meet a jump of one whole hour that
// does not leave out midnight.
func (c clockChange) matters(expr string) bool {
	hour := strings.TrimPrefix(expr, "@")
	if f := strings.Fields(expr); len(f) == 5 {
		hour = f[1]
	}
	if hour == "*" || hour == "hourly" {
		return false
	}
	begin, end := c.wall()
	usual := end.Sub(begin) == time.Hour && (begin.Hour() != 0 || c.now < c.before)
	if usual && !strings.HasPrefix(hour, "*") && !strings.HasPrefix(hour, "0-23") {
		return false
	}
	s, err := cron.Parse(expr, "UTC")
	return err == nil && s.Next(begin.Add(-time.Second)).Before(end)
}

func (c clockChange) String() string {
	begin, end := c.wall()
	does := "leaves out"
	if c.now < c.before {
		does = "shows twice"
	}
	return fmt.Sprintf("on %s the clock %s %s to %s: Trigger.dev may skip or double times there, sidejob does neither",
		begin.Format(time.DateOnly), does, begin.Format("15:04"), end.Format("15:04"))
}
