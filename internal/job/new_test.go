package job

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNewFillsInWhatTheCallerLeavesOut(t *testing.T) {
	j, warnings, err := New(Spec{Type: "watchChain"}, second(5), "uuid")
	if err != nil || len(warnings) != 0 {
		t.Fatalf("got warnings %v, error %v, want none", warnings, err)
	}
	equal(t, "the job", j, Job{
		Tag: "watchChain:uuid", Type: "watchChain", Data: json.RawMessage(`{}`), Due: second(5),
		RemoveAt: second(5).Add(time.Hour), Timezone: "UTC", Executor: Internal,
		Metadata: json.RawMessage(`{}`), Created: second(5), Updated: second(5),
	})
}

func TestNewKeepsWhatTheCallerSays(t *testing.T) {
	s := Spec{
		Tag: "report:7", Type: "report", Name: "daily", UserID: 7, Executor: Trigger, TriggerTask: "daily-report",
		Data: json.RawMessage(`null`), Due: second(3600), Retry: &RetryConfig{MaxAttempts: 4}, Persistent: true,
		RemoveDelay: -time.Minute, AutoReschedule: true, RescheduleWait: time.Minute,
		CronSchedule: "0 10 * * *", Timezone: "Europe/Rome", Misfire: FireAll, MisfireLimit: 5, FireLocally: true,
		Metadata: json.RawMessage(`{"a":1}`), Labels: []string{"x", "y"}, OnConflict: Keep,
	}
	j, warnings, err := New(s, second(5), "uuid")
	if err != nil || len(warnings) != 0 {
		t.Fatalf("got warnings %v, error %v, want none", warnings, err)
	}
	equal(t, "the job", j, Job{
		Tag: "report:7", Type: "report", Name: "daily", UserID: 7, Data: json.RawMessage(`null`),
		Due: second(3600), RemoveAt: second(3540), CronSchedule: "0 10 * * *", Timezone: "Europe/Rome",
		Misfire: FireAll, MisfireLimit: 5, FireLocally: true,
		AutoReschedule: true, AutoRescheduleWait: time.Minute, RemoveDelay: -time.Minute,
		Persistent: true, Retry: &RetryConfig{MaxAttempts: 4}, Executor: Trigger, TriggerTask: "daily-report",
		TriggerStatus: Pending, IdempotencyKey: "job-uuid",
		Metadata: json.RawMessage(`{"a":1}`), Labels: []string{"x", "y"}, Created: second(5), Updated: second(5),
	})
}

