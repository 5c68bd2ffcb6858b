package job

import (
	"testing"
	"time"
)

// A schedule that Trigger.dev makes a moment after its first nominal time fires at the
// next one, and has missed nothing. One that was to be made long ago has.
func TestAScheduleMadeAMomentTooLateHasMissedNothing(t *testing.T) {
	due := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		late  time.Duration
		known bool // it has stood before
		want  time.Time
	}{
		{"early", -time.Second, false, due},
		{"at that very time", 0, false, due.Add(time.Hour)},
		{"a moment later", time.Second, false, due.Add(time.Hour)},
		{"much later", 2 * time.Hour, false, due},
		{"again", time.Second, true, due},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := Job{ID: 1, Executor: Trigger, CronSchedule: "0 * * * *", Timezone: "UTC", Due: due, SentAt: due.Add(-time.Hour)}
			if c.known {
				j.LastSynced = due.Add(-time.Hour)
			}
			step, err := Next(j, Event{Kind: Scheduled, At: due.Add(c.late), ScheduleID: "sched_1", Active: true})
			if err != nil || !step.Job.Due.Equal(c.want) {
				t.Errorf("due %s, %v; want %s", step.Job.Due, err, c.want)
			}
		})
	}
}
