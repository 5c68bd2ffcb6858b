package emulator

import (
	"fmt"
	"testing"
	"time"
)

func TestSchedulesAreRefusedInTheServersWords(t *testing.T) {
	_, a := start(t, Config{NextRun: everyHour})
	body := func(task, cron, rest string) string {
		return fmt.Sprintf(`{"task":%q,"cron":%q,"deduplicationKey":"d"%s}`, task, cron, rest)
	}
	const task = "daily-report-generation"
	for name, tt := range map[string]struct {
		body   string
		status int
		want   string
	}{
		"six fields":   {body(task, "0 0 9 * * *", ""), 422, `{"error":"Invalid cron expression: CRON expressions with seconds are not allowed"}`},
		"double blank": {body(task, "0 9  * * *", ""), 422, `{"error":"Invalid cron expression: CRON expressions with seconds are not allowed"}`},
		"bad field":    {body(task, "bad * * * *", ""), 422, `{"error":"Invalid cron expression: no such field"}`},
		"four fields":  {body(task, "0 9 * *", ""), 500, `{"error":"Internal Server Error"}`},
		"unknown task": {body("nobody", "0 9 * * *", ""), 422, `{"error":"Task with identifier nobody not found in project."}`},
		"plain task":   {body("cancellable-task", "0 9 * * *", ""), 422, `{"error":"Task with identifier cancellable-task is not a scheduled task."}`},
		"bad zone":     {body(task, "0 9 * * *", `,"timezone":"Mars/Base"`), 422, `{"error":"Invalid IANA timezone: 'Mars/Base'. View the list of valid timezones at http://emulator.test/timezones"}`},
		"no key":       {`{"task":"x","cron":"* * * * *"}`, 400, `{"error":"Invalid request body","issues":[{"code":"invalid_type","expected":"string","received":"undefined","path":["deduplicationKey"],"message":"Required"}]}`},
		"bad window":   {body(task, "0 9 * * *", `,"window":"25h"`), 400, `{"error":"Invalid request body","issues":[{"code":"custom","path":["window"],"message":"Invalid window"}]}`},
		"broken JSON":  {`{`, 500, `{"error":"Internal Server Error"}`},
	} {
		t.Run(name, func(t *testing.T) { a.do("POST", "/api/v1/schedules", tt.body).is(tt.status, tt.want) })
	}
	a.get("/api/v1/schedules?page=0").is(400, `{"error":"Invalid request parameters","issues":[{"code":"too_small","path":["page"],"message":"Number must be greater than 0"}]}`)
	a.get("/api/v1/schedules?perPage=x").is(400, `{"error":"Invalid request parameters","issues":[{"code":"invalid_type","expected":"number","received":"nan","path":["perPage"],"message":"Expected number, received nan"}]}`)
	a.get("/api/v1/schedules?page=9999999999&perPage=1000").is(200, `{"data":[],"pagination":{"currentPage":1048576,"totalPages":0,"count":0}}`)
	for _, method := range []string{"GET", "DELETE"} {
		a.do(method, "/api/v1/schedules/sched_none", "").is(404, `{"error":"Schedule not found"}`)
	}
	a.do("POST", "/api/v1/schedules/nobody/activate", "").is(404, `{"error":"Schedule not found"}`)
}

func TestADeduplicationKeyIsOneOfAllEnvironments(t *testing.T) {
	e, prod := start(t, Config{NextRun: everyHour, Tasks: map[string]Task{"s": {Scheduled: true}, "s2": {Scheduled: true}}})
	devs := clientOf(t, e, "tr_dev_x")
	made := prod.do("POST", "/api/v1/schedules", `{"task":"s","cron":"0 9 * * *","deduplicationKey":"d","externalId":"e","timezone":"Europe/Berlin","window":"30%"}`).ok()
	prod.do("POST", "/api/v1/schedules/d/deactivate", "").ok()
	moved := devs.do("POST", "/api/v1/schedules", `{"task":"s2","cron":"0 10 * * *","deduplicationKey":"d"}`).ok().object()
	if moved["id"] != made.text("id") || moved["task"] != "s" || moved["active"] != false {
		t.Errorf("upsert gives %v, want the same schedule, its task and active as they were", moved)
	}
	if moved["timezone"] != "UTC" || moved["externalId"] != nil || moved["window"] != nil {
		t.Errorf("upsert gives %v, want what was left out cleared", moved)
	}
	prod.get("/api/v1/schedules/d").is(404, `{"error":"Schedule not found"}`)
	devs.get("/api/v1/schedules/d").ok()
	put := prod.do("PUT", "/api/v1/schedules/d", `{"task":"s","cron":"0 9 * * *"}`)
	put.is(404, `{"error":"Schedule not found"}`)
}

