package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/emulator"
)

// hookEvent is an event of a task hook. Members are names and values of its run.
func hookEvent(id, kind, runID string, members ...any) map[string]any {
	run := map[string]any{"id": runID}
	for i := 0; i+1 < len(members); i += 2 {
		run[members[i].(string)] = members[i+1]
	}
	return map[string]any{"id": id, "type": kind, "run": run}
}

func hookText(t testing.TB, ev any) string {
	t.Helper()
	if text, ok := ev.(string); ok {
		return text
	}
	text, err := json.Marshal(ev)
	if err != nil {
		t.Fatalf("encode %v: %v", ev, err)
	}
	return string(text)
}

// hookPost posts an event, an object or a text, signed as the seed guide has it.
func (w *world) hookPost(ev any, header ...string) answer {
	w.t.Helper()
	text := hookText(w.t, ev)
	return w.call("POST", webhookPath, text, append(header, "Trigger-Signature", hookHex(worldSecret, text))...)
}

// hookHears posts events that must be taken, and tells whether the last one matched.
func (w *world) hookHears(events ...any) (matched bool) {
	w.t.Helper()
	for _, ev := range events {
		matched = w.hookTook(w.hookPost(ev), ev)
	}
	return matched
}

func (w *world) hookTook(r answer, ev any) (matched bool) {
	w.t.Helper()
	var reply struct {
		Success bool
		Matched *bool
	}
	if r.status == http.StatusOK {
		r.into(w.t, &reply)
	}
	if !reply.Success || reply.Matched == nil {
		w.t.Fatalf("%.300v: got %d %s, want 200 with success and matched", ev, r.status, r.body)
	}
	return *reply.Matched
}

// hookRow is the whole row as callers read it, and its history.
func (w *world) hookRow(id int64) string {
	w.t.Helper()
	j, err := w.srv.store.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatalf("read job %d: %v", id, err)
	}
	history, err := w.srv.store.History(w.t.Context(), id)
	if err != nil {
		w.t.Fatalf("read the history of job %d: %v", id, err)
	}
	return hookText(w.t, viewJob(j)) + hookText(w.t, viewHistory(history))
}

// hookTasks are tasks whose runs stay as they are, so that only events move rows.
func hookTasks() worldOption {
	return withTasks(map[string]emulator.Task{"stays": {Status: "QUEUED"}, "stays-too": {Status: "QUEUED"}})
}

// hookBubble runs do with a world that gets no events but the test's.
func hookBubble(t *testing.T, do func(*testing.T, *world), options ...worldOption) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		alone := []worldOption{withoutWebhook(), hookTasks(), withConfig(func(c *config) { c.transport = noRealtime{c.transport} })}
		do(t, newWorld(t, append(alone, options...)...))
	})
}

// noRealtime is a Trigger.dev without the realtime stream, which would bring news
// before the event that a test is about.
type noRealtime struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (n noRealtime) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(r.URL.Path, "/realtime/") {
		return n.RoundTripper.RoundTrip(r)
	}
	return &http.Response{
		StatusCode: http.StatusNotFound, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(`{"error":"Not Found"}`)), Request: r,
	}, nil
}

// unread is a body that nobody may read.
type unread struct{ t *testing.T }

// Read implements io.Reader.
func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func TestWithoutASecretNothingIsRead(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		for name, h := range map[string]http.Handler{"private": w.srv.private, "public": w.srv.public} {
			r := httptest.NewRequest("POST", webhookPath, unread{t})
			r.Host = "localhost"
			r.Header.Set("Trigger-Signature", hookHex("", ""))
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if rec.Code != http.StatusServiceUnavailable {
				t.Errorf("%s: got %d, want 503", name, rec.Code)
			}
			contains(t, rec.Body.String(), `"code":"webhook_off"`, "TRIGGER_WEBHOOK_SECRET")
		}
	}, withConfig(func(c *config) { c.secrets = nil }))
}

