package emulator

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// receiver takes webhooks, failing as often as it is told to.
type receiver struct {
	mu     sync.Mutex
	bodies []string
	heads  []http.Header
	fail   int
}

func (v *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.bodies, v.heads = append(v.bodies, string(body)), append(v.heads, r.Header)
	if v.fail > 0 {
		v.fail--
		w.WriteHeader(500)
	}
}

// types lists the events of a run, in order of arrival.
func (v *receiver) types(runID string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := []string{}
	for _, body := range v.bodies {
		if strings.Contains(body, runID) {
			var ev struct{ Type string }
			_ = json.Unmarshal([]byte(body), &ev)
			list = append(list, ev.Type)
		}
	}
	return list
}

func hooked(v *receiver) Config {
	return Config{WebhookURL: "http://app.test/hook", WebhookSecret: "whsec_c2VjcmV0, old", Client: &http.Client{Transport: inProcess{v}},
		Tasks: map[string]Task{"bad": {Error: &TaskError{Message: "no"}}, "crash": {Status: "CRASHED"}, "late": {Status: "TIMED_OUT"},
			"stuck": {Status: "QUEUED"}, "taken": {Status: "DEQUEUED"}, "long": {DurationMs: 60000}}}
}

func TestEventsAreThoseThatTaskHooksCanSend(t *testing.T) {
	v := &receiver{}
	inBubble(t, hooked(v), func(t *testing.T, e *Emulator, a *api) {
		want := map[string][]string{
			a.trigger("good", `{}`):  {"RUN_STARTED", "RUN_COMPLETED"},
			a.trigger("bad", `{}`):   {"RUN_STARTED", "RUN_STARTED", "RUN_STARTED", "RUN_FAILED"},
			a.trigger("crash", `{}`): {"RUN_STARTED"},
			a.trigger("late", `{}`):  {"RUN_STARTED"},
			a.trigger("long", `{}`):  {"RUN_STARTED", "RUN_CANCELED"},
			a.trigger("stuck", `{}`): {},
			a.trigger("taken", `{}`): {},
		}
		after(time.Second)
		for id := range want {
			if s := a.run(id)["status"]; s == "EXECUTING" && a.run(id)["taskIdentifier"] == "long" || s == "QUEUED" || s == "DEQUEUED" {
				a.do("POST", "/api/v2/runs/"+id+"/cancel", "").ok()
			}
		}
		after(time.Minute)
		for id, types := range want {
			if got := v.types(id); !slices.Equal(got, types) {
				t.Errorf("%v: got %v, want %v", a.run(id)["taskIdentifier"], got, types)
			}
		}
	})
}

func TestEventsAreSignedInBothWays(t *testing.T) {
	v := &receiver{}
	inBubble(t, hooked(v), func(t *testing.T, e *Emulator, a *api) {
		id := a.trigger("good", `{"payload":{"a":1},"options":{"tags":["t"],"idempotencyKey":"k"}}`)
		after(time.Second)
		body, head := v.bodies[1], v.heads[1]
		if want := hex.EncodeToString(mac([]byte("whsec_c2VjcmV0"), []byte(body))); head.Get("trigger-signature") != want {
			t.Errorf("trigger-signature %s, want %s", head.Get("trigger-signature"), want)
		}
		signed := head.Get("webhook-id") + "." + head.Get("webhook-timestamp") + "." + body
		if want := "v1," + base64.StdEncoding.EncodeToString(mac([]byte("secret"), []byte(signed))); head.Get("webhook-signature") != want {
			t.Errorf("webhook-signature %s, want %s", head.Get("webhook-signature"), want)
		}
		var ev struct {
			ID, Type string
			Run      map[string]any
		}
		if err := json.Unmarshal([]byte(body), &ev); err != nil || ev.ID != head.Get("webhook-id") || !strings.HasPrefix(ev.ID, "evt_") {
			t.Errorf("event %s, %v", body, err)
		}
		for name, want := range map[string]any{"id": id, "status": "COMPLETED", "taskIdentifier": "good", "attemptCount": 1.0, "idempotencyKey": "k"} {
			if ev.Run[name] != want {
				t.Errorf("%s is %v, want %v", name, ev.Run[name], want)
			}
		}
		for _, name := range []string{"output", "metadata", "createdAt", "startedAt", "completedAt", "updatedAt", "attempt", "tags"} {
			if ev.Run[name] == nil {
				t.Errorf("no %s in %s", name, body)
			}
		}
	})
}

func TestASignatureIsTheKnownOne(t *testing.T) {
	h := http.Header{}
	sign(h, event{id: "evt_1", body: []byte(`{"hello":"world"}`)}, "test-secret", time.Unix(0, 0))
	if got, want := h.Get("trigger-signature"), "84cc33df716ed0b0598f07437c94069ace3730358778a592bd6bbd1423d111f3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAnEventIsTriedThreeTimesAndKeepsItsPlace(t *testing.T) {
	v := &receiver{fail: 4}
	inBubble(t, hooked(v), func(t *testing.T, e *Emulator, a *api) {
		id := a.trigger("good", `{}`)
		after(time.Minute)
		want := []string{"RUN_STARTED", "RUN_STARTED", "RUN_STARTED", "RUN_COMPLETED", "RUN_COMPLETED"}
		if got := v.types(id); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if v.bodies[0] != v.bodies[2] || v.heads[0].Get("webhook-id") != v.heads[2].Get("webhook-id") {
			t.Error("a repeated event is not the same one")
		}
	})
}
