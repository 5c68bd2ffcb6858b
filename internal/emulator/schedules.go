package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// upcomingTicks is how many coming times a scheduled run is told.
const upcomingTicks = 10

// schedule is one schedule, and its line in the journal.
type schedule struct {
	ID       string  `json:"id"`
	Env      env     `json:"env"` // the one environment that it is in
	Task     string  `json:"task"`
	Active   bool    `json:"active"`
	Cron     string  `json:"cron"`
	Zone     string  `json:"zone"`
	External *string `json:"external,omitempty"`
	Key      string  `json:"key"`
	OwnKey   bool    `json:"ownKey"` // the key was given by the user
	Window   string  `json:"window,omitempty"`
	Created  instant `json:"created"`
	Last     instant `json:"last,omitempty"` // nominal time of the last run
	Order    int     `json:"order"`          // of creation

	next  instant // nominal time of the next tick; 0: none
	alarm *alarm
}

var errTooFewFields = errors.New("too few fields")

// checkCron tells what is wrong with an expression: five fields between single
// blanks, or one @word.
func (e *Emulator) checkCron(cron, zone string) error {
	fields := strings.Split(cron, " ")
	switch {
	case len(fields) > 5:
		return errors.New("CRON expressions with seconds are not allowed")
	case len(fields) < 5 && !strings.HasPrefix(cron, "@"):
		return errTooFewFields
	case e.cfg.NextRun == nil:
		return nil
	}
	_, err := e.cfg.NextRun(cron, zone, e.clock.now().time())
	return err
}

// following is the tick after a moment; 0 where there is none.
func (e *Emulator) following(s *schedule, after instant) instant {
	if e.cfg.NextRun == nil {
		return 0
	}
	t, err := e.cfg.NextRun(s.Cron, s.Zone, after.time())
	if err != nil {
		e.log.Warn("schedule has no next run", "schedule", s.ID, "err", err)
		return 0
	}
	next := instant(t.UnixMilli())
	if next <= after {
		e.log.Warn("next run of a schedule is not in the future", "schedule", s.ID)
		return 0
	}
	return next
}

// arm sets the alarm for the tick after a moment. An inactive schedule ticks too,
// so that it goes on in step when it is activated.
func (e *Emulator) arm(s *schedule, after instant) {
	e.clock.drop(s.alarm)
	s.alarm, s.next = nil, e.following(s, after)
	if s.next != 0 {
		s.alarm = e.clock.at(s.next, func() { e.tick(s) })
	}
}

// tick makes the run of a nominal time, which is also the run's createdAt. After a
// long sleep of the machine it fires once, not for each tick missed.
func (e *Emulator) tick(s *schedule) {
	nominal := s.next
	if s.Active {
		e.fire(s, nominal)
	}
	e.arm(s, e.clock.now())
}

func (e *Emulator) fire(s *schedule, nominal instant) {
	e.create(s.Env, s.Task, order{
		payload: e.schedulePayload(s, nominal), payloadType: "application/super+json", schedule: s.ID, nominal: nominal,
	}, "")
	s.Last = nominal
	e.keep(s)
}

// schedulePayload is what a scheduled task is given, as the text in which it is
// stored: SuperJSON, which tells dates from other texts.
func (e *Emulator) schedulePayload(s *schedule, nominal instant) json.RawMessage {
	upcoming, isDate := []string{}, json.RawMessage(`["Date"]`)
	dates := []any{"timestamp", isDate}
	for at := nominal; len(upcoming) < upcomingTicks; {
		if at = e.following(s, at); at == 0 {
			break
		}
		dates = append(dates, fmt.Sprintf("upcoming.%d", len(upcoming)), isDate)
		upcoming = append(upcoming, at.iso())
	}
	var last, external json.RawMessage
	if s.Last != 0 {
		last, dates = quoted(s.Last.iso()), append(dates, "lastTimestamp", isDate)
	}
	if s.External != nil {
		external = quoted(*s.External)
	}
	payload := object("scheduleId", s.ID, "type", "IMPERATIVE", "timestamp", nominal.iso(), "lastTimestamp", last,
		"externalId", external, "timezone", s.Zone, "upcoming", upcoming)
	return quoted(string(object("json", payload, "meta", object("values", object(dates...), "v", 1))))
}

func (e *Emulator) keep(s *schedule) { e.journal.put(entry{Schedule: s}) }

// removeSchedule ends it for good. Its runs lose their schedule member.
func (e *Emulator) removeSchedule(s *schedule) {
	e.clock.drop(s.alarm)
	delete(e.sched, s.ID)
	e.journal.put(entry{Gone: s.ID})
}

// scheduleNamed finds a schedule of any environment by id or deduplication key.
func (e *Emulator) scheduleNamed(name string) *schedule {
	if s := e.sched[name]; s != nil || strings.HasPrefix(name, "sched_") {
		return s
	}
	return e.scheduleKeyed(name)
}

func (e *Emulator) scheduleKeyed(key string) *schedule {
	for _, s := range e.sched {
		if s.Key == key {
			return s
		}
	}
	return nil
}

// scheduleOf is the schedule member of a run, while its schedule exists.
func (e *Emulator) scheduleOf(r *run) json.RawMessage {
	s := e.sched[r.Schedule]
	if s == nil {
		return nil
	}
	return object("id", s.ID, "externalId", s.externalShown(), "deduplicationKey", s.keyShown(), "generator", s.generator())
}

func (s *schedule) generator() json.RawMessage {
	return object("type", "CRON", "expression", s.Cron, "description", describeCron(s.Cron))
}

func (s *schedule) externalShown() json.RawMessage {
	if s.External == nil {
		return nil
	}
	return quoted(*s.External)
}

// keyShown is the key if a user gave it.
func (s *schedule) keyShown() json.RawMessage {
	if !s.OwnKey {
		return nil
	}
	return quoted(s.Key)
}

// describeCron puts the commonest expressions into words; others it repeats.
func describeCron(cron string) string {
	f := strings.Fields(cron)
	if len(f) != 5 {
		return "Cron expression " + cron
	}
	minute, errM := strconv.Atoi(f[0])
	hour, errH := strconv.Atoi(f[1])
	days := f[2] == "*" && f[3] == "*"
	switch every, stepped := strings.CutPrefix(f[0], "*/"); {
	case cron == "* * * * *":
		return "Every minute"
	case stepped && f[1] == "*" && days && f[4] == "*":
		return "Every " + every + " minutes"
	case errM == nil && minute == 0 && f[1] == "*" && days && f[4] == "*":
		return "Every hour"
	case errM == nil && f[1] == "*" && days && f[4] == "*":
		return fmt.Sprintf("At %d minutes past the hour", minute)
	case errM == nil && errH == nil && days && f[4] == "*":
		return "At " + clockFace(hour, minute)
	case errM == nil && errH == nil && days && f[4] == "1-5":
		return "At " + clockFace(hour, minute) + ", Monday through Friday"
	}
	return "Cron expression " + cron
}

func clockFace(hour, minute int) string {
	half := "AM"
	if hour >= 12 {
		half = "PM"
	}
	return fmt.Sprintf("%02d:%02d %s", (hour+11)%12+1, minute, half)
}
