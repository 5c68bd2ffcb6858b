package dashboard

import (
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sidejob stands in for the server that the pages are part of: their own routes and
// the parts of the public API that they call, all of it answering 200.
func sidejob(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	for _, own := range []string{"/{$}", "/docs", "/dashboard/"} {
		mux.Handle(own, Handler())
	}
	for _, route := range []string{
		"GET /api/stats", "GET /api/jobs", "GET /api/jobs/{id}", "GET /api/jobs/{id}/events",
		"POST /api/jobs/{id}/cancel", "POST /api/jobs/{id}/retry", "POST /api/jobs/{id}/pause", "POST /api/jobs/{id}/resume", "GET /readyz", "GET /openapi.json",
	} {
		mux.HandleFunc(route, func(http.ResponseWriter, *http.Request) {})
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func ask(t *testing.T, s *httptest.Server, method, path string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// files gives the text of each embedded file by the path at which it is served.
func files(t *testing.T) map[string]string {
	t.Helper()
	served := map[string]string{}
	err := fs.WalkDir(static, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := static.ReadFile(name)
		switch base := path.Base(name); base {
		case "index.html":
			served["/"] = string(text)
		case "docs.html":
			served["/docs"] = string(text)
		default:
			served["/dashboard/"+base] = string(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return served
}

func TestEveryFileIsServed(t *testing.T) {
	types := map[string]string{
		".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
		".svg": "image/svg+xml", "": "text/html; charset=utf-8",
	}
	s := sidejob(t)
	for at, want := range files(t) {
		t.Run(at, func(t *testing.T) {
			resp, got := ask(t, s, "GET", at)
			if resp.StatusCode != http.StatusOK || got != want {
				t.Fatalf("got %d with %d bytes, want 200 with the %d of the file", resp.StatusCode, len(got), len(want))
			}
			h := resp.Header
			for name, want := range map[string]string{
				"Content-Type": types[path.Ext(at)], "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache",
				"Referrer-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Last-Modified": "",
			} {
				if got := h.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			if resp, body := ask(t, s, "GET", at, "If-None-Match", h.Get("ETag")); resp.StatusCode != http.StatusNotModified || body != "" {
				t.Errorf("with the ETag: got %d and %d bytes, want 304 and none", resp.StatusCode, len(body))
			}
			if resp, _ := ask(t, s, "GET", at, "If-None-Match", `"of another version"`); resp.StatusCode != http.StatusOK {
				t.Errorf("with another version's ETag: got %d, want 200", resp.StatusCode)
			}
			if resp, body := ask(t, s, "HEAD", at); resp.StatusCode != http.StatusOK || body != "" || resp.ContentLength != int64(len(want)) {
				t.Errorf("HEAD: got %d, length %d, want 200, %d", resp.StatusCode, resp.ContentLength, len(want))
			}
		})
	}
}

func TestPolicyAllowsOwnFilesAndCallsOnly(t *testing.T) {
	allowed := map[string]string{
		"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'", "connect-src": "'self'",
		"base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
		"require-trusted-types-for": "'script'", "trusted-types": "'none'",
	}
	s := sidejob(t)
	for at := range files(t) {
		resp, _ := ask(t, s, "GET", at)
		rules := strings.Split(resp.Header.Get("Content-Security-Policy"), "; ")
		if len(rules) != len(allowed) {
			t.Errorf("%s: got %d rules, want %d", at, len(rules), len(allowed))
		}
		for _, rule := range rules {
			if name, got, _ := strings.Cut(rule, " "); got != allowed[name] {
				t.Errorf("%s: %s: got %q, want %q", at, name, got, allowed[name])
			}
		}
	}
}

func TestOtherRequestsAreRefused(t *testing.T) {
	s := sidejob(t)
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"POST", "/", http.StatusMethodNotAllowed},
		{"PUT", "/docs", http.StatusMethodNotAllowed},
		{"GET", "/dashboard/", http.StatusNotFound},
		{"GET", "/dashboard/index.html", http.StatusNotFound},
		{"GET", "/dashboard/dashboard.go", http.StatusNotFound},
	} {
		if resp, _ := ask(t, s, c.method, c.path); resp.StatusCode != c.want {
			t.Errorf("%s %s: got %d, want %d", c.method, c.path, resp.StatusCode, c.want)
		}
	}
}

// A path that a page loads or calls stands in quotes and begins with a slash; what a
// script imports begins with a dot. A ${…} in it is some job's id.
var (
	quotedPath = regexp.MustCompile("[\"'`](/[a-z][^\"'`?]*|/)[\"'`?]")
	imported   = regexp.MustCompile(`from '\./([^']+)'`)
	filledIn   = regexp.MustCompile(`\$\{[^}]*\}`)
)

func TestEverythingThatThePagesNameExists(t *testing.T) {
	s, named := sidejob(t), map[string]bool{}
	for at, text := range files(t) {
		for _, m := range quotedPath.FindAllStringSubmatch(text, -1) {
			named[filledIn.ReplaceAllString(m[1], "1")] = true
		}
		for _, m := range imported.FindAllStringSubmatch(text, -1) {
			named[path.Join(path.Dir(at), m[1])] = true
		}
	}
	for at := range named {
		method := "GET"
		if slices.Contains([]string{"cancel", "retry", "pause", "resume"}, path.Base(at)) {
			method = "POST"
		}
		if resp, _ := ask(t, s, method, at); resp.StatusCode != http.StatusOK {
			t.Errorf("%s %s: got %d, want 200", method, at, resp.StatusCode)
		}
	}
	for at := range files(t) {
		if !named[at] {
			t.Errorf("no page names %s", at)
		}
	}
	for _, call := range []string{"/readyz", "/api/stats", "/api/jobs", "/api/jobs/1", "/api/jobs/1/events", "/api/jobs/1/cancel", "/api/jobs/1/retry", "/api/jobs/1/pause", "/api/jobs/1/resume", "/openapi.json"} {
		if !named[call] {
			t.Errorf("no page calls %s", call)
		}
	}
}

func TestNothingComesFromElsewhere(t *testing.T) {
	const namespace = `xmlns="http://www.w3.org/2000/svg"` // a name, never fetched
	elsewhere := regexp.MustCompile("(?i)[a-z]+://[a-z0-9]|[\"'`(]//|@import|\\burl\\(|[\"'`(](data|blob):")
	for at, text := range files(t) {
		if got := elsewhere.FindString(strings.ReplaceAll(text, namespace, "")); got != "" {
			t.Errorf("%s: got %q, want no address of another place", at, got)
		}
	}
}

func TestTextNeverBecomesMarkupOrCode(t *testing.T) {
	banned := []string{
		"innerHTML", "outerHTML", "insertAdjacentHTML", "setHTML", "document.write", "DOMParser", "createContextualFragment",
		"eval(", "new Function", "javascript:", "srcdoc", "localStorage", "document.cookie", "indexedDB",
	}
	inline := regexp.MustCompile(`<script>|<style|\sstyle=|\son[a-z]+="`)
	for at, text := range files(t) {
		if i := slices.IndexFunc(banned, func(word string) bool { return strings.Contains(text, word) }); i >= 0 {
			t.Errorf("%s: has %q, want text set as text, and the token in session storage only", at, banned[i])
		}
		if got := inline.FindString(text); got != "" {
			t.Errorf("%s: has %q, which the policy forbids", at, got)
		}
	}
}

// In a page a label holds its control, a button its text, and an image says what it is.
func TestControlsHaveNames(t *testing.T) {
	unlabeled := regexp.MustCompile(`(?m)^\s*<(input|select)\b|<button[^>]*></button>|<img src="[^"]*" (width|>)`)
	for at, text := range files(t) {
		if path.Ext(at) != "" {
			continue
		}
		if got := unlabeled.FindString(text); got != "" {
			t.Errorf("%s: %q has no label", at, got)
		}
		for _, want := range []string{`<html lang="en">`, `name="viewport"`, "<main", `role="status"`, "<noscript>"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: want %s in it", at, want)
			}
		}
	}
}
