package emulator

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The realtime feed of runs. A client reads a snapshot at offset -1 and gets a
// handle and an offset. With those it asks again for what has changed since, at
// once or, live, when there is something. A handle is good while it is in use.
const (
	realtimePath   = "/realtime/"
	snapshotAtMost = 1000 // runs, the youngest
	feedWindow     = 24 * time.Hour
	feedBucket     = instant(time.Minute / time.Millisecond)
	feedLife       = time.Hour // of a handle that nobody uses
	holdFor        = 20 * time.Second
	holdJitter     = 0.15
)

// feed is what a handle stands for.
type feed struct {
	handle string
	env    string
	run    string   // id, of a feed of one run
	tags   []string // all of which a run must have
	floor  instant  // runs created later, fixed for the handle's life
	oldest *run     // of a snapshot that left older ones out
	used   time.Time
}

// like tells whether both are the same but for handle and window.
func (f *feed) like(other *feed) bool {
	return f.env == other.env && f.run == other.run && slices.Equal(f.tags, other.tags)
}

func (f *feed) takes(r *run) bool {
	if f.run != "" {
		return r.ID == f.run
	}
	return r.Env.ID == f.env && r.Created > f.floor && !slices.ContainsFunc(f.tags, func(t string) bool { return !r.hasTag(t) })
}

// position is how far a client has read: the updatedAt of the last run that it got
// and the number of the last change that it knows of.
type position struct {
	updated instant
	seq     int64
}

func (p position) text() string { return fmt.Sprintf("%d_%d", p.updated, p.seq) }

func readPosition(s string) (p position, ok bool) {
	updated, seq, cut := strings.Cut(s, "_")
	ms, errMs := strconv.ParseInt(updated, 10, 64)
	n, errSeq := strconv.ParseInt(seq, 10, 64)
	return position{instant(ms), n}, cut && errMs == nil && errSeq == nil && ms >= 0 && n >= 0
}

// followRuns is the feed of the environment's runs, or of those with certain tags.
func (e *Emulator) followRuns(c *call) *reply {
	q := c.r.URL.Query()
	tags := commaList(q.Get("tags"))
	if slices.ContainsFunc(tags, badTag) {
		return issueList("Query Error", "details", []issue{{Code: "custom", Path: []any{"tags"},
			Message: "Tags must not be empty or contain control characters, double quotes or backslashes"}})
	}
	if refused := c.denied("read", (&query{tags: tags}).things()...); refused != nil {
		return refused
	}
	slices.Sort(tags)
	window, ok := parseDuration(q.Get("createdAt"))
	if !ok || window > feedWindow {
		window = feedWindow
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	floor := e.clock.now() - instant(window.Milliseconds())
	return e.follow(c, &feed{env: c.env.ID, tags: tags, floor: floor - floor%feedBucket})
}

func badTag(tag string) bool {
	return tag == "" || strings.ContainsFunc(tag, func(c rune) bool { return c < 0x20 || c == 0x7f || c == '"' || c == '\\' })
}

// followRun is the feed of one run.
func (e *Emulator) followRun(c *call) *reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.find(c.env.ID, c.r.PathValue("run"))
	if r == nil {
		return notFoundFeed()
	}
	if refused := c.denied("read", r.things()...); refused != nil {
		return refused
	}
	return e.follow(c, &feed{env: c.env.ID, run: r.ID, floor: beforeAllTime})
}

// follow answers a request for a feed. It gives the lock away while it waits.
func (e *Emulator) follow(c *call, asked *feed) *reply {
	q := c.r.URL.Query()
	offset, handle := cmp.Or(q.Get("offset"), "-1"), cmp.Or(q.Get("handle"), q.Get("shape_id"))
	if offset == "-1" || handle == "" {
		f := e.feedOf(handle, asked)
		if f == nil {
			f = e.mint(asked)
		}
		return e.snapshot(c, f)
	}
	at, ok := readPosition(offset)
	if !ok {
		return issueList("Query Error", "details", []issue{{Code: "custom", Path: []any{"offset"}, Message: "Invalid offset"}})
	}
	f := e.feedOf(handle, asked)
	switch {
	case f == nil || at.seq > e.seq:
		return c.feedHeaders(mustRefetch(), e.mint(asked).handle, "")
	case q.Get("live") == "true":
		return e.hold(c, f, at)
	}
	p := c.feedReply(f, e.news(f, at.seq), position{at.updated, e.seq})
	return p.set("electric-schema", schemaOf(c.columns()))
}

// feedOf finds the feed of a handle, if it is still one and of what was asked for.
func (e *Emulator) feedOf(handle string, asked *feed) *feed {
	f, now := e.feeds[handle], time.Now()
	if f == nil || !f.like(asked) || now.Sub(f.used) > feedLife {
		return nil
	}
	f.used = now
	return f
}

// mint makes a handle. That of a single run is always the same.
func (e *Emulator) mint(f *feed) *feed {
	now := time.Now()
	if now.Sub(e.swept) > time.Minute {
		e.swept = now
		for handle, old := range e.feeds {
			if now.Sub(old.used) > feedLife {
				delete(e.feeds, handle)
			}
		}
	}
	f.used = now
	f.handle = fmt.Sprintf("runs_%d_%d_%s", f.floor, e.seq, e.newID("", 8))
	if f.run != "" {
		f.handle = "run-" + strings.TrimPrefix(f.run, "run_")
	}
	e.feeds[f.handle] = f
	return f
}

