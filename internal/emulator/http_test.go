package emulator

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestKeysAreRefusedInEachRoutesWords(t *testing.T) {
	e, _ := start(t, Config{})
	const modern, legacy = `{"error":"Invalid API key"}`, `{"error":"Invalid or Missing API Key"}`
	for _, tt := range []struct{ method, path, want string }{
		{"POST", "/api/v1/tasks/x/trigger", modern},
		{"GET", "/api/v3/runs/run_x", modern},
		{"GET", "/api/v1/runs", modern},
		{"POST", "/api/v2/runs/run_x/cancel", modern},
		{"POST", "/api/v1/runs/run_x/replay", modern},
		{"PUT", "/api/v1/runs/run_x/metadata", modern},
		{"GET", "/api/v2/whoami", modern},
		{"GET", "/api/v1/runs/run_x/metadata", legacy},
		{"GET", "/api/v1/runs/run_x/result", legacy},
		{"POST", "/api/v1/runs/run_x/tags", legacy},
		{"POST", "/api/v1/schedules", legacy},
		{"GET", "/api/v1/schedules/x", legacy},
		{"POST", "/api/v1/runs/run_x/reschedule", `{"error":"Invalid or missing API Key"}`},
	} {
		clientOf(t, e, "tr_live_x").do(tt.method, tt.path, "").is(401, tt.want)
	}
	empty := clientOf(t, e, "").with("Authorization", "Bearer ")
	empty.get("/api/v1/runs").is(401, `{"error":"Invalid or Missing API key"}`)
	clientOf(t, e, "tr_preview_x").get("/api/v1/runs").is(401, `{"error":"x-trigger-branch header required for preview env"}`)
	clientOf(t, e, "tr_preview_x").with("x-trigger-branch", "refs/heads/b").get("/api/v1/runs").ok()
	clientOf(t, e, "").with("Authorization", "tr_stg_bare").get("/api/v1/runs").ok()
}

func TestAMissingHeaderIsAProblem(t *testing.T) {
	e, _ := start(t, Config{})
	got, want := clientOf(t, e, "").get("/api/v1/runs"), example(t, "error-401-no-header")
	if got.status != 401 || got.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %d %s", got.status, got.header.Get("Content-Type"))
	}
	for name, value := range want["body"].(map[string]any) {
		if got.object()[name] != value {
			t.Errorf("%s is %v, want %v", name, got.object()[name], value)
		}
	}
}

func TestSomeRoutesNeedNoKey(t *testing.T) {
	e, _ := start(t, Config{})
	open := clientOf(t, e, "")
	for _, path := range []string{"/healthcheck", "/api/v1/timezones", "/emulator/runs", "/emulator/faults"} {
		open.get(path).ok()
	}
	if zones := open.get("/api/v1/timezones?excludeUtc=true").raw; strings.Contains(zones, `"UTC"`) {
		t.Error("UTC is not left out")
	}
}

func TestEachKeyIsAnEnvironment(t *testing.T) {
	e, a := start(t, Config{})
	id := a.trigger("x", `{}`)
	other := clientOf(t, e, "tr_prod_other")
	got := other.get("/api/v3/runs/" + id)
	got.is(404, `{"error":"Not found"}`)
	if got.header.Get("x-should-retry") != "true" {
		t.Error("a 404 of retrieve must say x-should-retry: true")
	}
	other.get("/api/v1/runs").is(200, `{"data":[],"pagination":{}}`)
}

func TestWrongMethodsAndSlashesAnswerAsTheServerDoes(t *testing.T) {
	_, a := start(t, Config{})
	const mute = `{"status":405,"body":"Method Not Allowed"}`
	a.do("DELETE", "/api/v1/schedules", "").is(200, mute)
	a.do("PATCH", "/api/v1/schedules/x", "").is(200, mute)
	a.do("PUT", "/api/v1/runs/x/tags", "").is(200, mute)
	a.do("PUT", "/api/v1/runs/x/reschedule", "").is(200, mute)
	a.do("GET", "/api/v1/tasks/x/trigger", "").is(405, "")
	a.do("POST", "/api/v3/runs/x", "").is(405, "")
	strict := a.do("POST", "/api/v1/runs/x/metadata", "{}")
	strict.is(405, `{"error":"Method not allowed"}`)
	if allow := strict.header.Get("Allow"); allow != "PUT" {
		t.Errorf("Allow is %q, want PUT", allow)
	}
	a.do("PUT", "/api/v1/tasks/x/trigger", "{}").ok() // any verb but GET triggers
	got := a.do("POST", "/api/v1/tasks/x/trigger/?a=1", "{}")
	if got.status != 301 || got.header.Get("Location") != "/api/v1/tasks/x/trigger?a=1" {
		t.Errorf("got %d to %s", got.status, got.header.Get("Location"))
	}
	got = a.get("/api/v1//runs/x%2Fy//")
	if got.status != 301 || got.header.Get("Location") != "/api/v1/runs/x%2Fy/" {
		t.Errorf("got %d to %s, want one slash less and no double ones", got.status, got.header.Get("Location"))
	}
	if got := a.get("/api/v9/nothing"); got.status != 404 {
		t.Errorf("an unknown path gets %d", got.status)
	}
}

