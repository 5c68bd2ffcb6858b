package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// scheduleReply is a recurring job of Trigger.dev.
func scheduleReply(change map[string]any) reply {
	own := map[string]any{"cronSchedule": "0 * * * *", "triggerScheduleId": "sched_1", "triggerRunId": nil, "triggerRawStatus": nil, "due": "2026-03-01T10:00:00.000Z"}
	for name, value := range change {
		own[name] = value
	}
	return jobReply(200, own)
}

func TestWhyTellsTheStoryOfASchedule(t *testing.T) {
	s := storyOf(t, scheduleReply(map[string]any{"status": "CANCELED", "finished": "2026-03-01T14:00:00.000Z", "cancelRequested": true, "result": map[string]any{"canceled": true}}),
		line("09:00:00.000", "created", "api", "", "scheduling", `{}`),
		line("09:00:01.000", "unreached", "schedule", "scheduling", "scheduling", `{"error":"POST: 503","nextTry":"2026-03-01T09:00:02.000Z"}`),
		line("09:00:02.000", "scheduled", "schedule", "scheduling", "scheduled", `{"schedule":"sched_1"}`),
		line("10:03:02.000", "drifted", "reconcile", "scheduled", "scheduling", `{"reason":"it is inactive instead of active"}`),
		line("10:03:03.000", "missed", "schedule", "scheduling", "scheduling", `{"nominal":"2026-03-01T10:00:00.000Z"}`),
		line("11:00:00.000", "unscheduled", "reconcile", "scheduled", "scheduling", `{}`),
		line("12:00:00.000", "pause", "api", "scheduled", "scheduling", `{}`),
		line("12:00:01.000", "scheduled", "schedule", "scheduling", "paused", `{"schedule":"sched_2"}`),
		line("13:00:00.000", "resume", "api", "paused", "scheduling", `{}`),
		line("13:00:01.000", "scheduled", "schedule", "scheduling", "scheduling", `{"schedule":"sched_2"}`),
		line("13:30:00.000", "end", "api", "scheduled", "ending", `{}`),
		line("14:00:00.000", "unscheduled", "schedule", "ending", "canceled", `{}`),
	)
	var got strings.Builder
	if err := s.write(&got, instantOf(t, "2026-03-01T15:00:00Z")); err != nil {
		t.Fatal(err)
	}
	want := `Job 7: send-email, tag welcome-42, of user 42, for Trigger.dev, recurring: 0 * * * * (UTC)

2026-03-01T09:00:00.000Z  It was scheduled through the API, due 1h00m later at 2026-03-01T10:00:00.000Z.
2026-03-01T09:00:01.000Z  Setting its schedule on Trigger.dev did not work: POST: 503; next try at 2026-03-01T09:00:02.000Z.
2026-03-01T09:00:02.000Z  Trigger.dev has its schedule sched_1, as it was asked for.
2026-03-01T10:03:02.000Z  On Trigger.dev its schedule was found otherwise: it is inactive instead of active; it is to be set right.
2026-03-01T10:03:03.000Z  Trigger.dev should have fired it at 2026-03-01T10:00:00.000Z and did not.
2026-03-01T11:00:00.000Z  Its schedule was found to be gone from Trigger.dev; it is to be made again.
2026-03-01T12:00:00.000Z  It was paused through the API.
2026-03-01T12:00:01.000Z  Trigger.dev has its schedule sched_2, which rests.
2026-03-01T13:00:00.000Z  It was resumed through the API.
2026-03-01T13:00:01.000Z  Trigger.dev has its schedule sched_2; it was changed meanwhile, which is yet to be told there.
2026-03-01T13:30:00.000Z  Its recurring was ended through the API; its schedule is to be deleted on Trigger.dev.
2026-03-01T14:00:00.000Z  Its schedule is deleted on Trigger.dev; that ended it.

It ended CANCELED at 2026-03-01T14:00:00.000Z.
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("the story differs (-want +got):\n%s", diff)
	}
}

func TestWhySaysWhereARecurringJobStands(t *testing.T) {
	in := func(state string) string {
		return line("09:00:00.000", "scheduled", "schedule", "scheduling", state, `{}`)
	}
	for _, c := range []struct {
		name string
		row  reply
		line string
		want string
	}{
		{"scheduled", scheduleReply(nil), in("scheduled"), "Its schedule sched_1 on Trigger.dev fires next 2026-03-01T10:00:00.000Z (in 55m00s); every run of it is a job of its own."},
		{"to be made", scheduleReply(map[string]any{"triggerScheduleId": nil}), in("scheduling"), "Its schedule is yet to be made on Trigger.dev as it was asked for."},
		{"to be changed", scheduleReply(nil), in("scheduling"), "Its schedule is yet to be made on Trigger.dev as it was asked for."},
		{"fired by sidejob", scheduleReply(map[string]any{"triggerScheduleId": nil}), in("scheduled"), "sidejob fires it next 2026-03-01T10:00:00.000Z (in 55m00s); every run of it is a job of its own."},
		{"paused", scheduleReply(map[string]any{"paused": true}), in("paused"), "It is paused: nothing fires until it is resumed."},
		{"to be canceled", scheduleReply(map[string]any{"cancelRequested": true}), in("ending"),
			"Its schedule sched_1 is still on Trigger.dev.\nIt is to be canceled; it ends when its schedule is deleted on Trigger.dev."},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(storyOf(t, c.row, c.line).ending(instantOf(t, "2026-03-01T09:05:00Z")), "\n")
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestWhySaysWhichScheduleFiredAJob(t *testing.T) {
	s := storyOf(t, jobReply(200, map[string]any{"triggerScheduleId": "sched_1"}), line("09:00:01.000", "created", "schedule", "", "queued", `{"rescheduledFromJob":5}`))
	want := "The schedule of job 5 fired it on Trigger.dev, for 2026-03-01T09:00:00.000Z."
	if got := s.lines[0].sentence(s.job); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
