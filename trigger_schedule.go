package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"sidejob/internal/job"
	"sidejob/internal/triggerdev"
)

// scheduleKey is the deduplication key of the schedule that a tag has on Trigger.dev.
// Such keys are shared by all environments of a project, and using one moves the
// schedule to the caller's; so each environment has keys of its own.
func (a *adapter) scheduleKey(tag string) string { return a.scheduleKeys() + remoteTag(tag) }

// scheduleKeys is how all keys of this installation begin in the key's environment.
func (a *adapter) scheduleKeys() string {
	return a.installationTag() + ":" + cmp.Or(a.client.Environment(), "other") + ":"
}

// putSchedule makes the schedule on Trigger.dev as the row says. doubted says that an
// earlier call may have arrived, or that the schedule of an earlier row is carried over.
func (a *adapter) putSchedule(ctx context.Context, j job.Job, doubted bool) submission {
	ctx, cancel := context.WithTimeout(ctx, submitTimeout)
	defer cancel()
	s, err := a.createSchedule(ctx, j)
	if triggerdev.OutcomeOf(err) == triggerdev.Refused {
		return a.refusedSchedule(ctx, j, err, doubted)
	}
	arrived := doubted || s.ID != "" || triggerdev.OutcomeOf(err) != triggerdev.NotReached
	if err == nil {
		s, err = a.switchSchedule(ctx, s, !j.Paused)
	}
	if err == nil && s.Active == j.Paused {
		err = fmt.Errorf("schedule %s is %s, whatever was asked for", s.ID, activeText(s.Active))
	}
	if err != nil {
		return submission{event: unreached(j, "schedule", err, arrived)}
	}
	return submission{event: job.Event{
		Kind: job.Scheduled, At: now(), Source: "schedule", ScheduleID: s.ID, Active: s.Active, Run: job.Run{Environment: environmentOf(s)},
	}}
}

// createSchedule makes the schedule or changes the one there is. A schedule keeps its
// task for good, so one of another task makes way. What comes back with an error is
// what had been made by then.
func (a *adapter) createSchedule(ctx context.Context, j job.Job) (triggerdev.Schedule, error) {
	want := triggerdev.ScheduleRequest{
		Task: j.TriggerTask, Cron: j.CronSchedule, Timezone: j.Timezone, ExternalID: strconv.FormatInt(j.ID, 10),
	}
	create := func() (triggerdev.Schedule, error) {
		s, err := a.client.CreateSchedule(ctx, a.scheduleKey(j.Tag), want)
		a.health.note(err)
		return s, err
	}
	s, err := create()
	if err != nil || s.Task == want.Task {
		return s, err
	}
	if _, err := a.deleteSchedule(ctx, s.ID); err != nil {
		return s, fmt.Errorf("delete the schedule of task %s: %w", s.Task, err)
	}
	made, err := create()
	if err != nil {
		return s, err
	}
	return made, nil
}

// switchSchedule lets the schedule fire, or rest.
func (a *adapter) switchSchedule(ctx context.Context, s triggerdev.Schedule, fires bool) (triggerdev.Schedule, error) {
	if s.Active == fires {
		return s, nil
	}
	turn := a.client.DeactivateSchedule
	if fires {
		turn = a.client.ActivateSchedule
	}
	s, err := turn(ctx, s.ID)
	a.health.note(err)
	return s, err
}

// refusedSchedule ends a row that Trigger.dev will never take. What an earlier row or
// an earlier call left there under its tag must not go on.
func (a *adapter) refusedSchedule(ctx context.Context, j job.Job, refusal error, doubted bool) submission {
	if doubted {
		if _, err := a.deleteSchedule(ctx, a.scheduleKey(j.Tag)); err != nil {
			return submission{event: unreached(j, "schedule", fmt.Errorf("delete what a refused job would leave behind: %w", err), true)}
		}
	}
	return submission{event: job.Event{
		Kind: job.Refused, At: now(), Source: "schedule", Err: refusalText(j, refusal), Details: refusalDetails(refusal),
	}}
}

