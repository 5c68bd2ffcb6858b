package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What a real server may say and the emulator never would.
func TestStrangeAnswersAboutARun(t *testing.T) {
	const plainly = `{"id":"run_d1","status":"COMPLETED","taskIdentifier":"t","attemptCount":1,`
	for _, tc := range []struct {
		name, says string
		want       string // status of the row after some questions
		result     string
	}{
		{"completed without any time", plainly + `"output":{"n":1}}`, "COMPLETED", `{"n":1}`},
		{"final, and every boolean false", `{"id":"run_d1","status":"TIMED_OUT","isCompleted":false,"isFailed":false,"attemptCount":2}`,
			"FAILED", `{"error":"the run ended TIMED_OUT without an error message","reason":"TIMED_OUT","attemptCount":2}`},
		{"an error without name or stack", `{"id":"run_d1","status":"CRASHED","error":{"message":"out of memory"},"attemptCount":1}`,
			"FAILED", `{"error":{"message":"out of memory"},"reason":"CRASHED","attemptCount":1}`},
		{"canceled by its own error", `{"id":"run_d1","status":"CANCELED","error":{"message":"Dev session ended (CLI exited)"}}`,
			"CANCELED", `{"canceled":true,"error":{"message":"Dev session ended (CLI exited)"}}`},
		{"about another run", strings.Replace(plainly, "run_d1", "run_d2", 1) + `"output":1}`, "PENDING", `null`},
		{"no status", `{"id":"run_d1","output":1}`, "PENDING", `null`},
		{"an error with status 200", `{"error":"Internal Server Error"}`, "PENDING", `null`},
		{"a word of tomorrow", `{"id":"run_d1","status":"ARCHIVED","output":1}`, "PENDING", `null`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDouble()
				d.retrieve = answerJSON(200, tc.says)
				s := newQuietScene(t, withDouble(d))
				id := s.triggerJob("t").ID
				time.Sleep(10 * time.Second)
				j := s.get(id)
				if j.Status != tc.want || j.TriggerStatus != tc.want || hasEnded(j) != (tc.want != "PENDING") {
					t.Errorf("the row is %s, %s, finished %s; want %s", j.Status, j.TriggerStatus, j.Finished, tc.want)
				}
				if hasEnded(j) && (j.Finished.Before(j.CreatedAt) || j.Finished.After(time.Now())) {
					t.Errorf("it finished at %s, want a time between its making and now", j.Finished)
				}
				sameMeaning(t, "the result", j.Result, []byte(tc.result))
			})
		})
	}
}

func TestOutputsInTheObjectStore(t *testing.T) {
	lies := func(w http.ResponseWriter, kind string, body []byte) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	}
	for _, tc := range []struct {
		name, kind, body string
		result           string
	}{
		{"JSON", "application/json", `[1,2]`, `[1,2]`},
		{"a text", "text/plain", `a "text"`, `"a \"text\""`},
		{"SuperJSON", "application/super+json", `{"json":{"at":"2000-01-01T00:00:00.000Z"},"meta":{"values":{"at":["Date"]}}}`, `{"at":"2000-01-01T00:00:00.000Z"}`},
		{"more than is kept", "application/json", `"` + strings.Repeat("x", 10<<20) + `"`, fmt.Sprintf(`{"tooLarge":true,"bytes":%d}`, 10<<20+2)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDouble()
				d.retrieve = answerJSON(200, `{"id":"run_d1","status":"COMPLETED","outputPresignedUrl":"http://store.test/out?Signature=secret","attemptCount":1}`)
				expired := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }
				noStream := d.realtime
				there := once(expired, func(w http.ResponseWriter, _ *http.Request) { lies(w, tc.kind, []byte(tc.body)) })
				d.realtime = func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/out" {
						there(w, r)
						return
					}
					noStream(w, r)
				}
				s := newQuietScene(t, withDouble(d))
				j := s.wait(s.triggerJob("t").ID)
				if j.Status != "COMPLETED" {
					t.Errorf("it is %s", j.Status)
				}
				if got := string(j.Result); len(got) < 1000 {
					sameMeaning(t, "the result", j.Result, []byte(tc.result))
				} else {
					t.Errorf("the result has %d bytes, want %s", len(got), tc.result)
				}
				for _, call := range s.out.calls("GET", "/out") {
					if call.header.Get("Authorization") != "" {
						t.Errorf("the key was sent to the object store")
					}
				}
				s.down()
				if strings.Contains(s.log.String(), "secret") {
					t.Errorf("the log has the presigned address: %s", s.log)
				}
			})
		})
	}
}

