package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sidejob/internal/job"
)

func TestDBInitAndCheckTellOfBothEngines(t *testing.T) {
	postgres, _ := throwAwayCluster().freshDatabase(t)
	for engine, address := range map[string]string{"SQLite": filepath.Join(t.TempDir(), "some.db"), "PostgreSQL": postgres} {
		t.Run(engine, func(t *testing.T) {
			env := map[string]string{"DATABASE_URL": address}
			check := func(code int, table string, wrong int) {
				t.Helper()
				got, out, errs := sidejob(t, env, "db", "check", "-o", "json")
				var r dbReport
				if err := json.Unmarshal([]byte(out), &r); err != nil {
					t.Fatalf("check: %v: %s%s", err, out, errs)
				}
				if got != code || r.Engine != engine || r.Table != table || len(r.Wrong) != wrong || r.Wrong == nil {
					t.Errorf("check: got exit code %d and %+v, want %d, %s, %s and %d findings", got, r, code, engine, table, wrong)
				}
			}
			check(1, "none", 1)
			for _, says := range []string{"made the schema", "is there already"} {
				code, out, errs := sidejob(t, env, "db", "init")
				if code != 0 {
					t.Fatalf("init: exit code %d: %s", code, errs)
				}
				contains(t, out, engine, says)
				check(0, "own", 0)
			}
			if code, out, _ := sidejob(t, env, "db", "check"); code != 0 || !strings.HasPrefix(out, engine+", schema 2, worker_jobs: own") {
				t.Errorf("check as a table: exit code %d, %s", code, out)
			}
		})
	}
}

func TestDBCheckFindsWhatIsMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "some.db")
	mustClose(t, mustOpenSQLite(t, path))
	makeSQLite(t, path, "DROP INDEX worker_jobs_owed; DROP TABLE inbox")
	code, out, _ := sidejob(t, nil, "db", "check", "--database", path)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	contains(t, out, "lacks worker_jobs_owed", "lacks inbox")

	foreign := filepath.Join(t.TempDir(), "foreign.db")
	makeSQLite(t, foreign, "CREATE TABLE worker_jobs (id INTEGER)")
	for command, want := range map[string]int{"check": 1, "init": 1} {
		code, out, errs := sidejob(t, nil, "db", command, "--database", foreign)
		if code != want {
			t.Errorf("%s: exit code %d, want %d", command, code, want)
		}
		contains(t, out+errs, "sidejob did not make")
	}
}

func TestABackupTakenWhileSidejobRunsIsAWholeDatabase(t *testing.T) {
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "some.db"), filepath.Join(dir, "it's a copy.db")
	store := mustOpenSQLite(t, path)
	s := storeTest{t, store, hostConnection(t, path)}
	jobs := s.jobInEachState()
	code, out, errs := sidejob(t, nil, "db", "backup", copied, "--database", "sqlite:"+path)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	contains(t, out, "it's a copy.db", "bytes")
	later := s.put(job.Internal, "later")
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy: got %v, error %v; want a file of its owner's alone", info, err)
	}
	before := contents(t, dir)[filepath.Base(copied)]
	if code, _, errs := sidejob(t, nil, "db", "backup", copied, "--database", path); code != 1 || !strings.Contains(errs, "is there already") {
		t.Errorf("over a file: exit code %d, %s; want 1 and a refusal", code, errs)
	}
	if contents(t, dir)[filepath.Base(copied)] != before {
		t.Error("the refused copy has changed the file")
	}

	again := storeTest{t, mustOpenSQLite(t, copied), nil}
	for _, j := range jobs {
		again.sameJob("job of the copy", again.get(j.ID), s.get(j.ID))
		again.same("its history", again.told(j.ID), s.told(j.ID))
	}
	if got := again.listed(Filter{Tag: later.Tag}); len(got) != 0 || again.Installation() != store.Installation() {
		t.Errorf("got jobs %v of after the copy and installation %s; want none and %s", got, again.Installation(), store.Installation())
	}
}

func TestABackupIsRefusedWhereThereIsNothingToCopy(t *testing.T) {
	dir := t.TempDir()
	to := filepath.Join(dir, "copy.db")
	for _, c := range []struct {
		database string
		code     int
		says     string
	}{
		{filepath.Join(dir, "none.db"), 1, "none.db"},
		{"postgres://u:secret@h/d", 2, "pg_dump"},
	} {
		code, _, errs := sidejob(t, nil, "db", "backup", to, "--database", c.database)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d", c.database, code, c.code)
		}
		contains(t, errs, c.says)
		if strings.Contains(errs, "secret") {
			t.Errorf("stderr shows the password: %s", errs)
		}
	}
	if len(contents(t, dir)) != 0 {
		t.Errorf("a refused copy has left %v behind", contents(t, dir))
	}
}
