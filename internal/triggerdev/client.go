// Package triggerdev is a typed client of Trigger.dev's HTTP API: trigger,
// read, list and cancel runs, fetch their output, follow them in realtime, and
// keep schedules.
//
// It decides nothing about what a run means to its caller. It does tell apart,
// for every failed call, whether the service may have carried it out: see
// [OutcomeOf]. No call is repeated here; when to try again is the caller's.
//
// No error of this package holds the key, a payload, an output or a presigned
// address.
package triggerdev

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// DefaultBaseURL is where Trigger.dev Cloud answers.
const DefaultBaseURL = "https://api.trigger.dev"

// DefaultTimeout bounds a call of a client that was given no timeout.
const DefaultTimeout = 10 * time.Second

// apiVersion selects the run statuses this package documents. The server
// compares it for equality: any other value, newer ones too, brings the old
// vocabulary back.
const apiVersion = "2025-07-16"

// Config is what a [Client] is made from.
type Config struct {
	// BaseURL is an absolute http or https address, [DefaultBaseURL] when empty.
	// One trailing slash is removed.
	BaseURL string

	// Key gives the secret key of one environment. It is asked for each request,
	// so that a rotated key is taken up; space around the key is dropped. It must
	// be safe to call from many goroutines.
	Key func() string

	// Branch names a preview or development branch. Preview keys need one.
	Branch string

	// HTTP carries the requests; nil means a client on [http.DefaultTransport].
	// Of it only Transport and Jar are used: each call has a deadline of its own,
	// and no redirect is followed, because a 301 turns a POST into a GET.
	HTTP *http.Client

	// Timeout bounds one call from connect to the last byte of the reply,
	// [DefaultTimeout] when it is not positive.
	Timeout time.Duration

	// UserAgent is sent as it is; empty means that of net/http.
	UserAgent string
}

// Client talks to one environment of Trigger.dev. It is safe for use from many
// goroutines.
type Client struct {
	base      string
	key       func() string
	branch    string
	userAgent string
	timeout   time.Duration
	http      *http.Client
	limits    limits
}

// New makes a client. It sends nothing; [Client.Ping] proves the key.
func New(cfg Config) (*Client, error) {
	base, err := baseURL(cfg.BaseURL)
	if err != nil {
		return nil, err
	}
	if cfg.Key == nil {
		return nil, errors.New("triggerdev: no key function")
	}
	if !headerSafe(cfg.Branch) {
		return nil, errors.New("triggerdev: branch cannot stand in a header")
	}
	if !headerSafe(cfg.UserAgent) {
		return nil, errors.New("triggerdev: user agent cannot stand in a header")
	}
	c := &Client{
		base:      base,
		key:       cfg.Key,
		branch:    cfg.Branch,
		userAgent: cfg.UserAgent,
		timeout:   cfg.Timeout,
		http:      steadyClient(cfg.HTTP),
	}
	if c.timeout <= 0 {
		c.timeout = DefaultTimeout
	}
	return c, nil
}

// Environment is the word for an environment that the key carries: dev, stg, prod or
// preview. It is empty for a key of another form.
func (c *Client) Environment() string {
	rest, ours := strings.CutPrefix(strings.TrimSpace(c.key()), "tr_")
	word, _, _ := strings.Cut(rest, "_")
	if !ours || !slices.Contains([]string{"dev", "stg", "prod", "preview"}, word) {
		return ""
	}
	return word
}

// baseURL checks raw and drops one trailing slash. Its errors do not quote raw,
// which may hold a password.
func baseURL(raw string) (string, error) {
	if raw == "" {
		return DefaultBaseURL, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", errors.New("triggerdev: base URL cannot be parsed")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", errors.New("triggerdev: base URL is not an absolute http or https address")
	}
	if u.User != nil || strings.ContainsAny(raw, "?#") {
		return "", errors.New("triggerdev: base URL holds credentials, a query or a fragment")
	}
	return strings.TrimSuffix(raw, "/"), nil
}

// steadyClient copies h without its timeout and without redirects.
func steadyClient(h *http.Client) *http.Client {
	if h == nil {
		h = &http.Client{}
	}
	return &http.Client{
		Transport: h.Transport,
		Jar:       h.Jar,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// headerSafe reports whether s is printable ASCII, which any header may hold.
func headerSafe(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
