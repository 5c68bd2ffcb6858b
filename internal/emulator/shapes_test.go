package emulator

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// shape lists the members of a body with their kinds, but not what is inside of
// values that belong to the task.
func shape(path string, v any) []string {
	switch v := v.(type) {
	case map[string]any:
		lines := []string{path + " object"}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			switch name {
			case "payload", "output", "metadata":
				lines = append(lines, path+"."+name)
			case "stackTrace":
			default:
				lines = append(lines, shape(path+"."+name, v[name])...)
			}
		}
		return lines
	case []any:
		if len(v) == 0 || path == ".tags" || strings.HasSuffix(path, ".tags") {
			return []string{path + " list"}
		}
		return shape(path+"[]", v[0])
	case string:
		return []string{path + " text"}
	case float64:
		return []string{path + " number"}
	case bool:
		return []string{path + " bool"}
	}
	return []string{path + " null"}
}

// wantShape compares with the body of the real server in testdata.
func wantShape(t *testing.T, name string, got map[string]any) {
	t.Helper()
	want := shape("", example(t, name))
	if have := shape("", got); !slices.Equal(have, want) {
		for _, line := range want {
			if !slices.Contains(have, line) {
				t.Errorf("%s: missing %s", name, line)
			}
		}
		for _, line := range have {
			if !slices.Contains(want, line) {
				t.Errorf("%s: too much: %s", name, line)
			}
		}
	}
}

func TestRetrieveHasTheMembersOfEachState(t *testing.T) {
	const payload = `"payload":{"a":1}`
	thrown := &TaskError{Name: "E", Message: "no", StackTrace: "at x"}
	tests := []struct {
		example string
		task    Task
		body    string
		wait    time.Duration
		cancel  bool
		legacy  bool
		dev     bool
	}{
		{example: "retrieve-delayed", body: `{` + payload + `,"options":{"delay":"1h","idempotencyKey":"k"}}`},
		{example: "retrieve-queued", body: `{` + payload + `}`},
		{example: "retrieve-queued-dev", body: `{` + payload + `}`, dev: true},
		{example: "retrieve-pending-version", task: Task{Status: "PENDING_VERSION"}, body: `{` + payload + `}`, wait: time.Second},
		{example: "retrieve-dequeued", task: Task{Status: "DEQUEUED"}, body: `{` + payload + `}`, wait: time.Second},
		{example: "retrieve-executing", task: Task{Status: "EXECUTING"}, body: `{` + payload + `,"options":{"metadata":{"a":1}}}`, wait: time.Second},
		{example: "retrieve-requeued-for-retry", task: Task{FailAttempts: 9}, body: `{` + payload + `,"options":{"maxAttempts":9}}`, wait: 40 * time.Second},
		{example: "retrieve-waiting", task: Task{Status: "WAITING"}, body: `{` + payload + `}`, wait: time.Second},
		{example: "retrieve-legacy-frozen", task: Task{Status: "WAITING"}, body: `{` + payload + `}`, wait: time.Second, legacy: true},
		{example: "retrieve-completed", task: Task{Output: []byte(`1`)}, body: `{` + payload + `,"options":{"idempotencyKey":"k","tags":["a"],"metadata":{"a":1}}}`, wait: time.Second},
		{example: "retrieve-completed-no-output", body: `{}`, wait: time.Second},
		{example: "retrieve-completed-presigned", task: Task{Output: quoted(strings.Repeat("x", outputInline))}, body: `{` + payload + `}`, wait: time.Second},
		{example: "retrieve-failed", task: Task{Error: thrown}, body: `{` + payload + `}`, wait: time.Minute},
		{example: "retrieve-crashed", task: Task{Status: "CRASHED"}, body: `{` + payload + `}`, wait: time.Second},
		{example: "retrieve-system-failure", task: Task{Status: "SYSTEM_FAILURE"}, body: `{` + payload + `}`, wait: time.Second},
		{example: "retrieve-timed-out", task: Task{Status: "TIMED_OUT"}, body: `{` + payload + `}`, wait: time.Second},
		{example: "retrieve-expired", task: Task{Status: "QUEUED"}, body: `{` + payload + `}`, wait: time.Hour, dev: true},
		{example: "retrieve-canceled-queued", body: `{` + payload + `}`, cancel: true},
		{example: "retrieve-canceled-stopping", task: Task{DurationMs: 9999}, body: `{` + payload + `}`, wait: time.Second, cancel: true},
	}
	for _, tt := range tests {
		t.Run(tt.example, func(t *testing.T) {
			inBubble(t, Config{Tasks: map[string]Task{"x": tt.task}}, func(t *testing.T, e *Emulator, a *api) {
				if tt.dev {
					a.key = "tr_dev_x"
				}
				id := a.trigger("x", tt.body)
				after(tt.wait)
				if tt.cancel {
					a.do("POST", "/api/v2/runs/"+id+"/cancel", "").ok()
				}
				reader := a
				if tt.legacy {
					reader = a.with("x-trigger-api-version", "2027-01-01")
				}
				want, got := example(t, tt.example), reader.run(id)
				if tt.example == "retrieve-waiting" { // the emulator's runs have no children
					want["relatedRuns"], got["relatedRuns"] = nil, nil
				} else {
					wantShape(t, tt.example, got)
				}
				for _, name := range []string{"status", "isQueued", "isExecuting", "isCompleted", "isFailed", "isSuccess",
					"isCancelled", "isWaiting", "depth", "triggerFunction"} {
					if got[name] != want[name] {
						t.Errorf("%s is %v, want %v", name, got[name], want[name])
					}
				}
			})
		})
	}
}

