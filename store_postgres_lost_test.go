package main

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"testing"
	"time"

	"sidejob/internal/job"
)

// losing is a store whose connections can be broken off by the server.
type losing struct {
	storeTest
	inner *sqlStore
	name  string
}

func newLosing(t *testing.T) losing {
	host, config := throwAwayCluster().freshSchemas(t)
	name := "loses_" + config.schema
	config.url = withParameter(config.url, "application_name", name)
	store, err := openPostgres(t.Context(), config)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { mustClose(t, store) })
	return losing{storeTest{t, store, host}, store, name}
}

// breakOff ends all connections of the store, as a restart of the server does.
func (s losing) breakOff() {
	s.Helper()
	s.hostExec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '" + s.name + "'")
}

// TestPostgreSQLThatIsLostIsBusyForEachCall breaks off the connection that a call uses:
// the call says that it may work later, and then does.
func TestPostgreSQLThatIsLostIsBusyForEachCall(t *testing.T) {
	s := newLosing(t)
	id := s.put(job.Internal, "tag").ID
	ctx, at := t.Context(), s.at(1)
	for name, call := range map[string]func() error{
		"schedule": func() error {
			_, err := s.Schedule(ctx, []Order{{Job: s.newJob(job.Internal, "new"), OnConflict: job.Keep}}, Keyed{})
			return err
		},
		"apply":          func() error { _, err := s.Apply(ctx, id, job.Event{Kind: job.LeaseLost, At: at}); return err },
		"get":            func() error { _, err := s.Get(ctx, id); return err },
		"find run":       func() error { _, err := s.FindRun(ctx, "run"); return err },
		"list":           func() error { _, err := s.List(ctx, Filter{}); return err },
		"count":          func() error { _, err := s.Count(ctx, Filter{}); return err },
		"history":        func() error { _, err := s.History(ctx, id); return err },
		"owed":           func() error { _, _, err := s.Owed(ctx, at, 10); return err },
		"unsent":         func() error { _, err := s.Unsent(ctx); return err },
		"asked":          func() error { _, err := s.Asked(ctx, 0, 10, true); return err },
		"claim":          func() error { _, err := s.Claim(ctx, Claim{At: at, Limit: 1}); return err },
		"next claimable": func() error { _, err := s.NextClaimable(ctx, Claim{At: at}); return err },
		"leases":         func() error { _, _, err := s.Leases(ctx, at, ""); return err },
		"ripe":           func() error { _, _, err := s.Ripe(ctx, at, 10); return err },
		"schedules":      func() error { _, err := s.Schedules(ctx); return err },
		"recurring row":  func() error { _, err := s.RecurringRow(ctx, id); return err },
		"missed":         func() error { _, err := s.MissedRecurring(ctx, 10); return err },
		"reserve": func() error {
			_, err := s.Reserve(ctx, Reservation{Key: "key", Owner: "me", At: at, Over: true})
			return err
		},
		"keep":   func() error { return s.Keep(ctx, mine("key"), Reply{}) },
		"lead":   func() error { _, err := s.Lead(ctx, "me", time.Minute); return err },
		"attend": func() error { return s.Attend(ctx, "me") },
		"others": func() error { _, err := s.Others(ctx, "me"); return err },
		"leader": func() error { _, err := s.Leader(ctx); return err },
		"stats":  func() error { _, err := s.Stats(ctx, at); return err },
	} {
		if err := s.meanwhile(s.breakOff, call); !errors.Is(err, ErrBusy) {
			t.Errorf("%s: got error %v, want ErrBusy", name, err)
		}
		if err := call(); err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("%s, again: %v", name, err)
		}
	}
}

// meanwhile does something while the call waits for a lock of the host's.
func (s losing) meanwhile(do func(), call func() error) error {
	s.Helper()
	lock, err := s.host.Begin()
	if err != nil {
		s.Fatal(err)
	}
	defer lock.Rollback()
	if _, err := lock.Exec("LOCK TABLE worker_jobs, job_events, replies, lead, instances IN ACCESS EXCLUSIVE MODE"); err != nil {
		s.Fatal(err)
	}
	came := make(chan error, 1)
	go func() { came <- call() }()
	for waits := 0; waits == 0; pause(s.Context(), time.Millisecond) {
		select {
		case err := <-came:
			s.Errorf("the call did not wait: %v", err)
			return err
		default:
		}
		err := s.host.QueryRow("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'", s.name).Scan(&waits)
		if err != nil {
			s.Fatal(err)
		}
	}
	do()
	return <-came
}

