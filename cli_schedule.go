package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"sidejob/internal/job"
)

// scheduleCommands are about recurring jobs.
type scheduleCommands struct {
	List    scheduleListCommand    `cmd:"" help:"List the recurring jobs, soonest due first."`
	Preview schedulePreviewCommand `cmd:"" help:"Show when a cron expression is due. Needs no server."`
	Pause   schedulePauseCommand   `cmd:"" help:"Let a recurring job rest."`
	Resume  scheduleResumeCommand  `cmd:"" help:"Let a paused one go on."`
	Delete  scheduleDeleteCommand  `cmd:"" help:"End a recurring job. An occurrence that runs goes on."`
}

type scheduleListCommand struct {
	printFlags
	serverFlags
}

// Run shows the open rows of all recurring jobs.
func (c *scheduleListCommand) Run(ctx context.Context, std streams) error {
	server, err := c.caller(std)
	if err != nil {
		return err
	}
	open := jobListCommand{Recurring: new(true), Finished: new(false), Order: "due", All: true}
	body, page, err := open.pages(ctx, server)
	if err != nil {
		return err
	}
	jobs, err := shownJobs(page.Jobs)
	if err != nil {
		return err
	}
	return c.print(std, body, func(w io.Writer) error { return writeSchedules(w, jobs) })
}

func writeSchedules(out io.Writer, jobs []shownJob) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tTAG\tTYPE\tEXECUTOR\tCRON\tTIMEZONE\tDUE\tSTATE\tSCHEDULE")
	for _, j := range jobs {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", j.ID, oneLine(j.Tag, 60), oneLine(j.Type, 40), j.Executor,
			oneLine(j.CronSchedule, 40), j.Timezone, stamp(j.Due), recurringText(j), oneLine(j.ScheduleID, 60))
	}
	return w.Flush()
}

// recurringText is how a recurring job stands, in a word or two.
func recurringText(j shownJob) string {
	switch {
	case j.CancelRequested:
		return "ending"
	case j.Paused:
		return "paused"
	case !j.MissedAt.IsZero():
		return "missed"
	case j.Status == job.Executing:
		return "running"
	case j.Executor == job.Trigger && !j.FireLocally && j.ScheduleID == "":
		return "not on Trigger.dev yet"
	}
	return "waiting"
}

// schedulePreviewCommand has the members of POST /api/cron/preview.
type schedulePreviewCommand struct {
	Cron        string  `arg:"" help:"Five fields, or six with seconds in front, in quotes: \"0 9 * * 1-5\"; or an alias such as @daily."`
	Timezone    string  `placeholder:"ZONE" help:"IANA time zone; UTC if not given."`
	Count       int     `default:"10" placeholder:"N" help:"How many times to show, 1 to 100; 10 if not given."`
	Executor    string  `enum:",internal,trigger" default:"" placeholder:"internal|trigger" help:"With trigger, refuse what Trigger.dev does not take."`
	FireLocally bool    `help:"For a Trigger.dev job that sidejob fires itself."`
	From        *moment `placeholder:"TIME" help:"Show the times after: RFC 3339, epoch milliseconds, or from now on, e.g. +24h; now if not given."`
	printFlags
}

// Run shows the times. The answer is the API's, made here: it depends on nothing that
// a server knows.
func (c *schedulePreviewCommand) Run(std streams) error {
	if c.Count < 1 || c.Count > 100 {
		return exitf(exitUsage, "--count is %d; it is 1 to 100", c.Count)
	}
	at := now()
	r := previewRequest{
		CronSchedule: c.Cron, Timezone: c.Timezone, Count: c.Count, Executor: job.Executor(c.Executor), FireLocally: c.FireLocally,
	}
	if c.From != nil {
		r.From.at, r.From.err = readInstant(c.From.from(at))
	}
	view, err := preview(r, at)
	if err != nil {
		return exitf(exitUsage, "%w", previewProblem(err))
	}
	body, err := json.Marshal(view)
	if err != nil {
		return fmt.Errorf("encode the preview: %w", err)
	}
	return c.print(std, body, view.write)
}

// previewProblem says what is wrong with the expression, in the words of the command.
func previewProblem(err error) error {
	var wrong job.Problems
	if !errors.As(err, &wrong) {
		return err
	}
	flags := map[string]string{"cronSchedule": "CRON", "fireLocally": "--fire-locally", "timezone": "--timezone", "from": "--from", "executor": "--executor"}
	named := job.Problems{}
	for _, one := range wrong {
		named = append(named, job.Problem{Member: flags[one.Member], Why: one.Why})
	}
	return named
}

func (v previewView) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LOCAL\tUTC\tNOTE")
	for _, n := range v.Next {
		note := ""
		if n.Note != nil {
			note = string(*n.Note)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", n.Local, time.Time(n.At).UTC().Format(time.RFC3339), note)
	}
	if err := w.Flush(); err != nil || len(v.Differences) == 0 {
		return err
	}
	fmt.Fprintln(out)
	for _, text := range v.Differences {
		if _, err := fmt.Fprintln(out, oneLine(text, 1000)); err != nil {
			return err
		}
	}
	return nil
}

type schedulePauseCommand struct {
	jobArg
	printFlags
	serverFlags
}

// Run pauses the recurring job of which the job is an occurrence.
func (c *schedulePauseCommand) Run(ctx context.Context, std streams) error {
	_, err := changeSchedule(ctx, std, c.serverFlags, c.printFlags, apiCall{method: http.MethodPost, path: c.path("/pause")})
	return err
}

type scheduleResumeCommand struct {
	jobArg
	printFlags
	serverFlags
}

// Run resumes it.
func (c *scheduleResumeCommand) Run(ctx context.Context, std streams) error {
	_, err := changeSchedule(ctx, std, c.serverFlags, c.printFlags, apiCall{method: http.MethodPost, path: c.path("/resume")})
	return err
}

type scheduleDeleteCommand struct {
	jobArg
	waitFlag
	printFlags
	serverFlags
}

// Run ends it. What is still under way is no failure: the end is on record.
func (c *scheduleDeleteCommand) Run(ctx context.Context, std streams) error {
	j, err := changeSchedule(ctx, std, c.serverFlags, c.printFlags, c.ask(apiCall{method: http.MethodDelete, path: c.path("/schedule")}))
	switch {
	case err != nil || !j.Finished.IsZero():
	case j.Status == job.Executing:
		std.note("job %d is the last occurrence and still runs; to end it as well: sidejob job cancel %d", j.ID, j.ID)
	default:
		std.note("Trigger.dev has not deleted the schedule yet; sidejob keeps at it: sidejob job wait %d", j.ID)
	}
	return err
}

func changeSchedule(ctx context.Context, std streams, at serverFlags, f printFlags, call apiCall) (shownJob, error) {
	server, err := at.caller(std)
	if err != nil {
		return shownJob{}, err
	}
	got, err := server.do(ctx, call)
	if err != nil {
		return shownJob{}, err
	}
	return printJob(std, f, got)
}
