package emulator

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Sizes in bytes from which a value is handed out by its address.
const (
	outputInline  = 128 << 10
	payloadInline = 512 << 10
	packetLife    = 300 * time.Second
	packetPath    = "/emulator/packets/"
)

// runDetail is the body of retrieve. Absent members are left out, never null; the
// raw ones may be any JSON.
type runDetail struct {
	ID             string          `json:"id"`
	TaskIdentifier string          `json:"taskIdentifier"`
	IdempotencyKey string          `json:"idempotencyKey,omitempty"`
	Version        string          `json:"version,omitempty"`
	Status         string          `json:"status"`
	CreatedAt      string          `json:"createdAt"`
	StartedAt      string          `json:"startedAt,omitempty"`
	UpdatedAt      string          `json:"updatedAt"`
	FinishedAt     string          `json:"finishedAt,omitempty"`
	ExpiredAt      string          `json:"expiredAt,omitempty"`
	DelayedUntil   string          `json:"delayedUntil,omitempty"`
	TTL            string          `json:"ttl,omitempty"`
	Cost           float64         `json:"costInCents"`
	BaseCost       float64         `json:"baseCostInCents"`
	DurationMs     int64           `json:"durationMs"`
	IsTest         bool            `json:"isTest"`
	Depth          int             `json:"depth"`
	Tags           []string        `json:"tags"`
	flags                          // embedded, so that its members stand here
	Function       string          `json:"triggerFunction"`
	Metadata       json.RawMessage `json:"metadata,omitempty"`
	Region         string          `json:"region,omitempty"`
	Payload        json.RawMessage `json:"payload,omitempty"`
	PayloadURL     string          `json:"payloadPresignedUrl,omitempty"`
	Output         json.RawMessage `json:"output,omitempty"`
	OutputURL      string          `json:"outputPresignedUrl,omitempty"`
	Error          *TaskError      `json:"error,omitempty"`
	Schedule       json.RawMessage `json:"schedule,omitempty"`
	AttemptCount   int             `json:"attemptCount"`
	Attempts       []string        `json:"attempts"` // always empty
	Related        json.RawMessage `json:"relatedRuns"`
}

// detail shows a run with all its values and without its schedule.
func (r *run) detail(version string) runDetail {
	word, set := r.Status.show(version)
	return runDetail{
		ID: r.ID, TaskIdentifier: r.Task, IdempotencyKey: cmp.Or(r.ShownKey, r.heldKey()), Version: r.Version, Status: word,
		CreatedAt: r.Created.iso(), StartedAt: r.Started.iso(), UpdatedAt: r.Updated.iso(),
		FinishedAt: r.Finished.iso(), ExpiredAt: r.Expired.iso(), DelayedUntil: r.delayedUntil(), TTL: r.TTL,
		Cost: r.cost(), BaseCost: r.baseCost(), DurationMs: r.UsedMs, IsTest: r.Test, Tags: r.tagList(),
		flags: set, Function: "trigger", Metadata: r.Metadata, Region: r.regionShown(), Payload: r.inlinePayload(),
		Output: r.Output, Error: r.Error, AttemptCount: r.Attempts, Attempts: []string{},
		Related: json.RawMessage(`{"children":[]}`),
	}
}

// detail shows a run as retrieve does: large values are named by addresses below the
// origin.
func (e *Emulator) detail(r *run, version, origin string) runDetail {
	d := r.detail(version)
	d.Schedule = e.scheduleOf(r)
	if len(r.Payload) >= payloadInline || r.PayloadType == "application/store" {
		d.Payload, d.PayloadURL = nil, origin+e.packetAddress(r.ID, "payload")
	}
	if r.hasLargeOutput() {
		d.Output, d.OutputURL = nil, origin+e.packetAddress(r.ID, "output")
	}
	return d
}

func (r *run) delayedUntil() string {
	switch {
	case r.Delay == nil:
		return ""
	case *r.Delay == 0:
		return "1970-01-01T00:00:00.000Z"
	}
	return r.Delay.iso()
}

func (r *run) cost() float64 {
	return math.Round(float64(r.UsedMs)*0.00000338*1e5) / 1e5
}

