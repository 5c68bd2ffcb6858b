package triggerdev

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseArray(t *testing.T) {
	for in, want := range map[string][]string{
		`{}`:                    nil,
		`{"order_5521"}`:        {"order_5521"},
		`{a,b}`:                 {"a", "b"},
		`{"a","b c"}`:           {"a", "b c"},
		`{"say \"hi\"","a\\b"}`: {`say "hi"`, `a\b`},
		`{"a,b","{c}",""}`:      {"a,b", "{c}", ""},
		`{a,NULL,"NULL"}`:       {"a", "NULL"},
		`{db-id:42,é}`:          {"db-id:42", "é"},
		`{a b}`:                 {"a b"},
	} {
		got, err := parseArray(in)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{``, `a`, `{`, `{a`, `{a,`, `{a,}`, `{,a}`, `{"a`, `{"a\`, `{"a"b}`, `{a"b"}`, `{{a}}`, `{a}b`, `{"a"}b`, `["a"]`, `{a\b}`} {
		if got, err := parseArray(in); err == nil {
			t.Errorf("%q: got %q, want an error", in, got)
		}
	}
}

// quoteArray writes an array as PostgreSQL does for elements that need quotes.
func quoteArray(elements []string) string {
	var out []string
	for _, e := range elements {
		out = append(out, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(e)+`"`)
	}
	return "{" + strings.Join(out, ",") + "}"
}

func FuzzParseArray(f *testing.F) {
	for _, seed := range []string{`{}`, `{a,NULL,"b\"c"}`, `{"a`, `{"a\\","\\"}`, "a\x00b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		elements := strings.Split(s, "\x00")
		if got, err := parseArray(quoteArray(elements)); err != nil || !slices.Equal(got, elements) {
			t.Errorf("got %q, %v; want %q", got, err, elements)
		}
		got, err := parseArray(s)
		if err != nil {
			return
		}
		if again, err := parseArray(quoteArray(got)); err != nil || !slices.Equal(again, got) {
			t.Errorf("%q reads as %q, which written again reads as %q, %v", s, got, again, err)
		}
	})
}

// rowOf decodes columns, given as JSON members.
func rowOf(t *testing.T, columns string) RealtimeRun {
	t.Helper()
	var r row
	if err := json.Unmarshal([]byte("{"+columns+"}"), &r); err != nil {
		t.Fatalf("%s: %v", columns, err)
	}
	return r.run()
}

