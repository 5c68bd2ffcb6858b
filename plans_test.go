package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"sidejob/internal/job"
)

// quarterOfJobs are statements of PostgreSQL that make as many jobs as a busy host has
// after ninety days that removed nothing: one in fifty is open, of the others one in
// fifty failed or was canceled, all of them long ago; and what stands beside them.
func quarterOfJobs(many int) []string {
	return []string{strings.ReplaceAll(`
		INSERT INTO worker_jobs (id, tag, type, user_id, data, due, started, finished, remove_at, success, result, cron_schedule,
			rescheduled_from_job, persistent, created_at, updated_at, executor, trigger_run_id, trigger_status, trigger_schedule_id,
			cancel_requested, last_synced_at, trigger_task_id, trigger_raw_status, name, labels, idempotency_key,
			lease_token, lease_owner, lease_expires_at, sent_at, next_try_at, confirmed_at, missed_at, schedule_row, schedule_settled, fire_locally)
		SELECT n, 'tag-' || CASE WHEN n % 20 = 0 THEN 'busy' ELSE (n / 3)::text END,
			CASE WHEN n % 50000 = 49999 THEN 'rare' WHEN n BETWEEN 1000 AND 11000 THEN 'retired' ELSE 'type-' || n % 41 END,
			CASE WHEN n % 3 = 0 THEN 0 WHEN n BETWEEN 1000 AND 11000 THEN 77777 ELSE n::bigint * 7919 % 5000 END,
			'{"orderId":7}', created + CASE WHEN open AND early THEN interval '120 days' ELSE interval '0' END,
			CASE WHEN NOT open THEN created + interval '1 second' END,
			CASE WHEN NOT open THEN created + interval '5 seconds' END,
			CASE WHEN open THEN NULL WHEN n < 3000 THEN created + interval '1 hour' ELSE created + interval '1 year' END,
			CASE WHEN NOT open THEN good END,
			CASE WHEN NOT open THEN '{"ok":true}'::json END,
			CASE WHEN recurs AND (internal OR n <= 200) THEN '0 * * * *' END,
			CASE WHEN recurs AND n > 200 THEN (n - 1) % 200 + 1 END,
			n % 5000 = 17, created, created + interval '5 seconds',
			CASE WHEN internal THEN 'internal' ELSE 'trigger' END,
			CASE WHEN NOT internal AND sent THEN 'run_' || n END,
			CASE WHEN internal OR NOT sent THEN NULL WHEN open AND n % 2 = 0 THEN 'EXECUTING' WHEN open THEN 'PENDING'
				WHEN good THEN 'COMPLETED' WHEN n % 2 = 0 THEN 'FAILED' ELSE 'CANCELED' END,
			CASE WHEN NOT internal AND recurs AND n <= 200 THEN 'sched_' || n END,
			internal AND NOT open AND NOT good AND n % 2 = 1 OR open AND n % 331 = 0, created + interval '4 seconds',
			CASE WHEN NOT internal THEN 'task' END, CASE WHEN NOT internal AND sent THEN 'QUEUED' END,
			CASE WHEN n % 2 = 0 THEN 'name-' || n % 26 WHEN n BETWEEN 2000 AND 2050 THEN 'rare' END,
			CASE WHEN n BETWEEN 5000 AND 5020 THEN '["rare"]' WHEN n % 4 = 0 THEN '["eu","customer-' || n % 1003 || '"]' ELSE '[]' END::json,
			'job-' || n, CASE WHEN held THEN 'token-' || n END, CASE WHEN held THEN 'worker' END,
			CASE WHEN held THEN now() + (n % 60 - 5) * interval '1 second' END,
			CASE WHEN NOT internal AND sent THEN created END, CASE WHEN open AND n % 11 = 0 THEN now() + n % 100 * interval '1 second' ELSE 'epoch' END,
			CASE WHEN NOT internal AND NOT open AND n % 5003 <> 0 THEN created + interval '6 seconds' END,
			CASE WHEN recurs AND n <= 200 AND n % 23 = 0 THEN now() END,
			CASE WHEN recurs AND n > 200 THEN (n - 1) % 200 + 1 END, n % 2 = 0, false
		FROM (
			SELECT n, n > @MANY * 0.99 OR early OR recurs AND n <= 200 AS open, early, internal, recurs, good,
				n > 200 AND NOT (n % 401 = 0 AND (n > @MANY * 0.99 OR early)) AS sent,
				internal AND n > @MANY * 0.99 AND n % 9 = 0 AS held,
				now() - (@MANY - n) * (interval '90 days' / @MANY) AS created
			FROM (
				SELECT n, n % 101 = 50 AND n > 200 AS early, n % 5 < 2 AS internal, n % 7 = 3 AND n % 101 <> 50 AND n < @MANY * 0.99 OR n <= 200 AS recurs,
					NOT (n % 53 = 3 AND n < @MANY * 0.6) AS good
				FROM generate_series(1, @MANY) AS n) AS a) AS b`, "@MANY", fmt.Sprint(many)),
		"SELECT setval(pg_get_serial_sequence('worker_jobs', 'id'), (SELECT MAX(id) FROM worker_jobs))",
		`INSERT INTO job_events (job_id, at, kind, source, from_state, to_state)
			SELECT id, created_at, 'created', 'api', NULL, 'waiting' FROM worker_jobs`,
		fmt.Sprintf(`INSERT INTO inbox (event_id, run_id, received_at, matched, event)
			SELECT 'event-' || n, 'run_' || n, now() - n * interval '2 seconds', n %% 500 > 0, CASE WHEN n %% 500 = 0 AND n < 40000 THEN '{}' END
			FROM generate_series(1, %d) AS n`, many*3/10),
		fmt.Sprintf(`INSERT INTO replies (scope, digest, owner, at, status)
			SELECT 'POST /api/jobs key-' || n, 'digest', 'owner', now() - n * interval '0.87 seconds', 201
			FROM generate_series(1, %d) AS n`, many/10),
	}
}

