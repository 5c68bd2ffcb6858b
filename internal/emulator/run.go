package emulator

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// run is one run as the server knows it. It is also its line in the journal, which
// is why its members have short names and zero ones are left out.
type run struct {
	ID     string `json:"id"`
	Env    env    `json:"env"`
	Task   string `json:"task"`
	Status status `json:"status"`

	Created  instant  `json:"created"`
	Updated  instant  `json:"updated"`
	Started  instant  `json:"started,omitempty"`
	Finished instant  `json:"finished,omitempty"`
	Expired  instant  `json:"expired,omitempty"`
	Delay    *instant `json:"delay,omitempty"`  // delayedUntil, kept when it has passed
	Queued   instant  `json:"queued,omitempty"` // when its delay, if any, was over
	TTL      string   `json:"ttl,omitempty"`

	Payload     json.RawMessage `json:"payload,omitempty"` // a JSON value, or a JSON string of the stored text
	PayloadType string          `json:"payloadType,omitempty"`
	Output      json.RawMessage `json:"output,omitempty"` // set on success; nil: the task returned nothing
	Error       *TaskError      `json:"error,omitempty"`
	Metadata    json.RawMessage `json:"metadata,omitempty"`
	Seed        json.RawMessage `json:"seed,omitempty"` // the metadata it was triggered with
	Tags        []string        `json:"tags,omitempty"`

	Key      string  `json:"key,omitempty"`      // idempotency key as stored
	ShownKey string  `json:"shownKey,omitempty"` // readable form that came beside it
	KeyEnds  instant `json:"keyEnds,omitempty"`
	KeyFree  bool    `json:"keyFree,omitempty"` // the key was given up
	CallKey  string  `json:"callKey,omitempty"` // request-level key
	Asked    int     `json:"asked,omitempty"`   // trigger requests answered with this run

	Queue       string          `json:"queue,omitempty"`
	Concurrency string          `json:"concurrency,omitempty"`
	Machine     string          `json:"machine,omitempty"`
	Region      string          `json:"region,omitempty"`
	Test        bool            `json:"test,omitempty"`
	MaxAttempts int             `json:"maxAttempts,omitempty"` // 0: the task's
	Deployment  string          `json:"deployment,omitempty"`  // externalDeploymentId
	Version     string          `json:"version,omitempty"`
	Schedule    string          `json:"schedule,omitempty"` // id of the schedule that fired it
	Number      int             `json:"number,omitempty"`   // among the runs of its task
	Extra       json.RawMessage `json:"extra,omitempty"`    // accepted options without an effect here

	Attempts       int     `json:"attempts,omitempty"`
	AttemptStarted instant `json:"attemptStarted,omitempty"`
	UsedMs         int64   `json:"usedMs,omitempty"` // billed compute
	Steps          int     `json:"steps,omitempty"`  // done by the attempt, of a task in steps

	Seq  int64   `json:"seq,omitempty"`  // of its last change of any kind, see touch
	Next instant `json:"next,omitempty"` // when Then is due; 0: when somebody reports
	Then step    `json:"then,omitempty"`

	alarm   *alarm
	shelves []*shelf
	waiting map[*watcher]bool // for this run by its id
	moved   int64             // Seq of its last change that updatedAt shows
	joined  int64             // Seq of the change that put it where it is found, also by a tag
}

// step is what happens to a run next without anybody asking.
type step string

const (
	stepNone      step = ""
	stepEnqueue   step = "enqueue"   // its delay is over
	stepDequeue   step = "dequeue"   // the worker takes it
	stepStart     step = "start"     // an attempt begins
	stepWork      step = "work"      // the attempt, or one step of it, is done
	stepStopped   step = "stopped"   // the worker has stopped after a cancel
	stepExpire    step = "expire"    // its ttl is over
	stepUnversion step = "unversion" // no worker knows the task
)

// internal is the id without its prefix, as cursors carry it.
func (r *run) internal() string { return strings.TrimPrefix(r.ID, "run_") }

// heldKey is the idempotency key as stored, until it is given up.
func (r *run) heldKey() string {
	if r.KeyFree {
		return ""
	}
	return r.Key
}

func (r *run) hasTag(tag string) bool { return slices.Contains(r.Tags, tag) }

// keySlot names an idempotency key: one per environment, task and key.
func keySlot(envID, task, key string) string { return envID + "\x00" + task + "\x00" + key }

// callSlot names a request-level key within its environment.
func callSlot(envID, key string) string { return envID + "\x00" + key }

// newID makes an opaque id: 25 (or another number of) lower-case letters and
// digits that follow from the emulator's age, its clock and how many it has made.
func (e *Emulator) newID(prefix string, length int) string {
	for {
		e.minted++
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d", prefix, e.born.UnixNano(), e.clock.now(), e.minted))
		id := prefix + base36(sum[:], length)
		if e.runs[id] == nil && e.sched[id] == nil {
			return id
		}
	}
}

func base36(sum []byte, length int) string {
	text := new(big.Int).SetBytes(sum).Text(36)
	return (strings.Repeat("0", length) + text)[len(text):]
}

// find returns the run if it is one of the environment's.
func (e *Emulator) find(envID, id string) *run {
	if r := e.runs[id]; r != nil && r.Env.ID == envID {
		return r
	}
	return nil
}
