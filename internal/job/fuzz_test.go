package job

import (
	"encoding/json"
	"errors"
	"math"
	"testing"
	"time"
)

// FuzzNext holds Next to its word for rows and events that no rule of this package
// made, such as a host writes with SQL of its own.
func FuzzNext(f *testing.F) {
	kinds := append(requests(), newsKinds()...)
	for i, kind := range append(kinds, "", "explode") {
		for _, executor := range []Executor{Internal, Trigger, "", "cloud"} {
			f.Add(string(kind), string(executor), "COMPLETED", []byte(`{"a":1}`), uint32(i)*0x9e3779b9, int64(i))
			f.Add(string(kind), string(executor), "\xff", []byte(`{`), uint32(math.MaxUint32), int64(math.MinInt64))
			f.Add(string(kind), string(executor), "", []byte(nil), uint32(0), int64(math.MaxInt64))
			for _, recurs := range []uint32{1 << 22, 1 << 23} {
				for misfire := range uint32(8) { // … and whether it is fired here
					f.Add(string(kind), string(executor), "0 0 30 2 *", []byte(nil), recurs|misfire<<24, int64(-62_135_596_800_000))
					f.Add(string(kind), string(executor), "0 0 29 2 *", []byte(nil), recurs|misfire<<24, int64(1_772_000_000_000))
					f.Add(string(kind), string(executor), "UTC", []byte(nil), recurs|misfire<<24|1, int64(253_402_300_799_000))
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, kind, executor, raw string, text []byte, bits uint32, n int64) {
		j, ev := wildJob(Executor(executor), raw, text, bits, n), wildEvent(Kind(kind), raw, text, bits, n)
		step, err := Next(j, ev)
		if _, known := statuses()[step.Job.State()]; !known {
			t.Errorf("state: got %q, want one of the known ones", step.Job.State())
		}
		if err != nil && (step.Changed || step.Follow != nil) {
			t.Errorf("got changed %v, follow %v with error %v, want neither", step.Changed, step.Follow, err)
		}
		if unknown := !isNews(ev.Kind) && !isRequest(ev.Kind); unknown != (err != nil && !errors.Is(err, ErrRefused)) {
			t.Errorf("%q: got error %v, want one that is no refusal only for an unknown kind", kind, err)
		}
		if err != nil && err.Error() == "" {
			t.Error("got an error without a text")
		}
		if step.Job.RunID != j.RunID && j.RunID != "" {
			t.Errorf("run: got %q, want %q", step.Job.RunID, j.RunID)
		}
	})
}

func isRequest(kind Kind) bool {
	for _, k := range requests() {
		if k == kind {
			return true
		}
	}
	return false
}

// wildJob sets columns as the bits say, whether they fit together or not.
func wildJob(executor Executor, raw string, text []byte, bits uint32, n int64) Job {
	on := func(bit int) bool { return bits>>bit&1 == 1 }
	when := func(bit int) time.Time {
		if on(bit) {
			return time.UnixMilli(n)
		}
		return time.Time{}
	}
	j := Job{
		ID: n, Tag: raw, Type: raw, Data: text, Metadata: text, Executor: executor,
		Due: when(0), Started: when(1), Finished: when(2), Confirmed: when(3), Orphaned: when(4), SentAt: when(5),
		NextTry: when(6), MissingSince: when(7), LeaseExpires: when(8),
		CancelRequested: on(9), AutoReschedule: on(10), RemoveDelay: time.Duration(n), AutoRescheduleWait: time.Duration(n),
		LeaseFor: time.Duration(n), Attempt: int(n), MissingCount: int(n), Tries: int(n), TriggerStatus: Status(raw),
	}
	if on(11) {
		j.RunID = "run_1"
	}
	if on(12) {
		j.LeaseToken = token
	}
	if on(13) {
		j.Retry = &RetryConfig{MaxAttempts: int(n), MinTimeout: n, MaxTimeout: -n, Factor: float64(n), Randomize: on(15)}
	}
	if on(22) {
		j.CronSchedule, j.Timezone = "* * * * * *", "Europe/Rome"
	}
	if on(23) {
		j.CronSchedule, j.Timezone = raw, raw
	}
	j.Misfire, j.MisfireLimit = []Misfire{"", FireOnce, FireSkip, FireAll}[bits>>24&3], int(n)
	j.FireLocally, j.Paused, j.LastOccurrence, j.ScheduleSettled = on(26), on(27), on(28), on(29)
	j.ScheduleRow, j.Missed = n, when(30)
	if on(14) {
		success := on(16)
		j.Success = &success
	}
	return j
}

func wildEvent(kind Kind, raw string, text []byte, bits uint32, n int64) Event {
	on := func(bit int) bool { return bits>>bit&1 == 1 }
	ev := Event{
		Kind: kind, At: time.UnixMilli(n), Reason: raw, Result: text, Random: float64(n), Err: raw,
		Details: json.RawMessage(text), InDoubt: on(17), KeyProved: on(18), NextTry: time.UnixMilli(-n),
		Replaced: on(22), CarriedOver: on(24), Active: on(25), ScheduleID: raw, Nominal: time.UnixMilli(n),
		Run: Run{Raw: raw, Output: text, Error: text, Attempts: int(n), Started: time.UnixMilli(n)},
	}
	if on(19) {
		ev.Run.ID = "run_1"
	}
	if on(20) {
		ev.Lease = Lease{Token: token, For: time.Duration(n)}
	}
	if on(21) {
		ev.Details = math.NaN()
	}
	return ev
}
