package emulator

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
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
		ID: r.ID, Status: word, TaskIdentifier: r.Task, IdempotencyKey: r.Key, Version: r.Version,
		CreatedAt: r.Created.iso(), UpdatedAt: r.Updated.iso(), StartedAt: r.Started.iso(),
		FinishedAt: r.Finished.iso(), DelayedUntil: r.delayedUntil(), IsTest: r.Test, TTL: r.TTL,
		ExpiredAt: r.Expired.iso(), Env: envShown(r.Env), Tags: r.tagList(), Cost: r.cost(),
		BaseCost: r.baseCost(), DurationMs: r.UsedMs, Metadata: r.Metadata, Kind: "STANDARD",
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

func envShown(v env) json.RawMessage { return object("id", v.ID, "name", v.Kind) }

// cursor is a place in the list, newest first.
type cursor struct {
	Created instant `json:"c"`
	Row     string  `json:"r"`
}

func cursorOf(r *run) cursor { return cursor{r.Created, r.internal()} }

func (c cursor) text() string { return base64.RawURLEncoding.EncodeToString(compactJSON(c)) }

// compare puts newer places first.
func (c cursor) compare(other cursor) int {
	return cmp.Or(cmp.Compare(other.Created, c.Created), cmp.Compare(other.Row, c.Row))
}

// query is a list request that has been read.
type query struct {
	size          int
	after, before *cursor
	statuses      []status
	tasks, tags   []string
	versions      []string
	regions       []string
	queues        []string
	machines      []string
	nothing       bool // asks for a batch, bulk action or error group: there are none
	schedule      string
	test          string
	from, to      instant
}

func (e *Emulator) list(c *call) *reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	q, issues := readQuery(c.r.URL.Query(), e.clock.now())
	if len(issues) > 0 {
		return issueList("Query Error", "details", issues)
	}
	var rows []*run
	for _, r := range e.runs {
		if r.Env.ID == c.env.ID && q.takes(r) {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b *run) int { return cursorOf(a).compare(cursorOf(b)) })
	rows, more := q.page(rows)
	items := make([]runItem, len(rows))
	for n, r := range rows {
		items[n] = e.item(r, c.version())
	}
	return success(object("data", items, "pagination", q.pagination(rows, more)))
}

// page cuts the asked page out of all rows, and tells whether the list goes on in
// the direction of reading.
func (q query) page(rows []*run) ([]*run, bool) {
	if q.before != nil {
		end, _ := slices.BinarySearchFunc(rows, *q.before, func(r *run, c cursor) int { return cursorOf(r).compare(c) })
		start := max(0, end-q.size)
		return rows[start:end], start > 0
	}
	if q.after != nil {
		start, found := slices.BinarySearchFunc(rows, *q.after, func(r *run, c cursor) int { return cursorOf(r).compare(c) })
		if found {
			start++
		}
		rows = rows[start:]
	}
	return rows[:min(q.size, len(rows))], len(rows) > q.size
}