// storeCall is something that the store is asked to do, and how much it may read for
// it: blocks of 8 kB on PostgreSQL.
type storeCall struct {
	name string
	most int64
	do   func() error
	// walks says that SQLite goes through jobs in their order until a page is full, or
	// counts most of them.
	walks bool
}

// What a call may read of the quarter's jobs.
const (
	aPage         = 1_100  // of any list, some looked at in vain
	theUnfinished = 12_000 // a fiftieth of the jobs
	theFailed     = 6_500  // or canceled: some of what ended
	theCounted    = 5_000  // an index, and none of the rows
	thePeriod     = 10_000 // the jobs of one type
	everything    = 40_000
)

// storeCalls are calls for each statement of the store with values as they come in.
func storeCalls(s storeTest, at time.Time) []storeCall {
	ctx := s.Context()
	change := func(fn func(context.Context, *changeset) error) func() error {
		return func() error { return s.Store.(*sqlStore).change(ctx, fn) }
	}
	calls := []storeCall{
		{name: "get", most: aPage, do: func() error { _, err := s.Get(ctx, 990_002); return err }},
		{name: "find run", most: aPage, do: func() error { _, err := s.FindRun(ctx, "run_990002"); return err }},
		{name: "history", most: aPage, do: func() error { _, err := s.History(ctx, 990_002); return err }},
		{name: "owed", most: aPage, do: func() error { _, _, err := s.Owed(ctx, at, 100); return err }},
		{name: "unsent", most: theUnfinished, do: func() error { _, err := s.Unsent(ctx); return err }},
		{name: "asked", most: aPage, do: func() error { _, err := s.Asked(ctx, 0, 500, false); return err }},
		{name: "asked, later", most: aPage, do: func() error { _, err := s.Asked(ctx, 900_000, 500, true); return err }},
		{name: "leases", most: aPage, do: func() error { _, _, err := s.Leases(ctx, at, ""); return err }},
		{name: "ripe", most: aPage, do: func() error { _, _, err := s.Ripe(ctx, at, 100); return err }},
		{name: "schedules", most: aPage, do: func() error { _, err := s.Schedules(ctx); return err }},
		{name: "missed", most: aPage, do: func() error { _, err := s.MissedRecurring(ctx, 20); return err }},
		{name: "leases of one sidejob", most: aPage, do: func() error { _, _, err := s.Leases(ctx, at, "me"); return err }},
		{name: "signs for the doctor", most: theUnfinished, do: func() error { _, err := s.Store.(*sqlStore).signs(ctx, at); return err }},
		{name: "stats", most: theUnfinished, do: func() error { _, err := s.Stats(ctx, at); return err }},
		{name: "remove", most: aPage, do: func() error { _, err := s.Remove(ctx, at, []int64{300}, 100); return err }},
		{name: "trim", most: aPage, do: change(func(ctx context.Context, c *changeset) error { return c.trim(ctx, 8) })},
		{name: "trim what has nothing", most: aPage, do: change(func(ctx context.Context, c *changeset) error { return c.trim(ctx, 999_999) })},
		{name: "a run of a schedule", most: aPage, do: change(func(ctx context.Context, c *changeset) error {
			_, err := c.hasOccurrence(ctx, job.Job{Executor: job.Trigger, ScheduleRow: 198, RescheduledFrom: 198, RunID: "run_none", Due: at})
			return err
		})},
		{name: "hear of a run", most: aPage, do: func() error { return hearOf(s, "run_990002") }},
		{name: "hear of no run", most: aPage, do: func() error { return hearOf(s, "run_none") }},
		{name: "keep what the inbox has", most: aPage, do: change(func(ctx context.Context, c *changeset) error {
			return c.applyKept(ctx, job.Job{ID: 990_002, RunID: "run_none"})
		})},
		{name: "reply", most: aPage, do: func() error {
			_, err := s.Reserve(ctx, Reservation{Key: "POST /api/jobs key-7", Digest: "digest", Owner: "me", At: at})
			return errors.Join(err, s.Keep(ctx, Keyed{"POST /api/jobs key-8", "owner"}, Reply{Status: 201}))
		}},
		{name: "schedule", most: aPage, do: func() error { return askFor(s, "new") }},
		{name: "schedule what is there", most: aPage, do: func() error { return askFor(s, "tag-333001") }},
		{name: "claim one", most: aPage, do: func() error {
			_, err := s.Claim(ctx, Claim{ID: 999_995, At: at, Lease: job.Lease{Token: "t", Owner: "w", For: time.Minute}})
			return allowed(err, job.ErrRefused)
		}},
	}
	for _, id := range []int64{1, 8, 198, 408, 500_007, 9_999_999} {
		calls = append(calls, storeCall{name: fmt.Sprint("recurring row ", id), most: aPage, do: func() error {
			_, err := s.RecurringRow(ctx, id)
			return allowed(err, ErrNotFound)
		}})
	}
	for _, c := range []Claim{{}, {Types: []string{"type-7", "rare", "type-5"}}, {NotTypes: []string{"type-7", "removeOldWorkerJobs"}}} {
		c.At, c.Limit, c.Lease = at, 10, job.Lease{Token: "t", Owner: "w", For: time.Minute}
		name := fmt.Sprint(" of types ", c.Types, " but ", c.NotTypes)
		calls = append(calls,
			storeCall{name: "claim" + name, most: aPage, do: func() error { _, err := s.Claim(ctx, c); return err }},
			// Those of other types that wait for a back-off are read too.
			storeCall{name: "next" + name, most: theUnfinished, do: func() error { _, err := s.NextClaimable(ctx, c); return err }})
	}
	return append(calls, listCalls(s, at)...)
}

