package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// batchAnswer is what came of each job of a batch.
type batchAnswer struct {
	Results []struct {
		Job     *seenJob
		Problem *seenProblem
	}
}

func (w *world) batch(jobs string) batchAnswer {
	w.t.Helper()
	r := w.call("POST", "/api/jobs/batch", `{"jobs":[`+jobs+`]}`)
	var got batchAnswer
	if r.status != http.StatusOK {
		w.t.Fatalf("batch: %d %.300s", r.status, r.body)
	}
	r.into(w.t, &got)
	return got
}

func TestABatchAnswersInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.schedule(`{"type":"work","tag":"taken"}`)
		bad := []struct {
			job    string
			status int
			code   string
			named  []string
		}{
			{`null`, 422, "invalid", []string{"body"}},
			{`"job"`, 422, "invalid", []string{"body"}},
			{`[]`, 422, "invalid", []string{"body"}},
			{`{}`, 422, "invalid", []string{"body.type"}},
			{`{"type":"work","userId":-1,"due":"tomorrow"}`, 422, "invalid", []string{"body.due", "body.userId"}},
			{`{"type":"work","userId":"1"}`, 422, "invalid", []string{"body.userId"}},
			{`{"type":"work","userId":1.0}`, 422, "invalid", []string{"body.userId"}},
			{`{"type":"work","color":1}`, 422, "invalid", []string{"body.color"}},
			{`{"type":"work","Tag":"x"}`, 422, "invalid", []string{"body.Tag"}},
			{`{"type":"work","tag":"x","tag":"y"}`, 422, "invalid", []string{"body.tag"}},
			{`{"type":"work","retryConfig":{"factor":0}}`, 422, "invalid", []string{"body.retryConfig.factor"}},
			{`{"type":"work","name":"nobody"}`, 422, "invalid", []string{"body.name"}},
			{`{"type":"work","executor":"trigger"}`, 422, "invalid", []string{"body.triggerTaskId"}},
			{`{"type":"work","tag":"taken","onConflict":"reject"}`, 409, "tag_taken", nil},
			{`{"type":"work","data":"` + strings.Repeat("x", 1<<20) + `"}`, 413, "too_large", []string{"body.data"}},
			{`{"type":"work","data":` + strings.Repeat("[", 901) + strings.Repeat("]", 901) + `}`, 422, "invalid", []string{"body.data"}},
		}
		var jobs []string
		for i, b := range bad {
			jobs = append(jobs, fmt.Sprintf(`{"type":"work","tag":"good %d"}`, i), b.job)
		}
		got := w.batch(strings.Join(jobs, ","))
		if len(got.Results) != 2*len(bad) {
			t.Fatalf("got %d results, want %d", len(got.Results), 2*len(bad))
		}
		for i, b := range bad {
			good, refused := got.Results[2*i], got.Results[2*i+1]
			if want := fmt.Sprint("good ", i); good.Job == nil || good.Problem != nil || good.Job.Tag != want {
				t.Errorf("result %d is %+v, want the job %q", 2*i, good, want)
			}
			if refused.Job != nil || refused.Problem == nil {
				t.Errorf("%.60s: got %+v, want a problem", b.job, refused)
				continue
			}
			checkProblem(t, fmt.Sprintf("%.60s", b.job), *refused.Problem, b.status, b.code, b.named...)
		}
		if n := w.countAll(); n != int64(len(bad))+1 {
			t.Errorf("there are %d jobs, want only the good ones", n)
		}
	})
}

func TestABatchIsWaitedForAsLittleAsItCanBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.faults(submitFault("hang", "times", 2))
		begun := time.Now()
		got := w.batch(strings.Repeat(strings.Replace(echoJob, `,"tag":"e"`, "", 1)+",", 9) + echoJob)
		if took := time.Since(begun); took != 0 || len(got.Results) != 10 {
			t.Errorf("got %d results after %s, want 10 at once", len(got.Results), took)
		}
		time.Sleep(time.Minute)
		for _, r := range got.Results {
			if done := w.get(r.Job.ID); done.Status != "COMPLETED" {
				t.Errorf("job %d is %s, want COMPLETED", done.ID, done.Status)
			}
		}
		if n := len(w.remoteRuns()); n != 10 {
			t.Errorf("there are %d runs, want 10", n)
		}
	})
}

func TestJobsOfABatchSeeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		got := w.batch(`{"type":"a","tag":"t"},{"type":"b","tag":"t"},{"type":"c","tag":"t","onConflict":"keep"},
			{"type":"d","tag":"t","onConflict":"reject"},{"type":"e","tag":"t","executor":"trigger","triggerTaskId":"echo","labels":["1","2","3","4","5","6","7"]}`)
		if got.Results[2].Job == nil || got.Results[2].Job.ID != got.Results[1].Job.ID {
			t.Errorf("keep gives %+v, want the job before it", got.Results[2].Job)
		}
		checkProblem(t, "reject", *got.Results[3].Problem, 409, "tag_taken")
		if last := got.Results[4].Job; len(last.Warnings) != 1 {
			t.Errorf("the last warns %q, want one about labels", last.Warnings)
		}
		for id, want := range map[int64]string{1: "CANCELED", 2: "CANCELED", 3: "PENDING"} {
			if is := w.get(id).Status; is != want {
				t.Errorf("job %d is %s, want %s", id, is, want)
			}
		}
	})
}

func TestTheLimitsOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		many := func(n int) string {
			return `{"jobs":[` + strings.TrimSuffix(strings.Repeat(`{"type":"w"},`, n), ",") + `]}`
		}
		wantProblem(t, "1001 jobs", w.call("POST", "/api/jobs/batch", many(1001)), 422, "invalid", "body.jobs")
		wantProblem(t, "no jobs", w.call("POST", "/api/jobs/batch", many(0)), 422, "invalid", "body.jobs")
		wantProblem(t, "null", w.call("POST", "/api/jobs/batch", `{"jobs":null}`), 422, "invalid", "body.jobs")
		wantProblem(t, "an object", w.call("POST", "/api/jobs/batch", `{"jobs":{}}`), 422, "invalid", "body.jobs")
		wantProblem(t, "nothing", w.call("POST", "/api/jobs/batch", `{}`), 422, "invalid", "body")
		wantProblem(t, "twice", w.call("POST", "/api/jobs/batch", `{"jobs":[],"jobs":[{"type":"w"}]}`), 422, "invalid", "body.jobs")
		wantProblem(t, "another member", w.call("POST", "/api/jobs/batch", `{"jobs":[{"type":"w"}],"atomic":true}`), 422, "invalid", "body.atomic")
		wantProblem(t, "an array", w.call("POST", "/api/jobs/batch", `[{"type":"w"}]`), 422, "invalid", "body")
		wantProblem(t, "no body", w.call("POST", "/api/jobs/batch", nil), 400, "bad_json")
		if n := w.countAll(); n != 0 {
			t.Fatalf("there are %d jobs, want none", n)
		}
		// Jobs that are refused take no time to store.
		if got := w.batch(strings.Repeat(`{},`, 999) + `{"type":"w"}`); len(got.Results) != 1000 || got.Results[999].Job == nil {
			t.Errorf("1000 jobs: got %d results, want one each", len(got.Results))
		}
		big := strings.TrimSuffix(many(3), `}`)
		if r := w.call("POST", "/api/jobs/batch", big+strings.Repeat(" ", 2<<20)+`}`); r.status != 200 {
			t.Errorf("2 MiB: got %d %.200s, want 200", r.status, r.body)
		}
		wantProblem(t, "16 MiB and a byte", w.call("POST", "/api/jobs/batch", big+strings.Repeat(" ", 16<<20-len(big))+`}`), 413, "too_large")
	})
}
