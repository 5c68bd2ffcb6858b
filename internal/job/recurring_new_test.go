package job

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestARecurringJobIsFirstDueAtItsFirstNominalTime(t *testing.T) {
	for _, c := range []struct {
		cron, zone, at, due, want string
	}{
		{"0 9 * * *", "", "08:00:00", "", "09:00:00"},
		{"0 9 * * *", "Europe/Rome", "07:30:00", "", "08:00:00"},
		{"0 9 * * *", "", "09:00:00", "", "09:00:00"},
		{"*/15 * * * *", "", "08:00:00", "08:20:00", "08:30:00"},
		{"*/15 * * * *", "", "08:00:00", "07:10:00", "07:15:00"}, // misfire makes up for it
		{"*/20 * * * * *", "", "08:00:01", "", "08:00:20"},
		{"@hourly", "", "08:00:01", "", "09:00:00"},
	} {
		s := Spec{Type: "watchChain", CronSchedule: c.cron, Timezone: c.zone}
		if c.due != "" {
			s.Due = clock(c.due)
		}
		j, warnings, err := New(s, clock(c.at), "uuid")
		if err != nil || len(warnings) != 0 {
			t.Errorf("%s: got warnings %v, error %v, want none", c.cron, warnings, err)
		}
		isDue(t, j, clock(c.want))
	}
	moment := clock("08:00:00").Add(time.Millisecond)
	j, _, err := New(Spec{Type: "watchChain", CronSchedule: "* * * * *"}, moment, "uuid")
	if err != nil {
		t.Fatal(err)
	}
	isDue(t, j, clock("08:01:00"))
}

// Trigger.dev makes up for nothing, and waits for nothing.
func TestAScheduleOnTriggerDevIsNotDueBeforeItIsMade(t *testing.T) {
	isDue(t, remoteJob(t, func(s *Spec) { s.Due = clock("05:00:00") }), clock("08:00:00"))
	isDue(t, localJob(t, func(s *Spec) { s.Due = clock("05:00:00") }), clock("05:00:00"))
}

