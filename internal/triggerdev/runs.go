package triggerdev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Run is a run as the service shows it. Times are zero and raw members nil when
// absent; a raw member that is there may hold the JSON value null.
//
// The service's booleans (isCompleted and its kin) are left out on purpose: all
// of them are false for the final statuses EXPIRED and TIMED_OUT. Read Status.
type Run struct {
	ID             string `json:"id"`
	TaskIdentifier string `json:"taskIdentifier"`
	Status         string `json:"status"`         // as the service spells it; unknown ones pass
	IdempotencyKey string `json:"idempotencyKey"` // lists show the stored form, which may be a hash
	Version        string `json:"version"`        // empty until a worker took the run

	CreatedAt    time.Time `json:"createdAt"` // of a scheduled run the nominal time
	UpdatedAt    time.Time `json:"updatedAt"`
	StartedAt    time.Time `json:"startedAt"`  // when first dequeued, kept across retries
	FinishedAt   time.Time `json:"finishedAt"` // never set on a run canceled while queued
	ExpiredAt    time.Time `json:"expiredAt"`
	DelayedUntil time.Time `json:"delayedUntil"` // stays once the delay has passed

	TTL             string          `json:"ttl"` // such as 10m
	Tags            []string        `json:"tags"`
	Metadata        json.RawMessage `json:"metadata"`
	IsTest          bool            `json:"isTest"`
	Depth           int             `json:"depth"`  // 0 for a run that no other run started
	Region          string          `json:"region"` // in development an internal environment id
	DurationMs      float64         `json:"durationMs"`
	CostInCents     float64         `json:"costInCents"`
	BaseCostInCents float64         `json:"baseCostInCents"`

	// Members that only a list carries.
	Env      *RunEnv `json:"env"`
	TaskKind string  `json:"taskKind"` // STANDARD, SCHEDULED, …

	// Members that only [Client.Retrieve] brings.
	TriggerFunction     string          `json:"triggerFunction"`
	BatchID             string          `json:"batchId"`
	AttemptCount        int             `json:"attemptCount"` // attempts started
	Payload             json.RawMessage `json:"payload"`
	PayloadPresignedURL string          `json:"payloadPresignedUrl"` // a secret for 5 minutes
	Output              json.RawMessage `json:"output"`              // see [Client.Output]
	OutputPresignedURL  string          `json:"outputPresignedUrl"`  // a secret for 5 minutes
	Error               *RunError       `json:"error"`               // canceled and expired runs have one too
	Schedule            *RunSchedule    `json:"schedule"`            // only if a schedule that still exists fired the run
}

// RunError says why a run ended badly. Name and StackTrace are there for errors
// that the task's own code threw.
type RunError struct {
	Message    string `json:"message"`
	Name       string `json:"name"`
	StackTrace string `json:"stackTrace"`
}

// RunSchedule is the schedule that fired a run.
type RunSchedule struct {
	ID               string    `json:"id"`
	ExternalID       string    `json:"externalId"`
	DeduplicationKey string    `json:"deduplicationKey"` // empty if the service made it up
	Generator        Generator `json:"generator"`
}

// RunEnv is the environment a listed run belongs to.
type RunEnv struct {
	ID   string `json:"id"`   // internal, equal to Environment of [Triggered]
	Name string `json:"name"` // dev, stg, prod or preview
}

func (r *Run) check() error {
	if r.ID == "" {
		return errors.New("run without id")
	}
	if r.Status == "" {
		return errors.New("run without status")
	}
	return nil
}

// Retrieve reads one run of this environment. Just after a trigger it may fail
// with a 404 that [NotFound] tells and whose ShouldRetry is true.
func (c *Client) Retrieve(ctx context.Context, runID string) (Run, error) {
	id, err := segment("run id", runID)
	if err != nil {
		return Run{}, err
	}
	in := call{method: http.MethodGet, path: "/api/v3/runs/" + id}
	var out Run
	if err := c.do(ctx, in, &out); err != nil {
		return Run{}, err
	}
	if out.ID != runID {
		return Run{}, in.aboutAnother()
	}
	return out, nil
}

