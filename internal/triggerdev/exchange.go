package triggerdev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// How much of a reply is read, in bytes. The biggest honest reply is a list of
// 100 runs with 256 KiB of metadata each; payload and output come inline only
// below 1 MiB.
const (
	maxReply      = 32 << 20
	maxErrorReply = 1 << 20
)

var errTooLong = errors.New("reply is too long")

// call is one request to the API.
type call struct {
	method string
	path   string // escaped, starts with a slash, without query
	query  url.Values
	body   any // sent as JSON; nil sends no body

	follow bool // a request of the realtime protocol, which may be held open
}

// deadline is how long a call may take from connect to the last byte.
func (c *Client) deadline(in call) time.Duration {
	if in.follow {
		return pollTimeout
	}
	return c.timeout
}

// checked is a decoded reply that knows what it must hold to be one.
type checked interface {
	// check says what is missing.
	check() error
}

// headed is a decoded reply of which a part stands in the header.
type headed interface {
	readHeader(http.Header)
}

// do makes one call of the API and decodes a 2xx reply into out.
func (c *Client) do(ctx context.Context, in call, out checked) error {
	err := c.exchange(ctx, in, func(res *http.Response) error { return readReply(res, out) })
	c.limits.refused(err)
	return err
}

// exchange makes one call and lets read have a 2xx reply. An error of read makes
// it a bad one.
func (c *Client) exchange(ctx context.Context, in call, read func(*http.Response) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.deadline(in))
	defer cancel()

	req, err := c.request(ctx, in)
	if err != nil {
		return err
	}
	res, err := c.send(req, in.path)
	if err != nil {
		return err
	}
	defer finish(res.Body)

	c.limits.note(res.Header)
	if res.StatusCode/100 != 2 {
		return refusal(in, res, strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "))
	}
	if err := read(res); err != nil {
		return &BadReplyError{Method: in.method, Path: in.path, Status: res.StatusCode, Err: err}
	}
	return nil
}

// request builds the request of one call, key included.
func (c *Client) request(ctx context.Context, in call) (*http.Request, error) {
	body, err := encode(in.body)
	if err != nil {
		return nil, &InvalidError{Reason: fmt.Sprintf("%s %s: body is not JSON", in.method, in.path)}
	}
	key := strings.TrimSpace(c.key())
	if key == "" || !headerSafe(key) {
		return nil, fmt.Errorf("%s %s: %w", in.method, in.path, ErrNoKey)
	}
	address := c.base + in.path
	if len(in.query) > 0 {
		address += "?" + in.query.Encode()
	}
	req, err := newRequest(ctx, in.method, address, body)
	if err != nil {
		return nil, &InvalidError{Reason: fmt.Sprintf("%s %s: address cannot be parsed", in.method, in.path)}
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("X-Trigger-Api-Version", apiVersion)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if in.follow {
		req.Header.Set("X-Trigger-Electric-Version", electricVersion)
	}
	if c.branch != "" {
		req.Header.Set("X-Trigger-Branch", c.branch)
	}
	c.setUserAgent(req)
	return req, nil
}

func (c *Client) setUserAgent(req *http.Request) {
	if c.userAgent != "" {
		req.Header.Set("User-Agent", c.userAgent)
	}
}

// newRequest makes a request whose length net/http knows. The service answers
// 413 to a body without Content-Length.
func newRequest(ctx context.Context, method, address string, body []byte) (*http.Request, error) {
	if body == nil {
		return http.NewRequestWithContext(ctx, method, address, nil)
	}
	return http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
}

// encode gives body as JSON without the escaping meant for HTML, which would
// swell a payload; nil gives nil.
func encode(body any) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(body); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// send carries req out. Its error is a [*TransportError] that names path and
// not the whole address.
func (c *Client) send(req *http.Request, path string) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, &TransportError{Method: req.Method, Path: path, Err: err}
	}
	var t tracer
	res, err := c.http.Do(req.WithContext(t.trace(req.Context())))
	if err != nil {
		return nil, &TransportError{Method: req.Method, Path: path, Sent: t.maySent(err), Err: bare(err)}
	}
	return res, nil
}

// tracer watches how far a request comes.
type tracer struct {
	sought atomic.Bool // the transport looks for a connection, hence it reports
	found  atomic.Bool // there is a connection: bytes may leave from now on
}

func (t *tracer) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { t.sought.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { t.found.Store(true) },
	})
}

// maySent is false only on proof: a failed dial, or a transport that sought a
// connection and never had one (name lookup, TLS, a deadline while connecting).
// A RoundTripper that reports nothing proves nothing.
func (t *tracer) maySent(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return false
	}
	return t.found.Load() || !t.sought.Load()
}

// bare takes the address off an error of net/http: a presigned one is a secret.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func readReply(res *http.Response, out checked) error {
	if mt := mediaType(res.Header); mt != "application/json" {
		return fmt.Errorf("content type is %q", mt)
	}
	body, err := readUpTo(res.Body, maxReply)
	if err != nil {
		return err
	}
	if err := decode(body, out); err != nil {
		return err
	}
	if h, ok := out.(headed); ok {
		h.readHeader(res.Header)
	}
	return nil
}

// decode reads one JSON value, ignoring members it does not know.
func decode(body []byte, out checked) error {
	if err := json.Unmarshal(body, out); err != nil {
		return err
	}
	return out.check()
}

// readUpTo reads r whole, or fails with [errTooLong] beyond limit bytes.
func readUpTo(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, errTooLong
	}
	return body, nil
}

// finish reads what is left of a body, within reason, so that its connection can
// be used again.
func finish(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, maxErrorReply)
	_ = body.Close()
}

// mediaType gives the content type without parameters, lower case, or what the
// header says if it cannot be parsed.
func mediaType(h http.Header) string {
	mt, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return h.Get("Content-Type")
	}
	return mt
}

// segment escapes s as one segment of a path. It refuses what would name
// another address: nothing at all (a trailing slash is a redirect) and dots.
func segment(what, s string) (string, error) {
	if s == "" || s == "." || s == ".." {
		return "", &InvalidError{Reason: fmt.Sprintf("%s %q cannot stand in a path", what, s)}
	}
	return url.PathEscape(s), nil
}

// idReply is the answer of calls that only echo an id.
type idReply struct {
	ID string `json:"id"`
}

func (r *idReply) check() error {
	if r.ID == "" {
		return errors.New("no id")
	}
	return nil
}