func TestARunThatStoppedAfterACancelHasItsMembers(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		id := a.trigger("cancellable-task", `{"payload":1}`)
		after(time.Second)
		a.do("POST", "/api/v2/runs/"+id+"/cancel", "").ok()
		after(time.Second)
		wantShape(t, "retrieve-canceled-executing", a.run(id))
	})
}

func TestALargeOutputIsReadWithoutAKeyForFiveMinutes(t *testing.T) {
	big := object("x", strings.Repeat("x", outputInline))
	inBubble(t, Config{Tasks: map[string]Task{"x": {Output: big}}}, func(t *testing.T, e *Emulator, a *api) {
		id := a.trigger("x", `{}`)
		after(time.Second)
		address, found := strings.CutPrefix(a.run(id)["outputPresignedUrl"].(string), "http://emulator.test")
		if !found {
			t.Fatal("the address is not the emulator's own")
		}
		open := clientOf(t, e, "")
		got := open.get(address)
		if got.status != 200 || got.header.Get("Content-Type") != "application/super+json" || got.raw != `{"json":`+string(big)+`}` {
			t.Errorf("got %d %s, %d bytes", got.status, got.header.Get("Content-Type"), len(got.raw))
		}
		if got := open.get(address + "0"); got.status != 403 {
			t.Errorf("a changed signature gets %d, want 403", got.status)
		}
		after(301 * time.Second)
		if got := open.get(address); got.status != 403 {
			t.Errorf("after five minutes: %d, want 403", got.status)
		}
	})
}

func TestListItemsHaveTheirMembers(t *testing.T) {
	inBubble(t, Config{Tasks: map[string]Task{"stuck": {Status: "QUEUED"}}}, func(t *testing.T, e *Emulator, a *api) {
		done := a.trigger("x", `{"options":{"idempotencyKey":"k","metadata":{"a":1},"tags":["b","a"]}}`)
		after(time.Second)
		queued := a.trigger("stuck", `{}`)
		a.do("POST", "/api/v2/runs/"+queued+"/cancel", "").ok()
		got := a.get("/api/v1/runs").ok().object()["data"].([]any)
		want := example(t, "list-runs-page")["data"].([]any)
		for n, id := range []string{queued, done} {
			have := got[n].(map[string]any)
			if have["id"] != id {
				t.Errorf("item %d is %v, want %s", n, have["id"], id)
			}
			if h, w := shape("", have), shape("", want[n]); !slices.Equal(h, w) {
				t.Errorf("item %d\ngot  %v\nwant %v", n, h, w)
			}
		}
	})
}

func TestSchedulesAndTheirRunsHaveTheirMembers(t *testing.T) {
	cfg := Config{NextRun: everyHour, Tasks: map[string]Task{"s": {Scheduled: true, Output: []byte(`1`)}}}
	inBubble(t, cfg, func(t *testing.T, e *Emulator, a *api) {
		made := a.do("POST", "/api/v1/schedules", `{"task":"s","cron":"0 * * * *","deduplicationKey":"d","externalId":"e"}`).ok()
		id := made.text("id")
		wantShape(t, "schedule-created", made.object())
		wantShape(t, "schedule-retrieved", a.get("/api/v1/schedules/"+id).object())
		wantShape(t, "schedules-list", a.get("/api/v1/schedules").object())
		after(2*time.Hour + time.Minute)
		runs := a.get("/api/v1/runs?filter[schedule]=" + id).object()["data"].([]any)
		run := a.run(runs[0].(map[string]any)["id"].(string))
		wantShape(t, "retrieve-scheduled", run)
		if payload, want := shape("", run["payload"]), shape("", example(t, "scheduled-task-payload")); !slices.Equal(payload, want) {
			t.Errorf("payload\ngot  %v\nwant %v", payload, want)
		}
		if n := len(run["payload"].(map[string]any)["upcoming"].([]any)); n != 10 {
			t.Errorf("%d upcoming times, want 10", n)
		}
		wantShape(t, "schedule-deactivated", a.do("POST", "/api/v1/schedules/"+id+"/deactivate", "").object())
	})
}

func TestAnOutputIsLargeByTheBytesThatAreStored(t *testing.T) {
	for name, tt := range map[string]struct {
		output json.RawMessage
		kind   string // of the large one; empty: inline
		body   string
	}{
		"an object, large with its envelope": {object("x", strings.Repeat("x", outputInline-17)), "application/super+json",
			`{"json":{"x":"` + strings.Repeat("x", outputInline-17) + `"}}`},
		"an object, a byte less": {object("x", strings.Repeat("x", outputInline-18)), "", ""},
		"a text":                 {quoted(strings.Repeat("x", outputInline)), "text/plain", strings.Repeat("x", outputInline)},
		"a text, a byte less":    {quoted(strings.Repeat("x", outputInline-1)), "", ""},
		"a text of escapes":      {quoted(strings.Repeat("\n", outputInline-1)), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{Tasks: map[string]Task{"x": {Output: tt.output}}}, func(t *testing.T, e *Emulator, a *api) {
				id := a.trigger("x", `{}`)
				after(time.Second)
				r := a.run(id)
				address, _ := r["outputPresignedUrl"].(string)
				if tt.kind == "" {
					if address != "" || r["output"] == nil {
						t.Error("it is not inline")
					}
					return
				}
				got := a.get(strings.TrimPrefix(address, "http://emulator.test"))
				if got.status != 200 || got.header.Get("Content-Type") != tt.kind || got.raw != tt.body {
					t.Errorf("got %d %s, %d bytes; want %s and %d bytes", got.status, got.header.Get("Content-Type"), len(got.raw), tt.kind, len(tt.body))
				}
			})
		})
	}
}
