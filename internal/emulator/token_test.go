package emulator

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

const unauthorized = `{"error":"Unauthorized","code":"unauthorized","param":"access_token","type":"authorization"}`

// token makes a public token as a host app would, with the key that it has.
func (a *api) token(scopes ...string) *api {
	a.t.Helper()
	got := a.do("POST", "/api/v1/tasks/any/trigger", `{}`).ok()
	var c claims
	if err := json.Unmarshal([]byte(got.header.Get("x-trigger-jwt-claims")), &c); err != nil {
		a.t.Fatal(err)
	}
	return a.as(signToken(a.key, c.Sub, scopes))
}

func TestTheTokenOfATriggerReadsItsRunAndNoOther(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		made, other := a.do("POST", "/api/v1/tasks/x/trigger", `{}`).ok(), a.trigger("x", `{}`)
		id := made.text("id")
		page := a.as(made.header.Get("x-trigger-jwt"))
		page.run(id)
		page.get("/realtime/v1/runs/" + id).ok()
		page.get("/api/v3/runs/"+other).is(403, unauthorized)
		page.get("/realtime/v1/runs/"+other).is(403, unauthorized)
		page.get("/api/v3/runs/run_none").is(404, `{"error":"Not found"}`)
		page.get("/api/v1/runs").is(403, unauthorized)
		page.do("POST", "/api/v2/runs/"+id+"/cancel", "").is(403, unauthorized)
		page.do("POST", "/api/v2/runs/run_none/cancel", "").is(403, unauthorized)
		page.do("POST", "/api/v1/tasks/x/trigger", `{}`).is(403, unauthorized)
		page.get("/api/v1/schedules").is(401, `{"error":"Invalid or Missing API Key"}`)
		after(time.Hour)
		page.get("/api/v3/runs/"+id).is(401, `{"error":"Public Access Token is invalid"}`)
	})
}

func TestATokenDoesWhatItsScopesName(t *testing.T) {
	_, a := start(t, Config{Tasks: map[string]Task{"x": {Status: "QUEUED"}}})
	id := a.trigger("x", `{"options":{"tags":["t","u"]}}`)
	a.token("read:tags:t").run(id)
	a.token("read:tags:t").get("/realtime/v1/runs?tags=t").ok()
	a.token("read:tags:t").get("/realtime/v1/runs?tags=u").is(403, unauthorized)
	a.token("read:tags:t").get("/api/v1/runs?filter[tag]=t").ok()
	for _, scope := range []string{"read:runs", "read:all", "admin"} {
		a.token(scope).run(id)
		a.token(scope).get("/api/v1/runs").ok()
	}
	a.token("read:tags:v", "write:runs").get("/api/v3/runs/"+id).is(403, unauthorized)
	a.token("trigger:tasks:x").trigger("x", `{}`)
	a.token("write:tasks:x").trigger("x", `{}`)
	a.token("trigger:tasks:y").do("POST", "/api/v1/tasks/x/trigger", `{}`).is(403, unauthorized)
	a.token("write:runs:"+id).do("POST", "/api/v2/runs/"+id+"/cancel", "").ok()
}

func TestABadTokenIsRefused(t *testing.T) {
	e, a := start(t, Config{})
	id := a.trigger("x", `{}`)
	good := a.token("admin")
	good.run(id)
	for name, key := range map[string]string{
		"signed with another key":    signToken("tr_prod_other", envIDOf(t, e, id), []string{"admin"}),
		"of an unknown environment":  signToken(a.key, "nobody", []string{"admin"}),
		"with a changed signature":   good.key[:len(good.key)-2] + "xx",
		"without one":                good.key[:strings.LastIndexByte(good.key, '.')+1],
		"that is no JSON":            "a.b.c",
		"signed with nothing at all": signToken("", "nobody", []string{"admin"}),
	} {
		if got := a.as(key).get("/api/v3/runs/" + id); got.status != http.StatusUnauthorized || got.text("error") != "Public Access Token is invalid" {
			t.Errorf("a token %s: got %d %s", name, got.status, got.raw)
		}
	}
}

func envIDOf(t *testing.T, e *Emulator, runID string) string {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.runs[runID].Env.ID
}

func TestATokenMayLeaveColumnsOut(t *testing.T) {
	e, a := start(t, Config{})
	id := a.trigger("x", `{"payload":1}`)
	part := base64.RawURLEncoding.EncodeToString
	signed := part(object("alg", "HS256")) + "." + part(object("sub", envIDOf(t, e, id), "pub", true, "scopes", []string{"admin"},
		"exp", 1<<40, "realtime", object("skipColumns", []string{"payload"})))
	value := a.as(signed + "." + tokenSeal(a.key, signed)).feed("runs?skipColumns=output").ask(false).lines()[0].Value
	if _, has := value["payload"]; has {
		t.Error("the payload is shown")
	}
	if _, has := value["output"]; !has {
		t.Error("the query beats the token")
	}
}

func TestATokenHasSixtyRequestsAMinute(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		id := a.trigger("x", `{}`)
		page := a.token("admin")
		after(30 * time.Second)
		for range 60 {
			if got := page.get("/api/v3/runs/" + id).ok(); got.header.Get("x-ratelimit-limit") != "60" {
				t.Fatalf("headers %v", got.header)
			}
		}
		if got := page.get("/api/v3/runs/" + id); got.status != 429 || got.object()["secondsUntilReset"] != 30.0 {
			t.Errorf("got %d %s, want 429 until the minute is over", got.status, got.raw)
		}
		after(30 * time.Second)
		page.run(id)
	})
}
