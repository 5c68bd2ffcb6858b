package main

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestScheduleListShowsTheOpenRecurringJobs(t *testing.T) {
	row := func(change map[string]any) string {
		all := map[string]any{"cronSchedule": "0 9 * * *", "timezone": "Europe/Berlin", "executor": "internal", "triggerRunId": nil, "misfire": "once", "scheduleId": 7}
		for name, value := range change {
			all[name] = value
		}
		return jobReply(200, all).body
	}
	pages := map[string]reply{
		"GET /api/jobs?finished=false&limit=200&order=due&recurring=true": {200, `{"jobs":[` + row(nil) + `,` +
			row(map[string]any{"paused": true}) + `,` + row(map[string]any{"missedAt": "2026-03-01T09:01:00.000Z"}) + `,` +
			row(map[string]any{"status": "EXECUTING"}) + `],"nextCursor":"c1"}`},
		"GET /api/jobs?cursor=c1&finished=false&limit=200&order=due&recurring=true": {200, `{"jobs":[` +
			row(map[string]any{"executor": "trigger"}) + `,` +
			row(map[string]any{"executor": "trigger", "triggerScheduleId": "sched_1"}) + `,` +
			row(map[string]any{"executor": "trigger", "triggerScheduleId": "sched_1", "cancelRequested": true}) + `,` +
			row(map[string]any{"executor": "trigger", "fireLocally": true}) + `],"nextCursor":null}`},
	}
	t.Run("as a table", func(t *testing.T) {
		got := at(t, newFakeAPI(t, pages).URL).run("schedule", "list")
		wantCode(t, got, 0)
		want := `ID  TAG         TYPE        EXECUTOR  CRON       TIMEZONE       DUE                       STATE                   SCHEDULE
7   welcome-42  send-email  internal  0 9 * * *  Europe/Berlin  2026-03-01T09:00:00.000Z  waiting                 
7   welcome-42  send-email  internal  0 9 * * *  Europe/Berlin  2026-03-01T09:00:00.000Z  paused                  
7   welcome-42  send-email  internal  0 9 * * *  Europe/Berlin  2026-03-01T09:00:00.000Z  missed                  
7   welcome-42  send-email  internal  0 9 * * *  Europe/Berlin  2026-03-01T09:00:00.000Z  running                 
7   welcome-42  send-email  trigger   0 9 * * *  Europe/Berlin  2026-03-01T09:00:00.000Z  not on Trigger.dev yet  
7   welcome-42  send-email  trigger   0 9 * * *  Europe/Berlin  2026-03-01T09:00:00.000Z  waiting                 sched_1
7   welcome-42  send-email  trigger   0 9 * * *  Europe/Berlin  2026-03-01T09:00:00.000Z  ending                  sched_1
7   welcome-42  send-email  trigger   0 9 * * *  Europe/Berlin  2026-03-01T09:00:00.000Z  waiting                 
`
		if d := cmp.Diff(want, got.out); d != "" {
			t.Errorf("table (-want +got):\n%s", d)
		}
	})
	t.Run("as JSON", func(t *testing.T) {
		got := at(t, newFakeAPI(t, pages).URL).run("schedule", "list", "-o", "json")
		wantCode(t, got, 0)
		var page struct{ Jobs []shownJob }
		if err := json.Unmarshal([]byte(got.out), &page); err != nil || len(page.Jobs) != 8 {
			t.Errorf("got %s, error %v; want a list of 8", got.out, err)
		}
	})
}

func TestScheduleCallsTheServer(t *testing.T) {
	for _, c := range []struct {
		args  []string
		call  string
		reply reply
		note  string
	}{
		{[]string{"pause", "7"}, "POST /api/jobs/7/pause", jobReply(200, map[string]any{"paused": true}), ""},
		{[]string{"resume", "7"}, "POST /api/jobs/7/resume", jobReply(200, nil), ""},
		{[]string{"delete", "7"}, "DELETE /api/jobs/7/schedule", endedReply("CANCELED", map[string]any{"canceled": true}), ""},
		{[]string{"delete", "7"}, "DELETE /api/jobs/7/schedule", jobReply(200, map[string]any{"status": "EXECUTING"}), "job 7 is the last occurrence and still runs"},
		{[]string{"delete", "7", "--wait-ms=0"}, "DELETE /api/jobs/7/schedule?waitMs=0", jobReply(200, map[string]any{"cancelRequested": true}), "has not deleted the schedule yet"},
	} {
		t.Run(fmt.Sprint(c.args, c.note), func(t *testing.T) {
			api := newFakeAPI(t, map[string]reply{c.call: c.reply})
			got := at(t, api.URL).run(append([]string{"schedule"}, c.args...)...)
			wantCode(t, got, 0)
			wantContains(t, "stdout", got.out, "id", "7", "welcome-42")
			wantContains(t, "stderr", got.err, c.note)
			if c.note == "" && got.err != "" {
				t.Errorf("got on stderr %q, want nothing", got.err)
			}
			api.only(t)
		})
	}
	for _, does := range []string{"pause", "resume", "delete"} {
		got := at(t, newFakeAPI(t, nil).URL).run("schedule", does, "9")
		wantCode(t, got, 3)
	}
}

