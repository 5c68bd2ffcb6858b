package emulator

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestDelayIsParsedAsTheServerDoes(t *testing.T) {
	now := instant(time.Date(2026, 8, 20, 9, 0, 0, 0, time.UTC).UnixMilli())
	none := instant(math.MinInt64)
	tests := []struct {
		name, raw string
		want      instant // from now; none: no delay
	}{
		{"absent text", `""`, none},
		{"hours and minutes", `"2h30m"`, 9_000_000},
		{"hr is an hour", `"1hr"`, 3_600_000},
		{"weeks", `"1w"`, 604_800_000},
		{"days and seconds", `"1d1s"`, 86_401_000},
		{"zero seconds", `"0s"`, 0},
		{"of a doubled unit the first counts", `"1h2h"`, 3_600_000},
		{"milliseconds are ignored", `"60000ms"`, none},
		{"blanks are ignored", `"1 hour"`, none},
		{"decimals are ignored", `"1.5h"`, none},
		{"capitals are ignored", `"1H"`, none},
		{"ISO durations are ignored", `"PT1H"`, none},
		{"over 100 characters are ignored", `"` + strings.Repeat("1h", 51) + `"`, none},
		{"a date to come", `"2026-08-20T10:00:00Z"`, 3_600_000},
		{"a date with an offset", `"2026-08-20T12:00:00.500+02:00"`, 3_600_500},
		{"a date in the past is ignored", `"2026-08-20T08:59:59Z"`, none},
		{"a single digit is a month of 2001", `"5"`, none},
		{"many digits are a year", `"60000"`, instant(time.Date(60000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()) - now},
		{"a number is epoch milliseconds", `60000`, 60000 - now},
		{"null is the epoch", `null`, -now},
		{"true is a millisecond after it", `true`, 1 - now},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseDelay(json.RawMessage(tt.raw), now)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case got == nil && tt.want != none:
				t.Errorf("no delay, want %d ms", tt.want)
			case got != nil && *got-now != tt.want:
				t.Errorf("got %d ms, want %d (%d is none)", *got-now, tt.want, none)
			}
		})
	}
	if _, err := parseDelay(json.RawMessage(`{}`), now); err == nil {
		t.Error("an object is taken for a delay")
	}
}

func TestTTLSecondsBecomeADuration(t *testing.T) {
	for seconds, want := range map[int64]string{0: "", 1: "1s", 600: "10m", 3661: "1h1m1s", 90000: "1d1h", 604800: "1w"} {
		if got := writeDuration(seconds); got != want {
			t.Errorf("%d s: got %q, want %q", seconds, got, want)
		}
	}
}

