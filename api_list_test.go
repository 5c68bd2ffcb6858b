package main

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/emulator"
)

// listed are the ids of a list's page, and the cursor of the next one.
func (w *world) listed(query string) (ids []int64, next string) {
	w.t.Helper()
	r := w.call("GET", "/api/jobs"+query, nil)
	if r.status != 200 {
		w.t.Fatalf("list %q: %d %s", query, r.status, r.body)
	}
	var page struct {
		Jobs       []seenJob
		NextCursor *string
	}
	r.into(w.t, &page)
	for _, j := range page.Jobs {
		ids = append(ids, j.ID)
	}
	if page.NextCursor != nil {
		next = *page.NextCursor
	}
	return ids, next
}

// inEveryState makes jobs 1 to 10, a second apart, one of each kind that a filter
// can tell apart.
func inEveryState(w *world) {
	w.t.Helper()
	step := func(request string) {
		w.schedule(request)
		time.Sleep(time.Second)
	}
	step(`{"type":"a","tag":"one","userId":7}`)                                                // 1 PENDING
	step(`{"type":"a","labels":["red","x y"]}`)                                                // 2 EXECUTING
	step(`{"type":"b","userId":7,"labels":["red\"'"]}`)                                        // 3 COMPLETED
	step(`{"type":"b"}`)                                                                       // 4 FAILED
	step(`{"type":"b","userId":8}`)                                                            // 5 CANCELED
	step(`{"type":"a","executor":"trigger","triggerTaskId":"t","due":"2000-02-01T00:00:00Z"}`) // 6 PENDING
	step(`{"type":"c","executor":"trigger","triggerTaskId":"long"}`)                           // 7 EXECUTING
	step(`{"type":"c","executor":"trigger","triggerTaskId":"t","userId":7,"tag":"one "}`)      // 8 COMPLETED
	step(`{"type":"c","executor":"trigger","triggerTaskId":"bad"}`)                            // 9 FAILED
	step(`{"name":"report"}`)                                                                  // 10 CANCELED
	for id := int64(2); id <= 4; id++ {
		w.workerTakes(id)
	}
	w.workerEnds(3, `0`)
	w.workerGivesUp(4, `"no"`)
	w.call("POST", "/api/jobs/5/cancel", nil)
	w.call("POST", "/api/jobs/10/cancel", nil)
	time.Sleep(10 * time.Second)
}

func listWorld(t *testing.T) *world {
	w := newWorld(t, withTasks(map[string]emulator.Task{"long": {DurationMs: 600_000}, "bad": {Status: "CRASHED"}}), withConfig(func(c *config) {
		c.registry.jobs["report"] = definition{Executor: "trigger", TriggerTaskID: "long", Type: "c"}
	}))
	inEveryState(w)
	return w
}

func TestFiltersSelect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := listWorld(t)
		for query, want := range map[string][]int64{
			"":                                  {10, 9, 8, 7, 6, 5, 4, 3, 2, 1},
			"executor=internal":                 {5, 4, 3, 2, 1},
			"executor=trigger":                  {10, 9, 8, 7, 6},
			"status=PENDING":                    {6, 1},
			"status=EXECUTING":                  {7, 2},
			"status=COMPLETED":                  {8, 3},
			"status=FAILED":                     {9, 4},
			"status=CANCELED":                   {10, 5},
			"type=a":                            {6, 2, 1},
			"type=A":                            nil,
			"tag=one":                           {1},
			"tag=one%20":                        {8},
			"tag=o%25":                          nil,
			"name=report":                       {10},
			"userId=7":                          {8, 3, 1},
			"userId=0":                          {10, 9, 7, 6, 4, 2},
			"userId=-1":                         nil,
			"finished=true":                     {10, 9, 8, 5, 4, 3},
			"finished=false":                    {7, 6, 2, 1},
			"success=true":                      {8, 3},
			"success=false":                     {10, 9, 5, 4},
			"label=red":                         {2},
			"label=" + url.QueryEscape(`red"'`): {3},
			"label=x+y":                         {2},
			"label=re":                          nil,
			"scheduleId=1":                      nil,
			"createdAfter=2000-01-01T00:00:08Z": {10},
			"createdAfter=946684807000&createdBefore=2000-01-01T00:00:09%2B00:00": {9},
			"createdBefore=2000-01-01T01:00:01%2B01:00":                           {1},
			"executor=trigger&status=FAILED&type=c&userId=0":                      {9},
			"executor=internal&success=true&type=a":                               nil,
			"tag=" + url.QueryEscape("' OR 1=1 --"):                               nil,
		} {
			if ids, next := w.listed("?" + query); !slices.Equal(ids, want) || next != "" {
				t.Errorf("%s: got %d and cursor %q, want %d and no further page", query, ids, next, want)
			}
			var counted struct{ Count int }
			w.call("GET", "/api/jobs/count?"+query, nil).into(t, &counted)
			if counted.Count != len(want) {
				t.Errorf("%s: counted %d, want %d", query, counted.Count, len(want))
			}
		}
	})
}

func TestBadFiltersAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.schedule(`{"type":"work"}`)
		for query, name := range map[string]string{
			"executor=remote": "executor", "executor=Internal": "executor", "status=pending": "status", "status=RUNNING": "status",
			"finished=yes": "finished", "finished=1": "finished", "success=maybe": "success", "userId=x": "userId", "userId=1.5": "userId",
			"userId=99999999999999999999": "userId", "scheduleId=0": "scheduleId", "scheduleId=x": "scheduleId", "scheduleId=-1": "scheduleId",
			"createdAfter=yesterday": "createdAfter", "createdBefore=2000-01-01": "createdBefore", "createdAfter=1e99": "createdAfter",
			// What was meant as a filter must not select everything.
			"userId=": "userId", "tag=": "tag", "status=": "status", "finished=": "finished", "userId=1&userId=2": "userId", "status=PENDING&status=FAILED": "status",
			"user=7": "user", "user_id=7": "user_id", "USERID=7": "USERID",
		} {
			for _, path := range []string{"/api/jobs", "/api/jobs/count"} {
				wantProblem(t, path+"?"+query, w.call("GET", path+"?"+query, nil), 422, "invalid", "query."+name)
			}
		}
		for query, name := range map[string]string{
			"limit=0": "limit", "limit=201": "limit", "limit=-1": "limit", "limit=all": "limit", "limit=": "limit",
			"order=updated": "order", "order=Due": "order", "cursor=x": "cursor", "cursor=!": "cursor", "cursor=" + cursorOf(`{"i":0}`): "cursor",
			"cursor=" + cursorOf(`{"i":-5}`): "cursor", "cursor=" + cursorOf(`{"i":5,"d":9}`): "cursor", "order=due&cursor=" + cursorOf(`{"i":5}`): "cursor",
			"createdAfter=5&cursor=" + cursorOf(`{"i":5}`): "cursor", "cursor=" + cursorOf(`{"i":5,"c":9}`): "cursor",
			"cursor=" + cursorOf(`{"i":"5"}`): "cursor", "cursor=" + cursorOf(`[]`): "cursor", "offset=5": "offset", "page=2": "page",
		} {
			wantProblem(t, query, w.call("GET", "/api/jobs?"+query, nil), 422, "invalid", "query."+name)
		}
		for _, only := range []string{"limit=5", "order=due", "cursor=x"} {
			if r := w.call("GET", "/api/jobs/count?"+only, nil); r.status != 422 {
				t.Errorf("count?%s: got %d, want 422", only, r.status)
			}
		}
		wantProblem(t, "two", w.call("GET", "/api/jobs?userId=x&createdAfter=y", nil), 422, "invalid", "query.userId", "query.createdAfter")
	})
}

