package triggerdev

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestTriggerSpeaksTheServicesGrammar(t *testing.T) {
	c, got := record(t, Config{}, golden(t, "trigger-response.json"))
	out, err := c.Trigger(t.Context(), "ship-order", TriggerRequest{
		Payload: json.RawMessage(`{"big":12345678901234567890,"html":"<&>"}`),
		Options: TriggerOptions{
			IdempotencyKey:    "k",
			IdempotencyKeyTTL: 90 * time.Minute,
			Delay:             time.Date(2026, 8, 20, 11, 0, 0, 7_900_000, time.FixedZone("", 7200)),
			TTL:               new(1500 * time.Millisecond),
			Tags:              []string{"a", "b"},
			Metadata:          map[string]any{"source": "checkout"},
			MaxAttempts:       3,
			MaxDuration:       5 * time.Minute,
			Queue:             "shipping",
			ConcurrencyKey:    "acme",
			Machine:           "small-2x",
			Priority:          10 * time.Second,
			LockToVersion:     "20260820.1",
		},
	})
	if want := (Triggered{ID: "run_cmekq3v7x0001a4l8h2df0001"}); err != nil || out != want {
		t.Fatalf("got %+v, %v; want %+v", out, err, want)
	}
	if got.Method != http.MethodPost || got.URI != "/api/v1/tasks/ship-order/trigger" {
		t.Errorf("got %s %s", got.Method, got.URI)
	}
	const want = `{"payload":{"big":12345678901234567890,"html":"<&>"},"options":{` +
		`"idempotencyKey":"k","idempotencyKeyTTL":"5400s","delay":"2026-08-20T09:00:00.007Z","ttl":2,` +
		`"tags":["a","b"],"metadata":{"source":"checkout"},"maxAttempts":3,"maxDuration":300,` +
		`"queue":{"name":"shipping"},"concurrencyKey":"acme","machine":"small-2x","priority":10,` +
		`"lockToVersion":"20260820.1"}}`
	if got.Body != want {
		t.Errorf("body:\n got %s\nwant %s", got.Body, want)
	}
}

func TestATriggerWithNothingSetSendsNothing(t *testing.T) {
	c, got := record(t, Config{}, golden(t, "trigger-response-cached.json"))
	out, err := c.Trigger(t.Context(), "t", TriggerRequest{})
	if err != nil || !out.IsCached {
		t.Errorf("got %+v, %v; want a cached run", out, err)
	}
	if got.Body != `{"options":{}}` {
		t.Errorf("body: got %s, want no payload and no option", got.Body)
	}
}

func TestATriggeredRunNamesItsEnvironment(t *testing.T) {
	for name, tc := range map[string]struct{ claims, want string }{
		"the claims of the service": {golden(t, "trigger-response-jwt-claims.json"), "cmekp0x9z000208l5f6g7h8j9"},
		"no claims":                 {"", ""},
		"claims without subject":    {`{"pub":true}`, ""},
		"a subject of another type": {`{"sub":7}`, ""},
		"claims that are not JSON":  {`{"sub":"env"`, ""},
	} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if tc.claims != "" {
				w.Header().Set("x-trigger-jwt-claims", strings.ReplaceAll(tc.claims, "\n", ""))
			}
			answer(http.StatusOK, golden(t, "trigger-response.json"))(w, r)
		})
		got, err := c.Trigger(t.Context(), "t", TriggerRequest{})
		if err != nil || got.Environment != tc.want || got.ID != "run_cmekq3v7x0001a4l8h2df0001" {
			t.Errorf("%s: got %+v, %v; want environment %q", name, got, err, tc.want)
		}
	}
}

func TestAZeroTTLAndANullPayloadAreSent(t *testing.T) {
	c, got := record(t, Config{}, golden(t, "trigger-response.json"))
	req := TriggerRequest{Payload: json.RawMessage("null"), Options: TriggerOptions{TTL: new(time.Duration(0))}}
	if _, err := c.Trigger(t.Context(), "t", req); err != nil {
		t.Fatal(err)
	}
	if want := `{"payload":null,"options":{"ttl":0}}`; got.Body != want {
		t.Errorf("body: got %s, want %s", got.Body, want)
	}
}

func TestTaskIDsAreEscaped(t *testing.T) {
	for id, want := range map[string]string{
		"a/b":      "/api/v1/tasks/a%2Fb/trigger",
		"50% of":   "/api/v1/tasks/50%25%20of/trigger",
		"a?b#c":    "/api/v1/tasks/a%3Fb%23c/trigger",
		"../admin": "/api/v1/tasks/..%2Fadmin/trigger",
		"é":        "/api/v1/tasks/%C3%A9/trigger",
	} {
		c, got := record(t, Config{}, golden(t, "trigger-response.json"))
		if _, err := c.Trigger(t.Context(), id, TriggerRequest{}); err != nil {
			t.Fatal(err)
		}
		if got.URI != want {
			t.Errorf("task %q: got %s, want %s", id, got.URI, want)
		}
	}
}

