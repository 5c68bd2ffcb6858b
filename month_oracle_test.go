package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"sidejob/internal/job"
	"sidejob/internal/job/cron"
)

// firing is a row as it must be.
type firing struct {
	due    time.Time
	status string
}

// nominal are the nominal times of a job from one time to another, both included.
func (m *month) nominal(j *ticking, from, to time.Time) (times []time.Time) {
	s, err := cron.Parse(j.cron, j.zone)
	if err != nil {
		m.t.Fatalf("%s: %v", j.tag, err)
	}
	for at := s.Next(from.Add(-time.Millisecond)); !at.After(to); at = s.Next(at) {
		times = append(times, at)
	}
	return times
}

// first is the first nominal time from a time on.
func (m *month) first(j *ticking, from time.Time) time.Time {
	for span := 24 * time.Hour; ; span *= 2 {
		if times := m.nominal(j, from, from.Add(span)); len(times) > 0 {
			return times[0]
		}
	}
}

// opens is when work of a job can begin, from a time on: sidejob is up and the job
// not paused. There is no such time after the month.
func (m *month) opens(j *ticking, at time.Time) (time.Time, bool) {
	for _, up := range m.stretches {
		from := at
		if from.Before(up.from) {
			from = up.from
		}
		for _, pause := range j.pauses {
			if !from.Before(pause.from) && from.Before(pause.to) {
				from = pause.to
			}
		}
		if from.Before(up.to) {
			return from, true
		}
	}
	return time.Time{}, false
}

// ends is when an occurrence that begins at a time ends, and how: a worker that
// vanishes or a crash leave it to the next try once the lease has run out.
func (m *month) ends(j *ticking, due, at time.Time) (end time.Time, status string) {
	for attempt := 1; ; attempt++ {
		does := mannerOf(j.tag, due, attempt)
		up := m.stretches[slices.IndexFunc(m.stretches, func(s stretch) bool { return at.Before(s.to) })]
		last := up.to
		if up.drained {
			last = last.Add(m.cfg.drain)
		}
		end = at.Add(workTakes)
		switch {
		case does == "vanish":
			m.met["a worker vanished"]++
		case end.After(last):
			m.met["a crash in the midst of work"]++
		case does == "fail":
			return end, "FAILED"
		default:
			return end, "COMPLETED"
		}
		var again bool
		if at, again = m.opens(j, at.Add(workLease)); !again {
			return time.Time{}, "PENDING"
		}
	}
}

// fires is which nominal time an occurrence that waits stands for when work can
// begin, as the policy says; one after that where it is left out.
func (m *month) fires(j *ticking, due, at time.Time) time.Time {
	passed := m.nominal(j, due, at)
	switch {
	case j.misfire == job.FireSkip:
		recent := slices.IndexFunc(passed, func(n time.Time) bool { return at.Sub(n) <= time.Minute })
		if recent < 0 {
			m.met["left out by skip"]++
			return m.first(j, at)
		}
		return passed[len(passed)-1]
	case j.misfire == job.FireAll:
		limit := j.limit
		if limit == 0 {
			limit = 100
		}
		if len(passed) > limit {
			m.met["left out by the limit"]++
			return passed[len(passed)-limit]
		}
		if len(passed) > 1 {
			m.met["made up for"]++
		}
	case len(passed) > 1:
		m.met["once for all"]++
	}
	return due
}

// foresee is every row that a job must have, oldest first.
func (m *month) foresee(j *ticking) (rows []firing) {
	due := m.first(j, j.from)
	for {
		at, can := m.opens(j, due)
		if !can || !j.until.IsZero() && !at.Before(j.until) {
			break
		}
		if due = m.fires(j, due, at); due.After(at) {
			continue
		}
		end, status := at, "COMPLETED"
		switch {
		case j.task == "bad":
			status = "FAILED"
		case !j.locally:
			end, status = m.ends(j, due, at)
		}
		rows = append(rows, firing{due, status})
		if !j.until.IsZero() && end.After(j.until) {
			m.met["replaced at work"]++
			return rows // the tag was taken while it was at work
		}
		after := due
		if j.misfire != job.FireAll && end.After(due) {
			after = end
		}
		due = m.first(j, after.Add(time.Second).Truncate(time.Second))
	}
	if j.until.IsZero() {
		return append(rows, firing{due, "PENDING"})
	}
	m.met["replaced while it waits"]++
	return append(rows, firing{due, "CANCELED"})
}

// rowsOf are the rows of a job, oldest first, the schedule itself last. Two jobs of
// one tag share the rows between them.
func (m *month) rowsOf(j *ticking) (rows []seenJob) {
	chain := map[int64]bool{j.id: true}
	var schedule []seenJob
	for _, row := range m.list("tag=" + url.QueryEscape(j.tag)) {
		switch {
		case j.locally && row.ID == j.id:
			schedule = append(schedule, row)
		case chain[row.ID] || chain[row.RescheduledFromJob]:
			chain[row.ID] = true
			rows = append(rows, row)
		}
	}
	return append(rows, schedule...)
}

