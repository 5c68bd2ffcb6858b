package main

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"sidejob/internal/job"
)

// column ties a column of worker_jobs to the member of a Job that it holds. value
// both scans and binds.
type column struct {
	name  string
	value any
	fixed bool // written once, with the row
}

// columns is the one list of the columns of worker_jobs, in the schema's order.
func columns(j *job.Job, d dialect) []column {
	all := []column{
		{"id", &j.ID, true},
		{"tag", filled[string]{&j.Tag}, true},
		{"type", filled[string]{&j.Type}, true},
		{"user_id", numberColumn{&j.UserID, "userId", d.host["user_id"]}, true},
		{"data", jsonColumn{&j.Data}, true},
		{"due", d.timeColumn(&j.Due), false},
		{"started", d.timeColumn(&j.Started), false},
		{"finished", d.timeColumn(&j.Finished), false},
		{"remove_at", d.hostTime("remove_at", &j.RemoveAt), false},
		{"success", boolColumn{&j.Success}, false},
		{"result", jsonColumn{&j.Result}, false},
		{"cron_schedule", textColumn[string]{&j.CronSchedule}, true},
		{"auto_reschedule_on_failure", filled[bool]{&j.AutoReschedule}, true},
		{"auto_reschedule_on_failure_delay", delayColumn{&j.AutoRescheduleWait, d.host["auto_reschedule_on_failure_delay"]}, true},
		{"remove_delay", delayColumn{&j.RemoveDelay, d.host["remove_delay"]}, true},
		{"rescheduled_from_job", intColumn{&j.RescheduledFrom}, true},
		{"persistent", filled[bool]{&j.Persistent}, true},
		{"created_at", d.timeColumn(&j.Created), true},
		{"updated_at", d.timeColumn(&j.Updated), false},

		{"executor", textColumn[job.Executor]{&j.Executor}, true},
		{"trigger_run_id", textColumn[string]{&j.RunID}, false},
		{"trigger_attempt_id", textColumn[string]{&j.AttemptID}, false},
		{"trigger_status", textColumn[job.Status]{&j.TriggerStatus}, false},
		{"trigger_schedule_id", textColumn[string]{&j.ScheduleID}, false},
		{"cancel_requested", filled[bool]{&j.CancelRequested}, false},
		{"last_synced_at", d.timeColumn(&j.LastSynced), false},

		{"trigger_task_id", textColumn[string]{&j.TriggerTask}, false},
		{"trigger_raw_status", textColumn[string]{&j.RawStatus}, false},
		{"trigger_environment", textColumn[string]{&j.Environment}, false},
		{"name", textColumn[string]{&j.Name}, true},
		{"timezone", &j.Timezone, true},
		{"retry_config", retryColumn{&j.Retry}, true},
		{"attempt", &j.Attempt, false},
		{"paused", &j.Paused, false},
		{"metadata", jsonColumn{&j.Metadata}, true},
		{"labels", labelsColumn{&j.Labels}, true},
		{"error", textColumn[string]{&j.Error}, false},
		{"idempotency_key", textColumn[string]{&j.IdempotencyKey}, false},

		{"lease_token", textColumn[string]{&j.LeaseToken}, false},
		{"lease_owner", textColumn[string]{&j.LeaseOwner}, false},
		{"lease_expires_at", d.timeColumn(&j.LeaseExpires), false},
		{"lease_ms", durationColumn{&j.LeaseFor}, false},
		{"sent_at", d.timeColumn(&j.SentAt), false},
		{"tries", &j.Tries, false},
		{"next_try_at", d.sinceEpoch(&j.NextTry), false},
		{"cancel_reason", textColumn[string]{&j.CancelReason}, false},
		{"confirmed_at", d.timeColumn(&j.Confirmed), false},
		{"missing_count", &j.MissingCount, false},
		{"missing_since", d.timeColumn(&j.MissingSince), false},
		{"orphaned_at", d.timeColumn(&j.Orphaned), false},

		{"misfire", textColumn[job.Misfire]{&j.Misfire}, true},
		{"misfire_limit", smallColumn{&j.MisfireLimit}, true},
		{"fire_locally", &j.FireLocally, true},
		{"schedule_row", intColumn{&j.ScheduleRow}, true},
		{"last_occurrence", &j.LastOccurrence, false},
		{"missed_at", d.timeColumn(&j.Missed), false},
		{"schedule_settled", &j.ScheduleSettled, false},
	}
	for _, name := range d.wideNames() {
		delay := map[string]*time.Duration{"auto_reschedule_on_failure_delay_ms": &j.AutoRescheduleWait, "remove_delay_ms": &j.RemoveDelay}[name]
		all = append(all, column{name, wideColumn{delay}, true})
	}
	return all
}

