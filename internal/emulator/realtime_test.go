package emulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// line is one message of a feed.
type line struct {
	Key     string             `json:"key"`
	Value   map[string]*string `json:"value"`
	Headers map[string]string  `json:"headers"`
}

// feedClient follows a feed as a plain HTTP client would.
type feedClient struct {
	api    *api
	path   string // with the query that stays, ending in & or ?
	handle string
	offset string
	cursor string
}

func (a *api) feed(path string) *feedClient {
	a = a.with("x-trigger-electric-version", "1.0.0-beta.1")
	if !strings.Contains(path, "?") {
		path += "?"
	}
	return &feedClient{api: a, path: "/realtime/v1/" + path, offset: "-1"}
}

// ask sends the next request and keeps what the answer says.
func (f *feedClient) ask(live bool) answer {
	f.api.t.Helper()
	got := f.api.get(f.query(live))
	for name, into := range map[string]*string{"electric-handle": &f.handle, "electric-offset": &f.offset, "electric-cursor": &f.cursor} {
		if value := got.header.Get(name); value != "" {
			*into = value
		}
	}
	return got
}

func (f *feedClient) query(live bool) string {
	q := "&offset=" + f.offset
	if f.handle != "" {
		q += "&handle=" + f.handle
	}
	if live {
		q += "&live=true&cursor=" + f.cursor
	}
	return f.path + q
}

// lines reads the messages and checks that the control message ends them.
func (g answer) lines() []line {
	g.t.Helper()
	var all []line
	if err := json.Unmarshal([]byte(g.ok().raw), &all); err != nil {
		g.t.Fatalf("body %s: %v", g.raw, err)
	}
	last := len(all) - 1
	if last < 0 || all[last].Headers["control"] != "up-to-date" {
		g.t.Fatalf("no up-to-date at the end of %s", g.raw)
	}
	return all[:last]
}

// states lists the changes as "operation id STATUS".
func (g answer) states() []string {
	g.t.Helper()
	list := []string{}
	for _, l := range g.lines() {
		list = append(list, fmt.Sprintf("%s %s %s", l.Headers["operation"], *l.Value["friendlyId"], *l.Value["status"]))
	}
	return list
}

func wantStates(t *testing.T, when string, got answer, want ...string) {
	t.Helper()
	if have := got.states(); !slices.Equal(have, want) {
		t.Errorf("%s\ngot  %v\nwant %v", when, have, want)
	}
}

// later asks live in another goroutine and gives back what it got, and when.
func (f *feedClient) later(t *testing.T) func() (answer, time.Duration) {
	t.Helper()
	began := time.Now()
	type outcome struct {
		got  answer
		took time.Duration
	}
	done := make(chan outcome, 1)
	go func() {
		got := f.ask(true)
		done <- outcome{got, time.Since(began)}
	}()
	synctest.Wait()
	return func() (answer, time.Duration) {
		o := <-done
		return o.got, o.took
	}
}

func TestALivePollHoldsForTwentySecondsMoreOrLess(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		f := a.feed("runs")
		wantStates(t, "an empty snapshot", f.ask(false))
		shortest, longest := time.Hour, time.Duration(0)
		for range 50 {
			handle, offset := f.handle, f.offset
			got, took := f.later(t)()
			got.is(200, `[{"headers":{"control":"up-to-date"}}]`)
			if f.handle != handle || f.offset != offset || f.cursor == "" {
				t.Errorf("handle %s, offset %s, cursor %q; want %s, %s and some", f.handle, f.offset, f.cursor, handle, offset)
			}
			shortest, longest = min(shortest, took), max(longest, took)
		}
		if shortest < 17*time.Second || longest > 23*time.Second || longest-shortest < time.Second {
			t.Errorf("held for %s to %s, want 17s to 23s and not always the same", shortest, longest)
		}
	})
}

