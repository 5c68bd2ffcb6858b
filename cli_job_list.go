package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sidejob/internal/job"
)

// jobListCommand has the filters of GET /api/jobs as flags.
type jobListCommand struct {
	Executor      string      `enum:",internal,trigger" default:"" placeholder:"internal|trigger" help:"Only jobs of this executor."`
	Status        *statusWord `placeholder:"STATUS" help:"Only jobs that are pending, executing, completed, failed or canceled."`
	Type          *string     `placeholder:"TYPE" help:"Only jobs of this type."`
	Tag           *string     `placeholder:"TAG" help:"Only jobs of this tag."`
	Name          *string     `placeholder:"NAME" help:"Only jobs of this registry name."`
	UserID        *int64      `placeholder:"N" help:"Only jobs of this user; 0 is the system."`
	Finished      *bool       `negatable:"" help:"Only jobs that have ended (--no-finished: that have not)."`
	Success       *bool       `negatable:"" help:"Only jobs that ended well (--no-success: badly)."`
	Recurring     *bool       `negatable:"" help:"Only jobs that recur (--no-recurring: that do not)."`
	ScheduleID    *int64      `placeholder:"ID" help:"Only the occurrences of this recurring job."`
	Label         *string     `placeholder:"LABEL" help:"Only jobs with this label."`
	CreatedAfter  *moment     `placeholder:"TIME" help:"Only jobs made after: RFC 3339, epoch milliseconds, or =-1h for an hour ago."`
	CreatedBefore *moment     `placeholder:"TIME" help:"Only jobs made before."`
	Order         string      `enum:",created,due" default:"" placeholder:"created|due" help:"Newest first (created), or soonest due first."`
	Limit         *int        `placeholder:"N" help:"Jobs on a page, 1 to 200; 50 if not given."`
	Cursor        *string     `placeholder:"C" help:"Where to go on: the nextCursor of the page before."`
	All           bool        `help:"All pages, not one."`
	printFlags
	serverFlags
}

// jobPage is a page of the list. The jobs are kept as the API wrote them.
type jobPage struct {
	Jobs       []json.RawMessage `json:"jobs"`
	NextCursor *string           `json:"nextCursor"`
}

// Run shows a page, or all of them as if they were one.
func (c *jobListCommand) Run(ctx context.Context, std streams) error {
	server, err := c.caller(std)
	if err != nil {
		return err
	}
	body, page, err := c.pages(ctx, server)
	if err != nil {
		return err
	}
	jobs, err := shownJobs(page.Jobs)
	if err != nil {
		return err
	}
	if err := c.print(std, body, func(w io.Writer) error { return writeJobs(w, jobs) }); err != nil {
		return err
	}
	if page.NextCursor != nil && c.Output == "table" {
		std.note("there are more: add --all, or --cursor=%s for the next page", printable(*page.NextCursor))
	}
	return nil
}

// pages fetches what was asked for: the body to print, and what is in it.
func (c *jobListCommand) pages(ctx context.Context, server *caller) (body []byte, all jobPage, err error) {
	query := c.query(time.Now())
	all.Jobs = []json.RawMessage{}
	for {
		got, err := server.get(ctx, "/api/jobs", query)
		if err != nil {
			return nil, all, err
		}
		var page jobPage
		if err := readAnswer(got, &page); err != nil {
			return nil, all, err
		}
		all.Jobs = append(all.Jobs, page.Jobs...)
		if !c.All {
			return got.body, page, nil
		}
		if page.NextCursor == nil {
			body, err = json.Marshal(all)
			return body, all, err
		}
		if *page.NextCursor == query.Get("cursor") {
			return nil, all, exitf(exitFailure, "the list goes round in circles at cursor %s", *page.NextCursor)
		}
		query.Set("cursor", *page.NextCursor)
	}
}

// query holds the filters that were given.
func (c *jobListCommand) query(at time.Time) url.Values {
	q := url.Values{}
	putQuery(q, "executor", ifGiven(c.Executor))
	putQuery(q, "status", c.Status)
	putQuery(q, "type", c.Type)
	putQuery(q, "tag", c.Tag)
	putQuery(q, "name", c.Name)
	putQuery(q, "userId", c.UserID)
	putQuery(q, "finished", c.Finished)
	putQuery(q, "success", c.Success)
	putQuery(q, "recurring", c.Recurring)
	putQuery(q, "scheduleId", c.ScheduleID)
	putQuery(q, "label", c.Label)
	putQuery(q, "order", ifGiven(c.Order))
	putQuery(q, "limit", c.Limit)
	putQuery(q, "cursor", c.Cursor)
	if c.CreatedAfter != nil {
		q.Set("createdAfter", c.CreatedAfter.from(at))
	}
	if c.CreatedBefore != nil {
		q.Set("createdBefore", c.CreatedBefore.from(at))
	}
	if c.All && c.Limit == nil {
		q.Set("limit", strconv.Itoa(maxPage))
	}
	return q
}

// maxPage is the most jobs that the API puts on a page.
const maxPage = 200

// ifGiven is nil for a word that was not given.
func ifGiven(word string) *string {
	if word == "" {
		return nil
	}
	return &word
}

// putQuery adds a parameter that was given.
func putQuery[T any](q url.Values, name string, value *T) {
	if value != nil {
		q.Set(name, fmt.Sprint(*value))
	}
}

// statusWord is a status as people may write it.
type statusWord string

// UnmarshalText reads a flag.
func (s *statusWord) UnmarshalText(text []byte) error {
	switch word := job.Status(strings.ToUpper(string(text))); word {
	case job.Pending, job.Executing, job.Completed, job.Failed, job.Canceled:
		*s = statusWord(word)
		return nil
	}
	return fmt.Errorf("%q is no status: it is pending, executing, completed, failed or canceled", text)
}

func shownJobs(raw []json.RawMessage) ([]shownJob, error) {
	jobs := make([]shownJob, len(raw))
	for i, text := range raw {
		if err := readAnswer(apiAnswer{body: text}, &jobs[i]); err != nil {
			return nil, err
		}
	}
	return jobs, nil
}
