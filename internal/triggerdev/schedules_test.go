package triggerdev

import (
	"errors"
	"net/http"
	"testing"
)

const schedID = "sched_7f3kq2m9xw4tz8vb1ncdh"

func TestScheduleCalls(t *testing.T) {
	req := ScheduleRequest{Task: "daily-report", Cron: "0 9 * * *", Timezone: "Europe/Berlin", ExternalID: "tenant_acme"}
	for name, tc := range map[string]struct {
		reply  string
		call   func(*Client) (Schedule, error)
		method string
		uri    string
		body   string // "" for none
		active bool
	}{
		"create": {
			"schedule-created.json",
			func(c *Client) (Schedule, error) { return c.CreateSchedule(t.Context(), "prod-acme-daily-report", req) },
			"POST", "/api/v1/schedules",
			`{"task":"daily-report","cron":"0 9 * * *","timezone":"Europe/Berlin","externalId":"tenant_acme","deduplicationKey":"prod-acme-daily-report"}`,
			true,
		},
		"update": {
			"schedule-retrieved.json",
			func(c *Client) (Schedule, error) {
				return c.UpdateSchedule(t.Context(), schedID, ScheduleRequest{Task: "t", Cron: "* * * * *", Window: "30m"})
			},
			"PUT", "/api/v1/schedules/" + schedID, `{"task":"t","cron":"* * * * *","window":"30m"}`, true,
		},
		"retrieve by deduplication key": {
			"schedule-retrieved.json",
			func(c *Client) (Schedule, error) { return c.RetrieveSchedule(t.Context(), "a/b c") },
			"GET", "/api/v1/schedules/a%2Fb%20c", "", true,
		},
		"activate": {
			"schedule-retrieved.json",
			func(c *Client) (Schedule, error) { return c.ActivateSchedule(t.Context(), schedID) },
			"POST", "/api/v1/schedules/" + schedID + "/activate", "", true,
		},
		"deactivate": {
			"schedule-deactivated.json",
			func(c *Client) (Schedule, error) { return c.DeactivateSchedule(t.Context(), schedID) },
			"POST", "/api/v1/schedules/" + schedID + "/deactivate", "", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, got := record(t, Config{}, golden(t, tc.reply))
			s, err := tc.call(c)
			if err != nil {
				t.Fatal(err)
			}
			if got.Method != tc.method || got.URI != tc.uri {
				t.Errorf("got %s %s, want %s %s", got.Method, got.URI, tc.method, tc.uri)
			}
			if tc.body == "" && got.Body != "" {
				t.Errorf("body: got %s, want none", got.Body)
			}
			if tc.body != "" {
				sameJSON(t, "body", got.Body, tc.body)
			}
			if s.ID != schedID || s.Active != tc.active || s.NextRun.IsZero() == tc.active {
				t.Errorf("got %+v, want %s, active %v, a next run only then", s, schedID, tc.active)
			}
		})
	}
}

func TestDeleteSchedule(t *testing.T) {
	c, got := record(t, Config{}, golden(t, "schedule-deleted.json"))
	if err := c.DeleteSchedule(t.Context(), schedID); err != nil {
		t.Fatal(err)
	}
	if got.Method != http.MethodDelete || got.URI != "/api/v1/schedules/"+schedID {
		t.Errorf("got %s %s", got.Method, got.URI)
	}
}

func TestListSchedules(t *testing.T) {
	c, got := record(t, Config{}, golden(t, "schedules-list.json"))
	page, err := c.ListSchedules(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	if got.URI != "/api/v1/schedules?page=1&perPage=100" {
		t.Errorf("got %s", got.URI)
	}
	if len(page.Schedules) != 2 || page.CurrentPage != 1 || page.TotalPages != 1 || page.Count != 2 {
		t.Fatalf("got %+v, want two schedules on one page", page)
	}
	s := page.Schedules[1]
	if s.Type != "DECLARATIVE" || s.Window != "50%" || s.ExternalID != "" || s.DeduplicationKey != "" ||
		s.Generator.Expression != "0 * * * *" || s.Environments[0].Slug != "prod" ||
		!s.NextRunEffectiveAt.Equal(at("2026-08-20T10:17:41.006Z")) {
		t.Errorf("got %+v, want the hourly one", s)
	}
}

func TestAWrongMethodAnsweredWith200IsABadReply(t *testing.T) {
	c := serve(t, answer(http.StatusOK, `{"status":405,"body":"Method Not Allowed"}`))
	_, err := c.RetrieveSchedule(t.Context(), schedID)
	var bad *BadReplyError
	if !errors.As(err, &bad) {
		t.Errorf("got %v, want a bad reply", err)
	}
}

func TestEnvironmentIsTheWordInTheKey(t *testing.T) {
	for key, want := range map[string]string{
		"tr_dev_abc": "dev", "tr_stg_abc": "stg", " tr_prod_abc\n": "prod", "tr_preview_abc": "preview", "tr_prod_sk_abc": "prod",
		"tr_pat_abc": "", "pk_dev_abc": "", "": "",
	} {
		c, err := New(Config{Key: func() string { return key }})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Environment(); got != want {
			t.Errorf("%q: got %q, want %q", key, got, want)
		}
	}
}
