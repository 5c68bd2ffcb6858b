package main

import (
	"database/sql"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sidejob/internal/job"
)

// makeSchema1 makes a database as the first version of the schema had it, with rows.
func makeSchema1(t *testing.T, path, more string) {
	t.Helper()
	text, err := os.ReadFile("testdata/schema_1.sql")
	if err != nil {
		t.Fatal(err)
	}
	makeSQLite(t, path, fmt.Sprintf("PRAGMA journal_mode = WAL; %s; PRAGMA user_version = 1; PRAGMA application_id = %d;", text, sqliteAppID)+`
		INSERT INTO worker_jobs (tag, type, due, data, result, finished, success, started) VALUES ('old', 'work', 5, '{"a":1}', '"r"', 7, 1, 6);
		INSERT INTO worker_jobs (tag, type, due, attempt) VALUES ('open', 'work', 5, 3);
		INSERT INTO worker_jobs (tag, type, due, executor, trigger_run_id, trigger_status, idempotency_key, sent_at)
			VALUES ('run', 'task', 5, 'trigger', 'run_1', 'EXECUTING', 'job-1', 5);
		INSERT INTO job_events (job_id, at, kind, source, to_state) VALUES (1, 5, 'created', 'api', 'waiting');
		INSERT INTO meta VALUES ('installation', 'the-first');`+more)
}

// schemaOf is what a database is made of, by name: each column of worker_jobs, each
// table and index.
func schemaOf(t *testing.T, db *sql.DB) map[string]string {
	t.Helper()
	schema := map[string]string{}
	read := func(query string) {
		rows, err := db.Query(query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var name, what string
			if err := rows.Scan(&name, &what); err != nil {
				t.Fatal(err)
			}
			schema[name] = strings.Join(strings.Fields(what), " ")
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	read(`SELECT 'column ' || name, printf('%d %s notnull=%d default=%s pk=%d', cid, type, "notnull", COALESCE(dflt_value, '-'), pk) FROM pragma_table_info('worker_jobs')`)
	read(`SELECT type || ' ' || name, COALESCE(sql, '-') FROM sqlite_schema WHERE name <> 'worker_jobs'`)
	return schema
}

func TestAnOlderSchemaIsBroughtUpToDate(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "old.db")
	makeSchema1(t, path, "")
	store := mustOpenSQLite(t, path)
	t.Cleanup(func() { mustClose(t, store) })
	got := schemaOf(t, hostConnection(t, path))
	fresh, host := openSQLiteForTest(t)
	want := schemaOf(t, host)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s:\n got %s\nwant %s", name, got[name], want[name])
		}
	}
	for name := range got {
		if _, has := want[name]; !has {
			t.Errorf("%s is there, and in no fresh database", name)
		}
	}
	if len(want) < 80 {
		t.Errorf("only %d things were compared", len(want))
	}

	s := storeTest{t, store, hostConnection(t, path)}
	if store.Installation() != "the-first" || fresh.Installation() == "the-first" {
		t.Errorf("the installation is %s, want the-first", store.Installation())
	}
	old, open, run := s.get(1), s.get(2), s.get(3)
	if string(old.Data) != `{"a":1}` || string(old.Result) != `"r"` || old.State() != job.StateCompleted || open.Attempt != 3 || run.State() != job.StateRunning {
		t.Errorf("got %s, %s and %s; want the rows as they were", shownJSON(old), shownJSON(open), shownJSON(run))
	}
	s.same("history", s.told(1), []string{"created:  > waiting"})
	s.same("what may be claimed", jobIDs(s.claimed(s.asks(0, 9))), []int64{2})
	j := s.recurring(job.Spec{Tag: "tick", CronSchedule: "* * * * *", Misfire: job.FireAll, MisfireLimit: 7})
	s.sameJob("a recurring job", s.get(j.ID), j)
	s.happen(j.ID, job.Event{Kind: job.Missed, At: s.at(2 * minute)})
	for _, query := range []string{"UPDATE worker_jobs SET misfire = 'x'", "UPDATE worker_jobs SET fire_locally = 2", "UPDATE worker_jobs SET schedule_settled = NULL", "UPDATE worker_jobs SET last_occurrence = 'x'"} {
		if _, err := s.host.Exec(query); err == nil {
			t.Errorf("%s: got no error, want the schema to refuse it", query)
		}
	}
}

func TestAMigrationThatFailsChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "old.db")
	makeSchema1(t, path, "CREATE TABLE worker_jobs_ended (theirs INTEGER);") // the name of one of the last indexes
	host := hostConnection(t, path)
	before := schemaOf(t, host)
	store, err := openSQLite(t.Context(), path, time.Now())
	if err == nil {
		mustClose(t, store)
		t.Fatal("got a store, want an error")
	}
	contains(t, err.Error(), "bring the schema up to date of database", path, "worker_jobs_ended")
	if after := schemaOf(t, host); !maps.Equal(after, before) {
		t.Errorf("the schema was %v and is %v", before, after)
	}
	var version, rows int
	if err := host.QueryRow("SELECT user_version, (SELECT COUNT(*) FROM worker_jobs) FROM pragma_user_version").Scan(&version, &rows); err != nil || version != 1 || rows != 3 {
		t.Errorf("got version %d and %d rows, error %v; want 1 and 3", version, rows, err)
	}
	if _, err := host.Exec("DROP TABLE worker_jobs_ended"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpenSQLite(t, path))
}
