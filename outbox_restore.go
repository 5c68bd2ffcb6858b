package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"sidejob/internal/job"
	"sidejob/internal/triggerdev"
)

// restoreCheck finds out, once in the life of a process, whether the database was
// restored from an older backup: then a row may say that it was never sent although
// it was, and its run may have failed and freed the key.
type restoreCheck struct {
	begun time.Time     // rows made later are this process's own
	turn  chan struct{} // held while it is being found out; guards what follows

	known    bool
	restored bool
}

// orphanAge is how far back a run may lie whose row is gone, or older than it.
const orphanAge = 14 * 24 * time.Hour

// doubts tells whether a submit of the row must be looked for although the row knows
// of none. An error says that Trigger.dev could not be asked; the row must wait.
func (c *restoreCheck) doubts(ctx context.Context, o *outbox, j job.Job) (bool, error) {
	if !j.Created.Before(c.begun) {
		return false, nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if c.known {
		return c.restored, nil
	}
	restored, err := o.isRestored(ctx)
	if err != nil {
		return false, err
	}
	c.known, c.restored = true, restored
	if restored {
		o.log.Warn("the database may be older than runs on trigger.dev, as after restoring a backup: each unsent job is looked for before it is sent")
	}
	return restored, nil
}

// comparedPages bounds the runs that are compared, 100 on each page. Where there are
// more, nobody knows.
const comparedPages = 50

// isRestored compares the runs that rows without one could have made with the rows
// they name: a row that was never sent by its own word has none. More runs than can
// be compared count as restored, which costs a look before each submit.
func (o *outbox) isRestored(ctx context.Context) (bool, error) {
	since, err := o.unsentSince(ctx)
	if err != nil {
		return false, err
	}
	f := triggerdev.ListFilter{Tags: []string{o.adapter.installationTag()}, From: since, Size: 100}
	for range comparedPages {
		page, err := o.adapter.client.List(ctx, f)
		o.adapter.health.note(err)
		if err != nil {
			return false, err
		}
		for _, run := range page.Runs {
			if newer, err := o.isNewer(ctx, run); newer || err != nil {
				return newer, err
			}
		}
		if f.After = page.Next; f.After == "" {
			return false, nil
		}
	}
	return true, nil
}

// unsentSince is when the oldest row without a run was made, an hour earlier since
// clocks differ.
func (o *outbox) unsentSince(ctx context.Context) (time.Time, error) {
	ids, err := o.store.Unsent(ctx)
	if err != nil {
		return time.Time{}, err
	}
	at := now()
	since := at
	if len(ids) > 0 {
		j, err := o.store.Get(ctx, ids[0])
		if err != nil {
			return time.Time{}, err
		}
		since = j.Created
	}
	since = since.Add(-time.Hour)
	if oldest := at.Add(-orphanAge); since.Before(oldest) {
		return oldest, nil
	}
	return since, nil
}

// isNewer tells whether a run shows that the database is older than it.
func (o *outbox) isNewer(ctx context.Context, run triggerdev.Run) (bool, error) {
	j, err := o.store.Get(ctx, rowTag(run.Tags))
	switch {
	case errors.Is(err, ErrNotFound): // removed since, or newer than the backup
		return false, nil
	case err != nil:
		return false, err
	case j.State() == job.StateUnsent:
		return slices.Contains(run.Tags, j.IdempotencyKey), nil
	}
	return !slices.Contains(run.Tags, j.IdempotencyKey) && run.ID != j.RunID, nil // the row's id was given twice
}
