package emulator

import (
	"crypto/sha256"
	"net/http"
	"regexp"
	"strings"
)

// The kinds of environment, as their keys and slugs name them.
const (
	dev     = "dev"
	stg     = "stg"
	prod    = "prod"
	preview = "preview"
)

// developer is whose every dev environment is.
const developer = "Developer"

// env is one environment: all that one key sees. Its id follows from the key, so
// that no key needs to be kept.
type env struct {
	ID   string `json:"id"`
	Kind string `json:"kind"` // dev, stg, prod or preview
}

// kind is the environment's type as schedules show it.
func (v env) apiType() string {
	switch v.Kind {
	case dev:
		return "DEVELOPMENT"
	case stg:
		return "STAGING"
	case preview:
		return "PREVIEW"
	}
	return "PRODUCTION"
}

// region of a run: in dev it is the environment's id.
func (v env) region() string {
	if v.Kind == dev {
		return v.ID
	}
	return "us-east-1"
}

// spelling is how a route words its 401 for a key that it does not know. The server
// is not of one mind.
type spelling int

const (
	spellNone    spelling = iota // the route needs no key
	spellModern                  // routes of the common builder
	spellLegacy                  // older ones
	spellLowerly                 // reschedule
)

const (
	missingModern = "Invalid or Missing API key"
	missingLegacy = "Invalid or Missing API Key"
)

func (s spelling) refuse(token string) *reply {
	switch {
	case s == spellLegacy:
		return failure(http.StatusUnauthorized, missingLegacy)
	case s == spellLowerly:
		return failure(http.StatusUnauthorized, "Invalid or missing API Key")
	case token == "":
		return failure(http.StatusUnauthorized, missingModern)
	case isToken(token):
		return failure(http.StatusUnauthorized, "Public Access Token is invalid")
	}
	return failure(http.StatusUnauthorized, "Invalid API key")
}

// extraKey is the shape of an environment's further keys. The older routes take only
// the first one.
var extraKey = regexp.MustCompile(`^tr_(dev|stg|prod|preview)_sk_[0-9A-Za-z]{24}$`)

var keyShape = regexp.MustCompile(`^tr_(dev|stg|prod|preview)_[0-9A-Za-z_-]+$`)

var refPrefix = regexp.MustCompile(`^refs/(heads|remotes|tags|pull|merge|release)/`)

// bearer reads the key from the header; the prefix may be missing.
func bearer(r *http.Request) string {
	text := strings.TrimSpace(r.Header.Get("Authorization"))
	if len(text) >= 6 && strings.EqualFold(text[:6], "bearer") {
		text = text[6:]
	}
	return strings.TrimSpace(text)
}

// environment finds the environment of a request's key and branch, or refuses.
func environment(r *http.Request, s spelling) (env, *reply) {
	token := bearer(r)
	found := keyShape.FindStringSubmatch(token)
	if found == nil || s != spellModern && extraKey.MatchString(token) {
		return env{}, s.refuse(token)
	}
	kind, branch := found[1], refPrefix.ReplaceAllString(r.Header.Get("x-trigger-branch"), "")
	switch {
	case kind == preview && branch == "":
		return env{}, failure(http.StatusUnauthorized, "x-trigger-branch header required for preview env")
	case kind == stg || kind == prod || branch == "default" && kind == dev:
		branch = ""
	}
	sum := sha256.Sum256([]byte("env\x00" + token + "\x00" + branch))
	return env{ID: "c" + base36(sum[:], 24), Kind: kind}, nil
}

func unauthorizedProblem() *reply {
	const text = "No authorization header provided"
	return &reply{status: http.StatusUnauthorized, kind: "application/problem+json", body: problem{
		Title: "Unauthorized", Status: http.StatusUnauthorized, Detail: text, Error: text,
		Type: "https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/401",
	}}
}
