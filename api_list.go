package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sidejob/internal/job"
)

// FilterInput is the filters of a list as a query carries them. Members whose
// absence differs from every value are texts.
type FilterInput struct {
	Executor      string `query:"executor" enum:"internal,trigger"`
	Status        string `query:"status" enum:"PENDING,EXECUTING,COMPLETED,FAILED,CANCELED"`
	Type          string `query:"type"`
	Tag           string `query:"tag"`
	Name          string `query:"name"`
	UserID        string `query:"userId" doc:"An integer; 0 is the system"`
	Finished      string `query:"finished" enum:"true,false"`
	Success       string `query:"success" enum:"true,false"`
	Recurring     string `query:"recurring" enum:"true,false" doc:"Rows that recur: of internal jobs every occurrence, of Trigger.dev jobs the schedules"`
	ScheduleID    int64  `query:"scheduleId" minimum:"1" doc:"Row id of a recurring job: its occurrences"`
	Label         string `query:"label"`
	CreatedAfter  string `query:"createdAfter" doc:"RFC 3339 or milliseconds since 1970"`
	CreatedBefore string `query:"createdBefore" doc:"RFC 3339 or milliseconds since 1970"`
}

// filter reads the texts. What is wrong with them is a problem that names the
// parameter.
func (in FilterInput) filter() (Filter, error) {
	f := Filter{
		Executor: job.Executor(in.Executor), Status: job.Status(in.Status), Type: in.Type, Tag: in.Tag, Name: in.Name,
		Label: in.Label, ScheduleID: in.ScheduleID, Finished: readBool(in.Finished), Success: readBool(in.Success),
		Recurring: readBool(in.Recurring),
	}
	var wrong []error
	no := func(name string, err error) {
		if err != nil {
			wrong = append(wrong, &huma.ErrorDetail{Location: "query." + name, Message: err.Error()})
		}
	}
	if in.UserID != "" {
		id, err := strconv.ParseInt(in.UserID, 10, 64)
		if err != nil {
			err = fmt.Errorf("is %.40q; it is an integer", in.UserID)
		}
		f.UserID = &id
		no("userId", err)
	}
	for _, at := range []struct {
		name, text string
		into       *time.Time
	}{{"createdAfter", in.CreatedAfter, &f.CreatedAfter}, {"createdBefore", in.CreatedBefore, &f.CreatedBefore}} {
		if at.text != "" {
			read, err := readInstant(at.text)
			*at.into = read
			no(at.name, err)
		}
	}
	if len(wrong) > 0 {
		return f, newHumaProblem(http.StatusUnprocessableEntity, "a filter is wrong", wrong...)
	}
	return f, nil
}

func readBool(text string) *bool {
	if text == "" {
		return nil
	}
	is := text == "true"
	return &is
}

type listView struct {
	Jobs       []jobView `json:"jobs"`
	NextCursor *string   `json:"nextCursor" doc:"Of the next page; null on the last one"`
}

func (a *api) listJobs(ctx context.Context, in *struct {
	FilterInput
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
	Cursor string `query:"cursor" doc:"nextCursor of the page before"`
	Order  string `query:"order" enum:"created,due" default:"created" doc:"created: newest first; due: soonest first"`
}) (*bodyOutput[listView], error) {
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	f.Limit, f.ByDue = in.Limit, in.Order == "due"
	if f.Cursor, err = readCursor(in.Cursor, f); err != nil {
		return nil, err
	}
	page, err := a.store.List(ctx, f)
	if err != nil {
		return nil, a.problem(err)
	}
	return &bodyOutput[listView]{listView{viewJobs(page.Jobs), writeCursor(page.Next)}}, nil
}

type countView struct {
	Count int64 `json:"count"`
}

func (a *api) countJobs(ctx context.Context, in *struct{ FilterInput }) (*bodyOutput[countView], error) {
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	n, err := a.store.Count(ctx, f)
	return &bodyOutput[countView]{countView{n}}, a.problem(err)
}

func writeCursor(c Cursor) *string {
	if c.ID == 0 {
		return nil
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return nil
	}
	text := base64.RawURLEncoding.EncodeToString(raw)
	return &text
}

func readCursor(text string, f Filter) (c Cursor, err error) {
	if text == "" {
		return c, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if err != nil || !f.continues(c) {
		return Cursor{}, newHumaProblem(http.StatusUnprocessableEntity, "a filter is wrong",
			&huma.ErrorDetail{Location: "query.cursor", Message: "is not the nextCursor of a page in this order"})
	}
	return c, nil
}
