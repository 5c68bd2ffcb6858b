package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"sidejob/internal/job"
)

func TestStoreOnSQLite(t *testing.T) { testStore(t, openSQLiteForTest) }

// openSQLiteForTest makes a store in a folder of the test's own.
func openSQLiteForTest(t *testing.T) (Store, *sql.DB) {
	path := filepath.Join(t.TempDir(), "sidejob.db")
	store := mustOpenSQLite(t, path)
	t.Cleanup(func() { mustClose(t, store) })
	return store, hostConnection(t, path)
}

func mustOpenSQLite(t *testing.T, path string) *sqlStore {
	t.Helper()
	store, err := openSQLite(t.Context(), path, now())
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	return store
}

func mustClose(t *testing.T, store Store) {
	t.Helper()
	if err := store.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// hostConnection is a connection with nothing set but to wait for locks.
func hostConnection(t *testing.T, path string) *sql.DB {
	t.Helper()
	host, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatalf("open as host: %v", err)
	}
	t.Cleanup(func() { host.Close() })
	return host
}

// makeSQLite makes a database by statements, closed afterwards.
func makeSQLite(t *testing.T, path, statements string) {
	t.Helper()
	db := hostConnection(t, path)
	if _, err := db.Exec(statements); err != nil {
		t.Fatalf("make %s: %v", path, err)
	}
	if err := db.Close(); err != nil {
		t.Fatalf("make %s: %v", path, err)
	}
}

// copyFiles copies the files of a folder, as a process that dies leaves them.
func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatalf("copy %s: %v", from, err)
	}
}

// contents are the bytes of every file in a folder.
func contents(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatalf("read %s: %v", folder, err)
	}
	return files
}

func TestSQLiteRefusesWhatIsNotItsDatabaseAndLeavesItAsItIs(t *testing.T) {
	write := func(text string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	ours := fmt.Sprintf("PRAGMA application_id = %d; ", sqliteAppID)
	for name, c := range map[string]struct {
		make func(t *testing.T, path string)
		says []string
	}{
		"a text file":  {write(strings.Repeat("not a database\n", 100)), []string{"not a SQLite database"}},
		"a short file": {write("x"), []string{"not a SQLite database"}},
		"a torn file":  {write("SQLite format 3\x00torn"), []string{"not a SQLite database"}},
		"a folder": {func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, []string{"not a regular file"}},
		"a database of somebody else": {func(t *testing.T, path string) {
			makeSQLite(t, path, "CREATE TABLE worker_jobs (id INTEGER)")
		}, []string{"sidejob did not make"}},
		"a database of somebody else that crashed": {func(t *testing.T, path string) {
			alive := filepath.Join(t.TempDir(), "alive")
			if err := os.Mkdir(alive, 0o700); err != nil {
				t.Fatal(err)
			}
			db := hostConnection(t, filepath.Join(alive, filepath.Base(path)))
			for _, statement := range []string{"CREATE TABLE theirs (a)", "PRAGMA journal_mode = WAL", "INSERT INTO theirs VALUES (1)"} {
				if _, err := db.Exec(statement); err != nil {
					t.Fatal(err)
				}
			}
			copyFiles(t, alive, filepath.Dir(path))
		}, []string{"sidejob did not make"}},
		"an empty database that somebody else marked": {func(t *testing.T, path string) {
			makeSQLite(t, path, "PRAGMA user_version = 7")
		}, []string{"sidejob did not make"}},
		"a newer schema": {func(t *testing.T, path string) {
			makeSQLite(t, path, ours+fmt.Sprintf("CREATE TABLE worker_jobs (id INTEGER); PRAGMA user_version = %d", sqliteVersion+1))
		}, []string{"newer sidejob", "run that sidejob"}},
		"a schema it does not know": {func(t *testing.T, path string) {
			makeSQLite(t, path, ours+"CREATE TABLE worker_jobs (id INTEGER)")
		}, []string{"has schema 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			path := filepath.Join(folder, "it.db")
			c.make(t, path)
			before := contents(t, folder)
			store, err := openSQLite(t.Context(), path, now())
			if err == nil {
				mustClose(t, store)
				t.Fatal("got a store, want an error")
			}
			for _, says := range append(c.says, path, "--database") {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("error %q does not say %q", err, says)
				}
			}
			if after := contents(t, folder); !maps.Equal(after, before) {
				t.Errorf("got files %d, want the %d as they were, byte for byte", len(after), len(before))
			}
		})
	}
}

