package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/emulator"
)

// raceCount is how many cancels race a completion; 10,000 take about a minute.
func raceCount() *int {
	return flag.Int("races", 250, "how many cancels race in TestACancelThatRacesACompletionTellsTheTruth")
}

var races = raceCount()

// TestACancelThatRacesACompletionTellsTheTruth cancels runs of 50 ms at about the
// moment of their end. Whoever wins, the row says what the emulator says.
func TestACancelThatRacesACompletionTellsTheTruth(t *testing.T) {
	t.Parallel()
	const atOnce = 250
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withTasks(map[string]emulator.Task{"short": {DurationMs: 50, Output: []byte(`"done"`)}}),
			func(w *world) { w.mock.RateLimit = -1 })
		dice := rand.New(rand.NewPCG(10_000, 1))
		ends := map[string]int{}
		for done := 0; done < *races; done += atOnce {
			var jobs []seenJob
			for range min(atOnce, *races-done) {
				jobs = append(jobs, w.triggerJob("short"))
			}
			synctest.Wait()
			for _, j := range jobs {
				time.Sleep(time.Duration(dice.IntN(1000)) * time.Microsecond)
				w.call("POST", fmt.Sprintf("/api/jobs/%d/cancel?waitMs=0", j.ID), "{}")
			}
			for _, j := range jobs {
				ends[w.wait(j.ID).Status]++
			}
		}
		time.Sleep(time.Minute)
		truth := map[string]remoteRow{}
		var body struct{ Runs []remoteRow }
		callHandler(t, w.emu, "GET", "/emulator/runs", nil).into(t, &body)
		for _, run := range body.Runs {
			truth[run.ID] = run
		}
		for id := range int64(*races) {
			row := w.get(id + 1)
			run := truth[row.TriggerRunID]
			if row.TriggerRawStatus != run.Status || (row.Status == "COMPLETED") != (run.Status == "COMPLETED") {
				t.Errorf("job %d is %s (%s); the emulator says %s", row.ID, row.Status, row.TriggerRawStatus, run.Status)
			}
		}
		t.Logf("%d races: %v", *races, ends)
		if ends["COMPLETED"] == 0 || ends["CANCELED"] == 0 {
			t.Errorf("nobody raced: %v", ends)
		}
	})
}
