package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// weather is the luck of the two ways, to Trigger.dev and back, and the book of what
// it has done.
type weather struct {
	mu     sync.Mutex // guards what follows
	dice   *rand.Rand
	wind   float64 // the chance that a request fares ill
	spell  spell
	hidden string // a run that Trigger.dev does not know
	missed map[string]int
	late   []sentCall
	sent   map[string]time.Time // last submit, by idempotency key
	struck map[string]int
}

// spell is a trouble that lasts: it names what befalls a request, "" for nothing.
type spell func(*http.Request) string

func newWeather(seed uint64) *weather {
	return &weather{dice: rand.New(rand.NewPCG(seed, 7)), missed: map[string]int{}, sent: map[string]time.Time{}, struck: map[string]int{}}
}

const weekPayload = "the payload that no log may hold"

// gustKinds are the troubles that last for one request.
func gustKinds() []string {
	return []string{
		"refused", "reset", "lost reply", "late reply", "overdue reply", "hang", "500", "502", "503", "408", "429", "garbage",
		"truncated", "redirect", "wrong type", "401",
	}
}

// allTroubles are those without which a week proves nothing.
func allTroubles() []string {
	return append(gustKinds(),
		"lost reply of a submit", "403", "404 for a young run", "404 for a lost run", "run lost", "outage of hours", "401 for hours", "403 for hours",
		"emptyList", "staleList", "stream 409", "stream reset", "stream 404", "restart", "crash",
		"key freed before the reply was known", "cancel", "cancel while Trigger.dev is down", "cancel of a submit in doubt", "cancel too late",
		"event lost", "event doubled", "event late", "event late by hours", "forged signature", "forged run", "rumour",
		"ended COMPLETED", "ended FAILED", "ended CRASHED", "ended CANCELED", "ended EXPIRED",
	)
}

func (w *weather) roll() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dice.Float64()
}

func (w *weather) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.roll()*float64(most-least))
}

func (w *weather) shuffle(n int, swap func(i, j int)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dice.Shuffle(n, swap)
}

func pick[T any](w *weather, list ...T) T { return list[int(w.roll()*float64(len(list)))] }

func (w *weather) count(what string) { w.countBy(what, 1) }

func (w *weather) countBy(what string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.struck[what] += n
}

func (w *weather) counts() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.struck)
}

// blow sets the chance that a request fares ill.
func (w *weather) blow(wind float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wind = wind
}

// cast begins a spell, nil ends it.
func (w *weather) cast(s spell) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spell = s
}

// hide makes Trigger.dev know nothing of a run, "" shows it again.
func (w *weather) hide(run string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hidden = run
}

// misses is how often Trigger.dev did not know the lost run.
func (w *weather) misses(run string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.missed[run]
}

func (w *weather) lastSent(key string) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent[key]
}

// losesSubmits takes submits and keeps the replies, and nothing else gets through.
func losesSubmits(r *http.Request) string {
	if isSubmit(r) {
		return "lost reply"
	}
	return "refused"
}

// cutsStream keeps the news of all runs away.
func cutsStream(r *http.Request) string {
	if strings.HasPrefix(r.URL.Path, streamPath) {
		return "refused"
	}
	return ""
}

func isSubmit(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, submitPath)
}

// hidesYoung is a 404 for each run until so long after it was first asked for.
func (w *weather) hidesYoung(age time.Duration) spell {
	first := map[string]time.Time{}
	return func(r *http.Request) string {
		run, asked := strings.CutPrefix(r.URL.Path, retrievePath)
		if !asked {
			return ""
		}
		if _, known := first[run]; !known {
			first[run] = time.Now()
		}
		if time.Since(first[run]) < age {
			return "404 for a young run"
		}
		return ""
	}
}

// befalls names what is to happen to a request, "" for nothing.
func (w *weather) befalls(r *http.Request) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hidden != "" && strings.Contains(r.URL.Path, w.hidden) {
		w.missed[w.hidden]++
		return "404 for a lost run"
	}
	if w.spell != nil {
		return w.spell(r)
	}
	if w.dice.Float64() >= w.wind {
		return ""
	}
	kinds := gustKinds()
	return kinds[w.dice.IntN(len(kinds))]
}

// disturb is the way to Trigger.dev.
func (w *weather) disturb(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
	if isSubmit(r) {
		w.noteSubmit(spareBody(r))
	}
	kind := w.befalls(r)
	if kind == "" {
		return pass()
	}
	w.count(kind)
	switch kind {
	case "refused":
		return nil, errNoRoute
	case "reset":
		return nil, errBroken
	case "lost reply":
		return w.loseReply(r, pass)
	case "late reply":
		pauseAtMost(r.Context(), w.between(time.Second, 9*time.Second))
		return pass()
	case "overdue reply": // it arrives when its sender has given up
		res, err := pass()
		<-r.Context().Done()
		if err == nil {
			_ = res.Body.Close()
		}
		return nil, r.Context().Err()
	case "hang":
		<-r.Context().Done()
		return nil, r.Context().Err()
	case "truncated", "wrong type":
		return maim(kind, pass)
	}
	return wrongAnswer(r, kind), nil
}

