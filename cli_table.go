package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// writeJob writes one job, a member to a line, leaving out what is not set.
func writeJob(out io.Writer, j shownJob, at time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, oneLine(value, 400))
		}
	}
	line("id", fmt.Sprint(j.ID))
	line("status", statusText(j))
	line("type", j.Type)
	line("name", j.Name)
	line("tag", j.Tag)
	line("labels", strings.Join(j.Labels, ", "))
	line("user", userText(j.UserID))
	line("executor", executorText(j))
	line("run", j.RunID)
	line("schedule", scheduleText(j))
	line("occurrence", occurrenceText(j))
	line("data", string(j.Data))
	line("created", timeText(j.Created, at))
	line("due", timeText(j.Due, at))
	line("started", timeText(j.Started, at))
	line("finished", finishedText(j, at))
	line("kept until", keptText(j))
	line("follows", followsText(j))
	line("result", resultText(j))
	line("error", j.Error)
	return w.Flush()
}

// writeJobs writes a list, a job to a line.
func writeJobs(out io.Writer, jobs []shownJob) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATUS\tEXECUTOR\tTYPE\tTAG\tDUE\tRUN")
	for _, j := range jobs {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", j.ID, j.Status, j.Executor, oneLine(j.Type, 40), oneLine(j.Tag, 60), stamp(j.Due), oneLine(j.RunID, 60))
	}
	return w.Flush()
}

// stamp is a time as the API shows it, empty where it is not set.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeLayout)
}

// timeText is a time, and how far it is from now.
func timeText(t, at time.Time) string {
	if t.IsZero() {
		return ""
	}
	return stamp(t) + " (" + distanceText(t, at) + ")"
}

func distanceText(t, at time.Time) string {
	if t.After(at) {
		return "in " + spanText(t.Sub(at))
	}
	return spanText(at.Sub(t)) + " ago"
}

// spanText is a length of time in two units at most.
func spanText(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", max(0, d.Milliseconds()))
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
}

func statusText(j shownJob) string {
	text := string(j.Status)
	if j.RawStatus != "" && j.RawStatus != text {
		text += ", on Trigger.dev " + j.RawStatus
	}
	if j.Paused {
		text += ", paused"
	}
	if !j.MissedAt.IsZero() && j.Finished.IsZero() {
		text += ", missed its time"
	}
	if j.CancelRequested && j.Finished.IsZero() {
		text += ", cancel requested"
	}
	if j.Attempt > 1 {
		text += fmt.Sprintf(", attempt %d", j.Attempt)
	}
	return text
}

func userText(id int64) string {
	if id == 0 {
		return "0 (the system)"
	}
	return fmt.Sprint(id)
}

func executorText(j shownJob) string {
	if j.Task == "" {
		return string(j.Executor)
	}
	return string(j.Executor) + ", task " + j.Task
}

func scheduleText(j shownJob) string {
	if j.CronSchedule == "" {
		return ""
	}
	text := j.CronSchedule + " (" + j.Timezone + ")"
	if j.Misfire != "" {
		text += ", misfire " + j.Misfire
	}
	if j.MisfireLimit != 0 {
		text += fmt.Sprintf(" up to %d", j.MisfireLimit)
	}
	if j.FireLocally {
		text += ", fired by sidejob"
	}
	if j.ScheduleID != "" {
		text += ", on Trigger.dev " + j.ScheduleID
	}
	return text
}

// occurrenceText names the recurring job that a later row belongs to.
func occurrenceText(j shownJob) string {
	if j.Recurring == 0 || j.Recurring == j.ID {
		return ""
	}
	return fmt.Sprintf("of recurring job %d", j.Recurring)
}

func finishedText(j shownJob, at time.Time) string {
	if j.Finished.IsZero() || j.Started.IsZero() {
		return timeText(j.Finished, at)
	}
	return timeText(j.Finished, at) + " after " + spanText(j.Finished.Sub(j.Started))
}

func keptText(j shownJob) string {
	switch {
	case j.Finished.IsZero():
		return ""
	case j.Persistent:
		return "for good"
	}
	return stamp(j.RemoveAt)
}

func followsText(j shownJob) string {
	if j.Rescheduled == 0 {
		return ""
	}
	return fmt.Sprintf("job %d", j.Rescheduled)
}

// resultText leaves out a null, which an unfinished job has as well.
func resultText(j shownJob) string {
	if j.Finished.IsZero() {
		return ""
	}
	return string(j.Result)
}
