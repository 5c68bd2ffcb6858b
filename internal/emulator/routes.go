package emulator

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

// Limits of request bodies in bytes.
const (
	triggerAtMost  = 3 << 20
	metadataPut    = 2 << 20
	metadataAtMost = 256 << 10
	bodyAtMost     = 16 << 20 // where the server names none
)

// anyVerb stands for every method but GET: most actions of the server name none.
const anyVerb = "*"

// route is one line of the API. Several lines may share a path.
type route struct {
	verb  string
	path  string
	key   spelling
	token bool  // it takes public tokens too
	limit int64 // of the body; set, the request needs a Content-Length
	// mute routes answer a wrong method with 200 and a body that says 405; strict
	// ones, in words.
	mute, strict bool
	do           func(*Emulator, *call) *reply
}

// routes is all of the API, and the emulator's own controls.
func routes() []route {
	return []route{
		{verb: anyVerb, path: "/api/v1/tasks/{task}/trigger", key: spellModern, token: true, limit: triggerAtMost, do: (*Emulator).trigger},
		{verb: "GET", path: "/api/v3/runs/{run}", key: spellModern, token: true, do: (*Emulator).retrieve},
		{verb: "GET", path: "/api/v1/runs", key: spellModern, token: true, do: (*Emulator).list},
		{verb: anyVerb, path: "/api/v2/runs/{run}/cancel", key: spellModern, token: true, do: (*Emulator).cancelRun},
		{verb: anyVerb, path: "/api/v1/runs/{run}/replay", key: spellModern, do: (*Emulator).replay},
		{verb: "POST", path: "/api/v1/runs/{run}/reschedule", key: spellLowerly, mute: true, do: (*Emulator).reschedule},
		{verb: "POST", path: "/api/v1/runs/{run}/tags", key: spellLegacy, mute: true, do: (*Emulator).addTags},
		{verb: "GET", path: "/api/v1/runs/{run}/metadata", key: spellLegacy, do: (*Emulator).getMetadata},
		{verb: "PUT", path: "/api/v1/runs/{run}/metadata", key: spellModern, limit: metadataPut, strict: true, do: (*Emulator).putMetadata},
		{verb: "GET", path: "/api/v1/runs/{run}/result", key: spellLegacy, do: (*Emulator).result},
		{verb: anyVerb, path: "/api/v1/idempotencyKeys/{key}/reset", key: spellModern, do: (*Emulator).resetKey},
		{verb: "GET", path: "/api/v1/schedules", key: spellLegacy, do: (*Emulator).listSchedules},
		{verb: "POST", path: "/api/v1/schedules", key: spellLegacy, mute: true, do: (*Emulator).createSchedule},
		{verb: "GET", path: "/api/v1/schedules/{schedule}", key: spellLegacy, do: (*Emulator).getSchedule},
		{verb: "PUT", path: "/api/v1/schedules/{schedule}", key: spellLegacy, mute: true, do: (*Emulator).putSchedule},
		{verb: "DELETE", path: "/api/v1/schedules/{schedule}", key: spellLegacy, mute: true, do: (*Emulator).deleteSchedule},
		{verb: "POST", path: "/api/v1/schedules/{schedule}/activate", key: spellLegacy, mute: true, do: (*Emulator).activate},
		{verb: "POST", path: "/api/v1/schedules/{schedule}/deactivate", key: spellLegacy, mute: true, do: (*Emulator).deactivate},
		{verb: "GET", path: "/realtime/v1/runs", key: spellModern, token: true, do: (*Emulator).followRuns},
		{verb: "GET", path: "/realtime/v1/runs/{run}", key: spellModern, token: true, do: (*Emulator).followRun},
		{verb: "GET", path: "/api/v2/whoami", key: spellModern, do: (*Emulator).whoami},
		{verb: "GET", path: "/api/v1/timezones", do: (*Emulator).timezones},
		{verb: "GET", path: "/healthcheck", do: (*Emulator).healthcheck},
		{verb: "GET", path: packetPath + "{run}/{what}", do: (*Emulator).packet},
		{verb: "POST", path: "/emulator/advance", do: (*Emulator).advance},
		{verb: "GET", path: "/emulator/runs", do: (*Emulator).allRuns},
		{verb: "GET", path: "/emulator/faults", do: (*Emulator).getFaults},
		{verb: "PUT", path: "/emulator/faults", do: (*Emulator).putFaults},
	}
}

func (e *Emulator) routeMux() *http.ServeMux {
	byPath := map[string][]route{}
	for _, rt := range routes() {
		byPath[rt.path] = append(byPath[rt.path], rt)
	}
	mux := http.NewServeMux()
	for path, lines := range byPath {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { e.dispatch(lines, r).send(w) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		e.limited(r, func() *reply { return failure(http.StatusNotFound, "Not found") }).send(w)
	})
	return mux
}

// dispatch answers by the line of the path that takes the method.
func (e *Emulator) dispatch(lines []route, r *http.Request) *reply {
	if r.Method == http.MethodOptions {
		return &reply{status: http.StatusNoContent} // and no permission for web pages
	}
	if lines[0].key == spellNone {
		if rt := lineFor(lines, r.Method); rt != nil {
			return e.answer(rt, r)
		}
		return &reply{status: http.StatusMethodNotAllowed}
	}
	return e.limited(r, func() *reply {
		if rt := lineFor(lines, r.Method); rt != nil {
			return e.answer(rt, r)
		}
		return wrongVerb(lines, r.Method)
	})
}