func TestTheWebhookAnswersAlikeOnBothListeners(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		j := w.triggerJob("stays")
		good := hookText(t, hookEvent("evt_1", "RUN_STARTED", j.TriggerRunID))
		sized := func(n int) string {
			text := hookText(t, hookEvent("evt_1", "RUN_STARTED", j.TriggerRunID))
			return text + strings.Repeat(" ", n-len(text))
		}
		for name, c := range map[string]struct {
			body, signed string // signed: what the signature is over, "" for none
			status       int
			want         []string
		}{
			"a good event":                   {good, good, 200, []string{`{"success":true,"matched":true}`}},
			"no signature":                   {good, "", 401, []string{`"code":"bad_signature"`, "no signature"}},
			"signed, but another body":       {good, good + " ", 401, []string{`"code":"bad_signature"`, "does not fit"}},
			"garbage without a signature":    {"\x00{", "", 401, []string{`"code":"bad_signature"`}},
			"garbage with one":               {"\x00{", "\x00{", 400, []string{`"code":"bad_event"`, "the body"}},
			"nothing":                        {"", "", 401, []string{`"code":"bad_signature"`}},
			"256 KiB, signed":                {sized(256 << 10), sized(256 << 10), 200, []string{`"matched":true`}},
			"a byte more, signed":            {sized(256<<10 + 1), sized(256<<10 + 1), 413, []string{`"code":"too_large"`}},
			"a byte more, without signature": {sized(256<<10 + 1), "", 413, []string{`"code":"too_large"`}},
		} {
			for listener, h := range map[string]http.Handler{"private": w.srv.private, "public": w.srv.public} {
				var header []string
				if c.signed != "" {
					header = []string{"Trigger-Signature", hookHex(worldSecret, c.signed)}
				}
				r := callHandler(t, h, "POST", webhookPath, c.body, header...)
				if r.status != c.status {
					t.Errorf("%s, %s: got %d %s, want %d", name, listener, r.status, r.body, c.status)
				}
				contains(t, string(r.body), c.want...)
				if kind := r.header.Get("Content-Type"); c.status != 200 && kind != "application/problem+json" {
					t.Errorf("%s, %s: the content type is %q, want a problem", name, listener, kind)
				}
			}
		}
	})
}

// watchedStore sees what was answered by the time that an event is written.
type watchedStore struct {
	Store
	hear func(func() (bool, error)) (bool, error)
}

// Hear implements Store.
func (s watchedStore) Hear(ctx context.Context, h Heard) (bool, error) {
	return s.hear(func() (bool, error) { return s.Store.Hear(ctx, h) })
}

func TestAnEventIsAcknowledgedOnceItIsInTheDatabase(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		j := w.triggerJob("stays")
		body := hookText(t, hookEvent("evt_1", "RUN_COMPLETED", j.TriggerRunID))
		post := func(hear func(*httptest.ResponseRecorder, func() (bool, error)) (bool, error)) *httptest.ResponseRecorder {
			rec := httptest.NewRecorder()
			store := watchedStore{w.srv.store, func(write func() (bool, error)) (bool, error) { return hear(rec, write) }}
			hook := &webhook{store: store, secrets: webhookSecrets{worldSecret}, log: slog.New(slog.DiscardHandler)}
			r := httptest.NewRequest("POST", webhookPath, strings.NewReader(body))
			r.Header.Set("Trigger-Signature", hookHex(worldSecret, body))
			hook.ServeHTTP(rec, r)
			return rec
		}
		for _, c := range []struct {
			err    error
			status int
			code   string
		}{
			{fmt.Errorf("write: %w", ErrBusy), 503, "database_unavailable"},
			{errClosed, 503, "database_unavailable"},
			{context.DeadlineExceeded, 503, "timeout"},
			{errors.New("disk on fire"), 500, "internal"},
		} {
			rec := post(func(*httptest.ResponseRecorder, func() (bool, error)) (bool, error) { return true, c.err })
			if rec.Code != c.status || !strings.Contains(rec.Body.String(), `"code":"`+c.code+`"`) {
				t.Errorf("the database says %v: got %d %s, want %d %s", c.err, rec.Code, rec.Body, c.status, c.code)
			}
		}
		rec := post(func(rec *httptest.ResponseRecorder, write func() (bool, error)) (bool, error) {
			matched, err := write()
			if rec.Body.Len() > 0 || rec.Flushed {
				t.Errorf("by the commit %q was answered, want nothing yet", rec.Body)
			}
			return matched, err
		})
		if rec.Code != 200 || w.get(j.ID).Status != "COMPLETED" {
			t.Errorf("sent again: got %d %s and status %s, want 200 and COMPLETED", rec.Code, rec.Body, w.get(j.ID).Status)
		}
	})
}

