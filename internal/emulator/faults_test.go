package emulator

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func (a *api) spoil(faults string) {
	a.t.Helper()
	a.do("PUT", "/emulator/faults", faults).ok()
}

func (a *api) count() int {
	a.t.Helper()
	return len(a.get("/emulator/runs").object()["runs"].([]any))
}

func TestAFaultStrikesAsOftenAsItSays(t *testing.T) {
	_, a := start(t, Config{})
	a.spoil(`[{"match":{"method":"POST","path":"/api/v1/tasks/"},"kind":"status","status":500,"after":1,"times":2}]`)
	for n, want := range []int{200, 500, 500, 200} {
		if got := a.do("POST", "/api/v1/tasks/x/trigger", `{}`); got.status != want {
			t.Errorf("request %d: got %d, want %d", n, got.status, want)
		}
	}
	a.get("/api/v1/runs").ok()
	shown := a.get("/emulator/faults").object()["faults"].([]any)[0].(map[string]any)
	if shown["seen"] != 4.0 || shown["hits"] != 2.0 {
		t.Errorf("counts %v, want 4 seen and 2 hits", shown)
	}
	a.spoil(`{"faults":[{"kind":"status","status":503,"probability":0}]}`)
	a.get("/api/v1/runs").ok()
}

func TestADroppedReplyHasDoneItsWork(t *testing.T) {
	_, a := start(t, Config{})
	for kind, runs := range map[string]int{"dropReply": 1, "reset": 0} {
		before := a.count()
		a.spoil(`[{"kind":"` + kind + `","times":1}]`)
		if got, err := a.try("POST", "/api/v1/tasks/x/trigger", `{}`); err == nil {
			t.Errorf("%s: got an answer: %s", kind, got.raw)
		}
		if got := a.count() - before; got != runs {
			t.Errorf("%s: %d runs made, want %d", kind, got, runs)
		}
	}
}

func TestAnswersCanBeSpoiled(t *testing.T) {
	_, a := start(t, Config{})
	id := a.trigger("x", `{}`)
	one := func(fault string) answer {
		a.spoil(`[` + fault + `]`)
		return a.get("/api/v3/runs/" + id)
	}
	if got := one(`{"kind":"garbage"}`); got.status != 200 || !strings.HasPrefix(got.raw, "<html>") {
		t.Errorf("garbage: %d %s", got.status, got.raw)
	}
	if got := one(`{"kind":"redirect"}`); got.status != 302 || got.header.Get("Location") != "https://redirect.invalid/api/v3/runs/"+id {
		t.Errorf("redirect: %d %v", got.status, got.header)
	}
	one(`{"kind":"notFound"}`).is(404, `{"error":"Not found"}`)
	for _, status := range []int{500, 502, 503, 504, 429, 401, 403, 408, 404, 409, 422} {
		if got := one(string(object("kind", "status", "status", status))); got.status != status {
			t.Errorf("status: got %d, want %d", got.status, status)
		}
	}
	if got := one(`{"kind":"status","status":429,"delayMs":5000}`); got.header.Get("x-ratelimit-reset") == "" || got.object()["error"] == nil {
		t.Errorf("429 is %v %s", got.header, got.raw)
	}
	a.spoil(`[{"match":{"path":"/api/v1/runs"},"kind":"emptyList"}]`)
	a.get("/api/v1/runs").is(200, `{"data":[],"pagination":{}}`)
}

func TestDelayAndHangHoldARequest(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		a.spoil(`[{"match":{"path":"/api/v1/runs"},"kind":"delay","delayMs":3000},{"match":{"path":"/api/v2"},"kind":"hang"}]`)
		began := time.Now()
		a.get("/api/v1/runs").ok()
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("answered after %s, want 3s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", "http://emulator.test/api/v2/whoami", nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { _, err := a.http.Do(req); done <- err }()
		synctest.Wait()
		if len(done) != 0 {
			t.Error("a hanging request is answered")
		}
		if err := <-done; err == nil || time.Since(began) < time.Hour {
			t.Errorf("ended with %v after %s", err, time.Since(began))
		}
	})
}

