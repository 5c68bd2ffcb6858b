package emulator

import (
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"
)

func ids(g answer) []string {
	g.t.Helper()
	list := []string{}
	for _, item := range g.ok().object()["data"].([]any) {
		list = append(list, item.(map[string]any)["id"].(string))
	}
	return list
}

func next(g answer, name string) string {
	s, _ := g.object()["pagination"].(map[string]any)[name].(string)
	return s
}

func TestTheListIsReadPageByPageInBothDirections(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, e *Emulator, a *api) {
		var all []string
		for range 7 {
			all = slices.Insert(all, 0, a.trigger("x", `{}`)) // newest first
			after(time.Second)
		}
		var seen []string
		page := a.get("/api/v1/runs?page[size]=3")
		if next(page, "previous") != "" {
			t.Error("the first page has a previous one")
		}
		for pages := 1; ; pages++ {
			seen = append(seen, ids(page)...)
			if next(page, "next") == "" {
				if pages != 3 {
					t.Errorf("%d pages, want 3", pages)
				}
				break
			}
			page = a.get("/api/v1/runs?page[size]=3&page[after]=" + next(page, "next"))
		}
		if !slices.Equal(seen, all) {
			t.Errorf("forward\ngot  %v\nwant %v", seen, all)
		}
		back := a.get("/api/v1/runs?page[size]=3&page[before]=" + next(page, "previous"))
		if got := ids(back); !slices.Equal(got, all[3:6]) {
			t.Errorf("backward\ngot  %v\nwant %v", got, all[3:6])
		}
		back = a.get("/api/v1/runs?page[size]=3&page[before]=" + next(back, "previous"))
		if got := ids(back); !slices.Equal(got, all[:3]) || next(back, "previous") != "" || next(back, "next") == "" {
			t.Errorf("back at the start: %v, %s", got, back.raw)
		}
	})
}

func TestTheListIsFiltered(t *testing.T) {
	cfg := Config{Tasks: map[string]Task{"bad": {Status: "FAILED"}, "stuck": {Status: "QUEUED"}, "waits": {Status: "WAITING"}}}
	inBubble(t, cfg, func(t *testing.T, e *Emulator, a *api) {
		old := a.trigger("x", `{"options":{"tags":["old"]}}`)
		a.advance(8 * 24 * time.Hour)
		bad, stuck := a.trigger("bad", `{"options":{"tags":["t1","both"]}}`), a.trigger("stuck", `{"options":{"tags":["t2","both"]}}`)
		after(time.Second)
		waits := a.trigger("waits", `{"options":{"test":true}}`)
		after(time.Second)
		now := e.clock.now()
		for query, want := range map[string][]string{
			"":                                  {waits, stuck, bad},
			"filter[createdAt][period]=30d":     {waits, stuck, bad, old},
			"filter[createdAt][period]=rubbish": {waits, stuck, bad, old},
			fmt.Sprintf("filter[createdAt][to]=%d", now-1500):   {stuck, bad, old},
			fmt.Sprintf("filter[createdAt][from]=%d", now-1500): {waits},
			"filter[createdAt][from]=" + (now - 1500).iso():     {waits},
			"filter[status]=QUEUED,FAILED":                      {stuck, bad},
			"filter[status]=FROZEN":                             {waits},
			"filter[status]=EXECUTING":                          {},
			"filter[taskIdentifier]=bad,waits":                  {waits, bad},
			"filter[tag]=t1,t2":                                 {stuck, bad},
			"filter[tag]=t1":                                    {bad},
			"filter[queue]=task/stuck":                          {stuck},
			"filter[isTest]=true":                               {waits},
			"filter[machine]=micro":                             {},
			"filter[batch]=batch_x":                             {},
			"filter[schedule]=sched_none":                       {},
		} {
			got := ids(a.get("/api/v1/runs?" + query))
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", query, got, want)
			}
		}
	})
}

func TestABadListQueryIsRefused(t *testing.T) {
	_, a := start(t, Config{})
	a.get("/api/v1/runs?"+url.QueryEscape("filter[status]")+"=DONE,COMPLETED").
		is(400, `{"error":"Query Error","details":[{"code":"custom","path":["filter[status]"],"message":"Invalid status values: DONE"}]}`)
	for _, query := range []string{"page[size]=0", "page[size]=101", "page[size]=x", "page[size]=1.5", "page[size]=1e300", "filter[isTest]=yes", "filter[machine]=huge", "filter[createdAt][from]=x"} {
		if got := a.get("/api/v1/runs?" + query); got.status != 400 || got.text("error") != "Query Error" {
			t.Errorf("%s: got %d %s", query, got.status, got.raw)
		}
	}
}

