package emulator

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// isControl tells the emulator's own controls from what stands in for the real server.
func isControl(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, "/emulator/") && !strings.HasPrefix(r.URL.Path, packetPath)
}

// fromElsewhere tells whether a web page of another origin sends the request.
func fromElsewhere(r *http.Request) bool {
	origin, err := url.Parse(r.Header.Get("Origin"))
	return err != nil || origin.String() != "" && origin.Host != r.Host || r.Header.Get("Sec-Fetch-Site") == "cross-site"
}

// wholeRun is all there is to say of a run, for programs that check: what retrieve
// shows, every value inline, and what nobody outside could know.
type wholeRun struct {
	runDetail
	Task        string          `json:"task"`
	Environment string          `json:"environment"`              // its id
	Env         json.RawMessage `json:"env"`                      // its id and name
	Raw         status          `json:"rawStatus"`                // the database's word
	Key         string          `json:"idempotencyKey,omitempty"` // as sent, also when it is given up
	KeyHeld     bool            `json:"holdsIdempotencyKey"`
	Asked       int             `json:"asked"` // trigger requests answered with this run
	Allowed     int             `json:"maxAttempts"`
	ScheduleID  string          `json:"scheduleId,omitempty"`
	PayloadType string          `json:"payloadType,omitempty"`
}

// allRuns is GET /emulator/runs: {"now","seq","runs":[…]}, the runs of all
// environments, newest first. The query may name task, tag and idempotencyKey (as
// sent), since=N for those that have changed after an earlier answer's seq, and
// values=false to leave payload and output out.
func (e *Emulator) allRuns(c *call) *reply {
	q := c.r.URL.Query()
	after, err := strconv.ParseInt(q.Get("since"), 10, 64)
	if q.Has("since") && err != nil {
		return failure(http.StatusBadRequest, "since: want the seq of an earlier answer")
	}
	e.mu.Lock()
	now, seq := e.clock.now(), e.seq
	copies := e.copies(q, after)
	e.mu.Unlock()
	head := object("now", now.iso(), "seq", seq)
	return &reply{status: http.StatusOK, kind: "application/json; charset=utf-8", write: func(to io.Writer) {
		w := bufio.NewWriter(to)
		_, _ = w.Write(bytes.TrimSuffix(head, []byte("}"))) // a client that has left misses it
		_, _ = w.WriteString(`,"runs":[`)
		rows := json.NewEncoder(w)
		rows.SetEscapeHTML(false)
		for n := range copies {
			if n > 0 {
				_ = w.WriteByte(',')
			}
			_ = rows.Encode(copies[n].whole(q.Get("values") != "false"))
		}
		_, _ = w.WriteString("]}")
		_ = w.Flush()
	}}
}

// copies takes the runs as they are now, so that they can be written without the lock.
func (e *Emulator) copies(q url.Values, after int64) []run {
	key, tag, task := q.Get("idempotencyKey"), q.Get("tag"), q.Get("task")
	var list []run
	take := func(r *run) {
		if (key == "" || r.Key == key) && (tag == "" || r.hasTag(tag)) && (task == "" || r.Task == task) {
			list = append(list, *r)
		}
	}
	if after > 0 {
		e.since(after, take)
		slices.SortFunc(list, func(a, b run) int { return compareAge(&b, &a) })
		return list
	}
	w := &walk{}
	for envID := range e.envs {
		w.left = append(w.left, e.pick(envID, &query{tags: oneOrNone(tag), tasks: oneOrNone(task)})...)
	}
	if key == "" {
		total := 0
		for _, runs := range w.left {
			total += len(runs)
		}
		list = make([]run, 0, total)
	}
	for r := w.next(); r != nil; r = w.next() {
		take(r)
	}
	return list
}

func (r *run) whole(values bool) wholeRun {
	w := wholeRun{runDetail: r.detail(apiVersion), Task: r.Task, Environment: r.Env.ID, Env: envShown(r.Env), Raw: r.Status,
		Key: r.Key, KeyHeld: r.heldKey() != "", Asked: r.Asked, Allowed: r.attemptsAllowed(),
		ScheduleID: r.Schedule, PayloadType: r.PayloadType}
	if !values {
		w.Payload, w.Output = nil, nil
	}
	return w
}

// advance is the control that moves the clock forward; what becomes due on the way
// happens at its own moment, before the answer.
func (e *Emulator) advance(c *call) *reply {
	var asked struct {
		Ms *float64 `json:"ms"`
	}
	const century = 100 * 365 * 24 * 3600 * 1000
	if err := json.Unmarshal(c.body, &asked); err != nil || asked.Ms == nil || *asked.Ms < 0 || *asked.Ms > century {
		return failure(http.StatusBadRequest, fmt.Sprintf(`want {"ms":n}, n from 0 to %d`, int64(century)))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clock.advance(int64(*asked.Ms))
	e.journal.put(entry{Shift: &e.clock.shift})
	return success(object("now", e.clock.now().iso(), "aheadMs", e.clock.shift))
}