func (w *weather) noteSubmit(body []byte) {
	var submit struct {
		Options struct{ IdempotencyKey string }
	}
	_ = json.Unmarshal(body, &submit) // the emulator refuses what is no JSON
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent[submit.Options.IdempotencyKey] = time.Now()
}

func (w *weather) loseReply(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
	res, err := pass()
	if err != nil {
		return nil, err
	}
	_ = res.Body.Close()
	if isSubmit(r) && res.StatusCode == http.StatusOK {
		w.count("lost reply of a submit")
	}
	return nil, errBroken
}

// maim has the work done and spoils the answer.
func maim(kind string, pass func() (*http.Response, error)) (*http.Response, error) {
	res, err := pass()
	if err != nil {
		return nil, err
	}
	if kind == "wrong type" {
		res.Header.Set("Content-Type", "text/plain")
		return res, nil
	}
	body, _ := io.ReadAll(res.Body) // it is in memory
	res.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body[:len(body)/2]), brokenReader{}))
	return res, nil
}

// wrongAnswer is the answer of somebody who has done nothing.
func wrongAnswer(r *http.Request, kind string) *http.Response {
	answer := func(status int, body string, header ...string) *http.Response {
		res := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: -1, Request: r}
		res.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			res.Header.Set(header[i], header[i+1])
		}
		return res
	}
	switch kind {
	case "401":
		return answer(http.StatusUnauthorized, `{"error":"Invalid API key"}`)
	case "403":
		return answer(http.StatusForbidden, `{"error":"Unauthorized","code":"unauthorized"}`)
	case "404 for a young run", "404 for a lost run":
		return answer(http.StatusNotFound, `{"error":"Run not found"}`)
	case "408":
		return answer(http.StatusRequestTimeout, `{"error":"Request Timeout"}`)
	case "429":
		reset := fmt.Sprint(time.Now().Add(10 * time.Second).UnixMilli())
		return answer(http.StatusTooManyRequests, `{"error":"Rate limit exceeded"}`, "X-Ratelimit-Limit", "750", "X-Ratelimit-Remaining", "0", "X-Ratelimit-Reset", reset)
	case "500":
		return answer(http.StatusInternalServerError, `{"error":"Internal Server Error"}`)
	case "502":
		return answer(http.StatusBadGateway, "<html>bad gateway</html>", "Content-Type", "text/html")
	case "503":
		return answer(http.StatusServiceUnavailable, `{"error":"Service Unavailable"}`, "Retry-After", "5")
	case "redirect":
		return answer(http.StatusFound, "", "Location", "https://redirect.invalid"+r.URL.Path)
	}
	return answer(http.StatusOK, "<html>hotel wifi</html>", "Content-Type", "text/html")
}

func pauseAtMost(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// mislay is the way of the events: some are lost, some doubled, some kept back.
func (w *weather) mislay(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
	taken := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}
	switch n := w.roll(); {
	case n < 0.15:
		w.count("event lost")
		return taken, nil
	case n < 0.3: // its sender hears nothing and sends it again
		w.count("event doubled")
		if res, err := pass(); err == nil {
			_ = res.Body.Close()
		}
		return nil, errBroken
	case n < 0.5:
		w.count("event late")
		w.mu.Lock()
		defer w.mu.Unlock()
		w.late = append(w.late, sentCall{header: r.Header.Clone(), body: spareBody(r), at: time.Now()})
		return taken, nil
	}
	return pass()
}

// bringLate brings events that were kept back, in any order, and some of them twice.
// The bare signature has no time that could be over.
func (w *week) bringLate() {
	w.mu.Lock()
	events := w.late
	w.late = nil
	w.dice.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	w.mu.Unlock()
	for _, ev := range slices.Concat(events, events[:len(events)/2]) {
		r := w.call("POST", webhookPath, ev.body, "trigger-signature", ev.header.Get("trigger-signature"))
		if r.status != http.StatusOK {
			w.t.Errorf("a late event is answered %d %s", r.status, r.body)
		}
		if time.Since(ev.at) > time.Hour {
			w.count("event late by hours")
		}
	}
}

// runEventBody is an event that names a job.
func runEventBody(run string, jobID int64, kind, status string) string {
	return fmt.Sprintf(`{"id":"evt_%s_%d","type":%q,"run":{"id":%q,"status":%q,"taskIdentifier":"ok","output":{"forged":true},"metadata":{"dbJobId":"%d"}}}`,
		path.Base(run), time.Now().UnixNano(), kind, run, status, jobID)
}

// bareSignature signs a body as the seed names it.
func bareSignature(body string) string {
	h := hmac.New(sha256.New, []byte(worldSecret))
	_, _ = io.WriteString(h, body)
	return hex.EncodeToString(h.Sum(nil))
}
