package emulator

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// formOf writes digits as 9, so that two values can be compared by form.
func formOf(s *string) string {
	if s == nil {
		return "null"
	}
	text := regexp.MustCompile(`[0-9]+`).ReplaceAllString(*s, "9")
	return regexp.MustCompile(`[a-z]{2,}9[a-z0-9]*`).ReplaceAllString(text, "id")
}

// wantLine compares the one message of a body with the example of the real server:
// the same members in the same form.
func wantLine(t *testing.T, example string, got answer, loose ...string) {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + example + ".json")
	if err != nil {
		t.Fatal(err)
	}
	want, have := answer{t: t, status: 200, raw: string(raw)}.lines(), got.lines()
	if len(have) != 1 {
		t.Fatalf("%d messages, want one: %s", len(have), got.raw)
	}
	h, w := have[0], want[0]
	if !maps.Equal(h.Headers, w.Headers) {
		t.Errorf("headers %v, want %v", h.Headers, w.Headers)
	}
	if h.Key != `"public"."TaskRun"/"`+*h.Value["id"]+`"` || "run_"+*h.Value["id"] != *h.Value["friendlyId"] {
		t.Errorf("key %s of run %s", h.Key, *h.Value["friendlyId"])
	}
	if g, w := slices.Sorted(maps.Keys(h.Value)), slices.Sorted(maps.Keys(w.Value)); !slices.Equal(g, w) {
		t.Errorf("columns\ngot  %v\nwant %v", g, w)
	}
	for name, value := range w.Value {
		if slices.Contains([]string{"id", "friendlyId"}, name) || slices.Contains(loose, name) {
			continue
		}
		if formOf(h.Value[name]) != formOf(value) {
			t.Errorf("%s: got %s, want the form of %s", name, formOf(h.Value[name]), formOf(value))
		}
	}
}

func TestAFeedHasTheRealServersBodiesAndHeaders(t *testing.T) {
	cfg := Config{Tasks: map[string]Task{"ship-order": {DurationMs: 9220, Output: []byte(`{"trackingId":"trk_90871"}`)}}}
	inBubble(t, cfg, func(t *testing.T, e *Emulator, a *api) {
		a.trigger("ship-order", `{"payload":{"orderId":"ord_5521","items":3},"options":{"tags":["order_5521"],"metadata":{"progress":0.4,"step":"pick"}}}`)
		after(time.Second)
		f := a.feed("runs?tags=order_5521")
		first := f.ask(false)
		wantLine(t, "realtime-snapshot", first, "usageDurationMs", "costInCents")
		second, _ := f.later(t)()
		wantLine(t, "realtime-live-update", second, "costInCents")

		heads := example(t, "realtime-headers")
		for name, got := range map[string]answer{"electric-handle": first, "electric-offset": first, "electric-cursor": second} {
			value, want := got.header.Get(name), heads[name].(string)
			form := regexp.MustCompile(`[0-9]+`)
			if g, w := form.ReplaceAllString(value, "9"), form.ReplaceAllString(want, "9"); name != "electric-handle" && g != w {
				t.Errorf("%s is %s, want the form of %s", name, value, want)
			}
		}
		if !regexp.MustCompile(`^runs_\d+_\d+_[0-9a-z]{8}$`).MatchString(f.handle) {
			t.Errorf("handle %s", f.handle)
		}
		var schema map[string]struct {
			Type string
			Dims int
		}
		if err := json.Unmarshal([]byte(first.header.Get("electric-schema")), &schema); err != nil {
			t.Fatal(err)
		}
		if len(schema) != 26 || schema["id"].Type != "text" || schema["runTags"].Dims != 1 || schema["createdAt"].Type != "timestamp" || schema["error"].Type != "jsonb" {
			t.Errorf("schema %s", first.header.Get("electric-schema"))
		}
		if kind := first.header.Get("Content-Type"); kind != "application/json" || first.header.Get("Cache-Control") != "no-store" {
			t.Errorf("headers %v", first.header)
		}
		if first.header.Get("electric-cursor") != "" || second.header.Get("electric-schema") != "" || second.header.Get("electric-handle") != f.handle {
			t.Error("the cursor belongs to live answers, the schema to the others, the handle to both")
		}
		if first.header.Get("x-ratelimit-limit") != "" {
			t.Error("the feed is in the rate limiter")
		}
	})
}

func TestColumnsCanBeSkippedButForFive(t *testing.T) {
	_, a := start(t, Config{Tasks: map[string]Task{"stuck": {Status: "QUEUED"}}})
	a.trigger("stuck", `{"payload":1}`)
	f := a.feed("runs?skipColumns=payload,%20output,id,status,nonsense,metadata")
	got := f.ask(false)
	value := got.lines()[0].Value
	for name, has := range map[string]bool{"payload": false, "output": false, "metadata": false, "id": true, "status": true, "payloadType": true} {
		if _, have := value[name]; have != has {
			t.Errorf("%s is there: %v, want %v", name, have, has)
		}
		if have := strings.Contains(got.header.Get("electric-schema"), `"`+name+`"`); have != has {
			t.Errorf("%s is in the schema: %v, want %v", name, have, has)
		}
	}
	all := []string{}
	for _, c := range columns() {
		all = append(all, c.name)
	}
	value = a.feed("runs?skipColumns=" + strings.Join(all, ",")).ask(false).lines()[0].Value
	if left := slices.Sorted(maps.Keys(value)); !slices.Equal(left, []string{"createdAt", "friendlyId", "id", "status", "taskIdentifier"}) {
		t.Errorf("left are %v", left)
	}
}

