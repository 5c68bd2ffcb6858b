package emulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fault is something that goes wrong with requests, on demand; see putFaults.
type fault struct {
	Match struct {
		Method string `json:"method,omitempty"` // empty: any
		Path   string `json:"path,omitempty"`   // a prefix
	} `json:"match"`
	Kind        string   `json:"kind"`
	Status      int      `json:"status,omitempty"`
	DelayMs     int64    `json:"delayMs,omitempty"`
	Location    string   `json:"location,omitempty"`
	Times       int      `json:"times,omitempty"`       // 0: for ever
	Probability *float64 `json:"probability,omitempty"` // absent: 1
	After       int      `json:"after,omitempty"`       // requests that pass first

	Seen int `json:"seen"` // requests that fitted
	Hits int `json:"hits"` // of them, those that it struck
}

// The kinds of fault. putFaults says what they do.
const (
	dropReply = "dropReply"
	slow      = "delay"
	badStatus = "status"
	hang      = "hang"
	reset     = "reset"
	garbage   = "garbage"
	truncate  = "truncate"
	redirect  = "redirect"
	notFound  = "notFound"
	emptyList = "emptyList"
	staleList = "staleList"
)

func (f *fault) check() error {
	kinds := []string{dropReply, slow, badStatus, hang, reset, garbage, truncate, redirect, notFound, emptyList, staleList}
	switch {
	case !slices.Contains(kinds, f.Kind):
		return fmt.Errorf("kind %q: want one of %s", f.Kind, strings.Join(kinds, " "))
	case f.Kind == badStatus && (f.Status < 400 || f.Status > 599):
		return fmt.Errorf("status %d: want 400 to 599", f.Status)
	case (f.Kind == slow || f.Kind == staleList) && f.DelayMs <= 0:
		return errors.New("delayMs: want a positive number")
	case f.DelayMs < 0 || f.Times < 0 || f.After < 0:
		return errors.New("delayMs, times and after must not be negative")
	case f.Probability != nil && (*f.Probability < 0 || *f.Probability > 1):
		return errors.New("probability: want 0 to 1")
	}
	return nil
}

// strikes tells whether the fault hits this request, and counts.
func (f *fault) strikes(r *http.Request) bool {
	if f.Match.Method != "" && f.Match.Method != r.Method || !strings.HasPrefix(r.URL.Path, f.Match.Path) {
		return false
	}
	f.Seen++
	spent := f.Times > 0 && f.Hits >= f.Times
	if spent || f.Seen <= f.After || f.Probability != nil && rand.Float64() >= *f.Probability {
		return false
	}
	f.Hits++
	return true
}

// strike picks the fault for a request. The controls themselves are never hit.
func (e *Emulator) strike(r *http.Request) *fault {
	if isControl(r) {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.faults {
		if f.strikes(r) {
			hit := *f
			return &hit
		}
	}
	return nil
}

// spoil answers a request as the fault wants it.
func (e *Emulator) spoil(w http.ResponseWriter, r *http.Request, f *fault) {
	switch f.Kind {
	case dropReply:
		e.mux.ServeHTTP(newTape(), r)
		panic(http.ErrAbortHandler)
	case reset:
		panic(http.ErrAbortHandler)
	case hang:
		select {
		case <-r.Context().Done():
		case <-e.ctx.Done():
		}
		panic(http.ErrAbortHandler)
	case slow:
		if e.pause(r, time.Duration(f.DelayMs)*time.Millisecond) {
			e.mux.ServeHTTP(w, r)
		}
	case staleList:
		e.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), lagKey{}, f.DelayMs)))
	case truncate:
		t := newTape()
		e.mux.ServeHTTP(t, r)
		t.playHalf(w)
		panic(http.ErrAbortHandler)
	default:
		f.reply(r).send(w)
	}
}

// lagKey is where a request carries how far, in milliseconds, the list lags for it.
type lagKey struct{}

func lagOf(r *http.Request) instant {
	ms, _ := r.Context().Value(lagKey{}).(int64)
	return instant(ms)
}

// pause waits for as long as somebody waits for the answer.
func (e *Emulator) pause(r *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
	case <-e.ctx.Done():
	}
	return false
}

// reply is the answer of a fault that does nothing else.
func (f *fault) reply(r *http.Request) *reply {
	switch f.Kind {
	case garbage:
		return &reply{status: http.StatusOK, kind: "text/html; charset=utf-8", raw: []byte("<html><body>not what you asked for</body></html>")}
	case redirect:
		to := f.Location
		if to == "" {
			to = "https://redirect.invalid" + r.URL.RequestURI()
		}
		return (&reply{status: http.StatusFound}).set("Location", to)
	case notFound:
		return missing(r)
	case emptyList:
		return emptyPage(r)
	}
	return f.statusReply(strings.HasPrefix(r.URL.Path, realtimePath))
}

