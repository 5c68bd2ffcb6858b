package emulator

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
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

// putMetadata replaces the metadata, then patches it. Operations on parent and root
// have nothing to act on: every run here is a root.
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
	if r == nil {
		return failure(http.StatusNotFound, "Task Run not found")
	}
	if r.Finished != 0 && e.clock.now() > r.Finished.plus(metadataFrozenAfter) {
		return failure(http.StatusUnprocessableEntity, "Cannot update metadata for a completed run")
	}
	next := r.Metadata
	if f.has("metadata") {
		next = compactRaw(f.members["metadata"])
	}
	if f.has("operations") {
		next = patch(next, ops)
	}
	if len(next) > metadataAtMost {
		return tooMuchMetadata()
	}
	r.Metadata = next
	e.changed(r)
	if next == nil {
		next = json.RawMessage("{}")
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

// patch does the operations in order. Keys that are JSON paths ("$.…") are left
// out: the emulator does not follow them.
func patch(metadata json.RawMessage, ops []operation) json.RawMessage {
	members := map[string]any{}
	_ = json.Unmarshal(metadata, &members) // what is no object starts anew
	if members == nil {
		members = map[string]any{}
	}
	for _, op := range ops {
		if !strings.HasPrefix(op.Key, "$.") {
			members = op.apply(members)
		}
	}
	return compactJSON(members)
}

func (op operation) apply(members map[string]any) map[string]any {
	var value any
	if op.Value != nil {
		_ = json.Unmarshal(op.Value, &value) // valid by now
	}
	had, ok := members[op.Key]
	list, isList := had.([]any)
	switch op.Type {
	case "set":
		members[op.Key] = value
	case "delete":
		delete(members, op.Key)
	case "append":
		switch {
		case !ok:
			list = []any{}
		case !isList:
			list = []any{had}
		}
		members[op.Key] = append(list, value)
	case "remove":
		if isList {
			members[op.Key] = slices.DeleteFunc(list, func(v any) bool { return reflect.DeepEqual(v, value) })
		}
	case "increment":
		by, _ := value.(float64)
		if n, isNumber := had.(float64); isNumber || !ok {
			members[op.Key] = n + by
		}
	case "update":
		if whole, isObject := value.(map[string]any); isObject {
			return whole
		}
	}
	return members
}

// setMetadata sets one member, as the task itself would.
func (r *run) setMetadata(key string, value any) {
	r.Metadata = patch(r.Metadata, []operation{{Type: "set", Key: key, Value: compactJSON(value)}})
}
