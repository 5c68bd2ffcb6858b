package main

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type seenPreview struct {
	Next []struct {
		At    time.Time
		Local string
		Note  *string
	}
	Differences []string
}

// lines are the times as they are shown, each with its note.
func (p seenPreview) lines() (lines []string) {
	for _, n := range p.Next {
		line := n.Local
		if n.Note != nil {
			line += " " + *n.Note
		}
		lines = append(lines, line)
	}
	return lines
}

// previewed reads a preview that must not be refused.
func (w *world) previewed(body string) (p seenPreview) {
	w.t.Helper()
	r := w.call("POST", "/api/cron/preview", body)
	if r.status != 200 {
		w.t.Fatalf("%s: got %d %s, want 200", body, r.status, r.body)
	}
	r.into(w.t, &p)
	if p.Next == nil || p.Differences == nil {
		w.t.Errorf("%s: got %s, want two lists", body, r.body)
	}
	for _, n := range p.Next {
		if at := instantOf(w.t, n.Local); !at.Equal(n.At) {
			w.t.Errorf("%s: at is %s, local is %s; want the same moment", body, n.At, n.Local)
		}
	}
	return p
}

// TestPreview shows what the vectors of internal/job/cron hold as a caller sees it.
func TestPreview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, c := range []struct{ cron, zone, from, want string }{
			{"30 2 * * *", "America/New_York", "2026-03-07T00:00:00-05:00", "2026-03-07T02:30:00-05:00, 2026-03-08T03:30:00-04:00 skipped hour, 2026-03-09T02:30:00-04:00"},
			{"30 1 * * *", "America/New_York", "2026-10-31T12:00:00-04:00", "2026-11-01T01:30:00-04:00 repeated hour, 2026-11-02T01:30:00-05:00"},
			{"0 * * * *", "America/New_York", "2026-11-01T00:00:00-04:00", "2026-11-01T01:00:00-04:00 repeated hour, 2026-11-01T01:00:00-05:00 repeated hour, 2026-11-01T02:00:00-05:00"},
			{"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00+10:30", "2026-10-04T02:45:00+11:00 skipped hour, 2026-10-05T02:15:00+11:00"},
			{"@daily", "America/Sao_Paulo", "2018-11-03T12:00:00-03:00", "2018-11-04T01:00:00-02:00 skipped hour, 2018-11-05T00:00:00-02:00"},
			{"0 9 * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", "2026-01-01T09:00:00+05:45"},
			{"0 0 29 2 *", "", "2096-02-29T00:00:00Z", "2104-02-29T00:00:00Z"},
			{"0 9 L * *", "UTC", "2026-02-01T00:00:00Z", "2026-02-28T09:00:00Z, 2026-03-31T09:00:00Z"},
			{"0 9 * * 1L", "UTC", "2026-01-01T00:00:00Z", "2026-01-26T09:00:00Z"},
			{"0 9 * * 1#2", "UTC", "2026-01-01T00:00:00Z", "2026-01-12T09:00:00Z"},
			{"0 9 * FEB 7", "UTC", "2026-01-01T00:00:00Z", "2026-02-01T09:00:00Z, 2026-02-08T09:00:00Z"},
			{"*/30 * * * * *", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T00:00:30Z, 2026-01-01T00:01:00Z"},
		} {
			count := strings.Count(c.want, ",") + 1
			p := w.previewed(fmt.Sprintf(`{"cronSchedule":%q,"timezone":%q,"from":%q,"count":%d}`, c.cron, c.zone, c.from, count))
			if got := strings.Join(p.lines(), ", "); got != c.want {
				t.Errorf("%s %s: got %s\nwant %s", c.cron, c.zone, got, c.want)
			}
		}
	})
}

func TestAPreviewBeginsNowAndShowsTen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		lines := w.previewed(`{"cronSchedule":"0 * * * *"}`).lines()
		if len(lines) != 10 || lines[0] != "2000-01-01T01:00:00Z" {
			t.Errorf("got %q, want ten times after now, 2000-01-01T00:00:00Z", lines)
		}
		for count, want := range map[string]int{"1": 1, "100": 100} {
			if got := len(w.previewed(`{"cronSchedule":"@hourly","count":` + count + `}`).Next); got != want {
				t.Errorf("count %s: got %d, want %d", count, got, want)
			}
		}
		if got := w.previewed(`{"cronSchedule":"@yearly","from":"9998-06-01T00:00:00Z"}`).lines(); len(got) != 1 {
			t.Errorf("got %q, want the last first of January that can be written", got)
		}
	})
}

func TestWhatCannotBePreviewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for body, named := range map[string]string{
			`{"cronSchedule":"0 0 30 2 *"}`:                                                   "body.cronSchedule",
			`{"cronSchedule":""}`:                                                             "body.cronSchedule",
			`{"cronSchedule":"* * * *","count":5}`:                                            "body.cronSchedule",
			`{"cronSchedule":"@daily","timezone":"Mars/Base"}`:                                "body.timezone",
			`{"cronSchedule":"@daily","count":0}`:                                             "body.count",
			`{"cronSchedule":"@daily","count":101}`:                                           "body.count",
			`{"cronSchedule":"@daily","from":"soon"}`:                                         "body.from",
			`{"cronSchedule":"@daily","executor":"cloud"}`:                                    "body.executor",
			`{"cronSchedule":"@daily","fireLocally":true}`:                                    "body.fireLocally",
			`{"cronSchedule":"@midnight","executor":"trigger"}`:                               "body.cronSchedule",
			`{"cronSchedule":"0 0 9 * * *","executor":"trigger"}`:                             "body.cronSchedule",
			`{"cronSchedule":"0 0 9 * * *","executor":"trigger","from":"2026-01-01T00:00Z5"}`: "body.cronSchedule body.from",
			`{"count":5}`:                     "body",
			`{"cronSchedule":"@daily","n":1}`: "body.n",
		} {
			p := wantProblem(t, body, w.call("POST", "/api/cron/preview", body), 422, "invalid", strings.Fields(named)...)
			if strings.Contains(body, "0 0 9") {
				contains(t, p.Detail, "fireLocally")
			}
		}
	})
}

func TestAPreviewSaysWhatTriggerDevDoesOtherwise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, c := range []struct {
			members string
			says    []string // one for each difference
		}{
			{`"cronSchedule":"0 9 * * *","timezone":"America/New_York"`, nil},
			{`"cronSchedule":"30 2 * * *","timezone":"America/New_York"`, nil}, // both move it by the hour
			{`"cronSchedule":"30 1,2 * * *","timezone":"Europe/Berlin","executor":"trigger"`, nil},
			{`"cronSchedule":"30 * * * *","timezone":"America/New_York"`, nil},
			{`"cronSchedule":"0 */2 * * *"`, nil},
			{`"cronSchedule":"30 0 * * *","timezone":"Asia/Kathmandu"`, nil},
			{`"cronSchedule":"0 9 * * 1#2"`, nil},
			{`"cronSchedule":"0 9 ? * 1#2"`, nil},
			{`"cronSchedule":"0 */2 * * *","timezone":"Europe/Berlin"`, []string{
				"on 2026-03-29 the clock leaves out 02:00 to 03:00", "on 2026-10-25 the clock shows twice 02:00 to 03:00"}},
			{`"cronSchedule":"0 0-23 * * *","timezone":"America/New_York"`, []string{"on 2026-03-08 the clock leaves out 02:00 to 03:00", "on 2026-11-01 the clock shows twice 01:00 to 02:00"}},
			{`"cronSchedule":"@daily","timezone":"America/Havana"`, []string{"on 2026-03-08 the clock leaves out 00:00 to 01:00"}},
			{`"cronSchedule":"45 1,2 * * *","timezone":"Australia/Lord_Howe"`, []string{"on 2026-04-05 the clock shows twice 01:30 to 02:00"}},
			{`"cronSchedule":"15 2 * * *","timezone":"Australia/Lord_Howe"`, []string{"on 2026-10-04 the clock leaves out 02:00 to 02:30"}},
			{`"cronSchedule":"0 9 15 * 1#2"`, []string{"day of month"}},
			{`"cronSchedule":"0 0 9 * * *"`, []string{"CRON expressions with seconds are not allowed"}},
			{`"cronSchedule":"0 0 9 * * *","executor":"trigger","fireLocally":true`, []string{"with fireLocally sidejob fires it itself"}},
			{`"cronSchedule":"0 9 * * 1#1,3#3"`, []string{"# in a list"}},
			{`"cronSchedule":"@annually","executor":"internal"`, []string{"@hourly, @daily"}},
		} {
			got := w.previewed(`{"from":"2026-01-01T00:00:00Z","count":1,` + c.members + `}`).Differences
			if len(got) != len(c.says) {
				t.Errorf("%s: got %q, want %d differences", c.members, got, len(c.says))
				continue
			}
			for i, says := range c.says {
				contains(t, got[i], says)
			}
		}
	})
}
