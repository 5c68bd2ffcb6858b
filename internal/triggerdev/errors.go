package triggerdev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ErrNoKey means that there was no key to send: it is empty, or holds what no
// header may hold. Nothing was sent.
var ErrNoKey = errors.New("no usable key")

// Outcome says what may be assumed of a call once it has returned.
type Outcome int

const (
	// Unknown: the call may have been carried out, now or later. It stands for a
	// lost or late reply (timeout, reset, truncated or foreign body), 408, 409,
	// every 5xx, a refusal that asks to be tried again, and all that is not
	// listed below.
	Unknown Outcome = iota

	// Accepted: the service answered as documented.
	Accepted

	// Refused: the service read the request and will never accept the same one
	// (400, 413, 422), or this package did not send it for that reason
	// ([*InvalidError]). Among the 422 are two that end by themselves: no
	// credits left, and a full queue.
	Refused

	// NotReached: the call was certainly not carried out and may be made again
	// as it is: no connection, no key, 401, 403, 404, 405, 429, or a redirect.
	NotReached
)

// String gives the outcome as one lower-case word or two.
func (o Outcome) String() string {
	switch o {
	case Accepted:
		return "accepted"
	case Refused:
		return "refused"
	case NotReached:
		return "not reached"
	}
	return "unknown"
}

// OutcomeOf reads the outcome of a call off its error, nil included. An error
// that is not of this package is [Unknown].
func OutcomeOf(err error) Outcome {
	if err == nil {
		return Accepted
	}
	if errors.Is(err, ErrNoKey) {
		return NotReached
	}
	var e interface{ outcome() Outcome }
	if errors.As(err, &e) {
		return e.outcome()
	}
	return Unknown
}

// KeyRefused reports whether the service refused the key (401, 403) or there
// was none to send ([ErrNoKey]).
func KeyRefused(err error) bool {
	return hasStatus(err, http.StatusUnauthorized, http.StatusForbidden) || errors.Is(err, ErrNoKey)
}

// NotFound reports whether the API answered 404. A run may be hidden for a
// moment after it was triggered, and runs of other environments always are: one
// 404 does not prove that a run is gone.
func NotFound(err error) bool {
	return hasStatus(err, http.StatusNotFound)
}

func hasStatus(err error, statuses ...int) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	for _, s := range statuses {
		if e.Status == s {
			return true
		}
	}
	return false
}

// Error is a reply of the API whose status is not 2xx.
type Error struct {
	Status      int
	Message     string    // what the service said, shortened; empty if its body is not one of the API's
	ShouldRetry *bool     // x-should-retry; nil when the reply carries none
	ResetAt     time.Time // from when to try again, UTC; zero when the reply names no time
	Method      string
	Path        string // escaped, without query

	handle string // electric-handle: the shape to follow after a 409
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s %s: %d %s", e.Method, e.Path, e.Status, http.StatusText(e.Status))
	if e.Message == "" {
		return s
	}
	return s + ": " + e.Message
}

func (e *Error) outcome() Outcome {
	switch e.Status {
	case 400, 413, 422:
		if e.ShouldRetry != nil && *e.ShouldRetry {
			return Unknown
		}
		return Refused
	case 401, 403, 404, 405, 429:
		return NotReached
	}
	if e.Status/100 == 3 {
		return NotReached
	}
	return Unknown
}

// TransportError is a call without a reply.
type TransportError struct {
	Method string
	Path   string // escaped, without query
	Sent   bool   // false only if no byte of the request can have arrived
	Err    error  // wraps context.DeadlineExceeded after a timeout
}

func (e *TransportError) Error() string {
	if e.Sent {
		return fmt.Sprintf("%s %s: no reply: %v", e.Method, e.Path, e.Err)
	}
	return fmt.Sprintf("%s %s: not sent: %v", e.Method, e.Path, e.Err)
}

// Unwrap gives the error of the transport.
func (e *TransportError) Unwrap() error { return e.Err }

func (e *TransportError) outcome() Outcome {
	if e.Sent {
		return Unknown
	}
	return NotReached
}

// BadReplyError is a 2xx reply that is not what the API answers: another
// content type, cut off, too long, not JSON, without id or status, or about
// another run. Proxies make such replies.
type BadReplyError struct {
	Method string
	Path   string // escaped, without query
	Status int
	Err    error
}

func (e *BadReplyError) Error() string {
	return fmt.Sprintf("%s %s: bad reply with status %d: %v", e.Method, e.Path, e.Status, e.Err)
}

// Unwrap gives what is wrong with the reply.
func (e *BadReplyError) Unwrap() error { return e.Err }

func (e *BadReplyError) outcome() Outcome { return Unknown }

// InvalidError is a request that was not sent, because the service could only
// refuse or misread it.
type InvalidError struct {
	Reason string
}

func (e *InvalidError) Error() string { return "invalid request: " + e.Reason }

func (e *InvalidError) outcome() Outcome { return Refused }

// refusal makes an [*Error] of a reply that is not 2xx. The key it was asked
// with is blotted out, should a proxy echo it.
func refusal(in call, res *http.Response, key string) *Error {
	e := &Error{
		Status:  res.StatusCode,
		ResetAt: resetAt(res.Header, time.Now()),
		Method:  in.method,
		Path:    in.path,
		handle:  res.Header.Get("Electric-Handle"),
	}
	if retry, err := strconv.ParseBool(res.Header.Get("X-Should-Retry")); err == nil {
		e.ShouldRetry = &retry
	}
	// A body cut off leaves the status, which is what counts.
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorReply))
	e.Message = shorten(strings.ReplaceAll(message(body), key, "[key]"))
	return e
}

// message reads what the service says went wrong: the member "error", and the
// first of the problems that some routes list beside it. Members of another
// type count as absent, and so does a body that is not JSON.
func message(body []byte) string {
	var b struct {
		Error   string    `json:"error"`
		Issues  []problem `json:"issues"`
		Details []problem `json:"details"`
	}
	_ = json.Unmarshal(body, &b)
	problems := append(b.Issues, b.Details...)
	if len(problems) == 0 {
		return b.Error
	}
	return b.Error + ": " + problems[0].String()
}

// problem is one entry of the server's schema check.
type problem struct {
	Message string `json:"message"`
	Path    []any  `json:"path"`
}

func (p problem) String() string {
	var at []string
	for _, step := range p.Path {
		at = append(at, fmt.Sprint(step))
	}
	if len(at) == 0 {
		return p.Message
	}
	return strings.Join(at, ".") + ": " + p.Message
}

// shorten keeps a message to about a line or two.
func shorten(s string) string {
	const most = 400 // bytes
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
