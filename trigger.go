package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"sidejob/internal/job"
	"sidejob/internal/triggerdev"
)

// adapter speaks with Trigger.dev about jobs: a job becomes a request, an answer
// becomes a job.Event. It writes nothing down; who calls it applies the event.
type adapter struct {
	client       *triggerdev.Client
	installation string
	log          *slog.Logger
	health       *triggerHealth
	breaker      *breaker
	unknown      func(raw string) // counts statuses that sidejob does not know
}

const (
	// submitHold is how long a row is held for one submit, looking the run up
	// included. It outlasts the deadline of the calls.
	submitHold    = 15 * time.Second
	submitTimeout = 14 * time.Second
	// parked delays a run that is made only to be canceled.
	parked = 30 * 24 * time.Hour
	// doubtLasts is how long a run of an earlier submit may stay hidden from every
	// look-up.
	doubtLasts = time.Minute
	// cancelRecheck is when a cancel that was taken but has not shown is repeated.
	cancelRecheck = 5 * time.Second
	// maxRemoteTag is the longest tag Trigger.dev takes, in UTF-16 units.
	maxRemoteTag = 128
)

// submission is what came of a submit.
type submission struct {
	event  job.Event
	cached bool // a first submit met a run that was there before
}

// submit hands the job over. When an earlier submit may have arrived, the run is
// looked for first: a run that failed has freed its idempotency key, so sending
// again could make a second one.
func (a *adapter) submit(ctx context.Context, j job.Job, inDoubt bool) submission {
	ctx, cancel := context.WithDeadline(ctx, j.LeaseExpires.Add(submitTimeout-submitHold)) // over by now, where this process was frozen
	defer cancel()
	if inDoubt {
		run, found, err := a.find(ctx, j)
		if err != nil {
			return submission{event: unreached(j, "submit", fmt.Errorf("look for the run of an earlier submit: %w", err), true)}
		}
		if found {
			return submission{event: job.Event{Kind: job.Submitted, At: now(), Source: "submit", Run: run}}
		}
	}
	done, err := a.client.Trigger(ctx, j.TriggerTask, a.request(j))
	a.health.note(err)
	switch triggerdev.OutcomeOf(err) {
	case triggerdev.Accepted:
		return submission{
			event:  job.Event{Kind: job.Submitted, At: now(), Source: "submit", Run: job.Run{ID: done.ID, Environment: done.Environment}},
			cached: done.IsCached && !inDoubt,
		}
	case triggerdev.Refused:
		if inDoubt && now().Sub(j.SentAt) < doubtLasts {
			// A queue that is full by now refuses this submit and knows nothing of
			// the earlier one.
			return submission{event: unreached(j, "submit", err, true)}
		}
		return submission{event: job.Event{Kind: job.Refused, At: now(), Source: "submit", Err: err.Error(), Details: refusalDetails(err)}}
	case triggerdev.NotReached:
		return submission{event: unreached(j, "submit", err, inDoubt)}
	}
	return submission{event: unreached(j, "submit", err, true)}
}

// find looks for a run that carries the job's own tag: in the realtime snapshot,
// which is current but sees a day only, and else in the list, which lags. A run that
// is in neither may still be there; the idempotency key covers that.
func (a *adapter) find(ctx context.Context, j job.Job) (job.Run, bool, error) {
	runs, err := a.client.Snapshot(ctx, j.IdempotencyKey)
	for _, run := range runs {
		if slices.Contains(run.Tags, j.IdempotencyKey) {
			return job.Run{ID: run.ID}, true, nil
		}
	}
	if err != nil && !errors.Is(err, triggerdev.ErrNoRealtime) {
		return job.Run{}, false, err
	}
	page, err := a.client.List(ctx, triggerdev.ListFilter{
		Tags: []string{j.IdempotencyKey}, From: j.Created.Add(-24 * time.Hour), Size: 10,
	})
	a.health.note(err)
	if err != nil || len(page.Runs) == 0 {
		return job.Run{}, false, err
	}
	return runNews(page.Runs[0], nil), true, nil
}