func TestNewSaysWhatIsWrongWithARecurringJob(t *testing.T) {
	local := func(s *Spec) { s.Executor, s.TriggerTask, s.FireLocally = Trigger, "daily", true }
	remote := func(s *Spec) { s.Executor, s.TriggerTask = Trigger, "daily" }
	for _, c := range []struct {
		name string
		edit []func(*Spec)
		want string
	}{
		{"no expression", []func(*Spec){recurs("every day")}, `cronSchedule: has 2 fields; it needs five (minute, hour, day of month, month, day of week), or six with seconds in front`},
		{"a field out of range", []func(*Spec){recurs("0 24 * * *")}, `cronSchedule: hour: 24 is out of range 0-23`},
		{"a date that never comes", []func(*Spec){recurs("0 0 30 2 *")}, `cronSchedule: day of month: 30 never comes: the months given have at most 29 days`},
		{"a bad expression that Trigger.dev is to fire", []func(*Spec){remote, recurs("0 24 * * *")}, `cronSchedule: hour: 24 is out of range 0-23`},
		{"no zone", []func(*Spec){recurs("0 9 * * *"), func(s *Spec) { s.Timezone = "Mars" }}, `timezone: "Mars" is not an IANA time zone such as Europe/Berlin or UTC`},
		{"no zone, of a one-time job", []func(*Spec){func(s *Spec) { s.Timezone = "Local" }}, `timezone: "Local" is not an IANA time zone such as Europe/Berlin or UTC`},
		{"seconds for Trigger.dev", []func(*Spec){remote, recurs("0 0 9 * * *")},
			`cronSchedule: CRON expressions with seconds are not allowed; Trigger.dev takes exactly five fields; with fireLocally sidejob fires it itself`},
		{"an alias that Trigger.dev does not know", []func(*Spec){remote, recurs("@midnight")},
			`cronSchedule: Trigger.dev knows @hourly, @daily, @weekly, @monthly and @yearly only; with fireLocally sidejob fires it itself`},
		{"a list that Trigger.dev does not know", []func(*Spec){remote, recurs("0 9 * * 1#1,1#3")},
			`cronSchedule: day of week: Trigger.dev does not take # in a list; with fireLocally sidejob fires it itself`},
		{"seconds fired here", []func(*Spec){local, recurs("0 0 9 * * *")}, ``},
		{"seconds for a worker", []func(*Spec){recurs("0 0 9 * * *")}, ``},
		{"a misfire of a one-time job", []func(*Spec){misfire(FireOnce, 0)}, `misfire: is for recurring jobs; give cronSchedule as well`},
		{"a limit of a one-time job", []func(*Spec){misfire(FireAll, 1)},
			`misfire: is for recurring jobs; give cronSchedule as well; misfireLimit: is for recurring jobs; give cronSchedule as well`},
		{"a one-time job fired here", []func(*Spec){local}, `fireLocally: is for recurring jobs; give cronSchedule as well`},
		{"an internal job fired here", []func(*Spec){recurs("0 9 * * *"), func(s *Spec) { s.FireLocally = true }},
			`fireLocally: is for jobs of executor trigger: sidejob fires internal ones anyway`},
		{"another misfire", []func(*Spec){recurs("0 9 * * *"), misfire("twice", 0)}, `misfire: is "twice"; it is once, skip or all`},
		{"a limit without all", []func(*Spec){recurs("0 9 * * *"), misfire(FireSkip, 5)}, `misfireLimit: is for misfire all`},
		{"a limit without misfire", []func(*Spec){recurs("0 9 * * *"), misfire("", 5)}, `misfireLimit: is for misfire all`},
		{"a negative limit", []func(*Spec){recurs("0 9 * * *"), misfire(FireAll, -1)}, `misfireLimit: is not from 1 to 10000`},
		{"a large limit", []func(*Spec){recurs("0 9 * * *"), misfire(FireAll, 10_001)}, `misfireLimit: is not from 1 to 10000`},
		{"the largest limit", []func(*Spec){recurs("0 9 * * *"), misfire(FireAll, 10_000)}, ``},
		{"the smallest limit", []func(*Spec){recurs("0 9 * * *"), misfire(FireAll, 1)}, ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Spec{Type: "watchChain"}
			for _, edit := range c.edit {
				edit(&s)
			}
			_, _, err := New(s, second(0), "uuid")
			if c.want == "" && err != nil {
				t.Fatalf("got error %v, want none", err)
			}
			if c.want != "" && (err == nil || err.Error() != c.want) {
				t.Fatalf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestNewWarnsOfWhatTriggerDevDoesNotDoWhenItFires(t *testing.T) {
	many := strings.Split(strings.Repeat("a", 1+RemoteLabels), "")
	all := func(s *Spec) {
		s.Data, s.Metadata = json.RawMessage(`{"a":1}`), json.RawMessage(`{"a":1}`)
		s.Labels, s.Retry, s.Misfire = many, &RetryConfig{MinTimeout: 1}, FireOnce
		s.Due = second(0).AddDate(0, 0, 2)
	}
	for _, c := range []struct {
		name string
		edit func(*Spec)
		want []string // how the warnings begin
	}{
		{"nothing said", func(*Spec) {}, nil},
		{"all said", all, []string{"data: Trigger.dev gives the runs", "due: Trigger.dev fires", "labels: Trigger.dev gives", "metadata: Trigger.dev gives", "misfire: Trigger.dev fires", "retryConfig: Trigger.dev gives"}},
		{"data", func(s *Spec) { s.Data = json.RawMessage(`[]`) }, []string{"data:"}},
		{"tries alone", func(s *Spec) { s.Retry = &RetryConfig{MaxAttempts: 2} }, []string{"retryConfig:"}},
		{"due when it fires first anyway", func(s *Spec) { s.Due = second(1) }, nil},
		{"due after it fires first", func(s *Spec) { s.Due = clock("09:00:01") }, []string{"due:"}},
		{"fired here", func(s *Spec) { all(s); s.FireLocally = true }, []string{"retryConfig: only maxAttempts", "labels: a run takes 10 tags"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Spec{Type: "report", Executor: Trigger, TriggerTask: "daily-report", CronSchedule: "0 9 * * *"}
			c.edit(&s)
			_, warnings, err := New(s, second(0), "uuid")
			if err != nil || len(warnings) != len(c.want) {
				t.Fatalf("got warnings %q, error %v, want %q", warnings, err, c.want)
			}
			for i, begin := range c.want {
				if !strings.HasPrefix(warnings[i], begin) {
					t.Errorf("got %q, want a warning that begins %q", warnings[i], begin)
				}
			}
		})
	}
}

func TestResolveOfRecurringJobs(t *testing.T) {
	const waiting, atWork, remote, local, ending, run, asked, later, single = 1, 2, 3, 4, 5, 6, 7, 8, 9
	canceling := after(t, everyMinute(t), claim())
	canceling.CancelRequested = true // its host wrote so
	rows := []Job{
		everyMinute(t), after(t, everyMinute(t), claim()), settled(t), localJob(t), after(t, settled(t), cancel("")),
		*next(t, settled(t), fired("run_1", clock("08:00:00"))).Follow, canceling,
		follower(t, next(t, after(t, everyMinute(t), claim()), complete(`1`))), after(t, internalJob(t), claim()),
	}
	for i := range rows {
		rows[i].ID = int64(i + 1)
	}
	one := func(id int) []Job { return rows[id-1 : id] }
	internal, schedule, plain := everyMinute(t), remoteJob(t), triggerJob(t)
	for _, c := range []struct {
		name        string
		policy      OnConflict
		asks        Job
		open        []Job
		cancel, end []int64
		keep        int64
		taken       bool
	}{
		{"one that waits is canceled", Replace, internal, one(waiting), []int64{waiting}, nil, 0, false},
		{"whichever occurrence it is", Replace, internal, one(later), []int64{later}, nil, 0, false},
		{"a one-time job at work goes on", Replace, internal, one(single), nil, nil, 0, false},
		{"of one at work, that occurrence is the last", Replace, internal, one(atWork), nil, []int64{atWork}, 0, false},
		{"also where the new one is of the other executor", "", schedule, one(atWork), nil, []int64{atWork}, 0, false},
		{"replace all cancels it", ReplaceAll, internal, one(atWork), []int64{atWork}, nil, 0, false},
		{"keep keeps it", Keep, internal, one(atWork), nil, nil, atWork, false},
		{"reject minds it", Reject, internal, one(atWork), nil, nil, 0, true},
		{"a schedule is canceled", Replace, schedule, rows[remote-1 : local], []int64{remote, local}, nil, 0, false},
		{"a schedule is kept", Keep, schedule, one(remote), nil, nil, remote, false},
		{"the run of a schedule is no pending job", Replace, internal, one(run), nil, nil, 0, false},
		{"nor kept", Keep, internal, one(run), nil, nil, 0, false},
		{"nor minded", Reject, internal, one(run), nil, nil, 0, false},
		{"but replace all cancels it", ReplaceAll, internal, one(run), []int64{run}, nil, 0, false},
		{"a schedule that is to be deleted is carried over", Replace, schedule, one(ending), []int64{ending}, nil, 0, false},
		{"whatever the policy", Reject, schedule, one(ending), []int64{ending}, nil, 0, false},
		{"but not by another kind of job", Replace, internal, one(ending), nil, nil, 0, false},
		{"nor by a run", Replace, plain, one(ending), nil, nil, 0, false},
		{"nor by a schedule fired here", Replace, localJob(t), one(ending), nil, nil, 0, false},
		{"one whose host cancels an occurrence ends as well", Replace, internal, one(asked), []int64{asked}, nil, 0, false},
		{"and does not count", Keep, internal, one(asked), []int64{asked}, nil, 0, false},
		{"beside leaves all alone", Beside, internal, rows, nil, nil, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := Resolve(c.policy, c.asks, c.open)
			if errors.Is(err, ErrTagTaken) != c.taken {
				t.Errorf("got error %v, want it to be taken: %v", err, c.taken)
			}
			equal(t, "canceled", ids(found.Cancel), c.cancel)
			equal(t, "ended", ids(found.End), c.end)
			kept := int64(0)
			if found.Keep != nil {
				kept = found.Keep.ID
			}
			equal(t, "kept", kept, c.keep)
		})
	}
}

func ids(jobs []Job) (ids []int64) {
	for _, j := range jobs {
		ids = append(ids, j.ID)
	}
	return ids
}
