package main

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"sidejob/internal/job"
)

// oddText is a text that quoting, escaping or a wrong encoding would spoil.
const oddText = `'; DROP TABLE worker_jobs; -- "double" \back\ %_? $1 <b>&</b> žluťoučký 日本語 🙂`

// fullJob sets every member of a job to a value of its own that is not zero.
func fullJob(s storeTest) job.Job {
	s.Helper()
	j := s.newJob(job.Trigger, "tag")
	v := reflect.ValueOf(&j).Elem()
	for i := range v.NumField() {
		name, field := v.Type().Field(i).Name, v.Field(i)
		switch field.Interface().(type) {
		case string:
			field.SetString(name + " " + oddText)
		case int, int64:
			field.SetInt(int64(1000 + i))
		case bool:
			field.SetBool(true)
		case time.Time:
			field.Set(reflect.ValueOf(s.at(int64(i) + 1)))
		case time.Duration:
			field.SetInt(int64(time.Duration(i+1) * time.Millisecond))
		case json.RawMessage:
			field.SetBytes(fmt.Appendf(nil, `{"%s":%d}`, name, i))
		case []string:
			field.Set(reflect.ValueOf([]string{"red", oddText, ""}))
		case *bool:
			yes := true
			field.Set(reflect.ValueOf(&yes))
		case *job.RetryConfig:
			field.Set(reflect.ValueOf(&job.RetryConfig{MaxAttempts: 7, MinTimeout: 31_536_000_000, MaxTimeout: 1, Factor: 1.5, Randomize: true}))
		case job.Status:
			field.SetString(string(job.Failed))
		case job.Misfire:
			field.SetString(string(job.FireAll))
		case job.Executor:
		default:
			s.Fatalf("%s: the test knows no value for a %s", name, field.Type())
		}
		if field.IsZero() {
			s.Fatalf("%s is zero", name)
		}
	}
	return j
}