func TestAnEventIDCountsOnce(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		j := w.triggerJob("stays")
		standard := func(webhookID string, ev any) answer {
			text := hookText(t, ev)
			key := []byte("sidejob-test-secret") // what worldSecret holds
			h := hookStandard(webhookID, time.Now(), hookV1(key, webhookID, time.Now(), text))
			return w.call("POST", webhookPath, text, "Webhook-Id", webhookID,
				"Webhook-Timestamp", h.Get("Webhook-Timestamp"), "Webhook-Signature", h.Get("Webhook-Signature"))
		}
		first := hookEvent("evt_1", "RUN_STARTED", j.TriggerRunID)
		if !w.hookTook(standard("msg_1", first), first) {
			t.Fatal("the first event did not match")
		}
		synctest.Wait() // Trigger.dev has been asked, and has not moved the row
		row := w.hookRow(j.ID)
		replays := []struct {
			name, webhookID string
			ev              any
		}{
			{"the same again", "msg_1", first},
			{"the body's id under another webhook-id", "msg_2", hookEvent("evt_1", "RUN_COMPLETED", j.TriggerRunID)},
			{"the webhook-id with another body", "msg_1", hookEvent("evt_2", "RUN_COMPLETED", j.TriggerRunID)},
			{"the body's id about an unknown run", "msg_3", hookEvent("evt_1", "RUN_COMPLETED", "run_of_nobody")},
		}
		check := func(when string) {
			for _, c := range replays {
				if !w.hookTook(standard(c.webhookID, c.ev), c.ev) {
					t.Errorf("%s, %s: matched is false, want true as the first time", when, c.name)
				}
			}
			if !w.hookHears(hookEvent("evt_1", "RUN_COMPLETED", j.TriggerRunID)) {
				t.Errorf("%s, without a webhook-id: matched is false, want true as the first time", when)
			}
			synctest.Wait()
			if got := w.hookRow(j.ID); got != row {
				t.Errorf("%s: the row changed:\n got %s\nwant %s", when, got, row)
			}
		}
		check("at once")
		w.halt()
		w.boot()
		synctest.Wait()
		row = w.hookRow(j.ID) // reconciling has asked about it
		check("after a restart")
		for kind, took := range map[string]func() bool{
			"an alert": func() bool {
				body := fmt.Sprintf(`{"id":"msg_9","type":"alert.run.failed","object":{"run":{"id":%q}}}`, j.TriggerRunID)
				return w.hookTook(w.hookAlert(body), body)
			},
			"a task hook": func() bool { return w.hookHears(hookEvent("msg_9", "RUN_CREATED", "run_of_nobody")) },
			"a sender": func() bool {
				ev := hookEvent("evt_9", "RUN_CREATED", "run_of_nobody")
				return w.hookTook(standard("msg_9", ev), ev)
			},
		} {
			if matched := took(); matched != (kind == "an alert") {
				t.Errorf("the id msg_9 of %s: matched is %v, as if another's id were the same", kind, matched)
			}
		}
		j = w.triggerJob("stays")
		if matched := w.hookHears(hookEvent("evt_3", "RUN_COMPLETED", j.TriggerRunID)); !matched || w.get(j.ID).Status != "COMPLETED" {
			t.Errorf("a new id: matched is %v and status %s, want true and COMPLETED", matched, w.get(j.ID).Status)
		}
	})
}

