package emulator

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestAReplayIsANewRunWithoutDelayTTLAndKey(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		id := a.trigger("x", `{"payload":{"a":1},"options":{"delay":"1h","ttl":"1h","idempotencyKey":"k","tags":["t"],"metadata":{"m":1}}}`)
		fresh := a.do("POST", "/api/v1/runs/"+id+"/replay", "").ok().text("id")
		r := a.run(fresh)
		if fresh == id || r["delayedUntil"] != nil || r["ttl"] != nil || r["idempotencyKey"] != nil {
			t.Errorf("replay is %v", r)
		}
		if fmt.Sprint(r["payload"], r["tags"], r["metadata"]) != "map[a:1] [t] map[m:1]" {
			t.Errorf("replay is %v", r)
		}
		a.do("POST", "/api/v1/runs/run_none/replay", "").is(404, `{"error":"Resource not found"}`)
	})
}

func TestRescheduleMovesADelayedRun(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		id, quick := a.trigger("x", `{"options":{"delay":"1h"}}`), a.trigger("x", `{}`)
		path := "/api/v1/runs/" + id + "/reschedule"
		a.do("POST", path, `{"delay":"60000ms"}`).is(400, `{"error":"Invalid delay: 60000ms"}`)
		a.do("POST", path, `{"delay":"1999-01-01"}`).is(400, `{"error":"Invalid delay: 1999-01-01"}`)
		if got := a.do("POST", path, `{}`); got.status != 400 || got.text("error") != "Invalid request body" {
			t.Errorf("without a delay: %d %s", got.status, got.raw)
		}
		if got := a.do("POST", "/api/v1/runs/run_none/reschedule", `{}`); got.status != 400 {
			t.Errorf("the body is judged before the run: got %d, want 400", got.status)
		}
		if got := a.do("POST", path, `{`); got.status != 500 {
			t.Errorf("broken JSON: %d", got.status)
		}
		if got := a.do("POST", path, `{"delay":"2h"}`).ok().text("delayedUntil"); got != e.clock.now().plus(2*time.Hour).iso() {
			t.Errorf("delayed until %s", got)
		}
		a.do("POST", "/api/v1/runs/"+quick+"/reschedule", `{"delay":"2h"}`).is(400, `{"error":"Cannot reschedule a run that is not delayed"}`)
		a.do("POST", "/api/v1/runs/run_none/reschedule", `{"delay":"2h"}`).is(404, `{"error":"Run not found"}`)
		after(time.Hour + time.Minute)
		a.wantStatus(id, "DELAYED")
		after(time.Hour)
		a.wantStatus(id, "COMPLETED")
	})
}

func TestTagsAreAddedUpToTen(t *testing.T) {
	_, a := start(t, Config{})
	id := a.trigger("x", `{"options":{"tags":"c"}}`)
	path := "/api/v1/runs/" + id + "/tags"
	a.do("POST", path, `{"tags":["b","a","c"]}`).is(200, `{"message":"Successfully set 2 new tags."}`)
	a.do("POST", path, `{"tags":"a"}`).is(200, `{"message":"No new tags to add"}`)
	if got := fmt.Sprint(a.run(id)["tags"]); got != "[a b c]" {
		t.Errorf("tags %s, want them sorted", got)
	}
	a.do("POST", path, `{"tags":["1","2","3","4","5","6","7","8"]}`).is(422,
		`{"error":"Runs can only have 10 tags, you're trying to set 11. These tags have not been set: '1', '2', '3', '4', '5', '6', '7', '8'."}`)
	a.do("POST", path, `{`).is(500, `{"error":"Something went wrong, please try again."}`)
	a.do("POST", "/api/v1/runs/run_none/tags", `{"tags":"a"}`).is(404, `{"error":"Run not found"}`)
}

func TestMetadataIsReplacedAndPatched(t *testing.T) {
	_, a := start(t, Config{Tasks: map[string]Task{"x": {Status: "EXECUTING"}}})
	path := "/api/v1/runs/" + a.trigger("x", `{}`) + "/metadata"
	a.get(path).is(200, `{"metadata":null,"metadataType":"application/json"}`)
	a.do("PUT", path, `{"metadata":{"n":1,"list":[1,2],"gone":0}}`).is(200, `{"metadata":{"n":1,"list":[1,2],"gone":0}}`)
	a.do("PUT", path, `{"operations":[{"type":"set","key":"s","value":"<p>"},{"type":"increment","key":"n","value":0.5},
		{"type":"increment","key":"new","value":2},{"type":"append","key":"list","value":3},{"type":"append","key":"n2","value":1},
		{"type":"remove","key":"list","value":1},{"type":"delete","key":"gone"},{"type":"set","key":"$.a.b","value":1}]}`).
		is(200, `{"metadata":{"list":[2,3],"n":1.5,"n2":[1],"new":2,"s":"<p>"}}`)
	a.get(path).is(200, `{"metadata":"{\"list\":[2,3],\"n\":1.5,\"n2\":[1],\"new\":2,\"s\":\"<p>\"}","metadataType":"application/json"}`)
	a.do("PUT", path, `{"operations":[{"type":"update","value":{"all":"new"}}]}`).is(200, `{"metadata":{"all":"new"}}`)
	if got := a.do("PUT", path, `{"operations":[{"type":"explode","key":"a"}]}`); got.status != 400 {
		t.Errorf("an unknown operation gets %d", got.status)
	}
	a.do("PUT", path, fmt.Sprintf(`{"metadata":{"a":%q}}`, strings.Repeat("x", 262144))).
		is(413, `{"error":"Metadata exceeds maximum size of 262144 bytes"}`)
	a.do("PUT", path, `{}`).is(422, `{"error":"Invalid metadata"}`)
	a.do("PUT", "/api/v1/runs/run_none/metadata", `{}`).is(404, `{"error":"Task Run not found"}`)
}