func TestALivePollAnswersAtOnceWhenARunOfItsOwnChanges(t *testing.T) {
	cfg := Config{Tasks: map[string]Task{"long": {DurationMs: 5000}, "stuck": {Status: "QUEUED"}}}
	inBubble(t, cfg, func(t *testing.T, e *Emulator, a *api) {
		mine, joins := a.trigger("long", `{"options":{"tags":["a","b"]}}`), a.trigger("stuck", `{"options":{"tags":["b"]}}`)
		after(time.Second)
		f := a.feed("runs?tags=b,a")
		wantStates(t, "snapshot", f.ask(false), "insert "+mine+" EXECUTING")
		wait := f.later(t)
		a.trigger("stuck", `{"options":{"tags":["a"]}}`)
		a.trigger("stuck", `{"options":{"tags":["b"]}}`)
		clientOf(t, e, "tr_prod_other").trigger("stuck", `{"options":{"tags":["a","b"]}}`)
		got, took := wait()
		wantStates(t, "the end of the run", got, "update "+mine+" COMPLETED_SUCCESSFULLY")
		if took != 4040*time.Millisecond {
			t.Errorf("answered after %s, want when the run ends", took)
		}
		wait = f.later(t)
		late := a.trigger("stuck", `{"options":{"tags":["a","b","c"]}}`)
		got, took = wait()
		wantStates(t, "a new run", got, "insert "+late+" PENDING")
		if took != 0 {
			t.Errorf("a new run shows after %s", took)
		}
		wait = f.later(t)
		a.do("POST", "/api/v1/runs/"+joins+"/tags", `{"tags":["a"]}`).ok()
		got, _ = wait()
		wantStates(t, "a run that gets the tag", got, "insert "+joins+" PENDING")
		a.do("POST", "/api/v2/runs/"+joins+"/cancel", "").ok()
		wantStates(t, "its cancel", f.ask(true), "update "+joins+" CANCELED")
		if line := f.ask(false).lines(); len(line) != 0 {
			t.Errorf("caught up, and yet %v", line)
		}
	})
}

func TestAnOffsetGivesWhatChangedAfterItHoweverOftenItIsSent(t *testing.T) {
	cfg := Config{Tasks: map[string]Task{"stuck": {Status: "QUEUED"}}}
	inBubble(t, cfg, func(t *testing.T, e *Emulator, a *api) {
		f := a.feed("runs")
		f.ask(false)
		first, second := a.trigger("stuck", `{}`), a.trigger("stuck", `{}`)
		a.do("POST", "/api/v2/runs/"+first+"/cancel", "").ok()
		want := []string{"insert " + second + " PENDING", "insert " + first + " CANCELED"}
		for range 3 { // as if the answer were lost
			wantStates(t, "live", f.api.get(f.query(true)), want...)
			wantStates(t, "at once", f.api.get(f.query(false)), want...)
		}
		f.ask(true)
		a.trigger("stuck", `{"options":{"idempotencyKey":"k"}}`)
		f.ask(true)
		a.trigger("stuck", `{"options":{"idempotencyKey":"k"}}`) // asked for again, which changes no column
		f.ask(true).is(200, `[{"headers":{"control":"up-to-date"}}]`)
	})
}

func TestAHandleIsGoodWhileItIsUsedAndForWhatItWasMadeFor(t *testing.T) {
	const refetch = `[{"headers":{"control":"must-refetch"}}]`
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		f := a.feed("runs?tags=a")
		f.ask(false)
		made := *f
		for range 3 {
			after(50 * time.Minute)
			f.ask(false).ok()
		}
		for _, tt := range []struct {
			name  string
			spoil func(f *feedClient)
		}{
			{"an unknown handle", func(f *feedClient) { f.handle = "runs_1_2_abcdefgh" }},
			{"another tag", func(f *feedClient) { f.path = "/realtime/v1/runs?tags=b" }},
			{"another environment", func(f *feedClient) { f.api = f.api.as("tr_prod_other") }},
			{"an offset that is yet to come", func(f *feedClient) { f.offset = "0_99999" }},
			{"a handle unused for an hour", func(*feedClient) { after(61 * time.Minute) }},
		} {
			g := made
			tt.spoil(&g)
			for _, live := range []bool{true, false} {
				h := g
				h.ask(live).is(409, refetch)
				if h.handle == g.handle {
					t.Errorf("%s: no new handle", tt.name)
				}
			}
		}
		g := made
		g.ask(true)
		g.offset = "-1"
		wantStates(t, "after a must-refetch", g.ask(false))
	})
}

// as returns a client with another key.
func (a *api) as(key string) *api {
	other := *a
	other.key = key
	return &other
}

