package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// jobScheduleCommand has the members of POST /api/jobs as flags. Only those given
// are sent, so that the server's and the registry's defaults hold for the rest.
type jobScheduleCommand struct {
	Type                         *string   `placeholder:"TYPE" help:"What work it is. Needed, unless --name says it."`
	Tag                          *string   `placeholder:"TAG" help:"Deduplication name; the type and a fresh UUID if not given."`
	Name                         *string   `placeholder:"NAME" help:"Name in the registry, which fills in what is not given."`
	UserID                       *int64    `placeholder:"N" help:"Whose job it is; 0 is the system."`
	Executor                     string    `enum:",internal,trigger" default:"" placeholder:"internal|trigger" help:"Who executes it: a worker of the host app, or Trigger.dev."`
	TriggerTaskID                *string   `placeholder:"ID" help:"The task on Trigger.dev."`
	Data                         *jsonFlag `placeholder:"JSON|@FILE" help:"The payload: JSON, @FILE, or @- for standard input."`
	Due                          *moment   `placeholder:"TIME" help:"Not to be executed before: RFC 3339, epoch milliseconds, or from now on, e.g. +1m or +2h30m."`
	RetryConfig                  *jsonFlag `placeholder:"JSON" help:"Retry policy: maxAttempts, minTimeoutInMs, maxTimeoutInMs, factor, randomize."`
	Persistent                   *bool     `negatable:"" help:"Never remove the row."`
	RemoveDelay                  *int64    `placeholder:"MS" help:"Milliseconds until the ended job may be removed; one hour if not given."`
	AutoRescheduleOnFailure      *bool     `negatable:"" help:"A failure makes a new row."`
	AutoRescheduleOnFailureDelay *int64    `placeholder:"MS" help:"The least milliseconds until that row is due."`
	CronSchedule                 *string   `placeholder:"CRON" help:"Makes it a recurring job, e.g. \"0 9 * * *\"; six fields have seconds in front."`
	Timezone                     *string   `placeholder:"ZONE" help:"IANA time zone of the cron schedule; UTC if not given."`
	Metadata                     *jsonFlag `placeholder:"JSON" help:"An object that goes with the run."`
	Labels                       []string  `placeholder:"A,B" help:"Searchable labels, sent to Trigger.dev as tags."`
	OnConflict                   string    `enum:",replace,replaceAll,keep,reject" default:"" placeholder:"POLICY" help:"What becomes of unfinished jobs of the tag: replace, replaceAll, keep or reject."`
	Misfire                      string    `enum:",once,skip,all" default:"" placeholder:"once|skip|all" help:"What becomes of times missed while nothing could begin: one run for all (once), none, or each."`
	MisfireLimit                 *int64    `placeholder:"N" help:"At most so many missed occurrences are made up for; 100 if not given."`
	FireLocally                  *bool     `negatable:"" help:"sidejob starts each run on Trigger.dev itself; the task need be no scheduled task."`
	waitFlag
	printFlags
	serverFlags
}

// Run schedules the job and shows it. A reply lost on the way is asked for again:
// the request carries a key by which the server knows it.
func (c *jobScheduleCommand) Run(ctx context.Context, std streams) error {
	server, err := c.caller(std)
	if err != nil {
		return err
	}
	body, err := c.body(std, time.Now())
	if err != nil {
		return err
	}
	got, err := server.do(ctx, c.ask(apiCall{method: http.MethodPost, path: "/api/jobs", body: body}))
	if err != nil {
		return err
	}
	j, err := printJob(std, c.printFlags, got)
	if err != nil {
		return err
	}
	if got.status == http.StatusOK {
		std.note("job %d of this tag was there already and is kept", j.ID)
	}
	return nil
}

// body has the members that were given.
func (c *jobScheduleCommand) body(std streams, at time.Time) (map[string]any, error) {
	m := members{}
	text := func(name string, s *string) { putGiven(m, name, s) }
	text("type", c.Type)
	text("tag", c.Tag)
	text("name", c.Name)
	text("triggerTaskId", c.TriggerTaskID)
	text("cronSchedule", c.CronSchedule)
	text("timezone", c.Timezone)
	putGiven(m, "userId", c.UserID)
	putGiven(m, "persistent", c.Persistent)
	putGiven(m, "removeDelay", c.RemoveDelay)
	putGiven(m, "autoRescheduleOnFailure", c.AutoRescheduleOnFailure)
	putGiven(m, "autoRescheduleOnFailureDelay", c.AutoRescheduleOnFailureDelay)
	putGiven(m, "misfireLimit", c.MisfireLimit)
	putGiven(m, "fireLocally", c.FireLocally)
	m.putWord("executor", c.Executor)
	m.putWord("onConflict", c.OnConflict)
	m.putWord("misfire", c.Misfire)
	if c.Labels != nil {
		m["labels"] = c.Labels
	}
	if c.Due != nil {
		m["due"] = c.Due.from(at)
	}
	return m, m.putJSON(std, map[string]*jsonFlag{"data": c.Data, "retryConfig": c.RetryConfig, "metadata": c.Metadata})
}

// members are those of a request.
type members map[string]any

// putGiven adds a member that was given, whatever its value.
func putGiven[T any](m members, name string, value *T) {
	if value != nil {
		m[name] = *value
	}
}

// putWord adds one of a set of words; the empty one was not given.
func (m members) putWord(name, word string) {
	if word != "" {
		m[name] = word
	}
}

func (m members) putJSON(std streams, values map[string]*jsonFlag) error {
	flags := map[string]string{"data": "data", "retryConfig": "retry-config", "metadata": "metadata"}
	for name, value := range values {
		if value == nil {
			continue
		}
		text, err := value.read(std, flags[name])
		if err != nil {
			return err
		}
		m[name] = json.RawMessage(text)
	}
	return nil
}

// moment is a time on the command line: RFC 3339, epoch milliseconds, or so long
// from now (+1m) or ago (-1h).
type moment struct {
	at       time.Time
	distance time.Duration // from now, where at is zero
}

// UnmarshalText reads a flag.
func (m *moment) UnmarshalText(text []byte) error {
	s := string(text)
	if strings.HasPrefix(s, "+") || strings.HasPrefix(s, "-") {
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("%q is no distance in time: it is like +90s, +5m or +2h30m", s)
		}
		m.distance = d
		return nil
	}
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		m.at = time.UnixMilli(ms)
		return nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return fmt.Errorf("%q is no time: it is RFC 3339 (2026-01-31T09:00:00Z), epoch milliseconds, or from now on (+5m)", s)
	}
	m.at = at
	return nil
}

// from is the time meant, as the API takes it.
func (m *moment) from(now time.Time) string {
	at := m.at
	if at.IsZero() {
		at = now.Add(m.distance)
	}
	return at.UTC().Format(timeLayout)
}