func TestNewSaysWhichMemberIsWrong(t *testing.T) {
	long := strings.Repeat("ö", 513)
	for _, c := range []struct {
		name  string
		spoil func(*Spec)
		want  []string
	}{
		{"no type", func(s *Spec) { s.Type = "" }, []string{"type"}},
		{"a blank type", func(s *Spec) { s.Type = " \t" }, []string{"type", "type"}},
		{"a long type", func(s *Spec) { s.Type = long }, []string{"type"}},
		{"a long type and no tag", func(s *Spec) { s.Type, s.Tag = long, "" }, []string{"type"}},
		{"a type with a control character", func(s *Spec) { s.Type = "a\x00" }, []string{"type"}},
		{"a type with a control character and no tag", func(s *Spec) { s.Type, s.Tag = "a\nb", "" }, []string{"type"}},
		{"a blank tag", func(s *Spec) { s.Tag = " " }, []string{"tag"}},
		{"a long tag", func(s *Spec) { s.Tag = long }, []string{"tag"}},
		{"a tag with a control character", func(s *Spec) { s.Tag = "a\x7f" }, []string{"tag"}},
		{"a negative user", func(s *Spec) { s.UserID = -1 }, []string{"userId"}},
		{"another executor", func(s *Spec) { s.Executor = "cloud" }, []string{"executor"}},
		{"trigger without a task", func(s *Spec) { s.Executor, s.TriggerTask = Trigger, " " }, []string{"triggerTaskId"}},
		{"a task but not trigger", func(s *Spec) { s.TriggerTask = "daily" }, []string{"triggerTaskId"}},
		{"epoch seconds as due", func(s *Spec) { s.Due = time.UnixMilli(1_772_000_000) }, []string{"due"}},
		{"due in another age", func(s *Spec) { s.Due = second(0).AddDate(101, 0, 0) }, []string{"due"}},
		{"large metadata", func(s *Spec) { s.Metadata = json.RawMessage(`{"a":"` + strings.Repeat("x", MaxMetadata) + `"}`) }, []string{"metadata"}},
		{"metadata that is a list", func(s *Spec) { s.Metadata = json.RawMessage(`[]`) }, []string{"metadata"}},
		{"metadata that is no JSON", func(s *Spec) { s.Metadata = json.RawMessage(`{`) }, []string{"metadata"}},
		{"a remove delay beyond an age", func(s *Spec) { s.RemoveDelay = MaxDelay + 1 }, []string{"removeDelay"}},
		{"and before one", func(s *Spec) { s.RemoveDelay = math.MinInt64 }, []string{"removeDelay"}},
		{"a negative reschedule delay", func(s *Spec) { s.RescheduleWait = -1 }, []string{"autoRescheduleOnFailureDelay"}},
		{"a reschedule delay beyond an age", func(s *Spec) { s.RescheduleWait = MaxDelay + 1 }, []string{"autoRescheduleOnFailureDelay"}},
		{"many labels", func(s *Spec) { s.Labels = slices.Repeat([]string{"a"}, 51) }, []string{"labels"}},
		{"bad labels", func(s *Spec) { s.Labels = []string{"a", "", long, "b\tc"} }, []string{"labels[1]", "labels[2]", "labels[3]"}},
		{"another policy", func(s *Spec) { s.OnConflict = "fight" }, []string{"onConflict"}},
		{"no tries", func(s *Spec) { s.Retry = &RetryConfig{MaxAttempts: -1} }, []string{"retryConfig.maxAttempts"}},
		{"many tries", func(s *Spec) { s.Retry = &RetryConfig{MaxAttempts: 251} }, []string{"retryConfig.maxAttempts"}},
		{"a negative wait", func(s *Spec) { s.Retry = &RetryConfig{MinTimeout: -1} }, []string{"retryConfig.minTimeoutInMs"}},
		{"a negative longest wait", func(s *Spec) { s.Retry = &RetryConfig{MaxTimeout: -1} },
			[]string{"retryConfig.maxTimeoutInMs", "retryConfig.maxTimeoutInMs"}},
		{"long waits", func(s *Spec) { s.Retry = &RetryConfig{MinTimeout: 31_536_000_001, MaxTimeout: 31_536_000_001} },
			[]string{"retryConfig.minTimeoutInMs", "retryConfig.maxTimeoutInMs"}},
		{"a longest wait below the first", func(s *Spec) { s.Retry = &RetryConfig{MinTimeout: 2000, MaxTimeout: 1999} }, []string{"retryConfig.maxTimeoutInMs"}},
		{"waits that shrink", func(s *Spec) { s.Retry = &RetryConfig{Factor: 0.99} }, []string{"retryConfig.factor"}},
		{"a factor that is no number", func(s *Spec) { s.Retry = &RetryConfig{Factor: math.NaN()} }, []string{"retryConfig.factor"}},
		{"all at once, in the order of the members", func(s *Spec) { s.Type, s.UserID, s.OnConflict = "", -1, "fight" }, []string{"type", "userId", "onConflict"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Spec{Type: "watchChain", Tag: "chain"}
			c.spoil(&s)
			j, _, err := New(s, second(0), "uuid")
			var wrong Problems
			if !errors.As(err, &wrong) {
				t.Fatalf("got error %v, want Problems", err)
			}
			members := []string{}
			for _, one := range wrong {
				members = append(members, one.Member)
				if one.Why == "" || strings.Contains(one.Why, "%!") {
					t.Errorf("%s: got the reason %q, want a sentence", one.Member, one.Why)
				}
			}
			equal(t, "the members that are wrong", members, c.want)
			equal(t, "the job", j, Job{})
		})
	}
}

func TestNewTakesWhatIsJustAllowed(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Spec)
	}{
		{"the longest type and tag", func(s *Spec) { s.Type, s.Tag = strings.Repeat("ö", MaxType), strings.Repeat("ö", MaxTag) }},
		{"the longest type and no tag", func(s *Spec) { s.Type, s.Tag = strings.Repeat("ö", MaxType), "" }},
		{"due long ago", func(s *Spec) { s.Due = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }},
		{"due in 100 years", func(s *Spec) { s.Due = second(0).Add(MaxDelay) }},
		{"the largest metadata", func(s *Spec) { s.Metadata = json.RawMessage(`{"a":"` + strings.Repeat("x", MaxMetadata-8) + `"}`) }},
		{"no metadata, as null", func(s *Spec) { s.Metadata = json.RawMessage(`null`) }},
		{"30 days kept", func(s *Spec) { s.RemoveDelay = 30 * 24 * time.Hour }},
		{"delays of an age", func(s *Spec) { s.RemoveDelay, s.RescheduleWait = -MaxDelay, MaxDelay }},
		{"50 labels", func(s *Spec) { s.Labels = slices.Repeat([]string{strings.Repeat("ö", MaxTag)}, MaxLabels) }},
		{"the largest policy", func(s *Spec) { s.Retry = &RetryConfig{250, 31_536_000_000, 31_536_000_000, 100, true} }},
		{"the smallest policy", func(s *Spec) { s.Retry = &RetryConfig{1, 1, 1, 1, false} }},
		{"an empty policy", func(s *Spec) { s.Retry = &RetryConfig{} }},
		{"a first wait without a longest", func(s *Spec) { s.Retry = &RetryConfig{MinTimeout: 90_000} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Spec{Type: "watchChain", Tag: "chain"}
			c.edit(&s)
			j, _, err := New(s, second(0), "uuid")
			if err != nil {
				t.Fatalf("got error %v, want none", err)
			}
			if n := len([]rune(j.Tag)); n == 0 || n > MaxTag {
				t.Errorf("tag: got %d characters, want 1 to %d", n, MaxTag)
			}
			if !json.Valid(j.Metadata) || string(j.Metadata) == "null" {
				t.Errorf("metadata: got %s, want an object", j.Metadata)
			}
		})
	}
}