func TestARestartedEmulatorKnowsNoHandles(t *testing.T) {
	cfg := Config{StatePath: t.TempDir() + "/state", Tasks: map[string]Task{"stuck": {Status: "QUEUED"}}}
	inBubble(t, cfg, func(t *testing.T, e *Emulator, a *api) {
		id := a.trigger("stuck", `{"options":{"tags":["a"]}}`)
		f := a.feed("runs?tags=a")
		f.ask(false)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		_, b := start(t, cfg)
		f.api.http = b.http
		if got := f.ask(true); got.status != 409 {
			t.Errorf("got %d, want 409", got.status)
		}
		f.offset = "-1"
		wantStates(t, "the snapshot of the next life", f.ask(false), "insert "+id+" PENDING")
	})
}

func TestTheWindowIsADayAtMostAndStaysWhereTheHandleWasMade(t *testing.T) {
	inBubble(t, Config{Tasks: map[string]Task{"stuck": {Status: "QUEUED"}}}, func(t *testing.T, e *Emulator, a *api) {
		a.trigger("stuck", `{}`) // too old for any window by the time of the first feed
		a.advance(time.Hour)
		old := a.trigger("stuck", `{}`)
		a.advance(23 * time.Hour)
		young := a.trigger("stuck", `{}`)
		a.advance(30 * time.Minute)
		both := []string{"insert " + young + " PENDING", "insert " + old + " PENDING"}
		for query, want := range map[string][]string{"": both, "?createdAt=24h": both, "?createdAt=9d": both, "?createdAt=rubbish": both,
			"?createdAt=1h": both[:1], "?createdAt=1m": {}} {
			wantStates(t, "window "+query, a.feed("runs"+query).ask(false), want...)
		}
		f := a.feed("runs")
		f.ask(false)
		a.advance(2 * time.Hour)
		wantStates(t, "25.5 hours after it was created", a.feed("runs").ask(false), both[:1]...)
		a.do("POST", "/api/v2/runs/"+old+"/cancel", "").ok()
		wantStates(t, "with the handle made before", f.ask(true), "update "+old+" CANCELED")
	})
}

func TestASnapshotHasTheThousandYoungestRuns(t *testing.T) {
	inBubble(t, Config{RateLimit: -1, Tasks: map[string]Task{"stuck": {Status: "QUEUED"}}}, func(t *testing.T, e *Emulator, a *api) {
		var all []string
		for range snapshotAtMost + 5 {
			all = append(all, a.trigger("stuck", `{}`))
			time.Sleep(time.Millisecond)
		}
		f := a.feed("runs")
		states := f.ask(false).states()
		if len(states) != 1000 || states[0] != "insert "+all[1004]+" PENDING" || states[999] != "insert "+all[5]+" PENDING" {
			t.Errorf("%d runs, from %s to %s", len(states), states[0], states[len(states)-1])
		}
		a.do("POST", "/api/v2/runs/"+all[2]+"/cancel", "").ok()
		wantStates(t, "one that the snapshot left out", f.ask(true), "insert "+all[2]+" CANCELED")
	})
}

func TestOneRunCanBeFollowedByItsID(t *testing.T) {
	cfg := Config{Tasks: map[string]Task{"long": {DurationMs: 5000}, "bad": {Status: "FAILED"}}}
	inBubble(t, cfg, func(t *testing.T, e *Emulator, a *api) {
		a.trigger("long", `{}`)
		a.advance(48 * time.Hour)
		id := a.trigger("long", `{}`)
		f := a.feed("runs/" + id)
		wantStates(t, "snapshot", f.ask(false), "insert "+id+" PENDING")
		if f.handle != "run-"+strings.TrimPrefix(id, "run_") {
			t.Errorf("handle %s", f.handle)
		}
		var states []string
		for range 3 {
			a.trigger("bad", `{}`)
			got, _ := f.later(t)()
			states = append(states, got.states()...)
		}
		want := []string{"update " + id + " DEQUEUED", "update " + id + " EXECUTING", "update " + id + " COMPLETED_SUCCESSFULLY"}
		if !slices.Equal(states, want) {
			t.Errorf("got %v, want %v", states, want)
		}
		got := a.get("/realtime/v1/runs/run_none?offset=-1")
		got.is(404, `{"error":"Not found"}`)
		if got.header.Get("x-should-retry") != "false" {
			t.Errorf("headers %v", got.header)
		}
		clientOf(t, e, "tr_prod_other").get("/realtime/v1/runs/"+id+"?offset=-1").is(404, `{"error":"Not found"}`)
	})
}

