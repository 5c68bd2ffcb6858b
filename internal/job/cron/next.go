package cron

import (
	"math/bits"
	"sort"
	"time"
)

// The search keeps to the years that RFC 3339 can write, 1 to 9999, in seconds
// from 1970. They bound every loop here.
const (
	earliest = -62135596800
	latest   = 253402300800
)

// Next gives the first due time strictly after a time, in UTC. There always is
// one, but for times after the year 9999, where it is zero.
func (s *Schedule) Next(after time.Time) time.Time {
	t, _ := s.NextNoted(after)
	return t
}

// NextNoted is Next, and tells whether the clock skips or repeats that time.
func (s *Schedule) NextNoted(after time.Time) (time.Time, Note) {
	for from := max(after.Unix(), earliest) + 1; from < latest; {
		p := s.periodAt(from)
		if at, note, ok := s.nextIn(p, from); ok {
			return time.Unix(at, 0).UTC(), note
		}
		from = p.end
	}
	return time.Time{}, ""
}

// period is a stretch of time with one offset. Times are seconds from 1970, an
// offset is how many seconds local time is ahead of UTC. A wall time is what the
// clock shows, counted as if it were UTC.
type period struct {
	start, end            int64 // end is not in it
	before, offset, after int64 // offsets before start, in the period, from end on
}

// repeats reports whether the clock shows what it shows at a time also in the
// period before or after.
func (p period) repeats(at int64) bool {
	wall := at + p.offset
	return wall < p.start+p.before || wall >= p.end+p.after
}

func (s *Schedule) periodAt(at int64) period {
	start, end := time.Unix(at, 0).In(s.zone).ZoneBounds()
	p := period{start: earliest, end: latest, offset: s.offset(at)}
	p.before, p.after = p.offset, p.offset
	if !end.IsZero() {
		p.end = end.Unix()
		// Beyond its table Go takes a year to be 365 days, so that on the last
		// day of a leap year a period seems to have ended already.
		if p.end <= at {
			p.end += secondsPerDay
		}
		p.after = s.offset(p.end)
	}
	if !start.IsZero() {
		p.start = start.Unix()
		// Where a zone changed its offset and went on with its old rules, Go
		// may name the start of the year.
		p.start += int64(sort.Search(int(at-p.start), func(i int) bool { return s.offset(p.start+int64(i)) == p.offset }))
		p.before = s.offset(p.start - 1)
	}
	return p
}

func (s *Schedule) offset(at int64) int64 {
	_, n := time.Unix(at, 0).In(s.zone).Zone()
	return int64(n)
}

// nextIn gives the first due time of a period, from a time in it on.
func (s *Schedule) nextIn(p period, from int64) (int64, Note, bool) {
	lo := from + p.offset
	if s.fixed {
		lo = max(lo, p.start+p.before) // what was shown before start was due then
	}
	wall, found := s.nextWall(lo, p.end+p.offset)
	at := wall - p.offset
	if s.fixed && p.before < p.offset {
		// The clock skipped from start+before to start+offset. By the old offset
		// those wall times come within the length of the gap after start.
		gapEnd := min(p.start+p.offset, p.end+p.before)
		moved, ok := s.nextWall(from+p.before, gapEnd)
		if moved -= p.before; ok && (!found || moved < at) {
			return moved, Skipped, true
		}
	}
	if found && p.repeats(at) {
		return at, Repeated, true
	}
	return at, "", found
}

// nextWall gives the first matching wall time from lo on, before hi.
func (s *Schedule) nextWall(lo, hi int64) (int64, bool) {
	if lo >= hi {
		return 0, false
	}
	today, last := dayOf(lo), dayOf(hi-1)
	clock, ok := s.nextClock(int(lo - today*secondsPerDay))
	if !ok {
		today++
		clock, _ = s.nextClock(0)
	}
	day, ok := s.days.from(today, last, s.month)
	if day > today {
		clock, _ = s.nextClock(0)
	}
	wall := day*secondsPerDay + int64(clock)
	return wall, ok && wall < hi
}

// nextClock gives the first matching second of a day from a second on.
func (s *Schedule) nextClock(from int) (int, bool) {
	hour, minute, second := from/3600, from/60%60, from%60
	if s.hour>>hour&1 == 1 {
		if s.minute>>minute&1 == 1 {
			if sec, ok := least(s.second, second); ok {
				return hour*3600 + minute*60 + sec, true
			}
		}
		if m, ok := least(s.minute, minute+1); ok {
			return hour*3600 + m*60 + first(s.second), true
		}
	}
	h, ok := least(s.hour, hour+1)
	return h*3600 + first(s.minute)*60 + first(s.second), ok
}

// least gives the smallest value of a set from n on.
func least(set uint64, n int) (int, bool) {
	v := first(set >> n << n)
	return v, v < 64
}

// first gives the smallest value of a set, 64 for an empty one.
func first(set uint64) int { return bits.TrailingZeros64(set) }