func TestEveryOnConflictWordIsTaken(t *testing.T) {
	for _, word := range []OnConflict{"", Replace, ReplaceAll, Keep, Reject} {
		if _, _, err := New(Spec{Type: "a", OnConflict: word}, second(0), "uuid"); err != nil {
			t.Errorf("%q: got error %v, want none", word, err)
		}
	}
}

func TestProblemsReadAsOneLine(t *testing.T) {
	wrong := Problems{{"type", "is required"}, {"userId", "is negative"}}
	if got, want := wrong.Error(), "type: is required; userId: is negative"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNewWarnsOfWhatTriggerDevDoesNotTake(t *testing.T) {
	few := slices.Repeat([]string{"a"}, RemoteLabels)
	for _, c := range []struct {
		name string
		spec Spec
		want []string // how the warnings begin
	}{
		{"tries are sent", Spec{Retry: &RetryConfig{MaxAttempts: 3}}, nil},
		{"a first wait is not", Spec{Retry: &RetryConfig{MinTimeout: 1}}, []string{"retryConfig:"}},
		{"a longest wait is not", Spec{Retry: &RetryConfig{MaxTimeout: 1}}, []string{"retryConfig:"}},
		{"a factor is not", Spec{Retry: &RetryConfig{Factor: 1}}, []string{"retryConfig:"}},
		{"nor is randomness", Spec{Retry: &RetryConfig{Randomize: true}}, []string{"retryConfig:"}},
		{"few labels are sent", Spec{Labels: few}, nil},
		{"more are not", Spec{Labels: append(few[:len(few):len(few)], "b")}, []string{"labels:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.spec.Type = "report"
			if _, warnings, err := New(c.spec, second(0), "uuid"); err != nil || len(warnings) != 0 {
				t.Errorf("internal: got warnings %v, error %v, want none", warnings, err)
			}
			c.spec.Executor, c.spec.TriggerTask = Trigger, "daily-report"
			_, warnings, err := New(c.spec, second(0), "uuid")
			if err != nil || len(warnings) != len(c.want) {
				t.Fatalf("trigger: got warnings %v, error %v, want %v", warnings, err, c.want)
			}
			for i, begin := range c.want {
				if !strings.HasPrefix(warnings[i], begin) {
					t.Errorf("got %q, want a warning of %s", warnings[i], begin)
				}
			}
		})
	}
}

func TestResolve(t *testing.T) {
	const pending, leased, unsent, queuedRun, runningRun, canceling = 1, 2, 3, 4, 5, 6
	open := []Job{
		internalJob(t), after(t, internalJob(t), claim()),
		triggerJob(t), queued(t), running(t), after(t, queued(t), cancel("")),
	}
	for i := range open {
		open[i].ID = int64(i + 1)
	}
	for _, c := range []struct {
		name   string
		policy OnConflict
		open   []Job
		cancel []int64
		keep   int64
		err    string
	}{
		{"nothing open, replace", Replace, nil, nil, 0, ""},
		{"nothing open, keep", Keep, nil, nil, 0, ""},
		{"nothing open, reject", Reject, nil, nil, 0, ""},
		{"the default is replace", "", open, []int64{pending, unsent, queuedRun}, 0, ""},
		{"replace: running ones go on", Replace, open, []int64{pending, unsent, queuedRun}, 0, ""},
		{"replace all: running ones too", ReplaceAll, open, []int64{pending, leased, unsent, queuedRun, runningRun}, 0, ""},
		{"keep: the youngest that counts", Keep, open, nil, runningRun, ""},
		{"reject", Reject, open, nil, 0, "job 1: an unfinished job has this tag"},
		{"one that is to be canceled is not kept", Keep, open[canceling-1:], nil, 0, ""},
		{"nor does it refuse", Reject, open[canceling-1:], nil, 0, ""},
		{"nor is it canceled again", ReplaceAll, open[canceling-1:], nil, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := Resolve(c.policy, internalJob(t), c.open)
			var ids []int64
			for _, j := range found.Cancel {
				ids = append(ids, j.ID)
			}
			equal(t, "canceled", ids, c.cancel)
			kept := int64(0)
			if found.Keep != nil {
				kept = found.Keep.ID
			}
			equal(t, "kept", kept, c.keep)
			switch {
			case c.err == "" && err != nil:
				t.Errorf("got error %v, want none", err)
			case c.err != "" && (!errors.Is(err, ErrTagTaken) || err.Error() != c.err):
				t.Errorf("got error %v, want %s", err, c.err)
			}
		})
	}
}