func TestWhatTheServiceWouldMisreadIsNotSent(t *testing.T) {
	c := clientOf(t, Config{HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		t.Errorf("%s %s was sent", r.Method, r.URL)
		return nil, errors.New("sent")
	})}})
	trigger := func(task string, r TriggerRequest) error {
		_, err := c.Trigger(t.Context(), task, r)
		return err
	}
	list := func(f ListFilter) error {
		_, err := c.List(t.Context(), f)
		return err
	}
	retrieve := func(id string) error {
		_, err := c.Retrieve(t.Context(), id)
		return err
	}
	update := func(id string) error {
		_, err := c.UpdateSchedule(t.Context(), id, ScheduleRequest{})
		return err
	}
	create := func() error {
		_, err := c.CreateSchedule(t.Context(), "", ScheduleRequest{})
		return err
	}
	for name, err := range map[string]error{
		"no task id":                    trigger("", TriggerRequest{}),
		"a task id of dots":             trigger("..", TriggerRequest{}),
		"a payload that is not JSON":    trigger("t", TriggerRequest{Payload: json.RawMessage(`{"secret"`)}),
		"metadata that is not JSON":     trigger("t", TriggerRequest{Options: TriggerOptions{Metadata: map[string]any{"secret": math.NaN()}}}),
		"a year of five digits":         trigger("t", TriggerRequest{Options: TriggerOptions{Delay: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)}}),
		"a negative time to live":       trigger("t", TriggerRequest{Options: TriggerOptions{TTL: new(-time.Second)}}),
		"a tag with a comma in a list":  list(ListFilter{Tags: []string{"a,b"}}),
		"an empty status in a list":     list(ListFilter{Statuses: []string{""}}),
		"no run id":                     retrieve(""),
		"no run id to cancel":           c.Cancel(t.Context(), ""),
		"no schedule id":                update(""),
		"no schedule id to delete":      c.DeleteSchedule(t.Context(), "."),
		"a schedule without a good key": create(),
	} {
		var invalid *InvalidError
		if !errors.As(err, &invalid) || OutcomeOf(err) != Refused {
			t.Errorf("%s: got %v (%v), want an InvalidError that is refused", name, err, OutcomeOf(err))
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %q, want nothing of the payload", name, err)
		}
	}
}

func TestRetrieveReadsEveryMember(t *testing.T) {
	for file, check := range map[string]func(Run) bool{
		"retrieve-delayed.json": func(r Run) bool {
			return r.Status == "DELAYED" && r.DelayedUntil.Equal(at("2026-08-20T10:00:00.118Z")) &&
				r.IdempotencyKey == "ship-ord_5521" && r.StartedAt.IsZero() && r.Version == "" && len(r.Tags) == 2
		},
		"retrieve-executing.json": func(r Run) bool {
			return r.AttemptCount == 2 && r.StartedAt.Equal(at("2026-08-20T09:04:00.690Z")) && r.FinishedAt.IsZero() &&
				r.Output == nil && r.Error == nil && r.Version == "20260820.2" && strings.Contains(string(r.Metadata), "pick")
		},
		"retrieve-completed.json": func(r Run) bool {
			return r.FinishedAt.Equal(at("2026-08-20T09:07:03.455Z")) && strings.Contains(string(r.Output), "trk_90871") &&
				strings.Contains(string(r.Payload), "ord_5521") && r.DurationMs == 2843 && r.CostInCents == 0.00962 &&
				r.BaseCostInCents == 0.0025 && r.TriggerFunction == "trigger" && r.Region == "us-east-1"
		},
		"retrieve-completed-no-output.json": func(r Run) bool { return r.Output == nil && r.Payload == nil && r.Metadata == nil },
		"retrieve-completed-presigned.json": func(r Run) bool {
			return r.Output == nil && strings.HasPrefix(r.OutputPresignedURL, "https://store.example.net/")
		},
		"retrieve-failed.json": func(r Run) bool {
			return r.Error != nil && r.Error.Name == "CarrierError" && r.Error.Message == "carrier rejected label" &&
				strings.Contains(r.Error.StackTrace, "carrier.ts:41") && r.AttemptCount == 3
		},
		"retrieve-canceled-queued.json": func(r Run) bool {
			return r.Status == "CANCELED" && r.FinishedAt.IsZero() && r.Error.Message == "Canceled by user"
		},
		"retrieve-timed-out.json": func(r Run) bool { return r.Status == "TIMED_OUT" && r.Error.StackTrace == "" },
		"retrieve-expired.json": func(r Run) bool {
			return r.Status == "EXPIRED" && r.ExpiredAt.Equal(at("2026-08-20T09:40:00.249Z")) && r.TTL == "10m"
		},
		"retrieve-scheduled.json": func(r Run) bool {
			want := RunSchedule{"sched_7f3kq2m9xw4tz8vb1ncdh", "tenant_acme", "prod-acme-daily-report",
				Generator{"CRON", "0 9 * * *", "At 09:00 AM"}}
			return r.Schedule != nil && *r.Schedule == want && r.CreatedAt.Equal(at("2026-08-20T07:00:00Z")) &&
				r.UpdatedAt.Equal(at("2026-08-20T07:00:19.420Z"))
		},
	} {
		t.Run(file, func(t *testing.T) {
			body := golden(t, file)
			var id idReply
			if err := json.Unmarshal([]byte(body), &id); err != nil {
				t.Fatal(err)
			}
			c, got := record(t, Config{}, body)
			run, err := c.Retrieve(t.Context(), id.ID)
			if err != nil {
				t.Fatal(err)
			}
			if got.Method != http.MethodGet || got.URI != "/api/v3/runs/"+id.ID {
				t.Errorf("got %s %s", got.Method, got.URI)
			}
			if !check(run) {
				t.Errorf("got %+v", run)
			}
		})
	}
}

