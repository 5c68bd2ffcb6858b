package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/job"
)

// takenJob is a job as a worker gets it.
type takenJob struct {
	seenJob
	LeaseToken     string
	LeaseExpiresAt time.Time
}

// claim takes jobs as a worker of the host does.
func (w *world) claim(request string, header ...string) []takenJob {
	w.t.Helper()
	r := w.call("POST", "/api/worker/claim", request, header...)
	if r.status != 200 {
		w.t.Errorf("claim %s: got %d %s, want jobs", request, r.status, r.body)
		return nil
	}
	var body struct{ Jobs []takenJob }
	r.into(w.t, &body)
	return body.Jobs
}

// claimOne takes the one job there is to take.
func (w *world) claimOne(request string) takenJob {
	w.t.Helper()
	jobs := w.claim(request)
	if len(jobs) != 1 {
		w.t.Fatalf("claim %s: got %d jobs, want one", request, len(jobs))
	}
	return jobs[0]
}

// says is a call about one job: complete, fail and so on.
func (w *world) says(id int64, what, body string) answer {
	w.t.Helper()
	return w.call("POST", fmt.Sprintf("/api/jobs/%d/%s", id, what), body)
}

func withToken(token string, more ...string) string {
	return fmt.Sprintf(`{"leaseToken":%q%s}`, token, strings.Join(append([]string{""}, more...), ","))
}

// put stores a job that the rules have made, such as one that recurs.
func (w *world) put(spec job.Spec) job.Job {
	w.t.Helper()
	j, _, err := job.New(spec, now(), fmt.Sprint("00000000-", spec.Tag))
	if err != nil {
		w.t.Fatal(err)
	}
	placed, err := w.srv.store.Schedule(w.t.Context(), []Order{{Job: j, OnConflict: spec.OnConflict, Source: "test"}}, Keyed{})
	if err != nil || placed[0].Err != nil {
		w.t.Fatalf("schedule %s: %v %v", spec.Tag, err, placed)
	}
	return placed[0].Job
}

func TestAWorkerTakesWhatIsDueAndEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		time.Sleep(time.Hour)
		w.schedule(`{"type":"b","due":"2000-01-01T01:00:00Z"}`)
		w.schedule(`{"type":"a","due":"2000-01-01T00:00:00Z"}`)
		w.schedule(`{"type":"c","due":"2000-01-01T01:00:01Z"}`)
		w.triggerJob("echo", "due", time.Now().Add(-time.Hour))
		jobs := w.claim(`{"worker":"w1","limit":10,"leaseMs":30000}`)
		var got []string
		for _, j := range jobs {
			got = append(got, fmt.Sprintf("%d %s %d %v %s %v", j.ID, j.Status, j.Attempt, j.Started.Equal(now()), j.LeaseExpiresAt.Sub(now()), j.LeaseToken != ""))
		}
		want := []string{"2 EXECUTING 1 true 30s true", "1 EXECUTING 1 true 30s true"}
		if !slices.Equal(got, want) {
			t.Errorf("claimed %q, want %q: what is due, soonest due first, and no job of Trigger.dev", got, want)
		}
		if jobs[0].LeaseToken == jobs[1].LeaseToken {
			t.Error("two jobs have one token")
		}
		time.Sleep(time.Second)
		r := w.says(1, "complete", withToken(jobs[1].LeaseToken, `"result":{"n":1}`))
		if j := w.view(r); r.status != 200 || j.Status != "COMPLETED" || string(j.Result) != `{"n":1}` || j.Finished != now() || j.RemoveAt.Sub(j.Finished) != time.Hour {
			t.Errorf("complete: got %d %s, want it completed", r.status, r.body)
		}
		r = w.says(2, "fail", withToken(jobs[0].LeaseToken, `"error":{"message":"no"}`))
		if j := w.view(r); r.status != 200 || j.Status != "FAILED" || string(j.Result) != `{"error":{"message":"no"}}` {
			t.Errorf("fail: got %d %s, want it failed", r.status, r.body)
		}
		if got, want := w.history(1), []string{"created api > waiting", "claim worker > leased", "complete worker > completed"}; !slices.Equal(got, want) {
			t.Errorf("history %q, want %q", got, want)
		}
		contains(t, string(w.call("GET", "/api/jobs/1/events", nil).body), `"worker":"w1"`)
		if strings.Contains(w.log.String(), jobs[0].LeaseToken) {
			t.Error("a token stands in the log")
		}
	})
}

func TestTheBodiesOfWorkerCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		long := strings.Repeat("x", 201)
		for body, member := range map[string]string{
			`{"limit":0}`: "limit", `{"limit":1001}`: "limit", `{"limit":1.5}`: "limit", `{"leaseMs":999}`: "leaseMs", `{"leaseMs":3600001}`: "leaseMs",
			`{"leaseMs":0}`: "leaseMs", `{"waitMs":-1}`: "waitMs", `{"waitMs":60001}`: "waitMs", `{"types":"a"}`: "types", `{"types":[1]}`: "types[0]",
			`{"worker":5}`: "worker", `{"worker":"` + long + `"}`: "worker", `{"max":1}`: "max",
			`{"types":["a","removeOldWorkerJobs"]}`: "types", `{"types":[` + strings.TrimSuffix(strings.Repeat(`"a",`, 101), ",") + `]}`: "types",
		} {
			wantProblem(t, body, w.call("POST", "/api/worker/claim", body), 422, "invalid", "body."+member)
		}
		w.schedule(`{"type":"work"}`)
		for call, bodies := range map[string][]string{
			"start":     {`{"leaseMs":1}`, `{"worker":true}`, `{"limit":1}`},
			"heartbeat": {`{}`, `{"leaseToken":""}`, `{"leaseToken":null}`, `{"leaseToken":"x","leaseMs":5000}`},
			"release":   {`{}`, `{"leaseToken":7}`},
			"complete":  {`{"leaseToken":7}`, `{"error":1}`},
			"fail":      {`{"leaseToken":7}`, `{"result":1}`},
		} {
			for _, body := range bodies {
				if r := w.says(1, call, body); r.status != 422 {
					t.Errorf("%s %s: got %d %s, want 422", call, body, r.status, r.body)
				}
			}
		}
		big := strings.Repeat("x", 1<<20)
		wantProblem(t, "a large result", w.says(1, "complete", `{"result":"`+big+`"}`), 413, "too_large")
		wantProblem(t, "a large error", w.says(1, "fail", `{"error":"`+big+`"}`), 413, "too_large")
		if j := w.get(1); j.Status != "PENDING" || j.Attempt != 0 {
			t.Errorf("the job is %s after %d tries, want it untouched", j.Status, j.Attempt)
		}
		if got := w.claim(`{"types":[],"limit":1000}`); len(got) != 1 || got[0].LeaseExpiresAt.Sub(now()) != time.Minute {
			t.Errorf("got %+v, want the job with a lease of a minute", got)
		}
		w.schedule(`{"type":"work"}`)
		if r := w.call("POST", "/api/worker/claim", nil); r.status != 200 || !strings.Contains(string(r.body), `"id":2`) {
			t.Errorf("without a body: got %d %s, want the job", r.status, r.body)
		}
	})
}

func TestResultsAndErrorsAreKeptAsTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		deep := nested(2000)
		for given, want := range map[string]string{
			`0`: `0`, `false`: `false`, `""`: `""`, `[]`: `[]`, `{}`: `{}`, `null`: `null`, ``: `null`, `"a\u0000é"`: `"a\u0000é"`,
			`12345678901234567890.5`: `12345678901234567890.5`, `{"b":1,"a":[null]}`: `{"b":1,"a":[null]}`, deep: `{"tooDeep":true}`,
		} {
			for call, member := range map[string]string{"complete": "result", "fail": "error"} {
				j := w.schedule(`{"type":"work"}`)
				body := `{}`
				if given != "" {
					body = `{"` + member + `":` + given + `}`
				}
				r, wanted := w.says(j.ID, call, body), want
				if call == "fail" && given != deep {
					wanted = `{"error":` + want + `}`
				}
				if got := string(w.view(r).Result); r.status != 200 || got != wanted {
					t.Errorf("%s %.40s: got %d %.100s, want %.100s", call, given, r.status, got, wanted)
				}
				if again := string(w.get(j.ID).Result); again != wanted {
					t.Errorf("%s %.40s: read back %.100s, want %.100s", call, given, again, wanted)
				}
			}
		}
		j := w.schedule(`{"type":"work"}`)
		if r := w.call("POST", fmt.Sprintf("/api/jobs/%d/complete", j.ID), nil); r.status != 200 || w.view(r).Status != "COMPLETED" || string(w.view(r).Result) != "null" {
			t.Errorf("without a body: got %d %s, want it completed", r.status, r.body)
		}
	})
}

