package main

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sidejob/internal/job"
	"sidejob/internal/triggerdev"
)

// hookBench is the webhook on a database of its own, before a Trigger.dev that knows
// one run. No other part of sidejob runs, so nothing but an event writes.
type hookBench struct {
	hook  *webhook
	store Store
	host  *sql.DB // a second connection: it sees what others commit
	open  int64   // a job whose run is run_1
	unrun int64   // a job that has no run yet; Trigger.dev says that its own is run_2
}

// knownRun answers every question as Trigger.dev would: it knows run_2 alone.
type knownRun struct{}

// RoundTrip implements http.RoundTripper.
func (knownRun) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := http.StatusNotFound, `{"error":"Run not found"}`
	if r.URL.Path == "/api/v3/runs/run_2" {
		status, body = http.StatusOK, `{"id":"run_2","status":"EXECUTING","taskIdentifier":"task","idempotencyKey":"job-key-2","tags":["second"]}`
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(body)), Request: r,
	}, nil
}

func newHookBench(f *testing.F) *hookBench {
	f.Helper()
	path := filepath.Join(f.TempDir(), "fuzz.db")
	store, err := openStore(f.Context(), path, pool{}, now(), slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatalf("open the store: %v", err)
	}
	host, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=synchronous(OFF)")
	if err != nil {
		f.Fatalf("open the database beside it: %v", err)
	}
	host.SetMaxOpenConns(1) // data_version is a connection's own
	client, err := triggerdev.New(triggerdev.Config{
		BaseURL: "http://trigger.test", Key: func() string { return "tr_dev_fuzz" }, HTTP: &http.Client{Transport: knownRun{}},
	})
	if err != nil {
		f.Fatalf("make a client: %v", err)
	}
	log := slog.New(slog.DiscardHandler)
	a := &adapter{client: client, log: log, health: &triggerHealth{log: log}, unknown: func(string) {}}
	b := &hookBench{store: store, host: host}
	asks := newPoller(store, a, time.Minute, log)
	b.hook = &webhook{
		store: store, adapter: a, poller: asks, lookout: newLookout(store, a, nil, asks, log), secrets: webhookSecrets{worldSecret}, log: log,
	}
	b.open, b.unrun = b.job(f, "first", "key-1"), b.job(f, "second", "key-2")
	if _, err := store.Apply(f.Context(), b.open, job.Event{Kind: job.Submitted, At: now(), Run: job.Run{ID: "run_1"}}); err != nil {
		f.Fatalf("give the job its run: %v", err)
	}
	f.Cleanup(func() {
		if err := host.Close(); err != nil {
			f.Errorf("close the database: %v", err)
		}
		if err := store.Close(); err != nil {
			f.Errorf("close the store: %v", err)
		}
	})
	return b
}

func (b *hookBench) job(f *testing.F, tag, key string) int64 {
	f.Helper()
	j, _, err := job.New(job.Spec{Tag: tag, Type: "work", Executor: job.Trigger, TriggerTask: "task"}, now(), key)
	if err != nil {
		f.Fatalf("make a job: %v", err)
	}
	placed, err := b.store.Schedule(f.Context(), []Order{{Job: j, OnConflict: job.Replace, Source: "test"}}, Keyed{})
	if err != nil || placed[0].Err != nil {
		f.Fatalf("schedule: %v, %+v", err, placed)
	}
	return placed[0].Job.ID
}

// version changes with every commit of the store.
func (b *hookBench) version(t *testing.T) (v int64) {
	t.Helper()
	if err := b.host.QueryRow("PRAGMA data_version").Scan(&v); err != nil {
		t.Fatalf("read data_version: %v", err)
	}
	return v
}

// reset makes both jobs as they were, so that each body finds them open.
func (b *hookBench) reset(t *testing.T) {
	t.Helper()
	for _, statement := range []string{
		`UPDATE worker_jobs SET started = NULL, finished = NULL, success = NULL, result = NULL, trigger_status = 'PENDING',
			trigger_raw_status = NULL, trigger_attempt_id = NULL, attempt = 0, last_synced_at = NULL,
			trigger_run_id = CASE WHEN tag = 'first' THEN 'run_1' END`,
		"DELETE FROM inbox", "DELETE FROM job_events",
	} {
		if _, err := b.host.Exec(statement); err != nil {
			t.Fatalf("reset: %v", err)
		}
	}
}