// lostReply schedules a job whose submit arrived while the reply to it was lost: the
// run is there, and the row does not know it yet.
func (w *world) lostReply(task string) (seenJob, remoteRun) {
	w.t.Helper()
	synctest.Wait() // the first reconciliation would send again at once
	w.faults(map[string]any{"match": map[string]any{"method": "POST", "path": "/api/v1/tasks/"}, "kind": "dropReply", "times": 1})
	r := w.call("POST", "/api/jobs?waitMs=1", map[string]any{"type": task, "executor": "trigger", "triggerTaskId": task})
	j := w.view(r)
	synctest.Wait()
	runs := w.remoteRuns()
	at := slices.IndexFunc(runs, func(run remoteRun) bool { return slices.Contains(run.Tags, j.Tag) })
	if at < 0 || w.get(j.ID).TriggerRunID != "" {
		w.t.Fatalf("job %d: got runs %+v and run %q in the row, want a run that the row does not know", j.ID, runs, w.get(j.ID).TriggerRunID)
	}
	return j, w.remoteRun(runs[at].ID)
}

func TestAnEventBeforeItsRunIsStoredIsKept(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		j, run := w.lostReply("stays")
		started := hookEvent("evt_1", "RUN_STARTED", run.ID, "attemptCount", 1)
		completed := hookEvent("evt_2", "RUN_COMPLETED", run.ID, "output", []int{0})
		for _, ev := range []any{started, completed} {
			if w.hookHears(ev) {
				t.Errorf("%v: matched is true while no row has the run", ev)
			}
		}
		if got := w.get(j.ID); got.TriggerRunID != "" || got.Status != "PENDING" {
			t.Errorf("before the submit is settled: got run %q, %s, want none, PENDING", got.TriggerRunID, got.Status)
		}
		time.Sleep(1500 * time.Millisecond) // the submit is tried again
		got := w.get(j.ID)
		if got.TriggerRunID != run.ID || got.Status != "COMPLETED" || string(got.Result) != "[0]" || got.Attempt != 1 {
			t.Errorf("after it: got run %q, %s with %s, attempt %d", got.TriggerRunID, got.Status, got.Result, got.Attempt)
		}
		history := strings.Join(w.history(j.ID), "; ")
		contains(t, history, "submitted submit > queued; told webhook > running; told webhook > told completed")
		if w.hookHears(completed) {
			t.Error("sent again: matched is true, want false as the first time")
		}
		if runs := w.remoteRuns(); len(runs) != 1 {
			t.Errorf("there are %d runs, want 1", len(runs))
		}
	})
}

func TestAnEventProvesWhoseItsRunIs(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		down := map[string]any{"match": map[string]any{"path": "/api/v3/runs/"}, "kind": "status", "status": 503}
		for name, c := range map[string]struct {
			down    bool // Trigger.dev cannot be asked
			members func(j seenJob, run remoteRun) []any
		}{
			"by Trigger.dev's word": {false, func(j seenJob, _ remoteRun) []any {
				return []any{"metadata", map[string]any{"dbJobId": fmt.Sprint(j.ID)}}
			}},
			"by Trigger.dev's word, against its own": {false, func(j seenJob, _ remoteRun) []any {
				return []any{"metadata", map[string]any{"dbJobId": j.ID}, "idempotencyKey", "job-wrong", "tags", []string{"wrong"}}
			}},
			"by key, task and the tag in its metadata": {true, func(j seenJob, run remoteRun) []any {
				return []any{"metadata", map[string]any{"dbJobId": j.ID, "tag": j.Tag}, "idempotencyKey", run.IdempotencyKey, "taskIdentifier", "stays"}
			}},
			"by key, task and tags": {true, func(j seenJob, run remoteRun) []any {
				return []any{"metadata", map[string]any{"dbJobId": j.ID}, "idempotencyKey", run.IdempotencyKey, "taskIdentifier", "stays", "tags", run.Tags}
			}},
		} {
			j, run := w.lostReply("stays")
			w.faults()
			if c.down {
				w.faults(down)
			}
			if !w.hookHears(hookEvent(name, "RUN_STARTED", run.ID, c.members(j, run)...)) {
				t.Errorf("%s: matched is false", name)
			}
			if got := w.get(j.ID); got.TriggerRunID != run.ID || got.Status != "EXECUTING" {
				t.Errorf("%s: got run %q, %s, want %q, EXECUTING", name, got.TriggerRunID, got.Status, run.ID)
			}
			time.Sleep(1500 * time.Millisecond) // the submit's next try would be by now
			if history := w.history(j.ID); !strings.HasPrefix(history[len(history)-1], "told webhook > running") {
				t.Errorf("%s: the history ends with %s, want the event", name, history[len(history)-1])
			}
		}
	})
}