func TestPostgreSQLThatIsLostWithinAWriteIsBusy(t *testing.T) {
	s := newLosing(t)
	j := s.newJob(job.Internal, "tag")
	for name, during := range map[string]func(context.Context, *changeset) error{
		"between two statements": func(ctx context.Context, c *changeset) error {
			s.breakOff()
			_, err := c.insert(ctx, j, "test")
			return err
		},
		"before the next but one": func(ctx context.Context, c *changeset) error {
			s.breakOff()
			_, _ = c.tx.ExecContext(ctx, "SELECT 1") // finds out
			_, err := c.insert(ctx, j, "test")
			return err
		},
	} {
		err := s.inner.change(t.Context(), during)
		if !errors.Is(err, ErrBusy) || errors.Is(err, ErrUnsure) {
			t.Errorf("%s: got error %v, want ErrBusy", name, err)
		}
	}
	err := s.inner.change(t.Context(), func(ctx context.Context, c *changeset) error {
		_, err := c.insert(ctx, j, "test")
		s.breakOff()
		return err
	})
	if !errors.Is(err, ErrBusy) || !errors.Is(err, ErrUnsure) {
		t.Errorf("before the commit: got error %v, want ErrBusy and ErrUnsure", err)
	}
	s.same("jobs", s.listed(Filter{}), []int64{})
}

// TestPostgreSQLEndsTheTransactionOfAFrozenProcess holds a transaction as a process does
// that is frozen in its midst.
func TestPostgreSQLEndsTheTransactionOfAFrozenProcess(t *testing.T) {
	s := newLosing(t)
	err := s.inner.change(t.Context(), func(ctx context.Context, c *changeset) error {
		if _, err := c.tx.ExecContext(ctx, "SET LOCAL idle_in_transaction_session_timeout = 10"); err != nil {
			return err
		}
		<-time.After(100 * time.Millisecond)
		return c.tx.QueryRowContext(ctx, "SELECT 1").Scan(new(int))
	})
	if !errors.Is(err, ErrBusy) || errors.Is(err, sql.ErrNoRows) {
		t.Errorf("got error %v, want ErrBusy", err)
	}
}

// TestPostgreSQLWaitsNotLongForALeaderThatIsFrozen has a leader stop in the midst of a
// write, with the lead locked.
func TestPostgreSQLWaitsNotLongForALeaderThatIsFrozen(t *testing.T) {
	_, config := throwAwayCluster().freshSchemas(t)
	set, _, err := config.connection()
	if err != nil {
		t.Fatal(err)
	}
	if ms, err := strconv.Atoi(set.RuntimeParams["idle_in_transaction_session_timeout"]); err != nil || time.Duration(ms)*time.Millisecond > leadLife/2 {
		t.Errorf("a frozen transaction is ended after %d ms, error %v; want that well before the lead is over", ms, err)
	}
	config.url = withParameter(config.url, "idle_in_transaction_session_timeout", "300")
	store, err := openPostgres(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustClose(t, store) })
	term, err := store.Lead(t.Context(), "frozen", 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	taken := make(chan struct{})
	written := make(chan error, 1)
	go func() {
		written <- store.commit(withTerm(t.Context(), term), func(ctx context.Context, tx *sql.Tx) error {
			<-taken
			_, err := tx.ExecContext(ctx, "DELETE FROM worker_jobs")
			return err
		})
	}()
	for end := time.Now().Add(5 * time.Second); ; pause(t.Context(), 20*time.Millisecond) {
		if next, err := store.Lead(t.Context(), "next", time.Minute); err != nil || next == term+1 {
			if err != nil {
				t.Errorf("ask for the lead: %v", err)
			}
			break
		}
		if time.Now().After(end) {
			t.Error("nobody else leads within 5 s")
			break
		}
	}
	close(taken)
	if err := <-written; !errors.Is(err, ErrBusy) {
		t.Errorf("what the frozen one writes: got error %v, want ErrBusy", err)
	}
}