// TestScheduleOnARealServer goes the whole way once.
func TestScheduleOnARealServer(t *testing.T) {
	w := newWorld(t)
	j := w.every("0 9 * * *", `,"timezone":"Asia/Tokyo"`)
	server := httptest.NewServer(w.srv.private)
	defer server.Close()
	terminal, id := at(t, server.URL), fmt.Sprint(j.ID)
	wantContains(t, "list", terminal.run("schedule", "list").out, "again", "0 9 * * *", "Asia/Tokyo", "waiting")
	wantContains(t, "pause", terminal.run("schedule", "pause", id).out, "PENDING, paused")
	wantContains(t, "list", terminal.run("schedule", "list").out, "paused")
	wantContains(t, "get", terminal.run("job", "get", id).out, "0 9 * * * (Asia/Tokyo), misfire once")
	wantContains(t, "resume", terminal.run("schedule", "resume", id, "-o", "json").out, `"paused":false`)
	wantContains(t, "delete", terminal.run("schedule", "delete", id).out, "CANCELED")
	if got := terminal.run("schedule", "list").out; got != "ID  TAG  TYPE  EXECUTOR  CRON  TIMEZONE  DUE  STATE  SCHEDULE\n" {
		t.Errorf("got %q, want none left", got)
	}
	got := terminal.run("schedule", "pause", id)
	wantCode(t, got, 1)
	wantContains(t, "stderr", got.err, "it has ended")
}

func TestSchedulePreview(t *testing.T) {
	night := []string{"schedule", "preview", "*/30 */2 * * *", "--timezone=Europe/Berlin", "--from=2026-10-24T22:30:00Z", "--count=5"}
	t.Run("as a table, without a server", func(t *testing.T) {
		got := at(t, "http://127.0.0.1:1").run(night...)
		wantCode(t, got, 0)
		want := `LOCAL                      UTC                   NOTE
2026-10-25T02:00:00+02:00  2026-10-25T00:00:00Z  repeated hour
2026-10-25T02:30:00+02:00  2026-10-25T00:30:00Z  repeated hour
2026-10-25T02:00:00+01:00  2026-10-25T01:00:00Z  repeated hour
2026-10-25T02:30:00+01:00  2026-10-25T01:30:00Z  repeated hour
2026-10-25T04:00:00+01:00  2026-10-25T03:00:00Z  

on 2026-10-25 the clock shows twice 02:00 to 03:00: Trigger.dev may skip or double times there, sidejob does neither
on 2027-03-28 the clock leaves out 02:00 to 03:00: Trigger.dev may skip or double times there, sidejob does neither
`
		if d := cmp.Diff(want, got.out); d != "" {
			t.Errorf("table (-want +got):\n%s", d)
		}
	})
	t.Run("as JSON, it is what the API answers", func(t *testing.T) {
		w := newWorld(t)
		got := at(t, "http://127.0.0.1:1").run(append(night, "-o", "json")...)
		wantCode(t, got, 0)
		r := w.call("POST", "/api/cron/preview", `{"cronSchedule":"*/30 */2 * * *","timezone":"Europe/Berlin","from":"2026-10-24T22:30:00Z","count":5}`)
		var fromAPI, printed seenPreview
		r.into(t, &fromAPI)
		answer{body: []byte(got.out)}.into(t, &printed)
		if d := cmp.Diff(fromAPI, printed); d != "" {
			t.Errorf("(-API +command):\n%s", d)
		}
	})
	t.Run("what cannot be is a usage error that names what is wrong", func(t *testing.T) {
		for _, c := range []struct {
			args []string
			says string
		}{
			{[]string{"0 0 30 2 *"}, "CRON: "},
			{[]string{"@daily", "--timezone=Mars/Base"}, "--timezone: "},
			{[]string{"0 0 9 * * *", "--executor=trigger"}, "CRON: CRON expressions with seconds are not allowed"},
			{[]string{"@daily", "--fire-locally"}, "--fire-locally: "},
		} {
			got := at(t, "http://127.0.0.1:1").run(append([]string{"schedule", "preview"}, c.args...)...)
			wantCode(t, got, 2)
			wantContains(t, "stderr", got.err, c.says)
		}
		wantCode(t, at(t, "http://127.0.0.1:1").run("schedule", "preview", "0 0 9 * * *", "--executor=trigger", "--fire-locally"), 0)
	})
}