func TestFaultsWorkOverARealConnection(t *testing.T) {
	e, a := start(t, Config{})
	id := a.trigger("x", `{}`)
	server := httptest.NewUnstartedServer(e)
	server.Start()
	defer server.Close()
	get := func() (*http.Response, error) {
		req, err := http.NewRequest("GET", server.URL+"/api/v3/runs/"+id, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+a.key)
		return server.Client().Do(req)
	}
	a.spoil(`[{"kind":"truncate","times":1},{"kind":"dropReply","times":3}]`)
	resp, err := get()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil || len(body) == 0 || int64(len(body)) >= resp.ContentLength {
		t.Errorf("truncated to %d of %d bytes, error %v", len(body), resp.ContentLength, err)
	}
	if resp, err := get(); err == nil {
		resp.Body.Close()
		t.Errorf("a dropped reply arrives: %d", resp.StatusCode)
	}
}

func TestBadFaultsAreRefused(t *testing.T) {
	_, a := start(t, Config{})
	a.spoil(`[{"kind":"reset","match":{"path":"/nowhere"}}]`)
	for _, bad := range []string{``, `1`, `[1]`, `[null]`, `[{"kind":"explode"}]`, `[{"kind":"status"}]`, `[{"kind":"status","status":200}]`,
		`[{"kind":"delay"}]`, `[{"kind":"staleList"}]`, `[{"kind":"status","status":600}]`, `[{"kind":"hang","often":1}]`, `[{"kind":"hang","probability":2}]`, `[{"kind":"hang","times":-1}]`, `[] x`} {
		if got := a.do("PUT", "/emulator/faults", bad); got.status != 400 || got.text("error") == "" {
			t.Errorf("%s: got %d %s", bad, got.status, got.raw)
		}
	}
	if n := len(a.get("/emulator/faults").object()["faults"].([]any)); n != 1 {
		t.Errorf("a refused list has replaced the old one: %d", n)
	}
}

func TestAStaleListLacksYoungRuns(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		a.spoil(`[{"match":{"path":"/api/v1/runs"},"kind":"staleList","delayMs":5000}]`)
		old := a.trigger("x", `{"options":{"tags":["t"]}}`)
		after(4 * time.Second)
		young := a.trigger("x", `{"options":{"tags":["t"]}}`)
		if got := ids(a.get("/api/v1/runs?filter[tag]=t")); len(got) != 0 {
			t.Errorf("after 4 s: %v, want none", got)
		}
		after(time.Second)
		if got := ids(a.get("/api/v1/runs")); len(got) != 1 || got[0] != old {
			t.Errorf("after 5 s: %v, want %s", got, old)
		}
		a.run(young) // retrieve does not lag
		a.spoil(`[]`)
		if got := ids(a.get("/api/v1/runs")); len(got) != 2 {
			t.Errorf("without the fault: %v, want both", got)
		}
	})
}

func TestTheRealtimeFeedCanBeSpoiled(t *testing.T) {
	_, a := start(t, Config{})
	one := func(fault string) answer {
		a.spoil(`[{"match":{"path":"/realtime/"},` + fault + `}]`)
		a.get("/api/v1/runs").ok()
		return a.get("/realtime/v1/runs?offset=-1")
	}
	got := one(`"kind":"notFound"`)
	got.is(404, `{"error":"Not found"}`)
	if got.header.Get("x-should-retry") != "false" {
		t.Errorf("headers %v", got.header)
	}
	one(`"kind":"status","status":429`).is(429, `{"error":"Too many concurrent requests"}`)
	one(`"kind":"status","status":409`).is(409, `[{"headers":{"control":"must-refetch"}}]`)
	one(`"kind":"status","status":500`).is(500, `{"error":"Internal Server Error"}`)
}
