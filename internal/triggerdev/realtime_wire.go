package triggerdev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxShapeReply is how many bytes of one poll are read. A snapshot of 1,000 runs
// with their outputs may be more than that: such a stream has to skip columns.
const maxShapeReply = 64 << 20

var (
	errDropped = errors.New("the shape was dropped twice")
	errPartial = errors.New("a row without id, task, status or time of creation")
)

// reply is what one poll says of the shape itself.
type reply struct {
	handle, offset, cursor string
	upToDate               bool // no more to read at once
	refetch                bool // the shape is gone
}

// entry is a message of a shape's log: a change of a row, or control.
type entry struct {
	Key     string          `json:"key"`
	Value   json.RawMessage `json:"value"`
	Headers struct {
		Operation string `json:"operation"` // insert, update or delete
		Control   string `json:"control"`   // up-to-date or must-refetch
	} `json:"headers"`
}

// read merges the body of one poll. The content type is not looked at: what is
// not a list of messages fails all the same.
//
// After an error the rows may be ahead of the offset. The same messages are then
// read again, and leave the same rows.
func (s *Stream) read(res *http.Response, out *reply) error {
	out.handle = res.Header.Get("Electric-Handle")
	out.offset = res.Header.Get("Electric-Offset")
	out.cursor = res.Header.Get("Electric-Cursor")
	err := eachEntry(&capped{r: res.Body, left: s.limit}, func(e entry) error {
		switch e.Headers.Control {
		case "up-to-date":
			out.upToDate = true
		case "must-refetch":
			out.refetch = true
		}
		return s.merge(e)
	})
	switch {
	case err != nil:
		return err
	case out.refetch:
		return nil
	case out.handle == "" || out.offset == "":
		return errors.New("no handle or no offset")
	case !out.upToDate && out.offset == s.offset:
		return errors.New("neither up to date nor any further")
	}
	return nil
}

// merge brings one change into the rows. A message without operation changes no
// row. An update of a row that is not held counts only if it is whole: it may be
// of a run that was dropped.
func (s *Stream) merge(e entry) error {
	held := s.rows[e.Key]
	switch e.Headers.Operation {
	case "":
		return nil
	case "delete":
		delete(s.rows, e.Key)
		return nil
	case "insert":
		return s.put(e, row{})
	case "update":
		if held != nil {
			return s.put(e, *held)
		}
		if err := s.put(e, row{}); !errors.Is(err, errPartial) {
			return err
		}
		return nil
	}
	return fmt.Errorf("operation %q is not known", e.Headers.Operation)
}

// put holds what a change makes of a row. It is to be returned if it differs
// from the one that is held.
func (s *Stream) put(e entry, r row) error {
	if e.Key == "" {
		return errors.New("a change without key")
	}
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return fmt.Errorf("row: %w", err)
	}
	if !r.whole() {
		return errPartial
	}
	if held := s.rows[e.Key]; held != nil && r == *held {
		return nil
	}
	if !r.changed {
		r.changed = true
		s.changed = append(s.changed, e.Key)
	}
	s.rows[e.Key] = &r
	return nil
}

// eachEntry reads a JSON list of messages, one at a time so that the payloads
// of a server that cannot skip them are not held together.
func eachEntry(r io.Reader, do func(entry) error) error {
	d := json.NewDecoder(r)
	if err := expect(d, json.Delim('[')); err != nil {
		return err
	}
	for d.More() {
		var e entry
		if err := d.Decode(&e); err != nil {
			return err
		}
		if err := do(e); err != nil {
			return err
		}
	}
	if err := expect(d, json.Delim(']')); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one list")
	}
	return nil
}

func expect(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err != nil {
		return err
	}
	if got != want {
		return errors.New("not a list of messages")
	}
	return nil
}

// capped reads from r and fails with [errTooLong] where more than left bytes come.
type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.left -= int64(n)
	if c.left < 0 {
		return 0, errTooLong
	}
	return n, err
}

// parseArray reads a one-dimensional array as PostgreSQL writes it, such as
// {a,"b c","say \"hi\""}. NULL elements are left out.
func parseArray(s string) ([]string, error) {
	rest, opened := strings.CutPrefix(s, "{")
	if !opened {
		return nil, errors.New("array does not begin with {")
	}
	if rest == "}" {
		return nil, nil
	}
	var out []string
	for {
		element, after, err := arrayElement(rest)
		if err != nil {
			return nil, err
		}
		if element != nil {
			out = append(out, *element)
		}
		if after == "}" {
			return out, nil
		}
		var more bool
		if rest, more = strings.CutPrefix(after, ","); !more {
			return nil, errors.New("array goes on after an element")
		}
	}
}

// arrayElement reads one element, nil for NULL, and gives what follows it.
func arrayElement(s string) (*string, string, error) {
	if quoted, yes := strings.CutPrefix(s, `"`); yes {
		return quotedElement(quoted)
	}
	end := strings.IndexAny(s, `,}{"\`)
	if end < 1 || s[end] != ',' && s[end] != '}' {
		return nil, "", errors.New("array holds an element that cannot be read")
	}
	element := s[:end]
	if element == "NULL" {
		return nil, s[end:], nil
	}
	return &element, s[end:], nil
}

// quotedElement reads up to the closing quote. A backslash makes the byte after
// it a plain one.
func quotedElement(s string) (*string, string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			element := b.String()
			return &element, s[i+1:], nil
		case '\\':
			i++
			if i == len(s) {
				return nil, "", errOpenQuote
			}
		}
		b.WriteByte(s[i])
	}
	return nil, "", errOpenQuote
}

var errOpenQuote = errors.New("array ends within quotes")