// request is the job as Trigger.dev takes it. A job that is to be canceled is
// delayed far beyond its cancel, so that it never begins.
func (a *adapter) request(j job.Job) triggerdev.TriggerRequest {
	options := triggerdev.TriggerOptions{
		IdempotencyKey: j.IdempotencyKey,
		Tags:           a.tags(j),
		Metadata:       remoteMetadata(j),
	}
	at := now()
	if j.Due.After(at) {
		options.Delay = j.Due
	}
	if j.CancelRequested {
		options.Delay = at.Add(parked)
	}
	if j.Retry != nil {
		options.MaxAttempts = j.Retry.MaxAttempts
	}
	return triggerdev.TriggerRequest{Payload: j.Data, Options: options}
}

// tags are the run's tags: by them the job, its row, this installation and the very
// submit are found again.
func (a *adapter) tags(j job.Job) []string {
	labels := j.Labels[:min(len(j.Labels), job.RemoteLabels)]
	tags := append([]string{j.Tag, rowTagPrefix + strconv.FormatInt(j.ID, 10), a.installationTag(), j.IdempotencyKey}, labels...)
	for i, tag := range tags {
		tags[i] = remoteTag(tag)
	}
	return tags
}

const rowTagPrefix = "db-id:"

// rowTag is the id of the row that a run's tags name, 0 for none.
func rowTag(tags []string) int64 {
	for _, tag := range tags {
		if text, ok := strings.CutPrefix(tag, rowTagPrefix); ok {
			id, _ := strconv.ParseInt(text, 10, 64)
			return id
		}
	}
	return 0
}

func (a *adapter) installationTag() string { return "sidejob:" + a.installation }

