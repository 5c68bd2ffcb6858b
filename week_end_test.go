package main

import (
	"encoding/json"
	"strings"
	"time"

	"sidejob/internal/job"
)

// note remembers how jobs have ended, once Trigger.dev has confirmed it, and checks
// that those which had ended have not changed.
func (w *week) note() {
	for _, j := range w.rows() {
		is := j.Status + " " + string(j.Result)
		then, known := w.ended[j.ID]
		switch {
		case known && then.as != is:
			w.t.Errorf("job %d had ended %s and is now %s; history %q", j.ID, then.as, is, w.history(j.ID))
			w.ended[j.ID] = seenEnd{is, then.at} // once is enough
		case known || !hasEnded(j):
		case !j.Persistent && time.Until(j.RemoveAt) < time.Second: // it may be gone by now
		case isOrphan(j):
			if w.misses(j.TriggerRunID) == 0 {
				w.t.Errorf("job %d was given up, and Trigger.dev has its run %s; history %q", j.ID, j.TriggerRunID, w.history(j.ID))
			}
		default:
			if told := w.history(j.ID); !strings.Contains(told[len(told)-1], "> told ") {
				j = w.get(j.ID) // it may have been confirmed since the row was read
				w.ended[j.ID] = seenEnd{j.Status + " " + string(j.Result), time.Now()}
			}
		}
	}
}

// clearUp ends the troubles and gives sidejob time for all that is left: to send, to
// ask, and to remove what was to be kept for an hour.
func (w *week) clearUp() {
	w.calm()
	w.bringLate()
	w.sweepReport("reconcile")
	w.live(time.Minute, 10*time.Second)
	time.Sleep(150 * time.Minute)
	w.note()
}

// restoreBackup brings an older copy back. Rows made since are gone, and their runs
// are reported; rows that say that they were never sent are not sent again.
func (w *week) restoreBackup() {
	w.ask("stays", nil) // a run that will have no row
	time.Sleep(time.Minute)
	w.down()
	w.cfg.database = w.backup
	w.up()
	time.Sleep(time.Hour)
	without := 0
	rows := map[string]seenJob{}
	for _, j := range w.rows() {
		rows[j.TriggerRunID] = j
	}
	for _, run := range w.truth() {
		j, has := rows[run.ID]
		delete(rows, run.ID)
		switch {
		case has:
			w.wantAgrees(j, run)
		case !job.Status(tableStatus(run.Status)).Final():
			without++
		}
	}
	delete(rows, "") // canceled before they were sent
	for run, j := range rows {
		w.t.Errorf("after the restore job %d has run %q, which Trigger.dev does not", j.ID, run)
	}
	w.wantOneRunForEachKey()
	if r := w.sweepReport("reconcile"); r.RemoteOrphans != without || without == 0 {
		w.t.Errorf("after the restore %d runs are reported without a row, want %d, and some", r.RemoteOrphans, without)
	}
}

// wantOneRunForEachKey checks that no idempotency key made two runs.
func (w *week) wantOneRunForEachKey() {
	w.t.Helper()
	first := map[string]remoteRow{}
	for _, run := range w.truth() {
		if one, twice := first[run.IdempotencyKey]; twice {
			w.t.Errorf("runs %s (%s) and %s (%s) of %v have one idempotency key", one.ID, one.Status, run.ID, run.Status, run.Tags)
		}
		first[run.IdempotencyKey] = run
	}
}

// wantPromises checks that no job is lost, that brief ones are gone, that canceled
// work stays canceled, and that the log tells no secrets.
func (w *week) wantPromises() {
	w.t.Helper()
	rows, runs := map[int64]seenJob{}, map[string]remoteRow{}
	for _, j := range w.rows() {
		rows[j.ID] = j
	}
	for _, run := range w.truth() {
		runs[run.ID] = run
	}
	for _, id := range w.jobs {
		if _, there := rows[id]; !there {
			w.t.Errorf("job %d was acknowledged and is gone", id)
		}
	}
	for _, id := range w.brief {
		if j, there := rows[id]; there {
			w.t.Errorf("job %d, ended %s, was to be removed at %s and is still there", id, j.Finished, j.RemoveAt)
		}
	}
	for id, end := range w.ended {
		run := runs[rows[id].TriggerRunID]
		const lastBreath = time.Second // of a worker that is told to stop
		if strings.HasPrefix(end.as, "CANCELED") && (run.UpdatedAt.After(end.at.Add(lastBreath)) || w.lastSent(run.IdempotencyKey).After(end.at)) {
			w.t.Errorf("job %d was canceled by %s; its run %s changed at %s and was asked for at %s", id, end.at, run.ID, run.UpdatedAt, w.lastSent(run.IdempotencyKey))
		}
	}
	w.wantOneRunForEachKey()
	for _, secret := range []string{weekPayload, worldSecret, "tr_dev_test", "no good"} {
		if at := strings.Index(w.log.String(), secret); at >= 0 {
			w.t.Errorf("the log says %q: …%.300s", secret, w.log.String()[max(0, at-200):])
		}
	}
}

// wantTroubles checks that the week was not too quiet to prove anything.
func (w *week) wantTroubles() {
	w.t.Helper()
	for _, j := range w.rows() {
		w.count("ended " + j.TriggerRawStatus)
		if j.CancelRequested && j.Status == "COMPLETED" {
			w.count("cancel too late")
		}
	}
	struck, all := w.counts(), allTroubles()
	if _, can := w.engine.(postgresDatabases); can {
		all = append(all, "database away")
	}
	for _, what := range all {
		if struck[what] == 0 {
			w.t.Errorf("%s: not once in the week, which was too quiet to prove anything", what)
		}
	}
	text, _ := json.Marshal(struck)
	w.t.Logf("%d jobs, %d brief ones, in %s: %s", len(w.jobs), len(w.brief), time.Since(w.begun), text)
}
