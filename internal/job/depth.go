package job

import "encoding/json"

// MaxDepth is how deep JSON may be nested: SQLite reads 1,000 levels.
const MaxDepth = 900

// depth is how deep valid JSON is nested; a number or a text has depth 0.
func depth(raw json.RawMessage) (deepest int) {
	level, quoted, escaped := 0, false, false
	for _, c := range raw {
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = c == '\\', c != '"'
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}