func TestWhatNamesAJobSelectsNoRow(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		const tag = "my-tag"
		make := func(task string, options map[string]any) string {
			var run struct{ ID string }
			w.remote("POST", "/api/v1/tasks/"+task+"/trigger", map[string]any{"payload": 1, "options": options}).into(t, &run)
			return run.ID
		}
		withoutKey := make("stays", map[string]any{"tags": []string{tag}})
		otherKey := make("stays", map[string]any{"tags": []string{tag}, "idempotencyKey": "job-of-another"})
		ran := w.triggerJob("stays", "tag", "ran")
		internal := w.schedule(map[string]any{"type": "watch"})
		w.faults(map[string]any{"match": map[string]any{"method": "POST", "path": "/api/v1/tasks/"}, "kind": "status", "status": 401})
		ended := w.triggerJob("stays", "tag", "ended")
		if r := w.call("POST", fmt.Sprintf("/api/jobs/%d/cancel", ended.ID), nil); w.view(r).Status != "CANCELED" || w.view(r).TriggerRunID != "" {
			t.Fatalf("cancel a job that was never sent: got %d %s", r.status, r.body)
		}
		w.faults(map[string]any{"match": map[string]any{"method": "POST", "path": "/api/v1/tasks/"}, "kind": "status", "status": 503})
		open := w.triggerJob("stays", "tag", tag)
		keyOf := func(id int64) string {
			j, err := w.srv.store.Get(t.Context(), id)
			if err != nil {
				t.Fatalf("read job %d: %v", id, err)
			}
			return j.IdempotencyKey
		}
		key := keyOf(open.ID)
		w.faults()
		otherTask := make("stays-too", map[string]any{"tags": []string{tag}, "idempotencyKey": key})
		w.faults(map[string]any{"match": map[string]any{"method": "POST", "path": "/api/v1/tasks/"}, "kind": "status", "status": 503})

		rows := func() (all []string) {
			for _, id := range []int64{ran.ID, internal.ID, ended.ID, open.ID} {
				all = append(all, w.hookRow(id))
			}
			return all
		}
		before := rows()
		names := func(id any) map[string]any { return map[string]any{"dbJobId": id, "tag": tag} }
		for name, c := range map[string]struct {
			run     string
			members []any
		}{
			"a forged run":                        {"run_forged", []any{"metadata", names(open.ID)}},
			"a forged run with task and tag":      {"run_forged", []any{"metadata", names(open.ID), "taskIdentifier", "stays", "tags", []string{tag}}},
			"a forged run with another key":       {"run_forged", []any{"metadata", names(open.ID), "taskIdentifier", "stays", "idempotencyKey", "job-x"}},
			"the key, another task":               {"run_forged", []any{"metadata", names(open.ID), "taskIdentifier", "stays-too", "idempotencyKey", key}},
			"the key, no task":                    {"run_forged", []any{"metadata", names(open.ID), "idempotencyKey", key}},
			"the key and task, no tag":            {"run_forged", []any{"metadata", map[string]any{"dbJobId": open.ID}, "taskIdentifier", "stays", "idempotencyKey", key}},
			"the key and task, another tag":       {"run_forged", []any{"metadata", map[string]any{"dbJobId": open.ID, "tag": "x"}, "tags", []string{"x"}, "taskIdentifier", "stays", "idempotencyKey", key}},
			"key, task and tag, but no dbJobId":   {"run_forged", []any{"metadata", map[string]any{"tag": tag}, "taskIdentifier", "stays", "idempotencyKey", key}},
			"a run that has no key":               {withoutKey, []any{"metadata", names(open.ID), "taskIdentifier", "stays"}},
			"a run that has another key":          {otherKey, []any{"metadata", names(open.ID), "taskIdentifier", "stays"}},
			"a run of another task with the key":  {otherTask, []any{"metadata", names(open.ID), "taskIdentifier", "stays"}},
			"a job that has another run":          {"run_forged", []any{"metadata", map[string]any{"dbJobId": ran.ID, "tag": "ran"}, "taskIdentifier", "stays", "idempotencyKey", keyOf(ran.ID)}},
			"a job that has ended":                {"run_forged", []any{"metadata", map[string]any{"dbJobId": ended.ID, "tag": "ended"}, "taskIdentifier", "stays", "idempotencyKey", keyOf(ended.ID)}},
			"an internal job":                     {"run_forged", []any{"metadata", names(internal.ID)}},
			"a job that does not exist":           {"run_forged", []any{"metadata", names(999)}},
			"no job's number":                     {"run_forged", []any{"metadata", names(-1)}},
			"a name that is no number":            {"run_forged", []any{"metadata", names("first")}},
			"a run id that is a path":             {"../runs/" + ran.TriggerRunID, []any{"metadata", names(open.ID)}},
			"a run id that leaves the path":       {ran.TriggerRunID + "?x=", []any{"metadata", names(open.ID)}},
			"a run id that cannot stand in a URL": {"..", []any{"metadata", names(open.ID)}},
		} {
			if w.hookHears(hookEvent(name, "RUN_COMPLETED", c.run, c.members...)) {
				t.Errorf("%s: matched is true", name)
			}
			if after := rows(); !slices.Equal(after, before) {
				t.Errorf("%s: a row changed:\n got %s\nwant %s", name, after, before)
				before = after
			}
		}
		if !w.hookHears(hookEvent("evt_ran", "RUN_STARTED", ran.TriggerRunID, "metadata", names(open.ID))) || w.get(ran.ID).Status != "EXECUTING" {
			t.Errorf("another job's run: got %s, want its own job EXECUTING", w.get(ran.ID).Status)
		}
		if after := w.hookRow(open.ID); after != before[3] {
			t.Errorf("another job's run: the job that the metadata names changed:\n got %s\nwant %s", after, before[3])
		}
		w.faults()
		time.Sleep(time.Minute) // the submit is tried again
		if got := w.get(open.ID); got.TriggerRunID == "" || got.Status != "PENDING" {
			t.Errorf("once it is sent: got run %q, %s, want one, PENDING", got.TriggerRunID, got.Status)
		}
	})
}

func TestATriggerDevThatDoesNotSayWhoseARunIsDelaysNoSender(t *testing.T) {
	hookBubble(t, func(t *testing.T, w *world) {
		j, run := w.lostReply("stays")
		w.faults(map[string]any{"match": map[string]any{"path": "/api/v3/runs/"}, "kind": "hang"},
			map[string]any{"match": map[string]any{"path": "/api/v1/"}, "kind": "status", "status": 503})
		begun := time.Now()
		ev := hookEvent("evt_1", "RUN_STARTED", run.ID, "metadata", map[string]any{"dbJobId": j.ID})
		if matched := w.hookHears(ev); matched || time.Since(begun) > 5*time.Second {
			t.Errorf("got matched %v after %s, want false within Trigger.dev's patience of 5 s", matched, time.Since(begun))
		}
		w.faults()
		time.Sleep(20 * time.Second) // the submit is tried again
		if got := w.get(j.ID); got.Status != "EXECUTING" || got.TriggerRunID != run.ID {
			t.Errorf("once it is sent: got run %q, %s, want %q, EXECUTING", got.TriggerRunID, got.Status, run.ID)
		}
	})
}
