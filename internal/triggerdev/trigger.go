package triggerdev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// TriggerRequest starts a run.
type TriggerRequest struct {
	Payload json.RawMessage // any JSON value; nil sends none, which the task sees as undefined
	Options TriggerOptions
}

// TriggerOptions are the options a run can be given when it is triggered. The
// zero value of a member leaves it out. There is no retry option on the wire:
// backoff belongs to the task.
type TriggerOptions struct {
	// IdempotencyKey makes a second trigger of the same task answer with the
	// first run, whatever its payload. A run that ends FAILED, CRASHED,
	// SYSTEM_FAILURE, TIMED_OUT or EXPIRED frees its key. At most 2048 characters.
	IdempotencyKey string

	// IdempotencyKeyTTL is how long the key is held, 30 days when zero. Sent in
	// whole seconds, rounded up.
	IdempotencyKeyTTL time.Duration

	// Delay is when the run may start, sent to the millisecond. An instant in the
	// past means at once and is no error.
	Delay time.Time

	// TTL is how long the run may wait for its first start before it expires,
	// sent in whole seconds, rounded up. Nil leaves it to the task, zero means it
	// never expires.
	TTL *time.Duration

	// Tags label the run: at most 10, each of at most 128 characters. A tag that
	// holds a comma cannot be asked for with [Client.List] or [Client.Subscribe].
	Tags []string

	Metadata map[string]any // at most 256 KiB as JSON

	MaxAttempts    int           // in total, the first included
	MaxDuration    time.Duration // of computing; the service makes it at least 5 s
	Queue          string        // one that does not exist leaves the run PENDING_VERSION
	ConcurrencyKey string
	Machine        string        // such as small-1x; an unknown one is refused
	Priority       time.Duration // head start in its queue
	LockToVersion  string        // an unknown one is refused
}

// Triggered names the run that a trigger made or found.
type Triggered struct {
	ID       string `json:"id"`
	IsCached bool   `json:"isCached"` // the idempotency key was held: ID is an earlier run

	// Environment is the internal id of the environment the run is in, the one
	// that a listed run has in [RunEnv]. Empty when the reply does not tell.
	Environment string `json:"-"`
}

func (t *Triggered) check() error {
	if t.ID == "" {
		return errors.New("no id")
	}
	return nil
}

// readHeader takes the environment out of the claims of the public token that
// comes with a run. A reply without good claims is as good as any.
func (t *Triggered) readHeader(h http.Header) {
	var claims struct {
		Sub string `json:"sub"`
	}
	if json.Unmarshal([]byte(h.Get("X-Trigger-Jwt-Claims")), &claims) == nil {
		t.Environment = claims.Sub
	}
}

// Trigger starts a run of a task. A task that does not exist is no error: its
// run waits as PENDING_VERSION.
func (c *Client) Trigger(ctx context.Context, taskID string, req TriggerRequest) (Triggered, error) {
	task, err := segment("task id", taskID)
	if err != nil {
		return Triggered{}, err
	}
	body, err := req.wire()
	if err != nil {
		return Triggered{}, err
	}
	var out Triggered
	in := call{method: http.MethodPost, path: "/api/v1/tasks/" + task + "/trigger", body: body}
	if err := c.do(ctx, in, &out); err != nil {
		return Triggered{}, err
	}
	return out, nil
}

type wireTrigger struct {
	Payload json.RawMessage `json:"payload,omitempty"`
	Options wireOptions     `json:"options"`
}

type wireOptions struct {
	IdempotencyKey    string         `json:"idempotencyKey,omitempty"`
	IdempotencyKeyTTL string         `json:"idempotencyKeyTTL,omitempty"`
	Delay             string         `json:"delay,omitempty"`
	TTL               *int64         `json:"ttl,omitempty"`
	Tags              []string       `json:"tags,omitempty"`
	Metadata          map[string]any `json:"metadata,omitempty"`
	MaxAttempts       int            `json:"maxAttempts,omitempty"`
	MaxDuration       int64          `json:"maxDuration,omitempty"`
	Queue             *wireQueue     `json:"queue,omitempty"`
	ConcurrencyKey    string         `json:"concurrencyKey,omitempty"`
	Machine           string         `json:"machine,omitempty"`
	Priority          float64        `json:"priority,omitempty"`
	LockToVersion     string         `json:"lockToVersion,omitempty"`
}

type wireQueue struct {
	Name string `json:"name"`
}

// wire puts the request into the service's own grammar, which drops in silence
// what it cannot read.
func (r TriggerRequest) wire() (wireTrigger, error) {
	o := r.Options
	w := wireTrigger{Payload: r.Payload, Options: wireOptions{
		IdempotencyKey: o.IdempotencyKey,
		Tags:           o.Tags,
		Metadata:       o.Metadata,
		MaxAttempts:    o.MaxAttempts,
		MaxDuration:    wholeSeconds(o.MaxDuration),
		ConcurrencyKey: o.ConcurrencyKey,
		Machine:        o.Machine,
		Priority:       o.Priority.Seconds(),
		LockToVersion:  o.LockToVersion,
	}}
	if o.IdempotencyKeyTTL < 0 || o.TTL != nil && *o.TTL < 0 {
		return wireTrigger{}, &InvalidError{Reason: "a time to live is negative"}
	}
	if o.IdempotencyKeyTTL > 0 {
		w.Options.IdempotencyKeyTTL = fmt.Sprintf("%ds", wholeSeconds(o.IdempotencyKeyTTL))
	}
	if o.TTL != nil {
		w.Options.TTL = new(wholeSeconds(*o.TTL))
	}
	if o.Queue != "" {
		w.Options.Queue = &wireQueue{Name: o.Queue}
	}
	if o.Delay.IsZero() {
		return w, nil
	}
	at := o.Delay.UTC()
	if at.Year() < 0 || at.Year() > 9999 {
		return wireTrigger{}, &InvalidError{Reason: "the delay lies outside the years 0 to 9999"}
	}
	w.Options.Delay = at.Format("2006-01-02T15:04:05.000Z")
	return w, nil
}

// wholeSeconds rounds up: a time to live of 0 would mean none at all.
func wholeSeconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}