// An event brings the end before Trigger.dev's own record has it, and what that says
// in the end is what counts.
func TestTriggerDevsWordReplacesThatOfAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDouble()
		d.retrieve = answerJSON(200, `{"id":"run_d1","status":"EXECUTING","taskIdentifier":"t","attemptCount":1,"startedAt":"2000-01-01T00:00:00.000Z"}`)
		s := newQuietScene(t, withDouble(d))
		j := s.triggerJob("t", "autoRescheduleOnFailure", true)
		time.Sleep(5 * time.Second)
		body := []byte(`{"id":"evt_1","type":"RUN_FAILED","run":{"id":"run_d1","status":"FAILED","error":{"message":"a rumour"}}}`)
		r := s.call("POST", webhookPath, body, "trigger-signature", signedWith(worldSecret, body))
		if r.status != http.StatusOK {
			t.Fatalf("the event is answered %d %s", r.status, r.body)
		}
		if j = s.get(j.ID); j.Status != "FAILED" || !hasEnded(j) {
			t.Errorf("after the event it is %s, want FAILED at once", j.Status)
		}
		time.Sleep(time.Minute)
		if j = s.get(j.ID); j.Status != "FAILED" {
			t.Errorf("while Trigger.dev says EXECUTING it is %s, want FAILED as the event said", j.Status)
		}
		if n := len(s.rows()); n != 1 {
			t.Errorf("an end that is not confirmed made %d rows of itself", n-1)
		}
		d.set(func() {
			d.retrieve = answerJSON(200, `{"id":"run_d1","status":"COMPLETED","taskIdentifier":"t","attemptCount":1,"output":7}`)
		})
		time.Sleep(5 * time.Minute)
		if j = s.get(j.ID); j.Status != "COMPLETED" || string(j.Result) != "7" || len(s.rows()) != 1 {
			t.Errorf("it is %s with %s and there are %d rows; want COMPLETED with 7, one", j.Status, j.Result, len(s.rows()))
		}
		d.set(func() {
			d.retrieve = answerJSON(200, `{"id":"run_d1","status":"FAILED","taskIdentifier":"t","attemptCount":1}`)
		})
		s.sweepReport("reconcile")
		if j = s.get(j.ID); j.Status != "COMPLETED" {
			t.Errorf("a confirmed end has changed to %s", j.Status)
		}
	})
}

// The same run for two submits: whatever Trigger.dev may do, two rows do not share
// one.
func TestTwoRowsDoNotShareARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDouble() // answers every submit with run_d1
		s := newQuietScene(t, withDouble(d))
		first := s.triggerJob("t")
		r := s.call("POST", "/api/jobs", `{"type":"t","executor":"trigger","triggerTaskId":"t"}`)
		second := s.view(r)
		if r.status != http.StatusCreated || hasRun(second) || first.TriggerRunID != "run_d1" {
			t.Errorf("the rows have runs %q and %q (%d), want only the first one", first.TriggerRunID, second.TriggerRunID, r.status)
		}
		d.set(func() { d.trigger = answerJSON(200, `{"id":"run_d2","isCached":false}`) })
		s.soonEnough(second.ID, 2*time.Minute, "it has a run of its own", hasRun)
	})
}

// signedWith is the signature that the guide names: hex over the body.
func signedWith(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// double is a Trigger.dev that answers as a test says, for what the emulator never
// would.
type double struct {
	mux                                       chan struct{} // held while an answer is chosen
	trigger, retrieve, cancel, list, realtime http.HandlerFunc
}

func newDouble() *double {
	return &double{
		mux:      make(chan struct{}, 1),
		trigger:  answerJSON(200, `{"id":"run_d1","isCached":false}`),
		retrieve: answerJSON(200, `{"id":"run_d1","status":"QUEUED","taskIdentifier":"t"}`),
		cancel:   answerJSON(200, `{"id":"run_d1"}`),
		list:     answerJSON(200, `{"data":[],"pagination":{}}`),
		realtime: answerJSON(404, `{"error":"Not found"}`),
	}
}

// withDouble puts it in the place of the emulator.
func withDouble(d *double) worldOption {
	return func(w *world) { w.cfg.transport = inProcess(func() http.Handler { return d }) }
}

// set changes answers while sidejob asks.
func (d *double) set(change func()) {
	d.mux <- struct{}{}
	change()
	<-d.mux
}

// ServeHTTP implements http.Handler.
func (d *double) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var answer http.HandlerFunc
	d.set(func() {
		switch {
		case strings.HasPrefix(r.URL.Path, submitPath):
			answer = d.trigger
		case strings.HasPrefix(r.URL.Path, retrievePath):
			answer = d.retrieve
		case strings.HasPrefix(r.URL.Path, cancelPath):
			answer = d.cancel
		case r.URL.Path == listPath:
			answer = d.list
		default:
			answer = d.realtime
		}
	})
	answer(w, r)
}

func answerJSON(status int, body string) http.HandlerFunc {
	if !json.Valid([]byte(body)) {
		panic("not JSON: " + body)
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// once answers first in one way, then in the other.
func once(first, then http.HandlerFunc) http.HandlerFunc {
	asked := make(chan struct{}, 1)
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
			first(w, r)
		default:
			then(w, r)
		}
	}
}

// onceTap carries the first submit out and loses its answer.
func onceTap(with error) tap {
	lost := make(chan struct{}, 1)
	return func(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
		res, err := pass()
		if r.Method != "POST" || err != nil {
			return res, err
		}
		select {
		case lost <- struct{}{}:
			return nil, with
		default:
			return res, nil
		}
	}
}