func TestOldClientsHaveOldHeaderNamesAndWords(t *testing.T) {
	inBubble(t, Config{Tasks: map[string]Task{"taken": {Status: "DEQUEUED"}}}, func(t *testing.T, e *Emulator, a *api) {
		id := a.trigger("taken", `{}`)
		after(time.Second)
		got := a.get("/realtime/v1/runs?offset=-1")
		handle, offset := got.header.Get("electric-shape-id"), got.header.Get("electric-chunk-last-offset")
		if handle == "" || offset == "" || got.header.Get("electric-handle") != "" {
			t.Errorf("headers %v", got.header)
		}
		wantStates(t, "today's words", got, "insert "+id+" DEQUEUED")
		a.get("/realtime/v1/runs?offset=" + offset + "&shape_id=" + handle).ok()
		wantStates(t, "the legacy word", a.with("x-trigger-api-version", "2024-01-01").get("/realtime/v1/runs?offset=-1"), "insert "+id+" EXECUTING")
	})
}

func TestAFeedShowsValuesAsTheyAreStored(t *testing.T) {
	big := quoted(strings.Repeat("x", outputInline))
	cfg := Config{NextRun: everyHour, Tasks: map[string]Task{
		"thrown": {Error: &TaskError{Name: "E", Message: "no", StackTrace: "at x"}}, "text error": {Error: &TaskError{Message: "no"}}, "crash": {Status: "CRASHED"},
		"object": {Output: []byte(`{"a":1}`)}, "null": {Output: []byte(`null`)}, "text": {Output: []byte(`"hi\n"`)}, "nothing": {},
		"big": {Output: big}, "stuck": {Status: "QUEUED"}, "daily": {Scheduled: true}}}
	inBubble(t, cfg, func(t *testing.T, e *Emulator, a *api) {
		a.do("POST", "/api/v1/schedules", `{"task":"daily","cron":"0 * * * *","deduplicationKey":"d"}`).ok()
		after(time.Hour)
		once := `"options":{"maxAttempts":1}`
		type cells map[string]string // nil is written null
		want := map[string]cells{
			a.trigger("thrown", `{`+once+`}`):       {"error": `{"type":"BUILT_IN_ERROR","name":"E","message":"no","stackTrace":"at x"}`},
			a.trigger("text%20error", `{`+once+`}`): {"error": `{"type":"STRING_ERROR","raw":"no"}`},
			a.trigger("crash", `{}`):                {"error": `{"type":"INTERNAL_ERROR","code":"TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE"}`},
			a.trigger("object", `{}`):               {"output": `{"json":{"a":1}}`, "outputType": "application/super+json", "error": "null"},
			a.trigger("null", `{}`):                 {"output": `{"json":null}`, "outputType": "application/super+json"},
			a.trigger("text", `{}`):                 {"output": "hi\n", "outputType": "text/plain"},
			a.trigger("nothing", `{}`): {"output": "null", "outputType": "application/json", "metadata": "null", "metadataType": "application/json",
				"runTags": "null", "payload": "", "payloadType": "application/json"},
			a.trigger("big", `{}`): {"outputType": "application/store"},
			a.trigger("stuck", `{"payload":"hi","options":{"payloadType":"text/plain","tags":["b,","a"],"test":true,"ttl":"1h","delay":60000}}`): {
				"payload": "hi", "payloadType": "text/plain", "runTags": `{"a","b,"}`, "isTest": "t", "ttl": "1h",
				"delayUntil": "1970-01-01T00:01:00.000", "completedAt": "null", "number": "1"},
			a.trigger("stuck", `{"options":{"delay":"1h"}}`): {"status": "DELAYED", "queuedAt": "null", "number": "2",
				"delayUntil": strings.TrimSuffix(e.clock.now().plus(time.Hour).iso(), "Z")},
			a.get("/emulator/runs?task=daily").ok().object()["runs"].([]any)[0].(map[string]any)["id"].(string): {
				"payloadType": "application/super+json", "status": "COMPLETED_SUCCESSFULLY"},
		}
		after(time.Second)
		for _, l := range a.feed("runs").ask(false).lines() {
			task := *l.Value["taskIdentifier"]
			for name, cell := range want[*l.Value["friendlyId"]] {
				got := "null"
				if l.Value[name] != nil {
					got = *l.Value[name]
				}
				if got != cell {
					t.Errorf("%s of %s: got %q, want %q", name, task, got, cell)
				}
			}
			if p := *l.Value["payload"]; task == "daily" && !strings.Contains(p, `"meta":{"values":{"timestamp":["Date"],"upcoming.0":["Date"]`) {
				t.Errorf("payload of a scheduled run: %s", p)
			}
			delete(want, *l.Value["friendlyId"])
		}
		if len(want) != 0 {
			t.Errorf("not in the snapshot: %v", want)
		}
	})
}
