package emulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// Limits of trigger options.
const (
	tagsAtMost = 10
	tagLength  = 128
	keyLength  = 2048
	devTTL     = "10m" // of runs in dev that name none
)

// order is a trigger request that has been read. Zero members were not given.
type order struct {
	payload     json.RawMessage
	payloadType string
	key         string
	keyTTL      string
	shownKey    string // readable form, where one was given
	delay       *instant
	ttl         *string // nil: the environment's default; empty: none
	tags        []string
	tagCount    int // of a list of tags, blank ones too; its length is limited
	metadata    json.RawMessage
	maxAttempts int
	queue       string
	concurrency string
	machine     string
	region      string
	version     string
	deployment  string
	test        bool
	debounce    *debounce
	extra       json.RawMessage

	schedule string  // of a scheduled run
	nominal  instant // its createdAt
}

// readOrder reads the body of a trigger request at that moment.
func readOrder(raw json.RawMessage, now instant) (order, []issue) {
	f := openForm(raw)
	var o order
	opt := f.sub("options")
	o.key = opt.text("idempotencyKey", keyLength)
	o.keyTTL = opt.text("idempotencyKeyTTL", 0)
	if opt.has("idempotencyKeyOptions") {
		o.shownKey = readableKey(opt.sub("idempotencyKeyOptions"))
	}
	delay, err := parseDelay(opt.members["delay"], now)
	if err != nil {
		opt.add("Invalid input", "delay")
	}
	o.delay = delay
	o.ttl = opt.readTTL()
	o.tags, o.tagCount = opt.readTags("tags")
	if raw := opt.members["metadata"]; !falsy(raw) {
		o.metadata = compactRaw(raw)
	}
	opt.text("metadataType", 0)
	o.maxAttempts = int(opt.integer("maxAttempts"))
	if opt.has("queue") {
		q := opt.sub("queue")
		q.need("name", "string")
		o.queue = queueName(q.text("name", 0))
	}
	o.concurrency = opt.textOrNumber("concurrencyKey")
	o.machine = opt.oneOf("machine", machines()...)
	o.region = opt.text("region", 0)
	o.version = opt.text("lockToVersion", 0)
	o.deployment = opt.text("externalDeploymentId", 128)
	o.test = opt.flag("test")
	o.debounce = opt.readDebounce()
	if o.debounce != nil && !opt.has("delay") {
		o.delay = readDelay(o.debounce.Delay, now)
	}
	o.extra = opt.readExtra(o.debounce)
	o.readPayload(f.members["payload"], opt)
	return o, *f.issues
}

// machines are the presets that a run may ask for.
func machines() []string {
	return []string{"micro", "small-1x", "small-2x", "medium-1x", "medium-2x", "large-1x", "large-2x"}
}

func readableKey(k form) string {
	k.need("key", "string")
	k.need("scope", "'run' | 'attempt' | 'global'")
	k.oneOf("scope", "run", "attempt", "global")
	return k.text("key", 0)
}

// readPayload keeps the payload as its type wants it: JSON whatever it is, or a
// text as it is. A payload of another type that is no text is dropped.
func (o *order) readPayload(raw json.RawMessage, opt form) {
	o.payloadType = "application/json"
	if opt.has("payloadType") {
		o.payloadType = opt.text("payloadType", 0)
	}
	opt.notNegative("payloadSize")
	switch {
	case raw == nil:
	case o.payloadType == "application/json" || kindOf(raw) == "string":
		o.payload = compactRaw(raw)
	}
	if o.payloadType == "application/store" && (kindOf(o.payload) != "string" || string(o.payload) == `""`) {
		form{issues: opt.issues}.add("payload must be a non-empty string when payloadType is application/store", "payload")
	}
}

// readTTL takes whole seconds or a text that is kept as it is.
func (f form) readTTL() *string {
	raw, ok := f.members["ttl"]
	if !ok {
		return nil
	}
	switch kindOf(raw) {
	case "string":
		return new(f.text("ttl", 0))
	case "number":
		return new(writeDuration(f.notNegative("ttl")))
	}
	f.add("Invalid input", "ttl")
	return nil
}

