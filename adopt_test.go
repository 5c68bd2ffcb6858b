package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// hostShape are the nineteen columns of a host's table, as its Drizzle schema makes
// them; times are timestamp or timestamptz.
func hostShape(times string, more ...string) string {
	text := `CREATE TABLE worker_jobs (
		id serial PRIMARY KEY, tag text NOT NULL, type text NOT NULL, user_id integer NOT NULL, data json NOT NULL,
		due TIME NOT NULL, started TIME, finished TIME, remove_at TIME NOT NULL, success boolean, result json, cron_schedule text,
		auto_reschedule_on_failure boolean NOT NULL DEFAULT false, auto_reschedule_on_failure_delay integer NOT NULL DEFAULT 0,
		remove_delay integer NOT NULL DEFAULT 0, rescheduled_from_job integer, persistent boolean NOT NULL DEFAULT false,
		created_at TIME NOT NULL DEFAULT now(), updated_at TIME NOT NULL DEFAULT now()`
	return strings.ReplaceAll(strings.Join(append([]string{text}, more...), ", "), "TIME", times) + ")"
}

// originalShape is the origin's table; seedShape has the seed's seven columns as well.
func originalShape() string { return hostShape("timestamp") }

func seedShape() string {
	return hostShape("timestamptz", `executor text NOT NULL DEFAULT 'internal', trigger_run_id text, trigger_attempt_id text,
		trigger_status text, trigger_schedule_id text, cancel_requested boolean NOT NULL DEFAULT false, last_synced_at timestamptz`)
}