func TestSQLiteRefusesWhereItCannotWrite(t *testing.T) {
	t.Run("a folder that is not there", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "none", "sidejob.db")
		if _, err := openSQLite(t.Context(), path, now()); err == nil || !strings.Contains(err.Error(), "folder does not exist; make it") {
			t.Errorf("got error %v, want one that says to make the folder", err)
		}
	})
	for name, mode := range map[string]fs.FileMode{"a file it may only read": 0o400, "a folder it may only read": 0o500} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() == 0 {
				t.Skip("root may write whatever it likes; run the tests as another user to see this one")
			}
			folder := t.TempDir()
			path := filepath.Join(folder, "sidejob.db")
			mustClose(t, mustOpenSQLite(t, path))
			locked := map[fs.FileMode]string{0o400: path, 0o500: folder}[mode]
			if err := errors.Join(os.Remove(path+".lock"), os.Chmod(locked, mode)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Chmod(folder, 0o700) })
			before := contents(t, folder)
			_, err := openSQLite(t.Context(), path, now())
			if err == nil || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "give sidejob the right") {
				t.Errorf("got error %v, want one that says to give the right to write", err)
			}
			if after := contents(t, folder); !maps.Equal(after, before) {
				t.Error("the files have changed, want them as they were")
			}
		})
	}
}

func TestSQLiteMakesItsDatabase(t *testing.T) {
	for _, name := range []string{"new.db", "with space.db", "a?b#c%20&d.db", "žluť '\"日本.db", "-.db"} {
		t.Run("by the name "+name, func(t *testing.T) {
			folder := t.TempDir()
			path := filepath.Join(folder, name)
			mustClose(t, mustOpenSQLite(t, path))
			if info, err := os.Stat(path); err != nil || info.Size() == 0 {
				t.Errorf("the file: got %v, error %v; want it there", info, err)
			}
			if extra := len(contents(t, folder)); extra > 2 {
				t.Errorf("got %d files after closing, want the database and its lock", extra)
			}
		})
	}
	t.Run("in an empty file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "empty.db")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		mustClose(t, mustOpenSQLite(t, path))
	})
	t.Run("and finds it again with its jobs and its name", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "sidejob.db")
		store := mustOpenSQLite(t, path)
		s := storeTest{t, store, nil}
		j, name := s.put(job.Trigger, "tag"), store.Installation()
		mustClose(t, store)
		store = mustOpenSQLite(t, path)
		defer mustClose(t, store)
		s.Store = store
		s.sameJob("the job", s.get(j.ID), j)
		s.same("the installation", store.Installation(), name)
	})
}

func TestSQLiteIsOpenOnce(t *testing.T) {
	folder := t.TempDir()
	path, alias := filepath.Join(folder, "sidejob.db"), filepath.Join(folder, "alias.db")
	store := mustOpenSQLite(t, path)
	if err := os.Symlink(path, alias); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, alias} {
		if _, err := openSQLite(t.Context(), name, now()); err == nil || !strings.Contains(err.Error(), path+" is open in another sidejob") {
			t.Errorf("a second time by %s: got error %v, want one that names the file and says who has it", name, err)
		}
	}
	mustClose(t, store)
	mustClose(t, mustOpenSQLite(t, alias))
}

func TestSQLiteAcknowledgesOnlyWhatIsInTheFiles(t *testing.T) {
	folder, copied := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	store := mustOpenSQLite(t, filepath.Join(folder, "sidejob.db"))
	defer mustClose(t, store)
	s := storeTest{t, store, nil}
	j := s.put(job.Internal, "tag")
	s.happen(j.ID, job.Event{Kind: job.Cancel, At: s.at(1)})
	copyFiles(t, folder, copied)

	after := mustOpenSQLite(t, filepath.Join(copied, "sidejob.db"))
	defer mustClose(t, after)
	was := storeTest{t, after, nil}
	s.sameJob("the job after a crash", was.get(j.ID), s.get(j.ID))
	s.same("its history", was.told(j.ID), s.told(j.ID))
}

