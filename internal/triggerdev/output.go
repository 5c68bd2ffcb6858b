package triggerdev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// MaxOutput is how many bytes of output [Client.Output] fetches at most. It is
// also what the service lets a task return.
const MaxOutput = 10 << 20

// TooLargeError is an output above [MaxOutput]. Trying again does not help.
type TooLargeError struct {
	Size int64 // in bytes; -1 if the store did not tell
}

func (e *TooLargeError) Error() string {
	if e.Size < 0 {
		return fmt.Sprintf("output is above %d bytes", MaxOutput)
	}
	return fmt.Sprintf("output of %d bytes is above %d", e.Size, MaxOutput)
}

func (e *TooLargeError) outcome() Outcome { return Refused }

// StoreError means that the object store did not hand out an output. It is no
// [*Error]: a 403 of the store is an expired address, not a bad key, and a 404
// is no missing run. A fresh [Client.Retrieve] brings a fresh address.
type StoreError struct {
	Status int   // 0 when there was no reply
	Err    error // nil when Status tells it all
}

func (e *StoreError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("fetch output: %d %s", e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("fetch output: %v", e.Err)
}

// Unwrap gives what went wrong on the way, if anything did.
func (e *StoreError) Unwrap() error { return e.Err }

func (e *StoreError) outcome() Outcome { return Unknown }

// Output gives the output of a retrieved run as plain JSON. Nil means that the
// run has none, which is not the JSON value null.
//
// A small output is in the run. A big one is fetched from the object store,
// without the key, while the address in the run lives: 5 minutes. It fails with
// [*TooLargeError] or [*StoreError].
func (c *Client) Output(ctx context.Context, run Run) (json.RawMessage, error) {
	if run.Output != nil || run.OutputPresignedURL == "" {
		return run.Output, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.fetch(ctx, run.OutputPresignedURL)
}

func (c *Client) fetch(ctx context.Context, address string) (json.RawMessage, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, &StoreError{Err: errors.New("address is not an http or https one")}
	}
	req, err := newRequest(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, &StoreError{Err: errors.New("address is not usable")}
	}
	c.setUserAgent(req)
	res, err := c.send(req, "output")
	if err != nil {
		return nil, &StoreError{Err: errors.Unwrap(err)}
	}
	defer finish(res.Body)

	if res.StatusCode != http.StatusOK {
		return nil, &StoreError{Status: res.StatusCode}
	}
	if res.ContentLength > MaxOutput {
		return nil, &TooLargeError{Size: res.ContentLength}
	}
	body, err := readUpTo(res.Body, MaxOutput)
	if errors.Is(err, errTooLong) {
		return nil, &TooLargeError{Size: -1}
	}
	if err != nil {
		return nil, &StoreError{Status: res.StatusCode, Err: err}
	}
	out, err := plain(mediaType(res.Header), body)
	if err != nil {
		return nil, &StoreError{Status: res.StatusCode, Err: err}
	}
	return out, nil
}

// plain turns a stored output into the JSON that the service would show inline.
func plain(mediaType string, body []byte) (json.RawMessage, error) {
	switch mediaType {
	case "application/json":
		if !json.Valid(body) {
			return nil, errors.New("body is not JSON")
		}
		return body, nil
	case "application/super+json":
		return unwrap(body)
	case "text/plain":
		return encode(string(body))
	}
	return nil, fmt.Errorf("content type is %q", mediaType)
}

// unwrap takes the value out of a SuperJSON envelope. What meta says of types
// that JSON lacks is dropped: a date stays its ISO string.
func unwrap(body []byte) (json.RawMessage, error) {
	var envelope struct {
		JSON json.RawMessage `json:"json"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return nil, errors.New("body is not JSON")
	}
	if envelope.JSON == nil {
		return nil, errors.New("no value in the envelope")
	}
	return envelope.JSON, nil
}
