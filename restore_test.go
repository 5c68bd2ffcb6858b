package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/emulator"
)

// TestARestoredBackupMakesNoSecondRun goes back to a copy of the database in which a
// job was not sent yet, after its run has failed and freed the idempotency key.
func TestARestoredBackupMakesNoSecondRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withoutWebhook(), withTasks(map[string]emulator.Task{
			"bad": {Status: "FAILED", Error: &emulator.TaskError{Message: "no"}},
		}))
		w.faults(map[string]any{"match": map[string]any{"path": "/api/v1/tasks/"}, "kind": "status", "status": 401})
		j := w.triggerJob("bad")
		time.Sleep(time.Second)
		w.halt()
		copyFile(t, w.cfg.database, w.cfg.database+".backup")

		w.faults()
		w.boot()
		if first := w.wait(j.ID); first.Status != "FAILED" {
			t.Fatalf("the first life ends %s, want FAILED", first.Status)
		}
		w.halt()
		copyFile(t, w.cfg.database+".backup", w.cfg.database)
		for _, rest := range []string{"-wal", "-shm"} {
			_ = os.Remove(w.cfg.database + rest)
		}

		w.boot()
		again := w.wait(j.ID)
		if runs := w.remoteRuns(); len(runs) != 1 || again.TriggerRunID != runs[0].ID || again.Status != "FAILED" {
			t.Errorf("after the restore the job is %s with run %s; Trigger.dev has %d runs", again.Status, again.TriggerRunID, len(runs))
		}
	})
}

// TestARestoredBackupIsNoticedAfterManyRuns is the same where the backup is older than
// many runs: the newest ones say nothing of it.
func TestARestoredBackupIsNoticedAfterManyRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newQuietScene(t, withTasks(sceneTasks()))
		s.out.cut(errNoRoute)
		waiting := s.triggerJob("bad")
		synctest.Wait()
		backup := s.engine.backup(t, s.cfg.database)
		s.out.cut(nil)
		if first := s.wait(waiting.ID); first.Status != "FAILED" {
			t.Fatalf("the first life ends %s, want FAILED", first.Status)
		}
		for range 130 {
			s.triggerJob("ok")
		}
		time.Sleep(time.Minute)
		s.down()
		s.cfg.database = backup
		s.up()
		again := s.wait(waiting.ID)
		runs := 0
		for _, run := range s.truth() {
			if slices.Contains(run.Tags, fmt.Sprint(rowTagPrefix, waiting.ID)) {
				runs++
			}
		}
		if runs != 1 || again.Status != "FAILED" {
			t.Errorf("after the restore the job is %s and has %d runs, want FAILED and one", again.Status, runs)
		}
	})
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