func TestMetadataFreezesAnHourAfterTheEnd(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		path := "/api/v1/runs/" + a.trigger("x", `{}`) + "/metadata"
		after(59 * time.Minute)
		a.do("PUT", path, `{"metadata":{"a":1}}`).ok()
		after(2 * time.Minute)
		a.do("PUT", path, `{"metadata":{"a":2}}`).is(422, `{"error":"Cannot update metadata for a completed run"}`)
	})
}

func TestOperationsOnMetadata(t *testing.T) {
	const before = `{"n":1,"s":"x","list":[1,{"a":1}],"deep":{"n":2,"list":[1]},"none":null}`
	for name, tt := range map[string]struct{ ops, want string }{
		"set along a path":            {`{"type":"set","key":"$.deep.new","value":3}`, `{"deep":{"list":[1],"n":2,"new":3},"list":[1,{"a":1}],"n":1,"none":null,"s":"x"}`},
		"set into a list":             {`{"type":"set","key":"$.list.1.a","value":9}`, `{"deep":{"list":[1],"n":2},"list":[1,{"a":9}],"n":1,"none":null,"s":"x"}`},
		"set beyond a list":           {`{"type":"set","key":"$.list.3","value":9}`, `{"deep":{"list":[1],"n":2},"list":[1,{"a":1},null,9],"n":1,"none":null,"s":"x"}`},
		"set where there is no way":   {`{"type":"set","key":"$.no.way","value":9}`, `{"deep":{"list":[1],"n":2},"list":[1,{"a":1}],"n":1,"none":null,"s":"x"}`},
		"set through a number":        {`{"type":"set","key":"$.n.a","value":9}`, `{"deep":{"list":[1],"n":2},"list":[1,{"a":1}],"n":1,"none":null,"s":"x"}`},
		"append along a path":         {`{"type":"append","key":"$.deep.list","value":2}`, `{"deep":{"list":[1,2],"n":2},"list":[1,{"a":1}],"n":1,"none":null,"s":"x"}`},
		"append to what is no list":   {`{"type":"append","key":"none","value":2}`, `{"deep":{"list":[1],"n":2},"list":[1,{"a":1}],"n":1,"none":[null,2],"s":"x"}`},
		"remove along a path":         {`{"type":"remove","key":"$.deep.list","value":1}`, `{"deep":{"list":[],"n":2},"list":[1,{"a":1}],"n":1,"none":null,"s":"x"}`},
		"remove an object":            {`{"type":"remove","key":"list","value":{"a":1}}`, `{"deep":{"list":[1],"n":2},"list":[1],"n":1,"none":null,"s":"x"}`},
		"increment along a path":      {`{"type":"increment","key":"$.deep.n","value":-2}`, `{"deep":{"list":[1],"n":0},"list":[1,{"a":1}],"n":1,"none":null,"s":"x"}`},
		"increment what is no number": {`{"type":"increment","key":"s","value":2}`, `{"deep":{"list":[1],"n":2},"list":[1,{"a":1}],"n":1,"none":null,"s":2}`},
		"delete takes no path":        {`{"type":"delete","key":"$.deep.n"},{"type":"delete","key":"deep"}`, `{"list":[1,{"a":1}],"n":1,"none":null,"s":"x"}`},
	} {
		t.Run(name, func(t *testing.T) {
			_, a := start(t, Config{Tasks: map[string]Task{"x": {Status: "EXECUTING"}}})
			path := "/api/v1/runs/" + a.trigger("x", `{"options":{"metadata":`+before+`}}`) + "/metadata"
			a.do("PUT", path, `{"operations":[`+tt.ops+`]}`).is(200, `{"metadata":`+tt.want+`}`)
		})
	}
}

func TestOperationsAreDoneInsteadOfAReplacement(t *testing.T) {
	_, a := start(t, Config{Tasks: map[string]Task{"x": {Status: "EXECUTING"}}})
	path := "/api/v1/runs/" + a.trigger("x", `{"options":{"metadata":{"a":1}}}`) + "/metadata"
	a.do("PUT", path, `{"metadata":{"b":2},"operations":[{"type":"set","key":"c","value":3}]}`).is(200, `{"metadata":{"a":1,"c":3}}`)
}
