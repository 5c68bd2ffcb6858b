package job

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the transition table anew")

const transitionsFile = "../../testdata/transitions.txt"

const transitionsLegend = `Each row is a state, each column something that happens; the cell is the state that
the job is in afterwards. Blank: nothing changes. ` + "`·`" + `: the state stays, the row notes
something. refused: the request is answered with an error. new: a row is made beside
this one. END is COMPLETED, FAILED or CANCELED, and the state of that name. What a
worker does (claim to release) is refused on a Trigger.dev job. Of a recurring internal
job the row is one occurrence, and the new row the next one; of a recurring Trigger.dev
job the row is the schedule, and the new row a run of it. A schedule that was never sent
to Trigger.dev is canceled at once.
`

// column is something that happens to jobs. with gives the job a property that
// matters for it.
type column struct {
	head   string
	events func(Job) []Event
	with   func(*Job)
}

func TestTransitionTable(t *testing.T) {
	var text strings.Builder
	text.WriteString(transitionsLegend)
	writeTable(t, &text, "Trigger.dev jobs, as sidejob and its callers act on them", triggerSamples(t), sidejobColumns())
	writeTable(t, &text, "Trigger.dev jobs, as Trigger.dev speaks of the run", triggerSamples(t), remoteColumns())
	writeTable(t, &text, "Internal jobs", internalSamples(t), internalColumns())
	writeTable(t, &text, "Recurring internal jobs", recurringSamples(t), recurringColumns())
	schedules := scheduleSamples(t)
	schedules[0].job = after(t, schedules[0].job, send(), unreached(true))
	writeTable(t, &text, "Schedules on Trigger.dev", schedules, scheduleColumns())
	writeTable(t, &text, "Schedules of Trigger.dev jobs that sidejob fires", localSamples(t), localColumns())
	if *update {
		if err := os.WriteFile(transitionsFile, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(transitionsFile)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the transition table; if it is meant to change, run this test with -update", text.String(), string(want))
}

// one is a column of one event, always the same.
func one(head string, ev Event) column {
	return column{head: head, events: func(Job) []Event { return []Event{ev} }}
}

func sidejobColumns() []column {
	afterHold := func(j Job) []Event { return []Event{at(j.Updated.Add(time.Minute), send())} }
	return []column{
		one("cancel", cancel("by a user")),
		{head: "send", events: afterHold},
		one("submitted", submitted()),
		one("refused", rejected()),
		one("unreached, in doubt", unreached(true)),
		one("unreached, not sent", unreached(false)),
		one("stopping", Event{Kind: Stopping, NextTry: second(9000)}),
		one("retry", Event{Kind: Retry, Key: "job-again"}),
	}
}

func remoteColumns() []column {
	again := func(r *Run) { r.Attempts = 1 }
	return []column{
		one("told QUEUED", told("QUEUED")),
		one("told EXECUTING", told("EXECUTING")),
		one("told END", told("END")),
		one("seen QUEUED", seen("QUEUED")),
		one("seen QUEUED, tried before", seen("QUEUED", again)),
		one("seen EXECUTING", seen("EXECUTING")),
		one("seen END", seen("END")),
		one("seen another word", seen("LEVITATING")),
		one("missing once", notFound(second(1000), true)),
		{head: "missing enough", events: func(Job) []Event { return lost() }},
	}
}

func internalColumns() []column {
	soon := func(Job) []Event { return []Event{at(second(-1), claim())} }
	late := func(j Job) []Event { return []Event{at(j.Updated.Add(hold), leaseLost())} }
	retries := func(j *Job) { j.Retry = &RetryConfig{MaxAttempts: 5} }
	return []column{
		{head: "claim early", events: soon},
		one("claim", claim()),
		one("renew", renew()),
		one("release", release()),
		one("complete", complete(`1`)),
		one("complete, no token", Event{Kind: Complete}),
		one("fail", failure(`"no"`)),
		{head: "fail, tries left", events: one("", failure(`"no"`)).events, with: retries},
		{head: "fail, reschedules", events: one("", failure(`"no"`)).events, with: func(j *Job) { j.AutoReschedule = true }},
		{head: "lease lost", events: late},
		{head: "lost too often", events: late, with: func(j *Job) { j.Attempt = MaxLostLeases }},
		one("cancel", cancel("by a user")),
		one("retry", Event{Kind: Retry}),
	}
}

func recurringColumns() []column {
	late := func(j Job) []Event { return []Event{at(j.Due.Add(2*Grace), missed())} }
	lost := func(j Job) []Event { return []Event{at(j.Updated.Add(hold), leaseLost())} }
	return []column{
		one("claim", claim()),
		one("release", release()),
		one("complete", complete(`1`)),
		one("fail", failure(`"no"`)),
		{head: "lost too often", events: lost, with: func(j *Job) { j.Attempt = MaxLostLeases }},
		one("cancel", cancel("by a user")),
		one("end", ended("by a user")),
		one("pause", pause()),
		one("resume", resume()),
		{head: "missed", events: late},
		one("retry", Event{Kind: Retry}),
	}
}

func scheduleColumns() []column {
	late := func(j Job) []Event { return []Event{at(j.Due.Add(FireGrace), missed())} }
	run := func(j Job) []Event { return []Event{fired("run_9", j.Due)} }
	replaced := cancel(ReplacedReason)
	replaced.Replaced, replaced.CarriedOver = true, true
	return []column{
		one("cancel", cancel("by a user")),
		one("cancel, carried over", replaced),
		one("end", ended("by a user")),
		one("pause", pause()),
		one("resume", resume()),
		one("send", send()),
		one("scheduled", scheduled(true)),
		one("scheduled, not active", scheduled(false)),
		one("drifted", drifted()),
		one("unscheduled", unscheduled()),
		one("refused", rejected()),
		one("unreached, in doubt", unreached(true)),
		{head: "fired", events: run},
		{head: "missed", events: late},
		one("retry", Event{Kind: Retry, Key: "job-again"}),
	}
}

func localColumns() []column {
	late := func(j Job) []Event { return []Event{at(j.Due.Add(2*Grace), missed())} }
	run := func(j Job) []Event { return []Event{at(j.Due, fire())} }
	return []column{
		one("cancel", cancel("by a user")),
		one("end", ended("by a user")),
		one("pause", pause()),
		one("resume", resume()),
		{head: "fired", events: run},
		{head: "missed", events: late},
		one("retry", Event{Kind: Retry, Key: "job-again"}),
	}
}

// writeTable writes one Markdown table. Columns of END stand for the three ends and
// are only written when the three agree.
func writeTable(t *testing.T, text *strings.Builder, title string, rows []sample, columns []column) {
	t.Helper()
	table := [][]string{{"state"}}
	for _, c := range columns {
		table[0] = append(table[0], c.head)
	}
	for _, row := range rows {
		hasState(t, row.job, row.state)
		line := []string{string(row.state)}
		for _, c := range columns {
			line = append(line, cell(t, row, c))
		}
		table = append(table, line)
	}
	fmt.Fprintf(text, "\n### %s\n\n%s", title, markdown(table))
}

func cell(t *testing.T, row sample, c column) string {
	t.Helper()
	j := row.job
	if c.with != nil {
		c.with(&j)
	}
	events := c.events(j)
	if !strings.HasSuffix(c.head, " END") {
		return outcome(t, j, events)
	}
	cells := map[string]bool{}
	for word, state := range map[string]State{"COMPLETED": StateCompleted, "FAILED": StateFailed, "CANCELED": StateCanceled} {
		ev := events[0]
		ev.Run.Raw = word
		cells[strings.Replace(outcome(t, j, []Event{ev}), string(state), "END", 1)] = true
	}
	if len(cells) != 1 {
		t.Fatalf("%s on a job that is %s: the ends differ, give them columns of their own: %v", c.head, row.state, cells)
	}
	for one := range cells {
		return one
	}
	return ""
}

// outcome is the cell for a job to which all of that happens.
func outcome(t *testing.T, j Job, events []Event) string {
	t.Helper()
	before, wrote, follows := j.State(), false, false
	for _, ev := range events {
		step, err := Next(j, timed(j, ev))
		if errors.Is(err, ErrRefused) {
			return "refused"
		}
		if err != nil {
			t.Fatalf("%s on a job that is %s: %v", ev.Kind, before, err)
		}
		j, wrote, follows = step.Job, wrote || step.Changed, follows || step.Follow != nil
	}
	parts := []string{}
	switch {
	case j.State() != before:
		parts = append(parts, string(j.State()))
	case wrote:
		parts = append(parts, "·")
	}
	if follows {
		parts = append(parts, "new")
	}
	return strings.Join(parts, " + ")
}

func markdown(table [][]string) string {
	widths := make([]int, len(table[0]))
	for _, line := range table {
		for i, text := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	var b strings.Builder
	for n, line := range table {
		for i, text := range line {
			fmt.Fprintf(&b, "| %-*s ", widths[i], text)
		}
		b.WriteString("|\n")
		if n == 0 {
			for _, w := range widths {
				b.WriteString("|" + strings.Repeat("-", w+2))
			}
			b.WriteString("|\n")
		}
	}
	return b.String()
}