// readTags takes one tag or a list, without blank ones. Of a list it also gives the
// length that it came with.
func (f form) readTags(name string) (tags []string, count int) {
	raw, ok := f.members[name]
	if !ok {
		return nil, 0
	}
	list := false
	var one string
	switch kindOf(raw) {
	case "string":
		_ = json.Unmarshal(raw, &one)
		tags = []string{one}
	case "array":
		list = true
		if json.Unmarshal(raw, &tags) != nil || bytes.Contains(raw, []byte("null")) && hasNull(raw) {
			f.add("Invalid input", name)
			return nil, 0
		}
		count = len(tags)
	default:
		f.add("Invalid input", name)
		return nil, 0
	}
	for n, tag := range tags {
		if length(tag) <= tagLength {
			continue
		}
		if list {
			f.add("Tags must be less than 128 characters", name, n)
		} else {
			f.add("Tags must be less than 128 characters", name)
		}
	}
	return slices.DeleteFunc(tags, func(t string) bool { return strings.TrimSpace(t) == "" }), count
}

func hasNull(list json.RawMessage) bool {
	var items []json.RawMessage
	return json.Unmarshal(list, &items) == nil &&
		slices.ContainsFunc(items, func(i json.RawMessage) bool { return kindOf(i) == "null" })
}

func (f form) textOrNumber(name string) string {
	raw, ok := f.members[name]
	if !ok {
		return ""
	}
	switch kindOf(raw) {
	case "string":
		return f.text(name, 0)
	case "number":
		return string(raw)
	}
	f.add("Invalid input", name)
	return ""
}

// readExtra checks and keeps the options that have no effect on the emulator.
func (f form) readExtra(d *debounce) json.RawMessage {
	pairs := []any{}
	if f.has("maxDuration") {
		pairs = append(pairs, "maxDuration", min(max(5, f.number("maxDuration")), math.MaxInt32))
	}
	if f.has("priority") {
		pairs = append(pairs, "priority", min(max(math.MinInt32, f.number("priority")*1000), math.MaxInt32))
	}
	if d != nil {
		pairs = append(pairs, "debounce", d)
	}
	if len(pairs) == 0 {
		return nil
	}
	return object(pairs...)
}

var notInQueueName = regexp.MustCompile(`[^A-Za-z0-9_\-/]`)

// queueName leaves of a queue's name what the server would.
func queueName(s string) string {
	s = notInQueueName.ReplaceAllString(s, "")
	return s[:min(len(s), 128)]
}

// debounce delays a run. Later triggers of the same key are runs of their own here:
// the emulator does not gather them.
type debounce struct {
	Key      string `json:"key"`
	Delay    string `json:"delay"`
	MaxDelay string `json:"maxDelay,omitempty"`
}

func (f form) readDebounce() *debounce {
	if !f.has("debounce") {
		return nil
	}
	d := f.sub("debounce")
	d.need("key", "string")
	d.need("delay", "string")
	d.oneOf("mode", "leading", "trailing")
	return &debounce{Key: d.text("key", 512), Delay: d.text("delay", 0), MaxDelay: d.text("maxDelay", 0)}
}

func unprocessable(format string, args ...any) *reply {
	return failure(http.StatusUnprocessableEntity, fmt.Sprintf(format, args...))
}

// refuseAtOnce says what the server finds wrong, once the body has the right shape,
// before it looks for the run that holds the idempotency key.
func (o order) refuseAtOnce(now instant) *reply {
	d := o.debounce
	switch {
	case o.tagCount > tagsAtMost:
		return unprocessable("Runs can only have %d tags, you're trying to set %d.", tagsAtMost, o.tagCount)
	case d == nil:
	case o.delay == nil:
		return unprocessable("Debounce requires a valid delay duration. Provided: %s", d.Delay)
	case readDelay(d.Delay, now) == nil:
		return unprocessable("Invalid debounce delay: %s. Supported formats: {number}s, {number}m, {number}h, {number}d, {number}w", d.Delay)
	case d.MaxDelay != "" && readDelay(d.MaxDelay, now) == nil:
		return unprocessable("Invalid debounce maxDelay: %s", d.MaxDelay)
	}
	return nil
}

// refuse says what it finds wrong with an order for a new run.
func (o order) refuse() *reply {
	switch {
	case o.version != "" && o.version != workerVersion:
		return unprocessable("Task locked to version '%s', but no worker found with that version.", o.version)
	case len(o.metadata) > metadataAtMost:
		return tooMuchMetadata()
	case o.region != "" && o.region != "us-east-1" && o.region != "eu-central-1":
		return unprocessable("Region '%s' not found.", o.region)
	}
	return nil
}

func tooMuchMetadata() *reply {
	return failure(http.StatusRequestEntityTooLarge, fmt.Sprintf("Metadata exceeds maximum size of %d bytes", metadataAtMost))
}
