package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// openAPI is the document as a tree.
type openAPI map[string]any

func readOpenAPI(t *testing.T, text []byte) openAPI {
	t.Helper()
	var doc openAPI
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// at follows names into the tree.
func (d openAPI) at(names ...string) any {
	var node any = map[string]any(d)
	for _, name := range names {
		object, _ := node.(map[string]any)
		node = object[name]
	}
	return node
}

func (d openAPI) ref(to string) any { return d.at(strings.Split(strings.TrimPrefix(to, "#/"), "/")...) }

// misfits says where a value is not as its schema wants it: JSON Schema as far as the
// document makes use of it.
func (d openAPI) misfits(schema, value any, where string) (wrong []string) {
	s, ok := schema.(map[string]any)
	if !ok {
		return []string{where + ": there is no schema"}
	}
	no := func(format string, args ...any) { wrong = append(wrong, where+": "+fmt.Sprintf(format, args...)) }
	if to, ok := s["$ref"].(string); ok {
		return d.misfits(d.ref(to), value, where)
	}
	if anyOf, ok := s["anyOf"].([]any); ok {
		fits := func(one any) bool { return len(d.misfits(one, value, where)) == 0 }
		if !slices.ContainsFunc(anyOf, fits) {
			no("is none of %v", anyOf)
		}
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, value) {
		no("%v is none of %v", value, enum)
	}
	kinds, ok := s["type"].([]any)
	if one, single := s["type"].(string); single {
		kinds, ok = []any{one}, true
	}
	if ok && !slices.Contains(kinds, any(kindOf(value))) && !(kindOf(value) == "integer" && slices.Contains(kinds, "number")) {
		no("is %s, want %v", kindOf(value), kinds)
	}
	switch v := value.(type) {
	case []any:
		for i, item := range v {
			wrong = append(wrong, d.misfits(s["items"], item, fmt.Sprintf("%s[%d]", where, i))...)
		}
	case map[string]any:
		wrong = append(wrong, d.misfitMembers(s, v, where)...)
	}
	return wrong
}

func (d openAPI) misfitMembers(s, value map[string]any, where string) (wrong []string) {
	properties, _ := s["properties"].(map[string]any)
	required, _ := s["required"].([]any)
	for _, name := range required {
		if _, has := value[name.(string)]; !has {
			wrong = append(wrong, fmt.Sprintf("%s: has no %s", where, name))
		}
	}
	for name, member := range value {
		property, known := properties[name]
		switch more := s["additionalProperties"]; {
		case known:
			wrong = append(wrong, d.misfits(property, member, where+"."+name)...)
		case more == false:
			wrong = append(wrong, fmt.Sprintf("%s: has %s, which is not described", where, name))
		case more != nil && more != true:
			wrong = append(wrong, d.misfits(more, member, where+"."+name)...)
		}
	}
	return wrong
}

func kindOf(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case []any:
		return "array"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
		return "number"
	}
	return "object"
}

// calls visits every operation of the document.
func (d openAPI) calls(visit func(method, path string, op map[string]any)) {
	for path, item := range d.at("paths").(map[string]any) {
		for method, op := range item.(map[string]any) {
			visit(strings.ToUpper(method), path, op.(map[string]any))
		}
	}
}

func TestTheDocumentListsEveryCall(t *testing.T) {
	w := newWorld(t)
	r := w.call("GET", "/openapi.json", nil)
	if r.status != 200 || r.header.Get("Content-Type") != "application/openapi+json" {
		t.Fatalf("got %d %s", r.status, r.header.Get("Content-Type"))
	}
	d := readOpenAPI(t, r.body)
	var listed []string
	d.calls(func(method, path string, _ map[string]any) { listed = append(listed, method+" "+path) })
	for _, call := range []string{
		"POST /api/jobs", "POST /api/jobs/batch", "GET /api/jobs/{id}", "GET /api/jobs", "GET /api/jobs/{id}/events", "POST /api/jobs/{id}/cancel",
		"POST /api/jobs/{id}/retry", "GET /api/jobs/count", "POST /api/jobs/cleanup", "POST /api/reconcile", "POST /api/sync", "GET /api/registry",
		"GET /api/stats", "DELETE /api/jobs/{id}/schedule", "POST /api/jobs/{id}/pause", "POST /api/jobs/{id}/resume", "POST /api/cron/preview",
		"POST /api/worker/claim", "POST /api/jobs/{id}/start", "POST /api/jobs/{id}/heartbeat", "POST /api/jobs/{id}/complete", "POST /api/jobs/{id}/fail",
		"POST /api/jobs/{id}/release", "POST /api/trigger/webhook", "GET /livez", "GET /readyz", "GET /metrics",
	} {
		if !slices.Contains(listed, call) {
			t.Errorf("%s is not among %q", call, listed)
		}
	}
	for _, call := range listed {
		method, path, _ := strings.Cut(call, " ")
		if r := w.call(method, strings.ReplaceAll(path, "{id}", "1"), nil); r.status == 405 || strings.Contains(string(r.body), "no_such_path") {
			t.Errorf("%s is listed, but answers %d", call, r.status)
		}
	}
}

