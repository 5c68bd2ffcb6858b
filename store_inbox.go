package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"sidejob/internal/job"
)

// Hear is documented at Store.
func (s *sqlStore) Hear(ctx context.Context, h Heard) (matched bool, err error) {
	err = s.change(ctx, func(ctx context.Context, c *changeset) error {
		matched, err = c.hear(ctx, h)
		return err
	})
	return matched, err
}

func (c *changeset) hear(ctx context.Context, h Heard) (matched bool, err error) {
	for _, id := range h.EventIDs {
		err := c.tx.QueryRowContext(ctx, "SELECT matched FROM inbox WHERE event_id = $1", id).Scan(&matched)
		if !errors.Is(err, sql.ErrNoRows) {
			return matched, err
		}
	}
	id := h.JobID
	if id == 0 {
		id, err = findRun(ctx, c.tx, h.Event.Run.ID)
	}
	var kept any
	switch {
	case errors.Is(err, ErrNotFound):
		if kept, err = keepEvent(h.Event); err != nil {
			return false, err
		}
	case err != nil:
		return false, err
	default:
		matched = true
		if _, err := c.apply(ctx, id, h.Event); err != nil {
			return false, err
		}
	}
	for _, eventID := range h.EventIDs {
		_, err := c.tx.ExecContext(ctx, `
			INSERT INTO inbox (event_id, run_id, received_at, matched, event) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (event_id) DO NOTHING`,
			eventID, h.Event.Run.ID, c.dialect.time(h.Event.At), matched, kept)
		if err != nil {
			return false, fmt.Errorf("note event: %w", err)
		}
		kept = nil // once is enough
	}
	return matched, nil
}

// keptEvent is an event as the inbox holds it. What the run gave back stands beside
// it as bytes: in JSON an output that is absent would come back as null.
type keptEvent struct {
	Event         job.Event
	Output, Error []byte
}

func keepEvent(ev job.Event) (string, error) {
	kept := keptEvent{Event: ev, Output: ev.Run.Output, Error: ev.Run.Error}
	kept.Event.Run.Output, kept.Event.Run.Error = nil, nil
	text, err := json.Marshal(kept)
	if err != nil {
		return "", fmt.Errorf("keep event: %w", err)
	}
	return string(text), nil
}

func readKept(text string) (job.Event, error) {
	var kept keptEvent
	err := json.Unmarshal([]byte(text), &kept)
	kept.Event.Run.Output, kept.Event.Run.Error = kept.Output, kept.Error
	return kept.Event, err
}

// applyKept applies what the inbox kept for a run that has just found its row.
func (c *changeset) applyKept(ctx context.Context, j job.Job) error {
	rows, err := c.tx.QueryContext(ctx,
		"SELECT event FROM inbox WHERE run_id = $1 AND event IS NOT NULL ORDER BY received_at", j.RunID)
	if err != nil {
		return fmt.Errorf("read inbox: %w", err)
	}
	var kept []job.Event
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			rows.Close()
			return fmt.Errorf("read inbox: %w", err)
		}
		ev, err := readKept(text)
		if err != nil {
			rows.Close()
			return fmt.Errorf("read inbox: %w", err)
		}
		kept = append(kept, ev)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("read inbox: %w", err)
	}
	for _, ev := range kept {
		if _, err := c.apply(ctx, j.ID, ev); err != nil {
			return err
		}
	}
	if len(kept) == 0 {
		return nil
	}
	_, err = c.tx.ExecContext(ctx, "UPDATE inbox SET event = NULL WHERE run_id = $1 AND event IS NOT NULL", j.RunID)
	return err
}