func TestIdempotencyKeyTTLTakesOneUnitOnly(t *testing.T) {
	month := 30 * 24 * time.Hour
	for text, want := range map[string]time.Duration{"": month, "24h": 24 * time.Hour, "5s": 5 * time.Second, "2d": 48 * time.Hour,
		"1w": month, "1h30m": month} {
		if got := keyLife(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestABadTriggerBodyIsRefusedInTheServersWords(t *testing.T) {
	_, a := start(t, Config{})
	manyTags, _ := json.Marshal(strings.Split(strings.Repeat("a,", 11)+" ", ",")) // a blank one counts
	tests := []struct {
		name, body string
		status     int
		want       string
	}{
		{"empty", "", 400, `{"error":"Request body is empty"}`},
		{"blank", " \n", 400, `{"error":"Invalid JSON"}`},
		{"no JSON", "{", 400, `{"error":"Invalid JSON"}`},
		{"falsy", "null", 400, `{"error":"Invalid JSON"}`},
		{"a list", "[]", 400, `{"error":"Validation error: Expected object, received array"}`},
		{"attempts as text", `{"options":{"maxAttempts":"3"}}`, 400, `{"error":"Validation error: Expected number, received string at \"options.maxAttempts\""}`},
		{"half an attempt", `{"options":{"maxAttempts":1.5}}`, 400, `{"error":"Validation error: Expected integer, received float at \"options.maxAttempts\""}`},
		{"two things", `{"options":{"test":1,"queue":{}}}`, 400, `{"error":"Validation error: Required at \"options.queue.name\"; Expected boolean, received number at \"options.test\""}`},
		{"a delay object", `{"options":{"delay":{}}}`, 400, `{"error":"Validation error: Invalid input at \"options.delay\""}`},
		{"a negative ttl", `{"options":{"ttl":-1}}`, 400, `{"error":"Validation error: Number must be greater than or equal to 0 at \"options.ttl\""}`},
		{"a long tag", fmt.Sprintf(`{"options":{"tags":["ok",%q]}}`, strings.Repeat("x", 129)), 400, `{"error":"Validation error: Tags must be less than 128 characters at \"options.tags[1]\""}`},
		{"twelve tags", fmt.Sprintf(`{"options":{"tags":%s}}`, manyTags), 422, `{"error":"Runs can only have 10 tags, you're trying to set 12."}`},
		{"a long key", fmt.Sprintf(`{"options":{"idempotencyKey":%q}}`, strings.Repeat("k", 2049)), 400, `{"error":"Validation error: String must contain at most 2048 character(s) at \"options.idempotencyKey\""}`},
		{"much metadata", fmt.Sprintf(`{"options":{"metadata":{"a":%q}}}`, strings.Repeat("x", 262144)), 413, `{"error":"Metadata exceeds maximum size of 262144 bytes"}`},
		{"a debounce without a delay", `{"options":{"debounce":{"key":"k","delay":"1 h"}}}`, 422, `{"error":"Debounce requires a valid delay duration. Provided: 1 h"}`},
		{"a debounce with two delays", `{"options":{"delay":"1h","debounce":{"key":"k","delay":"1 h"}}}`, 422,
			`{"error":"Invalid debounce delay: 1 h. Supported formats: {number}s, {number}m, {number}h, {number}d, {number}w"}`},
		{"an unknown region", `{"options":{"region":"moon"}}`, 422, `{"error":"Region 'moon' not found."}`},
		{"an unknown version", `{"options":{"lockToVersion":"20260101.1"}}`, 422, `{"error":"Task locked to version '20260101.1', but no worker found with that version."}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a.do("POST", "/api/v1/tasks/x/trigger", tt.body).is(tt.status, tt.want)
		})
	}
}

func TestUnknownOptionsAreDropped(t *testing.T) {
	_, a := start(t, Config{})
	a.trigger("x", `{"options":{"retry":{"maxAttempts":3},"nonsense":1}}`)
}

func TestATriggerWithoutContentLengthOrOverThreeMebibytesIs413(t *testing.T) {
	e, _ := start(t, Config{})
	for name, length := range map[string]int64{"chunked": -1, "too long": 3<<20 + 1} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequest("POST", "http://emulator.test/api/v1/tasks/x/trigger", strings.NewReader(`{}`))
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = length
			req.Header.Set("Authorization", "Bearer tr_dev_x")
			resp, err := inProcess{e}.RoundTrip(req)
			if err != nil || resp.StatusCode != 413 {
				t.Errorf("got %v %v, want 413", resp, err)
			}
		})
	}
}

func TestATriggerCarriesATokenForItsRun(t *testing.T) {
	_, a := start(t, Config{})
	got := a.do("POST", "/api/v1/tasks/a%2Fb/trigger", `{}`).ok()
	id := got.text("id")
	if len(id) != 29 || strings.Trim(id[4:], "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		t.Errorf("id %q is not run_ and 25 lower-case letters and digits", id)
	}
	if got.raw != fmt.Sprintf(`{"id":%q,"isCached":false}`, id) {
		t.Errorf("body %s", got.raw)
	}
	var claims struct {
		Sub    string
		Pub    bool
		Scopes []string
	}
	if err := json.Unmarshal([]byte(got.header.Get("x-trigger-jwt-claims")), &claims); err != nil || !claims.Pub ||
		claims.Scopes[0] != "read:runs:"+id || claims.Scopes[1] != "write:inputStreams:"+id {
		t.Errorf("claims %+v, %v", claims, err)
	}
	if strings.Count(got.header.Get("x-trigger-jwt"), ".") != 2 {
		t.Error("no token")
	}
	if task := a.run(id)["taskIdentifier"]; task != "a/b" {
		t.Errorf("task %v, want a/b", task)
	}
}

func TestPayloadsOfEachTypeAreShownAsPlainJSON(t *testing.T) {
	_, a := start(t, Config{})
	for name, tt := range map[string]struct{ body, want string }{
		"an object":            {`{"payload":{"b":1,"a":[true,null]}}`, `{"b":1,"a":[true,null]}`},
		"null":                 {`{"payload":null}`, `null`},
		"zero":                 {`{"payload":0}`, `0`},
		"a text by itself":     {`{"payload":"{\"a\":1}"}`, `"{\"a\":1}"`},
		"superjson":            {`{"payload":"{\"json\":{\"a\":1},\"meta\":{}}","options":{"payloadType":"application/super+json"}}`, `{"a":1}`},
		"plain text":           {`{"payload":"hi","options":{"payloadType":"text/plain"}}`, `"hi"`},
		"text that is no text": {`{"payload":{"a":1},"options":{"payloadType":"text/plain"}}`, ``},
		"none":                 {`{}`, ``},
	} {
		t.Run(name, func(t *testing.T) {
			raw := a.get("/api/v3/runs/" + a.trigger("x", tt.body)).raw
			if got := string(member(json.RawMessage(raw), "payload")); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAnIdempotencyKeyGivesTheSameRunUntilItIsFreed(t *testing.T) {
	cfg := Config{Tasks: map[string]Task{
		"good": {}, "bad": {Status: "FAILED"}, "crash": {Status: "CRASHED"}, "late": {Status: "TIMED_OUT"}, "gone": {Status: "EXPIRED", DurationMs: 100},
		"down": {Status: "SYSTEM_FAILURE"}, "stuck": {Status: "QUEUED"}, "off": {Status: "CANCELED"}}}
	inBubble(t, cfg, func(t *testing.T, e *Emulator, a *api) {
		const body = `{"options":{"idempotencyKey":"k","ttl":0}}`
		for task, frees := range map[string]bool{"good": false, "stuck": false, "off": false, "unknown": false,
			"bad": true, "crash": true, "late": true, "gone": true, "down": true} {
			first := a.trigger(task, body)
			again := a.do("POST", "/api/v1/tasks/"+task+"/trigger", body).ok()
			if again.text("id") != first || again.object()["isCached"] != true {
				t.Errorf("%s: second trigger gives %s, want %s cached", task, again.raw, first)
			}
			after(time.Second)
			if fresh := a.trigger(task, body) != first; fresh != frees {
				t.Errorf("%s: key freed is %v, want %v", task, fresh, frees)
			}
		}
	})
}

func TestAnIdempotencyKeyIsOneOfItsTaskAndEnvironmentAndTime(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		const body = `{"options":{"idempotencyKey":"k","idempotencyKeyTTL":"10s"}}`
		first := a.trigger("x", body)
		if a.trigger("y", body) == first || clientOf(t, e, "tr_prod_other").trigger("x", body) == first {
			t.Error("another task or environment shares the key")
		}
		if got := a.with("idempotency-key", "k2").trigger("x", body); got == first {
			t.Error("the header does not beat the body")
		}
		after(9 * time.Second)
		if a.trigger("x", body) != first {
			t.Error("the key is lost before its time")
		}
		after(time.Second)
		if a.trigger("x", body) == first {
			t.Error("the key outlives its ttl")
		}
	})
}

func TestResettingAKeyFreesIt(t *testing.T) {
	_, a := start(t, Config{})
	const body = `{"options":{"idempotencyKey":"k"}}`
	first := a.trigger("x", body)
	a.do("POST", "/api/v1/idempotencyKeys/k/reset", `{"taskIdentifier":"x"}`).is(200, `{"id":"k"}`)
	if a.trigger("x", body) == first {
		t.Error("the key is still held")
	}
	a.do("POST", "/api/v1/idempotencyKeys/other/reset", `{"taskIdentifier":"x"}`).
		is(404, `{"error":"No runs found with idempotency key: other"}`)
}

func TestARepeatedRequestGivesTheSameRunUncached(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		a = a.with("x-trigger-request-idempotency-key", "call-1")
		first := a.do("POST", "/api/v1/tasks/x/trigger", `{}`).ok().raw
		if again := a.do("POST", "/api/v1/tasks/x/trigger", `{}`).ok().raw; again != first {
			t.Errorf("got %s, want %s", again, first)
		}
		after(24 * time.Hour)
		if a.do("POST", "/api/v1/tasks/x/trigger", `{}`).ok().raw == first {
			t.Error("the key is remembered for more than a day")
		}
	})
}

func TestTheReadableKeyIsRetrievedAndTheStoredOneListed(t *testing.T) {
	_, a := start(t, Config{})
	id := a.trigger("x", `{"options":{"idempotencyKey":"5e884898","idempotencyKeyOptions":{"key":"order-1","scope":"run"}}}`)
	if got := a.run(id)["idempotencyKey"]; got != "order-1" {
		t.Errorf("retrieve shows %v", got)
	}
	if raw := a.get("/api/v1/runs").raw; !strings.Contains(raw, `"idempotencyKey":"5e884898"`) {
		t.Errorf("list is %s", raw)
	}
}

func TestTooManyTagsAreRefusedBeforeTheKeyIsLookedUpAndAnUnknownVersionAfter(t *testing.T) {
	_, a := start(t, Config{})
	first := a.trigger("x", `{"options":{"idempotencyKey":"k"}}`)
	got := a.do("POST", "/api/v1/tasks/x/trigger", `{"options":{"idempotencyKey":"k","tags":["1","2","3","4","5","6","7","8","9","10","11"]}}`)
	got.is(422, `{"error":"Runs can only have 10 tags, you're trying to set 11."}`)
	if again := a.trigger("x", `{"options":{"idempotencyKey":"k","lockToVersion":"none"}}`); again != first {
		t.Errorf("got %s, want the run that holds the key, %s", again, first)
	}
}

func TestADebouncedRunIsDelayed(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		id := a.trigger("x", `{"options":{"debounce":{"key":"k","delay":"1h"}}}`)
		if got, want := a.run(id)["delayedUntil"], e.clock.now().plus(time.Hour).iso(); got != want {
			t.Errorf("delayed until %v, want %s", got, want)
		}
	})
}

func TestAKeyThatIsGivenUpIsShownNoMore(t *testing.T) {
	inBubble(t, Config{Tasks: map[string]Task{"bad": {Status: "FAILED"}}}, func(t *testing.T, e *Emulator, a *api) {
		const body = `{"options":{"idempotencyKey":"k"}}`
		const readable = `{"options":{"idempotencyKey":"hash","idempotencyKeyOptions":{"key":"order-1","scope":"run"}}}`
		first, named := a.trigger("bad", body), a.trigger("bad", readable)
		after(time.Second)
		for id, want := range map[string]any{first: "k", named: "order-1"} {
			if got := a.run(id)["idempotencyKey"]; got != want {
				t.Errorf("a failed run shows %v until the key is asked for, want %v", got, want)
			}
		}
		a.trigger("bad", body)
		a.trigger("bad", readable)
		if got := a.run(first)["idempotencyKey"]; got != nil {
			t.Errorf("retrieve still shows %v", got)
		}
		if got := a.run(named)["idempotencyKey"]; got != "order-1" {
			t.Errorf("the readable key is %v, want it kept", got)
		}
		listed := a.get("/api/v1/runs").object()["data"].([]any)
		for _, item := range listed {
			r := item.(map[string]any)
			if free := r["id"] == first || r["id"] == named; free != (r["idempotencyKey"] == nil) {
				t.Errorf("list shows %v of %v", r["idempotencyKey"], r["id"])
			}
		}
		for _, item := range a.get("/emulator/runs").object()["runs"].([]any) {
			r := item.(map[string]any)
			if held := r["id"] != first && r["id"] != named; r["idempotencyKey"] == nil || r["holdsIdempotencyKey"] != held {
				t.Errorf("the control shows %v, held %v", r["idempotencyKey"], r["holdsIdempotencyKey"])
			}
		}
	})
}

func TestTheKeyInTheHeaderIsTheOneThatIsShown(t *testing.T) {
	_, a := start(t, Config{})
	id := a.with("idempotency-key", "head").trigger("x", `{"options":{"idempotencyKey":"body"}}`)
	if got := a.run(id)["idempotencyKey"]; got != "head" {
		t.Errorf("got %v, want head", got)
	}
}
