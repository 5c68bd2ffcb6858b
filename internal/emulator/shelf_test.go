package emulator

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// naive lists the ids as a plain scan of all runs would, youngest first.
func (e *Emulator) naive(takes func(*run) bool) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var rows []*run
	for _, r := range e.runs {
		if takes(r) {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b *run) int { return compareAge(b, a) })
	ids := []string{}
	for _, r := range rows {
		ids = append(ids, r.ID)
	}
	return ids
}

func TestPagesFromTheShelvesAreThoseOfAPlainScan(t *testing.T) {
	cfg := Config{RateLimit: -1, NextRun: everyHour, Tasks: map[string]Task{"s": {Scheduled: true}, "x": {}, "y": {Status: "FAILED"}}}
	inBubble(t, cfg, func(t *testing.T, e *Emulator, a *api) {
		luck := rand.New(rand.NewPCG(1, 2))
		sched := a.do("POST", "/api/v1/schedules", `{"task":"s","cron":"0 * * * *","deduplicationKey":"d"}`).ok().text("id")
		clients := []*api{a, a.as("tr_prod_other")}
		for n := range 300 {
			client, tags := clients[luck.IntN(2)], []string{}
			for range luck.IntN(4) {
				tags = append(tags, fmt.Sprint("t", luck.IntN(5)))
			}
			id := client.trigger([]string{"x", "y", "z"}[luck.IntN(3)], string(object("options", object("tags", tags))))
			if luck.IntN(4) == 0 {
				client.do("POST", "/api/v1/runs/"+id+"/tags", `{"tags":["later"]}`).ok()
			}
			if n%10 == 0 {
				e.mu.Lock()
				e.fire(e.sched[sched], e.clock.now()-instant(luck.IntN(300_000))) // a tick that comes late
				e.mu.Unlock()
			}
			after(time.Duration(luck.IntN(3)) * time.Second / 2)
		}
		home := e.naive(func(r *run) bool { return r.Schedule != "" })
		e.mu.Lock()
		envID, from := e.runs[home[0]].Env.ID, e.clock.now()-100_000
		e.mu.Unlock()
		for query, takes := range map[string]func(*run) bool{
			"":                             func(*run) bool { return true },
			"filter[tag]=t1":               func(r *run) bool { return r.hasTag("t1") },
			"filter[tag]=t1,later,t4,none": func(r *run) bool { return r.hasTag("t1") || r.hasTag("later") || r.hasTag("t4") },
			"filter[taskIdentifier]=x,s":   func(r *run) bool { return r.Task == "x" || r.Task == "s" },
			"filter[schedule]=" + sched:    func(r *run) bool { return r.Schedule == sched },
			"filter[tag]=t0&filter[taskIdentifier]=y":     func(r *run) bool { return r.hasTag("t0") && r.Task == "y" },
			"filter[status]=FAILED,QUEUED&filter[tag]=t2": func(r *run) bool { return r.hasTag("t2") && (r.Status == failed || r.Status == pending) },
			fmt.Sprintf("filter[createdAt][from]=%d&filter[createdAt][to]=%d", from, from+50_000): func(r *run) bool {
				return r.Created >= from && r.Created <= from+50_000
			},
		} {
			want := e.naive(func(r *run) bool { return r.Env.ID == envID && takes(r) })
			for _, size := range []int{1, 7, 100} {
				forward, back := a.allPages(query, size)
				if !slices.Equal(forward, want) {
					t.Errorf("%s by %d: got %d runs\n%v\nwant %d\n%v", query, size, len(forward), forward, len(want), want)
				}
				if len(want) > 0 && !slices.Equal(back, want[:len(want)-1]) {
					t.Errorf("%s by %d, backward from the last: got %d runs, want %d", query, size, len(back), len(want)-1)
				}
			}
		}
	})
}

// allPages reads a list to its end, and back from its last run.
func (a *api) allPages(query string, size int) (forward, back []string) {
	a.t.Helper()
	path := fmt.Sprintf("/api/v1/runs?%s&page[size]=%d", query, size)
	for cursor := ""; len(forward) < 1000; {
		page := a.get(path + cursor)
		forward = append(forward, ids(page)...)
		if next(page, "next") == "" {
			break
		}
		cursor = "&page[after]=" + next(page, "next")
	}
	if len(forward) == 0 {
		return []string{}, nil
	}
	back = []string{}
	before := url.QueryEscape(strings.TrimPrefix(forward[len(forward)-1], "run_")) // a bare id, as cursors once were
	for before != "" && len(back) < 1000 {
		page := a.get(path + "&page[before]=" + before)
		back = slices.Insert(back, 0, ids(page)...)
		before = next(page, "previous")
	}
	return forward, back
}

func TestRunsOfAnEarlierLifeAreOnTheirShelves(t *testing.T) {
	cfg := Config{StatePath: t.TempDir() + "/state", Tasks: map[string]Task{"x": {Status: "QUEUED"}}}
	inBubble(t, cfg, func(t *testing.T, e *Emulator, a *api) {
		one, two := a.trigger("x", `{"options":{"tags":["t"]}}`), a.trigger("x", `{"options":{"tags":["u"]}}`)
		a.do("POST", "/api/v2/runs/"+one+"/cancel", "").ok()
		a.do("POST", "/api/v1/runs/"+two+"/tags", `{"tags":["t"]}`).ok()
		seq := a.get("/emulator/runs").object()["seq"]
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		_, b := start(t, cfg)
		if got := ids(b.get("/api/v1/runs?filter[tag]=t")); len(got) != 2 {
			t.Errorf("runs with the tag: %v, want both", got)
		}
		if again := b.get("/emulator/runs").object()["seq"]; again != seq {
			t.Errorf("changes are counted from %v, want %v as before", again, seq)
		}
		three := b.trigger("x", `{}`)
		got := b.get(fmt.Sprintf("/emulator/runs?since=%v", seq)).object()["runs"].([]any)
		if len(got) != 1 || got[0].(map[string]any)["id"] != three {
			t.Errorf("since %v: %v, want the new run", seq, got)
		}
	})
}
