package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	durationShape = regexp.MustCompile(`^(\d+(w|d|hr|h|m|s))+$`)
	durationPart  = regexp.MustCompile(`(\d+)(w|d|hr|h|m|s)`)
	digitsOnly    = regexp.MustCompile(`^\d+$`)
	keyTTLShape   = regexp.MustCompile(`^(\d+)([smhd])$`)
)

// parseDuration reads the server's durations, such as 2h30m: whole numbers with
// w d h hr m s, nothing between them, at most 100 characters. Of a unit that occurs
// twice the first counts. Milliseconds, decimals and ISO 8601 are not among them.
func parseDuration(s string) (time.Duration, bool) {
	if len(s) > 100 || !durationShape.MatchString(s) {
		return 0, false
	}
	seen, total := map[time.Duration]bool{}, time.Duration(0)
	for _, part := range durationPart.FindAllStringSubmatch(s, -1) {
		unit := durationUnit(part[2])
		n, err := strconv.ParseInt(part[1], 10, 64)
		if err != nil || n > int64(math.MaxInt64/unit) {
			n = int64(math.MaxInt64 / unit)
		}
		if !seen[unit] {
			seen[unit] = true
			total = addCapped(total, time.Duration(n)*unit)
		}
	}
	return total, true
}

func durationUnit(name string) time.Duration {
	switch name {
	case "w":
		return 7 * 24 * time.Hour
	case "d":
		return 24 * time.Hour
	case "h", "hr":
		return time.Hour
	case "m":
		return time.Minute
	}
	return time.Second
}

func addCapped(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// keyLife is how long an idempotency key is held: one number with one unit, else
// the default of 30 days.
func keyLife(s string) time.Duration {
	found := keyTTLShape.FindStringSubmatch(s)
	if found == nil {
		return 30 * 24 * time.Hour
	}
	d, _ := parseDuration(found[0])
	return d
}

// writeDuration is how a ttl in seconds is kept: 600 is 10m. Zero is the empty
// text, no ttl.
func writeDuration(seconds int64) string {
	var b strings.Builder
	for _, unit := range []string{"w", "d", "h", "m", "s"} {
		size := int64(durationUnit(unit) / time.Second)
		if n := seconds / size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit)
			seconds -= n * size
		}
	}
	return b.String()
}

// errNoDelay is a delay that is no text and that no date can be made of.
var errNoDelay = errors.New("invalid delay")

// parseDelay reads the delay option as the server does. Nil is no delay: also the
// answer for a text that it does not understand, and for a date in the past. A
// number, null or a boolean is epoch milliseconds, even of the past.
func parseDelay(raw json.RawMessage, now instant) (*instant, error) {
	var value any
	if raw == nil || json.Unmarshal(raw, &value) != nil {
		return nil, nil
	}
	switch v := value.(type) {
	case string:
		return readDelay(v, now), nil
	case float64:
		if math.Abs(v) > 8.64e15 {
			return nil, errNoDelay
		}
		return new(instant(v)), nil
	case bool:
		if v {
			return new(instant(1)), nil
		}
		return new(instant(0)), nil
	case nil:
		return new(instant(0)), nil
	}
	return nil, errNoDelay
}

func readDelay(s string, now instant) *instant {
	if at, ok := parseDate(s); ok {
		if at <= now {
			return nil
		}
		return &at
	}
	if d, ok := parseDuration(s); ok {
		return new(now.plus(d))
	}
	return nil
}

// parseDate reads the dates that a JavaScript engine would and that clients send:
// the ISO forms, the usual texts with a month's name, and bare digits, which are
// years or months (60000 is a year, 5 is May 2001). The server's zone is UTC.
func parseDate(s string) (instant, bool) {
	s = strings.TrimSpace(s)
	if digitsOnly.MatchString(s) {
		return parseDigits(s)
	}
	for _, layout := range dateLayouts() {
		if t, err := time.Parse(layout, s); err == nil {
			return instant(t.UnixMilli()), true
		}
	}
	return 0, false
}

func dateLayouts() []string {
	return []string{
		time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04",
		"2006-01-02T15:04:05.999999999Z0700",
		"2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999 Z07:00",
		"2006-01-02 15:04:05.999999999 MST", "2006-01-02 15:04:05.999999999", "2006-01-02 15:04",
		time.DateOnly, "2006-01", "2006/1/2 15:04:05", "2006/1/2 15:04", "2006/1/2", "1/2/2006 15:04:05", "1/2/2006",
		time.RFC1123, time.RFC1123Z, time.RFC850, time.ANSIC, time.UnixDate,
		"Mon Jan 2 2006 15:04:05 GMT-0700", "Mon Jan 2 2006",
		"January 2, 2006 15:04:05", "January 2, 2006", "Jan 2, 2006 15:04:05", "Jan 2, 2006", "2 January 2006", "2 Jan 2006",
	}
}

func parseDigits(s string) (instant, bool) {
	n, err := strconv.Atoi(s)
	year := n
	switch {
	case err != nil || n > 275759 || n == 0 && len(s) < 4 || n > 12 && n < 32 && len(s) < 4:
		return 0, false
	case n <= 12 && len(s) < 4:
		return instant(time.Date(2001, time.Month(n), 1, 0, 0, 0, 0, time.UTC).UnixMilli()), true
	case n < 50 && len(s) < 3:
		year = 2000 + n
	case n < 100 && len(s) < 3:
		year = 1900 + n
	}
	return instant(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()), true
}
