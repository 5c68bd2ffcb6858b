package emulator

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// Pages of the run list.
const (
	pageDefault   = 25
	pageAtMost    = 100
	lookBack      = 7 * 24 * time.Hour // where a request names no time
	beforeAllTime = instant(-1 << 62)
)

// runItem is a run in a list: no payload, output, error or attempts.
type runItem struct {
	ID             string          `json:"id"`
	Status         string          `json:"status"`
	TaskIdentifier string          `json:"taskIdentifier"`
	IdempotencyKey string          `json:"idempotencyKey,omitempty"`
	Version        string          `json:"version,omitempty"`
	CreatedAt      string          `json:"createdAt"`
	UpdatedAt      string          `json:"updatedAt"`
	StartedAt      string          `json:"startedAt,omitempty"`
	FinishedAt     string          `json:"finishedAt,omitempty"`
	DelayedUntil   string          `json:"delayedUntil,omitempty"`
	IsTest         bool            `json:"isTest"`
	TTL            string          `json:"ttl,omitempty"`
	ExpiredAt      string          `json:"expiredAt,omitempty"`
	Env            json.RawMessage `json:"env"`
	Tags           []string        `json:"tags"`
	Cost           float64         `json:"costInCents"`
	BaseCost       float64         `json:"baseCostInCents"`
	DurationMs     int64           `json:"durationMs"`
	Depth          int             `json:"depth"`
	Metadata       json.RawMessage `json:"metadata,omitempty"`
	Kind           string          `json:"taskKind"`
	Region         string          `json:"region,omitempty"`
	flags
}

// item shows a run as the list does. Unlike retrieve it gives the stored key, and a
// final run without a finish shows its last change as one.
func (e *Emulator) item(r *run, version string) runItem {
	word, set := r.Status.show(version)
	i := runItem{
		ID: r.ID, Status: word, TaskIdentifier: r.Task, IdempotencyKey: r.heldKey(), Version: r.Version,
		CreatedAt: r.Created.iso(), UpdatedAt: r.Updated.iso(), StartedAt: r.Started.iso(),
		FinishedAt: r.Finished.iso(), DelayedUntil: r.delayedUntil(), IsTest: r.Test, TTL: r.TTL,
		ExpiredAt: r.Expired.iso(), Env: envShown(r.Env), Tags: r.tagList(), Cost: r.cost(),
		BaseCost: r.baseCost(), DurationMs: r.UsedMs, Metadata: listedMetadata(r.Metadata), Kind: "STANDARD",
		Region: r.regionShown(), flags: set,
	}
	if r.Status.final() && r.Finished == 0 {
		i.FinishedAt = i.UpdatedAt
	}
	if task, _ := e.task(r.Task); task.Scheduled {
		i.Kind = "SCHEDULED"
	}
	return i
}

// listedMetadata hides the members that the platform keeps for itself.
func listedMetadata(metadata json.RawMessage) json.RawMessage {
	if !bytes.Contains(metadata, []byte(`"$$streams`)) {
		return metadata
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(metadata, &members) != nil {
		return metadata
	}
	maps.DeleteFunc(members, func(name string, _ json.RawMessage) bool { return strings.HasPrefix(name, "$$streams") })
	return compactJSON(members)
}

func envShown(v env) json.RawMessage {
	var user json.RawMessage
	if v.Kind == dev {
		user = quoted(developer)
	}
	return object("id", v.ID, "name", v.Kind, "user", user)
}

// cursor is a place in the list, newest first.
type cursor struct {
	Created instant `json:"c"`
	Row     string  `json:"r"`
}

func cursorOf(r *run) cursor { return cursor{r.Created, r.internal()} }

func (c cursor) text() string { return base64.RawURLEncoding.EncodeToString(compactJSON(c)) }

// in finds the place among runs, oldest first: behind all that are older.
func (c cursor) in(runs []*run) (at int, found bool) {
	return slices.BinarySearchFunc(runs, c, func(r *run, c cursor) int {
		return cmp.Or(cmp.Compare(r.Created, c.Created), cmp.Compare(r.internal(), c.Row))
	})
}

func (e *Emulator) list(c *call) *reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	q, issues := e.readQuery(c.r.URL.Query())
	if len(issues) > 0 {
		return issueList("Query Error", "details", issues)
	}
	if refused := c.denied("read", q.things()...); refused != nil {
		return refused
	}
	q.to = min(q.to, e.clock.now()-lagOf(c.r))
	rows, more := e.page(c.env.ID, q)
	items := make([]runItem, len(rows))
	for n, r := range rows {
		items[n] = e.item(r, c.version())
	}
	return success(object("data", items, "pagination", q.pagination(rows, more)))
}

// page walks from the cursor until the page is full, and tells whether the list
// goes on in the direction of reading. What no shelf is kept for is looked at run by
// run.
func (e *Emulator) page(envID string, q *query) (rows []*run, more bool) {
	if q.nothing {
		return nil, false
	}
	w := q.walk(e.pick(envID, q))
	for r := w.next(); r != nil; r = w.next() {
		if !q.takes(r) {
			continue
		}
		if more = len(rows) == q.size; more {
			break
		}
		rows = append(rows, r)
	}
	if w.upward {
		slices.Reverse(rows)
	}
	return rows, more
}

// pick chooses the shelves, each oldest first, that have all that the query can
// take and the fewest others.
func (e *Emulator) pick(envID string, q *query) [][]*run {
	best, fewest := [][]*run{e.peek(envID, everyRun, "")}, len(e.peek(envID, everyRun, ""))
	narrow := func(kind string, values []string) {
		var shelves [][]*run
		total := 0
		for _, value := range values {
			runs := e.peek(envID, kind, value)
			shelves, total = append(shelves, runs), total+len(runs)
		}
		if len(values) > 0 && total < fewest {
			best, fewest = shelves, total
		}
	}
	narrow(byTag, q.tags)
	narrow(byTask, q.tasks)
	narrow(bySchedule, q.schedule)
	return best
}

// walk leaves out of the shelves what is beyond the times and the cursor.
func (q *query) walk(shelves [][]*run) *walk {
	w := &walk{upward: q.before != nil}
	for _, runs := range shelves {
		runs = span(runs, q.from, q.to)
		switch {
		case q.before != nil:
			at, found := q.before.in(runs)
			if found {
				at++
			}
			runs = runs[at:]
		case q.after != nil:
			at, _ := q.after.in(runs)
			runs = runs[:at]
		}
		w.left = append(w.left, runs)
	}
	return w
}

// pagination names the neighbouring pages; previous only when a cursor was sent.
func (q *query) pagination(rows []*run, more bool) json.RawMessage {
	var next, previous json.RawMessage
	switch {
	case len(rows) == 0 && q.before != nil:
		next = quoted(q.before.text())
	case len(rows) == 0 && q.after != nil:
		previous = quoted(q.after.text())
	case len(rows) == 0:
	case q.before != nil:
		next = quoted(cursorOf(rows[len(rows)-1]).text())
		if more {
			previous = quoted(cursorOf(rows[0]).text())
		}
	default:
		if more {
			next = quoted(cursorOf(rows[len(rows)-1]).text())
		}
		if q.after != nil {
			previous = quoted(cursorOf(rows[0]).text())
		}
	}
	return object("next", next, "previous", previous)
}