func TestTheDocumentIsSound(t *testing.T) {
	text, err := openapiDocument()
	if err != nil {
		t.Fatal(err)
	}
	d := readOpenAPI(t, text)
	if version, _ := d["openapi"].(string); !strings.HasPrefix(version, "3.1.") {
		t.Errorf("openapi is %q, want 3.1", version)
	}
	for _, name := range []string{"title", "version"} {
		if d.at("info", name) == nil || d.at("info", name) == "" {
			t.Errorf("info has no %s", name)
		}
	}
	ids := map[any]string{}
	inPath := regexp.MustCompile(`\{(\w+)\}`)
	d.calls(func(method, path string, op map[string]any) {
		call := method + " " + path
		if other, taken := ids[op["operationId"]]; taken || op["operationId"] == nil {
			t.Errorf("%s has the operationId %v, as has %s", call, op["operationId"], other)
		}
		ids[op["operationId"]] = call
		params, _ := op["parameters"].([]any)
		described := map[string]bool{}
		for _, p := range params {
			one := p.(map[string]any)
			if one["schema"] == nil || one["name"] == nil || one["in"] == "path" && one["required"] != true {
				t.Errorf("%s: a parameter is %v", call, one)
			}
			if one["in"] == "path" {
				described[one["name"].(string)] = true
			}
		}
		for _, name := range inPath.FindAllStringSubmatch(path, -1) {
			if !described[name[1]] {
				t.Errorf("%s does not describe %s", call, name[1])
			}
		}
		replies, _ := op["responses"].(map[string]any)
		for status, reply := range replies {
			if reply.(map[string]any)["description"] == nil || !regexp.MustCompile(`^([1-5]\d\d|default)$`).MatchString(status) {
				t.Errorf("%s: the reply %s is %v", call, status, reply)
			}
		}
		if len(replies) == 0 || op["summary"] == nil {
			t.Errorf("%s has %d replies and the summary %v", call, len(replies), op["summary"])
		}
	})
	for _, found := range regexp.MustCompile(`"\$ref": ?"([^"]*)"`).FindAllSubmatch(text, -1) {
		if to := string(found[1]); !strings.HasPrefix(to, "#/components/") || d.ref(to) == nil {
			t.Errorf("%s leads nowhere", to)
		}
	}
	again, err := openapiDocument()
	if err != nil || !reflect.DeepEqual(readOpenAPI(t, again), d) {
		t.Errorf("made again, the document differs, error %v", err)
	}
}

