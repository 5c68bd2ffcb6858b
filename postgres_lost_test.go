package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// fragile is a way to PostgreSQL that breaks on command. Unlike the server itself it
// does so at the very byte that a test asks for.
type fragile struct {
	t      *testing.T
	listen net.Listener
	to     string // the server's socket

	mu     sync.Mutex
	state  wayState
	marker string // marks the transactions of which a commit is to be lost, "" for none
	pass   int    // how many of them go well before
	conns  map[net.Conn]bool
	open   chan struct{} // closed when what was held flows again
}

type wayState int

const (
	wayOpen   wayState = iota
	wayCut             // connections break, and none is made
	wayFrozen          // nothing passes, and nobody is told
)

func newFragile(t *testing.T) *fragile {
	t.Helper()
	c, err := pgx.ParseConfig(throwAwayCluster().url(t))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.Host, "/") {
		t.Skip("TEST_DATABASE_URL names no socket of this machine")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fragile{t: t, listen: l, to: fmt.Sprintf("%s/.s.PGSQL.%d", c.Host, c.Port), conns: map[net.Conn]bool{}, open: make(chan struct{})}
	var all sync.WaitGroup
	all.Go(func() { f.accept(&all) })
	t.Cleanup(func() {
		_ = l.Close()
		f.turn(wayCut)
		all.Wait()
	})
	return f
}

// address is url by this way.
func (f *fragile) address(direct string) string {
	u, err := url.Parse(direct)
	if err != nil {
		f.t.Fatal(err)
	}
	q := u.Query()
	q.Set("host", "127.0.0.1")
	q.Set("port", fmt.Sprint(f.listen.Addr().(*net.TCPAddr).Port))
	q.Set("sslmode", "disable")
	u.RawQuery = q.Encode()
	return u.String()
}

// turn changes the state of the way; what was frozen goes on.
func (f *fragile) turn(to wayState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = to
	if to == wayCut {
		for c := range f.conns {
			_ = c.Close()
		}
		clear(f.conns)
	}
	close(f.open)
	f.open = make(chan struct{})
}

// loseCommit lets the answer to a commit get lost: that of a transaction in which the
// marker is sent, after so many that go well.
func (f *fragile) loseCommit(marker string, pass int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.marker, f.pass = marker, pass
}

// loses tells whether this is the commit whose answer gets lost.
func (f *fragile) loses() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.marker == "" {
		return false
	}
	f.pass--
	if f.pass < 0 {
		f.marker = ""
	}
	return f.pass < 0
}

func (f *fragile) marked(text []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.marker != "" && bytes.Contains(text, []byte(f.marker))
}

func (f *fragile) accept(all *sync.WaitGroup) {
	for {
		near, err := f.listen.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		far, err := net.Dial("unix", f.to)
		if err != nil || !f.adopt(near, far) {
			_ = near.Close()
			if far != nil {
				_ = far.Close()
			}
			continue
		}
		c := &crossing{fragile: f, near: near, far: far}
		all.Go(c.forth)
		all.Go(c.back)
	}
}

func (f *fragile) adopt(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == wayCut {
		return false
	}
	for _, c := range conns {
		f.conns[c] = true
	}
	return true
}

// crossing is one connection by this way.
type crossing struct {
	*fragile
	near, far net.Conn
	deaf      atomic.Bool // what the server says next is lost, and then all
}

// forth takes bytes to the server until either side ends.
func (c *crossing) forth() {
	marked := false
	c.carry(c.far, c.near, func(text []byte) bool {
		marked = marked || c.marked(text)
		if commits := bytes.Contains(text, []byte("commit")); commits {
			c.deaf.Store(marked && c.loses())
			marked = false
		}
		return true
	})
}

// back takes the answers.
func (c *crossing) back() { c.carry(c.near, c.far, func([]byte) bool { return !c.deaf.Load() }) }

