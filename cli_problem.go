package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// problemBody is how the API says that something is wrong (RFC 9457).
type problemBody struct {
	Title, Detail, Code string
	ID                  int64 // of the job that the refused request has left
	Errors              []memberProblem
}

// memberProblem is one wrong member of a request.
type memberProblem struct {
	Location, Message string
	Value             json.RawMessage
}

// problemError is a problem as the user is told of it.
type problemError struct {
	status int
	body   problemBody
}

func (e *problemError) Error() string {
	lines := []string{e.headline()}
	for _, one := range e.body.Errors {
		lines = append(lines, "  "+one.String())
	}
	if e.body.ID != 0 {
		lines = append(lines, fmt.Sprintf("the job stays as a record: sidejob job why %d", e.body.ID))
	}
	if hint := e.hint(); hint != "" {
		lines = append(lines, hint)
	}
	return strings.Join(lines, "\n")
}

// headline leaves out a detail that only strings the wrong members together.
func (e *problemError) headline() string {
	head := e.body.Title
	if head == "" {
		head = http.StatusText(e.status)
	}
	if e.body.Detail != "" && e.body.Detail != head && !e.listed() {
		head += ": " + e.body.Detail
	}
	code := strings.TrimSpace(fmt.Sprintf("%d %s", e.status, e.body.Code))
	return fmt.Sprintf("%s (%s)", oneLine(head, 1000), oneLine(code, 100))
}

// listed tells whether the errors say all that the detail says.
func (e *problemError) listed() bool {
	for _, one := range e.body.Errors {
		if !strings.Contains(e.body.Detail, one.Message) {
			return false
		}
	}
	return len(e.body.Errors) > 0
}

func (m memberProblem) String() string {
	text := m.Message
	if at := strings.TrimPrefix(m.Location, "body."); at != "" {
		text = at + ": " + text
	}
	return oneLine(text+m.given(), 300)
}

// given shows the wrong value where it is short and plain; an object may be the
// whole payload.
func (m memberProblem) given() string {
	text := strings.TrimSpace(string(m.Value))
	if text == "" || text == "null" || text[0] == '{' || text[0] == '[' || len(text) > 80 {
		return ""
	}
	return ", not " + text
}

func (e *problemError) hint() string {
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return "is SIDEJOB_TOKEN the token of this sidejob? beside its database, print it with: sidejob token"
	case http.StatusMisdirectedRequest:
		return "this sidejob does not answer to the host name in SIDEJOB_URL; allow it there with: --allowed-host"
	}
	return ""
}

// exitCode is what the process exits with.
func (e *problemError) exitCode() int {
	switch {
	case e.status == http.StatusNotFound:
		return exitNotFound
	case e.status >= 500 && strings.Contains(e.body.Code, "trigger"):
		return exitUnreachable
	}
	return exitFailure
}

// problem is the error that a reply stands for, nil for a good one.
func (c *caller) problem(got apiAnswer) error {
	good := got.status >= 200 && got.status < 300
	if good && json.Valid(got.body) {
		return nil
	}
	e := &problemError{status: got.status}
	err := json.Unmarshal(got.body, &e.body)
	if good || err != nil || e.body.Title == "" && e.body.Code == "" {
		return exitf(exitUnreachable, "what answers at %s is not sidejob: %d %s\nis SIDEJOB_URL right?", c.shown, got.status, http.StatusText(got.status))
	}
	return exitError{e.exitCode(), e}
}

// mayPass tells whether a call that ended so may succeed when it is made later.
func mayPass(err error) bool {
	var problem *problemError
	if errors.As(err, &problem) {
		return problem.status >= 500 || problem.status == http.StatusTooManyRequests
	}
	var coded exitError
	return errors.As(err, &coded) && coded.code == exitUnreachable
}
