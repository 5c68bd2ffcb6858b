package emulator

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// metadataFrozenAfter is how long a finished run's metadata can still be changed.
const metadataFrozenAfter = time.Hour

func (e *Emulator) getMetadata(c *call) *reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.find(c.env.ID, c.r.PathValue("run"))
	if r == nil {
		return failure(http.StatusNotFound, "Task Run not found")
	}
	shown := json.RawMessage("null")
	if r.Metadata != nil {
		shown = quoted(string(r.Metadata)) // a text that holds JSON
	}
	return success(object("metadata", shown, "metadataType", "application/json"))
}

// putMetadata patches the metadata or, where there are no operations, replaces it.
// Operations on parent and root have nothing to act on: every run here is a root.
func (e *Emulator) putMetadata(c *call) *reply {
	raw, refused := c.jsonBody()
	if refused != nil {
		return refused
	}
	f := openForm(raw)
	f.sub("metadata")
	ops := f.readOperations("operations")
	f.readOperations("parentOperations")
	f.readOperations("rootOperations")
	if len(*f.issues) > 0 {
		return validation(*f.issues)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.find(c.env.ID, c.r.PathValue("run"))
	switch {
	case r == nil:
		return failure(http.StatusNotFound, "Task Run not found")
	case r.Finished != 0 && e.clock.now() > r.Finished.plus(metadataFrozenAfter):
		return unprocessable("Cannot update metadata for a completed run")
	case !f.has("operations") && !f.has("metadata"):
		return unprocessable("Invalid metadata")
	}
	next := compactRaw(f.members["metadata"])
	if f.has("operations") {
		next = patch(r.Metadata, ops)
	}
	if len(next) > metadataAtMost {
		return tooMuchMetadata()
	}
	if r.Metadata != nil || string(next) != "{}" {
		r.Metadata = next
		e.changed(r)
	}
	return success(object("metadata", next))
}

// operation is one change of the metadata.
type operation struct {
	Type  string          `json:"type"`
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
}

func (f form) readOperations(name string) []operation {
	raw, ok := f.members[name]
	if !ok {
		return nil
	}
	if kindOf(raw) != "array" {
		f.mistype("array", raw, name)
		return nil
	}
	var items []json.RawMessage
	_ = json.Unmarshal(raw, &items) // valid by now
	ops := make([]operation, len(items))
	for n, item := range items {
		err := json.Unmarshal(item, &ops[n])
		known := slices.Contains([]string{"set", "delete", "append", "remove", "increment", "update"}, ops[n].Type)
		if err != nil || !known {
			f.add("Invalid discriminator value. Expected 'set' | 'delete' | 'append' | 'remove' | 'increment' | 'update'",
				name, n, "type")
		} else if ops[n].Type == "increment" && kindOf(ops[n].Value) != "number" {
			f.mistype("number", ops[n].Value, name, n, "value")
		}
	}
	return ops
}

// patch does the operations in order.
func patch(metadata json.RawMessage, ops []operation) json.RawMessage {
	members := map[string]any{}
	_ = json.Unmarshal(metadata, &members) // what is no object starts anew
	if members == nil {
		members = map[string]any{}
	}
	for _, op := range ops {
		members = op.apply(members)
	}
	return compactJSON(members)
}

func (op operation) apply(members map[string]any) map[string]any {
	var value any
	if op.Value != nil {
		_ = json.Unmarshal(op.Value, &value) // valid by now
	}
	way := op.way()
	had, ok := follow(members, way)
	list, isList := had.([]any)
	switch op.Type {
	case "set":
		put(members, way, value)
	case "delete":
		delete(members, op.Key) // which is never a path
	case "append":
		if ok && !isList {
			list = []any{had}
		}
		put(members, way, append(slices.Clip(list), value))
	case "remove":
		if isList {
			put(members, way, slices.DeleteFunc(list, func(v any) bool { return reflect.DeepEqual(v, value) }))
		}
	case "increment":
		by, _ := value.(float64)
		n, _ := had.(float64) // what is no number counts as 0
		put(members, way, n+by)
	case "update":
		if whole, isObject := value.(map[string]any); isObject {
			return whole
		}
	}
	return members
}

// way is the path to what an operation changes: a key as it is, or names and indexes
// between dots after "$.".
func (op operation) way() []string {
	if path, ok := strings.CutPrefix(op.Key, "$."); ok {
		return strings.Split(path, ".")
	}
	return []string{op.Key}
}

// follow finds what a way leads to.
func follow(from any, way []string) (any, bool) {
	for _, name := range way {
		switch node := from.(type) {
		case map[string]any:
			child, ok := node[name]
			if !ok {
				return nil, false
			}
			from = child
		case []any:
			n, err := strconv.Atoi(name)
			if err != nil || n < 0 || n >= len(node) {
				return nil, false
			}
			from = node[n]
		default:
			return nil, false
		}
	}
	return from, true
}

// put sets the last member of a way whose other members are there; else it does
// nothing. A list grows as far as it must.
func put(into map[string]any, way []string, value any) {
	last := len(way) - 1
	parent, _ := follow(into, way[:last])
	switch node := parent.(type) {
	case map[string]any:
		node[way[last]] = value
	case []any:
		n, err := strconv.Atoi(way[last])
		if err != nil || n < 0 || n > metadataAtMost {
			return
		}
		if n >= len(node) {
			node = append(node, make([]any, n+1-len(node))...)
			put(into, way[:last], node)
		}
		node[n] = value
	}
}

// setMetadata sets one member, as the task itself would.
func (r *run) setMetadata(key string, value any) {
	r.Metadata = patch(r.Metadata, []operation{{Type: "set", Key: key, Value: compactJSON(value)}})
}