func TestSQLiteWriterFlushesEachCommit(t *testing.T) {
	store, _ := openSQLiteForTest(t)
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var got string
		err := store.(*sqlStore).write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			return tx.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&got)
		})
		if got != want || err != nil {
			t.Errorf("%s: got %q, error %v; want %s", pragma, got, err, want)
		}
	}
}

func TestSQLiteColumnsAreThoseOfTheSchemaInItsOrder(t *testing.T) {
	_, host := openSQLiteForTest(t)
	rows, err := host.Query("SELECT name FROM pragma_table_info('worker_jobs') ORDER BY cid")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var schema []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		schema = append(schema, name)
	}
	if got, want := strings.Join(columnNames(), " "), strings.Join(schema, " "); got != want {
		t.Errorf("columns:\n got %s\nwant %s", got, want)
	}
}

func TestSQLiteFindsOpenWorkByItsIndex(t *testing.T) {
	_, host := openSQLiteForTest(t)
	for index, query := range map[string]string{
		"worker_jobs_owed":     "SELECT id FROM worker_jobs WHERE " + owes + " AND next_try_at <= 1 ORDER BY next_try_at, id LIMIT 9",
		"worker_jobs_open_tag": "SELECT id FROM worker_jobs WHERE tag = 'a' AND finished IS NULL ORDER BY id",
		"worker_jobs_asked": `SELECT id FROM worker_jobs WHERE trigger_run_id IS NOT NULL AND (finished IS NULL OR confirmed_at IS NULL)
			AND id > 7 ORDER BY id LIMIT 9`,
		"worker_jobs_removable": `SELECT id FROM worker_jobs WHERE finished IS NOT NULL AND persistent = FALSE
			AND (trigger_run_id IS NULL OR confirmed_at IS NOT NULL OR orphaned_at IS NOT NULL) AND remove_at <= 1 ORDER BY remove_at LIMIT 9`,
		"worker_jobs_claim":      "SELECT id FROM worker_jobs WHERE " + free + " AND due <= 1 AND next_try_at <= 1 AND type <> 'a' ORDER BY due, id LIMIT 9",
		"worker_jobs_claim_type": "SELECT id FROM worker_jobs WHERE " + free + " AND due <= 1 AND next_try_at <= 1 AND type = 'a' ORDER BY due, id LIMIT 9",
		"worker_jobs_backoff":    "SELECT MIN(next_try_at) FROM worker_jobs WHERE " + free + " AND next_try_at > 1",
		"worker_jobs_leased": `SELECT id FROM worker_jobs WHERE finished IS NULL AND executor = 'internal' AND lease_token IS NOT NULL
			AND lease_expires_at > 1`,
		"worker_jobs_recurring": `SELECT id FROM worker_jobs WHERE finished IS NULL AND cron_schedule IS NOT NULL AND executor = 'internal'
			AND lease_token IS NULL AND started IS NULL AND paused = FALSE AND missed_at IS NULL AND (due <= 1) ORDER BY due, id LIMIT 9`,
		"worker_jobs_schedule": "SELECT id FROM worker_jobs WHERE schedule_row = 7 AND finished IS NOT NULL ORDER BY id DESC LIMIT 9 OFFSET 100",
		"worker_jobs_nominal":  "SELECT id FROM worker_jobs WHERE executor = 'trigger' AND rescheduled_from_job = schedule_row AND schedule_row = 7 AND due = 1",
		"worker_jobs_due":      "SELECT id FROM worker_jobs ORDER BY due, id LIMIT 9",
	} {
		rows, err := host.Query("EXPLAIN QUERY PLAN " + query)
		if err != nil {
			t.Fatal(err)
		}
		plan := ""
		for rows.Next() {
			var id, parent, unused int
			var step string
			if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
				t.Fatal(err)
			}
			plan += step + "; "
		}
		if !strings.Contains(plan, index) || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("got plan %s want %s and no sorting", plan, index)
		}
		rows.Close()
	}
}

