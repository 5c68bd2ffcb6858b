package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sidejob/internal/job"
)

// line is one line of a history as the API writes it. from may be empty.
func line(at, kind, source, from, to, detail string) string {
	text, err := json.Marshal(map[string]any{
		"id": 1, "at": "2026-03-01T" + at + "Z", "kind": kind, "source": source, "from": orNothing(from), "to": to, "detail": json.RawMessage(detail),
	})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func orNothing(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func storyOf(t *testing.T, row reply, lines ...string) story {
	t.Helper()
	s := story{job: shownJobOf(t, row)}
	if err := json.Unmarshal([]byte("["+strings.Join(lines, ",")+"]"), &s.lines); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhyTellsAStory(t *testing.T) {
	worker := func(change map[string]any) reply {
		own := map[string]any{"executor": "internal", "triggerTaskId": nil, "triggerRunId": nil, "triggerRawStatus": nil, "userId": 0}
		for name, value := range change {
			own[name] = value
		}
		return jobReply(200, own)
	}
	for _, c := range []struct {
		name  string
		row   reply
		lines []string
		want  string
	}{
		{
			"of a run that failed, which an event told first",
			jobReply(200, map[string]any{
				"status": "FAILED", "due": "2026-03-01T09:00:10.000Z", "started": "2026-03-01T09:00:12.000Z", "finished": "2026-03-01T09:00:15.500Z",
				"attempt": 3, "triggerTaskId": "mailer", "result": map[string]any{"error": map[string]any{"message": "smtp down"}, "reason": "CRASHED"},
			}),
			[]string{
				line("09:00:00.000", "created", "api", "", "unsent", `{"rescheduledFromJob":5}`),
				line("09:00:01.000", "unreached", "submit", "sending", "sending", `{"error":"POST /trigger: 503","nextTry":"2026-03-01T09:00:02.000Z"}`),
				line("09:00:02.000", "submitted", "submit", "sending", "queued", `{"run":"run_1"}`),
				line("09:00:12.000", "told", "realtime", "queued", "running", `{"run":"run_1","status":"EXECUTING","attempt":1}`),
				line("09:00:16.000", "told", "webhook", "running", "told completed", `{"run":"run_1","status":"COMPLETED"}`),
				line("09:00:17.000", "seen", "poll", "told completed", "failed", `{"run":"run_1","status":"CRASHED","before":"COMPLETED","attempt":3,"remoteAt":"2026-03-01T09:00:15.500Z"}`),
			},
			`Job 7: send-email, tag welcome-42, of user 42, for Trigger.dev (task mailer)

2026-03-01T09:00:00.000Z  It was scheduled through the API, following job 5, due 10s later at 2026-03-01T09:00:10.000Z.
2026-03-01T09:00:01.000Z  Handing it to Trigger.dev did not work: POST /trigger: 503; next try at 2026-03-01T09:00:02.000Z.
2026-03-01T09:00:02.000Z  Trigger.dev took it as run run_1.
2026-03-01T09:00:12.000Z  Trigger.dev's realtime stream said that the run is EXECUTING.
2026-03-01T09:00:16.000Z  A webhook event said that the run is COMPLETED.
2026-03-01T09:00:17.000Z  Trigger.dev, when asked, said that the run is CRASHED, ended at 2026-03-01T09:00:15.500Z (attempt 3); an event had said COMPLETED, and Trigger.dev's word counts.

It ended FAILED at 2026-03-01T09:00:15.500Z, 3.5s after it started, in attempt 3.
The reason given: smtp down
`,
		},
		{
			"of a job that cannot be handed over",
			jobReply(200, map[string]any{"triggerRunId": nil, "triggerRawStatus": nil, "error": "dial tcp: connection refused"}),
			[]string{
				line("09:00:00.000", "created", "graphql", "", "unsent", `null`),
				line("09:04:58.000", "unreached", "submit", "sending", "unsent", `{"error":"dial tcp: connection refused","nextTry":"2026-03-01T09:05:30.000Z"}`),
			},
			`Job 7: send-email, tag welcome-42, of user 42, for Trigger.dev

2026-03-01T09:00:00.000Z  It was scheduled through GraphQL.
2026-03-01T09:04:58.000Z  Handing it to Trigger.dev did not work: dial tcp: connection refused; next try at 2026-03-01T09:05:30.000Z.

It waits to be handed to Trigger.dev.
The last try to reach Trigger.dev failed: dial tcp: connection refused
The next try is at 2026-03-01T09:05:30.000Z (in 30s).
`,
		},
		{
			"of a cancel that Trigger.dev has yet to confirm",
			jobReply(200, map[string]any{"status": "EXECUTING", "started": "2026-03-01T09:01:00.000Z", "cancelRequested": true, "error": "GET: timeout"}),
			[]string{
				line("09:02:00.000", "cancel", "host", "running", "running canceling", `{"reason":"Job cancelled due to new job being created"}`),
				line("09:03:00.000", "stopping", "cancel", "running canceling", "running canceling", `{"run":"run_1","nextTry":"2026-03-01T09:03:05.000Z"}`),
				line("09:04:00.000", "unreached", "cancel", "running canceling", "running canceling", `{"error":"GET: timeout","nextTry":"2026-03-01T09:04:01.000Z"}`),
			},
			`Job 7: send-email, tag welcome-42, of user 42, for Trigger.dev

2026-03-01T09:02:00.000Z  Another job took its tag, so it was to be canceled.
2026-03-01T09:03:00.000Z  Trigger.dev was asked to cancel the run and took it on.
2026-03-01T09:04:00.000Z  Canceling its run on Trigger.dev did not work: GET: timeout; next try at 2026-03-01T09:04:01.000Z.

Its run run_1 is under way on Trigger.dev, since 2026-03-01T09:01:00.000Z (4m00s ago).
It is to be canceled; it ends when Trigger.dev says that its run has stopped.
The last try to reach Trigger.dev failed: GET: timeout
The next try is due now.
`,
		},
		{
			"of a worker's job that was lost, failed, given back and is at work again",
			worker(map[string]any{"status": "EXECUTING", "attempt": 3, "started": "2026-03-01T09:00:00.000Z", "cronSchedule": "0 9 * * *"}),
			[]string{
				line("09:00:00.000", "claim", "worker", "waiting", "leased", `{"worker":"w1","attempt":1}`),
				line("09:01:00.000", "leaseLost", "worker", "leased", "waiting", `{"attempt":1}`),
				line("09:02:00.000", "claim", "worker", "waiting", "leased", `{"worker":"w2","attempt":2}`),
				line("09:03:00.000", "fail", "worker", "leased", "waiting", `{"attempt":2}`),
				line("09:03:10.000", "claim", "worker", "waiting", "leased", `{"worker":"w3","attempt":3}`),
				line("09:03:20.000", "release", "worker", "leased", "waiting", `{"attempt":2}`),
				line("09:03:30.000", "claim", "worker", "waiting", "leased", `{"worker":"w4","attempt":3}`),
			},
			`Job 7: send-email, tag welcome-42, of user 0 (the system), for a worker, recurring: 0 9 * * * (UTC)

2026-03-01T09:00:00.000Z  Worker w1 took it (attempt 1).
2026-03-01T09:01:00.000Z  Its worker was not heard of for too long and lost the lease (attempt 1); another may take it.
2026-03-01T09:02:00.000Z  Worker w2 took it (attempt 2).
2026-03-01T09:03:00.000Z  Its worker reported a failure (attempt 2); it is to be tried again.
2026-03-01T09:03:10.000Z  Worker w3 took it (attempt 3).
2026-03-01T09:03:20.000Z  Its worker gave it back unharmed.
2026-03-01T09:03:30.000Z  Worker w4 took it (attempt 3).

Worker w4 is at work on it (attempt 3), since 2026-03-01T09:00:00.000Z (5m00s ago).
`,
		},
		{
			"with a kind and details that are newer than this program",
			worker(nil),
			[]string{line("09:01:00.000", "blessed", "moon", "waiting", "waiting", `{"error":7,"reason":"full\u001b[2J"}`)},
			`Job 7: send-email, tag welcome-42, of user 0 (the system), for a worker

` + "2026-03-01T09:01:00.000Z  blessed (moon): waiting became waiting: full\uFFFD[2J." + `

It is due and waits for a worker that claims jobs of type send-email.
`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := new(strings.Builder)
			if err := storyOf(t, c.row, c.lines...).write(text, instantOf(t, "2026-03-01T09:05:00Z")); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, text.String()); d != "" {
				t.Errorf("story (-want +got):\n%s", d)
			}
		})
	}
}

func TestWhySentences(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{line("09:00:00.000", "cancel", "api", "unsent", "canceled", `{"reason":"no longer wanted"}`), "Its cancel was asked for through the API, because: no longer wanted; nothing was under way, so that ended it."},
		{line("09:00:00.000", "cancel", "api", "queued", "queued canceling", `{}`), "Its cancel was asked for through the API."},
		{line("09:00:00.000", "complete", "api", "leased", "completed", `{"worker":"w1"}`), "Worker w1 reported that it is done."},
		{line("09:00:00.000", "fail", "api", "leased", "failed", `{"worker":"w1","attempt":1}`), "Worker w1 reported a failure (attempt 1)."},
		{line("09:00:00.000", "leaseLost", "worker", "leased", "failed", `{"attempt":25}`), "Its worker was not heard of for too long and lost the lease (attempt 25); that was one time too many."},
		{line("09:00:00.000", "refused", "submit", "sending", "failed", `{"error":"422: no such task"}`), "Trigger.dev refused it for good: 422: no such task."},
		{line("09:00:00.000", "unreached", "reconcile", "queued", "queued", `{"error":"429"}`), "Trigger.dev could not be asked about it: 429."},
		{line("09:00:00.000", "seen", "reconcile", "queued", "running", `{"status":"EXECUTING"}`), "Trigger.dev, when asked (reconcile), said that the run is EXECUTING."},
		{line("09:00:00.000", "told", "hook", "queued", "running", `{"status":"EXECUTING"}`), "An event (hook) said that the run is EXECUTING."},
		{line("09:00:00.000", "missing", "poll", "running", "orphaned", `{}`), "Trigger.dev said again and again that it does not know the run; it was given up as orphaned."},
		{line("09:00:00.000", "missing", "poll", "told failed", "failed", `{}`), "Trigger.dev said again and again that it does not know the run; what the event said stands."},
	} {
		s := storyOf(t, jobReply(200, nil), c.line)
		if got := s.lines[0].sentence(s.job); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestWhyKnowsEveryKind(t *testing.T) {
	for _, kind := range []job.Kind{
		"created", job.Cancel, job.Claim, job.Complete, job.Fail, job.Release, job.Submitted, job.Refused,
		job.Unreached, job.Stopping, job.Told, job.Seen, job.Missing, job.LeaseLost,
	} {
		s := historyLine{Kind: kind, To: job.StateFailed}.sentence(shownJob{})
		if strings.Contains(s, "became") || !strings.HasSuffix(s, ".") {
			t.Errorf("got %q for %s, want a sentence of its own", s, kind)
		}
	}
}

func TestWhyEndings(t *testing.T) {
	internal := func(change map[string]any) reply {
		change["executor"] = "internal"
		return jobReply(200, change)
	}
	later := "2026-03-01T10:05:00.000Z"
	for _, c := range []struct {
		name string
		row  reply
		line string
		want string
	}{
		{"not due", internal(map[string]any{"due": later}), "", "It waits until it is due, 2026-03-01T10:05:00.000Z (in 1h00m)."},
		{"to be tried again", internal(map[string]any{"attempt": 2}), "", "It waits for a worker to try it again, after attempt 2."},
		{"paused", internal(map[string]any{"paused": true}), "", "It is paused, and waits to be resumed."},
		{"a run of a schedule", jobReply(200, map[string]any{"triggerScheduleId": "sched_1"}), "", "Its run run_1 waits on Trigger.dev to be started (QUEUED)."},
		{"a delayed run", jobReply(200, map[string]any{"due": later}), "", "Its run run_1 waits on Trigger.dev until it is due, 2026-03-01T10:05:00.000Z (in 1h00m)."},
		{"a queued run", jobReply(200, nil), "", "Its run run_1 waits on Trigger.dev to be started (QUEUED)."},
		{"a task that is not deployed", jobReply(200, map[string]any{"triggerRawStatus": "PENDING_VERSION"}), "", "Its run run_1 waits on Trigger.dev for a version that has the task send-email: is it deployed?"},
		{"completed", endedReply("COMPLETED", map[string]any{"error": "not one"}), "", "It ended COMPLETED at 2026-03-01T09:00:04.000Z, 3.0s after it started."},
		{"an end to be confirmed", endedReply("CANCELED", nil), line("09:00:04.000", "told", "webhook", "running", "told canceled", `{}`),
			"It ended CANCELED at 2026-03-01T09:00:04.000Z, 3.0s after it started.\nThat is what an event said; Trigger.dev itself has yet to confirm it."},
	} {
		t.Run(c.name, func(t *testing.T) {
			var lines []string
			if c.line != "" {
				lines = []string{c.line}
			}
			got := strings.Join(storyOf(t, c.row, lines...).ending(instantOf(t, "2026-03-01T09:05:00Z")), "\n")
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestWhy(t *testing.T) {
	created := line("09:00:00.000", "created", "api", "", "unsent", `{}`)
	api := newFakeAPI(t, map[string]reply{"GET /api/jobs/7/events": {200, `{"events":[` + created + `]}`}, "GET /api/jobs/7": {200, `{"id":7}`}})
	terminal := at(t, api.URL)
	t.Run("is told from the two calls", func(t *testing.T) {
		got := terminal.run("job", "why", "7")
		wantCode(t, got, 0)
		wantContains(t, "stdout", got.out, "It was scheduled through the API.")
	})
	t.Run("is their bodies as JSON", func(t *testing.T) {
		got := terminal.run("job", "why", "7", "-ojson")
		if want := `{"events":[` + created + `],"job":{"id":7}}` + "\n"; got.out != want {
			t.Errorf("got  %s\nwant %s", got.out, want)
		}
	})
	t.Run("of no job is not found", func(t *testing.T) {
		wantCode(t, terminal.run("job", "why", "9"), 3)
	})
}
