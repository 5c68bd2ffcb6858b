package emulator

import (
	"net/http"
	"slices"
	"time"
)

// callKeyLife is how long a request-level key is remembered.
const callKeyLife = 24 * time.Hour

// trigger makes a run, or answers with the one that holds the idempotency key.
func (e *Emulator) trigger(c *call) *reply {
	if len(c.r.Header.Get("idempotency-key")) > keyLength {
		return issueList("Headers Error", "details", []issue{{Code: "too_big", Path: []any{"idempotency-key"},
			Message: "String must contain at most 2048 character(s)"}})
	}
	raw, refused := c.jsonBody()
	if refused != nil {
		return refused
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	o, issues := readOrder(raw, e.clock.now())
	if len(issues) > 0 {
		return validation(issues)
	}
	if key := c.r.Header.Get("idempotency-key"); key != "" {
		o.key = key
	}
	if ttl := c.r.Header.Get("idempotency-key-ttl"); ttl != "" {
		o.keyTTL = ttl
	}
	task := c.r.PathValue("task")
	if refused := c.denied("trigger", "tasks:"+task); refused != nil && c.denied("write", "tasks:"+task) != nil {
		return refused
	}
	callKey := c.r.Header.Get("x-trigger-request-idempotency-key")
	if r := e.repeated(c.env, callKey); r != nil {
		return e.again(c, r, false)
	}
	if refused := o.refuseAtOnce(e.clock.now()); refused != nil {
		return refused
	}
	if r := e.holder(c.env, task, o.key); r != nil {
		return e.again(c, r, true)
	}
	if refused := o.refuse(); refused != nil {
		return refused
	}
	return e.triggered(c, e.create(c.env, task, o, callKey), false)
}

// repeated finds the run that the same request has made before.
func (e *Emulator) repeated(v env, callKey string) *run {
	r := e.byCall[callSlot(v.ID, callKey)]
	if callKey == "" || r == nil || e.clock.now() >= r.Created.plus(callKeyLife) {
		return nil
	}
	return r
}

// holder finds the run that holds an idempotency key. A run that failed, or whose
// key's time is over, gives it up.
func (e *Emulator) holder(v env, task, key string) *run {
	r := e.byKey[keySlot(v.ID, task, key)]
	if key == "" || r == nil {
		return nil
	}
	if r.Status.meaning().freesKey || e.clock.now() >= r.KeyEnds {
		e.freeKey(r)
		return nil
	}
	return r
}

// freeKey takes the key off a run, which then shows it no more.
func (e *Emulator) freeKey(r *run) {
	delete(e.byKey, keySlot(r.Env.ID, r.Task, r.Key))
	r.KeyFree = true
	e.touch(r)
	e.record(r)
}

// create makes a run of an order that has been checked.
func (e *Emulator) create(v env, task string, o order, callKey string) *run {
	now := e.clock.now()
	r := &run{
		ID: e.newID("run_", 25), Env: v, Task: task, Created: now, Delay: o.delay,
		Payload: o.payload, PayloadType: o.payloadType, Metadata: o.metadata, Seed: o.metadata,
		Tags: slices.Sorted(slices.Values(o.tags)), Key: o.key, ShownKey: o.shownKey, CallKey: callKey,
		Queue: o.queue, Concurrency: o.concurrency, Machine: o.machine, Region: o.region, Test: o.test,
		MaxAttempts: max(0, o.maxAttempts), Deployment: o.deployment, Version: o.version, Extra: o.extra, Asked: 1, Schedule: o.schedule,
	}
	if o.nominal != 0 {
		r.Created = o.nominal
	}
	r.Number = len(e.peek(v.ID, byTask, task)) + 1
	if r.Key != "" {
		r.KeyEnds = now.plus(keyLife(o.keyTTL))
	}
	if o.ttl != nil {
		r.TTL = *o.ttl
	} else if v.Kind == dev {
		r.TTL = devTTL
	}
	e.index(r)
	e.admit(r)
	e.changed(r)
	r.joined = r.Seq
	return r
}

// again answers with a run that is there already.
func (e *Emulator) again(c *call, r *run, cached bool) *reply {
	r.Asked++
	e.touch(r)
	e.record(r)
	return e.triggered(c, r, cached)
}

// triggered is the answer to a trigger: always 200, with a token that may read the
// run.
func (e *Emulator) triggered(c *call, r *run, cached bool) *reply {
	scopes := []string{"read:runs:" + r.ID, "write:inputStreams:" + r.ID}
	claims := object("sub", c.env.ID, "pub", true, "scopes", scopes)
	return success(object("id", r.ID, "isCached", cached)).
		set("x-trigger-jwt-claims", string(claims)).
		set("x-trigger-jwt", signToken(e.doors[c.env.ID].key, c.env.ID, scopes))
}

// resetKey gives an idempotency key free.
func (e *Emulator) resetKey(c *call) *reply {
	raw, refused := c.jsonBody()
	if refused != nil {
		return refused
	}
	f := openForm(raw)
	f.need("taskIdentifier", "string")
	task, key := f.text("taskIdentifier", 0), c.r.PathValue("key")
	if len(*f.issues) > 0 {
		return validation(*f.issues)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.byKey[keySlot(c.env.ID, task, key)]
	if r == nil {
		return failure(http.StatusNotFound, "No runs found with idempotency key: "+key)
	}
	e.freeKey(r)
	return success(object("id", key))
}
