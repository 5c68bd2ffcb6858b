package triggerdev

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// RealtimeRun is a run as Realtime shows it: a row of the service's database.
// Times are UTC, and zero when absent. It carries neither idempotency key,
// version, attempts nor schedule; [Client.Retrieve] has them.
type RealtimeRun struct {
	ID     string // run_…
	Task   string
	Status string // the database's word, such as PENDING or COMPLETED_SUCCESSFULLY; unknown ones pass

	CreatedAt    time.Time
	UpdatedAt    time.Time
	QueuedAt     time.Time
	StartedAt    time.Time
	DelayedUntil time.Time
	ExpiredAt    time.Time
	CompletedAt  time.Time // never set on a run canceled while queued

	TTL             string
	Tags            []string
	IsTest          bool
	DurationMs      float64
	CostInCents     float64
	BaseCostInCents float64

	Metadata json.RawMessage // nil when absent or not readable

	// Output is what the run returned, as plain JSON; nil when there is none, or
	// when OutputElsewhere is true: then the row cannot tell, because the output
	// lies in the object store, its column was skipped, or it is in a form that
	// is not known. [Client.Retrieve] tells.
	Output          json.RawMessage
	OutputElsewhere bool

	Error *RunError // worded as [Run] words it
}

// final reports whether a run of this database status never runs again. An
// unknown status is not final.
func final(status string) bool {
	switch status {
	case "COMPLETED_SUCCESSFULLY", "COMPLETED_WITH_ERRORS", "CANCELED", "INTERRUPTED",
		"CRASHED", "SYSTEM_FAILURE", "EXPIRED", "TIMED_OUT":
		return true
	}
	return false
}

// row is a row as it is held. Decoding a change into it sets the columns that
// the change names, to zero where they are null, and leaves the others: that is
// how changes are merged. Two rows are equal by ==.
type row struct {
	changed bool // is to be returned

	ID             textColumn   `json:"friendlyId"`
	Task           textColumn   `json:"taskIdentifier"`
	Status         textColumn   `json:"status"`
	CreatedAt      timeColumn   `json:"createdAt"`
	UpdatedAt      timeColumn   `json:"updatedAt"`
	QueuedAt       timeColumn   `json:"queuedAt"`
	StartedAt      timeColumn   `json:"startedAt"`
	DelayUntil     timeColumn   `json:"delayUntil"`
	ExpiredAt      timeColumn   `json:"expiredAt"`
	CompletedAt    timeColumn   `json:"completedAt"`
	TTL            textColumn   `json:"ttl"`
	RunTags        arrayColumn  `json:"runTags"`
	IsTest         textColumn   `json:"isTest"`
	UsageMs        numberColumn `json:"usageDurationMs"`
	Cost           numberColumn `json:"costInCents"`
	BaseCost       numberColumn `json:"baseCostInCents"`
	Metadata       valueColumn  `json:"metadata"`
	MetadataType   textColumn   `json:"metadataType"`
	Output         valueColumn  `json:"output"`
	OutputType     textColumn   `json:"outputType"`
	SerializedFail textColumn   `json:"error"`
}

// whole reports whether r has what no filter can skip. A change of some columns
// lacks the id, which never changes.
func (r *row) whole() bool {
	return r.ID != "" && r.Task != "" && r.Status != "" && !r.CreatedAt.IsZero()
}

func (r *row) run() RealtimeRun {
	metadata, _ := r.Metadata.plain(r.MetadataType)
	output, here := r.Output.plain(r.OutputType)
	return RealtimeRun{
		ID:              string(r.ID),
		Task:            string(r.Task),
		Status:          string(r.Status),
		CreatedAt:       r.CreatedAt.Time,
		UpdatedAt:       r.UpdatedAt.Time,
		QueuedAt:        r.QueuedAt.Time,
		StartedAt:       r.StartedAt.Time,
		DelayedUntil:    r.DelayUntil.Time,
		ExpiredAt:       r.ExpiredAt.Time,
		CompletedAt:     r.CompletedAt.Time,
		TTL:             string(r.TTL),
		Tags:            r.RunTags.elements(),
		IsTest:          r.IsTest == "t" || r.IsTest == "true",
		DurationMs:      float64(r.UsageMs),
		CostInCents:     float64(r.Cost),
		BaseCostInCents: float64(r.BaseCost),
		Metadata:        metadata,
		Output:          output,
		OutputElsewhere: !here,
		Error:           taggedError(string(r.SerializedFail)),
	}
}