func cursorOf(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func TestPagesMeetAndMissNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 11 {
			w.schedule(map[string]any{"type": "work", "userId": i % 2, "due": fmt.Sprintf("2001-01-%02dT00:00:00Z", 1+i*7%5)})
		}
		for _, query := range []string{"order=created", "order=due", "order=due&userId=1", "userId=0"} {
			all, next := w.listed("?limit=200&" + query)
			if next != "" {
				t.Errorf("%s: the only page has the cursor %q", query, next)
			}
			for _, limit := range []int{2, len(all) - 1, len(all), len(all) + 1} {
				var got []int64
				pages, cursor := 0, ""
				for pages < 30 {
					page, next := w.listed(fmt.Sprintf("?limit=%d&%s%s", limit, query, cursor))
					if pages++; len(page) > limit || len(page) == 0 {
						t.Fatalf("%s: a page of %d has %d jobs", query, limit, len(page))
					}
					got = append(got, page...)
					if next == "" {
						break
					}
					cursor = "&cursor=" + url.QueryEscape(next)
				}
				if want := (len(all) + limit - 1) / limit; !slices.Equal(got, all) || pages != want {
					t.Errorf("%s by %d: got %d in %d pages, want %d in %d", query, limit, got, pages, all, want)
				}
			}
		}
	})
}

func TestOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, due := range []string{"2001-01-03", "2001-01-01", "2001-01-02", "2001-01-01"} {
			w.schedule(map[string]any{"type": "work", "due": due + "T00:00:00Z"})
		}
		for query, want := range map[string][]int64{"": {4, 3, 2, 1}, "?order=created": {4, 3, 2, 1}, "?order=due": {2, 4, 3, 1}} {
			if got, _ := w.listed(query); !slices.Equal(got, want) {
				t.Errorf("%q: got %d, want %d", query, got, want)
			}
		}
	})
}

func TestAPageHoldsFiftyUnlessItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for path, want := range map[string]string{"/api/jobs": `{"jobs":[],"nextCursor":null}`, "/api/jobs/count": `{"count":0}`} {
			if got := w.call("GET", path, nil); string(got.body) != want+"\n" {
				t.Errorf("%s without jobs: got %s, want %s", path, got.body, want)
			}
		}
		w.batch(`{"type":"w"}` + strings.Repeat(`,{"type":"w"}`, 50))
		for query, want := range map[string]int{"": 50, "?limit=1": 1, "?limit=50": 50, "?status=PENDING": 50} {
			if got, next := w.listed(query); len(got) != want || next == "" {
				t.Errorf("%q: got %d jobs and cursor %q, want %d and a cursor", query, len(got), next, want)
			}
		}
	})
}

func TestAPageGoesOnWhileJobsAreAddedAndRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 6 {
			w.schedule(`{"type":"work","removeDelay":-1}`)
		}
		first, next := w.listed("?limit=2")
		w.schedule(`{"type":"work"}`)
		w.workerTakes(5) // where the cursor stands
		w.workerEnds(5, `1`)
		w.call("POST", "/api/jobs/cleanup", nil)
		second, _ := w.listed("?limit=2&cursor=" + url.QueryEscape(next))
		if !slices.Equal(first, []int64{6, 5}) || !slices.Equal(second, []int64{4, 3}) {
			t.Errorf("got pages %d and %d, want 6 5 and 4 3", first, second)
		}
	})
}

func TestTheHistoryOfAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.schedule(`{"type":"work","tag":"t"}`)
		time.Sleep(1500 * time.Millisecond)
		w.schedule(`{"type":"work","tag":"t"}`)
		r := w.call("GET", "/api/jobs/1/events", nil)
		if want := `{"events":[` +
			`{"id":1,"at":"2000-01-01T00:00:00.000Z","kind":"created","source":"api","from":null,"to":"waiting","detail":{}},` +
			`{"id":2,"at":"2000-01-01T00:00:01.500Z","kind":"cancel","source":"api","from":"waiting","to":"canceled","detail":{"reason":"Job cancelled due to new job being created"}}]}`; string(r.body) != want+"\n" {
			t.Errorf("got %d %s, want %s", r.status, r.body, want)
		}
		wantProblem(t, "no such job", w.call("GET", "/api/jobs/9/events", nil), 404, "not_found")
		done := w.wait(w.triggerJob("echo", "data", "s3cr3t").ID)
		history := w.call("GET", fmt.Sprintf("/api/jobs/%d/events", done.ID), nil)
		contains(t, string(history.body), `"kind":"submitted"`, done.TriggerRunID, `"to":"queued"`)
		if string(done.Result) != `"s3cr3t"` || strings.Contains(string(history.body), "s3cr3t") {
			t.Errorf("the history %s tells the payload", history.body)
		}
	})
}
