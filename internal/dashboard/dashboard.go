// Package dashboard serves sidejob's two pages: the dashboard at / and the readable
// API docs at /docs. Everything is embedded, nothing comes from elsewhere, and the
// pages ask only the API that any client may ask. They are public; what they show is
// not: on a 401 they ask for the token and keep it in the tab's session storage.
package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"time"
)

//go:embed static
var static embed.FS

// policy forbids all that the pages do not need: code and calls of their own origin
// only, no form that leaves, no frame around them, and no text that becomes markup.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// Handler serves GET and HEAD of /, of /docs and of the files below /dashboard/ that
// these need. Other methods are 405, other paths 404. None of it may ask for a token.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", newFile("index.html"))
	mux.Handle("GET /docs", newFile("docs.html"))
	for _, name := range []string{"api.js", "app.js", "detail.js", "docs.js", "icon.svg", "schema.js", "style.css", "time.js"} {
		mux.Handle("GET /dashboard/"+name, newFile(name))
	}
	return mux
}

// file is one embedded file. Its ETag is made of its content, so that a browser may
// keep it and yet never shows the page of another version.
type file struct {
	content           []byte
	contentType, etag string
}

func newFile(name string) file {
	content, err := static.ReadFile("static/" + name)
	if err != nil {
		panic(err) // the program was built with another set of files than it names
	}
	sum := sha256.Sum256(content)
	return file{content, contentType(name), `"` + hex.EncodeToString(sum[:12]) + `"`}
}

// contentType does not ask the system's table of types, which differs by machine.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "text/html; charset=utf-8"
}

func (f file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache") // keep it, but ask each time whether it is still this one
	h.Set("Content-Security-Policy", policy)
	h.Set("Content-Type", f.contentType)
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("ETag", f.etag)
	// Not no-referrer: under that a browser may send "Origin: null", which the API refuses.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}
