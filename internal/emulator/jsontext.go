package emulator

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// compactJSON encodes a value without escaping HTML, as JavaScript would. It is for
// values made in this package, which always encode.
func compactJSON(v any) json.RawMessage {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("emulator: encode: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// compactRaw takes the blanks out of a valid JSON text, into a copy.
func compactRaw(raw []byte) json.RawMessage {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return bytes.Clone(raw)
	}
	return b.Bytes()
}

// falsy tells what JavaScript takes for no value.
func falsy(raw []byte) bool {
	switch string(bytes.TrimSpace(raw)) {
	case "", "null", "false", "0", "-0", `""`:
		return true
	}
	return false
}

// quoted makes a JSON string of stored text.
func quoted(s string) json.RawMessage { return compactJSON(s) }

// unquoted is the text that a JSON string holds; nil if it is none.
func unquoted(raw json.RawMessage) []byte {
	var text string
	if kindOf(raw) != "string" || json.Unmarshal(raw, &text) != nil {
		return nil
	}
	return []byte(text)
}

// appendText appends a JSON string.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return append(b, quoted(s)...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
