package emulator

import (
	"bufio"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"strings"
)

// column is one column of a run in the realtime feed: its type in the announced
// schema and its value as text. A nil value is null.
type column struct {
	name, kind string
	list       bool // an array of that type
	kept       bool // cannot be skipped
	value      func(*run) *string
}

// columns are all of them, in the order of the feed.
func columns() []column {
	return []column{
		{name: "id", kind: "text", kept: true, value: func(r *run) *string { return new(r.internal()) }},
		{name: "taskIdentifier", kind: "text", kept: true, value: func(r *run) *string { return &r.Task }},
		{name: "createdAt", kind: "timestamp", kept: true, value: func(r *run) *string { return r.Created.zoneless() }},
		{name: "updatedAt", kind: "timestamp", value: func(r *run) *string { return r.Updated.zoneless() }},
		{name: "startedAt", kind: "timestamp", value: func(r *run) *string { return r.Started.zoneless() }},
		{name: "delayUntil", kind: "timestamp", value: func(r *run) *string { return zoneless(r.delayedUntil()) }},
		{name: "queuedAt", kind: "timestamp", value: func(r *run) *string { return r.Queued.zoneless() }},
		{name: "expiredAt", kind: "timestamp", value: func(r *run) *string { return r.Expired.zoneless() }},
		{name: "completedAt", kind: "timestamp", value: func(r *run) *string { return r.Finished.zoneless() }},
		{name: "friendlyId", kind: "text", kept: true, value: func(r *run) *string { return &r.ID }},
		{name: "number", kind: "int4", value: func(r *run) *string { return new(strconv.Itoa(r.Number)) }},
		{name: "isTest", kind: "bool", value: func(r *run) *string { return new(strconv.FormatBool(r.Test)[:1]) }},
		{name: "status", kind: "text", kept: true, value: func(r *run) *string { return new(string(r.Status)) }},
		{name: "usageDurationMs", kind: "int4", value: func(r *run) *string { return new(strconv.FormatInt(r.UsedMs, 10)) }},
		{name: "costInCents", kind: "float8", value: func(r *run) *string { return new(decimal(r.cost())) }},
		{name: "baseCostInCents", kind: "float8", value: func(r *run) *string { return new(decimal(r.baseCost())) }},
		{name: "ttl", kind: "text", value: func(r *run) *string { return textOrNull(r.TTL) }},
		{name: "payload", kind: "text", value: func(r *run) *string { return new(string(r.payloadCell().data)) }},
		{name: "payloadType", kind: "text", value: func(r *run) *string { return new(r.payloadCell().kind) }},
		{name: "metadata", kind: "text", value: func(r *run) *string { return textOrNull(string(r.Metadata)) }},
		{name: "metadataType", kind: "text", value: func(*run) *string { return new("application/json") }},
		{name: "output", kind: "text", value: func(r *run) *string { return r.outputCell().text() }},
		{name: "outputType", kind: "text", value: func(r *run) *string { return new(r.outputCell().kind) }},
		{name: "runTags", kind: "text", list: true, value: func(r *run) *string { return textOrNull(arrayLiteral(r.Tags)) }},
		{name: "error", kind: "jsonb", value: func(r *run) *string { return r.Error.tagged() }},
		{name: "realtimeStreams", kind: "text", list: true, value: func(*run) *string { return new("{}") }},
	}
}

// columnsWithout leaves out what is named, as far as it may.
func columnsWithout(skip []string) []column {
	named := func(c column) bool {
		return slices.ContainsFunc(skip, func(name string) bool { return strings.TrimSpace(name) == c.name })
	}
	return slices.DeleteFunc(columns(), func(c column) bool { return !c.kept && named(c) })
}

// schemaOf announces the types of the columns.
func schemaOf(cols []column) string {
	pairs := make([]any, 0, 2*len(cols))
	for _, c := range cols {
		kind := object("type", c.kind)
		if c.list {
			kind = object("type", c.kind, "dims", 1)
		}
		pairs = append(pairs, c.name, kind)
	}
	return string(object(pairs...))
}

// message is one line of a feed: a run as it is now, and whether it is new there.
type message struct {
	run   run
	fresh bool
}

// writeBody writes the lines and, after them, that there are no more. A client that
// has left misses it.
func writeBody(to io.Writer, lines []message, cols []column, version string) {
	w := bufio.NewWriter(to)
	_ = w.WriteByte('[')
	var b []byte
	for n := range lines {
		b = append(lines[n].append(b[:0], cols, version), ',')
		_, _ = w.Write(b)
	}
	_, _ = w.WriteString(`{"headers":{"control":"up-to-date"}}]`)
	_ = w.Flush()
}

func (m *message) append(b []byte, cols []column, version string) []byte {
	r := &m.run
	if r.Status == dequeued && version != apiVersion {
		r.Status = executing
	}
	b = append(b, `{"key":`...)
	b = appendText(b, `"public"."TaskRun"/"`+r.internal()+`"`)
	b = append(b, `,"value":{`...)
	for n, c := range cols {
		if n > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, c.name), ':')
		if text := c.value(r); text != nil {
			b = appendText(b, *text)
		} else {
			b = append(b, "null"...)
		}
	}
	operation := "update"
	if m.fresh {
		operation = "insert"
	}
	b = append(b, `},"headers":{"operation":`...)
	return append(appendText(b, operation), "}}"...)
}

// zoneless writes a moment as the database does; none is null.
func (t instant) zoneless() *string { return zoneless(t.iso()) }

func zoneless(iso string) *string { return textOrNull(strings.TrimSuffix(iso, "Z")) }

func textOrNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func decimal(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// arrayLiteral writes a list as PostgreSQL does; an empty one is null there.
func arrayLiteral(list []string) string {
	if len(list) == 0 {
		return ""
	}
	parts := make([]string, len(list))
	for n, s := range list {
		parts[n] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// cell is a value with its type. A large one is kept elsewhere: then the value is
// only its path there.
type cell struct {
	kind string
	data []byte // nil: none
}

func (c cell) text() *string {
	if c.data == nil {
		return nil
	}
	return new(string(c.data))
}

func (r *run) payloadCell() cell {
	kind, data := r.storedPayload()
	if len(data) >= payloadInline {
		return cell{"application/store", []byte(r.ID + "/payload.json")}
	}
	return cell{kind, data}
}

func (r *run) outputCell() cell {
	kind, data := r.storedOutput()
	if len(data) >= outputInline {
		return cell{"application/store", []byte(r.ID + "/output.json")}
	}
	return cell{kind, data}
}

// tagged is the error as it is stored: with a tag that says where it comes from.
func (t *TaskError) tagged() *string {
	if t == nil {
		return nil
	}
	code, internal := strings.CutPrefix(t.Message, internalError)
	var raw json.RawMessage
	switch {
	case internal:
		raw = object("type", "INTERNAL_ERROR", "code", strings.TrimSuffix(code, ")"))
	case t.Name != "":
		raw = object("type", "BUILT_IN_ERROR", "name", t.Name, "message", t.Message, "stackTrace", t.StackTrace)
	default:
		raw = object("type", "STRING_ERROR", "raw", t.Message)
	}
	return new(string(raw))
}
