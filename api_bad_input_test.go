package main

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

// badMembers are requests with one thing wrong: the member, as the problem names it,
// and what it is.
func badMembers() [][2]string {
	long := strings.Repeat("é", 513)
	bad := [][2]string{
		{"type", `""`}, {"type", `" "`}, {"type", `"` + long + `"`}, {"type", `"a\nb"`},
		{"tag", `" "`}, {"tag", `"` + long + `"`}, {"tag", `"a\u0000"`}, {"tag", `"a\u007f"`},
		{"userId", `-1`}, {"userId", `1.5`}, {"userId", `1.0`}, {"userId", `1e3`}, {"userId", `9007199254740992`}, {"userId", `99999999999999999999`},
		{"executor", `"Trigger"`}, {"executor", `"other"`}, {"executor", `"trigger "`},
		{"triggerTaskId", `"` + long + `"`},
		{"due", `""`}, {"due", `"tomorrow"`}, {"due", `"2030-01-01"`}, {"due", `"2030-01-01T00:00:00"`}, {"due", `"2030-02-30T00:00:00Z"`},
		{"due", `-1`}, {"due", `0`}, {"due", `1769860800`}, {"due", `1e18`}, {"due", `1e308`}, {"due", `"9999-01-01T00:00:00Z"`}, {"due", `"NaN"`},
		{"due", `true`}, {"due", `{}`}, {"due", `[]`}, {"due", `"-0001-01-01T00:00:00Z"`},
		{"retryConfig.maxAttempts", `0`}, {"retryConfig.maxAttempts", `251`}, {"retryConfig.maxAttempts", `-1`}, {"retryConfig.maxAttempts", `"3"`},
		{"retryConfig.maxAttempts", `2.5`}, {"retryConfig.maxAttempts", `2.0`},
		{"retryConfig.minTimeoutInMs", `-1`}, {"retryConfig.minTimeoutInMs", `31536000001`}, {"retryConfig.minTimeoutInMs", `1e300`},
		{"retryConfig.maxTimeoutInMs", `-1`}, {"retryConfig.maxTimeoutInMs", `false`},
		{"retryConfig.factor", `0.5`}, {"retryConfig.factor", `101`}, {"retryConfig.factor", `"2"`},
		{"retryConfig.randomize", `1`}, {"retryConfig.jitter", `true`}, {"retryConfig.MaxAttempts", `3`},
		{"persistent", `"true"`}, {"persistent", `1`},
		{"removeDelay", `"1h"`}, {"removeDelay", `0.5`}, {"removeDelay", `3153600000001`}, {"removeDelay", `-3153600000001`}, {"removeDelay", `9223372036854775807`}, {"removeDelay", `1e30`},
		{"autoRescheduleOnFailure", `0`}, {"autoRescheduleOnFailureDelay", `-1`}, {"autoRescheduleOnFailureDelay", `3153600000001`}, {"autoRescheduleOnFailureDelay", `"5"`},
		{"metadata", `[]`}, {"metadata", `"x"`}, {"metadata", `{"x":"` + strings.Repeat("x", 252<<10) + `"}`}, {"metadata", `{"x":` + nested(900) + `}`},
		{"labels[0]", `[""]`}, {"labels[0]", `[1]`}, {"labels[0]", `[null]`}, {"labels[1]", `["a"," "]`}, {"labels[0]", `["` + long + `"]`}, {"labels[0]", `["a\t"]`},
		{"labels", `"a"`}, {"labels", `[` + strings.TrimSuffix(strings.Repeat(`"a",`, 51), ",") + `]`},
		{"onConflict", `"drop"`}, {"onConflict", `"Keep"`},
		{"name", `"nobody"`},
		{"data", nested(901)}, {"data", nested(1001)}, {"data", nested(9000)}, {"data", strings.Repeat(`{"a":`, 901) + `1` + strings.Repeat(`}`, 901)},
		{"color", `1`}, {"id", `7`}, {"status", `"PENDING"`}, {"Data", `1`}, {"task_id", `1`},
	}
	for _, text := range []string{"type", "tag", "executor", "triggerTaskId", "onConflict", "name"} {
		for _, wrong := range []string{`5`, `true`, `{}`, `["x"]`} {
			bad = append(bad, [2]string{text, wrong})
		}
	}
	for _, other := range []string{"userId", "persistent", "removeDelay", "retryConfig", "autoRescheduleOnFailure", "labels"} {
		bad = append(bad, [2]string{other, `"x"`})
	}
	return bad
}

