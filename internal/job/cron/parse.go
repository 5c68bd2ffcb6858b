package cron

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// field is one of the six places of an expression and what may stand there.
type field struct {
	name     string
	min, max int
	names    string // three letters each, the first for min
	question bool   // ? may stand for *
}

var (
	secondField = field{name: "second", max: 59}
	minuteField = field{name: "minute", max: 59}
	hourField   = field{name: "hour", max: 23}
	monthField  = field{name: "month", min: 1, max: 12, names: "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"}
	dateField   = field{name: "day of month", min: 1, max: 31, question: true}
	// 0 and 7 are Sunday.
	weekdayField = field{name: "day of week", max: 7, names: "SUNMONTUEWEDTHUFRISAT", question: true}
)

// expand turns an alias into what it stands for.
func expand(alias string) (string, bool) {
	switch alias {
	case "@yearly", "@annually":
		return "0 0 1 1 *", true
	case "@monthly":
		return "0 0 1 * *", true
	case "@weekly":
		return "0 0 * * 0", true
	case "@daily", "@midnight":
		return "0 0 * * *", true
	case "@hourly":
		return "0 * * * *", true
	}
	return "", false
}

// Parse reads an expression that is to run by the clock of an IANA time zone;
// no zone is UTC. White space between and around fields may be of any length.
// An expression that can never be due is refused. Errors are of type *Error.
func Parse(expr, timezone string) (*Schedule, error) {
	zone, err := loadZone(timezone)
	if err != nil {
		return nil, err
	}
	parts := strings.Fields(expr)
	if len(parts) == 1 && strings.HasPrefix(parts[0], "@") {
		full, ok := expand(parts[0])
		if !ok {
			return nil, &Error{Member: memberCron, Why: fmt.Sprintf(
				"%.20q is not an alias; there are @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually", parts[0])}
		}
		parts = strings.Fields(full)
	}
	s := &Schedule{zone: zone, seconds: len(parts) == 6, second: 1}
	switch len(parts) {
	case 5:
	case 6:
		if s.second, err = secondField.set(parts[0]); err != nil {
			return nil, err
		}
		parts = parts[1:]
	default:
		return nil, &Error{Member: memberCron, Why: fmt.Sprintf(
			"has %d fields; it needs five (minute, hour, day of month, month, day of week), or six with seconds in front", len(parts))}
	}
	if s.minute, err = minuteField.set(parts[0]); err != nil {
		return nil, err
	}
	if s.hour, err = hourField.set(parts[1]); err != nil {
		return nil, err
	}
	if s.month, err = monthField.set(parts[3]); err != nil {
		return nil, err
	}
	if err = s.days.readDates(parts[2]); err != nil {
		return nil, err
	}
	if err = s.days.readWeekdays(parts[4]); err != nil {
		return nil, err
	}
	// A star that leaves one hour (*/24) names a time of day like any other. As
	// a recurring one it could be skipped for good: Havana's gap is at midnight.
	s.fixed = parts[1][0] != '*' || bits.OnesCount64(s.hour) == 1
	return s, s.possible()
}

// loadZone refuses, besides what Go does not know, the names that mean another
// thing on every machine or count leap seconds.
func loadZone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" || name == "localtime" || strings.HasPrefix(name, "right/") {
		return nil, &Error{Member: memberZone, Why: fmt.Sprintf("%.50q is not an IANA time zone such as Europe/Berlin or UTC", name)}
	}
	return zone, nil
}

// possible refuses dates that no chosen month has, whatever the day of week
// says, as Trigger.dev does.
func (s *Schedule) possible() error {
	if s.days.onLastDate {
		return nil
	}
	longest := 0
	for m := time.January; m <= time.December; m++ {
		if s.month&(1<<m) != 0 {
			longest = max(longest, daysIn(2000, m))
		}
	}
	if first := bits.TrailingZeros64(s.days.dates); first > longest {
		return dateField.wrong("%d never comes: the months given have at most %d days", first, longest)
	}
	return nil
}

func (d *days) readDates(text string) error {
	var rest []string
	for item := range strings.SplitSeq(text, ",") {
		if item == "L" {
			d.onLastDate = true
			continue
		}
		if strings.Contains(item, "L") {
			return dateField.wrong("%.20q: L, the last day of the month, stands alone", item)
		}
		rest = append(rest, item)
	}
	if rest == nil {
		return nil
	}
	set, err := dateField.set(strings.Join(rest, ","))
	d.dates, d.anyDate = set, set == dateField.all()
	return err
}