func (c *crossing) carry(to, from net.Conn, passes func([]byte) bool) {
	defer to.Close()
	defer from.Close()
	for buffer := make([]byte, 64<<10); ; {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		c.waitUntilOpen()
		if !passes(buffer[:n]) {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (f *fragile) waitUntilOpen() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.state == wayFrozen {
		open := f.open
		f.mu.Unlock()
		<-open
		f.mu.Lock()
	}
}

// lostWorld is a whole sidejob on the far side of a fragile way.
func lostWorld(t *testing.T) (*world, *fragile) {
	t.Helper()
	way := newFragile(t)
	direct, _ := throwAwayCluster().freshDatabase(t)
	w := newWorld(t, withTasks(sceneTasks()), withConfig(func(c *config) {
		c.database = way.address(direct)
		c.pool = pool{conns: 4, timeout: 1500 * time.Millisecond}
	}))
	return w, way
}

// lostCalls is one of every kind that the API has.
func lostCalls(id int64) [][2]string {
	job := fmt.Sprintf("/api/jobs/%d", id)
	return [][2]string{
		{"GET", job}, {"GET", job + "/events"}, {"GET", "/api/jobs"}, {"GET", "/api/jobs?order=due&status=PENDING"}, {"GET", "/api/jobs/count"},
		{"GET", "/api/stats"}, {"GET", "/metrics"}, {"POST", "/api/jobs"}, {"POST", "/api/jobs/batch"}, {"POST", job + "/cancel"},
		{"POST", job + "/retry"}, {"POST", job + "/start"}, {"POST", job + "/complete"}, {"POST", job + "/pause"}, {"DELETE", job + "/schedule"},
		{"POST", "/api/worker/claim"}, {"POST", "/api/jobs/cleanup"},
	}
}

func lostBody(method, path string) any {
	switch {
	case method != "POST":
		return nil
	case path == "/api/jobs":
		return `{"type":"t"}`
	case path == "/api/jobs/batch":
		return `{"jobs":[{"type":"t"}]}`
	case path == "/api/worker/claim", strings.HasSuffix(path, "/start"):
		return `{"worker":"w"}`
	}
	return `{}`
}

// wantUnavailable asks everything and wants one answer: not now, try again.
func wantUnavailable(t *testing.T, w *world, id int64, within time.Duration) {
	t.Helper()
	var all sync.WaitGroup
	for _, c := range lostCalls(id) {
		all.Go(func() {
			begun := time.Now()
			r := callHandler(t, w.srv.private, c[0], c[1], lostBody(c[0], c[1]))
			var p problem
			err := json.Unmarshal(r.body, &p)
			if r.status != http.StatusServiceUnavailable || err != nil || p.Code != "database_unavailable" || r.header.Get("Retry-After") == "" {
				t.Errorf("%s %s: got %d %s, Retry-After %q; want 503 database_unavailable, and when to try again", c[0], c[1], r.status, r.body, r.header.Get("Retry-After"))
			}
			if took := time.Since(begun); took > within {
				t.Errorf("%s %s was answered after %s, want within %s", c[0], c[1], took, within)
			}
		})
	}
	all.Wait()
	if r := w.call("GET", "/readyz", nil); r.status != http.StatusServiceUnavailable {
		t.Errorf("/readyz: got %d %s, want 503", r.status, r.body)
	}
	if r := w.call("GET", "/livez", nil); r.status != http.StatusOK {
		t.Errorf("/livez: got %d, want 200", r.status)
	}
}

// insist asks until the database is back.
func insist(t *testing.T, w *world, method, path string, body any, header ...string) answer {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		r := w.call(method, path, body, header...)
		if r.status != http.StatusServiceUnavailable {
			return r
		}
		if time.Now().After(end) {
			t.Fatalf("%s %s: still %d %s", method, path, r.status, r.body)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// While the way to PostgreSQL is broken each call says so and when to try again, and
// afterwards the same server goes on.
func TestALostDatabaseIsSaidAndGotOver(t *testing.T) {
	for _, c := range []struct {
		name   string
		state  wayState
		within time.Duration // of a call
	}{
		{"connections break", wayCut, 5 * time.Second},
		{"nothing passes, and nobody is told", wayFrozen, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, way := lostWorld(t)
			before := w.schedule(`{"type":"kept"}`)
			way.turn(c.state)
			wantUnavailable(t, w, before.ID, c.within)
			way.turn(wayOpen)
			if r := insist(t, w, "GET", fmt.Sprintf("/api/jobs/%d", before.ID), nil); r.status != http.StatusOK {
				t.Errorf("afterwards: got %d %s, want the job", r.status, r.body)
			}
			r := insist(t, w, "POST", "/api/jobs?waitMs=0", `{"type":"ok","executor":"trigger","triggerTaskId":"ok"}`)
			if j := w.wait(w.view(r).ID); j.Status != "COMPLETED" {
				t.Errorf("a job of Trigger.dev afterwards: got %s, want COMPLETED", j.Status)
			}
		})
	}
}

// The answer to a commit is lost: the caller learns that it may have been done, and
// the same key gives the one job that was made.
func TestACommitWithoutAnAnswerIsDoneOnce(t *testing.T) {
	w, way := lostWorld(t)
	for n, c := range []struct {
		lost string
		want int // the first answer
	}{
		{"of the key", http.StatusServiceUnavailable},
		{"of the job", http.StatusServiceUnavailable},
		{"of the reply", http.StatusCreated},
	} {
		key, tag := fmt.Sprintf("order-%d", n), fmt.Sprintf("tag-%d", n)
		ask := func() answer {
			return w.call("POST", "/api/jobs?waitMs=0", fmt.Sprintf(`{"type":"t","tag":%q}`, tag), "Idempotency-Key", key)
		}
		way.loseCommit(key, n)
		first, second, third := ask(), ask(), ask()
		if first.status != c.want {
			t.Errorf("the commit %s is lost: got %d %s, want %d", c.lost, first.status, first.body, c.want)
		}
		if first.status == http.StatusServiceUnavailable {
			contains(t, string(first.body), "database_unavailable", "may have been done")
		}
		if second.status != http.StatusCreated || third.status != http.StatusCreated || third.header.Get("Idempotency-Replayed") == "" {
			t.Errorf("the commit %s was lost; the same again: got %d %s and %d %s, want 201 and a replay", c.lost, second.status, second.body, third.status, third.body)
		}
		var count struct{ Count int }
		w.call("GET", "/api/jobs/count?tag="+tag, nil).into(t, &count)
		if count.Count != 1 {
			t.Errorf("the commit %s was lost: %d jobs were made under one key, want 1", c.lost, count.Count)
		}
	}
}