// refusalText says what the caller can do, where Trigger.dev's own words do not.
func refusalText(j job.Job, err error) string {
	var e *triggerdev.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	switch {
	case strings.Contains(e.Message, "is not a scheduled task"):
		return fmt.Sprintf("task %s is a plain task, and Trigger.dev fires only those made with schedules.task; "+
			"define it with schedules.task, or give fireLocally: true, and sidejob fires plain runs of it itself (%v)", j.TriggerTask, err)
	case strings.Contains(e.Message, "not found in project"):
		return fmt.Sprintf("Trigger.dev does not know task %s: deploy it first, made with schedules.task (%v)", j.TriggerTask, err)
	}
	return err.Error()
}

// dropSchedule deletes the schedule for good. One that is not there counts as deleted.
func (a *adapter) dropSchedule(ctx context.Context, j job.Job, doubted bool) submission {
	ctx, cancel := context.WithTimeout(ctx, submitTimeout)
	defer cancel()
	if err := a.dropByEveryName(ctx, j); err != nil {
		return submission{event: unreached(j, "schedule", err, doubted || triggerdev.OutcomeOf(err) != triggerdev.NotReached)}
	}
	return submission{event: job.Event{Kind: job.Unscheduled, At: now(), Source: "schedule", ScheduleID: j.ScheduleID}}
}

// dropByEveryName goes by the id that the row knows, and by the key: the answer that
// named another id may have been lost.
func (a *adapter) dropByEveryName(ctx context.Context, j job.Job) error {
	if j.ScheduleID != "" {
		deleted, err := a.deleteSchedule(ctx, j.ScheduleID)
		if err != nil || deleted {
			return err
		}
		if err := a.provePlace(ctx, j); err != nil {
			return err
		}
	}
	_, err := a.deleteSchedule(ctx, a.scheduleKey(j.Tag))
	return err
}

// deleteSchedule deletes by id or key and tells whether there was one.
func (a *adapter) deleteSchedule(ctx context.Context, name string) (deleted bool, err error) {
	err = a.client.DeleteSchedule(ctx, name)
	a.health.note(err)
	if triggerdev.NotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// errElsewhere says that a schedule lives where this key does not reach.
var errElsewhere = errors.New("its schedule lives in another environment than the key's")

// provePlace is nil unless the key is known to be of another environment than the
// schedule: then a 404 says nothing.
func (a *adapter) provePlace(ctx context.Context, j job.Job) error {
	env, err := a.keyEnvironment(ctx)
	if err != nil {
		return fmt.Errorf("prove the key after a 404 for schedule %s: %w", j.ScheduleID, err)
	}
	if env != "" && j.Environment != "" && env != j.Environment {
		return fmt.Errorf("schedule %s: %w", j.ScheduleID, errElsewhere)
	}
	return nil
}

// askSchedule is what Trigger.dev says of the row's schedule: it has drifted or is
// gone, and else the event has no kind. An error says that it could not be asked.
func (a *adapter) askSchedule(ctx context.Context, j job.Job) (job.Event, error) {
	s, err := a.client.RetrieveSchedule(ctx, j.ScheduleID)
	a.health.note(err)
	if triggerdev.NotFound(err) {
		if err := a.provePlace(ctx, j); err != nil {
			return job.Event{}, err
		}
		return job.Event{Kind: job.Unscheduled, At: now(), ScheduleID: j.ScheduleID}, nil
	}
	if err != nil {
		return job.Event{}, fmt.Errorf("ask for schedule %s: %w", j.ScheduleID, err)
	}
	if what := drift(j, s); what != "" {
		return job.Event{Kind: job.Drifted, At: now(), ScheduleID: j.ScheduleID, Reason: what}, nil
	}
	return job.Event{}, nil
}

// drift says in which ways the schedule is not as the row says.
func drift(j job.Job, s triggerdev.Schedule) string {
	var list []string
	note := func(what, is, want string) {
		if is != want {
			list = append(list, fmt.Sprintf("%s %s instead of %s", what, cmp.Or(is, "none"), want))
		}
	}
	note("cron", s.Generator.Expression, j.CronSchedule)
	note("timezone", s.Timezone, j.Timezone)
	note("task", s.Task, j.TriggerTask)
	note("externalId", s.ExternalID, strconv.FormatInt(j.ID, 10))
	note("it is", activeText(s.Active), activeText(!j.Paused))
	return strings.Join(list, ", ")
}

func activeText(active bool) string {
	if active {
		return "active"
	}
	return "inactive"
}

func environmentOf(s triggerdev.Schedule) string {
	if len(s.Environments) == 0 {
		return ""
	}
	return s.Environments[0].ID
}
