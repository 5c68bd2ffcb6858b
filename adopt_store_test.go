package main

import (
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"sidejob/internal/job"
)

// openAdoptedForTest is a store on a host's table whose ids and delays have 32 bits,
// whose times have no zone and whose remove_at and delays take no NULL. It has
// defaults, so that a host need not name every column.
func openAdoptedForTest(t *testing.T) (Store, *sql.DB) {
	host, config := throwAwayCluster().freshSchemas(t)
	config.conns = 8
	_, err := host.Exec(originalShape() + `; ALTER TABLE worker_jobs ALTER COLUMN user_id SET DEFAULT 0, ALTER COLUMN data SET DEFAULT '{}',
		ALTER COLUMN due SET DEFAULT now(), ALTER COLUMN remove_at SET DEFAULT 'epoch'; SET TimeZone = 'UTC'`)
	if err != nil {
		t.Fatal(err)
	}
	a := mustOpenAdoption(t, config)
	for _, step := range planOf(t, a) {
		// Beside other tests' transactions CONCURRENTLY waits long.
		if _, err := a.conn.ExecContext(t.Context(), strings.ReplaceAll(step.SQL, " CONCURRENTLY", "")); err != nil {
			t.Fatalf("%s: %v", step.SQL, err)
		}
	}
	_ = a.shut()
	store, err := openPostgres(t.Context(), config)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { mustClose(t, store) })
	return store, host
}

func TestStoreOnAnAdoptedTable(t *testing.T) {
	tellAtLeisure(t)
	testStore(t, openAdoptedForTest)
}

func TestADelayOf30DaysFitsBesideAColumnOf32Bits(t *testing.T) {
	store, host := openAdoptedForTest(t)
	s := storeTest{t, store, host}
	const month = 30 * 24 * time.Hour
	j := s.newJob(job.Internal, "tag")
	j.RemoveDelay, j.AutoRescheduleWait = month, time.Minute
	j = s.place(j, job.Replace).Job
	columns := func() (got string) {
		if err := host.QueryRow(`SELECT concat_ws(' ', remove_delay, remove_delay_ms, auto_reschedule_on_failure_delay, COALESCE(auto_reschedule_on_failure_delay_ms::text, 'NULL'))
			FROM worker_jobs WHERE id = $1`, j.ID).Scan(&got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got, want := columns(), "2147483647 2592000000 60000 NULL"; got != want {
		t.Errorf("columns: got %s, want %s", got, want)
	}
	done := s.happen(j.ID, job.Event{Kind: job.Complete, At: s.at(1000)})
	if got := done.RemoveAt.Sub(done.Finished); got != month {
		t.Errorf("kept for %s, want %s", got, month)
	}
	s.sameJob("read", s.get(j.ID), done)
	s.hostExec("UPDATE worker_jobs SET remove_delay = 5000")
	if got := s.get(j.ID).RemoveDelay; got != 5*time.Second {
		t.Errorf("after the host has written its own column: got %s, want 5s", got)
	}
}

func TestANumberThatTheHostsColumnCannotHoldIsRefused(t *testing.T) {
	store, host := openAdoptedForTest(t)
	s := storeTest{t, store, host}
	large := s.newJob(job.Internal, "large")
	large.UserID = 1 << 40
	placed, err := store.Schedule(t.Context(), []Order{{Job: large, Source: "test"}, {Job: s.newJob(job.Internal, "small"), Source: "test"}}, Keyed{})
	if err != nil || len(placed) != 2 || placed[1].Err != nil || placed[0].Err == nil {
		t.Fatalf("got %+v, error %v; want the first refused and the second placed", placed, err)
	}
	p := problemOf(placed[0].Err)
	if p.Status != 422 || p.Code != "invalid" {
		t.Errorf("got %d %s, want 422 invalid", p.Status, p.Code)
	}
	contains(t, p.Detail, "userId", "1099511627776", "32 bits")
	if got := s.listed(Filter{UserID: new(int64(1 << 40))}); len(got) != 0 {
		t.Errorf("jobs of that user: got %v, want none", got)
	}
	if _, err := store.Get(t.Context(), 1<<40); !errors.Is(err, ErrNotFound) {
		t.Errorf("a job of that id: got error %v, want ErrNotFound", err)
	}
	s.hostExec("ALTER SEQUENCE worker_jobs_id_seq AS bigint; SELECT setval('worker_jobs_id_seq', 2147483647)")
	_, err = store.Schedule(t.Context(), []Order{{Job: s.newJob(job.Internal, "last"), Source: "test"}}, Keyed{})
	if err == nil || problemOf(err).Status != 422 {
		t.Errorf("ids used up: got error %v, want a 422", err)
	}
}

// There is no CHECK on a host's table.
func TestARowThatEndedWithoutSayingHowIsFailedWhereverItIsCounted(t *testing.T) {
	store, host := openAdoptedForTest(t)
	s := storeTest{t, store, host}
	s.hostExec("INSERT INTO worker_jobs (tag, type, due, finished) VALUES ('old', 'work', now(), now())")
	if got := s.list(Filter{Status: job.Failed}); len(got) != 1 || got[0].Status() != job.Failed {
		t.Errorf("listed as failed: got %+v, want the row", got)
	}
	stats, err := s.Stats(t.Context(), now())
	if got := stats.Jobs[job.Internal]; err != nil || got[job.Failed] != 1 || got[job.Pending] != 0 {
		t.Errorf("counted: got %v, error %v; want one that failed", got, err)
	}
}
