package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAJobRunsToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		j := w.triggerJob("process-large-dataset", "data", map[string]any{"datasetId": "123"})
		if j.TriggerRunID == "" || j.Status != "PENDING" {
			t.Fatalf("the reply has run %q and status %s, want a run, PENDING", j.TriggerRunID, j.Status)
		}
		done := w.wait(j.ID)
		if done.Status != "COMPLETED" || string(done.Result) != `{"processed":true,"datasetId":"123"}` {
			t.Errorf("got %s with %s", done.Status, done.Result)
		}
		if got := done.Finished.Sub(done.Started); got < 3*time.Second {
			t.Errorf("it took %s, want the task's 3 s", got)
		}
	})
}

// The guide's one-time job: it is due in a minute, so Trigger.dev holds it until
// then.
func TestAJobThatIsDueInAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		due := time.Now().Add(time.Minute).UTC()
		j := s.triggerJob("process-large-dataset", "tag", "dataset-123", "userId", 7, "due", due,
			"data", map[string]any{"datasetId": "123"}, "removeDelay", 60_000,
			"metadata", map[string]any{"team": "blue", "userId": 99, "dbJobId": false, "tag": nil},
			"labels", []string{"l1", "l2", "l3", "l4", "l5", "l6", "l7", "l8"},
			"retryConfig", map[string]any{"maxAttempts": 4, "factor": 2})
		if j.Status != "PENDING" || j.TriggerStatus != "PENDING" || j.TriggerRunID == "" || !j.Due.Equal(due) || j.Error != "" {
			t.Fatalf("the reply is %s, %s, run %q, due %s, error %q; want PENDING twice, a run, %s, none",
				j.Status, j.TriggerStatus, j.TriggerRunID, j.Due, j.Error, due)
		}
		contains(t, strings.Join(j.Warnings, "\n"), "maxAttempts", "first 6 labels")

		run := s.remoteRun(j.TriggerRunID)
		if run.Status != "DELAYED" || !run.DelayedUntil.Equal(due) {
			t.Errorf("the run is %s until %s, want DELAYED until %s", run.Status, run.DelayedUntil, due)
		}
		s.checkRequest(j, run)

		time.Sleep(30 * time.Second)
		if got := s.get(j.ID); got.Status != "PENDING" || got.TriggerRunID != run.ID || !got.Started.IsZero() {
			t.Errorf("half way it is %s with run %q, started %s; want PENDING, %q, not started", got.Status, got.TriggerRunID, got.Started, run.ID)
		}
		done := s.wait(j.ID)
		if done.Status != "COMPLETED" || string(done.Result) != `{"processed":true,"datasetId":"123"}` || done.Attempt != 1 {
			t.Errorf("it ended %s with %s after %d attempts", done.Status, done.Result, done.Attempt)
		}
		if done.Started.Before(due) || !done.RemoveAt.Equal(done.Finished.Add(time.Minute)) {
			t.Errorf("it started %s and may go at %s; want not before %s, and a minute after its end at %s",
				done.Started, done.RemoveAt, due, done.Finished)
		}
		time.Sleep(time.Minute)
		var told []string // twice each, but what comes second changes nothing
		for _, line := range s.history(j.ID) {
			if words := strings.Fields(line); line != "seen poll > queued" {
				told = append(told, words[0]+" > "+strings.Join(words[3:], " "))
			}
		}
		want := []string{"created > unsent", "submitted > queued", "told > running", "told > told completed", "seen > completed"}
		if !slices.Equal(told, want) {
			t.Errorf("history %q, want %q", told, want)
		}
	})
}

// checkRequest holds the request of the guide's job against what the contract says
// is sent.
func (s *scene) checkRequest(j seenJob, run remoteRun) {
	s.t.Helper()
	sent := s.out.calls("POST", "/api/v1/tasks/process-large-dataset/trigger")
	if len(sent) != 1 {
		s.t.Fatalf("there were %d submits, want 1", len(sent))
	}
	var body struct {
		Payload json.RawMessage
		Options map[string]json.RawMessage
	}
	if err := json.Unmarshal(sent[0].body, &body); err != nil {
		s.t.Fatalf("read the request %s: %v", sent[0].body, err)
	}
	if string(body.Payload) != `{"datasetId":"123"}` {
		s.t.Errorf("the payload is %s", body.Payload)
	}
	wantMembers := []string{"delay", "idempotencyKey", "maxAttempts", "metadata", "tags"}
	if got := slices.Sorted(maps.Keys(body.Options)); !slices.Equal(got, wantMembers) {
		s.t.Errorf("the options are %q, want %q", got, wantMembers)
	}
	if got, want := string(body.Options["delay"]), j.Due.Format(`"2006-01-02T15:04:05.000Z"`); got != want {
		s.t.Errorf("the delay is %s, want the instant %s", got, want)
	}
	if got := string(body.Options["maxAttempts"]); got != "4" {
		s.t.Errorf("maxAttempts is %s, want 4", got)
	}
	var tags []string
	key, installation := run.IdempotencyKey, ""
	for _, tag := range run.Tags {
		if strings.HasPrefix(tag, "sidejob:") {
			installation = tag
		}
	}
	if !strings.HasPrefix(key, "job-") || len(key) != len("job-")+36 || installation == "" {
		s.t.Errorf("the key is %q and the installation's tag %q; want job-UUID, sidejob:UUID", key, installation)
	}
	_ = json.Unmarshal(body.Options["tags"], &tags)
	wantTags := []string{"dataset-123", fmt.Sprint("db-id:", j.ID), installation, key, "l1", "l2", "l3", "l4", "l5", "l6"}
	if !slices.Equal(tags, wantTags) {
		s.t.Errorf("the tags are %q, want %q", tags, wantTags)
	}
	want := map[string]any{"team": "blue", "dbJobId": fmt.Sprint(j.ID), "tag": "dataset-123", "userId": "7"}
	if !maps.Equal(run.Metadata, want) {
		s.t.Errorf("the metadata is %v, want %v", run.Metadata, want)
	}
}