func (b *hookBench) post(body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", webhookPath, bytes.NewReader(body))
	r.Header.Set("Trigger-Signature", hookHex(worldSecret, string(body)))
	rec := httptest.NewRecorder()
	b.hook.ServeHTTP(rec, r)
	return rec
}

// checkJobs fails the test unless both jobs can be read and shown, and hold what
// always holds.
func (b *hookBench) checkJobs(t *testing.T, body []byte) {
	t.Helper()
	for id, run := range map[int64]string{b.open: "run_1", b.unrun: "run_2"} {
		j, err := b.store.Get(t.Context(), id)
		if err != nil {
			t.Fatalf("%q: job %d cannot be read: %v", body, id, err)
		}
		shown, err := json.Marshal(viewJob(j))
		if err != nil || !json.Valid(shown) {
			t.Errorf("%q: job %d cannot be shown: %v", body, id, err)
		}
		if j.RunID != run && (id == b.open || j.RunID != "") {
			t.Errorf("%q: job %d has got run %q", body, id, j.RunID)
		}
		if j.Done() != (j.Success != nil) || j.Done() && !j.Unconfirmed() {
			t.Errorf("%q: job %d is finished at %s with success %v, confirmed at %s", body, id, j.Finished, j.Success, j.Confirmed)
		}
		for _, at := range []time.Time{j.Started, j.Finished} {
			if !at.IsZero() && (at.Year() < 1 || at.Year() > 9999) {
				t.Errorf("%q: job %d has a time in the year %d", body, id, at.Year())
			}
		}
	}
}

func FuzzWebhookBody(f *testing.F) {
	files, err := filepath.Glob("testdata/webhook/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, path := range files {
		body := hookFile(f, filepath.Base(path))
		f.Add(body)
		f.Add([]byte(strings.NewReplacer("run_1", "run_2", `"dbJobId":"1"`, `"dbJobId":"2"`).Replace(string(body))))
	}
	for _, body := range []string{
		"", "null", "[]", `{"id":"e","type":"RUN_COMPLETED","run":{"id":"run_2","metadata":{"dbJobId":2},"output":0}}`,
		`{"id":"e","type":"RUN_FAILED","run":{"id":"run_9","metadata":{"dbJobId":2,"tag":"second"},"taskIdentifier":"task","idempotencyKey":"job-key-1"}}`,
		`{"id":"e","type":"RUN_STARTED","run":{"id":"run_1","startedAt":1e300,"completedAt":-62135596800001,"attemptCount":-1}}`,
		`{"id":"e","type":"RUN_FAILED","run":{"id":"run_1","completedAt":"9999-12-31T23:59:59-23:00","error":"\ud800\u0000"}}`,
		`{"id":"e","type":"RUN_COMPLETED","run":{"id":"run_1","output":` + strings.Repeat("[", 1001) + strings.Repeat("]", 1001) + `}}`,
		`{"ID":"e","Type":"RUN_STARTED","type":"RUN_FAILED","RUN":{"Id":"run_1"},"run":{"id":"run_3"}}`,
	} {
		f.Add([]byte(body))
	}
	b := newHookBench(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		ev, readErr := readEvent(body)
		before := b.version(t)
		rec := b.post(body)
		written := b.version(t) != before
		want := http.StatusOK
		switch {
		case len(body) > maxWebhookBody:
			want = http.StatusRequestEntityTooLarge
		case readErr != nil:
			want = http.StatusBadRequest
		}
		if rec.Code != want {
			t.Fatalf("%q: got %d %s, want %d (%v)", body, rec.Code, rec.Body, want, readErr)
		}
		if keeps := want == http.StatusOK && !ev.ignored; written != keeps {
			t.Errorf("%q: %d, and the database was written: %v, want %v", body, rec.Code, written, keeps)
		}
		if !written {
			return
		}
		b.checkJobs(t, body)
		first := rec.Body.String()
		if again := b.post(body); again.Code != http.StatusOK || again.Body.String() != first {
			t.Errorf("%q: sent again it is answered %d %s, want 200 %s", body, again.Code, again.Body, first)
		}
		b.reset(t)
	})
}