// baseCost is due once a worker has taken the run.
func (r *run) baseCost() float64 {
	if r.Started == 0 {
		return 0
	}
	return baseCost
}

func (r *run) tagList() []string {
	if r.Tags == nil {
		return []string{}
	}
	return r.Tags
}

func (r *run) regionShown() string {
	if r.Region != "" {
		return r.Region
	}
	return r.Env.region()
}

// inlinePayload is the payload as plain JSON: a SuperJSON envelope is unwrapped,
// any other text is a JSON string. Nil: none.
func (r *run) inlinePayload() json.RawMessage {
	if r.PayloadType != "application/super+json" {
		return r.Payload
	}
	return member(unquoted(r.Payload), "json")
}

// storedPayload is the payload as it lies in the database.
func (r *run) storedPayload() (kind string, data []byte) {
	if r.PayloadType == "application/json" {
		return r.PayloadType, r.Payload
	}
	return r.PayloadType, unquoted(r.Payload)
}

// storedOutput is what the task's own process makes of its output: a text stays one,
// anything else becomes SuperJSON.
func (r *run) storedOutput() (kind string, data []byte) {
	switch kindOf(r.Output) {
	case "undefined":
		return "application/json", nil
	case "string":
		return "text/plain", unquoted(r.Output)
	}
	return "application/super+json", object("json", r.Output)
}

func (r *run) hasLargeOutput() bool {
	if len(r.Output) < outputInline-len(`{"json":}`) {
		return false
	}
	_, data := r.storedOutput()
	return len(data) >= outputInline
}

func notFoundRun() *reply {
	return failure(http.StatusNotFound, "Not found").set("x-should-retry", "true")
}

func (e *Emulator) retrieve(c *call) *reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.find(c.env.ID, c.r.PathValue("run"))
	if r == nil {
		return notFoundRun()
	}
	if refused := c.denied("read", r.things()...); refused != nil {
		return refused
	}
	return success(e.detail(r, c.version(), c.origin()))
}

// result answers for canceled runs only: the rows that it would read for the others
// are no longer written.
func (e *Emulator) result(c *call) *reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.find(c.env.ID, c.r.PathValue("run"))
	if r == nil || r.Status != canceled {
		return failure(http.StatusNotFound, "Run either doesn't exist or is not finished")
	}
	return success(object("ok", false, "id", r.ID, "taskIdentifier", r.Task,
		"error", object("type", "INTERNAL_ERROR", "code", "TASK_RUN_CANCELLED")))
}

// packetAddress is where a large value can be read without a key, for five minutes
// of real time.
func (e *Emulator) packetAddress(runID, what string) string {
	ends := strconv.FormatInt(time.Now().Add(packetLife).Unix(), 10)
	return fmt.Sprintf("%s%s/%s?Expires=%s&Signature=%s", packetPath, runID, what, ends,
		e.packetSeal(runID, what, ends))
}

func (e *Emulator) packetSeal(parts ...string) string {
	mac := hmac.New(sha256.New, e.seal)
	mac.Write([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(mac.Sum(nil))
}

// packet serves a large value as it is stored.
func (e *Emulator) packet(c *call) *reply {
	id, what, q := c.r.PathValue("run"), c.r.PathValue("what"), c.r.URL.Query()
	ends, _ := strconv.ParseInt(q.Get("Expires"), 10, 64)
	seal := e.packetSeal(id, what, q.Get("Expires"))
	if !hmac.Equal([]byte(seal), []byte(q.Get("Signature"))) || time.Now().Unix() > ends {
		return &reply{status: http.StatusForbidden, kind: "application/xml", raw: []byte("<Error><Code>AccessDenied</Code></Error>")}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.runs[id]; r != nil {
		kind, data := r.storedPayload()
		if what == "output" {
			kind, data = r.storedOutput()
		}
		if data != nil && kind != "application/store" {
			return &reply{status: http.StatusOK, kind: kind, raw: data}
		}
	}
	return &reply{status: http.StatusNotFound, kind: "application/xml", raw: []byte("<Error><Code>NoSuchKey</Code></Error>")}
}
