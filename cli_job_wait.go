package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"sidejob/internal/job"
)

type jobWaitCommand struct {
	jobArg
	Timeout time.Duration `placeholder:"D" help:"Give up after this long, e.g. 90s or 10m. Without it the wait has no end."`
	printFlags
	serverFlags
}

const (
	// longPoll is how long one question of wait may be held.
	longPoll = 20 * time.Second
	// askPause is the least time between two questions that were not held.
	askPause = time.Second
	// longestOutage is what a wait without a timeout sits out.
	longestOutage = time.Minute
)

// errWaitedEnough ends a wait.
var errWaitedEnough = errors.New("waited long enough")

// Run waits for the end of the job, over restarts of sidejob as well.
func (c *jobWaitCommand) Run(ctx context.Context, std streams) error {
	server, err := c.caller(std)
	if err != nil {
		return err
	}
	if c.Timeout < 0 {
		return exitf(exitUsage, "--timeout is negative")
	}
	if c.Timeout > 0 {
		limited, cancel := context.WithTimeoutCause(ctx, c.Timeout, errWaitedEnough)
		defer cancel()
		ctx = limited
	}
	got, err := c.wait(ctx, server)
	if err != nil {
		return err
	}
	j, err := printJob(std, c.printFlags, got)
	if err != nil || j.Status == job.Completed {
		return err
	}
	return exitf(exitJobFailed, "job %d is %s%s", j.ID, j.Status, because(failureText(j.Result)))
}

// outlook is what a wait has learned so far.
type outlook struct {
	status job.Status // empty: no answer yet
	outage error      // why the last question had no answer, nil when it had
	since  time.Time  // when the outage began
}

// wait asks until the job has ended. The first question is not held, so that one
// answer is there before anything goes down.
func (c *jobWaitCommand) wait(ctx context.Context, server *caller) (apiAnswer, error) {
	var seen outlook
	for hold := time.Duration(0); ; hold = longPoll {
		asked := time.Now()
		got, j, err := c.ask(ctx, server, hold)
		switch {
		case err == nil && !j.Finished.IsZero():
			return got, nil
		case errors.Is(context.Cause(ctx), errWaitedEnough):
			return got, c.gaveUp(seen)
		case err == nil:
			seen = outlook{status: j.Status}
		case !c.sitsOut(&seen, err):
			return got, err
		}
		if (err != nil || hold > 0) && time.Since(asked) < askPause {
			_ = pauseFor(ctx, askPause) // the next question meets the end of ctx
		}
	}
}

// sitsOut tells whether the wait goes on after a question without an answer. A wait
// without a timeout must have had an answer once, and does not bear a long outage.
func (c *jobWaitCommand) sitsOut(seen *outlook, err error) bool {
	if !mayPass(err) {
		return false
	}
	if seen.outage == nil {
		seen.since = time.Now()
	}
	seen.outage = err
	return c.Timeout > 0 || seen.status != "" && time.Since(seen.since) < longestOutage
}

// ask is one question, held by the server until the job has ended, but not beyond
// the timeout.
func (c *jobWaitCommand) ask(ctx context.Context, server *caller, hold time.Duration) (got apiAnswer, j shownJob, err error) {
	if end, ok := ctx.Deadline(); ok {
		hold = max(0, min(hold, time.Until(end)))
	}
	got, err = server.do(ctx, apiCall{
		method: http.MethodGet, path: c.path(""), wait: hold,
		query: url.Values{"waitMs": {strconv.FormatInt(hold.Milliseconds(), 10)}},
	})
	if err != nil {
		return got, j, err
	}
	return got, j, readAnswer(got, &j)
}

// gaveUp is the end of a wait by its timeout.
func (c *jobWaitCommand) gaveUp(seen outlook) error {
	switch {
	case seen.outage != nil:
		return seen.outage
	case seen.status == "":
		return exitf(exitUnreachable, "no answer within %s", c.Timeout)
	}
	return exitf(exitFailure, "job %d is still %s after %s", c.ID, seen.status, c.Timeout)
}