// missing is the 404 of the request's route.
func missing(r *http.Request) *reply {
	path := r.URL.Path
	switch {
	case strings.HasPrefix(path, "/api/v3/runs/"):
		return notFoundRun()
	case strings.HasPrefix(path, realtimePath):
		return notFoundFeed()
	case strings.HasPrefix(path, "/api/v1/schedules"):
		return noSchedule()
	case strings.HasSuffix(path, "/cancel"), strings.HasSuffix(path, "/replay"):
		return failure(http.StatusNotFound, "Resource not found")
	case strings.HasSuffix(path, "/tags"), strings.HasSuffix(path, "/reschedule"):
		return failure(http.StatusNotFound, "Run not found")
	case strings.HasSuffix(path, "/metadata"):
		return failure(http.StatusNotFound, "Task Run not found")
	}
	return failure(http.StatusNotFound, "Not found")
}

func emptyPage(r *http.Request) *reply {
	pagination := object()
	if strings.HasPrefix(r.URL.Path, "/api/v1/schedules") {
		pagination = object("currentPage", 1, "totalPages", 0, "count", 0)
	}
	return success(object("data", []string{}, "pagination", pagination))
}

func (f *fault) statusReply(realtime bool) *reply {
	switch {
	case realtime && f.Status == http.StatusTooManyRequests:
		return tooManyPolls()
	case realtime && f.Status == http.StatusConflict:
		return mustRefetch()
	}
	switch f.Status {
	case http.StatusTooManyRequests:
		now := time.Now()
		a := allowance{limit: defaultLimit, left: -1, reset: now.Add(max(time.Second, time.Duration(f.DelayMs)*time.Millisecond))}
		return a.mark(tooMany(a, now))
	case http.StatusUnauthorized:
		return failure(f.Status, "Invalid API key")
	case http.StatusForbidden:
		return &reply{status: f.Status, body: object("error", "Unauthorized", "code", "unauthorized",
			"param", "access_token", "type", "authorization")}
	case http.StatusInternalServerError:
		return failure(f.Status, "Internal Server Error")
	case http.StatusBadGateway:
		return &reply{status: f.Status, kind: "text/html", raw: []byte("<html><head><title>502 Bad Gateway</title></head></html>")}
	}
	return failure(f.Status, http.StatusText(f.Status))
}

// getFaults shows the list with its counts.
func (e *Emulator) getFaults(*call) *reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.faultsShown()
}

func (e *Emulator) faultsShown() *reply {
	shown := make([]fault, len(e.faults))
	for n, f := range e.faults {
		shown[n] = *f
	}
	return success(object("faults", shown))
}

// putFaults is PUT /emulator/faults: it replaces the list of faults, an array, bare
// or as the member faults. Each fault is
//
//	{"match":{"method":"POST","path":"/api/v1/tasks/"},"kind":KIND,
//	 "times":n,"after":n,"probability":0..1,"status":n,"delayMs":n,"location":URL}
//
// of which only kind is needed. match: the method (else any) and how the path begins
// (else any); the controls themselves are never hit. after: so many requests that
// fit pass first. times: then so many are hit (else all). probability: each of them
// only by chance. Of several faults that fit, the first in force strikes. The kinds:
//
//	dropReply  the work is done, but the connection closes without an answer
//	delay      the work is done after delayMs
//	status     nothing is done; an error of that status, 400 to 599. 429 has the
//	           limiter's body and headers, its reset in delayMs; on /realtime/ it is
//	           too many polls, and 409 there is must-refetch
//	hang       nothing until the client goes away
//	reset      nothing is done; the connection closes
//	garbage    nothing is done; 200 with something but JSON
//	truncate   the work is done, but the answer breaks off halfway
//	redirect   nothing is done; 302 to location, else to another host
//	notFound   nothing is done; the route's own 404, also on /realtime/
//	emptyList  nothing is done; a list of runs or schedules without rows
//	staleList  the list of runs, without those that are younger than delayMs
//
// GET /emulator/faults shows the list and how often each fault was seen and hit.
func (e *Emulator) putFaults(c *call) *reply {
	raw := bytes.TrimSpace(c.body)
	if kindOf(raw) == "object" {
		if list := member(raw, "faults"); list != nil {
			raw = list
		}
	}
	faults, err := readFaults(raw)
	if err != nil {
		return failure(http.StatusBadRequest, err.Error())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults = faults
	return e.faultsShown()
}

func readFaults(raw []byte) ([]*fault, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var faults []*fault
	if err := dec.Decode(&faults); err != nil {
		return nil, fmt.Errorf("faults: want an array: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("faults: something follows the array")
	}
	for n, f := range faults {
		if f == nil {
			return nil, fmt.Errorf("fault %d: want an object", n)
		}
		if err := f.check(); err != nil {
			return nil, fmt.Errorf("fault %d: %w", n, err)
		}
		f.Seen, f.Hits = 0, 0
	}
	return faults, nil
}

// tape records an answer instead of sending it.
type tape struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newTape() *tape { return &tape{header: http.Header{}, status: http.StatusOK} }

func (t *tape) Header() http.Header         { return t.header }
func (t *tape) WriteHeader(status int)      { t.status = status }
func (t *tape) Write(p []byte) (int, error) { return t.body.Write(p) }

// playHalf announces all of the answer and sends half of it.
func (t *tape) playHalf(w http.ResponseWriter) {
	for name, values := range t.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(t.body.Len()))
	w.WriteHeader(t.status)
	_, _ = w.Write(t.body.Bytes()[:t.body.Len()/2])
	_ = http.NewResponseController(w).Flush() // best effort: half of it is the point
}
