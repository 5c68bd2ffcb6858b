package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// restore goes back to the backup, lets that settle, and adds to the verdict what
// became of it. The runs that were made since are no longer known to any row.
func (w *proving) restore(ctx context.Context, within time.Duration, v *verdict) error {
	if err := w.server.terminate(ctx); err != nil {
		return err
	}
	if done, err := w.database.restore(ctx); err != nil || !done {
		return err
	}
	if err := w.start(ctx, ""); err != nil {
		return err
	}
	proof, err := w.proofOfLife(ctx)
	if err != nil {
		return err
	}
	if err := w.settle(ctx, within); err != nil {
		return fmt.Errorf("after a restore: %w", err)
	}
	p, err := w.restored(ctx, proof)
	v.promises = append(v.promises, p)
	return err
}

// proofOfLife schedules one more job. It may get the id of a row that is lost.
func (w *proving) proofOfLife(ctx context.Context) (row provingRow, err error) {
	body := `{"tag":"after-restore","type":"quick","executor":"trigger","triggerTaskId":"quick","persistent":true}`
	status, answer := w.host.insist(ctx, "/api/jobs", body, "after-restore")
	if status != http.StatusCreated {
		return row, fmt.Errorf("schedule a job after a restore: %d %s", status, answer)
	}
	return row, json.Unmarshal(answer, &row)
}

// restored checks that going back has made no second run of anything, and that the
// rows of the backup have ended as their runs.
func (w *proving) restored(ctx context.Context, proof provingRow) (clause, error) {
	p := clause{name: "    a restored backup doubles nothing"}
	runs, err := w.runs(ctx, "")
	if err != nil {
		return p, err
	}
	rows, err := w.host.rows(ctx)
	if err != nil {
		return p, err
	}
	byID, byKey := map[string]provingRun{}, map[string][]string{}
	for _, run := range runs {
		byID[run.ID], byKey[run.IdempotencyKey] = run, append(byKey[run.IdempotencyKey], run.ID)
	}
	for key, ids := range byKey {
		p.hold(len(ids) == 1, "the submits of %s have made runs %v", key, ids)
	}
	saysTruth(&p, rows, byID)
	is, err := w.host.read(ctx, proof.ID)
	p.hold(err == nil && is.Tag == "after-restore" && is.Status == "COMPLETED", "a job scheduled after the restore is %+v (%v)", is, err)
	return p, nil
}