func TestAnUnknownStatusPasses(t *testing.T) {
	c := serve(t, answer(http.StatusOK, `{"id":"run_1","status":"PONDERING","novelty":{"x":1},"error":null,"finishedAt":null}`))
	run, err := c.Retrieve(t.Context(), "run_1")
	if err != nil || run.Status != "PONDERING" || run.Error != nil || !run.FinishedAt.IsZero() {
		t.Errorf("got %+v, %v; want the status as it came", run, err)
	}
}

func TestListAsksForWhatTheFilterSays(t *testing.T) {
	c, got := record(t, Config{}, golden(t, "list-runs-page.json"))
	page, err := c.List(t.Context(), ListFilter{
		Tags:     []string{"a b", "c&d"},
		Tasks:    []string{"ship-order"},
		Statuses: []string{"QUEUED", "EXECUTING"},
		Schedule: "sched_1",
		From:     time.UnixMilli(1787130000001),
		To:       time.UnixMilli(1787216400000),
		After:    "cur=sor",
		Size:     100,
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = "/api/v1/runs?filter%5BcreatedAt%5D%5Bfrom%5D=1787130000001&filter%5BcreatedAt%5D%5Bto%5D=1787216400000" +
		"&filter%5Bschedule%5D=sched_1&filter%5Bstatus%5D=QUEUED%2CEXECUTING&filter%5Btag%5D=a+b%2Cc%26d" +
		"&filter%5BtaskIdentifier%5D=ship-order&page%5Bafter%5D=cur%3Dsor&page%5Bsize%5D=100"
	if got.URI != want {
		t.Errorf("got %s\nwant %s", got.URI, want)
	}
	if len(page.Runs) != 3 || page.Next == "" || page.Previous != "" {
		t.Fatalf("got %d runs, next %q, previous %q; want 3 and a next page", len(page.Runs), page.Next, page.Previous)
	}
	last := page.Runs[2]
	if last.TaskKind != "SCHEDULED" || last.Env == nil || last.Env.Name != "prod" || last.Env.ID != "cmekp0x9z000208l5f6g7h8j9" {
		t.Errorf("got %+v, want a scheduled run of prod with its environment id", last)
	}
}

func TestTheLastPageHasNoNext(t *testing.T) {
	c, got := record(t, Config{}, golden(t, "list-runs-last-page.json"))
	page, err := c.List(t.Context(), ListFilter{})
	if err != nil || len(page.Runs) != 0 || page.Next != "" || page.Previous == "" {
		t.Errorf("got %+v, %v; want an empty last page", page, err)
	}
	if got.URI != "/api/v1/runs" {
		t.Errorf("got %s, want no query", got.URI)
	}
}

func FuzzDecodeRun(f *testing.F) {
	for _, name := range []string{"retrieve-scheduled.json", "retrieve-completed-no-output.json", "retrieve-failed.json"} {
		f.Add([]byte(golden(f, name)))
	}
	f.Add([]byte(`{"id":"r","status":"COMPLETED","output":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var run Run
		if decode(body, &run) != nil {
			return
		}
		if run.ID == "" || run.Status == "" {
			t.Errorf("got a run without id or status from %q", body)
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(body, &members); err != nil {
			t.Fatalf("a body that is no object was read: %v", err)
		}
		if _, there := members["output"]; there && run.Output == nil {
			t.Errorf("output of %q: got nothing, want the value that is there", body)
		}
		if run.Output != nil && !json.Valid(run.Output) {
			t.Errorf("output of %q: got %q, want JSON", body, run.Output)
		}
	})
}
