package cron

import (
	"math/bits"
	"time"
)

// days is what an expression says about the day: day of month and day of week.
type days struct {
	dates      uint64 // bit n: the nth of the month
	onLastDate bool   // the last day of the month (L)
	anyDate    bool   // dates restricts nothing

	// Bit n of these stands for time.Weekday(n).
	weekdays   uint64
	onNth      [6]uint64 // the nth such weekday of the month (1#2), from 1
	onLast     uint64    // the last such weekday of the month (1L)
	anyWeekday bool      // weekdays restricts nothing
}

// in gives the days of a month, bit n for the nth. Where both fields restrict
// the day, either is enough.
func (d *days) in(year int, month time.Month) uint64 {
	size := daysIn(year, month)
	dates := d.dates
	if d.onLastDate {
		dates |= 1 << size
	}
	dates &= 1<<(size+1) - 1
	switch {
	case d.anyWeekday:
		return dates
	case d.anyDate:
		return d.byWeekday(year, month, size)
	}
	return dates | d.byWeekday(year, month, size)
}

func (d *days) byWeekday(year int, month time.Month, size int) uint64 {
	var set uint64
	weekday := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC).Weekday()
	for date := 1; date <= size; date++ {
		due := d.weekdays | d.onNth[(date+6)/7]
		if date+7 > size {
			due |= d.onLast
		}
		set |= due >> weekday & 1 << date
		weekday = (weekday + 1) % 7
	}
	return set
}

// from gives the first day from lo to hi that one of the months has, all
// three days counted from 1970-01-01.
func (d *days) from(lo, hi int64, months uint64) (int64, bool) {
	year, month, date := time.Unix(lo*secondsPerDay, 0).UTC().Date()
	for begin := lo; begin <= hi; begin = dayNumber(year, month, 1) {
		if months>>month&1 == 1 {
			if left := d.in(year, month) >> date << date; left != 0 {
				day := dayNumber(year, month, bits.TrailingZeros64(left))
				return day, day <= hi
			}
		}
		date = 1
		if month++; month > time.December {
			year, month = year+1, time.January
		}
	}
	return 0, false
}

const secondsPerDay = 24 * 60 * 60

// dayOf is the day of a wall time.
func dayOf(wall int64) int64 {
	day := wall / secondsPerDay
	if wall%secondsPerDay < 0 {
		day--
	}
	return day
}

func dayNumber(year int, month time.Month, date int) int64 {
	return dayOf(time.Date(year, month, date, 0, 0, 0, 0, time.UTC).Unix())
}

func daysIn(year int, month time.Month) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