// columnText reads a column, each of which is a string or null on the wire.
func columnText(b []byte) (text string, null bool, err error) {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil {
		return "", false, errors.New("column is not a string")
	}
	if s == nil {
		return "", true, nil
	}
	return *s, false, nil
}

type textColumn string

func (c *textColumn) UnmarshalJSON(b []byte) error {
	text, _, err := columnText(b)
	*c = textColumn(text)
	return err
}

// timeColumn is a UTC time, whose zone the wire leaves out.
type timeColumn struct{ time.Time }

func (c *timeColumn) UnmarshalJSON(b []byte) error {
	text, null, err := columnText(b)
	c.Time = time.Time{}
	if err != nil || null {
		return err
	}
	c.Time, err = parseTime(text)
	return err
}

func parseTime(s string) (time.Time, error) {
	s = strings.Replace(s, " ", "T", 1)
	for _, layout := range []string{"2006-01-02T15:04:05", time.RFC3339, "2006-01-02T15:04:05Z07"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("time %q cannot be read", shorten(s))
}

type numberColumn float64

func (c *numberColumn) UnmarshalJSON(b []byte) error {
	text, null, err := columnText(b)
	*c = 0
	if err != nil || null {
		return err
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return fmt.Errorf("number %q cannot be read", shorten(text))
	}
	*c = numberColumn(n)
	return nil
}

// arrayColumn is an array as the wire writes it, known to be a good one.
type arrayColumn string

func (c *arrayColumn) UnmarshalJSON(b []byte) error {
	text, null, err := columnText(b)
	*c = ""
	if err != nil || null {
		return err
	}
	*c = arrayColumn(text)
	_, err = parseArray(text)
	return err
}

func (c arrayColumn) elements() []string {
	if c == "" {
		return nil
	}
	elements, _ := parseArray(string(c))
	return elements
}

// valueColumn is a serialised value, whose form another column names.
type valueColumn struct {
	there bool // the service has sent the column
	null  bool
	text  string
}

func (c *valueColumn) UnmarshalJSON(b []byte) error {
	text, null, err := columnText(b)
	*c = valueColumn{there: true, null: null, text: text}
	return err
}

// plain gives the value as JSON, nil if it is null, and whether the row tells it.
func (c valueColumn) plain(form textColumn) (json.RawMessage, bool) {
	if !c.there || c.null {
		return nil, c.there
	}
	if form == "" {
		form = "application/json"
	}
	value, err := plain(string(form), []byte(c.text))
	return value, err == nil
}

// taggedError words a stored error as the API words it on retrieve. One that
// cannot be read becomes its own message; no text is no error.
func taggedError(text string) *RunError {
	if text == "" || text == "null" {
		return nil
	}
	var e struct {
		Type       string          `json:"type"`
		Name       string          `json:"name"`
		Message    string          `json:"message"`
		StackTrace string          `json:"stackTrace"`
		Raw        json.RawMessage `json:"raw"`
		Code       string          `json:"code"`
	}
	if json.Unmarshal([]byte(text), &e) != nil {
		return &RunError{Message: text}
	}
	switch e.Type {
	case "BUILT_IN_ERROR":
		return &RunError{Message: e.Message, Name: e.Name, StackTrace: e.StackTrace}
	case "STRING_ERROR", "CUSTOM_ERROR":
		return &RunError{Message: rawText(e.Raw)}
	case "INTERNAL_ERROR":
		return &RunError{Message: "trigger.dev internal error (" + e.Code + ")"}
	}
	if e.Message == "" {
		return &RunError{Message: text}
	}
	return &RunError{Message: e.Message}
}

// rawText is the string that raw holds, or raw itself if it holds another value.
func rawText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}
