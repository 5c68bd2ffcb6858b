package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// once carries out a request that has an Idempotency-Key at most once: the reply is
// kept, and given again to the same request.
func (a *api) once(next http.Handler, w http.ResponseWriter, r *http.Request, body []byte) {
	sent, given := r.Header["Idempotency-Key"]
	if !given {
		next.ServeHTTP(w, r)
		return
	}
	name := strings.Join(sent, ",")
	if name == "" || len(name) > 255 {
		writeProblem(w, wrongMember("header.Idempotency-Key", "has %d characters; it has 1 to 255", len(name)))
		return
	}
	// The escaped path holds no space, so no two requests have one key.
	key := ReplyKey(r.Method + " " + r.URL.EscapedPath() + " " + name)
	sum := sha256.Sum256(body)
	kept, done, err := a.reserve(r.Context(), Reservation{Key: key, Digest: hex.EncodeToString(sum[:]), Owner: a.owner, At: now()})
	defer done()
	if err != nil {
		writeProblem(w, problemOf(a.problem(err)))
		return
	}
	if kept.Status != 0 {
		replay(w, kept)
		return
	}
	ctx := context.WithValue(r.Context(), onceKey{}, keyed{request: Keyed{key, a.owner}, before: kept})
	tape := &tape{header: http.Header{}}
	defer func() {
		a.keep(context.WithoutCancel(r.Context()), Keyed{key, a.owner}, tape)
		tape.play(w)
	}()
	next.ServeHTTP(tape, r.WithContext(ctx))
}

// keep stores replies that would be the same next time; after others, such as a
// database that was busy, the request may be tried again.
func (a *api) keep(ctx context.Context, request Keyed, t *tape) {
	reply := Reply{}
	if class := t.status / 100; class == 2 || class == 4 {
		reply = Reply{Status: t.status, Body: t.body.Bytes(), Headers: map[string]string{}}
		for _, name := range []string{"Content-Type", "Location", "Allow"} {
			if v := t.header.Get(name); v != "" {
				reply.Headers[name] = v
			}
		}
	}
	if err := a.store.Keep(ctx, request, reply); err != nil {
		a.underWay.miss(request.Key)
		a.log.Error("the reply to a request with an Idempotency-Key was not kept", "err", err)
	}
}

// reserve takes the key for a request; call done when that is over. That a key is free
// is known from two sides: by others' requests from the database, and by those of this
// process from underWay. The database may show a request of ours as under way that is
// over, where it was lost just when it should have been told.
func (a *api) reserve(ctx context.Context, r Reservation) (kept Reply, done func(), err error) {
	r.Over = a.underWay.begin(r.Key)
	kept, err = a.store.Reserve(ctx, r)
	mine := r.Over
	if err == nil && kept.Status == 0 && !mine { // it has ended meanwhile
		if mine = a.underWay.begin(r.Key); !mine {
			err = ErrReplyUnderWay
		}
	}
	if errors.Is(err, ErrUnsure) {
		a.underWay.miss(r.Key)
	}
	return kept, func() {
		if mine {
			a.underWay.end(r.Key)
		}
	}, err
}

// keysUnderWay are the keys whose requests this process is carrying out.
type keysUnderWay struct {
	mu     sync.Mutex
	keys   map[ReplyKey]bool
	missed map[ReplyKey]bool // see miss
}

// begin tells whether nobody here is carrying out a request with the key, and notes
// that somebody is now.
func (k *keysUnderWay) begin(key ReplyKey) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys[key] {
		return false
	}
	if k.keys == nil {
		k.keys = map[ReplyKey]bool{}
	}
	k.keys[key] = true
	delete(k.missed, key)
	return true
}

func (k *keysUnderWay) end(key ReplyKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, key)
}

// miss notes a key that the database may show as under way although nobody here is at it.
func (k *keysUnderWay) miss(key ReplyKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.missed == nil {
		k.missed = map[ReplyKey]bool{}
	}
	k.missed[key] = true
}

// takeMissed are the keys noted so since it was asked last.
func (k *keysUnderWay) takeMissed() []ReplyKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	taken := slices.Collect(maps.Keys(k.missed))
	clear(k.missed)
	return taken
}

// giveBackMissed frees the keys of requests that are over: where several sidejobs share
// the database, the caller may come again to another one, which cannot know.
func (a *api) giveBackMissed(ctx context.Context) {
	for _, key := range a.underWay.takeMissed() {
		if !a.underWay.begin(key) {
			continue // its caller has come again
		}
		if err := a.store.Keep(ctx, Keyed{key, a.owner}, Reply{}); err != nil {
			a.underWay.miss(key)
		}
		a.underWay.end(key)
	}
}

func replay(w http.ResponseWriter, kept Reply) {
	for name, value := range kept.Headers {
		w.Header().Set(name, value)
	}
	w.Header().Set("Idempotency-Replayed", "true")
	w.WriteHeader(kept.Status)
	_, _ = w.Write(kept.Body) // a caller that has left may ask again
}

// tape records a reply.
type tape struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (t *tape) Header() http.Header { return t.header }

// Write implements http.ResponseWriter.
func (t *tape) Write(b []byte) (int, error) {
	t.WriteHeader(http.StatusOK)
	return t.body.Write(b)
}

// WriteHeader implements http.ResponseWriter.
func (t *tape) WriteHeader(status int) {
	if t.status == 0 {
		t.status = status
	}
}

// play gives the reply; nothing where the handler has panicked.
func (t *tape) play(w http.ResponseWriter) {
	if t.status == 0 {
		return
	}
	for name, values := range t.header {
		w.Header()[name] = values
	}
	w.WriteHeader(t.status)
	_, _ = w.Write(t.body.Bytes()) // a caller that has left may ask again
}

type onceKey struct{}

// keyed is what a handler may know of its request's Idempotency-Key.
type keyed struct {
	request Keyed
	before  Reply // of an earlier life of the request, which was not answered
}

// requestOf is the key under which the request's jobs are noted, zero without one.
func requestOf(ctx context.Context) Keyed {
	k, _ := ctx.Value(onceKey{}).(keyed)
	return k.request
}

// replyOf is what an earlier life of the request has done.
func replyOf(ctx context.Context) Reply {
	k, _ := ctx.Value(onceKey{}).(keyed)
	return k.before
}