func TestATagThatTriggerDevWouldNotTakeIsHashedThereAndWholeHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		long, label := strings.Repeat("ü😀", 60), strings.Repeat("x", 129) // 180 units, 129 units
		fits := strings.Repeat("😀", 64)                                   // 128 units
		j := s.triggerJob("ok", "tag", long, "labels", []string{label, fits})
		if j.Tag != long || !slices.Equal(j.Labels, []string{label, fits}) {
			t.Errorf("the row has tag %q and labels %q", j.Tag, j.Labels)
		}
		run := s.remoteRun(j.TriggerRunID)
		hashed := 0
		for _, tag := range run.Tags {
			if strings.HasPrefix(tag, "sha256:") && len(tag) == len("sha256:")+64 {
				hashed++
			}
		}
		if hashed != 2 || !slices.Contains(run.Tags, fits) {
			t.Errorf("the run has %d hashed tags of %q, want 2 and the label that fits", hashed, run.Tags)
		}
		if got := run.Metadata["tag"]; got != long {
			t.Errorf("the metadata has the tag %q, want it whole", got)
		}
		if got := s.wait(j.ID); got.Status != "COMPLETED" {
			t.Errorf("it ended %s", got.Status)
		}
		var page struct{ Jobs []seenJob }
		s.call("GET", "/api/jobs?label="+label, nil).into(t, &page)
		if len(page.Jobs) != 1 || page.Jobs[0].ID != j.ID {
			t.Errorf("a search by the long label finds %d jobs, want this one", len(page.Jobs))
		}
	})
}

func TestDataReachesTheTaskAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		for _, data := range []string{
			`null`, `false`, `0`, `""`, `[]`, `{}`, `"60000"`, `[1,"<&>",null]`, `12345678901234567890`, `{"ü":"😀\u0000","n":1e300}`,
		} {
			j := s.schedule(fmt.Sprintf(`{"type":"echo","executor":"trigger","triggerTaskId":"echo","data":%s}`, data))
			done := s.wait(j.ID)
			if string(done.Data) != data || string(done.Result) != data {
				t.Errorf("data %s is kept as %s and comes back as %s", data, done.Data, done.Result)
			}
		}
	})
}

// One hour without Trigger.dev, while hosts go on asking for work.
func TestAnHourWithoutTriggerDev(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		running := s.triggerJob("half-hour")
		delayed := s.triggerJob("ok", "due", time.Now().Add(30*time.Minute))
		unwanted := s.triggerJob("stays", "tag", "unwanted")
		time.Sleep(10 * time.Second)
		s.wantReady("ready")

		s.faults(fault("", "", "reset"))
		s.in.cut(errNoRoute)
		s.out.forget()
		var waiting []int64
		for i := range 6 {
			r := s.call("POST", "/api/jobs?waitMs=1", map[string]any{"type": "ok", "executor": "trigger", "triggerTaskId": "ok"})
			if r.status != http.StatusCreated {
				t.Fatalf("schedule job %d without Trigger.dev: %d %s", i, r.status, r.body)
			}
			waiting = append(waiting, s.view(r).ID)
			time.Sleep(10 * time.Minute)
		}
		if r := s.call("POST", fmt.Sprintf("/api/jobs/%d/cancel", unwanted.ID), nil); r.status != http.StatusAccepted {
			t.Errorf("cancel without Trigger.dev: %d %s, want 202", r.status, r.body)
		}
		s.wantReady("degraded", "Trigger.dev has not answered since", "connection reset")
		for _, id := range append(waiting, running.ID, delayed.ID, unwanted.ID) {
			if j := s.get(id); !j.Finished.IsZero() {
				t.Errorf("job %d has ended %s with %s while Trigger.dev was down", id, j.Status, j.Result)
			}
		}
		if j := s.get(waiting[0]); j.Error == "" || j.Status != "PENDING" || j.TriggerRunID != "" {
			t.Errorf("the oldest waiting job is %s with run %q and error %q; want PENDING, none, and why", j.Status, j.TriggerRunID, j.Error)
		}
		if n := len(s.out.calls("", "")); n > 1500 {
			t.Errorf("%d requests in an hour of silence: it hammers", n)
		}

		s.faults()
		s.in.cut(nil)
		time.Sleep(6 * time.Minute) // an old run is asked about once in a sync interval
		s.wantReady("ready")
		for _, id := range append(waiting, running.ID, delayed.ID) {
			if j := s.get(id); j.Status != "COMPLETED" || j.Error != "" {
				t.Errorf("job %d is %s with error %q after the outage, want COMPLETED", id, j.Status, j.Error)
			}
		}
		s.wantTruth()
	})
}