func TestPutOfAnUnknownScheduleMakesANewOne(t *testing.T) {
	_, a := start(t, Config{NextRun: everyHour, Tasks: map[string]Task{"s": {Scheduled: true}}})
	got := a.do("PUT", "/api/v1/schedules/sched_unknown", `{"task":"s","cron":"0 9 * * *"}`).ok()
	if id := got.text("id"); id == "sched_unknown" || len(id) != 27 {
		t.Errorf("id %s", id)
	}
	if _, has := got.object()["deduplicationKey"]; has {
		t.Error("a random key is shown")
	}
	random := `{"task":"s","cron":"0 9 * * *","deduplicationKey":""}`
	a.do("POST", "/api/v1/schedules", random).ok()
	a.do("POST", "/api/v1/schedules", random).ok()
	list := a.get("/api/v1/schedules?page=2&perPage=2").ok().object()
	if len(list["data"].([]any)) != 1 || fmt.Sprint(list["pagination"]) != "map[count:3 currentPage:2 totalPages:2]" {
		t.Errorf("second page: %v", list)
	}
}

func TestASchedulesRunsCarryItsNominalTime(t *testing.T) {
	inBubble(t, Config{NextRun: everyHour}, func(t *testing.T, e *Emulator, a *api) {
		made := a.do("POST", "/api/v1/schedules", `{"task":"daily-report-generation","cron":"0 * * * *","deduplicationKey":"d"}`).ok()
		nominal := made.text("nextRun")
		a.advance(150 * time.Minute)
		runs := a.get("/emulator/runs").object()["runs"].([]any)
		if len(runs) != 2 {
			t.Fatalf("%d runs in 2.5 hours, want 2", len(runs))
		}
		first, second := runs[1].(map[string]any), runs[0].(map[string]any)
		if first["createdAt"] != nominal || first["status"] != "COMPLETED" || len(first["tags"].([]any)) != 0 {
			t.Errorf("first run %v, want createdAt %s", first, nominal)
		}
		if got := second["payload"].(map[string]any)["lastTimestamp"]; got != nominal {
			t.Errorf("lastTimestamp %v, want %s", got, nominal)
		}
		e.mu.Lock()
		e.fire(e.scheduleKeyed("d"), e.clock.now()-5000) // a tick that comes late
		late := e.clock.now() - 5000
		e.mu.Unlock()
		if list := a.get("/api/v1/runs?filter[createdAt][period]=6s").object()["data"].([]any); len(list) != 1 ||
			list[0].(map[string]any)["createdAt"] != late.iso() {
			t.Errorf("got %v, want one run created at %s", list, late.iso())
		}
		a.do("POST", "/api/v1/schedules/d/deactivate", "").ok()
		a.advance(3 * time.Hour)
		a.do("POST", "/api/v1/schedules/d/activate", "").ok()
		a.advance(time.Hour)
		if n := len(a.get("/emulator/runs").object()["runs"].([]any)); n != 4 {
			t.Errorf("%d runs, want 4: an inactive schedule skips its ticks", n)
		}
		a.do("DELETE", "/api/v1/schedules/d", "").is(200, `{"id":"`+made.text("id")+`"}`)
		if a.run(first["id"].(string))["schedule"] != nil {
			t.Error("a deleted schedule is still shown")
		}
	})
}

func TestCommonExpressionsAreDescribed(t *testing.T) {
	for cron, want := range map[string]string{"0 9 * * *": "At 09:00 AM", "30 8 * * 1-5": "At 08:30 AM, Monday through Friday",
		"0 0 * * *": "At 12:00 AM", "15 13 * * *": "At 01:15 PM", "0 * * * *": "Every hour", "*/5 * * * *": "Every 5 minutes", "* * * * *": "Every minute"} {
		if got := describeCron(cron); got != want {
			t.Errorf("%s: got %q, want %q", cron, got, want)
		}
	}
}
