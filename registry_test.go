package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"sidejob/internal/job"
)

func registryFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registry.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const goodRegistry = `{
	"mail":   {"executor":"internal","type":"sendEmail","description":"Sends one mail","retryConfig":{"maxAttempts":5,"factor":2},"userId":7,"dataSchema":{"type":"object"}},
	"report": {"executor":"trigger","triggerTaskId":"daily-report","workerJobType":"reportWork","retryConfig":{"maxAttempts":2}},
	"plain":  {"executor":"internal"},
	"both":   {"executor":"internal","workerJobType":"old","type":"new"},
	"daily":  {"executor":"trigger","triggerTaskId":"t","cronSchedule":"0 9 * * 1-5","timezone":"Europe/Berlin"}}`

func withRegistry(t *testing.T, text string) worldOption {
	t.Helper()
	r, err := readRegistry(registryFile(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return withConfig(func(c *config) { c.registry = r })
}

func TestTheRegistryFillsInWhatARequestLeavesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withRegistry(t, goodRegistry))
		for request, want := range map[string]map[string]string{
			`{"name":"mail"}`: {"name": `"mail"`, "type": `"sendEmail"`, "executor": `"internal"`, "userId": `7`,
				"retryConfig": `{"maxAttempts":5,"factor":2}`, "triggerTaskId": `null`},
			`{"name":"report"}`: {"name": `"report"`, "type": `"reportWork"`, "executor": `"trigger"`, "userId": `0`,
				"retryConfig": `{"maxAttempts":2}`, "triggerTaskId": `"daily-report"`},
			`{"name":"plain"}`: {"type": `"plain"`, "executor": `"internal"`, "retryConfig": `null`},
			`{"name":"both"}`:  {"type": `"new"`},
			// What a request says, stays.
			`{"name":"mail","type":"other","userId":8,"retryConfig":{"maxAttempts":1},"data":[1]}`: {"type": `"other"`, "userId": `8`, "retryConfig": `{"maxAttempts":1}`, "data": `[1]`},
			`{"name":"mail","userId":0}`:                               {"userId": `0`},
			`{"name":"report","triggerTaskId":"elsewhere"}`:            {"triggerTaskId": `"elsewhere"`},
			`{"name":"report","executor":"internal"}`:                  {"executor": `"internal"`, "triggerTaskId": `null`, "type": `"reportWork"`},
			`{"name":"mail","executor":"trigger","triggerTaskId":"t"}`: {"executor": `"trigger"`, "triggerTaskId": `"t"`, "type": `"sendEmail"`},
			`{"name":"mail","userId":null}`:                            {"userId": `7`},
		} {
			r := w.call("POST", "/api/jobs", request)
			if r.status != 201 {
				t.Errorf("%s: got %d %s", request, r.status, r.body)
				continue
			}
			for name, value := range want {
				if got := memberOf(t, r.body, name); got != value {
					t.Errorf("%s: %s is %s, want %s", request, name, got, value)
				}
			}
			if tag := w.view(r).Tag; !strings.HasPrefix(tag, w.view(r).Type+":") {
				t.Errorf("%s: the tag is %q, want it begin with the type", request, tag)
			}
		}
		if got := w.batch(`{"name":"report"},{"name":"Mail"}`); got.Results[0].Job == nil || got.Results[0].Job.TriggerTaskID != "daily-report" || got.Results[1].Problem == nil {
			t.Errorf("a batch gives %+v, want the report and a problem", got)
		}
	})
}

func TestANameThatIsNotInTheRegistryIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withRegistry(t, goodRegistry))
		for _, name := range []string{"nobody", "Mail", "mail ", strings.Repeat("x", 1000)} {
			p := wantProblem(t, name, w.call("POST", "/api/jobs", map[string]any{"name": name, "type": "work"}), 422, "invalid", "body.name")
			contains(t, p.Detail, "not in the registry")
		}
		wantProblem(t, "a wrong member beside a name", w.call("POST", "/api/jobs", `{"name":"mail","executor":"trigger"}`), 422, "invalid", "body.triggerTaskId")
		if n := w.countAll(); n != 0 {
			t.Errorf("there are %d jobs, want none", n)
		}
	})
}

func TestTheRegistryIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withRegistry(t, goodRegistry))
		wantJSON(t, "registry", w.call("GET", "/api/registry", nil).body, `{"jobs":`+goodRegistry+`}`)
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withConfig(func(c *config) {
			r, err := readRegistry("")
			if err != nil {
				t.Fatal(err)
			}
			c.registry = r
		}))
		wantJSON(t, "no registry", w.call("GET", "/api/registry", nil).body, `{"jobs":{}}`)
	})
}

func TestABadRegistryFileSaysWhichJobAndMember(t *testing.T) {
	for text, says := range map[string][]string{
		``:                                 {"registry.json"},
		`[]`:                               {"registry.json", "{\"NAME\":{…},…}"},
		`{"a":{}} x`:                       {"registry.json"},
		`{"mail":{}}`:                      {"mail", "executor"},
		`{"mail":null}`:                    {"mail", "executor"},
		`{"mail":[]}`:                      {"mail"},
		`{"mail":{"executor":"Internal"}}`: {"mail", "executor", "Internal"},
		`{"mail":{"executor":1}}`:          {"mail", "executor"},
		`{"ok":{"executor":"internal"},"report":{"executor":"trigger"}}`:                                       {"report", "triggerTaskId", "required"},
		`{"mail":{"executor":"internal","triggerTaskId":"x"}}`:                                                 {"mail", "triggerTaskId"},
		`{"mail":{"executor":"internal","userId":-1}}`:                                                         {"mail", "userId"},
		`{"mail":{"executor":"internal","userId":"7"}}`:                                                        {"mail", "userId"},
		`{"mail":{"executor":"internal","color":"red"}}`:                                                       {"mail", "color"},
		`{"mail":{"executor":"internal","retryConfig":{"attempts":3}}}`:                                        {"mail", "attempts"},
		`{"mail":{"executor":"internal","retryConfig":{"maxAttempts":999}}}`:                                   {"mail", "retryConfig.maxAttempts"},
		`{"mail":{"executor":"internal","retryConfig":{"minTimeoutInMs":9,"maxTimeoutInMs":1}}}`:               {"mail", "retryConfig.maxTimeoutInMs"},
		`{"mail":{"executor":"internal","type":"` + strings.Repeat("x", 513) + `"}}`:                           {"mail", "type"},
		`{"report":{"executor":"trigger","triggerTaskId":"t","cronSchedule":"61 * * * *"}}`:                    {"report", "cronSchedule"},
		`{"report":{"executor":"trigger","triggerTaskId":"t","cronSchedule":"@daily","timezone":"Mars/Base"}}`: {"report", "timezone"},
		`{"mail":{"executor":"internal"},"mail":{"executor":"internal"}}`:                                      {"mail", "more than once"},
		`{"mail":{"executor":"internal","executor":"trigger"}}`:                                                {"mail", "executor", "more than once"},
	} {
		_, err := readRegistry(registryFile(t, text))
		if err == nil {
			t.Errorf("%s: got no error", text)
			continue
		}
		for _, part := range says {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error is %q, want it to say %q", text, err, part)
			}
		}
	}
	if _, err := readRegistry(filepath.Join(t.TempDir(), "nothing.json")); err == nil || !strings.Contains(err.Error(), "nothing.json") {
		t.Errorf("a file that is not there: got error %v, want one that names it", err)
	}
}

func TestARowOfTheHostTakesItsTaskFromTheRegistry(t *testing.T) {
	r, err := readRegistry(registryFile(t, goodRegistry))
	if err != nil {
		t.Fatal(err)
	}
	for text, task := range map[string]string{"reportWork": "daily-report", "daily": "t", "sendEmail": "sendEmail", "unknown": "unknown"} {
		if got := r.task(job.Job{Type: text}); got != task {
			t.Errorf("a row of type %s gets the task %s, want %s", text, got, task)
		}
	}
}