// wantEveryNominalTime compares the rows of each job with what had to be.
func (m *month) wantEveryNominalTime() {
	m.t.Helper()
	runs, total, belong := map[string]bool{}, 0, 0
	for _, j := range m.recurring {
		rows, want := m.rowsOf(j), m.foresee(j)
		belong += len(rows)
		var got []firing
		for i, row := range rows {
			got = append(got, firing{row.Due, row.Status})
			m.wantChained(j, rows, i)
			if row.TriggerRunID != "" {
				runs[row.TriggerRunID], total = true, total+1
			}
		}
		m.wantSame(j, got, want)
	}
	if all := len(m.list("type=work")); all != belong {
		m.t.Errorf("there are %d rows, %d of which belong to recurring jobs; want all", all, belong)
	}
	if there := len(m.truth()); len(runs) != total || there != total {
		m.t.Errorf("%d rows have %d runs, and there are %d on Trigger.dev; want one each", total, len(runs), there)
	}
}

// wantChained checks whom a row follows: the one before, or the schedule.
func (m *month) wantChained(j *ticking, rows []seenJob, i int) {
	m.t.Helper()
	var follows int64
	switch {
	case j.locally && rows[i].ID != j.id:
		follows = j.id
	case !j.locally && i > 0:
		follows = rows[i-1].ID
	}
	if got := rows[i].RescheduledFromJob; got != follows {
		m.t.Errorf("%s: job %d, due %s, follows %d; want %d", j.tag, rows[i].ID, rows[i].Due, got, follows)
	}
}

// wantSame tells the first differences.
func (m *month) wantSame(j *ticking, got, want []firing) {
	m.t.Helper()
	m.met["rows"] += len(got)
	if slices.Equal(got, want) {
		return
	}
	show := func(list, other []firing) string {
		var lines []string
		for _, f := range list {
			if !slices.Contains(other, f) {
				lines = append(lines, f.due.Format(time.RFC3339)+" "+f.status)
			}
		}
		return fmt.Sprintf("%d: %s", len(lines), strings.Join(lines[:min(len(lines), 5)], ", "))
	}
	m.t.Errorf("%s, from %s: got %d rows, want %d; not wanted %s; missing %s",
		j.tag, j.from, len(got), len(want), show(got, want), show(want, got))
}

// wantClockChanges checks the nights in which clocks change, by the hand of who wrote
// them down: what fires within two hours of a time is that time alone.
func (m *month) wantClockChanges(season string) {
	m.t.Helper()
	for _, c := range []struct{ season, zone, cron, at string }{
		{"spring", "America/New_York", "15 2 * * *", "2001-04-01T07:15:00Z"},    // 03:15, for the clock skips 02:15
		{"spring", "America/New_York", "45 1 * * *", "2001-04-01T06:45:00Z"},    // as every day
		{"spring", "Europe/Berlin", "15 2 * * *", "2001-03-25T01:15:00Z"},       // 03:15
		{"spring", "Australia/Lord_Howe", "45 1 * * *", "2001-03-24T14:45:00Z"}, // the first of two, half an hour apart
		{"spring", "Australia/Lord_Howe", "15 2 * * *", "2001-03-24T15:45:00Z"},
		{"autumn", "America/New_York", "45 1 * * *", "2001-10-28T05:45:00Z"}, // the first of two
		{"autumn", "America/New_York", "15 2 * * *", "2001-10-28T07:15:00Z"},
		{"autumn", "Europe/Berlin", "15 2 * * *", "2001-10-28T00:15:00Z"},       // the first of two
		{"autumn", "Australia/Lord_Howe", "15 2 * * *", "2001-10-27T15:45:00Z"}, // 02:45
		{"autumn", "Australia/Lord_Howe", "45 1 * * *", "2001-10-27T15:15:00Z"},
	} {
		for _, j := range m.recurring {
			if c.season != season || j.zone != c.zone || j.cron != c.cron || j.misfire != job.FireAll {
				continue
			}
			at := instantOf(m.t, c.at)
			var near []string
			for _, row := range m.rowsOf(j) {
				if row.Due.Sub(at).Abs() <= 2*time.Hour {
					near = append(near, row.Due.Format(time.RFC3339))
				}
			}
			if !slices.Equal(near, []string{c.at}) {
				m.t.Errorf("%s: about %s it fired %q, want that time alone", j.tag, c.at, near)
			}
			m.met["clocks changed"]++
		}
	}
}

// wantEachDoneOnce checks what the workers were told: no occurrence was taken from
// them twice.
func (m *month) wantEachDoneOnce() {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for which, times := range m.done {
		if times != 1 {
			m.t.Errorf("%s was done %d times", which, times)
		}
	}
}

// wantTroubles checks that the month had them all.
func (m *month) wantTroubles() {
	m.t.Helper()
	m.t.Logf("%v", m.met)
	for _, trouble := range []string{
		"a worker vanished", "a crash in the midst of work", "left out by skip", "left out by the limit", "made up for", "once for all",
		"replaced while it waits", "replaced at work", "clocks changed",
	} {
		if m.met[trouble] == 0 {
			m.t.Errorf("never: %s", trouble)
		}
	}
}