// pagination names the neighbouring pages; previous only when a cursor was sent.
func (q query) pagination(rows []*run, more bool) json.RawMessage {
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

func (q query) takes(r *run) bool {
	among := func(words []string, word string) bool { return len(words) == 0 || slices.Contains(words, word) }
	queue := cmp.Or(r.Queue, "task/"+r.Task)
	return (len(q.statuses) == 0 || slices.Contains(q.statuses, r.Status)) &&
		among(q.tasks, r.Task) && among(q.versions, r.Version) && among(q.regions, r.regionShown()) &&
		!q.nothing && among(q.queues, queue) && among(q.machines, cmp.Or(r.Machine, "small-1x")) &&
		(len(q.tags) == 0 || slices.ContainsFunc(q.tags, r.hasTag)) &&
		(q.schedule == "" || q.schedule == r.Schedule) &&
		(q.test == "" || (q.test == "true") == r.Test) &&
		r.Created >= q.from && r.Created <= q.to
}

func readQuery(v url.Values, now instant) (query, []issue) {
	q := query{size: pageDefault, to: now, from: beforeAllTime, schedule: v.Get("filter[schedule]"),
		tasks: commaList(v.Get("filter[taskIdentifier]")), tags: commaList(v.Get("filter[tag]")),
		versions: commaList(v.Get("filter[version]")), regions: commaList(v.Get("filter[region]")),
		queues: commaList(v.Get("filter[queue]")), machines: commaList(v.Get("filter[machine]")),
		nothing: v.Get("filter[batch]")+v.Get("filter[bulkAction]")+v.Get("filter[error]") != ""}
	var issues []issue
	wrong := func(name, code, message string) {
		issues = append(issues, issue{Code: code, Message: message, Path: []any{name}})
	}
	if s := v.Get("page[size]"); s != "" {
		n, err := strconv.Atoi(s)
		switch {
		case err != nil:
			wrong("page[size]", "invalid_type", "Expected number, received nan")
		case n < 1:
			wrong("page[size]", "too_small", "Number must be greater than or equal to 1")
		case n > pageAtMost:
			wrong("page[size]", "too_big", "Number must be less than or equal to 100")
		}
		q.size = n
	}
	q.after, q.before = readCursor(v.Get("page[after]")), readCursor(v.Get("page[before]"))
	if bad := q.readStatuses(v.Get("filter[status]")); bad != "" {
		wrong("filter[status]", "custom", "Invalid status values: "+bad)
	}
	if q.test = v.Get("filter[isTest]"); q.test != "" && q.test != "true" && q.test != "false" {
		wrong("filter[isTest]", "custom", "Invalid isTest value: "+q.test)
	}
	for _, machine := range q.machines {
		if !slices.Contains(machines(), machine) {
			wrong("filter[machine]", "custom", "Invalid machine values: "+machine)
		}
	}
	for _, name := range q.readTimes(v, now) {
		wrong(name, "invalid_date", "Invalid date")
	}
	return q, issues
}

func (q *query) readStatuses(list string) (bad string) {
	var unknown []string
	for _, word := range commaList(list) {
		found := namedStatuses(word)
		if found == nil {
			unknown = append(unknown, word)
		}
		q.statuses = append(q.statuses, found...)
	}
	return strings.Join(unknown, ", ")
}

// readTimes sets the bounds of createdAt: a period beats from and to, and without
// any of them the list looks back seven days. It names the parameters it cannot read.
func (q *query) readTimes(v url.Values, now instant) (bad []string) {
	const from, to, period = "filter[createdAt][from]", "filter[createdAt][to]", "filter[createdAt][period]"
	if p := v.Get(period); p != "" {
		if d, ok := parseDuration(p); ok {
			q.from = now - instant(d.Milliseconds())
		}
		return nil
	}
	if v.Get(from) == "" && v.Get(to) == "" {
		q.from = now - instant(lookBack.Milliseconds())
		return nil
	}
	if s := v.Get(from); s != "" {
		at, ok := readMoment(s)
		if !ok {
			bad = append(bad, from)
		}
		q.from = at
	}
	if s := v.Get(to); s != "" {
		at, ok := readMoment(s)
		if !ok {
			bad = append(bad, to)
		}
		q.to = min(at, now)
	}
	return bad
}

// readMoment reads epoch milliseconds or a date.
func readMoment(s string) (instant, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return instant(n), true
	}
	return parseDate(s)
}

// readCursor takes the list's own cursors; another text is no cursor.
func readCursor(s string) *cursor {
	raw, err := base64.RawURLEncoding.DecodeString(s)
	var c cursor
	if err != nil || s == "" || json.Unmarshal(raw, &c) != nil {
		return nil
	}
	return &c
}

func commaList(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// allRuns is the control that shows every run of every environment, newest first,
// values inline: for tests that count. The query may name idempotencyKey (as
// stored), tag and task.
func (e *Emulator) allRuns(c *call) *reply {
	q := c.r.URL.Query()
	key, tag, task := q.Get("idempotencyKey"), q.Get("tag"), q.Get("task")
	e.mu.Lock()
	defer e.mu.Unlock()
	var rows []*run
	for _, r := range e.runs {
		if (key == "" || r.Key == key) && (tag == "" || r.hasTag(tag)) && (task == "" || r.Task == task) {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b *run) int { return cursorOf(a).compare(cursorOf(b)) })
	shown := make([]wholeRun, len(rows))
	for n, r := range rows {
		shown[n] = wholeRun{runDetail: e.detail(r, apiVersion, ""), Env: envShown(r.Env), Raw: r.Status,
			Key: r.Key, KeyHeld: r.Key != "" && !r.KeyFree, Triggered: r.Asked, Allowed: r.attemptsAllowed(),
			ScheduleID: r.Schedule, PayloadType: r.PayloadType}
	}
	return success(object("now", e.clock.now().iso(), "runs", shown))
}

// wholeRun is all there is to say of a run.
type wholeRun struct {
	runDetail
	Env         json.RawMessage `json:"env"`
	Raw         status          `json:"rawStatus"` // the database's word
	Key         string          `json:"storedIdempotencyKey,omitempty"`
	KeyHeld     bool            `json:"holdsIdempotencyKey"`
	Triggered   int             `json:"triggered"` // requests answered with this run
	Allowed     int             `json:"maxAttempts"`
	ScheduleID  string          `json:"scheduleId,omitempty"`
	PayloadType string          `json:"payloadType,omitempty"`
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
