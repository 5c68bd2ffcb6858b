package emulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"unicode/utf16"
)

// issue is one thing wrong with a body, in the words of the server's validator.
type issue struct {
	Code     string `json:"code"`
	Expected string `json:"expected,omitempty"`
	Received string `json:"received,omitempty"`
	Path     []any  `json:"path"`
	Message  string `json:"message"`
}

// where writes the path as the common route builder does.
func (i issue) where() string {
	var b strings.Builder
	for n, p := range i.Path {
		switch part := p.(type) {
		case int:
			fmt.Fprintf(&b, "[%d]", part)
		default:
			if n > 0 {
				b.WriteByte('.')
			}
			fmt.Fprint(&b, part)
		}
	}
	return b.String()
}

// validation is the 400 of the common route builder: one text for all issues.
func validation(issues []issue) *reply {
	parts := make([]string, len(issues))
	for n, i := range issues {
		parts[n] = i.Message
		if len(i.Path) > 0 {
			parts[n] += fmt.Sprintf(" at \"%s\"", i.where())
		}
	}
	return failure(http.StatusBadRequest, "Validation error: "+strings.Join(parts, "; "))
}

// issueList is the 400 of the older routes, and of bad queries under details.
func issueList(title, list string, issues []issue) *reply {
	return &reply{status: http.StatusBadRequest, body: json.RawMessage(object("error", title, list, issues))}
}

// kindOf names a JSON value's type; undefined is an absent one.
func kindOf(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return "undefined"
	}
	switch raw[0] {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	}
	return "number"
}

// form reads the members of one JSON object and gathers what is wrong with them.
// Members that nobody asks for are dropped, as the server does.
type form struct {
	members map[string]json.RawMessage
	path    []any
	issues  *[]issue
}

// openForm reads an object; what is none is the form's first issue.
func openForm(raw json.RawMessage) form {
	f := form{issues: new([]issue)}
	if kindOf(raw) != "object" {
		f.mistype("object", raw)
	} else {
		_ = json.Unmarshal(raw, &f.members) // valid by now
	}
	return f
}

func (f form) at(name ...any) []any {
	return append(append([]any{}, f.path...), name...)
}

func (f form) add(message string, name ...any) {
	*f.issues = append(*f.issues, issue{Code: "custom", Path: f.at(name...), Message: message})
}

func (f form) mistype(want string, raw json.RawMessage, name ...any) {
	i := issue{Code: "invalid_type", Expected: want, Received: kindOf(raw), Path: f.at(name...), Message: "Required"}
	if raw != nil {
		i.Message = fmt.Sprintf("Expected %s, received %s", want, i.Received)
	}
	*f.issues = append(*f.issues, i)
}

// sub opens a member that is an object; absent, it is an empty form.
func (f form) sub(name string) form {
	inner := form{path: f.at(name), issues: f.issues}
	raw, ok := f.members[name]
	if !ok {
		return inner
	}
	if kindOf(raw) != "object" {
		f.mistype("object", raw, name)
		return inner
	}
	_ = json.Unmarshal(raw, &inner.members) // valid by now
	return inner
}

func (f form) has(name string) bool { _, ok := f.members[name]; return ok }

// need makes a member's absence an issue.
func (f form) need(name, kind string) {
	if !f.has(name) {
		f.mistype(kind, nil, name)
	}
}

// text reads a string of at most so many UTF-16 units (0: any number).
func (f form) text(name string, atMost int) string {
	raw, ok := f.members[name]
	if !ok {
		return ""
	}
	var s string
	if kindOf(raw) != "string" {
		f.mistype("string", raw, name)
	} else if _ = json.Unmarshal(raw, &s); atMost > 0 && length(s) > atMost {
		f.add(fmt.Sprintf("String must contain at most %d character(s)", atMost), name)
	}
	return s
}

// length counts as JavaScript does.
func length(s string) int { return len(utf16.Encode([]rune(s))) }

func (f form) number(name string) float64 {
	raw, ok := f.members[name]
	if !ok {
		return 0
	}
	var n float64
	if kindOf(raw) != "number" {
		f.mistype("number", raw, name)
		return 0
	}
	_ = json.Unmarshal(raw, &n)
	return n
}

func (f form) integer(name string) int64 {
	n := f.number(name)
	if n != math.Trunc(n) {
		*f.issues = append(*f.issues, issue{Code: "invalid_type", Expected: "integer", Received: "float",
			Path: f.at(name), Message: "Expected integer, received float"})
	}
	return int64(n)
}

func (f form) notNegative(name string) int64 {
	n := f.integer(name)
	if n < 0 {
		f.add("Number must be greater than or equal to 0", name)
	}
	return n
}

func (f form) flag(name string) bool {
	raw, ok := f.members[name]
	if !ok {
		return false
	}
	if kindOf(raw) != "boolean" {
		f.mistype("boolean", raw, name)
	}
	return string(bytes.TrimSpace(raw)) == "true"
}

// oneOf reads a string out of a fixed set.
func (f form) oneOf(name string, words ...string) string {
	s := f.text(name, 0)
	if raw := f.members[name]; kindOf(raw) != "string" {
		return ""
	}
	for _, w := range words {
		if s == w {
			return s
		}
	}
	f.add(fmt.Sprintf("Invalid enum value. Expected '%s', received '%s'", strings.Join(words, "' | '"), s), name)
	return ""
}
