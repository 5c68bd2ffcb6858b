package triggerdev

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// electricVersion selects the header names that this package reads.
	electricVersion = "1.0.0-beta.1"

	// pollTimeout bounds one poll. The service holds a live one for about 20 s.
	pollTimeout = 40 * time.Second

	// minPoll is how long a live poll that brings nothing takes at least. Who
	// answers sooner than the service does, such as a cache, is not hammered.
	minPoll = time.Second

	// maxWindow is how far the service looks back at most.
	maxWindow = 24 * time.Hour

	// fromStart is the offset that asks for a whole shape.
	fromStart = "-1"
)

// ErrNoRealtime means that the service answered 404 for the collection of runs:
// it has no realtime API. [Client.List] is the way to poll it. The error that
// wraps it is an [*Error] too.
var ErrNoRealtime = errors.New("realtime is not available")

// RealtimeFilter says which runs a [Stream] follows, and how. Its zero value
// follows the whole environment.
type RealtimeFilter struct {
	// Tags are those a run must all have. The service takes none with a comma, a
	// quote, a backslash or a control character.
	Tags []string

	// Since is how long before the stream begins a run may have been created:
	// 24 hours when zero, which is also the most. Sent in whole seconds, rounded
	// up.
	Since time.Duration

	// SkipColumns are columns that the service is to leave out beside the payload,
	// which is never asked for. Output and metadata are what makes a row big. Id,
	// task, status and time of creation come all the same.
	SkipColumns []string

	// DropFinal lets the stream forget a run once it was returned with a final
	// status. A later change of that run is then returned only if the service
	// sends the whole row, which not every server does.
	DropFinal bool
}

// query gives the parameters that stay the same in every poll of a stream.
func (f RealtimeFilter) query() (url.Values, error) {
	if f.Since < 0 || f.Since > maxWindow {
		return nil, &InvalidError{Reason: fmt.Sprintf("since: %v does not lie between 0 and 24 hours", f.Since)}
	}
	q := url.Values{}
	if f.Since > 0 {
		q.Set("createdAt", fmt.Sprintf("%ds", wholeSeconds(f.Since)))
	}
	for _, tag := range f.Tags {
		if strings.ContainsFunc(tag, barred) {
			return nil, &InvalidError{Reason: fmt.Sprintf("tags: %q cannot be asked for", tag)}
		}
	}
	if err := setList(q, "tags", f.Tags); err != nil {
		return nil, err
	}
	skip := append([]string{"payload", "payloadType"}, f.SkipColumns...)
	return q, setList(q, "skipColumns", skip)
}

func barred(r rune) bool { return r < ' ' || r == 0x7f || r == '"' || r == '\\' }

// Stream follows the runs of one [RealtimeFilter]. It is for one goroutine at a
// time. It needs no closing: between two calls of Next nothing is open.
//
// A stream holds the newest row of every run it has seen, without payload, so
// that a change which names some columns becomes a whole row again. It therefore
// grows with the runs, unless [RealtimeFilter.DropFinal] lets it forget them.
type Stream struct {
	client    *Client
	query     url.Values
	invalid   error
	dropFinal bool
	limit     int64 // bytes of one reply

	handle   string // names the shape; empty until the service has given one
	offset   string // how far the shape has been read
	cursor   string // the service's own, echoed in live polls
	upToDate bool   // the shape has been read to its end: the next poll is a live one
	mintedAt time.Time
	calm     time.Time // no live poll before

	rows    map[string]*row
	changed []string // keys of rows to be returned, oldest change first
}

// Subscribe makes a stream. It sends nothing.
func (c *Client) Subscribe(f RealtimeFilter) *Stream {
	s := &Stream{client: c, dropFinal: f.DropFinal, limit: maxShapeReply}
	s.query, s.invalid = f.query()
	s.Reset()
	return s
}

// Snapshot reads once what Realtime shows of the runs created in the last 24
// hours that have all the tags, 1,000 of them at most. Its rows are current. A
// run may be missing for a moment after it was triggered on a server that looks
// ids up where [Client.List] does: like there, absence proves nothing.
func (c *Client) Snapshot(ctx context.Context, tags ...string) ([]RealtimeRun, error) {
	return c.Subscribe(RealtimeFilter{Tags: tags}).Next(ctx)
}

// Reset makes the next call of Next begin anew, with a fresh handle: it returns
// the snapshot again, of a look-back window that ends then.
func (s *Stream) Reset() { s.restart("") }

