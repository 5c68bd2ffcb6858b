package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"sidejob/internal/job"
)

// problem is what a caller reads when a request fails: RFC 9457, with a code that
// stays the same for the same cause.
type problem struct {
	Type   string              `json:"type" example:"about:blank"`
	Title  string              `json:"title" doc:"The status in words"`
	Status int                 `json:"status"`
	Code   string              `json:"code" doc:"What went wrong, for programs; never changes" example:"invalid"`
	Detail string              `json:"detail" doc:"What is wrong and what would be right, for people"`
	Errors []*huma.ErrorDetail `json:"errors,omitempty" doc:"Each wrong member: where, and why"`
	ID     int64               `json:"id,omitempty" doc:"The job it is about, where one was made"`

	allow string // of a 405
}

func (p *problem) Error() string { return p.Detail }

// GetStatus makes a problem the answer of a handler that returns it.
func (p *problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *problem) ContentType(string) string { return "application/problem+json" }

// GetHeaders implements huma.HeadersError.
func (p *problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	return h
}

// problemf makes a problem whose detail is formatted.
func problemf(status int, code, format string, args ...any) *problem {
	return &problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: fmt.Sprintf(format, args...),
	}
}

// problemOf is the one place that turns errors into statuses. What it does not know
// is a 500 without details: those are for the log.
func problemOf(err error) *problem {
	var p *problem
	var wrong job.Problems
	var misfit *misfitError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &wrong):
		return invalid(wrong)
	case errors.As(err, &misfit):
		return problemf(http.StatusUnprocessableEntity, "invalid", "%s", misfit)
	case errors.Is(err, ErrNotFound):
		return problemf(http.StatusNotFound, "not_found", "%s", err)
	case errors.Is(err, job.ErrRefused):
		return problemf(http.StatusConflict, "conflict", "%s", err)
	case errors.Is(err, job.ErrTagTaken):
		return problemf(http.StatusConflict, "tag_taken", "%s", err)
	case errors.Is(err, ErrReplyUnderWay):
		return problemf(http.StatusConflict, "idempotency_in_progress", "%s", err)
	case errors.Is(err, ErrReplyMismatch):
		return problemf(http.StatusUnprocessableEntity, "idempotency_mismatch", "%s", err)
	case errors.Is(err, ErrUnsure):
		return problemf(http.StatusServiceUnavailable, "database_unavailable", "the database was lost at the commit, so this may have been done; "+
			"with the same Idempotency-Key, trying again does it once")
	case errors.Is(err, ErrBusy), errors.Is(err, errClosed):
		return problemf(http.StatusServiceUnavailable, "database_unavailable", "the database cannot take the request now; nothing was changed, try again")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problemf(http.StatusServiceUnavailable, "timeout", "the request was not finished in time; it may have been carried out")
	}
	return problemf(http.StatusInternalServerError, "internal", "something went wrong inside sidejob; its log says what")
}

// wrongMember is the refusal of one thing in a request; where is its location, such
// as body.tag.
func wrongMember(where, format string, args ...any) *problem {
	why := fmt.Sprintf(format, args...)
	p := problemf(http.StatusUnprocessableEntity, "invalid", "%s: %s", strings.TrimPrefix(where, "body."), why)
	p.Errors = []*huma.ErrorDetail{{Location: where, Message: why}}
	return p
}

// as gives a problem another status and code.
func (p *problem) as(status int, code string) *problem {
	p.Status, p.Title, p.Code = status, http.StatusText(status), code
	return p
}

// invalid names every wrong member of a request body.
func invalid(wrong job.Problems) *problem {
	p := problemf(http.StatusUnprocessableEntity, "invalid", "%s", wrong)
	for _, one := range wrong {
		p.Errors = append(p.Errors, &huma.ErrorDetail{Location: "body." + one.Member, Message: one.Why})
	}
	return p
}

// init gives huma our problems, before anything runs, and has it take members by
// their very names, so that Tag beside tag is as unknown as any other.
func init() {
	huma.NewError = newHumaProblem
	huma.ValidateStrictCasing = true
}

// readJSON is json.Unmarshal, but for its errors about numbers that do not fit: those
// speak of Go. Of an error huma keeps only the text, so the member is read off that.
func readJSON(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	var misfit *json.UnmarshalTypeError
	if errors.As(err, &misfit) {
		return errors.New(misfit.Field + misfitText)
	}
	return err
}

const misfitText = ": holds a number that does not fit; whole numbers have neither fraction nor exponent"

// newHumaProblem makes huma's own refusals, of validation above all, problems like
// ours. Values are not echoed: they may be large, and the caller has them.
func newHumaProblem(status int, message string, errs ...error) huma.StatusError {
	if status == http.StatusInternalServerError {
		return problemOf(errors.Join(errs...))
	}
	p := problemf(status, codeOf(status), "%s", message)
	var parts []string
	for _, err := range errs {
		one := detailOf(err)
		p.Errors = append(p.Errors, one)
		if one.Location == "" {
			parts = append(parts, one.Message)
			continue
		}
		parts = append(parts, strings.TrimPrefix(one.Location, "body.")+": "+one.Message)
	}
	if len(parts) > 0 {
		p.Detail = strings.Join(parts, "; ")
	}
	return p
}

// detailOf is where and why, without the value.
func detailOf(err error) *huma.ErrorDetail {
	detailer, ok := err.(huma.ErrorDetailer)
	if !ok {
		return &huma.ErrorDetail{Message: err.Error()}
	}
	d := detailer.ErrorDetail()
	if member, misfit := strings.CutSuffix(d.Message, misfitText); misfit {
		return &huma.ErrorDetail{Location: strings.TrimSuffix("body."+member, "."), Message: strings.TrimPrefix(misfitText, ": ")}
	}
	switch d.Message {
	case "unexpected property":
		return &huma.ErrorDetail{Location: d.Location, Message: "is not a member that is known here; /docs lists them"}
	case "unknown query parameter":
		return &huma.ErrorDetail{Location: d.Location, Message: "is not a parameter that is known here; /docs lists them"}
	}
	return &huma.ErrorDetail{Location: d.Location, Message: d.Message}
}

// codeOf is the code of a problem that is told by its status alone.
func codeOf(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "bad_json"
	case http.StatusNotFound:
		return "not_found"
	case http.StatusRequestEntityTooLarge:
		return "too_large"
	case http.StatusUnsupportedMediaType:
		return "unsupported_media_type"
	case http.StatusUnprocessableEntity:
		return "invalid"
	}
	return strings.ReplaceAll(strings.ToLower(http.StatusText(status)), " ", "_")
}

// bodyProblem says why a body could not be read.
func bodyProblem(err error, limit int64) *problem {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return problemf(http.StatusRequestEntityTooLarge, "too_large", "the body is larger than %d bytes", limit)
	}
	return problemf(http.StatusBadRequest, "bad_body", "the body could not be read to its end")
}

// writeProblem answers a plain net/http request with a problem.
func writeProblem(w http.ResponseWriter, p *problem) {
	for name, values := range p.GetHeaders() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // a caller that has left misses it
}

// writeJSON answers a plain net/http request.
func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a caller that has left misses it
}
