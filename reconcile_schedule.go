package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"sidejob/internal/job"
	"sidejob/internal/triggerdev"
)

// schedulePages bounds a walk through the schedules: 100 on each page.
const schedulePages = 100

// compareSchedules brings the schedules on Trigger.dev in line with their rows: each
// settled row is compared, the runs it has fired are looked for, and what belongs to
// no open row is dealt with.
func (s *sweep) compareSchedules(ctx context.Context) error {
	remote, listed := s.listSchedules(ctx)
	rows, err := s.store.Schedules(ctx) // read later than the list, so a row made meanwhile is not taken for missing
	if err != nil {
		return err
	}
	byID, open := map[string]triggerdev.Schedule{}, map[string]bool{}
	for _, r := range remote {
		byID[r.ID] = r
	}
	for _, j := range rows {
		open[s.adapter.scheduleKey(j.Tag)] = true
		if !j.ScheduleSettled || j.CancelRequested || s.handed[j.ID] {
			continue // the outbox sets it right
		}
		r, found := byID[j.ScheduleID]
		s.each(ctx, j.ID, func(ctx context.Context) { s.compareOne(ctx, j, found && drift(j, r) == "") })
	}
	s.jobs.Wait()
	if listed {
		s.findStrays(ctx, remote, open)
	}
	return nil
}

// listSchedules is all schedules of the key's environment, if they could be read. The
// list is empty where nothing was ever deployed, so one that is missing proves nothing.
func (s *sweep) listSchedules(ctx context.Context) (all []triggerdev.Schedule, ok bool) {
	for n := 1; n <= schedulePages; n++ {
		if s.adapter.client.Pace(ctx, pollShare) != nil {
			return nil, false
		}
		page, err := s.adapter.client.ListSchedules(ctx, n, 100)
		s.adapter.health.note(err)
		if err != nil {
			s.log.Warn("the list of schedules cannot be read; each is asked about", "err", err)
			return nil, false
		}
		all = append(all, page.Schedules...)
		if n >= page.TotalPages {
			break
		}
	}
	return all, true
}

// compareOne asks about a schedule that the list does not show as the row says, and
// looks for its runs.
func (s *sweep) compareOne(ctx context.Context, j job.Job, same bool) {
	var err error
	drifted := false
	if !same {
		if err = s.adapter.client.Pace(ctx, pollShare); err == nil {
			drifted, err = s.lookout.compare(ctx, s.rows, j)
		}
	}
	if err == nil && !s.dry {
		_, err = s.lookout.find(ctx, j)
	}
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, errBeingSet), errors.Is(err, errRowEnded):
		s.count(&s.report.SkippedJobs)
		return
	case errors.Is(err, errElsewhere):
		s.log.Warn("a schedule is left alone: it lives in another environment than the key's", "job", j.ID, "tag", j.Tag, "schedule", j.ScheduleID)
		s.count(&s.report.SkippedJobs)
		return
	case err != nil:
		s.failed(j.ID, err)
		return
	}
	s.count(&s.report.Schedules)
	s.count(&s.report.SyncedJobs)
	if drifted {
		s.count(&s.report.SchedulesSet)
	}
}

// findStrays deals with the schedules of this installation, in the key's environment,
// that belong to no open row.
func (s *sweep) findStrays(ctx context.Context, remote []triggerdev.Schedule, open map[string]bool) {
	for _, r := range remote {
		if !strings.HasPrefix(r.DeduplicationKey, s.adapter.scheduleKeys()) || open[r.DeduplicationKey] {
			continue
		}
		if err := s.outbox.inTurn(ctx, r.DeduplicationKey, func() { s.dealWithStray(ctx, r) }); err != nil {
			return
		}
	}
}

// dealWithStray deletes the schedule of a row that has ended. Of one without a row
// nobody knows; it goes on request.
func (s *sweep) dealWithStray(ctx context.Context, r triggerdev.Schedule) {
	ended, err := s.endedRow(ctx, r)
	switch {
	case errors.Is(err, errTaken):
		return
	case err != nil:
		s.log.Error("cannot find the row of a schedule", "schedule", r.ID, "err", err)
		return
	case !ended:
		s.count(&s.report.SchedulesOrphan)
	}
	s.log.Warn("a schedule on trigger.dev has no open row", "schedule", r.ID, "task", r.Task, "job", r.ExternalID, "ended", ended)
	if s.dry || !ended && !s.cancel {
		return
	}
	deleted, err := s.adapter.deleteSchedule(ctx, r.ID)
	if err != nil {
		s.log.Error("a schedule without an open row could not be deleted", "schedule", r.ID, "err", err)
	}
	if deleted {
		s.count(&s.report.SchedulesDeleted)
	}
}

// errTaken says that a schedule has an open row after all.
var errTaken = errors.New("an open row has the schedule")

// endedRow tells whether the row that made the schedule is there and has ended. In its
// turn nobody changes the schedule, but a row may have been made since the list.
func (s *sweep) endedRow(ctx context.Context, r triggerdev.Schedule) (bool, error) {
	rows, err := s.store.Schedules(ctx)
	if err != nil {
		return false, err
	}
	for _, j := range rows {
		if s.adapter.scheduleKey(j.Tag) == r.DeduplicationKey {
			return false, errTaken
		}
	}
	id, err := strconv.ParseInt(r.ExternalID, 10, 64)
	if err != nil {
		return false, nil
	}
	j, err := s.store.Get(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read job %d: %w", id, err)
	}
	return j.Done() && j.IsSchedule() && s.adapter.scheduleKey(j.Tag) == r.DeduplicationKey, nil
}
