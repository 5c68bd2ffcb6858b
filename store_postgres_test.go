package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sidejob/internal/job"
)

func TestPostgreSQLColumnsAreThoseOfTheSchemaInItsOrder(t *testing.T) {
	_, host := openPostgresForTest(t)
	var schema string
	err := host.QueryRow(`SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = 'worker_jobs'::regclass AND attnum > 0`).Scan(&schema)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(columnNames(), " "); got != schema {
		t.Errorf("columns:\n got %s\nwant %s", got, schema)
	}
}

func TestPostgreSQLLetsOneLeadAtATime(t *testing.T) {
	store, _ := openPostgresForTest(t)
	lead := func(owner string, life time.Duration) int64 {
		t.Helper()
		term, err := store.Lead(t.Context(), owner, life)
		if err != nil {
			t.Fatalf("lead: %v", err)
		}
		return term
	}
	leader := func(want string) {
		t.Helper()
		if got, err := store.Leader(t.Context()); err != nil || got.Owner != want {
			t.Errorf("leader: got %+v, error %v; want %q", got, err, want)
		}
	}
	leader("")
	if got := lead("a", time.Minute); got != 1 {
		t.Errorf("the first term: got %d, want 1", got)
	}
	if got := lead("b", time.Minute); got != 0 {
		t.Errorf("while another leads: got term %d, want 0", got)
	}
	if got := lead("a", 0); got != 1 {
		t.Errorf("renewed: got term %d, want 1", got)
	}
	leader("") // its time is over
	if got := lead("b", time.Minute); got != 2 {
		t.Errorf("taken over: got term %d, want 2", got)
	}
	leader("b")
	if err := errors.Join(store.Resign(t.Context(), "a"), store.Resign(t.Context(), "b")); err != nil {
		t.Errorf("resign: %v", err)
	}
	leader("")
	if got := lead("b", time.Minute); got != 3 {
		t.Errorf("again after resigning: got term %d, want 3", got)
	}
}

func TestPostgreSQLRefusesTheWritesOfAnEarlierLeader(t *testing.T) {
	store, host := openPostgresForTest(t)
	s := storeTest{t, store, host}
	j := s.put(job.Internal, "tag")
	for _, owner := range []string{"a", "b"} {
		if _, err := store.Lead(t.Context(), owner, 0); err != nil {
			t.Fatal(err)
		}
	}
	cancel := job.Event{Kind: job.Cancel, At: s.at(1), Source: "test"}
	if _, err := store.Apply(withTerm(t.Context(), 1), j.ID, cancel); !errors.Is(err, ErrNotLeading) {
		t.Errorf("a write of the first term: got error %v, want ErrNotLeading", err)
	}
	s.sameJob("the job", s.get(j.ID), j)
	if _, err := store.Apply(withTerm(t.Context(), 2), j.ID, cancel); err != nil {
		t.Errorf("a write of the second term: %v", err)
	}
}

