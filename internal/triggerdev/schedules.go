package triggerdev

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Schedule fires a task by cron.
type Schedule struct {
	ID               string                `json:"id"`
	Type             string                `json:"type"` // IMPERATIVE or DECLARATIVE
	Task             string                `json:"task"`
	Active           bool                  `json:"active"`
	DeduplicationKey string                `json:"deduplicationKey"` // empty if the service made it up
	ExternalID       string                `json:"externalId"`
	Generator        Generator             `json:"generator"`
	Timezone         string                `json:"timezone"` // IANA name
	Window           string                `json:"window"`
	Environments     []ScheduleEnvironment `json:"environments"`

	// NextRun is the next nominal time. It is zero for an inactive schedule,
	// except where the service computes it all the same: create, update, list.
	NextRun time.Time `json:"nextRun"`

	// NextRunEffectiveAt is when that run will really be fired: up to a minute
	// later, or more with a window.
	NextRunEffectiveAt time.Time `json:"nextRunEffectiveAt"`
}

// Generator is what makes a schedule's times.
type Generator struct {
	Type        string `json:"type"` // CRON
	Expression  string `json:"expression"`
	Description string `json:"description"` // an English sentence
}

// ScheduleEnvironment is an environment in which a schedule fires.
type ScheduleEnvironment struct {
	ID         string `json:"id"`
	Type       string `json:"type"`       // DEVELOPMENT, STAGING, PREVIEW or PRODUCTION
	Shortcode  string `json:"shortcode"`  // create and update only
	Slug       string `json:"slug"`       // list only
	BranchName string `json:"branchName"` // list only
	UserName   string `json:"userName"`   // of a development environment
}

func (s *Schedule) check() error {
	if s.ID == "" {
		return errors.New("schedule without id")
	}
	return nil
}

// ScheduleRequest says what a schedule is to be. A member left empty is cleared
// on a schedule that already exists.
type ScheduleRequest struct {
	Task       string `json:"task"` // a scheduled task; it is never changed afterwards
	Cron       string `json:"cron"` // five fields with single spaces
	Timezone   string `json:"timezone,omitempty"`
	ExternalID string `json:"externalId,omitempty"`
	Window     string `json:"window,omitempty"` // such as 30m, 2h or 30%
}

// CreateSchedule makes a schedule, or updates the one that has the same
// deduplication key. The key is unique in a project, not in an environment:
// used from another environment it moves the schedule there. An update changes
// neither task nor active.
func (c *Client) CreateSchedule(ctx context.Context, deduplicationKey string, req ScheduleRequest) (Schedule, error) {
	if deduplicationKey == "" {
		return Schedule{}, &InvalidError{Reason: "no deduplication key: each call would make another schedule"}
	}
	return c.schedule(ctx, call{
		method: http.MethodPost,
		path:   "/api/v1/schedules",
		body: struct {
			ScheduleRequest
			DeduplicationKey string `json:"deduplicationKey"`
		}{req, deduplicationKey},
	})
}

// UpdateSchedule changes a schedule, but not its task nor whether it is active.
// For an unknown id the service makes a new schedule and says so by its ID
// alone: compare it. [Client.CreateSchedule] has no such trap.
func (c *Client) UpdateSchedule(ctx context.Context, id string, req ScheduleRequest) (Schedule, error) {
	return c.scheduleByID(ctx, http.MethodPut, id, "", req)
}

// RetrieveSchedule reads a schedule by id or deduplication key.
func (c *Client) RetrieveSchedule(ctx context.Context, id string) (Schedule, error) {
	return c.scheduleByID(ctx, http.MethodGet, id, "", nil)
}

// ActivateSchedule lets a schedule fire, from its next slot on.
func (c *Client) ActivateSchedule(ctx context.Context, id string) (Schedule, error) {
	return c.scheduleByID(ctx, http.MethodPost, id, "/activate", nil)
}

// DeactivateSchedule stops a schedule from firing. Runs it has fired go on.
func (c *Client) DeactivateSchedule(ctx context.Context, id string) (Schedule, error) {
	return c.scheduleByID(ctx, http.MethodPost, id, "/deactivate", nil)
}

// DeleteSchedule removes a schedule. One that is already gone is an error that
// [NotFound] tells.
func (c *Client) DeleteSchedule(ctx context.Context, id string) error {
	path, err := schedulePath(id)
	if err != nil {
		return err
	}
	return c.do(ctx, call{method: http.MethodDelete, path: path}, &idReply{})
}

// scheduleByID calls the address of one schedule; action is "" or starts with a slash.
func (c *Client) scheduleByID(ctx context.Context, method, id, action string, body any) (Schedule, error) {
	path, err := schedulePath(id)
	if err != nil {
		return Schedule{}, err
	}
	return c.schedule(ctx, call{method: method, path: path + action, body: body})
}

func schedulePath(id string) (string, error) {
	s, err := segment("schedule id", id)
	if err != nil {
		return "", err
	}
	return "/api/v1/schedules/" + s, nil
}

// schedule makes a call that is answered with a schedule.
func (c *Client) schedule(ctx context.Context, in call) (Schedule, error) {
	var out Schedule
	if err := c.do(ctx, in, &out); err != nil {
		return Schedule{}, err
	}
	return out, nil
}

// SchedulePage is one page of schedules, newest first.
type SchedulePage struct {
	Schedules   []Schedule
	CurrentPage int // counted from 1
	TotalPages  int
	Count       int // of schedules on all pages
}

type wireSchedules struct {
	Data       []Schedule `json:"data"`
	Pagination struct {
		CurrentPage int `json:"currentPage"`
		TotalPages  int `json:"totalPages"`
		Count       int `json:"count"`
	} `json:"pagination"`
}

func (p *wireSchedules) check() error {
	if p.Data == nil {
		return errors.New("no data")
	}
	for i := range p.Data {
		if err := p.Data[i].check(); err != nil {
			return fmt.Errorf("item %d: %w", i, err)
		}
	}
	return nil
}

// ListSchedules reads one page of this environment's schedules. Pages count
// from 1; perPage is at most 100, and 20 when zero. An environment that was
// never deployed to has an empty list whatever schedules it has.
func (c *Client) ListSchedules(ctx context.Context, page, perPage int) (SchedulePage, error) {
	q := url.Values{"page": {strconv.Itoa(max(page, 1))}}
	if perPage != 0 {
		q.Set("perPage", strconv.Itoa(perPage))
	}
	var out wireSchedules
	if err := c.do(ctx, call{method: http.MethodGet, path: "/api/v1/schedules", query: q}, &out); err != nil {
		return SchedulePage{}, err
	}
	p := out.Pagination
	return SchedulePage{Schedules: out.Data, CurrentPage: p.CurrentPage, TotalPages: p.TotalPages, Count: p.Count}, nil
}
