package job

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestDepth(t *testing.T) {
	for text, want := range map[string]int{
		`1`: 0, `"[[["`: 0, `"\\\"[["`: 0, `[]`: 1, `{"a":[1,{"b":"]"}]}`: 3, `[[],[[]]]`: 3,
	} {
		if got := depth(json.RawMessage(text)); got != want {
			t.Errorf("depth of %s is %d, want %d", text, got, want)
		}
	}
}

func nest(levels int) json.RawMessage {
	return json.RawMessage(strings.Repeat("[", levels) + strings.Repeat("]", levels))
}

func TestDataTooDeepForTheDatabaseIsRefused(t *testing.T) {
	_, _, err := New(Spec{Type: "t", Data: nest(MaxDepth + 1)}, time.Now(), "u")
	if err == nil || !strings.Contains(err.Error(), "data: ") {
		t.Errorf("got %v, want a problem of data", err)
	}
	if _, _, err := New(Spec{Type: "t", Data: nest(MaxDepth)}, time.Now(), "u"); err != nil {
		t.Errorf("data of the greatest depth is refused: %v", err)
	}
}

func TestAnOutputTooDeepForTheDatabaseIsToldByItsDepth(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000)
	j := Job{Executor: Trigger, RunID: "run_a", TriggerStatus: Executing, Started: at}
	step, err := Next(j, Event{Kind: Seen, At: at, Run: Run{ID: "run_a", Raw: "COMPLETED", Output: nest(2000)}})
	if err != nil || step.Job.Status() != Completed || string(step.Job.Result) != `{"tooDeep":true}` {
		t.Errorf("got %s with %s (%v), want COMPLETED with a note", step.Job.Status(), step.Job.Result, err)
	}
}
