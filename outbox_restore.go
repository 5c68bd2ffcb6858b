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
		o.log.Warn("the database is older than runs on trigger.dev say, as after restoring a backup: each unsent job is looked for before it is sent")
	}
	return restored, nil
}

// isRestored compares the newest runs of this installation with their rows: a row
// that was never sent by its own word has none.
func (o *outbox) isRestored(ctx context.Context) (bool, error) {
	page, err := o.adapter.client.List(ctx, triggerdev.ListFilter{
		Tags: []string{o.adapter.installationTag()}, From: now().Add(-orphanAge), Size: 100,
	})
	o.adapter.health.note(err)
	if err != nil {
		return false, err
	}
	for _, run := range page.Runs {
		j, err := o.store.Get(ctx, rowTag(run.Tags))
		switch {
		case errors.Is(err, ErrNotFound): // removed since, or newer than the backup
			continue
		case err != nil:
			return false, err
		case j.State() == job.StateUnsent && slices.Contains(run.Tags, j.IdempotencyKey):
			return true, nil
		case !slices.Contains(run.Tags, j.IdempotencyKey) && run.ID != j.RunID:
			return true, nil // the row's id was given twice
		}
	}
	return false, nil
}
