package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"sidejob/internal/job"
	"sidejob/internal/triggerdev"
)

const (
	// listFrom is how many open rows make lists cheaper than asking about each run.
	listFrom = 200
	// listPages bounds a walk through the open runs: 100 on each page.
	listPages = 1100
)

// openStatuses are those of runs that may still do something.
func openStatuses() []string {
	return []string{"PENDING_VERSION", "QUEUED", "DEQUEUED", "EXECUTING", "WAITING", "DELAYED"}
}

// openRow is what a walk needs to know of a row that has an open run.
type openRow struct {
	id     int64
	status job.Status
}

// walkOpenRuns goes through all unfinished runs of this installation, newest first,
// back to that time. The list lags, so a run that is missing proves nothing.
func (s *sweep) walkOpenRuns(ctx context.Context, from time.Time, visit func(triggerdev.Run) error) error {
	f := triggerdev.ListFilter{
		Tags: []string{s.adapter.installationTag()}, Statuses: openStatuses(), From: from, Size: 100,
	}
	for range listPages {
		if err := s.adapter.client.Pace(ctx, pollShare); err != nil {
			return err
		}
		page, err := s.adapter.client.List(ctx, f)
		s.adapter.health.note(err)
		if err != nil {
			return err
		}
		for _, run := range page.Runs {
			if err := visit(run); err != nil {
				return err
			}
		}
		if f.After = page.Next; f.After == "" {
			return nil
		}
	}
	return nil
}

// compareLists strikes off the rows whose runs the lists show open, and writes what
// has moved. Those that are left have ended, or the lists do not show them.
func (s *sweep) compareLists(ctx context.Context, open map[string]openRow, from time.Time) {
	writes := make(chan struct{}, heardAtOnce)
	err := s.walkOpenRuns(ctx, from, func(run triggerdev.Run) error {
		row, ours := open[run.ID]
		status := job.StatusOf(run.Status)
		switch {
		case !ours:
			return s.noteOrphan(ctx, run)
		case status == "" || status.Final():
			return nil // to be asked
		}
		delete(open, run.ID)
		s.count(&s.report.TotalJobs)
		if status == row.status {
			s.count(&s.report.SyncedJobs)
			return nil
		}
		writes <- struct{}{}
		s.jobs.Go(func() {
			defer func() { <-writes }()
			s.writeListed(ctx, row.id, run)
		})
		return nil
	})
	s.jobs.Wait()
	if err != nil {
		s.log.Warn("the list of runs broke off; those it did not show are asked about one by one", "left", len(open), "err", err)
	}
}

// writeListed takes a status from the list as an event is taken: it leads a row on,
// never back.
func (s *sweep) writeListed(ctx context.Context, id int64, run triggerdev.Run) {
	_, err := s.rows.Apply(context.WithoutCancel(ctx), id, job.Event{Kind: job.Told, At: now(), Source: "list", Run: runNews(run, nil)})
	if err != nil {
		s.failed(id, err)
		return
	}
	s.count(&s.report.SyncedJobs)
}

// findRemoteOrphans looks for unfinished runs of this installation that no row has:
// rows deleted by hand, or a database restored from an older copy.
func (s *sweep) findRemoteOrphans(ctx context.Context) {
	err := s.walkOpenRuns(ctx, now().Add(-orphanAge), func(run triggerdev.Run) error { return s.noteOrphan(ctx, run) })
	if err != nil {
		s.log.Warn("cannot look for runs without a row", "err", err)
	}
}

// noteOrphan counts a run that no row has, and deals with it as the sweep was asked
// to.
func (s *sweep) noteOrphan(ctx context.Context, run triggerdev.Run) error {
	known, err := s.hasRow(ctx, run)
	if err != nil || known {
		return err
	}
	s.count(&s.report.RemoteOrphans)
	s.log.Warn("a run of this installation has no row", "run", run.ID, "task", run.TaskIdentifier, "status", run.Status)
	switch {
	case s.dry:
	case s.adopt:
		err = s.adoptRun(ctx, run)
	case s.cancel:
		err = s.cancelRun(ctx, run)
	}
	if err != nil {
		s.log.Error("a run without a row could not be dealt with", "run", run.ID, "err", err)
	}
	return nil
}

// adoptRun makes a row for a run that has none, with what its tags and metadata say
// of the one it had. The row is then brought in line like every other.
func (s *sweep) adoptRun(ctx context.Context, run triggerdev.Run) error {
	run, err := s.adapter.client.Retrieve(ctx, run.ID) // the list has no payload
	s.adapter.health.note(err)
	if err != nil {
		return err
	}
	orders := []Order{{Job: adoptedJob(run, now()), OnConflict: job.Beside, Source: "adopt"}}
	placed, err := s.store.Schedule(ctx, orders, Keyed{})
	if err != nil {
		return err
	}
	s.count(&s.report.AdoptedRuns)
	s.poller.soon(placed[0].Job.ID)
	return nil
}

func (s *sweep) cancelRun(ctx context.Context, run triggerdev.Run) error {
	err := s.adapter.client.Cancel(ctx, run.ID)
	s.adapter.health.note(err)
	if err == nil {
		s.count(&s.report.CanceledRuns)
	}
	return err
}

// adoptedJob is the job that a run seems to have been made for.
func adoptedJob(run triggerdev.Run, at time.Time) job.Job {
	var m struct{ Tag, UserID string }
	_ = json.Unmarshal(run.Metadata, &m) // whatever else it may hold says nothing
	userID, _ := strconv.ParseInt(m.UserID, 10, 64)
	j := job.Job{
		Tag: cmp.Or(m.Tag, run.TaskIdentifier), Type: run.TaskIdentifier, TriggerTask: run.TaskIdentifier, UserID: max(userID, 0),
		Executor: job.Trigger, RunID: run.ID, TriggerStatus: job.Pending, Data: json.RawMessage("{}"), Metadata: json.RawMessage("{}"),
		Timezone: job.DefaultTZ, Due: toMilli(run.CreatedAt), SentAt: toMilli(run.CreatedAt), Created: at, Updated: at,
	}
	if run.DelayedUntil.After(run.CreatedAt) {
		j.Due = toMilli(run.DelayedUntil)
	}
	j.RemoveAt = j.Due.Add(job.DefaultRemoveDelay)
	if run.Payload != nil {
		j.Data = run.Payload
	}
	return j
}

// hasRow tells whether a row has the run, or is about to: its submit is under way.
func (s *sweep) hasRow(ctx context.Context, run triggerdev.Run) (bool, error) {
	_, err := s.store.FindRun(ctx, run.ID)
	if !errors.Is(err, ErrNotFound) {
		return err == nil, err
	}
	j, err := s.store.Get(ctx, rowTag(run.Tags))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil && j.RunID == "" && slices.Contains(run.Tags, j.IdempotencyKey), err
}