func TestTheListShowsLegacyWordsWithoutTheVersionHeader(t *testing.T) {
	inBubble(t, Config{Tasks: map[string]Task{"x": {Status: "DEQUEUED"}}}, func(t *testing.T, e *Emulator, a *api) {
		a.trigger("x", `{}`)
		after(time.Second)
		got := a.with("x-trigger-api-version", "2024-01-01").get("/api/v1/runs").object()["data"].([]any)[0].(map[string]any)
		if got["status"] != "EXECUTING" {
			t.Errorf("got %v, want EXECUTING", got["status"])
		}
	})
}

func TestTheControlCountsRunsOfAllEnvironments(t *testing.T) {
	e, a := start(t, Config{})
	const body = `{"payload":{"a":1},"options":{"idempotencyKey":"k","tags":["t"]}}`
	id := a.trigger("x", body)
	a.trigger("x", body)
	clientOf(t, e, "tr_dev_other").trigger("x", body)
	runs := a.get("/emulator/runs?idempotencyKey=k&tag=t&task=x").ok().object()["runs"].([]any)
	if len(runs) != 2 {
		t.Fatalf("%d runs, want 2", len(runs))
	}
	for _, item := range runs {
		r := item.(map[string]any)
		if want := map[bool]float64{true: 2, false: 1}[r["id"] == id]; r["asked"] != want || r["env"] == nil || r["payload"] == nil {
			t.Errorf("got %v, want asked %v with env and payload", r, want)
		}
	}
	if runs := a.get("/emulator/runs?tag=other").object()["runs"].([]any); len(runs) != 0 {
		t.Errorf("%d runs of a tag that nobody has", len(runs))
	}
}

func TestAListOfADevEnvironmentNamesItsUser(t *testing.T) {
	e, _ := start(t, Config{})
	a := clientOf(t, e, "tr_dev_x")
	a.trigger("x", `{}`)
	item := a.get("/api/v1/runs").object()["data"].([]any)[0].(map[string]any)
	if env := item["env"].(map[string]any); env["name"] != "dev" || env["user"] == nil {
		t.Errorf("env is %v, want dev and a user", env)
	}
}

func TestTheListHidesThePlatformsOwnMetadata(t *testing.T) {
	_, a := start(t, Config{Tasks: map[string]Task{"x": {Status: "QUEUED"}}})
	id := a.trigger("x", `{"options":{"metadata":{"$$streams":["s"],"$$streamsVersion":"v1","a":1}}}`)
	item := a.get("/api/v1/runs").object()["data"].([]any)[0].(map[string]any)
	if got := fmt.Sprint(item["metadata"]); got != "map[a:1]" {
		t.Errorf("list shows %s", got)
	}
	if got := len(a.run(id)["metadata"].(map[string]any)); got != 3 {
		t.Errorf("retrieve shows %d members, want 3", got)
	}
}

func TestTheControlGivesWhatCheckersNeed(t *testing.T) {
	inBubble(t, Config{Tasks: map[string]Task{"x": {Output: []byte(`1`)}, "stuck": {Status: "QUEUED"}}}, func(t *testing.T, e *Emulator, a *api) {
		id := a.trigger("x", `{"payload":2,"options":{"idempotencyKey":"k","tags":["t"]}}`)
		stuck := a.trigger("stuck", `{}`)
		after(time.Second)
		all := a.get("/emulator/runs").ok().object()
		r := all["runs"].([]any)[slices.IndexFunc(all["runs"].([]any), func(r any) bool { return r.(map[string]any)["id"] == id })].(map[string]any)
		for name, want := range map[string]any{"task": "x", "status": "COMPLETED", "idempotencyKey": "k", "attemptCount": 1.0, "asked": 1.0, "payload": 2.0, "output": 1.0} {
			if r[name] != want {
				t.Errorf("%s is %v, want %v", name, r[name], want)
			}
		}
		if r["environment"] != r["env"].(map[string]any)["id"] || fmt.Sprint(r["tags"]) != "[t]" || r["createdAt"] == nil || r["finishedAt"] == nil {
			t.Errorf("run is %v", r)
		}
		a.trigger("x", `{"options":{"idempotencyKey":"k"}}`)
		news := a.get(fmt.Sprintf("/emulator/runs?values=false&since=%v", all["seq"])).ok().object()["runs"].([]any)
		if len(news) != 1 {
			t.Fatalf("changed since are %v, want the one that was asked for again", news)
		}
		r = news[0].(map[string]any)
		_, hasPayload := r["payload"]
		_, hasOutput := r["output"]
		if r["id"] != id || r["asked"] != 2.0 || hasPayload || hasOutput {
			t.Errorf("got %v, want %s asked for twice and without values", r, id)
		}
		a.do("POST", "/api/v2/runs/"+stuck+"/cancel", "").ok()
		if got := a.get("/emulator/runs?task=stuck&since=0").object()["runs"].([]any); len(got) != 1 {
			t.Errorf("since 0: %v, want all", got)
		}
		if got := a.get("/emulator/runs?since=x"); got.status != 400 {
			t.Errorf("a bad since gets %d", got.status)
		}
	})
}