// TestRepliesAreAsTheyAreDescribed holds what is answered against the document that
// clients are generated from.
func TestRepliesAreAsTheyAreDescribed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withRegistry(t, goodRegistry))
		d := readOpenAPI(t, w.call("GET", "/openapi.json", nil).body)
		fits := func(status int, method, path, as string, body any) {
			t.Helper()
			r := w.call(method, path, body)
			kind, _, _ := strings.Cut(r.header.Get("Content-Type"), ";")
			replies := d.at("paths", as, strings.ToLower(method), "responses").(map[string]any)
			reply, ok := replies[fmt.Sprint(status)].(map[string]any)
			if !ok {
				reply = replies["default"].(map[string]any)
			}
			content, ok := reply["content"].(map[string]any)[kind].(map[string]any)
			if r.status != status || !ok || status < 400 && reply["description"] == "Error" {
				t.Errorf("%s %s: got %d as %s, want %d as described: %v", method, path, r.status, kind, status, reply)
				return
			}
			var value any = string(r.body)
			if kind != "text/plain" {
				r.into(t, &value)
			}
			for _, wrong := range d.misfits(content["schema"], value, method+" "+path) {
				t.Error(wrong)
			}
		}
		const one, event = "/api/jobs/{id}", "/api/jobs/{id}/events"
		fits(201, "POST", "/api/jobs", "/api/jobs", `{"type":"work","tag":"t"}`)
		fits(200, "POST", "/api/jobs", "/api/jobs", `{"type":"work","tag":"t","onConflict":"keep"}`)
		fits(409, "POST", "/api/jobs", "/api/jobs", `{"type":"work","tag":"t","onConflict":"reject"}`)
		fits(422, "POST", "/api/jobs", "/api/jobs", `{"tag":"t"}`)
		fits(400, "POST", "/api/jobs", "/api/jobs", `{`)
		fits(201, "POST", "/api/jobs", "/api/jobs", strings.NewReplacer("EXECUTOR", "trigger", "TASK", `"triggerTaskId":"echo",`).Replace(wholeRequest))
		fits(201, "POST", "/api/jobs", "/api/jobs", echoJob)
		fits(200, "GET", "/api/jobs/3", one, nil)
		w.wait(3)
		fits(200, "GET", "/api/jobs/3", one, nil)
		fits(404, "GET", "/api/jobs/9", one, nil)
		fits(200, "GET", "/api/jobs/3/events", event, nil)
		w.faults(cancelFault("status", "status", 500))
		fits(202, "POST", "/api/jobs/2/cancel", one+"/cancel", nil)
		w.faults()
		fits(200, "POST", "/api/jobs/1/cancel", one+"/cancel", nil)
		fits(201, "POST", "/api/jobs/1/retry", one+"/retry", nil)
		fits(200, "POST", "/api/jobs/batch", "/api/jobs/batch", `{"jobs":[{"type":"w"},{},{"name":"mail"}]}`)
		recurring := w.schedule(`{"type":"work","cronSchedule":"@daily","misfire":"all"}`).ID
		for _, does := range []string{"/pause", "/resume", "/schedule"} {
			method := map[bool]string{true: "DELETE", false: "POST"}[does == "/schedule"]
			fits(200, method, fmt.Sprintf("/api/jobs/%d%s", recurring, does), one+does, nil)
			fits(404, method, "/api/jobs/99"+does, one+does, nil)
		}
		fits(409, "POST", "/api/jobs/1/pause", one+"/pause", nil)
		fits(200, "POST", "/api/cron/preview", "/api/cron/preview", `{"cronSchedule":"*/30 1-2 8 3 *","timezone":"America/New_York","count":3}`)
		fits(422, "POST", "/api/cron/preview", "/api/cron/preview", `{"cronSchedule":"@never"}`)
		fits(200, "GET", "/api/jobs?limit=2", "/api/jobs", nil)
		fits(422, "GET", "/api/jobs?limit=0", "/api/jobs", nil)
		fits(200, "GET", "/api/jobs/count", "/api/jobs/count", nil)
		fits(200, "POST", "/api/jobs/cleanup", "/api/jobs/cleanup", `{"exclude":[1]}`)
		w.faults(map[string]any{"match": map[string]any{"method": "GET"}, "kind": "reset"})
		a, b, c := w.schedule(`{"type":"mine"}`).ID, w.schedule(`{"type":"mine","retryConfig":{"factor":2}}`).ID, w.schedule(`{"type":"mine"}`).ID
		fits(200, "POST", "/api/worker/claim", "/api/worker/claim", `{"types":["none"]}`)
		fits(422, "POST", "/api/worker/claim", "/api/worker/claim", `{"limit":0}`)
		jobs := w.claim(`{"types":["mine"],"limit":2}`)
		fits(200, "POST", fmt.Sprintf("/api/jobs/%d/start", c), one+"/start", `{}`)
		fits(409, "POST", fmt.Sprintf("/api/jobs/%d/start", a), one+"/start", `{}`)
		fits(200, "POST", fmt.Sprintf("/api/jobs/%d/heartbeat", a), one+"/heartbeat", withToken(jobs[0].LeaseToken))
		fits(200, "POST", fmt.Sprintf("/api/jobs/%d/complete", a), one+"/complete", withToken(jobs[0].LeaseToken, `"result":{"n":1}`))
		fits(200, "POST", fmt.Sprintf("/api/jobs/%d/release", b), one+"/release", withToken(jobs[1].LeaseToken))
		fits(200, "POST", "/api/worker/claim", "/api/worker/claim", `{"types":["mine"]}`)
		fits(409, "POST", fmt.Sprintf("/api/jobs/%d/fail", b), one+"/fail", withToken(jobs[1].LeaseToken))
		fits(409, "POST", fmt.Sprintf("/api/jobs/%d/fail", c), one+"/fail", `{"error":"x"}`)
		w.triggerJob("echo", "due", time.Now().Add(time.Hour))
		fits(200, "POST", "/api/reconcile", "/api/reconcile", nil)
		fits(200, "POST", "/api/sync", "/api/sync", nil)
		fits(200, "GET", "/api/registry", "/api/registry", nil)
		fits(200, "GET", "/api/stats", "/api/stats", nil)
		fits(200, "GET", "/livez", "/livez", nil)
		fits(200, "GET", "/readyz", "/readyz", nil)
		fits(200, "GET", "/metrics", "/metrics", nil)
	})
}
