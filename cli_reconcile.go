package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"
)

// reconcileCommand has sidejob compare its unfinished Trigger.dev jobs with what
// Trigger.dev says.
type reconcileCommand struct {
	DryRun bool `help:"Change nothing, only say what would be."`
	Adopt  bool `xor:"orphans" help:"Make rows for runs of this installation that have none."`
	Cancel bool `xor:"orphans" help:"Cancel runs of this installation that have no row, and delete such schedules."`
	printFlags
	serverFlags
}

// Run reconciles and shows the report.
func (c *reconcileCommand) Run(ctx context.Context, std streams) error {
	query := url.Values{}
	for name, set := range map[string]bool{"dryRun": c.DryRun, "adopt": c.Adopt, "cancel": c.Cancel} {
		if set {
			query.Set(name, "true")
		}
	}
	return sweepAndReport(ctx, std, c.serverFlags, c.printFlags, apiCall{path: "/api/reconcile", query: query})
}

// syncCommand does the same for the active ones.
type syncCommand struct {
	printFlags
	serverFlags
}

// Run syncs and shows the report.
func (c *syncCommand) Run(ctx context.Context, std streams) error {
	return sweepAndReport(ctx, std, c.serverFlags, c.printFlags, apiCall{path: "/api/sync"})
}

// sweepReport is what a sweep found.
type sweepReport struct {
	TotalJobs, SyncedJobs, CompletedJobs, FailedJobs, OrphanedJobs  int
	DispatchedJobs, SkippedJobs, RemoteOrphans                      int
	Schedules, SchedulesRepaired, RemoteSchedules, SchedulesDeleted int
	DurationMs                                                      int64
	Errors                                                          []sweepError
}

// sweepError is why a job could not be asked about.
type sweepError struct {
	JobID int64
	Error string
}

// sweepAndReport makes the call, however long it takes. Jobs that could not be asked
// about make it a failure.
func sweepAndReport(ctx context.Context, std streams, at serverFlags, f printFlags, call apiCall) error {
	server, err := at.caller(std)
	if err != nil {
		return err
	}
	call.method, call.wait = http.MethodPost, noLimit
	got, err := server.do(ctx, call)
	if err != nil {
		return err
	}
	var r sweepReport
	if err := readAnswer(got, &r); err != nil {
		return err
	}
	if err := f.print(std, got.body, r.write); err != nil {
		return err
	}
	if r.FailedJobs > 0 {
		return exitf(exitFailure, "%d of %d jobs could not be asked about; they are tried again by themselves", r.FailedJobs, r.TotalJobs)
	}
	return nil
}

func (r sweepReport) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range []struct {
		name string
		n    int
	}{
		{"total", r.TotalJobs},
		{"synced", r.SyncedJobs},
		{"completed", r.CompletedJobs},
		{"failed to ask", r.FailedJobs},
		{"orphaned", r.OrphanedJobs},
		{"dispatched", r.DispatchedJobs},
		{"skipped", r.SkippedJobs},
		{"runs without a row", r.RemoteOrphans},
		{"schedules", r.Schedules},
		{"schedules repaired", r.SchedulesRepaired},
		{"schedules without a row", r.RemoteSchedules},
		{"schedules deleted", r.SchedulesDeleted},
	} {
		fmt.Fprintf(w, "%s\t%d\n", line.name, line.n)
	}
	fmt.Fprintf(w, "took\t%s\n", time.Duration(r.DurationMs)*time.Millisecond)
	for _, e := range r.Errors {
		fmt.Fprintf(w, "job %d\t%s\n", e.JobID, oneLine(e.Error, 300))
	}
	return w.Flush()
}