// restart forgets the shape. With a handle the next one is read, without one the
// service mints it.
func (s *Stream) restart(handle string) {
	s.handle, s.offset, s.cursor = handle, fromStart, ""
	s.upToDate = false
	s.mintedAt = time.Time{}
	s.rows, s.changed = map[string]*row{}, nil
}

// MintedAt is when the service first answered for the shape that is followed
// now; zero before that. The look-back window ended then, and does not move:
// of older runs those are seen that fell into it. A run that gets older than 24
// hours may drop out of sight all the same.
func (s *Stream) MintedAt() time.Time { return s.mintedAt }

// Next returns the runs that have changed since it last returned, each as the
// whole of its current row and each once, whatever it went through meanwhile.
// The first call returns the snapshot. Later ones wait for a change, about 20
// seconds, and return nothing when there was none. A run that is deleted, or
// has left the filter, is not returned and no longer held. One that was dropped
// as final may be returned again after an error.
//
// When the service drops the shape, Next reads the new one: its snapshot comes
// instead of the changes. It does so once in a call; a second time is an error.
//
// After an error nothing that was to be returned is lost: Next may be called
// again and goes on from there, or begins anew after a 400 or 404. The errors
// are those of every call of this package; [ErrNoRealtime] is there to be told
// apart. A 429 says that too many polls are open, and has its own limit, apart
// from [RateLimit].
func (s *Stream) Next(ctx context.Context) ([]RealtimeRun, error) {
	if s.invalid != nil {
		return nil, s.invalid
	}
	for dropped := false; ; {
		refetch, err := s.poll(ctx)
		switch {
		case refetch && !dropped:
			dropped = true
		case refetch:
			s.Reset() // without the handle that was of no use
			return nil, err
		case err != nil:
			return nil, err
		case s.upToDate:
			return s.take(), nil
		}
	}
}

// poll makes one request and merges its reply. It tells whether the shape was
// dropped and has to be fetched anew, which is an error if it has just been.
func (s *Stream) poll(ctx context.Context) (refetch bool, err error) {
	in := call{method: http.MethodGet, path: "/realtime/v1/runs", query: s.pollQuery(), follow: true}
	if err := s.rest(ctx); err != nil {
		return false, &TransportError{Method: in.method, Path: in.path, Err: err}
	}
	began := time.Now()
	var got reply
	err = s.client.exchange(ctx, in, func(res *http.Response) error { return s.read(res, &got) })
	if err != nil {
		return s.fail(err)
	}
	if got.refetch {
		s.restart(got.handle)
		return true, &BadReplyError{Method: in.method, Path: in.path, Status: http.StatusOK, Err: errDropped}
	}
	if s.offset == fromStart {
		s.mintedAt = time.Now().UTC()
	}
	if s.upToDate && (len(s.changed) == 0 || got.offset == s.offset) {
		s.calm = began.Add(minPoll)
	}
	s.handle, s.offset, s.cursor, s.upToDate = got.handle, got.offset, got.cursor, got.upToDate
	return false, nil
}

func (s *Stream) pollQuery() url.Values {
	q := url.Values{"offset": {s.offset}}
	for name, values := range s.query {
		q[name] = values
	}
	set(q, "handle", s.handle)
	if s.upToDate {
		q.Set("live", "true")
		set(q, "cursor", s.cursor)
	}
	return q
}

// rest waits until a live poll may be made.
func (s *Stream) rest(ctx context.Context) error {
	if !s.upToDate {
		return nil
	}
	return sleep(ctx, time.Until(s.calm))
}

// fail takes from an error what it says of the shape. When a live reply may have
// been lost, the next poll is no live one: a server that keeps track of what it
// has sent would not send it again.
func (s *Stream) fail(err error) (refetch bool, _ error) {
	if OutcomeOf(err) == Unknown {
		s.upToDate = false
	}
	var e *Error
	if !errors.As(err, &e) {
		return false, err
	}
	switch e.Status {
	case http.StatusConflict:
		s.restart(e.handle)
		return true, err
	case http.StatusNotFound:
		s.Reset()
		return false, fmt.Errorf("%w: %w", ErrNoRealtime, err)
	case http.StatusBadRequest:
		s.Reset()
	}
	return false, err
}

// take hands the changed rows out.
func (s *Stream) take() []RealtimeRun {
	var runs []RealtimeRun
	for _, key := range s.changed {
		r := s.rows[key]
		if r == nil || !r.changed {
			continue
		}
		r.changed = false
		runs = append(runs, r.run())
		if s.dropFinal && final(string(r.Status)) {
			delete(s.rows, key)
		}
	}
	s.changed = nil
	return runs
}
