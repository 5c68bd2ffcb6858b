package emulator

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestATasksFileIsRead(t *testing.T) {
	tasks, err := ReadTasks(strings.NewReader(`{
		"a": {"durationMs": 5, "output": null, "failAttempts": 1, "error": "no", "scheduled": true},
		"b": {"error": {"name": "E", "message": "no", "stackTrace": "at"}, "status": "DANCING"},
		"c": {"url": "http://127.0.0.1:1/x"}, "d": {"command": "true"}, "e": {}}`))
	if err != nil {
		t.Fatal(err)
	}
	a, b := tasks["a"], tasks["b"]
	if a.DurationMs != 5 || string(a.Output) != "null" || a.FailAttempts != 1 || a.Error.Message != "no" || !a.Scheduled {
		t.Errorf("a is %+v", a)
	}
	if b.Error.Name != "E" || b.Error.StackTrace != "at" || b.Status != "DANCING" || tasks["e"].Output != nil || len(tasks) != 5 {
		t.Errorf("b is %+v of %d", b, len(tasks))
	}
}

func TestABadTasksFileIsNamedByTaskAndMember(t *testing.T) {
	for file, want := range map[string]string{
		``:                                        "read tasks",
		`[]`:                                      "read tasks",
		`{} {}`:                                   "something follows",
		`{"t":1}`:                                 `task "t": want an object, got 1`,
		`{"t":null}`:                              `task "t": want an object`,
		`{"t":{"duration":1}}`:                    `task "t": member "duration": no such member`,
		`{"t":{"durationMs":"1s"}}`:               `task "t": member "durationMs": want a whole number of milliseconds, got "1s"`,
		`{"t":{"durationMs":-1}}`:                 `member "durationMs": out of range`,
		`{"t":{"durationMs":null}}`:               `member "durationMs": want a whole number`,
		`{"t":{"failAttempts":1.5}}`:              `member "failAttempts"`,
		`{"t":{"status":"completed"}}`:            `task "t": member "status": unknown status "completed"`,
		`{"t":{"status":""}}`:                     `member "status": unknown status`,
		`{"t":{"error":1}}`:                       `member "error": want a text or`,
		`{"t":{"error":{"code":1}}}`:              `member "error"`,
		`{"t":{"url":"ftp://x"}}`:                 `member "url": want an http or https address`,
		`{"t":{"url":"http://x","command":""}}`:   ``,
		`{"t":{"url":"http://x","command":"y"}}`:  `exclude each other`,
		`{"t":{"command":"x","status":"FAILED"}}`: `decide the outcome`,
	} {
		_, err := ReadTasks(strings.NewReader(file))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", file, err, want)
		}
	}
}

func TestATaskCanBeAnAddress(t *testing.T) {
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/hang":
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		case r.Header.Get("x-emulator-attempt") == "1":
			w.WriteHeader(http.StatusTeapot)
		default:
			_, _ = io.WriteString(w, `{"got":`+string(body)+`,"run":"`+r.Header.Get("x-emulator-run-id")+`"}`)
		}
	})
	cfg := Config{Client: &http.Client{Transport: inProcess{app}}, Tasks: map[string]Task{
		"u": {URL: "http://app.test/ok"}, "h": {URL: "http://app.test/hang"}}}
	inBubble(t, cfg, func(t *testing.T, e *Emulator, a *api) {
		id, hanging, once := a.trigger("u", `{"payload":{"a":1}}`), a.trigger("h", `{}`), a.trigger("u", `{"options":{"maxAttempts":1}}`)
		after(10 * time.Second)
		if raw := a.get("/api/v3/runs/" + id).raw; !strings.Contains(raw, `"output":{"got":{"a":1},"run":"`+id+`"}`) || !strings.Contains(raw, `"attemptCount":2`) {
			t.Errorf("got %s", raw)
		}
		if msg := a.run(once)["error"].(map[string]any)["message"]; msg != "http://app.test/ok answered 418 I'm a teapot" {
			t.Errorf("error %v", msg)
		}
		a.wantStatus(hanging, "EXECUTING")
		a.do("POST", "/api/v2/runs/"+hanging+"/cancel", "").ok()
		after(time.Second)
		if r := a.run(hanging); r["status"] != "CANCELED" || r["finishedAt"] == nil {
			t.Errorf("after the cancel: %v", r)
		}
	})
}

func TestClosingStopsWhatRuns(t *testing.T) {
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	})
	cfg := Config{Client: &http.Client{Transport: inProcess{app}}, WebhookURL: "http://app.test/hook", Tasks: map[string]Task{"h": {URL: "http://app.test/hang"}}}
	inBubble(t, cfg, func(t *testing.T, e *Emulator, a *api) {
		a.trigger("h", `{}`)
		a.trigger("x", `{"options":{"delay":"1h"}}`)
		after(time.Second)
		began := time.Now()
		if err := e.Close(); err != nil || time.Since(began) != 0 {
			t.Errorf("close: %v after %s", err, time.Since(began))
		}
	})
}
