package emulator

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

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
	nothing       bool     // asks for a batch, bulk action or error group: there are none
	schedule      []string // one or none
	test          string
	from, to      instant
}

// things are what a public token must name to read the list.
func (q *query) things() []string {
	list := []string{"runs:"}
	for _, tag := range q.tags {
		list = append(list, "tags:"+tag)
	}
	for _, task := range q.tasks {
		list = append(list, "tasks:"+task)
	}
	return list
}

func (q *query) takes(r *run) bool {
	among := func(words []string, word string) bool { return len(words) == 0 || slices.Contains(words, word) }
	return (len(q.statuses) == 0 || slices.Contains(q.statuses, r.Status)) &&
		(q.test == "" || (q.test == "true") == r.Test) &&
		among(q.tasks, r.Task) && among(q.versions, r.Version) && among(q.schedule, r.Schedule) &&
		(len(q.tags) == 0 || slices.ContainsFunc(q.tags, r.hasTag)) &&
		(len(q.regions) == 0 || slices.Contains(q.regions, r.regionShown())) &&
		(len(q.machines) == 0 || slices.Contains(q.machines, cmp.Or(r.Machine, "small-1x"))) &&
		(len(q.queues) == 0 || slices.Contains(q.queues, cmp.Or(r.Queue, "task/"+r.Task)))
}

func (e *Emulator) readQuery(v url.Values) (*query, []issue) {
	now := e.clock.now()
	q := &query{size: pageDefault, to: now, from: beforeAllTime, schedule: oneOrNone(v.Get("filter[schedule]")),
		tasks: commaList(v.Get("filter[taskIdentifier]")), tags: commaList(v.Get("filter[tag]")),
		versions: commaList(v.Get("filter[version]")), regions: commaList(v.Get("filter[region]")),
		queues: commaList(v.Get("filter[queue]")), machines: commaList(v.Get("filter[machine]")),
		nothing: v.Get("filter[batch]")+v.Get("filter[bulkAction]")+v.Get("filter[error]") != ""}
	var issues []issue
	wrong := func(name, code, message string) {
		issues = append(issues, issue{Code: code, Message: message, Path: []any{name}})
	}
	if s := v.Get("page[size]"); s != "" {
		n, err := strconv.ParseFloat(s, 64)
		switch {
		case err != nil || math.IsNaN(n):
			wrong("page[size]", "invalid_type", "Expected number, received nan")
		case n != math.Trunc(n):
			wrong("page[size]", "invalid_type", "Expected integer, received float")
		case n < 1:
			wrong("page[size]", "too_small", "Number must be greater than or equal to 1")
		case n > pageAtMost:
			wrong("page[size]", "too_big", "Number must be less than or equal to 100")
		}
		q.size = int(n)
	}
	q.after, q.before = e.readCursor(v.Get("page[after]")), e.readCursor(v.Get("page[before]"))
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

// readCursor takes the list's own cursors and, as they once were, bare ids; another
// text is no cursor.
func (e *Emulator) readCursor(s string) *cursor {
	if r := e.runs["run_"+strings.TrimPrefix(s, "run_")]; r != nil {
		c := cursorOf(r)
		return &c
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	var c cursor
	if err != nil || s == "" || json.Unmarshal(raw, &c) != nil {
		return nil
	}
	return &c
}

func oneOrNone(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func commaList(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