// freshDatabase makes a database of its own: there the schema sidejob is nobody
// else's, and no other test's transaction is waited for.
func (c *cluster) freshDatabase(t *testing.T, statements ...string) (address string, host *sql.DB) {
	t.Helper()
	parsed, err := url.Parse(c.url(t))
	if err != nil {
		t.Fatal(err)
	}
	admin := c.connect(t, parsed.String())
	name := fmt.Sprintf("adopt_%d_%d", os.Getpid(), c.schemas.Add(1))
	if _, err := admin.Exec("CREATE DATABASE " + name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.Exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("drop the database: %v", err)
		}
	})
	parsed.Path = "/" + name
	host = c.connect(t, parsed.String())
	for _, text := range statements {
		if _, err := host.Exec(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	return parsed.String(), host
}

func (c *cluster) connect(t *testing.T, address string) *sql.DB {
	t.Helper()
	config, err := pgx.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// rowsOfAllKinds fills a host's table with n rows, of every kind that the origin knows.
func rowsOfAllKinds(n int) string {
	return `INSERT INTO worker_jobs (tag, type, user_id, data, due, started, finished, remove_at, success, result, cron_schedule,
		auto_reschedule_on_failure, auto_reschedule_on_failure_delay, remove_delay, rescheduled_from_job, persistent, created_at, updated_at)
	SELECT 'tag ' || n, (ARRAY['mail', 'watchChain', 'removeOldWorkerJobs'])[n % 3 + 1], n % 7,
		json_build_object('n', n, 'text', E'line\n"quoted" 🙂'), at, CASE WHEN n % 50 <> 0 THEN at END, CASE WHEN n % 50 > 1 THEN at END,
		at + interval '1 hour', CASE WHEN n % 50 > 1 THEN n % 3 > 0 END, CASE WHEN n % 5 = 0 THEN '{"error": "bad"}'::json END,
		CASE WHEN n % 11 = 0 THEN '0 * * * * *' END, n % 2 = 0, n % 60000, (n % 2) * 2147483647, NULLIF(n - n % 10, n), n % 13 = 0, at, at
	FROM (SELECT n, TIMESTAMP '2026-03-01 12:00:00.123456' + n * interval '1 second' AS at FROM generate_series(1, ` + fmt.Sprint(n) + `) AS n) AS numbered`
}

const hostColumnNames = `id, tag, type, user_id, data, due, started, finished, remove_at, success, result, cron_schedule,
	auto_reschedule_on_failure, auto_reschedule_on_failure_delay, remove_delay, rescheduled_from_job, persistent, created_at, updated_at`

// checksum is of the host's columns of the first n rows.
func checksum(t *testing.T, host *sql.DB, n int) (sum string) {
	t.Helper()
	err := host.QueryRow(fmt.Sprintf("SELECT count(*) || ' ' || md5(string_agg(md5(ROW(%s)::text), '' ORDER BY id)) FROM worker_jobs WHERE id <= %d", hostColumnNames, n)).Scan(&sum)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// hostApp goes on with the origin's own statements until stopped, and tells the
// longest of them.
type hostAtWork struct {
	stop    context.CancelFunc
	done    sync.WaitGroup
	longest time.Duration
	rounds  int
	err     error
}

func startHost(t *testing.T, host *sql.DB) *hostAtWork {
	ctx, cancel := context.WithCancel(context.Background())
	w := &hostAtWork{stop: cancel}
	w.done.Go(func() {
		for ctx.Err() == nil && w.err == nil {
			w.err = w.round(host)
			w.rounds++
		}
	})
	t.Cleanup(func() { w.end() })
	return w
}

func (w *hostAtWork) end() { w.stop(); w.done.Wait() }

// round is what the origin does with a job: schedule it, find it, begin it and end it.
func (w *hostAtWork) round(host *sql.DB) error {
	var id int
	timed := func(do func() error) error {
		began := time.Now()
		err := do()
		w.longest = max(w.longest, time.Since(began))
		return err
	}
	return errors.Join(
		timed(func() error {
			return host.QueryRow(`INSERT INTO worker_jobs (tag, type, user_id, data, due, remove_at, auto_reschedule_on_failure, auto_reschedule_on_failure_delay, remove_delay, persistent)
				VALUES ('at work', 'mail', 1, '{}', now(), now(), false, 0, 1000, false) RETURNING id`).Scan(&id)
		}),
		timed(func() error {
			return host.QueryRow("SELECT id FROM worker_jobs WHERE started IS NULL AND tag = 'at work' AND id = $1", id).Scan(&id)
		}),
		timed(func() error {
			_, err := host.Exec("UPDATE worker_jobs SET started = now(), updated_at = now() WHERE id = $1", id)
			return err
		}),
		timed(func() error {
			_, err := host.Exec(`UPDATE worker_jobs SET finished = now(), success = true, result = '{"ok": true}', updated_at = now() WHERE id = $1`, id)
			return err
		}))
}

func TestAdoptingLeavesTheHostsRowsAndStatementsAsTheyWere(t *testing.T) {
	tellAtLeisure(t)
	for name, c := range map[string]struct {
		shape string
		rows  int
	}{"the original columns": {originalShape(), 100_000}, "the seed's columns": {seedShape(), 5_000}} {
		t.Run(name, func(t *testing.T) {
			address, host := throwAwayCluster().freshDatabase(t, c.shape, rowsOfAllKinds(c.rows))
			before := checksum(t, host, c.rows)
			atWork := startHost(t, host)
			var out, errs bytes.Buffer
			std := streams{out: &out, err: &errs, env: func(string) string { return "" }}
			if code := run(t.Context(), []string{"db", "adopt", "--yes", "--database", address}, std); code != 0 {
				t.Fatalf("adopt: exit code %d: %s", code, errs.String())
			}
			contains(t, out.String(), "ALTER TABLE public.worker_jobs", "CREATE INDEX CONCURRENTLY IF NOT EXISTS worker_jobs_owed ON public.worker_jobs")
			atWork.end()
			if atWork.err != nil || atWork.rounds == 0 || atWork.longest > 2*time.Second {
				t.Errorf("the host beside it: %d rounds, longest statement %s, error %v; want some, under 2 s and no error", atWork.rounds, atWork.longest, atWork.err)
			}
			t.Logf("%d rows; the host did %d rounds beside it, its longest statement took %s", c.rows, atWork.rounds, atWork.longest)
			if after := checksum(t, host, c.rows); after != before {
				t.Errorf("the host's columns: got %s, want %s as before", after, before)
			}
			worksWithHost(t, address, host, c.rows, before)
		})
	}
}

// worksWithHost opens the adopted table and has both sides use it.
func worksWithHost(t *testing.T, address string, host *sql.DB, rows int, before string) {
	t.Helper()
	if code, out, errs := sidejob(t, map[string]string{"DATABASE_URL": address}, "db", "check", "-o", "json"); code != 0 {
		t.Errorf("check: exit code %d: %s%s", code, out, errs)
	}
	code, out, errs := sidejob(t, map[string]string{"DATABASE_URL": address}, "db", "adopt", "--yes")
	if code != 0 || !strings.Contains(out, "nothing is missing") {
		t.Errorf("adopt again: exit code %d: %s%s", code, out, errs)
	}
	store, err := openPostgres(t.Context(), newPostgresConfig(address, slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer mustClose(t, store)
	s := storeTest{t, store, host}
	atWork := startHost(t, host)
	s.jobInEachState()
	atWork.end()
	if atWork.err != nil {
		t.Errorf("the host's statements beside sidejob: %v", atWork.err)
	}
	if first, err := store.Get(t.Context(), 1); err != nil || first.Tag != "tag 1" || !first.Due.Equal(time.Date(2026, 3, 1, 12, 0, 1, 123456000, time.UTC)) {
		t.Errorf("the host's first row: got %s due %s, error %v", first.Tag, first.Due, err)
	}
	if after := checksum(t, host, rows); after != before {
		t.Errorf("the host's columns while sidejob runs: got %s, want %s as before", after, before)
	}
}

func TestAdoptShowsThePlanAndChangesNothing(t *testing.T) {
	address, host := throwAwayCluster().freshDatabase(t, originalShape())
	catalog := func() (text string) {
		if err := host.QueryRow(`SELECT string_agg(c.oid::text || relname || relnatts, ' ' ORDER BY c.oid) FROM pg_class c
			JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname NOT LIKE 'pg\_%'`).Scan(&text); err != nil {
			t.Fatal(err)
		}
		return text
	}
	before := catalog()
	env := map[string]string{"DATABASE_URL": address}
	code, out, errs := sidejob(t, env, "db", "adopt")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	contains(t, errs, "nothing was changed", "--yes")
	contains(t, out, "CREATE TABLE sidejob.job_events", "ADD COLUMN IF NOT EXISTS executor text NOT NULL DEFAULT 'internal'", "remove_delay_ms bigint",
		"CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS worker_jobs_run ON public.worker_jobs", "CREATE TRIGGER sidejob_inserted AFTER INSERT ON public.worker_jobs")
	for _, word := range []string{"CHECK (executor", "DROP", "RENAME", "ALTER COLUMN"} {
		if strings.Contains(out, word) {
			t.Errorf("the plan says %q: %s", word, out)
		}
	}
	code, out, errs = sidejob(t, env, "db", "adopt", "-o", "json")
	var report adoptReport
	if err := json.Unmarshal([]byte(out), &report); code != 0 || err != nil || report.Done || len(report.Steps) < 10 || report.Table != "public.worker_jobs" {
		t.Errorf("as JSON: exit code %d, error %v, %+v, %s", code, err, report, errs)
	}
	if code, _, errs := sidejob(t, env, "db", "check"); code != 1 {
		t.Errorf("check: exit code %d, want 1: %s", code, errs)
	}
	for _, args := range [][]string{{"serve", "--no-trigger", "--listen", "127.0.0.1:0"}, {"db", "init"}} {
		code, _, errs := sidejob(t, env, args...)
		if code != 2 {
			t.Errorf("%v: exit code %d, want 2", args, code)
		}
		contains(t, errs, "sidejob db adopt")
	}
	if after := catalog(); after != before {
		t.Errorf("the database: got %s, want %s as before", after, before)
	}
}

// planOf is what is still to be done.
func planOf(t *testing.T, a *adoption) []adoptStep {
	t.Helper()
	s, err := a.survey(t.Context())
	if err != nil || len(s.problems) > 0 {
		t.Fatalf("survey: error %v, problems %q", err, s.problems)
	}
	return a.plan(s)
}

func mustOpenAdoption(t *testing.T, c postgresConfig) *adoption {
	t.Helper()
	a, err := openAdoption(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.shut() })
	return a
}

func TestAdoptingGoesOnWhereItStopped(t *testing.T) {
	address, host := throwAwayCluster().freshDatabase(t, originalShape())
	config := newPostgresConfig(address, slog.New(slog.DiscardHandler))
	a := mustOpenAdoption(t, config)
	for plan := planOf(t, a); len(plan) > 0; plan = plan[1:] {
		if _, err := openPostgres(t.Context(), config); err == nil || !strings.Contains(err.Error(), "sidejob db adopt") {
			t.Fatalf("open before %q: got error %v, want to be told of sidejob db adopt", plan[0].lacks, err)
		}
		for range 2 { // once more does no harm
			if _, err := host.Exec(plan[0].SQL); err != nil && !strings.Contains(err.Error(), "already exists") && !strings.Contains(err.Error(), "duplicate key") {
				t.Fatalf("%s: %v", plan[0].SQL, err)
			}
		}
		if rest := planOf(t, a); !slices.Equal(rest, plan[1:]) {
			t.Fatalf("after %q: got a plan of %d steps, want the %d that remain", plan[0].lacks, len(rest), len(plan)-1)
		}
	}
	store, err := openPostgres(t.Context(), config)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	mustClose(t, store)
}

func TestAdoptingMakesABrokenIndexAgain(t *testing.T) {
	address, host := throwAwayCluster().freshDatabase(t, seedShape())
	env := map[string]string{"DATABASE_URL": address}
	if code, _, errs := sidejob(t, env, "db", "adopt", "--yes"); code != 0 {
		t.Fatalf("adopt: exit code %d: %s", code, errs)
	}
	for _, text := range []string{
		"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'worker_jobs_owed'::regclass",
		"DROP INDEX worker_jobs_tag",
		"DROP INDEX worker_jobs_created; CREATE INDEX worker_jobs_created ON worker_jobs (created_at)", // as an older sidejob made it
		"ALTER TABLE worker_jobs DROP COLUMN labels, DROP COLUMN remove_delay_ms",                      // as a host's migration might
	} {
		if _, err := host.Exec(text); err != nil {
			t.Fatal(err)
		}
	}
	code, out, _ := sidejob(t, env, "db", "check")
	if code != 1 {
		t.Errorf("check: exit code %d, want 1", code)
	}
	contains(t, out, "adopted", "worker_jobs_owed is not valid", "index worker_jobs_tag", "index worker_jobs_created on (created_at, id)", "labels, remove_delay_ms")
	code, _, errs := sidejob(t, env, "serve", "--no-trigger", "--listen", "127.0.0.1:0")
	if code != 2 {
		t.Errorf("serve: exit code %d, want 2", code)
	}
	contains(t, errs, "lacks 2 columns, such as labels", "sidejob db adopt")
	code, out, errs = sidejob(t, env, "db", "adopt", "--yes")
	if code != 0 {
		t.Errorf("adopt again: exit code %d: %s", code, errs)
	}
	contains(t, out, "DROP INDEX CONCURRENTLY IF EXISTS public.worker_jobs_owed", "DROP INDEX CONCURRENTLY IF EXISTS public.worker_jobs_created")
	if code, out, _ := sidejob(t, env, "db", "check"); code != 0 {
		t.Errorf("check at the end: exit code %d: %s", code, out)
	}
}

func TestAdoptingGivesWayToAHostThatHoldsTheTable(t *testing.T) {
	address, host := throwAwayCluster().freshDatabase(t, originalShape())
	a := mustOpenAdoption(t, newPostgresConfig(address, slog.New(slog.DiscardHandler)))
	a.tries, a.rest = 2, 100*time.Millisecond
	tx, err := host.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec("SELECT 1 FROM worker_jobs"); err != nil {
		t.Fatal(err)
	}
	atWork := startHost(t, host)
	var told []string
	note := func(format string, args ...any) { told = append(told, fmt.Sprintf(format, args...)) }
	err = a.carryOut(t.Context(), planOf(t, a), note)
	if err == nil {
		t.Fatal("got the columns added, want the host's transaction to be in the way")
	}
	contains(t, err.Error(), "columns", "what was added so far stays")
	atWork.end()
	if atWork.err != nil || atWork.longest > 2*time.Second {
		t.Errorf("the host beside it: longest statement %s, error %v; want under 2 s and none", atWork.longest, atWork.err)
	}
	contains(t, strings.Join(told, "\n"), "others hold the table")
	t.Logf("longest statement of the host beside a long transaction: %s", atWork.longest)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := a.carryOut(t.Context(), planOf(t, a), note); err != nil {
		t.Errorf("repeated: %v", err)
	}
	if rest := planOf(t, a); len(rest) > 0 {
		t.Errorf("got %d steps left, want none", len(rest))
	}
}

func TestAdoptRefusesATableThatDoesNotFit(t *testing.T) {
	filled := rowsOfAllKinds(10)
	for name, c := range map[string]struct {
		statements []string
		says       []string
	}{
		"no table":               {nil, []string{"no worker_jobs"}},
		"a column is missing":    {[]string{originalShape(), "ALTER TABLE worker_jobs DROP COLUMN tag"}, []string{"column tag is missing", "text"}},
		"a column of other type": {[]string{originalShape(), "ALTER TABLE worker_jobs ALTER COLUMN result TYPE varchar(20)"}, []string{"result is character varying(20)", "json"}},
		"two at once":            {[]string{originalShape(), "ALTER TABLE worker_jobs DROP COLUMN tag, DROP COLUMN success"}, []string{"column tag is missing", "column success is missing"}},
		"a result is demanded":   {[]string{originalShape(), "ALTER TABLE worker_jobs ALTER COLUMN result SET NOT NULL"}, []string{"result is NOT NULL", "must take NULL"}},
		"a view":                 {[]string{"CREATE VIEW worker_jobs AS SELECT 1 AS id"}, []string{"is a view"}},
		"an executor without a default": {[]string{seedShape(), "ALTER TABLE worker_jobs ALTER COLUMN executor DROP DEFAULT, ALTER COLUMN executor DROP NOT NULL"},
			[]string{"column executor may be NULL and has no default", "NOT NULL DEFAULT 'internal'"}},
		"rows without an executor": {[]string{seedShape(), "ALTER TABLE worker_jobs ALTER COLUMN executor DROP NOT NULL", filled, "UPDATE worker_jobs SET executor = NULL WHERE id < 4"},
			[]string{"column executor is NULL in 3 rows"}},
		"two rows of one run": {[]string{seedShape(), filled, "UPDATE worker_jobs SET executor = 'trigger', trigger_run_id = 'run_' || id / 4"},
			[]string{"rows 1, 2, 3 all have trigger_run_id = run_0, which only one may", "rows 4, 5, 6, 7"}},
		"a name that is taken": {[]string{originalShape(), "CREATE INDEX worker_jobs_due ON worker_jobs (started)"}, []string{"index worker_jobs_due is there", "rename it"}},
		"a newer schema":       {[]string{originalShape(), "CREATE SCHEMA sidejob", "CREATE TABLE sidejob.meta (key text PRIMARY KEY, value text)", "INSERT INTO sidejob.meta VALUES ('schema', '99')"}, []string{"schema 99"}},
	} {
		t.Run(name, func(t *testing.T) {
			address, host := throwAwayCluster().freshDatabase(t, c.statements...)
			code, out, errs := sidejob(t, map[string]string{"DATABASE_URL": address}, "db", "adopt", "--yes")
			if code != 1 || out != "" {
				t.Errorf("exit code %d, stdout %q; want 1 and nothing", code, out)
			}
			contains(t, errs, c.says...)
			var added int
			if err := host.QueryRow("SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('worker_jobs') AND attname = 'lease_token'").Scan(&added); err != nil || added != 0 {
				t.Errorf("got %d columns added, error %v; want none", added, err)
			}
		})
	}
	code, _, errs := sidejob(t, map[string]string{"DATABASE_URL": "some.db"}, "db", "adopt")
	if code != 2 {
		t.Errorf("a file: exit code %d, want 2", code)
	}
	contains(t, errs, "postgres://")
}