func TestBadRealtimeRequestsAreRefused(t *testing.T) {
	e, a := start(t, Config{})
	for _, tag := range []string{"a%22b", "a%5Cb", "a%00", "a%1F", "a%7F", "ok,a%0A", "a,,b"} {
		if got := a.get("/realtime/v1/runs?offset=-1&tags=" + tag); got.status != 400 || got.text("error") != "Query Error" {
			t.Errorf("tag %s: got %d %s", tag, got.status, got.raw)
		}
	}
	a.get("/realtime/v1/runs?offset=-1&tags=it's+a+t%C3%A4g:1").ok()
	f := a.feed("runs")
	f.ask(false)
	for _, offset := range []string{"x", "5", "1_x", "-1_2"} {
		f.offset = offset
		if got := f.ask(false); got.status != 400 {
			t.Errorf("offset %s: got %d", offset, got.status)
		}
	}
	clientOf(t, e, "").get("/realtime/v1/runs?offset=-1").is(401, `{"error":"Invalid or Missing API key"}`)
	clientOf(t, e, "tr_live_x").get("/realtime/v1/runs?offset=-1").is(401, `{"error":"Invalid API key"}`)
	if got := a.do("POST", "/realtime/v1/runs", "{}"); got.status != 405 {
		t.Errorf("POST gets %d, want 405", got.status)
	}
}

func TestLivePollsCanBeLimited(t *testing.T) {
	inBubble(t, Config{RealtimeLimit: 2}, func(t *testing.T, e *Emulator, a *api) {
		f := a.feed("runs")
		f.ask(false)
		var ends []func() (answer, time.Duration)
		for range 2 {
			g := *f
			ends = append(ends, g.later(t))
		}
		g := *f
		want := example(t, "error-429-realtime")
		got := g.ask(true)
		if float64(got.status) != want["status"] || fmt.Sprint(got.object()) != fmt.Sprint(want["body"]) {
			t.Errorf("got %d %s, want %v", got.status, got.raw, want)
		}
		f.ask(false).ok() // only live ones count
		other := a.as("tr_prod_other").feed("runs")
		other.ask(false)
		other.ask(true).ok()
		for _, end := range ends {
			got, _ := end()
			got.ok()
		}
		f.ask(true).ok()
	})
}

func TestChangesAreKeptOncePerRunHoweverManyThereAre(t *testing.T) {
	e, a := start(t, Config{Tasks: map[string]Task{"stuck": {Status: "QUEUED"}}})
	first, second := a.trigger("stuck", `{}`), a.trigger("stuck", `{}`)
	f := a.feed("runs")
	f.ask(false)
	e.mu.Lock()
	for range 10_000 {
		e.changed(e.runs[first])
	}
	e.changed(e.runs[second])
	if n := len(e.history); n > 2000 {
		t.Errorf("%d lines for two runs", n)
	}
	e.mu.Unlock()
	wantStates(t, "after ten thousand changes", f.ask(true), "update "+first+" PENDING", "update "+second+" PENDING")
}

func TestClosingEndsALivePollAtOnce(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		f := a.feed("runs")
		f.ask(false)
		end := f.later(t)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if got, took := end(); got.status != 200 || took != 0 {
			t.Errorf("got %d after %s", got.status, took)
		}
	})
}

func TestAFeedWorksOverARealConnection(t *testing.T) {
	e, _ := start(t, Config{Tasks: map[string]Task{"stuck": {Status: "QUEUED"}}})
	server := httptest.NewServer(e)
	defer server.Close()
	a := &api{t: t, http: server.Client(), key: "tr_prod_test", header: http.Header{}}
	a.http.Transport = toServer{server}
	f := a.feed("runs?tags=a")
	f.ask(false).ok()
	done := make(chan answer, 1)
	go func() { done <- f.ask(true) }()
	id := a.trigger("stuck", `{"options":{"tags":["a"]}}`)
	wantStates(t, "a new run", <-done, "insert "+id+" PENDING")
}

// toServer sends what is meant for the emulator's test name to a real listener.
type toServer struct{ server *httptest.Server }

func (s toServer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host = s.server.Listener.Addr().String()
	return http.DefaultTransport.RoundTrip(r)
}