// snapshot gives the youngest runs of a feed as they are.
func (e *Emulator) snapshot(c *call, f *feed) *reply {
	var lines []message
	if f.run != "" {
		lines = []message{{run: *e.runs[f.run], fresh: true}}
	} else {
		w := walk{left: [][]*run{span(e.shelfFor(f).runs, f.floor+1, e.clock.now())}}
		f.oldest = nil
		for r := w.next(); r != nil; r = w.next() {
			if !f.takes(r) {
				continue
			}
			if len(lines) == snapshotAtMost {
				break
			}
			lines, f.oldest = append(lines, message{run: *r, fresh: true}), r
		}
		if len(lines) < snapshotAtMost {
			f.oldest = nil
		}
	}
	return c.feedReply(f, lines, position{0, e.seq}).set("electric-schema", schemaOf(c.columns()))
}

// shelfFor is the shortest shelf on which every run of the feed stands.
func (e *Emulator) shelfFor(f *feed) *shelf {
	best := e.shelfOf(shelfName(f.env, everyRun, ""))
	for _, tag := range f.tags {
		if s := e.shelfOf(shelfName(f.env, byTag, tag)); len(s.runs) <= len(best.runs) {
			best = s
		}
	}
	return best
}

// news are the runs of a feed that have changed after that number.
func (e *Emulator) news(f *feed, seq int64) []message {
	var lines []message
	e.since(seq, func(r *run) {
		if r.moved > seq && f.takes(r) {
			unseen := f.oldest != nil && compareAge(r, f.oldest) < 0
			lines = append(lines, message{run: *r, fresh: r.joined > seq || unseen})
		}
	})
	return lines
}

// hold waits about 20 s for something new. What has changed in between two waits is
// looked at once.
func (e *Emulator) hold(c *call, f *feed, at position) *reply {
	if limit := e.cfg.RealtimeLimit; limit > 0 && e.polls[f.env] >= limit {
		return tooManyPolls()
	}
	e.polls[f.env]++
	w, end := e.watch(f)
	defer func() {
		e.polls[f.env]--
		end()
		f.used = time.Now()
	}()
	timer := time.NewTimer(time.Duration(float64(holdFor) * (1 - holdJitter + 2*holdJitter*rand.Float64())))
	defer timer.Stop()
	for waiting := true; ; {
		if lines := e.news(f, at.seq); len(lines) > 0 || !waiting {
			return c.feedReply(f, lines, position{at.updated, e.seq}).set("electric-cursor", strconv.FormatInt(e.seq, 10))
		}
		at.seq = e.seq
		e.mu.Unlock()
		select {
		case <-w.bell:
		case <-timer.C:
			waiting = false
		case <-c.r.Context().Done():
			waiting = false
		case <-e.ctx.Done():
			waiting = false
		}
		e.mu.Lock()
	}
}

// watch registers for changes of the feed's runs until end is called.
func (e *Emulator) watch(f *feed) (w *watcher, end func()) {
	w = newWatcher(f.takes)
	if f.run != "" {
		r := e.runs[f.run]
		if r.waiting == nil {
			r.waiting = map[*watcher]bool{}
		}
		r.waiting[w] = true
		return w, func() { delete(r.waiting, w) }
	}
	s := e.shelfFor(f)
	if s.waiting == nil {
		s.waiting = map[*watcher]bool{}
	}
	s.waiting[w] = true
	return w, func() { delete(s.waiting, w) }
}

// columns are those that the request wants, or that its token leaves it.
func (c *call) columns() []column {
	if c.token != nil && c.token.Realtime.SkipColumns != nil {
		return columnsWithout(c.token.Realtime.SkipColumns)
	}
	return columnsWithout(commaList(c.r.URL.Query().Get("skipColumns")))
}

// feedReply is written without the lock: the lines are copies.
func (c *call) feedReply(f *feed, lines []message, p position) *reply {
	for _, m := range lines {
		p.updated = max(p.updated, m.run.Updated)
	}
	cols, version := c.columns(), c.version()
	r := &reply{status: http.StatusOK, kind: "application/json", write: func(w io.Writer) { writeBody(w, lines, cols, version) }}
	return c.feedHeaders(r, f.handle, p.text())
}

// feedHeaders names handle and offset as the client's generation knows them.
func (c *call) feedHeaders(p *reply, handle, offset string) *reply {
	handleName, offsetName := "electric-handle", "electric-offset"
	if c.r.Header.Get("x-trigger-electric-version") == "" {
		handleName, offsetName = "electric-shape-id", "electric-chunk-last-offset"
	}
	p.set("cache-control", "no-store").set(handleName, handle)
	if offset != "" {
		p.set(offsetName, offset)
	}
	return p
}

// mustRefetch tells a client to start again at offset -1.
func mustRefetch() *reply {
	return &reply{status: http.StatusConflict, kind: "application/json", raw: []byte(`[{"headers":{"control":"must-refetch"}}]`)}
}

func notFoundFeed() *reply {
	return failure(http.StatusNotFound, "Not found").set("x-should-retry", "false")
}

func tooManyPolls() *reply {
	return failure(http.StatusTooManyRequests, "Too many concurrent requests")
}