// Cancel asks the service to stop a run. It succeeds for a run that has already
// ended, which stays as it is, and returns before a worker has stopped: it is
// no news that the run is over.
func (c *Client) Cancel(ctx context.Context, runID string) error {
	id, err := segment("run id", runID)
	if err != nil {
		return err
	}
	in := call{method: http.MethodPost, path: "/api/v2/runs/" + id + "/cancel"}
	var out idReply
	if err := c.do(ctx, in, &out); err != nil {
		return err
	}
	if out.ID != runID {
		return in.aboutAnother()
	}
	return nil
}

// aboutAnother is the error of a reply that names another run than was asked for.
func (in call) aboutAnother() error {
	return &BadReplyError{Method: in.method, Path: in.path, Status: http.StatusOK, Err: errors.New("it is about another run")}
}

// ListFilter narrows [Client.List]. Zero members do not narrow.
type ListFilter struct {
	Tags     []string // runs with any of them; none may hold a comma
	Tasks    []string // task identifiers
	Statuses []string
	Schedule string // id of a schedule

	// From and To bound the creation of runs. With neither, the service looks
	// back 7 days and no further; To alone has no lower bound.
	From, To time.Time

	After string // cursor: Next of the page before
	Size  int    // 1 to 100; 25 when zero
}

// Page is one page of runs, newest first.
type Page struct {
	Runs     []Run
	Next     string // cursor of the next page; empty on the last one
	Previous string
}

type wirePage struct {
	Data       []Run `json:"data"`
	Pagination struct {
		Next     string `json:"next"`
		Previous string `json:"previous"`
	} `json:"pagination"`
}

func (p *wirePage) check() error {
	if p.Data == nil {
		return errors.New("no data")
	}
	for i := range p.Data {
		if err := p.Data[i].check(); err != nil {
			return fmt.Errorf("item %d: %w", i, err)
		}
	}
	return nil
}

// List reads one page of runs. The list lags behind and a page may hold fewer
// runs than its size, even none, while Next is set: absence from it proves
// nothing. Listed runs have neither payload, output, error nor schedule.
func (c *Client) List(ctx context.Context, f ListFilter) (Page, error) {
	q, err := f.query()
	if err != nil {
		return Page{}, err
	}
	var out wirePage
	if err := c.do(ctx, call{method: http.MethodGet, path: "/api/v1/runs", query: q}, &out); err != nil {
		return Page{}, err
	}
	return Page{Runs: out.Data, Next: out.Pagination.Next, Previous: out.Pagination.Previous}, nil
}

// Ping makes the cheapest call that proves the key good.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.List(ctx, ListFilter{Size: 1})
	return err
}

func (f ListFilter) query() (url.Values, error) {
	q := url.Values{}
	for _, l := range []struct {
		name   string
		values []string
	}{
		{"filter[tag]", f.Tags},
		{"filter[taskIdentifier]", f.Tasks},
		{"filter[status]", f.Statuses},
	} {
		if err := setList(q, l.name, l.values); err != nil {
			return nil, err
		}
	}
	set(q, "filter[schedule]", f.Schedule)
	set(q, "page[after]", f.After)
	if f.Size != 0 {
		q.Set("page[size]", strconv.Itoa(f.Size))
	}
	setTime(q, "filter[createdAt][from]", f.From)
	setTime(q, "filter[createdAt][to]", f.To)
	return q, nil
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

// setTime sends t in milliseconds since 1970, what the service reads best.
func setTime(q url.Values, name string, t time.Time) {
	if !t.IsZero() {
		q.Set(name, strconv.FormatInt(t.UnixMilli(), 10))
	}
}

// setList joins values with commas, which the service splits without a way to
// escape one.
func setList(q url.Values, name string, values []string) error {
	for _, v := range values {
		if v == "" || strings.Contains(v, ",") {
			return &InvalidError{Reason: fmt.Sprintf("%s: %q cannot stand in a list", name, v)}
		}
	}
	set(q, name, strings.Join(values, ","))
	return nil
}