// remoteTag is the tag itself, or a hash of one that Trigger.dev would not take.
func remoteTag(tag string) string {
	if len(utf16.Encode([]rune(tag))) <= maxRemoteTag {
		return tag
	}
	sum := sha256.Sum256([]byte(tag))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// remoteMetadata is the job's own metadata and what names the job, which wins.
func remoteMetadata(j job.Job) map[string]any {
	var own map[string]json.RawMessage
	_ = json.Unmarshal(j.Metadata, &own) // what is no object was refused on the way in
	m := map[string]any{}
	for k, v := range own {
		m[k] = v
	}
	m["dbJobId"] = strconv.FormatInt(j.ID, 10)
	m["tag"] = j.Tag
	m["userId"] = strconv.FormatInt(j.UserID, 10)
	return m
}

// cancel asks Trigger.dev to stop the job's run, and then what became of it. The
// events come in the order they happened.
func (a *adapter) cancel(ctx context.Context, j job.Job) (events []job.Event) {
	err := a.client.Cancel(ctx, j.RunID)
	a.health.note(err)
	if err != nil && !triggerdev.NotFound(err) {
		return []job.Event{unreached(j, "cancel", err, false)}
	}
	if err == nil {
		at := now()
		events = append(events, job.Event{Kind: job.Stopping, At: at, Source: "cancel", Run: job.Run{ID: j.RunID}, NextTry: at.Add(cancelRecheck)})
	}
	if seen, err := a.ask(ctx, j); err == nil {
		seen.Source = "cancel"
		events = append(events, seen)
	}
	if err != nil {
		events = append(events, unreached(j, "cancel", err, false))
	}
	return events
}

// ask is what Trigger.dev says of a job's run now: seen, or missing. An error says
// that it could not be asked, which is no news of the run.
func (a *adapter) ask(ctx context.Context, j job.Job) (job.Event, error) {
	run, err := a.client.Retrieve(ctx, j.RunID)
	a.health.note(err)
	if triggerdev.NotFound(err) {
		return a.missing(ctx, j)
	}
	if err != nil {
		return job.Event{}, fmt.Errorf("ask for run %s: %w", j.RunID, err)
	}
	if !job.KnownStatus(run.Status) {
		a.unknown(run.Status)
		a.log.Warn("trigger.dev used a status that this sidejob does not know", "run", run.ID, "status", run.Status)
	}
	output, err := a.output(ctx, run)
	if err != nil {
		return job.Event{}, fmt.Errorf("fetch output of run %s: %w", run.ID, err)
	}
	news := runNews(run, output)
	if j.Environment == "" && news.Environment == "" {
		// The key has just found the run, so the run is in the key's environment.
		news.Environment, _ = a.keyEnvironment(ctx)
	}
	return job.Event{Kind: job.Seen, At: now(), Run: news}, nil
}

// missing proves the key, in its environment, before a 404 counts for anything. A run
// of which nobody knows where it lives may well be there and hidden from this key.
func (a *adapter) missing(ctx context.Context, j job.Job) (job.Event, error) {
	env, err := a.keyEnvironment(ctx)
	if err != nil {
		return job.Event{}, fmt.Errorf("prove the key after a 404 for run %s: %w", j.RunID, err)
	}
	return job.Event{Kind: job.Missing, At: now(), KeyProved: env != "" && j.Environment != "", Run: job.Run{ID: j.RunID, Environment: env}}, nil
}

// keyEnvironment is the id of the environment that the key is of, read off its
// newest run; "" where the list shows none. It is asked anew each time: the key may
// be replaced by one of another environment at any moment.
func (a *adapter) keyEnvironment(ctx context.Context) (string, error) {
	page, err := a.client.List(ctx, triggerdev.ListFilter{Size: 1, From: time.UnixMilli(1)})
	a.health.note(err)
	if err != nil || len(page.Runs) == 0 || page.Runs[0].Env == nil {
		return "", err
	}
	return page.Runs[0].Env.ID, nil
}

// output is what a completed run returned, nil for nothing. What is too large to
// keep is told by its size.
func (a *adapter) output(ctx context.Context, run triggerdev.Run) (json.RawMessage, error) {
	output, err := a.client.Output(ctx, run)
	var large *triggerdev.TooLargeError
	if !errors.As(err, &large) {
		return output, err
	}
	if large.Size < 0 {
		return json.RawMessage(`{"tooLarge":true}`), nil
	}
	return json.RawMessage(fmt.Sprintf(`{"tooLarge":true,"bytes":%d}`, large.Size)), nil
}

// runNews turns a run into news of it.
func runNews(run triggerdev.Run, output json.RawMessage) job.Run {
	news := job.Run{
		ID: run.ID, Raw: run.Status, Started: run.StartedAt, Finished: run.FinishedAt,
		Output: output, Attempts: run.AttemptCount,
	}
	if run.Error != nil {
		news.Error = runError(run.Error.Message, run.Error.Name, run.Error.StackTrace)
	}
	if run.Env != nil {
		news.Environment = run.Env.ID
	}
	return news
}

// runError is an error in the shape that Trigger.dev shows it.
func runError(message, name, stack string) json.RawMessage {
	text, err := json.Marshal(struct {
		Message    string `json:"message"`
		Name       string `json:"name,omitempty"`
		StackTrace string `json:"stackTrace,omitempty"`
	}{message, name, stack})
	if err != nil {
		return nil
	}
	return text
}

// signOfLife asks for a sign of life where the last calls had none, since there may be
// no job left whose calls would bring one.
func (a *adapter) signOfLife(ctx context.Context) {
	if state, _ := a.health.state(); state != "ok" {
		a.health.note(a.client.Ping(ctx))
	}
}

// unreached is the event of a try that did not get through.
func unreached(j job.Job, source string, err error, inDoubt bool) job.Event {
	return job.Event{
		Kind: job.Unreached, At: now(), Source: source, Err: err.Error(),
		InDoubt: inDoubt, NextTry: nextTry(j.Tries, err),
	}
}

// nextTry is when to try again after so many failures before this one: 1 s and
// twice as long each time, up to a minute, spread by a quarter. A rate limit's own
// time, and a key that must be mended by hand, wait longer.
func nextTry(tries int, err error) time.Time {
	wait := min(time.Minute, time.Second<<min(tries, 6))
	if triggerdev.KeyRefused(err) {
		wait = max(wait, 15*time.Second)
	}
	at := now().Add(wait - time.Duration(rand.Int64N(int64(wait/4))))
	var e *triggerdev.Error
	if errors.As(err, &e) && e.ResetAt.After(at) && e.ResetAt.Before(at.Add(time.Hour)) {
		at = e.ResetAt.Add(time.Duration(rand.Int64N(int64(time.Second))))
	}
	return at
}

// refusalDetails is what Trigger.dev answered to a request it will never take.
func refusalDetails(err error) any {
	var e *triggerdev.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	return map[string]any{"status": e.Status, "message": e.Message}
}