func TestTimesAreUTC(t *testing.T) {
	want := time.Date(2026, 8, 20, 9, 4, 0, 118_000_000, time.UTC)
	for _, text := range []string{
		"2026-08-20T09:04:00.118", "2026-08-20 09:04:00.118", "2026-08-20T09:04:00.118Z",
		"2026-08-20 11:04:00.118+02", "2026-08-20T09:04:00.118000+00:00",
	} {
		if got := rowOf(t, `"startedAt":"`+text+`"`).StartedAt; got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
	if got := rowOf(t, `"startedAt":null`).StartedAt; !got.IsZero() {
		t.Errorf("null: got %v, want the zero time", got)
	}
}

func TestEveryColumnHasItsPlace(t *testing.T) {
	got := rowOf(t, `"friendlyId":"run_1","taskIdentifier":"t","status":"PENDING","createdAt":"2026-01-01T00:00:00",
		"updatedAt":"2026-01-02T00:00:00","queuedAt":"2026-01-03T00:00:00","startedAt":"2026-01-04T00:00:00",
		"delayUntil":"2026-01-05T00:00:00","expiredAt":"2026-01-06T00:00:00","completedAt":"2026-01-07T00:00:00",
		"ttl":"10m","isTest":"true","usageDurationMs":"1","costInCents":"2.5","baseCostInCents":"3","output":null`)
	day := got.CreatedAt
	for i, when := range []time.Time{got.CreatedAt, got.UpdatedAt, got.QueuedAt, got.StartedAt, got.DelayedUntil, got.ExpiredAt, got.CompletedAt} {
		if want := day.AddDate(0, 0, i); !when.Equal(want) {
			t.Errorf("time %d: got %v, want %v", i, when, want)
		}
	}
	if got.ID != "run_1" || got.Task != "t" || got.Status != "PENDING" || got.TTL != "10m" || !got.IsTest ||
		got.DurationMs != 1 || got.CostInCents != 2.5 || got.BaseCostInCents != 3 || got.OutputElsewhere {
		t.Errorf("got %+v", got)
	}
	if !rowOf(t, `"isTest":"t"`).IsTest || rowOf(t, `"isTest":"f"`).IsTest || rowOf(t, `"isTest":"false"`).IsTest {
		t.Error("t is true, f and false are not")
	}
}

func TestOutputOfARow(t *testing.T) {
	for name, tc := range map[string]struct {
		columns   string
		want      string // "" for none
		elsewhere bool
	}{
		"JSON":            {`"output":"{\"a\":12345678901234567890}","outputType":"application/json"`, `{"a":12345678901234567890}`, false},
		"JSON null":       {`"output":"null","outputType":"application/json"`, `null`, false},
		"no type":         {`"output":"1","outputType":null`, `1`, false},
		"SuperJSON":       {`"output":"{\"json\":[1],\"meta\":{}}","outputType":"application/super+json"`, `[1]`, false},
		"text":            {`"output":"say \"hi\"","outputType":"text/plain"`, `"say \"hi\""`, false},
		"none":            {`"output":null,"outputType":"application/json"`, ``, false},
		"stored":          {`"output":"packets/o.json","outputType":"application/store"`, ``, true},
		"skipped":         {`"outputType":"application/json"`, ``, true},
		"an unknown type": {`"output":"1","outputType":"application/cbor"`, ``, true},
		"broken JSON":     {`"output":"{","outputType":"application/json"`, ``, true},
		"broken envelope": {`"output":"[]","outputType":"application/super+json"`, ``, true},
	} {
		got := rowOf(t, tc.columns)
		if string(got.Output) != tc.want || got.OutputElsewhere != tc.elsewhere {
			t.Errorf("%s: got %q, elsewhere %v; want %q, %v", name, got.Output, got.OutputElsewhere, tc.want, tc.elsewhere)
		}
	}
}

func TestErrorsAreWordedAsOnRetrieve(t *testing.T) {
	for text, want := range map[string]*RunError{
		`{"type":"BUILT_IN_ERROR","name":"CarrierError","message":"no","stackTrace":"at x"}`:      {Message: "no", Name: "CarrierError", StackTrace: "at x"},
		`{"type":"STRING_ERROR","raw":"Canceled by user"}`:                                        {Message: "Canceled by user"},
		`{"type":"CUSTOM_ERROR","raw":"{\"code\":7}"}`:                                            {Message: `{"code":7}`},
		`{"type":"CUSTOM_ERROR","raw":{"code":7}}`:                                                {Message: `{"code":7}`},
		`{"type":"INTERNAL_ERROR","code":"MAX_DURATION_EXCEEDED","message":"x","stackTrace":"y"}`: {Message: "trigger.dev internal error (MAX_DURATION_EXCEEDED)"},
		`{"type":"NEW_ERROR","message":"m"}`:                                                      {Message: "m"},
		`{"type":"NEW_ERROR"}`:                                                                    {Message: `{"type":"NEW_ERROR"}`},
		`not JSON`:                                                                                {Message: "not JSON"},
		`null`:                                                                                    nil,
		``:                                                                                        nil,
	} {
		column, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		got := rowOf(t, `"error":`+string(column)).Error
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%s: got %+v, want %+v", text, got, want)
		}
	}
	if got := rowOf(t, `"error":null`).Error; got != nil {
		t.Errorf("null: got %+v, want none", got)
	}
}

func TestFinalIsByTheDatabasesWords(t *testing.T) {
	for words, want := range map[string]bool{
		"COMPLETED_SUCCESSFULLY COMPLETED_WITH_ERRORS CANCELED INTERRUPTED CRASHED SYSTEM_FAILURE EXPIRED TIMED_OUT":                      true,
		"DELAYED PENDING PENDING_VERSION WAITING_FOR_DEPLOY DEQUEUED EXECUTING RETRYING_AFTER_FAILURE WAITING_TO_RESUME PAUSED PONDERING": false,
	} {
		for word := range strings.FieldsSeq(words) {
			if got := final(word); got != want {
				t.Errorf("%s: got %v, want %v", word, got, want)
			}
		}
	}
}