func TestTheRateLimiterCountsEachEnvironment(t *testing.T) {
	inBubble(t, Config{RateLimit: 3, RateRefill: 2}, func(t *testing.T, e *Emulator, a *api) {
		for left := 2; left >= 0; left-- {
			got := a.get("/api/v1/runs").ok()
			if got.header.Get("x-ratelimit-limit") != "3" || got.header.Get("x-ratelimit-remaining") != strconv.Itoa(left) {
				t.Errorf("headers %v, want %d left", got.header, left)
			}
		}
		after(2570 * time.Millisecond)
		got, want := a.get("/api/v1/runs"), example(t, "error-429-api")
		wantKeys := shape("", want["body"])
		if got.status != 429 || got.header.Get("Content-Type") != "application/problem+json" ||
			strings.Join(shape("", got.object()), "\n") != strings.Join(wantKeys, "\n") {
			t.Errorf("got %d %s", got.status, got.raw)
		}
		if detail := got.text("detail"); detail != "Rate limit exceeded 0/3 requests remaining. Retry in 7.43 seconds." {
			t.Errorf("detail %q", detail)
		}
		reset := strconv.FormatInt(time.Now().UnixMilli()+7430, 10)
		if got.header.Get("x-ratelimit-reset") != reset || got.header.Get("x-ratelimit-remaining") != "0" {
			t.Errorf("headers %v, want reset %s", got.header, reset)
		}
		clientOf(t, e, "tr_prod_other").get("/api/v1/runs").ok()
		after(7430 * time.Millisecond)
		a.get("/api/v1/runs").ok()
		a.get("/api/v1/runs").ok()
		if got := a.get("/api/v1/runs"); got.status != http.StatusTooManyRequests {
			t.Errorf("refilled by more than 2: %d", got.status)
		}
		after(19 * time.Second) // one portion and nine tenths of the next
		a.get("/api/v1/runs").ok()
		a.get("/api/v1/runs").ok()
		after(time.Second)
		a.get("/api/v1/runs").ok()
	})
}

func TestWithoutALimitTheHeadersAreStillSent(t *testing.T) {
	_, a := start(t, Config{RateLimit: -1})
	for range 1000 {
		if got := a.get("/api/v2/whoami").ok(); got.header.Get("x-ratelimit-remaining") != "750" {
			t.Fatalf("headers %v", got.header)
		}
	}
}

func TestAClosedEmulatorAnswers503(t *testing.T) {
	e, a := start(t, Config{})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if got := a.get("/healthcheck"); got.status != 503 {
		t.Errorf("got %d, want 503", got.status)
	}
}

func TestWebPagesGetNoPermission(t *testing.T) {
	e, _ := start(t, Config{})
	page := clientOf(t, e, "").with("Origin", "https://elsewhere.example")
	for _, path := range []string{"/api/v1/tasks/x/trigger", "/api/v1/schedules", "/realtime/v1/runs"} {
		got := page.do("OPTIONS", path, "")
		if got.status != 204 || got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: got %d %v, want 204 and no permission", path, got.status, got.header)
		}
	}
	page.do("POST", "/emulator/advance", `{"ms":1}`).is(403, `{"error":"the controls are not for web pages"}`)
	clientOf(t, e, "").with("Sec-Fetch-Site", "cross-site").get("/emulator/runs").is(403, `{"error":"the controls are not for web pages"}`)
	clientOf(t, e, "").with("Origin", "http://emulator.test").get("/emulator/runs").ok()
}

func TestAFurtherKeyOpensTheNewerRoutesOnly(t *testing.T) {
	e, _ := start(t, Config{})
	further := clientOf(t, e, "tr_prod_sk_0123456789abcdefABCDEF01")
	id := further.trigger("x", `{}`)
	further.run(id)
	further.get("/api/v1/schedules").is(401, `{"error":"Invalid or Missing API Key"}`)
	further.get("/api/v1/runs/"+id+"/metadata").is(401, `{"error":"Invalid or Missing API Key"}`)
	further.do("POST", "/api/v1/runs/"+id+"/reschedule", `{"delay":"1h"}`).is(401, `{"error":"Invalid or missing API Key"}`)
}

func TestABranchIsNamedWithOrWithoutItsPrefix(t *testing.T) {
	e, _ := start(t, Config{})
	plain := clientOf(t, e, "tr_preview_x").with("x-trigger-branch", "b")
	id := plain.trigger("x", `{}`)
	for _, branch := range []string{"refs/heads/b", "refs/tags/b", "refs/pull/b"} {
		clientOf(t, e, "tr_preview_x").with("x-trigger-branch", branch).run(id)
	}
	if got := clientOf(t, e, "tr_preview_x").with("x-trigger-branch", "c").get("/api/v3/runs/" + id); got.status != 404 {
		t.Errorf("another branch gets %d, want 404", got.status)
	}
}

func TestAnEmptyBodyMustSayThatItIsEmpty(t *testing.T) {
	e, _ := start(t, Config{})
	server := httptest.NewServer(e)
	defer server.Close()
	for length, want := range map[string]string{"": "HTTP/1.1 413", "Content-Length: 0\r\n": "HTTP/1.1 400"} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(conn, "POST /api/v1/tasks/x/trigger HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer tr_dev_x\r\nConnection: close\r\n"+length+"\r\n")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(got), want) {
			t.Errorf("with %q: got %.40q, %v, want %s", length, got, err, want)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}
