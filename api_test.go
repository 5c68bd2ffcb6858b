package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/job"
)

// memberNames are the names of a JSON object, sorted.
func memberNames(t *testing.T, text []byte) []string {
	t.Helper()
	var object map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil {
		t.Fatalf("%s is no object: %v", text, err)
	}
	var names []string
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// memberOf is one member of a JSON object, as it stands there.
func memberOf(t *testing.T, text []byte, name string) string {
	t.Helper()
	var object map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil {
		t.Fatalf("%s is no object: %v", text, err)
	}
	return string(object[name])
}

// countAll is how many jobs there are.
func (w *world) countAll() (n int64) {
	w.t.Helper()
	var body struct{ Count int64 }
	w.call("GET", "/api/jobs/count", nil).into(w.t, &body)
	return body.Count
}

// workerTakes lets a worker take an internal job.
func (w *world) workerTakes(id int64) {
	w.t.Helper()
	w.happens(id, job.Event{Kind: job.Claim, Lease: job.Lease{Token: fmt.Sprint("lease-", id), Owner: "worker", For: time.Minute}})
}

// workerEnds has the worker that claimed a job end it.
func (w *world) workerEnds(id int64, result string) {
	w.t.Helper()
	w.happens(id, job.Event{Kind: job.Complete, Result: json.RawMessage(result), Lease: job.Lease{Token: fmt.Sprint("lease-", id)}})
}

// workerGivesUp has the worker that claimed a job give it up.
func (w *world) workerGivesUp(id int64, why string) {
	w.t.Helper()
	w.happens(id, job.Event{Kind: job.Fail, Result: json.RawMessage(why), Lease: job.Lease{Token: fmt.Sprint("lease-", id)}})
}

func (w *world) happens(id int64, ev job.Event) {
	w.t.Helper()
	ev.At, ev.Source = now(), "test"
	if _, err := w.srv.store.Apply(w.t.Context(), id, ev); err != nil {
		w.t.Fatalf("%s job %d: %v", ev.Kind, id, err)
	}
}

func TestAJobNeedsOnlyItsType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.call("POST", "/api/jobs", `{"type":"sendEmail"}`)
		j := w.view(r)
		if r.status != 201 || r.header.Get("Location") != "/api/jobs/1" || r.header.Get("Content-Type") != "application/json" {
			t.Errorf("got %d, Location %q, %q; want 201, /api/jobs/1, application/json", r.status, r.header.Get("Location"), r.header.Get("Content-Type"))
		}
		if !regexp.MustCompile(`^sendEmail:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(j.Tag) {
			t.Errorf("the tag is %q, want the type and a UUID", j.Tag)
		}
		if second := w.schedule(`{"type":"sendEmail"}`); second.Tag == j.Tag {
			t.Errorf("two jobs have the tag %q", j.Tag)
		}
		wantJSON(t, "the job", []byte(strings.Replace(string(r.body), j.Tag, "TAG", 1)), `{
			"id":1,"tag":"TAG","type":"sendEmail","userId":0,"data":{},"due":"2000-01-01T00:00:00.000Z",
			"started":null,"finished":null,"removeAt":"2000-01-01T01:00:00.000Z","success":null,"result":null,
			"cronSchedule":null,"timezone":"UTC","misfire":null,"misfireLimit":null,"fireLocally":false,"scheduleId":null,"missedAt":null,"autoRescheduleOnFailure":false,"autoRescheduleOnFailureDelay":0,
			"removeDelay":0,"rescheduledFromJob":null,"persistent":false,"executor":"internal","triggerTaskId":null,
			"triggerRunId":null,"triggerAttemptId":null,"triggerStatus":null,"triggerScheduleId":null,
			"cancelRequested":false,"lastSyncedAt":null,"createdAt":"2000-01-01T00:00:00.000Z",
			"updatedAt":"2000-01-01T00:00:00.000Z","name":null,"retryConfig":null,"attempt":0,"paused":false,
			"metadata":{},"labels":[],"status":"PENDING","triggerRawStatus":null,"error":null}`)
	})
}

const wholeRequest = `{
	"tag":"mail:7","type":"sendEmail","userId":9007199254740991,"executor":"EXECUTOR",TASK
	"data":{"to":"a@example.com","n":[1,2.50,null]},"due":"2000-01-02T03:04:05.678+02:00",
	"retryConfig":{"maxAttempts":4,"minTimeoutInMs":500,"maxTimeoutInMs":60000,"factor":1.5,"randomize":true},
	"persistent":true,"removeDelay":2592000000,"autoRescheduleOnFailure":true,"autoRescheduleOnFailureDelay":90000,
	"metadata":{"source":"signup"},"labels":["b","a","ü"],"onConflict":"replaceAll"}`

func TestEveryMemberIsEchoed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for executor, task := range map[string]string{"internal": "", "trigger": `"triggerTaskId":"send-email",`} {
			request := strings.NewReplacer("EXECUTOR", executor, "TASK", task).Replace(wholeRequest)
			r := w.call("POST", "/api/jobs", request)
			if r.status != 201 {
				t.Fatalf("%s: got %d %s", executor, r.status, r.body)
			}
			for _, name := range memberNames(t, []byte(request)) {
				want := memberOf(t, []byte(request), name)
				switch name {
				case "due":
					want = `"2000-01-02T01:04:05.678Z"`
				case "onConflict":
					continue // it is about the others
				}
				if got := memberOf(t, r.body, name); got != want {
					t.Errorf("%s: %s is %s, want %s", executor, name, got, want)
				}
			}
			if got := memberOf(t, r.body, "removeAt"); got != `"2000-02-01T01:04:05.678Z"` {
				t.Errorf("%s: removeAt is %s, want 30 days after due", executor, got)
			}
			again := w.call("GET", r.header.Get("Location"), nil)
			if slices.Contains(memberNames(t, again.body), "warnings") {
				t.Errorf("%s: warnings stand in more than the reply to the request", executor)
			}
			for _, name := range memberNames(t, again.body) {
				if got, want := memberOf(t, again.body, name), memberOf(t, r.body, name); got != want {
					t.Errorf("%s: read again, %s is %s, want %s", executor, name, got, want)
				}
			}
		}
	})
}

func TestDataIsKeptAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i, data := range []string{
			`null`, `false`, `true`, `0`, `-0`, `""`, `[]`, `{}`, `"text"`, `1.50`, `1e-7`, `1E+300`,
			`9007199254740993`, `12345678901234567890123456789`, `{"id":18446744073709551615}`,
			`{"b":1,"a":{"c":[[],{},""]}}`, `"\u0000\u2028\ud83d\ude00é"`, `"<script>&"`, `" "`,
			strings.Repeat("[", 900) + strings.Repeat("]", 900),
		} {
			r := w.call("POST", "/api/jobs", `{"type":"work","data": `+data+` }`)
			if got := memberOf(t, w.call("GET", r.header.Get("Location"), nil).body, "data"); got != data {
				t.Errorf("got %s, want %s", got, data)
			}
			if i%3 != 0 {
				continue // a third of them says enough of Trigger.dev
			}
			echo := w.triggerJob("echo", "data", json.RawMessage(data))
			if got := string(w.wait(echo.ID).Result); data != "null" && got != strings.Replace(data, "<script>&", `\u003cscript\u003e\u0026`, 1) {
				t.Errorf("Trigger.dev got %s, want %s", got, data)
			}
		}
	})
}

func TestTimesOfARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for given, want := range map[string]string{
			`"2030-06-01T12:00:00Z"`:           `"2030-06-01T12:00:00.000Z"`,
			`"2030-06-01T12:00:00+05:30"`:      `"2030-06-01T06:30:00.000Z"`,
			`"2030-06-01T12:00:00.1239-08:00"`: `"2030-06-01T20:00:00.123Z"`,
			`1906545600123`:                    `"2030-06-01T12:00:00.123Z"`,
			`1.906545600123e12`:                `"2030-06-01T12:00:00.123Z"`,
			`"1906545600123"`:                  `"2030-06-01T12:00:00.123Z"`,
			`null`:                             `"2000-01-01T00:00:00.000Z"`,
			`"2000-01-01T00:00:00Z"`:           `"2000-01-01T00:00:00.000Z"`,
		} {
			r := w.call("POST", "/api/jobs", `{"type":"work","due":`+given+`}`)
			if got := memberOf(t, r.body, "due"); got != want {
				t.Errorf("due %s: got %d %s, want %s", given, r.status, got, want)
			}
		}
	})
}

func TestADueJobIsDelayedOnTriggerDev(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		time.Sleep(2 * time.Minute)
		due := time.Now().Add(time.Hour)
		j := w.triggerJob("echo", "due", due.UnixMilli())
		if got := w.remoteRun(j.TriggerRunID).DelayedUntil; !got.Equal(due) {
			t.Errorf("Trigger.dev delays it until %s, want %s", got, due)
		}
		done := w.wait(w.triggerJob("echo", "due", time.Now().Add(-time.Minute)).ID)
		if took := time.Since(done.CreatedAt); done.Status != "COMPLETED" || took > time.Minute {
			t.Errorf("one that is overdue is %s after %s, want it run at once", done.Status, took)
		}
	})
}

func TestWhatTriggerDevIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		j := w.triggerJob("echo", "tag", "order-7", "userId", 42, "labels", []string{"red"}, "metadata", map[string]any{"tag": "mine", "x": 1})
		run := w.remoteRun(j.TriggerRunID)
		for _, tag := range []string{"order-7", "db-id:1", "sidejob:" + w.srv.store.Installation(), run.IdempotencyKey, "red"} {
			if !slices.Contains(run.Tags, tag) {
				t.Errorf("the run has tags %q, want %s among them", run.Tags, tag)
			}
		}
		if !regexp.MustCompile(`^job-[0-9a-f-]{36}$`).MatchString(run.IdempotencyKey) {
			t.Errorf("the idempotency key is %q, want job- and a UUID", run.IdempotencyKey)
		}
		if got, want := fmt.Sprint(run.Metadata), "map[dbJobId:1 tag:order-7 userId:42 x:1]"; got != want {
			t.Errorf("metadata is %s, want %s", got, want)
		}
	})
}

func TestWarningsSayWhatTriggerDevWillNotDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		labels := []string{"1", "2", "3", "4", "5", "6", "7"}
		for _, c := range []struct {
			member string
			value  any
			about  string
		}{
			{"retryConfig", map[string]any{"maxAttempts": 3}, ""},
			{"retryConfig", map[string]any{"maxAttempts": 3, "factor": 2}, "retryConfig"},
			{"retryConfig", map[string]any{"randomize": true}, "retryConfig"},
			{"labels", labels[:6], ""},
			{"labels", labels, "labels"},
		} {
			j := w.triggerJob("echo", c.member, c.value)
			got := strings.Join(j.Warnings, "\n")
			if len(j.Warnings) > 1 || c.about == "" && got != "" || !strings.HasPrefix(got, c.about) {
				t.Errorf("%s %v: got warnings %q, want one about %q", c.member, c.value, j.Warnings, c.about)
			}
			inside := w.schedule(map[string]any{"type": "work", c.member: c.value})
			if inside.Warnings != nil {
				t.Errorf("%s %v: an internal job warns %q, want nothing", c.member, c.value, inside.Warnings)
			}
		}
		if got := w.get(9).Labels; !slices.Equal(got, labels) {
			t.Errorf("got labels %q, want all of %q kept", got, labels)
		}
	})
}

func TestAFirstSubmitThatMeetsARunWarns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.faults(submitFault("notFound", "times", 1))
		replied := make(chan answer)
		go func() { replied <- w.call("POST", "/api/jobs?waitMs=10000", echoJob) }()
		time.Sleep(100 * time.Millisecond)
		j, err := w.srv.store.Get(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		// Somebody else makes a run under the job's key.
		w.remote("POST", "/api/v1/tasks/echo/trigger", map[string]any{"payload": 1, "options": map[string]any{"idempotencyKey": j.IdempotencyKey}})
		got := w.view(<-replied)
		if got.TriggerRunID == "" || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "isCached") {
			t.Errorf("got run %q and warnings %q, want the run and a warning of isCached", got.TriggerRunID, got.Warnings)
		}
	})
}

func TestTheReplyIsTheRowAsOfTheSubmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.call("POST", "/api/jobs?waitMs=10000", `{"type":"echo","executor":"trigger","triggerTaskId":"echo"}`)
		j := w.view(r)
		if r.status != 201 || j.Status != "PENDING" || j.TriggerStatus != "PENDING" || j.TriggerRunID == "" || j.Error != "" {
			t.Errorf("got %d %s, want 201, PENDING with a run", r.status, r.body)
		}
		if got := w.history(j.ID)[0]; got != "created api > unsent" {
			t.Errorf("the history begins with %q, want the row created before anything is sent", got)
		}
	})
}