func allowed(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

func hearOf(s storeTest, run string) error {
	ev := job.Event{Kind: job.Told, At: now(), Source: "event", Run: job.Run{ID: run, Raw: "EXECUTING"}}
	_, err := s.Hear(s.Context(), Heard{EventIDs: []string{uuid.NewString()}, Event: ev})
	return err
}

func askFor(s storeTest, tag string) error {
	_, err := s.Schedule(s.Context(), []Order{{Job: s.newJob(job.Internal, tag), OnConflict: job.Keep, Source: "test"}}, Keyed{})
	return err
}

// listing is a filter, and what its first page in the one order and in the other, and
// its count, may read. 0: by due the list is read off the filter's own index, or on
// until the page is full; see the README's limits.
type listing struct {
	name             string
	f                Filter
	page, due, count int64
}

func listings(at time.Time) []listing {
	yes, no := true, false
	user := func(n int64) *int64 { return &n }
	long := at.Add(-60 * 24 * time.Hour)
	return []listing{
		{"all", Filter{}, aPage, aPage, theCounted},
		{"internal", Filter{Executor: job.Internal}, aPage, aPage, theCounted},
		{"trigger", Filter{Executor: job.Trigger}, aPage, aPage, theCounted},
		{"pending", Filter{Status: job.Pending}, aPage, aPage, theUnfinished},
		{"executing", Filter{Status: job.Executing}, aPage, theUnfinished, theUnfinished},
		{"completed", Filter{Status: job.Completed}, aPage, aPage, theCounted},
		{"failed", Filter{Status: job.Failed}, aPage, theFailed, theFailed},
		{"canceled", Filter{Status: job.Canceled}, aPage, theFailed, theFailed},
		{"without success", Filter{Success: &no}, aPage, 2 * theFailed, 2 * theFailed},
		{"with success", Filter{Success: &yes}, aPage, aPage, theCounted},
		{"finished", Filter{Finished: &yes}, aPage, aPage, theCounted},
		{"unfinished", Filter{Finished: &no}, aPage, aPage, theUnfinished},
		{"type", Filter{Type: "type-7"}, aPage, aPage, theCounted},
		{"rare type", Filter{Type: "rare"}, aPage, aPage, theCounted},
		{"retired type", Filter{Type: "retired"}, aPage, 0, theCounted},
		{"no type", Filter{Type: "none"}, aPage, aPage, theCounted},
		{"tag", Filter{Tag: "tag-77777"}, aPage, aPage, aPage},
		{"busy tag", Filter{Tag: "tag-busy"}, aPage, 0, theCounted},
		{"no tag", Filter{Tag: "none"}, aPage, aPage, aPage},
		{"name", Filter{Name: "name-4"}, aPage, aPage, theCounted},
		{"rare name", Filter{Name: "rare"}, aPage, aPage, theCounted},
		{"no name", Filter{Name: "none"}, aPage, aPage, theCounted},
		{"user 0", Filter{UserID: user(0)}, aPage, aPage, theCounted},
		{"user", Filter{UserID: user(77)}, aPage, aPage, theCounted},
		{"user of long ago", Filter{UserID: user(77777)}, aPage, 0, theCounted},
		{"no user", Filter{UserID: user(99999)}, aPage, aPage, theCounted},
		{"recurring", Filter{Recurring: &yes}, aPage, aPage, theCounted},
		{"not recurring", Filter{Recurring: &no}, aPage, aPage, everything},
		{"schedule", Filter{ScheduleID: 8}, aPage, aPage, aPage},
		{"schedule on Trigger.dev", Filter{ScheduleID: 198}, aPage, aPage, aPage},
		{"no schedule", Filter{ScheduleID: 999_999}, aPage, aPage, aPage},
		{"label", Filter{Label: "eu"}, aPage, aPage, everything},
		{"label of a few", Filter{Label: "customer-9"}, everything, 0, aPage}, // by what ANALYZE happened to sample
		{"label of very few", Filter{Label: "rare"}, aPage, aPage, aPage},
		{"no label", Filter{Label: "none"}, aPage, aPage, aPage},
		{"since an hour", Filter{CreatedAfter: at.Add(-time.Hour)}, aPage, aPage, aPage},
		{"since long", Filter{CreatedAfter: long}, aPage, 0, theCounted},
		{"before an hour", Filter{CreatedBefore: at.Add(-time.Hour)}, aPage, aPage, theCounted},
		{"before long", Filter{CreatedBefore: long}, aPage, 0, theCounted},
		{"a day", Filter{CreatedAfter: long, CreatedBefore: long.Add(24 * time.Hour)}, aPage, 0, theCounted},

		{"executing on Trigger.dev", Filter{Executor: job.Trigger, Status: job.Executing}, aPage, theUnfinished, theUnfinished},
		{"failed internal", Filter{Executor: job.Internal, Status: job.Failed}, aPage, theFailed, theFailed},
		{"failed on Trigger.dev", Filter{Executor: job.Trigger, Status: job.Failed}, aPage, theFailed, theFailed},
		{"failed of a type", Filter{Status: job.Failed, Type: "type-7"}, theFailed, theFailed, theFailed},
		{"failed of a name", Filter{Status: job.Failed, Name: "name-4"}, theFailed, theFailed, theFailed},
		{"failed in a day", Filter{Status: job.Failed, CreatedAfter: at.Add(-24 * time.Hour)}, theFailed, theFailed, theFailed},
		{"failed of a schedule", Filter{Status: job.Failed, ScheduleID: 8}, theFailed, theFailed, theFailed},
		{"pending of a type", Filter{Status: job.Pending, Type: "type-7"}, theUnfinished, theUnfinished, theUnfinished},
		{"pending of a user", Filter{Status: job.Pending, UserID: user(77)}, aPage, aPage, aPage},
		{"unfinished of a tag", Filter{Finished: &no, Tag: "tag-busy"}, theUnfinished, theUnfinished, theUnfinished},
		{"unfinished with a label", Filter{Finished: &no, Label: "customer-9"}, theUnfinished, theUnfinished, theUnfinished},
		{"recurring that go on", Filter{Recurring: &yes, Finished: &no}, theUnfinished, theUnfinished, theUnfinished},
		{"a type of a user", Filter{Type: "type-7", UserID: user(77)}, aPage, aPage, aPage},
		{"a type before long", Filter{Type: "type-7", CreatedBefore: long}, theFailed, 0, thePeriod},
	}
}

// listCalls are two pages of each list in both orders, one from the middle of the
// quarter, and the count.
func listCalls(s storeTest, at time.Time) (calls []storeCall) {
	middle := at.Add(-59 * 24 * time.Hour).UnixMicro()
	for _, l := range listings(at) {
		l.f.Limit = 50
		calls = append(calls, storeCall{"count " + l.name, l.count, func() error { _, err := s.Count(s.Context(), l.f); return err }, !l.f.selective()})
		for order, most := range map[string]int64{"": l.page, ", by due": l.due} {
			f := l.f
			f.ByDue = order != ""
			later := f
			later.Cursor = Cursor{ID: 340_000}
			if f.ByDue {
				later.Cursor.Due = middle
			}
			if f.byCreated() {
				later.Cursor.Created = middle
			}
			if most == 0 {
				most = everything
			}
			walks := !f.selective() || f.ByDue && !f.unfinished()
			calls = append(calls,
				storeCall{"list " + l.name + order, most, func() error { return twoPages(s, f) }, walks},
				storeCall{"list on " + l.name + order, max(most, laterPage(l, f)), func() error { _, err := s.List(s.Context(), later); return err }, walks})
		}
	}
	return calls
}

// selective tells a filter that leaves most jobs out.
func (f Filter) selective() bool {
	is := func(b *bool, rare bool) bool { return b != nil && *b == rare }
	return f.Executor != "" || f.Type+f.Tag+f.Name+f.Label != "" || f.UserID != nil || f.ScheduleID != 0 ||
		f.Status != "" && f.Status != job.Completed || is(f.Finished, false) || is(f.Success, false) || is(f.Recurring, true)
}

func (f Filter) unfinished() bool {
	return f.Finished != nil && !*f.Finished || f.Status == job.Pending || f.Status == job.Executing
}

// laterPage is what a page by due may read that begins behind all jobs of a kind which
// are old: it looks through the younger ones.
func laterPage(l listing, f Filter) int64 {
	if f.ByDue && (f.Type != "" || f.UserID != nil || !f.CreatedBefore.IsZero()) {
		return everything
	}
	return l.page
}

func twoPages(s storeTest, f Filter) error {
	page, err := s.List(s.Context(), f)
	if err != nil || page.Next == (Cursor{}) {
		return err
	}
	f.Cursor = page.Next
	_, err = s.List(s.Context(), f)
	return err
}