// The statements that the guide gives for monitoring, times as SQLite counts them.
func TestSQLiteAnswersTheMonitoringStatements(t *testing.T) {
	store, host := openSQLiteForTest(t)
	s := storeTest{t, store, host}
	failed := s.newJob(job.Trigger, "failed")
	failed.Created = now()
	failed = s.place(failed, job.Replace).Job
	s.happen(failed.ID, s.wayTo(job.Trigger, job.StateFailed, "run_failed")...)
	s.jobIn(job.Trigger, job.StateFailed, "failed long ago")
	running, unsent := s.jobIn(job.Trigger, job.StateRunning, "running"), s.put(job.Trigger, "unsent")
	s.jobInEachStateOf(job.Internal)

	for what, c := range map[string]struct {
		query string
		want  []int64
	}{
		"active jobs": {`SELECT id, type, trigger_status, started, finished, success, trigger_run_id FROM worker_jobs
			WHERE executor = 'trigger' AND finished IS NULL ORDER BY created_at DESC, id DESC`, []int64{unsent.ID, running.ID}},
		"failed in the last day": {`SELECT id, type, result, datetime(created_at / 1000, 'unixepoch') FROM worker_jobs
			WHERE executor = 'trigger' AND success = false AND created_at > (unixepoch() - 24 * 3600) * 1000
			ORDER BY created_at DESC`, []int64{failed.ID}},
		"waiting for a run": {`SELECT id, type, created_at FROM worker_jobs
			WHERE executor = 'trigger' AND trigger_run_id IS NULL AND finished IS NULL`, []int64{unsent.ID}},
	} {
		rows, err := host.Query("SELECT id FROM (" + c.query + ")")
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got, err := scanIDs(rows)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		s.same(what, got, c.want)
	}
}

func TestSQLiteCloseWaitsForTheWriteUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := mustOpenSQLite(t, filepath.Join(t.TempDir(), "sidejob.db"))
		gate, written, closed := make(chan struct{}), make(chan error, 1), make(chan error, 1)
		go func() {
			written <- store.write(t.Context(), func(context.Context, *sql.Tx) error { <-gate; return nil })
		}()
		synctest.Wait()
		go func() { closed <- store.Close() }()
		synctest.Wait()
		if len(closed) != 0 {
			t.Error("closed before the write had ended, want it to wait")
		}
		close(gate)
		if err := errors.Join(<-written, <-closed); err != nil {
			t.Errorf("the write and the close: %v", err)
		}
		if _, err := store.Apply(t.Context(), 1, job.Event{Kind: job.Cancel}); !errors.Is(err, errClosed) {
			t.Errorf("a write after closing: got error %v, want errClosed", err)
		}
		if _, err := store.Get(t.Context(), 1); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("a read after closing: got error %v, want one that says so", err)
		}
		mustClose(t, store) // again does no harm
	})
}

func TestSQLiteThatIsFullIsBusyAndGoesOnWhenThereIsRoom(t *testing.T) {
	store, host := openSQLiteForTest(t)
	s := storeTest{t, store, host}
	room := func(pages int) {
		t.Helper()
		err := store.(*sqlStore).write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			var got int
			return tx.QueryRowContext(ctx, fmt.Sprint("PRAGMA max_page_count = ", pages)).Scan(&got)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	big := s.newJob(job.Internal, "big")
	big.Data = fmt.Appendf(nil, "%q", strings.Repeat("x", 1<<19))
	room(1) // no less than it has
	if _, err := store.Schedule(t.Context(), []Order{{Job: big}}, Keyed{}); !errors.Is(err, ErrBusy) {
		t.Errorf("schedule: got error %v, want ErrBusy", err)
	}
	if err := store.Keep(t.Context(), Keyed{Key: "key"}, Reply{Status: 200}); err != nil {
		t.Errorf("a write that needs no room: %v", err)
	}
	reservation := Reservation{Key: ReplyKey(strings.Repeat("k", 1<<19)), At: s.at(0)}
	if _, err := store.Reserve(t.Context(), reservation); !errors.Is(err, ErrBusy) {
		t.Errorf("reserve: got error %v, want ErrBusy", err)
	}
	s.same("jobs", s.listed(Filter{}), []int64{})
	room(1 << 20)
	s.place(big, job.Replace)
}