// columnNames are those that the dialect's table has.
func (d dialect) columnNames() []string {
	cols := columns(&job.Job{}, d)
	names := make([]string, len(cols))
	for i, c := range cols {
		names[i] = c.name
	}
	return names
}

// columnNames are those of the schema.
func columnNames() []string { return dialect{}.columnNames() }

// fits refuses a job that holds more than the table does.
func (d dialect) fits(j job.Job) error {
	_, err := numberColumn{&j.UserID, "userId", d.host["user_id"]}.Value()
	return err
}

// timeColumn is a nullable time. Engines differ in how they keep one.
type timeColumn struct {
	t    *time.Time
	bind func(time.Time) any
	zero any // what a zero time is bound as
}

func (d dialect) timeColumn(t *time.Time) timeColumn { return timeColumn{t, d.time, nil} }

// sinceEpoch is a column that is never null: a zero time is 1970.
func (d dialect) sinceEpoch(t *time.Time) timeColumn {
	c := timeColumn{t, d.time, nil}
	if d.time != nil {
		c.zero = d.time(time.UnixMilli(0))
	}
	return c
}

// hostTime is a column of the host's, which may not take NULL.
func (d dialect) hostTime(name string, t *time.Time) timeColumn {
	if d.host[name].notNull {
		return d.sinceEpoch(t)
	}
	return d.timeColumn(t)
}

func (c timeColumn) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*c.t = time.Time{}
	case int64:
		*c.t = time.UnixMilli(v).UTC()
		if v == 0 {
			*c.t = time.Time{}
		}
	case time.Time:
		*c.t = v.UTC() // a host's own may be finer
		if v.UnixMilli() == 0 {
			*c.t = time.Time{}
		}
	default:
		return fmt.Errorf("a time cannot be read from %T", v)
	}
	return nil
}

// momentColumn is a time at which there will be something to do. It is read at full
// milliseconds, as sidejob looks: who looks in the one in which a finer time falls, a
// host's perhaps, finds nothing yet.
type momentColumn struct{ timeColumn }

func (d dialect) momentColumn(t *time.Time) momentColumn { return momentColumn{d.timeColumn(t)} }

func (c momentColumn) Scan(v any) error {
	err := c.timeColumn.Scan(v)
	if full := toMilli(*c.t); full.Before(*c.t) {
		*c.t = full.Add(time.Millisecond)
	}
	return err
}

func (c timeColumn) Value() (driver.Value, error) {
	if c.t.IsZero() {
		return c.zero, nil
	}
	return c.bind(*c.t), nil
}

// textColumn is a nullable text; NULL is the empty string.
type textColumn[T ~string] struct{ s *T }

func (c textColumn[T]) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*c.s = ""
	case string:
		*c.s = T(v)
	case []byte:
		*c.s = T(v)
	default:
		return fmt.Errorf("a text cannot be read from %T", v)
	}
	return nil
}

func (c textColumn[T]) Value() (driver.Value, error) {
	if *c.s == "" {
		return nil, nil
	}
	return string(*c.s), nil
}

// jsonColumn is nullable JSON, kept as it was written.
type jsonColumn struct{ raw *json.RawMessage }

func (c jsonColumn) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*c.raw = nil
	case string:
		*c.raw = json.RawMessage(v)
	case []byte:
		*c.raw = append(json.RawMessage(nil), v...)
	default:
		return fmt.Errorf("JSON cannot be read from %T", v)
	}
	return nil
}

func (c jsonColumn) Value() (driver.Value, error) {
	if len(*c.raw) == 0 {
		return nil, nil
	}
	return string(*c.raw), nil
}

// retryColumn is a nullable retry policy, as JSON. A host may have written anything:
// what is none counts as none, since one odd row must not keep the others from being
// read.
type retryColumn struct{ r **job.RetryConfig }

func (c retryColumn) Scan(v any) error {
	if err := scanJSON(v, c.r); err != nil {
		*c.r = nil
	}
	return nil
}

func (c retryColumn) Value() (driver.Value, error) {
	if *c.r == nil {
		return nil, nil
	}
	return bindJSON(*c.r)
}

// labelsColumn is a list of texts, as JSON, and like retryColumn in what it reads.
type labelsColumn struct{ labels *[]string }

func (c labelsColumn) Scan(v any) error {
	if err := scanJSON(v, c.labels); err != nil || len(*c.labels) == 0 {
		*c.labels = nil
	}
	return nil
}

func (c labelsColumn) Value() (driver.Value, error) {
	if *c.labels == nil {
		return "[]", nil
	}
	return bindJSON(*c.labels)
}

