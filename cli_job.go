package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"sidejob/internal/job"
)

// jobCommands are about one job, but list.
type jobCommands struct {
	Schedule jobScheduleCommand `cmd:"" help:"Schedule a job."`
	Get      jobGetCommand      `cmd:"" help:"Show a job."`
	List     jobListCommand     `cmd:"" help:"List jobs, newest first."`
	Wait     jobWaitCommand     `cmd:"" help:"Wait until a job has ended. Exit code 0: it completed; 4: it failed or was canceled."`
	Cancel   jobCancelCommand   `cmd:"" help:"Cancel a job."`
	Retry    jobRetryCommand    `cmd:"" help:"Make a new job like one that has ended."`
	Why      jobWhyCommand      `cmd:"" help:"Tell a job's history in plain sentences."`
}

// shownJob is a job as the API shows it, as far as the tables tell of it.
type shownJob struct {
	ID              int64           `json:"id"`
	Tag             string          `json:"tag"`
	Type            string          `json:"type"`
	Name            string          `json:"name"`
	UserID          int64           `json:"userId"`
	Data            json.RawMessage `json:"data"`
	Due             time.Time       `json:"due"`
	Started         time.Time       `json:"started"`
	Finished        time.Time       `json:"finished"`
	RemoveAt        time.Time       `json:"removeAt"`
	Result          json.RawMessage `json:"result"`
	CronSchedule    string          `json:"cronSchedule"`
	Timezone        string          `json:"timezone"`
	Misfire         string          `json:"misfire"`
	MisfireLimit    int             `json:"misfireLimit"`
	FireLocally     bool            `json:"fireLocally"`
	Recurring       int64           `json:"scheduleId"`
	MissedAt        time.Time       `json:"missedAt"`
	Rescheduled     int64           `json:"rescheduledFromJob"`
	Persistent      bool            `json:"persistent"`
	Executor        job.Executor    `json:"executor"`
	Task            string          `json:"triggerTaskId"`
	RunID           string          `json:"triggerRunId"`
	ScheduleID      string          `json:"triggerScheduleId"`
	RawStatus       string          `json:"triggerRawStatus"`
	Status          job.Status      `json:"status"`
	Attempt         int             `json:"attempt"`
	Paused          bool            `json:"paused"`
	Labels          []string        `json:"labels"`
	CancelRequested bool            `json:"cancelRequested"`
	Error           string          `json:"error"`
	Created         time.Time       `json:"createdAt"`
	Warnings        []string        `json:"warnings"`
}

// jobArg is the job that a command is about.
type jobArg struct {
	ID int64 `arg:"" help:"The job's id."`
}

// path is the address of the job, or of something below it.
func (a jobArg) path(below string) string {
	return "/api/jobs/" + strconv.FormatInt(a.ID, 10) + below
}

// readAnswer decodes a body of the API.
func readAnswer(got apiAnswer, into any) error {
	if err := json.Unmarshal(got.body, into); err != nil {
		return exitf(exitFailure, "the answer is not as expected: %w; is this sidejob as old as the server?", err)
	}
	return nil
}

// printJob prints the job that the API answered with and returns it.
func printJob(std streams, f printFlags, got apiAnswer) (shownJob, error) {
	var j shownJob
	if err := readAnswer(got, &j); err != nil {
		return j, err
	}
	for _, warning := range j.Warnings {
		std.note("warning: %s", oneLine(warning, 1000))
	}
	return j, f.print(std, got.body, func(w io.Writer) error { return writeJob(w, j, time.Now()) })
}

type jobGetCommand struct {
	jobArg
	printFlags
	serverFlags
}

// Run shows the job.
func (c *jobGetCommand) Run(ctx context.Context, std streams) error {
	server, err := c.caller(std)
	if err != nil {
		return err
	}
	got, err := server.get(ctx, c.path(""), nil)
	if err != nil {
		return err
	}
	_, err = printJob(std, c.printFlags, got)
	return err
}

type jobCancelCommand struct {
	jobArg
	waitFlag
	printFlags
	serverFlags
}

// waitFlag is how long a request waits for Trigger.dev.
type waitFlag struct {
	WaitMs *int64 `placeholder:"MS" help:"How long the reply waits for Trigger.dev, 0 to 10000 milliseconds; 2000 if not given."`
}

// ask puts the wait into a call, where one was given.
func (f waitFlag) ask(call apiCall) apiCall {
	if f.WaitMs != nil {
		call.query = url.Values{"waitMs": {strconv.FormatInt(*f.WaitMs, 10)}}
		call.wait = time.Duration(max(0, *f.WaitMs)) * time.Millisecond
	}
	return call
}

// Run cancels the job. One that Trigger.dev has yet to confirm is no failure: the
// cancel is on record, and sidejob keeps at it.
func (c *jobCancelCommand) Run(ctx context.Context, std streams) error {
	server, err := c.caller(std)
	if err != nil {
		return err
	}
	got, err := server.do(ctx, c.ask(apiCall{method: http.MethodPost, path: c.path("/cancel")}))
	if err != nil {
		return err
	}
	j, err := printJob(std, c.printFlags, got)
	if err != nil {
		return err
	}
	switch {
	case got.status == http.StatusAccepted:
		std.note("Trigger.dev has not confirmed the cancel yet; sidejob keeps at it: sidejob job wait %d", j.ID)
	case j.Status != job.Canceled:
		std.note("job %d is %s: nothing was left to cancel", j.ID, j.Status)
	}
	return nil
}

type jobRetryCommand struct {
	jobArg
	printFlags
	serverFlags
}

// Run makes the new job and shows it.
func (c *jobRetryCommand) Run(ctx context.Context, std streams) error {
	server, err := c.caller(std)
	if err != nil {
		return err
	}
	got, err := server.do(ctx, apiCall{method: http.MethodPost, path: c.path("/retry")})
	if err != nil {
		return err
	}
	_, err = printJob(std, c.printFlags, got)
	return err
}

// because puts a reason behind a sentence, where there is one.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// failureText is what a result says of why a job failed, on one line.
func failureText(result json.RawMessage) string {
	var r struct{ Error json.RawMessage }
	if json.Unmarshal(result, &r) != nil || len(r.Error) == 0 || string(r.Error) == "null" {
		return ""
	}
	var text string
	var object struct{ Message string }
	switch {
	case json.Unmarshal(r.Error, &text) == nil:
		return oneLine(text, 300)
	case json.Unmarshal(r.Error, &object) == nil && object.Message != "":
		return oneLine(object.Message, 300)
	}
	return oneLine(string(r.Error), 300)
}