func testValues(promise promise) {
	promise("every member of a job is kept", func(s storeTest) {
		j := fullJob(s)
		p := s.place(j, job.Replace)
		j.ID = p.Job.ID
		s.sameJob("placed", p.Job, j)
		s.sameJob("read", s.get(j.ID), j)
	})

	promise("every member stays as it is when others change", func(s storeTest) {
		j := fullJob(s)
		j.RunID, j.Finished, j.Success, j.Confirmed, j.Orphaned, j.CronSchedule = "", time.Time{}, nil, time.Time{}, time.Time{}, ""
		j = s.place(j, job.Replace).Job
		run := job.Run{ID: "run_1", Raw: "WAITING", Environment: "env_1"}
		for _, ev := range []job.Event{
			{Kind: job.Submitted, At: s.at(8999), Run: run}, {Kind: job.Missing, At: s.at(9000), Run: run, KeyProved: true}, {Kind: job.Seen, At: s.at(9001), Run: run},
		} {
			want, err := job.Next(j, ev)
			if err != nil || !want.Changed {
				s.Fatalf("%s: got %+v, error %v; want a change", ev.Kind, want, err)
			}
			s.happen(j.ID, ev)
			s.sameJob("after "+string(ev.Kind), s.get(j.ID), want.Job)
			j = want.Job
		}
	})

	promise("a job that says only what it must comes back with nothing added", func(s storeTest) {
		j := job.Job{
			Tag: "t", Type: "y", Executor: job.Internal, Data: json.RawMessage(`{}`), Metadata: json.RawMessage(`{}`),
			Timezone: "UTC", Due: s.at(0), Created: s.at(0), Updated: s.at(0),
		}
		p := s.place(j, job.Replace)
		j.ID = p.Job.ID
		s.sameJob("read", s.get(j.ID), j)
	})

	promise("data and results are any JSON, kept as they were written", func(s storeTest) {
		for i, text := range []string{
			`null`, `0`, `false`, `""`, `[]`, `{}`, `-0`, `true`, `"null"`,
			`9007199254740993`, `-9223372036854775809`, `123456789012345678901234567890.000000000000000001`, `1e-7`, `1.0`,
			`{"z":1,"a":{"b":[1,2,{"c":null}]}}`, `{ "spaced" : [ 1 ,2 ] }`,
			`{"text":"\u00e9 \n \t \" \\ \/ é 🙂 <script>&amp;</script>"}`,
			`{"long":"` + strings.Repeat("x", job.MaxData-11) + `"}`,
			`"` + strings.Repeat("é", job.MaxData/2-1) + `"`,
			strings.Repeat("[", job.MaxDepth) + strings.Repeat("]", job.MaxDepth),
		} {
			j := s.newJob(job.Internal, fmt.Sprint("tag ", i))
			j.Data = json.RawMessage(text)
			j = s.place(j, job.Replace).Job
			s.happen(j.ID, job.Event{Kind: job.Complete, At: s.at(1), Result: json.RawMessage(text)})
			is := s.get(j.ID)
			if string(is.Data) != text || string(is.Result) != text {
				s.Errorf("%.60s: got data %.60s and result %.60s, want the same", text, is.Data, is.Result)
			}
		}
	})

	promise("no result is not the result null", func(s storeTest) {
		j := s.put(job.Internal, "tag")
		s.happen(j.ID, job.Event{Kind: job.Complete, At: s.at(1)})
		if is := s.get(j.ID); is.Result != nil || is.Status() != job.Completed {
			s.Errorf("got %s with result %q, want COMPLETED with none", is.Status(), is.Result)
		}
	})

	promise("tags, labels and names of any text are kept and found", func(s storeTest) {
		for i, text := range []string{oddText, strings.Repeat("é", job.MaxTag), " leading and trailing ", `"`, "'", `\`, "%", "a\u0301", "á", "NULL", "0"} {
			j := s.newJob(job.Internal, text)
			j.Name, j.Labels = text, []string{"first", text}
			j = s.place(j, job.Replace).Job
			for what, f := range map[string]Filter{"tag": {Tag: text}, "label": {Label: text}, "name": {Name: text}} {
				s.same(fmt.Sprintf("%s %d", what, i), s.listed(f), []int64{j.ID})
			}
			s.sameJob("read", s.get(j.ID), j)
		}
	})

	promise("numbers, delays and times are kept to their ends", func(s storeTest) {
		j := s.newJob(job.Internal, "tag")
		j.UserID = s.largestUser()
		j.RemoveDelay, j.AutoRescheduleWait = -30*24*time.Hour, job.MaxDelay
		j.Due = time.Date(2126, 12, 31, 23, 59, 59, 999e6, time.UTC)
		j.Started = time.Date(1969, 12, 31, 23, 59, 59, 1e6, time.UTC)
		j.Retry = &job.RetryConfig{}
		j = s.place(j, job.Replace).Job
		s.sameJob("read", s.get(j.ID), j)
	})
}

func testHost(promise promise) {
	promise("a row that the host inserts itself is a job and is sent", func(s storeTest) {
		s.hostExec("INSERT INTO worker_jobs (tag, type, executor, trigger_task_id) VALUES ('host', 'report', 'trigger', 'task')")
		jobs := s.list(Filter{Tag: "host"})
		if len(jobs) != 1 {
			s.Fatalf("got %d jobs, want 1", len(jobs))
		}
		j := jobs[0]
		if age := time.Since(j.Created).Abs(); age > time.Hour {
			s.Errorf("got created %s, want now", j.Created)
		}
		s.sameJob("its defaults", j, job.Job{
			ID: j.ID, Tag: "host", Type: "report", Executor: job.Trigger, TriggerTask: "task",
			Data: json.RawMessage(`{}`), Metadata: json.RawMessage(`{}`), Timezone: "UTC",
			Due: j.Created, Created: j.Created, Updated: j.Created,
		})
		owed, _, err := s.Owed(s.Context(), j.Created, 10)
		if err != nil {
			s.Fatal(err)
		}
		s.same("owed", owed, []int64{j.ID})
		is := s.happen(j.ID,
			job.Event{Kind: job.Send, At: s.at(1), Source: "submit", Key: "job-1", Lease: job.Lease{Token: "t", For: time.Minute}},
			job.Event{Kind: job.Submitted, At: s.at(2), Source: "submit", Run: job.Run{ID: "run_1"}})
		s.same("its key", is.IdempotencyKey, "job-1")
		s.same("its history", s.told(j.ID), []string{"submitted: sending > queued"})
	})

	promise("labels and retries that are none count as none, and keep nobody from the other rows", func(s storeTest) {
		s.hostExec(`INSERT INTO worker_jobs (tag, type, labels, retry_config) VALUES
			('odd', 'a', '{}', '[]'), ('odd', 'b', '[1]', '"often"'), ('odd', 'c', '["red"]', '{"maxAttempts":3}')`)
		jobs := s.list(Filter{Tag: "odd"})
		if len(jobs) != 3 {
			s.Fatalf("got %d jobs, want 3", len(jobs))
		}
		for _, j := range jobs[1:] {
			if j.Labels != nil || j.Retry != nil {
				s.Errorf("job %d: got labels %q and retries %+v, want none", j.ID, j.Labels, j.Retry)
			}
		}
		s.same("what makes sense", fmt.Sprint(jobs[0].Labels, jobs[0].Retry.MaxAttempts), "[red] 3")
	})

	promise("the shortest row that the host can insert is an internal job", func(s storeTest) {
		s.hostExec("INSERT INTO worker_jobs (tag, type) VALUES ('host', 'mail')")
		jobs := s.list(Filter{Tag: "host", Status: job.Pending, Executor: job.Internal})
		if len(jobs) != 1 {
			s.Fatalf("got %d jobs, want 1", len(jobs))
		}
		claim := job.Event{Kind: job.Claim, At: jobs[0].Due.Add(time.Millisecond), Lease: job.Lease{Token: "t", For: time.Minute}}
		s.same("claimed", s.happen(jobs[0].ID, claim).Status(), job.Executing)
	})

	promise("a host's rows count for their tag", func(s storeTest) {
		s.hostExec("INSERT INTO worker_jobs (tag, type) VALUES ('tag', 'mail')")
		s.hostExec("INSERT INTO worker_jobs (tag, type) VALUES ('tag', 'mail')")
		p := s.place(s.newJob(job.Internal, "tag"), job.Replace)
		s.same("jobs that make way", len(p.Canceled), 2)
	})

	promise("a delay beyond what a Duration holds is cut, not wrapped", func(s storeTest) {
		columns, values := "remove_delay", fmt.Sprint(math.MaxInt64)
		if s.narrow() {
			columns, values = "remove_delay, remove_delay_ms", fmt.Sprint(math.MaxInt32, ", ", math.MaxInt64)
		}
		s.hostExec(fmt.Sprintf("INSERT INTO worker_jobs (tag, type, %s) VALUES ('tag', 'mail', %s)", columns, values))
		if got := s.list(Filter{Tag: "tag"})[0].RemoveDelay; got < job.MaxDelay {
			s.Errorf("got %s, want the longest", got)
		}
	})

	promise("the store answers a ping and has its installation's name", func(s storeTest) {
		if err := s.Ping(s.Context()); err != nil || s.Installation() == "" {
			s.Errorf("got name %q, error %v; want a name", s.Installation(), err)
		}
	})
}
