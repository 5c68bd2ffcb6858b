package emulator

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Public tokens are what web pages use: signed with an environment's key, good for a
// time and for what their scopes name. An emulator knows the keys that it has seen
// in this life.
const runTokenLife = time.Hour

// claims are what a public token says.
type claims struct {
	Sub      string   `json:"sub"` // the environment's id
	Pub      bool     `json:"pub"`
	Scopes   []string `json:"scopes"`
	Expires  int64    `json:"exp"`
	Realtime struct {
		SkipColumns []string `json:"skipColumns"`
	} `json:"realtime"`
}

// door is an environment and the key that opens it.
type door struct {
	env env
	key string
}

// learn remembers the key of an environment, so that tokens signed with it are known.
func (e *Emulator) learn(v env, key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.doors[v.ID] = door{v, key}
}

func isToken(text string) bool { return strings.Count(text, ".") == 2 }

// openToken finds the environment of a public token that is signed and not expired.
// Like its life, its end is in real time.
func (e *Emulator) openToken(token string) (env, *claims, bool) {
	signed, signature := token[:strings.LastIndexByte(token, '.')], token[strings.LastIndexByte(token, '.')+1:]
	head, body, _ := strings.Cut(signed, ".")
	var c claims
	if tokenPart(head, new(struct{})) != nil || tokenPart(body, &c) != nil {
		return env{}, nil, false
	}
	e.mu.Lock()
	d, known := e.doors[c.Sub]
	e.mu.Unlock()
	right := hmac.Equal([]byte(signature), []byte(tokenSeal(d.key, signed)))
	return d.env, &c, known && right && c.Pub && c.Expires > time.Now().Unix()
}

func tokenPart(text string, into any) error {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

func tokenSeal(key, signed string) string {
	return base64.RawURLEncoding.EncodeToString(mac([]byte(key), []byte(signed)))
}

// signToken makes the public token of a run.
func signToken(key, sub string, scopes []string) string {
	now := time.Now().Unix()
	part := base64.RawURLEncoding.EncodeToString
	signed := part(object("alg", "HS256")) + "." + part(object("sub", sub, "pub", true, "scopes", scopes,
		"iss", "https://id.trigger.dev", "aud", "https://api.trigger.dev", "iat", now, "exp", now+int64(runTokenLife/time.Second)))
	return signed + "." + tokenSeal(key, signed)
}

// denied refuses a public token without a scope for any of the things, each a kind
// and a name. A secret key may do everything.
func (c *call) denied(action string, things ...string) *reply {
	if c.token == nil {
		return nil
	}
	enough := []string{"admin", action + ":all"}
	for _, thing := range things {
		kind, _, _ := strings.Cut(thing, ":")
		enough = append(enough, action+":"+kind, action+":"+thing)
	}
	if slices.ContainsFunc(c.token.Scopes, func(scope string) bool { return slices.Contains(enough, scope) }) {
		return nil
	}
	return &reply{status: http.StatusForbidden, body: object("error", "Unauthorized", "code", "unauthorized",
		"param", "access_token", "type", "authorization")}
}

// things are a run as scopes may name it.
func (r *run) things() []string {
	list := []string{"runs:" + r.ID, "tasks:" + r.Task}
	for _, tag := range r.Tags {
		list = append(list, "tags:"+tag)
	}
	return list
}