func TestPostgreSQLRefusesATableThatSidejobDidNotMake(t *testing.T) {
	host, config := throwAwayCluster().freshSchemas(t)
	if _, err := host.Exec("CREATE TABLE " + strings.Replace(config.schema, "sidejob_", "host_", 1) + ".worker_jobs (id serial PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	store, err := openPostgres(t.Context(), config)
	if err == nil {
		mustClose(t, store)
		t.Fatal("got a store, want a refusal")
	}
	contains(t, err.Error(), "sidejob db adopt")
	var columns int
	if err := host.QueryRow("SELECT count(*) FROM pg_attribute WHERE attrelid = 'worker_jobs'::regclass AND attnum > 0").Scan(&columns); err != nil || columns != 1 {
		t.Errorf("columns of the host's table: got %d, error %v; want 1", columns, err)
	}
}

// untilListening waits until the store hears what the database tells.
func (s storeTest) untilListening() {
	s.Helper()
	const someID = 4711
	heard, stop := s.Watch(someID)
	defer stop()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		s.hostExec(fmt.Sprintf("SELECT pg_notify(current_schema(), '%d')", someID))
		select {
		case <-heard:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
	s.Fatal("nothing was heard within 10 s")
}

func TestPostgreSQLTellsOfRowsThatTheHostWrites(t *testing.T) {
	store, host := openPostgresForTest(t)
	s := storeTest{t, store, host}
	owing, stop := store.Watch(owingJobs)
	defer stop()
	insert := func(tx *sql.Tx) {
		t.Helper()
		if _, err := tx.Exec("INSERT INTO worker_jobs (tag, type, executor) VALUES ('tag', 'report', 'trigger')"); err != nil {
			t.Fatal(err)
		}
	}
	await := func(what string) {
		t.Helper()
		select {
		case <-owing:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: nobody was told within 5 s", what)
		}
	}
	s.untilListening()
	select {
	case <-owing: // listening has begun
	default:
	}
	for _, end := range []func(*sql.Tx) error{(*sql.Tx).Rollback, (*sql.Tx).Commit} {
		tx, err := host.BeginTx(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		insert(tx)
		if err := end(tx); err != nil {
			t.Fatal(err)
		}
	}
	await("a row of the host")
	ids, _, err := store.Owed(t.Context(), now(), 10)
	if err != nil || len(ids) != 1 {
		t.Fatalf("owed: got %v, error %v; want the one that was committed", ids, err)
	}
	s.hostExec("UPDATE worker_jobs SET cancel_requested = TRUE")
	await("a cancel of the host")
}

// PostgreSQL keeps a host's times, such as its now(), to the microsecond.
func TestPostgreSQLTellsTheMillisecondAtWhichAFinerTimeHasPassed(t *testing.T) {
	store, host := openPostgresForTest(t)
	s := storeTest{t, store, host}
	fine := s.at(10).Add(351 * time.Microsecond)
	s.hostExec("INSERT INTO worker_jobs (tag, type, due) VALUES ('tag', 'work', " + s.literal(fine) + ")")
	s.same("when it may be claimed", s.nextClaimable(s.asks(10, 1)), s.at(11))
	s.same("claimed then", len(s.claimed(s.asks(11, 1))), 1)

	s.hostExec("INSERT INTO worker_jobs (tag, type, due, executor, cron_schedule, fire_locally) VALUES ('tag', 'work', " + s.literal(fine) + ", 'trigger', '0 0 * * *', TRUE)")
	s.wantRipe("before it fires", 10, s.at(11))
	fires, _ := s.ripe(11, 10)
	s.same("what fires then", fires, []string{"fired 2"})

	s.happen(s.put(job.Trigger, "tag").ID, job.Event{Kind: job.Unreached, At: s.at(0), NextTry: fine})
	_, next, err := store.Owed(t.Context(), s.at(10), 10)
	if err != nil || !next.Equal(s.at(11)) {
		t.Errorf("owed next at %s, error %v; want %s", next, err, s.at(11))
	}
	ids, _, err := store.Owed(t.Context(), s.at(11), 10)
	if err != nil || len(ids) != 1 {
		t.Errorf("owed then: %v, error %v; want one", ids, err)
	}
}

func TestPostgreSQLPagesThroughRowsThatTheHostMadeAtOnce(t *testing.T) {
	store, host := openPostgresForTest(t)
	s := storeTest{t, store, host}
	s.hostExec("INSERT INTO worker_jobs (tag, type, due) SELECT 'tag', 'work', " + s.literal(s.at(10).Add(351*time.Microsecond)) + " FROM generate_series(1, 5)")
	var seen []int64
	f := Filter{ByDue: true, Limit: 2}
	for range 3 {
		page, err := store.List(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		seen, f.Cursor = append(seen, jobIDs(page.Jobs)...), page.Next
	}
	s.same("jobs over three pages", seen, []int64{1, 2, 3, 4, 5})
	s.same("the cursor of the last page", f.Cursor, Cursor{})
}
