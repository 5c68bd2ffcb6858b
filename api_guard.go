package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// guard is what every request of the private listener passes, in this order: is it
// meant for us, may the caller, is the body readable, has it been answered before.
func (a *api) guard(mux *http.ServeMux) http.Handler {
	answered := problemsFor(mux)
	return a.watched(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isProbe(r.URL.Path) {
			answered.ServeHTTP(w, r)
			return
		}
		if p := a.admit(r); p != nil {
			writeProblem(w, p)
			return
		}
		if r.URL.Path == webhookPath {
			answered.ServeHTTP(w, r)
			return
		}
		if p := checkQuery(r.URL); p != nil {
			writeProblem(w, p)
			return
		}
		if r.Method != http.MethodPost {
			answered.ServeHTTP(w, r)
			return
		}
		body, p := readJSONBody(w, r)
		if p != nil {
			writeProblem(w, p)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		a.once(answered, w, r, body)
	}))
}

func isProbe(path string) bool { return path == "/livez" || path == "/readyz" }

// admit refuses what a browser on this machine could be tricked into sending, and
// who shows no token.
func (a *api) admit(r *http.Request) *problem {
	if !a.hosts.allow(r) {
		return problemf(http.StatusMisdirectedRequest, "wrong_host", "the Host header %.100q is not one of ours; name it with --allowed-host if it is", r.Host)
	}
	if foreign(r) {
		return problemf(http.StatusForbidden, "cross_site", "requests from pages of other sites are refused")
	}
	if isOpen(r) || a.token.allow(r) {
		return nil
	}
	return problemf(http.StatusUnauthorized, "unauthorized", "send Authorization: Bearer TOKEN; `sidejob token` prints it")
}

// isOpen tells what needs no token: the pages, which hold no data and ask for it,
// and the webhook, which has its signature.
func isOpen(r *http.Request) bool {
	if r.URL.Path == webhookPath {
		return r.Method == http.MethodPost
	}
	page := r.URL.Path == "/" || r.URL.Path == "/docs" || strings.HasPrefix(r.URL.Path, "/dashboard/")
	return page && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// foreign tells whether a page of another site made the browser send it.
func foreign(r *http.Request) bool {
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return true
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}

// allowedHosts are the names under which the private listener may be called,
// without ports.
type allowedHosts map[string]bool

// allow guards against DNS rebinding: a page may make a browser call us, but not
// under a name of ours.
func (h allowedHosts) allow(r *http.Request) bool {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return true
	}
	return host == "localhost" || h[host]
}

// checkQuery refuses parameters of the API that would be dropped in silence: half
// a filter selects more jobs than its caller may want to see.
func checkQuery(u *url.URL) *problem {
	if !strings.HasPrefix(u.Path, "/api/") {
		return nil
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return wrongMember("query", "cannot be read: %s", err)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch {
		case len(values[name]) > 1:
			return wrongMember("query."+name, "is given %d times", len(values[name]))
		case values[name][0] == "":
			return wrongMember("query."+name, "is empty; leave it out")
		}
	}
	return nil
}

// readJSONBody reads the body of a POST, within its limit.
func readJSONBody(w http.ResponseWriter, r *http.Request) ([]byte, *problem) {
	limit := int64(maxBody)
	if r.URL.Path == "/api/jobs/batch" {
		limit = maxBatchBody
	}
	if kind := r.Header.Get("Content-Type"); kind != "" || r.ContentLength != 0 {
		mt, _, err := mime.ParseMediaType(kind)
		if err != nil || mt != "application/json" {
			return nil, problemf(http.StatusUnsupportedMediaType, "unsupported_media_type", "the content type is %.60q; send application/json", kind)
		}
		r.Header.Set("Content-Type", mt) // huma knows it in this spelling only
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, bodyProblem(err, limit)
	}
	if !utf8.Valid(body) {
		return nil, problemf(http.StatusBadRequest, "bad_json", "the body is not UTF-8")
	}
	if twice := repeatedMember(body); twice != "" {
		return nil, wrongMember("body."+twice, "is given more than once")
	}
	return body, nil
}

// problemsFor makes the mux's own refusals, of an unknown path or method, problems.
func problemsFor(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		tried := &plainAnswer{header: http.Header{}}
		mux.ServeHTTP(tried, r)
		if tried.status == http.StatusMethodNotAllowed {
			p := problemf(tried.status, "method_not_allowed", "%s does not take %s", r.URL.Path, r.Method)
			p.allow = tried.header.Get("Allow")
			writeProblem(w, p)
			return
		}
		writeProblem(w, problemf(http.StatusNotFound, "no_such_path", "there is nothing at %.200s; /docs says what there is", r.URL.Path))
	})
}

// plainAnswer takes the mux's plain answer.
type plainAnswer struct {
	header http.Header
	status int
}

// Header implements http.ResponseWriter.
func (f *plainAnswer) Header() http.Header { return f.header }

// Write implements http.ResponseWriter.
func (f *plainAnswer) Write(b []byte) (int, error) { return len(b), nil }

// WriteHeader implements http.ResponseWriter.
func (f *plainAnswer) WriteHeader(status int) { f.status = status }

// watched counts and logs requests, and turns a panic into a 500.
func (a *api) watched(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		seen := &statusWriter{ResponseWriter: w}
		defer func() {
			if v := recover(); v != nil {
				if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(v)
				}
				a.log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
				if seen.status == 0 {
					writeProblem(seen, problemOf(errors.New("panic")))
				}
			}
			a.health.request(r.Method, seen.status)
			a.log.LogAttrs(r.Context(), slog.LevelDebug, "request", slog.String("method", r.Method), slog.String("path", r.URL.Path),
				slog.Int("status", seen.status), slog.Duration("took", time.Since(begun)))
		}()
		next.ServeHTTP(seen, r)
	})
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
