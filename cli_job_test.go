package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestScheduleSendsOnlyWhatWasGiven(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"the least", []string{"--type=send-email"}, `{"type":"send-email"}`},
		{"a name of the registry alone", []string{"--name=report"}, `{"name":"report"}`},
		{"values that are zero", []string{"--type=a", "--tag=", "--user-id=0", "--no-persistent", "--remove-delay=0", "--data=null"},
			`{"type":"a","tag":"","userId":0,"persistent":false,"removeDelay":0,"data":null}`},
		{"everything", []string{
			"--tag", "daily", "--type", "report", "--user-id", "42", "--executor", "trigger", "--trigger-task-id", "report-task",
			"--data", `{"n": 12345678901234567890}`, "--due", "2026-03-01T10:00:00+01:00", "--retry-config", `{"maxAttempts":3}`,
			"--persistent", "--remove-delay=-5", "--auto-reschedule-on-failure", "--auto-reschedule-on-failure-delay", "1000",
			"--cron-schedule", "0 9 * * *", "--timezone", "Europe/Berlin", "--metadata", `{"a":1}`, "--labels", "x,y", "--labels", "z",
			"--on-conflict", "replaceAll", "--name", "r", "--misfire", "all", "--misfire-limit", "10", "--fire-locally",
		}, `{"tag":"daily","type":"report","userId":42,"executor":"trigger","triggerTaskId":"report-task","data":{"n":12345678901234567890},
			"due":"2026-03-01T09:00:00.000Z","retryConfig":{"maxAttempts":3},"persistent":true,"removeDelay":-5,"autoRescheduleOnFailure":true,
			"autoRescheduleOnFailureDelay":1000,"cronSchedule":"0 9 * * *","timezone":"Europe/Berlin","metadata":{"a":1},"labels":["x","y","z"],
			"onConflict":"replaceAll","name":"r","misfire":"all","misfireLimit":10,"fireLocally":true}`},
		{"a due time in milliseconds", []string{"--type=a", "--due=1772355600000"}, `{"type":"a","due":"2026-03-01T09:00:00.000Z"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			api := newFakeAPI(t, map[string]reply{"POST /api/jobs": jobReply(201, nil)})
			got := at(t, api.URL).run(append([]string{"job", "schedule"}, c.args...)...)
			wantCode(t, got, 0)
			sent := api.only(t)
			if d := cmp.Diff(membersOf(t, c.want), membersOf(t, sent.Body)); d != "" {
				t.Errorf("body (-want +got):\n%s", d)
			}
			if sent.Query != "" || sent.Header.Get("Content-Type") != "application/json" {
				t.Errorf("got query %q and type %q, want none and application/json", sent.Query, sent.Header.Get("Content-Type"))
			}
		})
	}
}

// membersOf has the members of an object, each as compact JSON, digits untouched.
func membersOf(t *testing.T, text string) map[string]string {
	t.Helper()
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	members := map[string]string{}
	for name, value := range raw {
		members[name] = strings.Join(strings.Fields(string(value)), "")
	}
	return members
}

func TestScheduleTakesItsDataFrom(t *testing.T) {
	t.Run("a file", func(t *testing.T) {
		api := newFakeAPI(t, map[string]reply{"POST /api/jobs": jobReply(201, nil)})
		terminal := at(t, api.URL)
		if err := os.WriteFile("data.json", []byte("{\"from\": \"file\"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		wantCode(t, terminal.run("job", "schedule", "--type=a", "--data=@data.json"), 0)
		wantContains(t, "body", api.only(t).Body, `"data":{"from":"file"}`)
	})
	t.Run("standard input", func(t *testing.T) {
		api := newFakeAPI(t, map[string]reply{"POST /api/jobs": jobReply(201, nil)})
		terminal := at(t, api.URL)
		terminal.in = `["from","input"]`
		wantCode(t, terminal.run("job", "schedule", "--type=a", "--data=@-"), 0)
		wantContains(t, "body", api.only(t).Body, `"data":["from","input"]`)
	})
}

func TestATimeFromNowOn(t *testing.T) {
	now := instantOf(t, "2026-03-01T09:00:00.5Z")
	for text, want := range map[string]string{
		"+1m": "2026-03-01T09:01:00.500Z", "+2h30m": "2026-03-01T11:30:00.500Z", "-1h": "2026-03-01T08:00:00.500Z", "+0s": "2026-03-01T09:00:00.500Z",
	} {
		var m moment
		if err := m.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := m.from(now); got != want {
			t.Errorf("got %s for %s, want %s", got, text, want)
		}
	}
}

func TestScheduleTells(t *testing.T) {
	t.Run("of warnings, and shows the job", func(t *testing.T) {
		api := newFakeAPI(t, map[string]reply{"POST /api/jobs": jobReply(201, map[string]any{"warnings": []string{"labels: too many"}})})
		got := at(t, api.URL).run("job", "schedule", "--type=a", "--wait-ms=500")
		wantCode(t, got, 0)
		if got.err != "warning: labels: too many\n" {
			t.Errorf("got on stderr %q, want the warning", got.err)
		}
		wantContains(t, "stdout", got.out, "id        7\n", "run       run_1\n")
		if q := api.only(t).Query; q != "waitMs=500" {
			t.Errorf("got query %q, want waitMs=500", q)
		}
	})
	t.Run("that the job was kept", func(t *testing.T) {
		api := newFakeAPI(t, map[string]reply{"POST /api/jobs": jobReply(200, nil)})
		got := at(t, api.URL).run("job", "schedule", "--type=a", "--on-conflict=keep")
		wantCode(t, got, 0)
		wantContains(t, "stderr", got.err, "job 7 of this tag was there already")
	})
}

func TestGet(t *testing.T) {
	t.Run("as JSON it is the API's own body", func(t *testing.T) {
		body := `{ "id":7, "status":"PENDING", "later": 1.50 }`
		api := newFakeAPI(t, map[string]reply{"GET /api/jobs/7": {200, body + "\n"}})
		got := at(t, api.URL).run("job", "get", "7", "-o", "json")
		wantCode(t, got, 0)
		if got.out != body+"\n" {
			t.Errorf("got %q, want %q", got.out, body)
		}
	})
	t.Run("as a table it leaves out what is not set", func(t *testing.T) {
		text := new(strings.Builder)
		j := shownJobOf(t, endedReply("FAILED", map[string]any{"error": "smtp\x1b down", "reason": "FAILED"}))
		j.Attempt = 3
		if err := writeJob(text, j, instantOf(t, "2026-03-01T09:05:04Z")); err != nil {
			t.Fatal(err)
		}
		want := `id          7
status      FAILED, attempt 3
type        send-email
tag         welcome-42
user        42
executor    trigger, task send-email
run         run_1
data        {"to":"a@b.c"}
created     2026-03-01T09:00:00.000Z (5m04s ago)
due         2026-03-01T09:00:00.000Z (5m04s ago)
started     2026-03-01T09:00:01.000Z (5m03s ago)
finished    2026-03-01T09:00:04.000Z (5m00s ago) after 3.0s
kept until  2026-03-01T10:00:04.000Z
result      {"error":"smtp\u001b down","reason":"FAILED"}
`
		if d := cmp.Diff(want, text.String()); d != "" {
			t.Errorf("table (-want +got):\n%s", d)
		}
	})
}

func shownJobOf(t *testing.T, r reply) (j shownJob) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), &j); err != nil {
		t.Fatal(err)
	}
	return j
}

func TestList(t *testing.T) {
	t.Run("sends the filters that were given", func(t *testing.T) {
		api := newFakeAPI(t, map[string]reply{"GET /api/jobs": {200, `{"jobs":[],"nextCursor":null}`}})
		got := at(t, api.URL).run("job", "list", "--executor=trigger", "--status=failed", "--type=a b", "--tag=t&u", "--name=n", "--user-id=0",
			"--no-finished", "--success", "--recurring", "--schedule-id=3", "--label=l", "--created-after=2026-03-01T09:00:00Z", "--created-before=1772355600000",
			"--order=due", "--limit=5", "--cursor=abc")
		wantCode(t, got, 0)
		want := queryOf(t, "executor=trigger&status=FAILED&type=a+b&tag=t%26u&name=n&userId=0&finished=false&success=true&recurring=true&scheduleId=3&label=l"+
			"&createdAfter=2026-03-01T09:00:00.000Z&createdBefore=2026-03-01T09:00:00.000Z&order=due&limit=5&cursor=abc")
		if d := cmp.Diff(want, queryOf(t, api.only(t).Query)); d != "" {
			t.Errorf("query (-want +got):\n%s", d)
		}
	})
	pages := map[string]reply{
		"GET /api/jobs":                        {200, `{"jobs":[` + jobReply(0, nil).body + `],"nextCursor":"c1"}`},
		"GET /api/jobs?limit=200":              {200, `{"jobs":[{"id":3,"big":12345678901234567890}],"nextCursor":"c1"}`},
		"GET /api/jobs?cursor=c1&limit=200":    {200, `{"jobs":[{"id":2}],"nextCursor":"c2"}`},
		"GET /api/jobs?cursor=c2&limit=200":    {200, `{"jobs":[{"id":1}],"nextCursor":null}`},
		"GET /api/jobs?cursor=loop&limit=200":  {200, `{"jobs":[],"nextCursor":"loop"}`},
		"GET /api/jobs?cursor=empty&limit=200": {200, `{"jobs":[],"nextCursor":null}`},
	}
	t.Run("shows a page, and how to go on", func(t *testing.T) {
		got := at(t, newFakeAPI(t, pages).URL).run("job", "list")
		wantCode(t, got, 0)
		want := "ID  STATUS   EXECUTOR  TYPE        TAG         DUE                       RUN\n" +
			"7   PENDING  trigger   send-email  welcome-42  2026-03-01T09:00:00.000Z  run_1\n"
		if d := cmp.Diff(want, got.out); d != "" {
			t.Errorf("table (-want +got):\n%s", d)
		}
		wantContains(t, "stderr", got.err, "--cursor=c1")
	})
	t.Run("puts all pages into one", func(t *testing.T) {
		got := at(t, newFakeAPI(t, pages).URL).run("job", "list", "--all", "-o", "json")
		wantCode(t, got, 0)
		if want := `{"jobs":[{"id":3,"big":12345678901234567890},{"id":2},{"id":1}],"nextCursor":null}` + "\n"; got.out != want {
			t.Errorf("got %s, want %s", got.out, want)
		}
	})
	t.Run("of no jobs is an empty array", func(t *testing.T) {
		got := at(t, newFakeAPI(t, pages).URL).run("job", "list", "--all", "--cursor=empty", "-ojson")
		if want := `{"jobs":[],"nextCursor":null}` + "\n"; got.out != want {
			t.Errorf("got %s, want %s", got.out, want)
		}
	})
	t.Run("does not go round in circles", func(t *testing.T) {
		wantCode(t, at(t, newFakeAPI(t, pages).URL).run("job", "list", "--all", "--cursor=loop"), 1)
	})
}

func TestCancel(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer reply
		err    string
	}{
		{"that is settled says nothing more", endedReply("CANCELED", map[string]any{"canceled": true}), ""},
		{"that Trigger.dev has yet to confirm says so", jobReply(202, map[string]any{"cancelRequested": true}), "Trigger.dev has not confirmed the cancel yet"},
		{"that came too late says so", endedReply("COMPLETED", nil), "job 7 is COMPLETED: nothing was left to cancel"},
	} {
		t.Run(c.name, func(t *testing.T) {
			api := newFakeAPI(t, map[string]reply{"POST /api/jobs/7/cancel": c.answer})
			got := at(t, api.URL).run("job", "cancel", "7", "--wait-ms=0")
			wantCode(t, got, 0)
			wantContains(t, "stdout", got.out, "run_1")
			if c.err == "" && got.err != "" {
				t.Errorf("got on stderr %q, want nothing", got.err)
			}
			wantContains(t, "stderr", got.err, c.err)
			if sent := api.only(t); sent.Query != "waitMs=0" || sent.Body != "" {
				t.Errorf("got %+v, want waitMs=0 and no body", sent)
			}
		})
	}
}

func TestRetryShowsTheNewJob(t *testing.T) {
	api := newFakeAPI(t, map[string]reply{"POST /api/jobs/7/retry": jobReply(201, map[string]any{"id": 8, "rescheduledFromJob": 7})})
	got := at(t, api.URL).run("job", "retry", "7")
	wantCode(t, got, 0)
	wantContains(t, "stdout", got.out, "id        8\n", "follows   job 7\n")
}

func TestSweeps(t *testing.T) {
	good := `{"totalJobs":5,"syncedJobs":2,"failedJobs":0,"orphanedJobs":1,"completedJobs":2,"errors":[],"dispatchedJobs":3,"skippedJobs":0,"remoteOrphans":4,"schedules":6,"schedulesRepaired":1,"remoteSchedules":2,"schedulesDeleted":3,"durationMs":1500}`
	bad := `{"totalJobs":5,"syncedJobs":4,"failedJobs":1,"orphanedJobs":0,"completedJobs":0,"errors":[{"jobId":7,"error":"timed out"}],"durationMs":1}`
	api := newFakeAPI(t, map[string]reply{
		"POST /api/reconcile": {200, good}, "POST /api/reconcile?dryRun=true": {200, bad}, "POST /api/sync": {200, bad},
	})
	terminal := at(t, api.URL)
	t.Run("are reported", func(t *testing.T) {
		got := terminal.run("reconcile")
		wantCode(t, got, 0)
		want := `total                    5
synced                   2
completed                2
failed to ask            0
orphaned                 1
dispatched               3
skipped                  0
runs without a row       4
schedules                6
schedules repaired       1
schedules without a row  2
schedules deleted        3
took                     1.5s
`
		if d := cmp.Diff(want, got.out); d != "" {
			t.Errorf("report (-want +got):\n%s", d)
		}
	})
	t.Run("fail with the jobs that could not be asked about", func(t *testing.T) {
		for _, command := range []string{"sync", "reconcile --dry-run"} {
			got := terminal.run(strings.Fields(command)...)
			wantCode(t, got, 1)
			wantContains(t, "stdout", got.out, "job 7", "timed out")
			wantContains(t, "stderr", got.err, "1 of 5 jobs could not be asked about")
		}
	})
	t.Run("as JSON are the API's own body", func(t *testing.T) {
		if got := terminal.run("reconcile", "-ojson"); got.out != good+"\n" {
			t.Errorf("got %q, want %q", got.out, good)
		}
	})
}

func TestSpans(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0ms", 999 * time.Millisecond: "999ms", 1550 * time.Millisecond: "1.5s", 9999 * time.Millisecond: "9.9s",
		59 * time.Second: "59s", 60 * time.Second: "1m00s", 3599 * time.Second: "59m59s", time.Hour: "1h00m", 25 * time.Hour: "1d01h",
	} {
		if got := spanText(d); got != want {
			t.Errorf("got %q for %v, want %q", got, d, want)
		}
	}
}