// hookNumber is a time as webhook-timestamp carries it.
func hookNumber(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

func FuzzSignatureHeader(f *testing.F) {
	at := signingTime()
	alert := recordedHeader(f).Get("X-Trigger-Signature-Hmacsha256")
	body := hookFile(f, "alert-run-failed.json")
	f.Add(recordedSecret, body, "", "", "", alert, "", uint8(0))
	f.Add(recordedSecret, body, "", "", "", "", strings.ToUpper(alert), uint8(0))
	f.Add("whsec_c2VjcmV0", body, "msg_1", hookNumber(at), hookV1([]byte("secret"), "msg_1", at, string(body)), "", "", uint8(0))
	f.Add("a,b", []byte(hookBody), "msg_1", hookNumber(at.Add(-5*time.Minute)), "v1,AAAA v2,x", "zz", "", uint8(1))
	f.Add("a, whsec_Yg==", []byte{}, "", "0", "v1,", alert, alert, uint8(2))
	f.Add("a", []byte("x"), "id", strconv.FormatInt(math.MinInt64, 10), "v1,\xff v1", "", "0", uint8(4))
	f.Add("a", []byte("x"), "id", strconv.FormatInt(math.MaxInt64, 10), " ", "", "", uint8(7))
	f.Add("whsec_", []byte("x"), "id", "+"+hookNumber(at), "v1,AAAA", "", "", uint8(1))
	f.Fuzz(func(t *testing.T, list string, body []byte, id, stamp, signed, alert, seed string, right uint8) {
		secrets := readSecrets(list)
		var rawSums, sums [][]byte
		for _, s := range secrets {
			key := []byte(s)
			if decoded, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, "whsec_")); err == nil && strings.HasPrefix(s, "whsec_") {
				key = decoded
			}
			rawSums = append(rawSums, hookSum([]byte(s), string(body)))
			sums = append(sums, hookSum(key, id, ".", stamp, ".", string(body)))
		}
		if len(secrets) > 0 { // each bit puts a right signature into one header
			n := int(right>>3) % len(secrets)
			if right&1 != 0 {
				signed += " v1," + base64.StdEncoding.EncodeToString(sums[n])
			}
			if right&2 != 0 {
				alert = hex.EncodeToString(rawSums[n])
			}
			if right&4 != 0 {
				seed = hex.EncodeToString(rawSums[n])
			}
		}
		h := hookHeader("webhook-id", id, "webhook-timestamp", stamp, "webhook-signature", signed,
			"x-trigger-signature-hmacsha256", alert, "trigger-signature", seed)
		want := hookFits(rawSums, alert)
		switch {
		case signed != "":
			seconds, err := strconv.ParseInt(stamp, 10, 64)
			recent := err == nil && seconds >= at.Unix()-300 && seconds <= at.Unix()+300
			want = id != "" && recent && slices.ContainsFunc(strings.Fields(signed), func(one string) bool {
				sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(one, "v1,"))
				return err == nil && strings.HasPrefix(one, "v1,") && slices.ContainsFunc(sums, func(s []byte) bool { return bytes.Equal(s, sum) })
			})
		case alert == "":
			want = hookFits(rawSums, seed)
		}
		if err := secrets.verify(h, body, at); (err == nil) != want {
			t.Errorf("secrets %q, body %q, header %q: got %v, want believed %v", secrets, body, h, err, want)
		}
	})
}

// hookFits tells whether a header is one of the sums in hex, in any case.
func hookFits(sums [][]byte, header string) bool {
	return slices.ContainsFunc(sums, func(sum []byte) bool { return strings.EqualFold(header, hex.EncodeToString(sum)) })
}