// requestWith is a good request but for one member, which may stand in another.
func requestWith(member, value string) string {
	member, _, _ = strings.Cut(member, "[")
	outer, inner, within := strings.Cut(member, ".")
	if within {
		value = fmt.Sprintf(`{"%s":%s}`, inner, value)
	}
	rest := `,"type":"work"`
	switch outer {
	case "type":
		rest = ""
	case "triggerTaskId":
		rest += `,"executor":"trigger"`
	}
	return fmt.Sprintf(`{"%s":%s%s}`, outer, value, rest)
}

func TestAWrongMemberIsNamedAndNothingIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, bad := range badMembers() {
			body := requestWith(bad[0], bad[1])
			wantProblem(t, fmt.Sprintf("%.80s", body), w.call("POST", "/api/jobs", body), 422, "invalid", "body."+bad[0])
		}
		if n := w.countAll(); n != 0 {
			t.Errorf("there are %d jobs, want none", n)
		}
	})
}

func TestEverythingThatIsWrongIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.call("POST", "/api/jobs", `{"tag":" ","userId":-2,"due":"soon","removeDelay":-9007199254740991,"labels":["a",""],"onConflict":"x","retryConfig":{"minTimeoutInMs":10,"maxTimeoutInMs":5}}`)
		p := wantProblem(t, "rules", r, 422, "invalid", "body.due", "body.removeDelay", "body.type", "body.userId",
			"body.labels[1]", "body.onConflict", "body.retryConfig.maxTimeoutInMs")
		contains(t, p.Detail, "type: is required", "due: is not a time", "userId: is negative")
		r = w.call("POST", "/api/jobs", `{"type":1,"persistent":2,"retryConfig":{"factor":"x"},"color":3}`)
		wantProblem(t, "types", r, 422, "invalid", "body.type", "body.persistent", "body.retryConfig.factor", "body.color")
	})
}

func TestMembersThatAreMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for body, named := range map[string]string{
			`{}`:                                  "body.type",
			`{"tag":"x"}`:                         "body.type",
			`{"type":null}`:                       "body.type",
			`{"type":"x","executor":"trigger"}`:   "body.triggerTaskId",
			`{"type":"x","triggerTaskId":"task"}`: "body.triggerTaskId", // of an internal job
			`{"type":"x","executor":"trigger","triggerTaskId":""}`:   "body.triggerTaskId",
			`{"type":"x","executor":"trigger","triggerTaskId":null}`: "body.triggerTaskId",
			`{"type":"x","executor":"trigger","triggerTaskId":" "}`:  "body.triggerTaskId",
		} {
			wantProblem(t, body, w.call("POST", "/api/jobs", body), 422, "invalid", named)
		}
	})
}

func TestWhatIsNullIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		plain := w.call("POST", "/api/jobs", `{"type":"work","tag":"t","data":null}`)
		nulls := w.call("POST", "/api/jobs", `{"type":"work","tag":"t","data":null,"userId":null,"executor":null,"triggerTaskId":null,"due":null,
			"retryConfig":null,"persistent":null,"removeDelay":null,"autoRescheduleOnFailure":null,"autoRescheduleOnFailureDelay":null,
			"metadata":null,"labels":null,"onConflict":null,"name":null}`)
		if got, want := string(nulls.body), strings.Replace(string(plain.body), `"id":1`, `"id":2`, 1); got != want {
			t.Errorf("got %d %s, want %s", nulls.status, got, want)
		}
	})
}

func TestTheLimitsThemselvesAreAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		long := strings.Repeat("😀", 512)
		for _, good := range [][2]string{
			{"tag", `"` + long + `"`}, {"type", `"` + long + `"`}, {"labels", `["` + long + `"]`},
			{"labels", `[` + strings.TrimSuffix(strings.Repeat(`"a",`, 50), ",") + `]`},
			{"userId", `9007199254740991`}, {"removeDelay", `3153600000000`}, {"removeDelay", `-3153600000000`},
			{"autoRescheduleOnFailureDelay", `3153600000000`}, {"retryConfig.maxAttempts", `250`}, {"retryConfig.factor", `100`},
			{"retryConfig.minTimeoutInMs", `31536000000`}, {"due", `"2099-11-01T00:00:00Z"`}, {"data", nested(900)},
			{"metadata", `{"x":"` + strings.Repeat("x", 252<<10-8) + `"}`}, {"metadata", `{"x":` + nested(899) + `}`},
		} {
			body := requestWith(good[0], good[1])
			if r := w.call("POST", "/api/jobs", body); r.status != 201 {
				t.Errorf("%.80s: got %d %.200s, want 201", body, r.status, r.body)
			}
		}
		tagged := w.triggerJob("echo", "tag", long, "labels", []string{long})
		if done := w.wait(tagged.ID); done.Status != "COMPLETED" {
			t.Errorf("with a tag of 512 characters on Trigger.dev it is %s, want COMPLETED", done.Status)
		}
	})
}

func TestABodyThatIsNotJSONIs400(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, body := range []string{
			`{`, `{"type":"work"`, `{"type":"work"}}`, `{"type":"work"} {}`, `{"type":"work"}null`, `{'type':'work'}`, `{type:"work"}`,
			`{"type":"work",}`, `{"type":"work" "tag":"x"}`, `{"type":work}`, "{\"type\":\"a\nb\"}", `{"type":"\x"}`, `{"type":"work","data":01}`,
			`{"type":"work","data":NaN}`, `{"type":"work","data":+1}`, `{"type":"work","data":.5}`, `type=work`, " ", "\ufeff" + `{"type":"work"}`,
			"{\"type\":\"work\"}\x00", "/* */{\"type\":\"work\"}", `{"type":"work","data":` + nested(10_001) + `}`, strings.Repeat("[", 1<<19),
			`{"type":"work","data":1e400}`,
		} {
			wantProblem(t, fmt.Sprintf("%.40q", body), w.call("POST", "/api/jobs", body), 400, "bad_json", "body")
		}
		for _, body := range []string{"{\"type\":\"\xff\"}", "{\"type\":\"work\",\"data\":\"\xc3\x28\"}", "{\"type\":\"work\",\"\xed\xa0\x80\":1}", "\xff\xfe{\x00}\x00"} {
			wantProblem(t, fmt.Sprintf("%q", body), w.call("POST", "/api/jobs", body), 400, "bad_json")
		}
		wantProblem(t, "no body", w.call("POST", "/api/jobs", nil), 400, "bad_json")
		for _, body := range []string{`null`, `[]`, `[{"type":"work"}]`, `"work"`, `1`, `true`} {
			wantProblem(t, body, w.call("POST", "/api/jobs", body), 422, "invalid", "body")
		}
		if n := w.countAll(); n != 0 {
			t.Errorf("there are %d jobs, want none", n)
		}
	})
}

func TestAMemberGivenTwiceIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for body, named := range map[string]string{
			`{"type":"a","type":"b"}`:                                        "body.type",
			`{"type":"a","type":"a"}`:                                        "body.type",
			`{"type":"a","t\u0079pe":"b"}`:                                   "body.type",
			`{"type":"a","data":1,"tag":"x","data":2}`:                       "body.data",
			`{"type":"a","retryConfig":{"maxAttempts":1,"maxAttempts":200}}`: "body.retryConfig.maxAttempts",
		} {
			wantProblem(t, body, w.call("POST", "/api/jobs", body), 422, "invalid", named)
		}
		wantProblem(t, "cleanup", w.call("POST", "/api/jobs/cleanup", `{"exclude":[1],"exclude":[]}`), 422, "invalid", "body.exclude")
		if n := w.countAll(); n != 0 {
			t.Errorf("there are %d jobs, want none", n)
		}
		if r := w.call("POST", "/api/jobs", `{"type":"a","data":{"a":1,"a":2}}`); r.status != 201 {
			t.Errorf("inside of data, which is the caller's: got %d %s", r.status, r.body)
		}
	})
}

func TestOnlyJSONIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for kind, status := range map[string]int{
			"application/json": 201, "application/json; charset=utf-8": 201, "Application/JSON": 201,
			"": 415, "text/plain": 415, "application/x-www-form-urlencoded": 415, "multipart/form-data; boundary=x": 415,
			"application/jsonp": 415, "application/json, text/plain": 415, "text/json": 415, "application/ld+json": 415, ";": 415,
		} {
			r := w.call("POST", "/api/jobs", `{"type":"work"}`, "Content-Type", kind)
			if r.status != status {
				t.Errorf("%q: got %d %s, want %d", kind, r.status, r.body, status)
			}
			if status == 415 {
				wantProblem(t, kind, r, 415, "unsupported_media_type")
			}
		}
		wantProblem(t, "cancel", w.call("POST", "/api/jobs/1/cancel", "x=1", "Content-Type", "application/x-www-form-urlencoded"), 415, "unsupported_media_type")
		if n := w.countAll(); n != 3 {
			t.Errorf("there are %d jobs, want 3", n)
		}
	})
}

func TestABodyOverItsLimitIs413(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		body := func(size int) string {
			head := `{"type":"work","data":"`
			return head + strings.Repeat("x", size-len(head)-2) + `"}`
		}
		if r := w.call("POST", "/api/jobs", body(1<<20)); r.status != 201 {
			t.Errorf("1 MiB: got %d %.200s, want 201", r.status, r.body)
		}
		wantProblem(t, "1 MiB and a byte", w.call("POST", "/api/jobs", body(1<<20+1)), 413, "too_large")
		wantProblem(t, "a call without a body", w.call("POST", "/api/reconcile", body(1<<20+1)), 413, "too_large")
		if n := w.countAll(); n != 1 {
			t.Errorf("there are %d jobs, want 1", n)
		}
	})
}

func TestWrongParametersAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.schedule(`{"type":"work"}`)
		for call, named := range map[string]string{
			"GET /api/jobs/0": "path.id", "GET /api/jobs/-1": "path.id", "GET /api/jobs/x": "path.id", "GET /api/jobs/1.0": "path.id",
			"GET /api/jobs/99999999999999999999": "path.id", "POST /api/jobs/x/cancel": "path.id", "POST /api/jobs/0/retry": "path.id", "GET /api/jobs/x/events": "path.id",
			"GET /api/jobs/1?waitMs=60001": "query.waitMs", "GET /api/jobs/1?waitMs=-1": "query.waitMs", "GET /api/jobs/1?waitMs=x": "query.waitMs",
			"GET /api/jobs/1?waitMs=": "query.waitMs", "GET /api/jobs/1?waitMs=1&waitMs=2": "query.waitMs", "GET /api/jobs/1?wait=1": "query.wait",
			"POST /api/jobs?waitMs=10001": "query.waitMs", "POST /api/jobs?waitMs=-1": "query.waitMs", "POST /api/jobs?waitMs=1.5": "query.waitMs", "POST /api/jobs?dryRun=1": "query.dryRun",
			"POST /api/jobs/1/cancel?waitMs=10001": "query.waitMs", "POST /api/jobs/1/cancel?waitMs=2s": "query.waitMs",
			"POST /api/jobs/1/retry?waitMs=10001": "query.waitMs", "POST /api/reconcile?force=true": "query.force", "GET /api/stats?x=1": "query.x",
			"GET /api/jobs?%zz": "query", "GET /api/jobs?tag=50%off": "query", "GET /api/jobs?tag=a;b": "query",
		} {
			method, path, _ := strings.Cut(call, " ")
			var body any
			if strings.HasPrefix(path, "/api/jobs?") && method == "POST" {
				body = `{"type":"work"}`
			}
			wantProblem(t, call, w.call(method, path, body), 422, "invalid", named)
		}
		if j := w.get(1); j.CancelRequested || w.countAll() != 1 {
			t.Errorf("job 1 is %+v of %d, want nothing changed", j, w.countAll())
		}
	})
}