func scanJSON(v, into any) error {
	var raw json.RawMessage
	if err := (jsonColumn{&raw}).Scan(v); err != nil || raw == nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

func bindJSON(v any) (driver.Value, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// boolColumn is a nullable truth value.
type boolColumn struct{ b **bool }

func (c boolColumn) Scan(v any) error {
	var is bool
	switch v := v.(type) {
	case nil:
		*c.b = nil
		return nil
	case int64:
		is = v != 0
	case bool:
		is = v
	default:
		return fmt.Errorf("a truth value cannot be read from %T", v)
	}
	*c.b = &is
	return nil
}

func (c boolColumn) Value() (driver.Value, error) {
	if *c.b == nil {
		return nil, nil
	}
	return **c.b, nil
}

// intColumn is a nullable integer; NULL is 0.
type intColumn struct{ n *int64 }

func (c intColumn) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*c.n = 0
	case int64:
		*c.n = v
	default:
		return fmt.Errorf("an integer cannot be read from %T", v)
	}
	return nil
}

func (c intColumn) Value() (driver.Value, error) {
	if *c.n == 0 {
		return nil, nil
	}
	return *c.n, nil
}

// smallColumn is a nullable integer that an int holds; NULL is 0.
type smallColumn struct{ n *int }

func (c smallColumn) Scan(v any) error {
	var n int64
	err := (intColumn{&n}).Scan(v)
	*c.n = int(n)
	return err
}

func (c smallColumn) Value() (driver.Value, error) {
	n := int64(*c.n)
	return intColumn{&n}.Value()
}

// durationColumn is a nullable number of milliseconds; NULL is 0.
type durationColumn struct{ d *time.Duration }

func (c durationColumn) Scan(v any) error {
	var ms int64
	if err := (intColumn{&ms}).Scan(v); err != nil {
		return err
	}
	*c.d = milliseconds(ms)
	return nil
}

func (c durationColumn) Value() (driver.Value, error) {
	ms := c.d.Milliseconds()
	return intColumn{&ms}.Value()
}

// milliseconds is ms as a Duration, cut to what a Duration can hold: hosts write
// delays into their own rows.
func milliseconds(ms int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(max(-most, min(most, ms))) * time.Millisecond
}

// filled is a column that is written and never NULL. In a host's table it may be, and
// is then the zero value.
type filled[T string | bool] struct{ v *T }

func (c filled[T]) Scan(v any) error {
	var n sql.Null[T]
	err := n.Scan(v)
	*c.v = n.V
	return err
}

func (c filled[T]) Value() (driver.Value, error) { return *c.v, nil }

// numberColumn is an integer, which a host may keep in 32 bits. member is its name in
// requests.
type numberColumn struct {
	n      *int64
	member string
	host   hostColumn
}

func (c numberColumn) Scan(v any) error { return intColumn{c.n}.Scan(v) }

func (c numberColumn) Value() (driver.Value, error) {
	if c.host.int4 && toInt4(*c.n) != *c.n {
		return nil, &misfitError{fmt.Sprintf("%s: %d does not fit into the host's column, which is an integer of 32 bits", c.member, *c.n)}
	}
	return *c.n, nil
}

// delayColumn is a delay, NULL or 0 for none. A host's column of 32 bits gets as much
// as it holds.
type delayColumn struct {
	d    *time.Duration
	host hostColumn
}

func (c delayColumn) Scan(v any) error { return durationColumn{c.d}.Scan(v) }

func (c delayColumn) Value() (driver.Value, error) {
	ms := c.d.Milliseconds()
	if c.host.int4 {
		ms = toInt4(ms)
	}
	if c.host.notNull {
		return ms, nil
	}
	return intColumn{&ms}.Value()
}

// wideColumn stands beside a delay of 32 bits and is set where that does not suffice.
// It counts as long as the other one is at its end: the host may have written that
// since.
type wideColumn struct{ d *time.Duration }

func (c wideColumn) Scan(v any) error {
	var ms int64
	if err := (intColumn{&ms}).Scan(v); err != nil {
		return err
	}
	if toInt4(ms) != ms && toInt4(ms) == c.d.Milliseconds() {
		*c.d = milliseconds(ms)
	}
	return nil
}

func (c wideColumn) Value() (driver.Value, error) {
	ms := c.d.Milliseconds()
	if toInt4(ms) == ms {
		return nil, nil
	}
	return ms, nil
}

// toInt4 is n, cut to what 32 bits hold.
func toInt4(n int64) int64 { return max(math.MinInt32, min(math.MaxInt32, n)) }