// jobFor is a job in the state, with the token that its worker has or had.
func (w *world) jobFor(state string) (j takenJob) {
	w.t.Helper()
	switch state {
	case "trigger":
		return takenJob{seenJob: w.triggerJob("long")}
	case "later":
		return takenJob{seenJob: w.schedule(map[string]any{"type": "work", "due": time.Now().Add(time.Hour)})}
	case "paused":
		j.ID = w.put(job.Spec{Tag: "paused", Type: "work", CronSchedule: "* * * * *"}).ID
		w.happens(j.ID, job.Event{Kind: job.Pause})
		return j
	case "backing off":
		j.seenJob = w.schedule(`{"type":"work","retryConfig":{"maxAttempts":2,"minTimeoutInMs":600000,"maxTimeoutInMs":600000}}`)
		w.says(j.ID, "fail", `{}`)
		return j
	}
	j.seenJob = w.schedule(`{"type":"work"}`)
	if state == "waiting" {
		return j
	}
	w.says(j.ID, "start", `{"leaseMs":1000}`).into(w.t, &j)
	switch state {
	case "lost":
		time.Sleep(time.Second)
		synctest.Wait()
	case "canceled":
		w.says(j.ID, "cancel", `{}`)
	case "completed", "failed", "released":
		call := map[string]string{"completed": "complete", "failed": "fail", "released": "release"}[state]
		if r := w.says(j.ID, call, withToken(j.LeaseToken)); r.status != 200 {
			w.t.Fatalf("%s: %d %s", call, r.status, r.body)
		}
	}
	return j
}

// What each call answers in each state: with the job's token, with another, without.
func TestEachWorkerCallInEachState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = "start heartbeat complete fail release"
		want := map[string][3]string{ //          with its token             with another              without one
			"waiting":     {"", "200 409 409 409 409", "200 422 200 200 422"},
			"later":       {"", "409 409 409 409 409", "409 422 200 200 422"},
			"backing off": {"", "409 409 409 409 409", "409 422 200 200 422"},
			"paused":      {"", "409 409 409 409 409", "409 422 200 200 422"},
			"leased":      {"409 200 200 200 200", "409 409 409 409 409", "409 422 409 409 422"},
			"lost":        {"200 409 409 409 409", "200 409 409 409 409", "200 422 200 200 422"},
			"released":    {"200 409 409 409 409", "200 409 409 409 409", "200 422 200 200 422"},
			"completed":   {"409 409 409 409 409", "409 409 409 409 409", "409 422 409 409 422"},
			"failed":      {"409 409 409 409 409", "409 409 409 409 409", "409 422 409 409 422"},
			"canceled":    {"409 200 409 409 409", "409 409 409 409 409", "409 422 409 409 422"},
			"trigger":     {"", "409 409 409 409 409", "409 422 409 409 422"},
		}
		w := newWorld(t, longTask())
		for _, state := range slices.Sorted(maps.Keys(want)) {
			for shown, line := range want[state] {
				for i, call := range strings.Fields(calls) {
					if line == "" {
						continue
					}
					j := w.jobFor(state)
					body := []string{withToken(j.LeaseToken), withToken("other"), `{}`}[shown]
					if call == "start" {
						body = `{}`
					}
					before := w.call("GET", fmt.Sprintf("/api/jobs/%d", j.ID), nil)
					r := w.says(j.ID, call, body)
					if got, wanted := fmt.Sprint(r.status), strings.Fields(line)[i]; got != wanted {
						t.Errorf("%s a job that is %s with %s: got %s %s, want %s", call, state, body, got, r.body, wanted)
					}
					if r.status == 409 {
						contains(t, wantProblem(t, call+" "+state, r, 409, "conflict").Detail, "cannot")
					}
					after := w.call("GET", fmt.Sprintf("/api/jobs/%d", j.ID), nil)
					if r.status != 200 && state != "trigger" && string(before.body) != string(after.body) {
						t.Errorf("a refused %s of a job that is %s made %s of %s", call, state, after.body, before.body)
					}
				}
			}
		}
		for _, call := range strings.Fields(calls)[1:] {
			wantProblem(t, call, w.says(9_999_999, call, withToken("x")), 404, "not_found")
		}
		wantProblem(t, "start", w.says(9_999_999, "start", `{}`), 404, "not_found")
	})
}
