// Package emulator stands in for Trigger.dev's HTTP API: the same routes, statuses,
// bodies and headers, the same life of a run, with a worker of its own and no
// account. It is an http.Handler, keeps its state in memory or in one file, and
// runs by its own clock, which a control moves forward.
//
// It is written from what the real server does and shares no type with the client
// that talks to it, so that a mistake in one is not repeated by the other.
//
// What it leaves out: batches, bulk actions, child runs, packets for large payloads,
// declarative schedules, alert webhooks, queue limits and the gathering of debounced
// triggers. It gives no CORS permissions: a web page must not drive the emulator of
// whoever reads it. Where the real server is late it is not, unless a fault says so.
package emulator

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Config says what an Emulator is to be. The zero value is a working one: built-in
// tasks, state in memory, no webhook, schedules that never fire.
type Config struct {
	// Tasks are added to the built-in ones; the same name replaces.
	Tasks map[string]Task
	// Strict makes a run of an unknown task wait as QUEUED and turn PENDING_VERSION,
	// as on the real server. Otherwise it completes after 200 ms with its payload as
	// output, and the log says so once per task.
	Strict bool
	// StatePath is the journal file. Empty: memory only. At most one process may use
	// a file at a time.
	StatePath string
	// WebhookURL gets the events of the task hooks, signed. Empty: none are sent.
	WebhookURL string
	// WebhookSecret may be a comma separated list; the first one signs.
	WebhookSecret string
	// Log gets Info and worse; nil is silence.
	Log *slog.Logger
	// NextRun tells when a cron expression is next due, strictly after the given
	// time. An error is why the expression is not valid. Nil: schedules never fire
	// and expressions are not checked.
	NextRun func(cron, timezone string, after time.Time) (time.Time, error)
	// Client posts webhooks and calls the tasks that have a url. Nil: one with a
	// timeout of 5 s.
	Client *http.Client
	// RateLimit is how many requests an environment may make at once (0: 750,
	// negative: no limit), RateRefill how many it gets back every 10 s (0: 250).
	RateLimit, RateRefill int
	// RealtimeLimit is how many live polls of the realtime feed an environment may
	// have at once; 0: any number.
	RealtimeLimit int
}

// Emulator is the server. Its methods are safe from many goroutines at once.
type Emulator struct {
	cfg    Config
	log    *slog.Logger
	client *http.Client
	tasks  map[string]Task
	mux    *http.ServeMux
	seal   []byte // signs the addresses of large outputs, new with each process
	born   time.Time

	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	owned sync.WaitGroup // every goroutine of the emulator
	posts chan struct{}  // a place for each webhook post under way

	// mu guards everything below. It is never held over the network or a command.
	mu       sync.Mutex
	closed   bool
	clock    clock
	journal  *journal
	runs     map[string]*run
	envs     map[string]bool // ids of those that have runs
	shelves  map[string]*shelf
	seq      int64           // number of the last change
	history  []change        // of runs, see touch
	byKey    map[string]*run // the run that holds an idempotency key, by keySlot
	byCall   map[string]*run // by request-level key, see callSlot
	sched    map[string]*schedule
	working  map[string]context.CancelFunc // commands and url calls under way, by run
	events   map[string][]event            // not yet posted, by run
	buckets  map[string]*bucket            // rate limits, by key
	doors    map[string]door               // environments whose keys have been seen, by id
	feeds    map[string]*feed              // of the realtime feed, by handle
	swept    time.Time                     // when old feeds were last thrown out
	polls    map[string]int                // live ones under way, by environment
	faults   []*fault
	minted   int             // ids made so far
	strayers map[string]bool // unknown tasks that the log has named
}

// New opens the state and starts the clock. Unfinished runs of an earlier life go
// on; ticks that schedules missed meanwhile are skipped. Close ends it.
func New(cfg Config) (*Emulator, error) {
	e := &Emulator{
		cfg: cfg, log: cfg.Log, client: cfg.Client, tasks: builtIn(), seal: make([]byte, 32), born: time.Now(),
		posts: make(chan struct{}, 32), clock: newClock(),
		runs: map[string]*run{}, envs: map[string]bool{}, shelves: map[string]*shelf{}, byKey: map[string]*run{}, byCall: map[string]*run{},
		sched: map[string]*schedule{}, working: map[string]context.CancelFunc{},
		doors: map[string]door{}, feeds: map[string]*feed{}, polls: map[string]int{},
		events: map[string][]event{}, buckets: map[string]*bucket{}, strayers: map[string]bool{},
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.client == nil {
		e.client = &http.Client{Timeout: postTimeout}
	}
	maps.Copy(e.tasks, cfg.Tasks)
	if _, err := rand.Read(e.seal); err != nil {
		return nil, fmt.Errorf("make a seal: %w", err)
	}
	e.mux = e.routeMux()
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.mu.Lock() // against commands and calls that load takes up again
	err := e.load()
	e.mu.Unlock()
	if err != nil {
		e.stop()
		return nil, err
	}
	e.owned.Go(e.keepTime)
	return e, nil
}

// Close stops clock, commands, calls and webhook posts, waits for them and closes
// the state. Requests that come later get 503. Runs stay as they are, to go on
// with the next New on the same file.
func (e *Emulator) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock()
	e.stop()
	e.owned.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	j := e.journal
	e.journal = nil
	return j.close()
}

// ServeHTTP answers a request as Trigger.dev would, controls and faults aside.
func (e *Emulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.ctx.Err() != nil {
		http.Error(w, "the emulator is closed", http.StatusServiceUnavailable)
		return
	}
	if path, cut := strings.CutSuffix(r.URL.EscapedPath(), "/"); cut && path != "" {
		w.Header().Set("Location", slashes.ReplaceAllString(path, "/")+queryOf(r))
		w.WriteHeader(http.StatusMovedPermanently)
		return
	}
	if isControl(r) && fromElsewhere(r) {
		failure(http.StatusForbidden, "the controls are not for web pages").send(w)
		return
	}
	if f := e.strike(r); f != nil {
		e.spoil(w, r, f)
		return
	}
	e.mux.ServeHTTP(w, r)
}

var slashes = regexp.MustCompile(`/+`)

func queryOf(r *http.Request) string {
	if r.URL.RawQuery == "" {
		return ""
	}
	return "?" + r.URL.RawQuery
}

// keepTime rings the clock's alarms until the emulator is closed.
func (e *Emulator) keepTime() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.clock.wake:
		case <-timer.C:
		}
		e.mu.Lock()
		if !e.closed {
			e.clock.ringDue()
		}
		next := e.clock.untilFirst()
		e.mu.Unlock()
		timer.Reset(next)
	}
}