func lineFor(lines []route, method string) *route {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for i, rt := range lines {
		other := rt.verb == anyVerb && method != http.MethodGet && method != http.MethodOptions
		if rt.verb == method || other {
			return &lines[i]
		}
	}
	return nil
}

func wrongVerb(lines []route, method string) *reply {
	if method == http.MethodGet || method == http.MethodHead {
		return &reply{status: http.StatusMethodNotAllowed}
	}
	for _, rt := range lines {
		switch {
		case rt.mute:
			return success(struct {
				Status int    `json:"status"`
				Body   string `json:"body"`
			}{http.StatusMethodNotAllowed, "Method Not Allowed"})
		case rt.strict:
			return failure(http.StatusMethodNotAllowed, "Method not allowed").set("Allow", rt.verb)
		}
	}
	return &reply{status: http.StatusMethodNotAllowed}
}

// answer checks key, size and body in the server's order, then does the work.
func (e *Emulator) answer(rt *route, r *http.Request) *reply {
	c := &call{r: r}
	if refused := e.admitCaller(rt, c); refused != nil {
		return refused
	}
	if rt.limit > 0 && (unmeasured(r) || r.ContentLength > rt.limit) {
		return failure(http.StatusRequestEntityTooLarge, "Request body too large")
	}
	if r.Body != nil && rt.verb != http.MethodGet {
		body, err := io.ReadAll(io.LimitReader(r.Body, bodyAtMost+1))
		if err != nil {
			return failure(http.StatusBadRequest, "Invalid JSON")
		}
		if len(body) > bodyAtMost {
			return failure(http.StatusRequestEntityTooLarge, "Request body too large")
		}
		c.body = body
	}
	return rt.do(e, c)
}

// admitCaller finds out whose request it is.
func (e *Emulator) admitCaller(rt *route, c *call) (refused *reply) {
	if rt.key == spellNone {
		return nil
	}
	if key := bearer(c.r); rt.token && isToken(key) {
		ok := false
		if c.env, c.token, ok = e.openToken(key); !ok {
			return rt.key.refuse(key)
		}
		return nil
	}
	if c.env, refused = environment(c.r, rt.key); refused == nil {
		e.learn(c.env, bearer(c.r))
	}
	return refused
}

// unmeasured tells whether a request says nothing of its body's length. One that is
// empty may say so or not: on the wire, and only there, that can be seen.
func unmeasured(r *http.Request) bool {
	fromWire := r.RequestURI != ""
	return r.ContentLength < 0 || r.ContentLength == 0 && fromWire && r.Header.Get("Content-Length") == ""
}

// call is one request on its way through a route.
type call struct {
	r     *http.Request
	env   env
	token *claims // of a public token; nil: a secret key
	body  []byte
}

// version is the request's API version header.
func (c *call) version() string { return c.r.Header.Get("x-trigger-api-version") }

// origin is the address under which the caller sees the emulator.
func (c *call) origin() string {
	scheme := "http"
	if c.r.TLS != nil || strings.EqualFold(c.r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	return scheme + "://" + c.r.Host
}

// jsonBody parses the body as the common route builder does: something that is not
// falsy.
func (c *call) jsonBody() (json.RawMessage, *reply) {
	if len(c.body) == 0 {
		return nil, failure(http.StatusBadRequest, "Request body is empty")
	}
	body := bytes.TrimSpace(c.body)
	if !json.Valid(body) || falsy(body) {
		return nil, failure(http.StatusBadRequest, "Invalid JSON")
	}
	return body, nil
}

// reply is an answer before it is written.
type reply struct {
	status int
	header http.Header
	body   any             // encoded as JSON; nil: raw
	raw    []byte          // with kind as content type
	write  func(io.Writer) // instead of raw: makes it while it is sent
	kind   string          // content type, application/json if empty
}

// problem is the body of the rate limiter's refusals.
type problem struct {
	Title             string   `json:"title"`
	Status            int      `json:"status"`
	Type              string   `json:"type"`
	Detail            string   `json:"detail"`
	Reset             int64    `json:"reset,omitempty"`
	Limit             int      `json:"limit,omitempty"`
	Remaining         *int     `json:"remaining,omitempty"`
	SecondsUntilReset *float64 `json:"secondsUntilReset,omitempty"`
	Error             string   `json:"error"`
}

func success(body any) *reply { return &reply{status: http.StatusOK, body: body} }

func failure(status int, text string) *reply {
	return &reply{status: status, body: struct {
		Error string `json:"error"`
	}{text}}
}

func (p *reply) set(name, value string) *reply {
	if p.header == nil {
		p.header = http.Header{}
	}
	p.header.Set(name, value)
	return p
}

func (p *reply) send(w http.ResponseWriter) {
	for name, values := range p.header {
		w.Header()[name] = values
	}
	content := p.raw
	if ready, ok := p.body.(json.RawMessage); ok {
		content = ready
	} else if p.body != nil {
		content = compactJSON(p.body)
	}
	if p.kind == "" && p.body != nil {
		p.kind = "application/json; charset=utf-8"
	}
	if p.kind != "" {
		w.Header().Set("Content-Type", p.kind)
	}
	w.WriteHeader(p.status)
	if p.write != nil {
		p.write(w)
		return
	}
	_, _ = w.Write(content) // a client that has left misses it
}
