package cron

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	_ "time/tzdata"
)

// rows reads a table of testdata: a row a line, columns parted by |.
func rows(t *testing.T, name string, columns int) [][]string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for line := range strings.Lines(string(text)) {
		if line == "\n" || line[0] == '#' {
			continue
		}
		row := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		if len(row) != columns {
			t.Fatalf("%s: %d columns, want %d: %s", name, len(row), columns, line)
		}
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		all = append(all, row)
	}
	return all
}

func parse(t *testing.T, expr, zone string) *Schedule {
	t.Helper()
	s, err := Parse(expr, zone)
	if err != nil {
		t.Fatalf("Parse(%q, %q): %v", expr, zone, err)
	}
	return s
}

func instant(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestGoldenVectors(t *testing.T) {
	marks := map[string]Note{"": "", "~": Skipped, "=": Repeated}
	for _, row := range rows(t, "vectors.txt", 5) {
		expr, zone, after, due, shows := row[0], row[1], row[2], row[3], row[4]
		t.Run(expr+" "+zone+": "+shows, func(t *testing.T) {
			s := parse(t, expr, zone)
			from := instant(t, after)
			for want := range strings.SplitSeq(due, ", ") {
				text, mark, _ := strings.Cut(want, " ")
				wantAt, wantNote := instant(t, text), marks[mark]
				if local := wantAt.In(s.zone).Format(time.RFC3339); local != text {
					t.Fatalf("the table says %s where the clock shows %s", text, local)
				}
				got, note := s.NextNoted(from)
				if !got.Equal(wantAt) || note != wantNote {
					t.Fatalf("after %v: got %s %q, want %s %q", from, got.In(s.zone).Format(time.RFC3339), note, text, wantNote)
				}
				from = got
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for _, row := range rows(t, "refused.txt", 4) {
		expr, zone, member, want := row[0], row[1], row[2], row[3]
		t.Run(expr+" "+zone, func(t *testing.T) {
			_, err := Parse(expr, zone)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want an *Error: %s", err, want)
			}
			if e.Error() != want || e.Member != member {
				t.Errorf("got %s (%s)\nwant %s (%s)", e, e.Member, want, member)
			}
		})
	}
}

func TestWhatTriggerDevTakes(t *testing.T) {
	taken := []string{
		"* * * * *", "*/5 0-6 1,L * MON-FRI", "0 0 * * 1#2", "0 0 * * 1L,5L", "0 0 ? * ?",
		"@hourly", "@daily", "@weekly", "@monthly", "@yearly",
	}
	for _, expr := range taken {
		if err := CheckRemote(expr); err != nil {
			t.Errorf("CheckRemote(%q): %v, want it taken", expr, err)
		}
		parse(t, expr, "UTC")
	}
	refused := map[string]string{
		"0 * * * * *":     "CRON expressions with seconds are not allowed",
		"*  * * * *":      "single space",
		" * * * * *":      "single space",
		"* * * * * ":      "single space",
		"*\t* * * *":      "single space",
		"@annually":       "knows @hourly",
		"@midnight":       "knows @hourly",
		"0 0 * * 1#1,3#3": "# in a list",
	}
	for expr, want := range refused {
		err := CheckRemote(expr)
		var e *Error
		if !errors.As(err, &e) || e.Member != "cronSchedule" || !strings.Contains(e.Error(), want) {
			t.Errorf("CheckRemote(%q): got %v, want a text with %q", expr, err, want)
		}
		parse(t, expr, "UTC")
	}
	for _, expr := range []string{"", "* * * *", "@every 5m"} {
		if CheckRemote(expr) == nil {
			t.Errorf("CheckRemote(%q): got nil, want an error", expr)
		}
	}
}

func TestSecondsAreNoticed(t *testing.T) {
	for expr, want := range map[string]bool{"0 * * * * *": true, "* * * * *": false, "@hourly": false} {
		if got := parse(t, expr, "UTC").HasSeconds(); got != want {
			t.Errorf("HasSeconds of %q: got %v, want %v", expr, got, want)
		}
	}
}

func TestNoZoneIsUTC(t *testing.T) {
	after := instant(t, "2026-01-01T00:00:00Z")
	got, want := parse(t, "0 9 * * *", "").Next(after), instant(t, "2026-01-01T09:00:00Z")
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTimesAtTheEndsOfTheCalendar(t *testing.T) {
	s := parse(t, "0 0 1 1 *", "America/New_York")
	for _, c := range []struct {
		name  string
		after time.Time
		year  int
	}{
		{"long before the calendar", time.Unix(-1<<60, 0), 1},
		{"the zero time", time.Time{}, 1},
		{"before zones had rules", time.Date(1500, 6, 1, 0, 0, 0, 0, time.UTC), 1501},
		{"a far year", time.Date(9998, 6, 1, 0, 0, 0, 0, time.UTC), 9999},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := s.Next(c.after); got.In(s.zone).Year() != c.year {
				t.Errorf("got %v, want the first moment of the year %d", got, c.year)
			}
		})
	}
	for _, after := range []time.Time{time.Date(9999, 12, 31, 12, 0, 0, 0, time.UTC), time.Unix(1<<60, 0)} {
		if got := s.Next(after); !got.IsZero() {
			t.Errorf("after %d: got %v, want the zero time", after.Unix(), got)
		}
	}
}

func TestOneScheduleServesManyAtOnce(t *testing.T) {
	s := parse(t, "30 2 * * 1L", "Europe/Berlin")
	after := instant(t, "2026-01-01T00:00:00Z")
	want := s.Next(after)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if got := s.Next(after); got != want {
					t.Errorf("got %v, want %v", got, want)
				}
			}
		})
	}
	wg.Wait()
}
