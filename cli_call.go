package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
)

const (
	// answerPatience is how long an answer may take beyond the wait asked for.
	answerPatience = 30 * time.Second
	// resendPause comes before a call whose connection broke is made again.
	resendPause = 500 * time.Millisecond
	// noLimit is the wait of a call that may take as long as it likes.
	noLimit time.Duration = -1
)

// caller speaks HTTP with a running sidejob.
type caller struct {
	base  string // without the slash at its end
	shown string // as the user knows it
	token string // empty: none is shown
	http  *http.Client
}

// apiCall is one request. wait is how long the server was asked to hold it.
type apiCall struct {
	method, path string
	query        url.Values
	body         any // nil: none
	wait         time.Duration
}

// apiAnswer is a reply of the API that is no problem.
type apiAnswer struct {
	status int
	body   []byte
}

func (c *caller) get(ctx context.Context, path string, query url.Values) (apiAnswer, error) {
	return c.do(ctx, apiCall{method: http.MethodGet, path: path, query: query})
}

// do makes the call. Its errors are exitErrors.
func (c *caller) do(ctx context.Context, call apiCall) (apiAnswer, error) {
	body, err := encodeBody(call.body)
	if err != nil {
		return apiAnswer{}, exitError{exitFailure, err}
	}
	if call.wait != noLimit {
		limited, cancel := context.WithTimeoutCause(ctx, call.wait+answerPatience, errNoAnswer)
		defer cancel()
		ctx = limited
	}
	got, err := c.deliver(ctx, call, body)
	if err != nil {
		return apiAnswer{}, c.unreachable(ctx, call, err)
	}
	return got, c.problem(got)
}

// deliver sends the call, and should the connection break, once more: a POST
// carries a key by which the server takes the second for the first. Where the
// server is still at the first, the reply is asked for until it is there.
func (c *caller) deliver(ctx context.Context, call apiCall, body []byte) (apiAnswer, error) {
	key := uuid.NewString()
	got, err := c.send(ctx, call, key, body)
	if err == nil || !wasMade(ctx, err) || pauseFor(ctx, resendPause) != nil {
		return got, err
	}
	got, err = c.send(ctx, call, key, body)
	for err == nil && underWay(got) && pauseFor(ctx, resendPause) == nil {
		got, err = c.send(ctx, call, key, body)
	}
	return got, err
}

func encodeBody(body any) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	return text, nil
}

// send makes the call once. Its error is that of the connection; a reply of any
// status is none.
func (c *caller) send(ctx context.Context, call apiCall, key string, body []byte) (apiAnswer, error) {
	req, err := c.request(ctx, call, key, body)
	if err != nil {
		return apiAnswer{}, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return apiAnswer{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return apiAnswer{status: res.StatusCode, body: text}, err
}

func (c *caller) request(ctx context.Context, call apiCall, key string, body []byte) (*http.Request, error) {
	address := c.base + call.path
	if len(call.query) > 0 {
		address += "?" + call.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, call.method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "sidejob")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if call.method == http.MethodPost {
		req.Header.Set("Idempotency-Key", key)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

// errNoAnswer is why a call that took too long was given up.
var errNoAnswer = errors.New("no answer in time")

// wasMade tells whether the connection that failed had been there: the call may
// have arrived.
func wasMade(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !refused(err)
}

// refused tells whether no connection could be made.
func refused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// underWay tells whether the server still carries out the first of two equal calls.
func underWay(got apiAnswer) bool {
	if got.status != http.StatusConflict {
		return false
	}
	var body problemBody
	return json.Unmarshal(got.body, &body) == nil && body.Code == "idempotency_in_progress"
}

// unreachable says that no reply came, and what the user can do about it.
func (c *caller) unreachable(ctx context.Context, call apiCall, err error) error {
	var op *net.OpError
	switch {
	case errors.Is(context.Cause(ctx), errNoAnswer):
		return exitf(exitUnreachable, "%s did not answer in time%s", c.shown, maybeDone(call))
	case ctx.Err() != nil:
		return exitf(exitFailure, "interrupted%s", maybeDone(call))
	case refused(err) && errors.As(err, &op):
		return exitf(exitUnreachable, "cannot reach %s: %w\nis sidejob running? start it with: sidejob dev", c.shown, op.Err)
	}
	return exitf(exitUnreachable, "lost the connection to %s: %w%s", c.shown, withoutURL(err), maybeDone(call))
}

// maybeDone warns that a call without a reply may have been carried out.
func maybeDone(call apiCall) string {
	if call.method == http.MethodGet {
		return ""
	}
	return "; what was asked for may have been done all the same"
}

// withoutURL is the error without the address that net/http puts before it.
func withoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// pauseFor waits, unless ctx ends first.
func pauseFor(ctx context.Context, d time.Duration) error {
	pause(ctx, d)
	return ctx.Err()
}
