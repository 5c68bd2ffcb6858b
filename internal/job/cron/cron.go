// Package cron reads cron expressions and says when they are next due.
//
// An expression has five fields (minute, hour, day of month, month, day of
// week), or six with seconds in front, or is an alias such as @daily. It means
// what it means to Trigger.dev, save that no due time is lost or doubled where
// clocks change:
//
//   - a fixed time that a clock skips runs once, later by as much as was skipped
//   - a fixed time that a clock shows twice runs the first time
//   - where the hour field starts with *, every moment at which the clock shows
//     a matching time runs, and no other
package cron

import (
	"strings"
	"time"
)

// Schedule is a parsed expression in its time zone. It never changes, so any
// number of goroutines may share it.
type Schedule struct {
	zone    *time.Location
	seconds bool // the expression has six fields
	fixed   bool // each time of day is due once a day, whatever the clock does

	// Bit n stands for the value n.
	second, minute, hour, month uint64

	days days
}

// HasSeconds reports whether the expression has a field for seconds, which
// Trigger.dev does not take.
func (s *Schedule) HasSeconds() bool { return s.seconds }

// Zone is the time zone by whose clock the schedule runs.
func (s *Schedule) Zone() *time.Location { return s.zone }

// Note tells what the clock does at a due time.
type Note string

const (
	Skipped  Note = "skipped hour"  // the time does not exist that day and was moved
	Repeated Note = "repeated hour" // the clock shows this time twice
)

// Error says what is wrong with an expression or a time zone.
type Error struct {
	Member string // the job's member: "cronSchedule" or "timezone"
	Field  string // the field of the expression, such as "minute"; else empty
	Why    string // what is wrong and what would be right
}

func (e *Error) Error() string {
	switch {
	case e.Field != "":
		return e.Field + ": " + e.Why
	case e.Member == memberZone:
		return "timezone: " + e.Why
	}
	return "cron expression: " + e.Why
}

const (
	memberCron = "cronSchedule"
	memberZone = "timezone"
)

// CheckRemote says why Trigger.dev would not take an expression that Parse
// takes: it wants exactly five fields with one space between them, knows fewer
// aliases, and does not have # in a list.
func CheckRemote(expr string) error {
	refuse := func(why string) error { return &Error{Member: memberCron, Why: why} }
	if strings.HasPrefix(expr, "@") {
		switch expr {
		case "@hourly", "@daily", "@weekly", "@monthly", "@yearly":
			return nil
		}
		return refuse("Trigger.dev knows @hourly, @daily, @weekly, @monthly and @yearly only")
	}
	if len(strings.Fields(expr)) > 5 {
		return refuse("CRON expressions with seconds are not allowed; Trigger.dev takes exactly five fields")
	}
	f := strings.Split(expr, " ")
	if len(f) != 5 || strings.Join(strings.Fields(expr), " ") != expr {
		return refuse("Trigger.dev takes exactly five fields with a single space between them")
	}
	if strings.Contains(f[4], "#") && strings.Contains(f[4], ",") {
		return &Error{Member: memberCron, Field: "day of week", Why: "Trigger.dev does not take # in a list"}
	}
	return nil
}