func (d *days) readWeekdays(text string) error {
	var set uint64
	for item := range strings.SplitSeq(text, ",") {
		name, count, counted := strings.Cut(item, "#")
		last := strings.HasSuffix(item, "L") && !counted
		switch {
		case last && item == "L":
			return weekdayField.wrong("L needs a weekday before it: 5L is the last Friday of the month")
		case last:
			day, err := weekdayField.value(strings.TrimSuffix(item, "L"))
			if err != nil {
				return err
			}
			d.onLast |= 1 << (day % 7)
		case counted:
			day, err := weekdayField.value(name)
			if err != nil {
				return err
			}
			if len(count) != 1 || count < "1" || count > "5" {
				return weekdayField.wrong("%.20q: after # comes 1 to 5: 1#2 is the second Monday of the month", item)
			}
			d.onNth[count[0]-'0'] |= 1 << (day % 7)
		default:
			lo, hi, step, err := weekdayField.span(item)
			if err != nil {
				return err
			}
			set |= spread(lo, hi, step)
			if hi == 7 && lo < 7 {
				set |= 1 // a range up to 7 has Sunday whatever its step, as at Trigger.dev
			}
		}
	}
	d.anyWeekday = set == weekdayField.all()
	d.weekdays = set&0x7f | set>>7
	return nil
}

// set reads a list of values, ranges and steps.
func (f field) set(list string) (uint64, error) {
	var set uint64
	for item := range strings.SplitSeq(list, ",") {
		lo, hi, step, err := f.span(item)
		if err != nil {
			return 0, err
		}
		set |= spread(lo, hi, step)
	}
	return set, nil
}

func spread(lo, hi, step int) (set uint64) {
	for v := lo; v <= hi; v += step {
		set |= 1 << v
	}
	return set
}

// span reads one item of a list: * 5 1-5 */10 5/10 1-5/2.
func (f field) span(item string) (lo, hi, step int, err error) {
	if item == "" {
		return 0, 0, 0, f.wrong("a value is missing; lists are written as 1,2,3")
	}
	base, every, stepped := strings.Cut(item, "/")
	step = 1
	if stepped {
		if step, err = number(every); err != nil || step < 1 {
			return 0, 0, 0, f.wrong("%.20q: the step after / is a number from 1", item)
		}
		step = min(step, f.max+1)
	}
	if base == "*" || base == "?" && f.question {
		return f.min, f.max, step, nil
	}
	first, last, ranged := strings.Cut(base, "-")
	if lo, err = f.value(first); err != nil {
		return 0, 0, 0, err
	}
	hi = lo
	if ranged {
		if hi, err = f.value(last); err != nil {
			return 0, 0, 0, err
		}
	} else if stepped {
		hi = f.max
	}
	if lo > hi {
		return 0, 0, 0, f.wrong("%.20q runs backwards; write it as two, such as %d-%d,%d-%d", item, lo, f.max, f.min, hi)
	}
	return lo, hi, step, nil
}

// value reads a number or a name.
func (f field) value(text string) (int, error) {
	if len(text) == 3 {
		for i := 0; i < len(f.names); i += 3 {
			if strings.EqualFold(f.names[i:i+3], text) {
				return f.min + i/3, nil
			}
		}
	}
	n, err := number(text)
	switch {
	case err != nil && f.names != "":
		return 0, f.wrong("%.20q is neither a number %d-%d nor a name such as %s", text, f.min, f.max, f.names[3:6])
	case err != nil:
		return 0, f.wrong("%.20q is not a number %d-%d", text, f.min, f.max)
	case n < f.min || n > f.max:
		return 0, f.wrong("%.20s is out of range %d-%d", text, f.min, f.max)
	}
	return n, nil
}

// all is the set of every value of the field.
func (f field) all() uint64 { return 1<<(f.max+1) - 1<<f.min }

func (f field) wrong(format string, args ...any) error {
	return &Error{Member: memberCron, Field: f.name, Why: fmt.Sprintf(format, args...)}
}

// number reads digits; a sign is no digit.
func number(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n), err
}
