package main

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"

	"modernc.org/sqlite"
)

// groupTest is a group commit on an empty table of one unique column. It counts the
// transactions.
type groupTest struct {
	*testing.T
	*groupCommit
	commits int
}

func newGroupTest(t *testing.T) *groupTest {
	g := &groupTest{T: t}
	db, err := sql.Open("sqlite", sqliteDSN(filepath.Join(t.TempDir(), "group.db"), "_txlock=immediate"))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE written (n INTEGER PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = conn.Raw(func(c any) error {
		c.(sqlite.HookRegisterer).RegisterCommitHook(func() int32 { g.commits++; return 0 })
		return nil
	})
	if err := errors.Join(err, conn.Close()); err != nil {
		t.Fatal(err)
	}
	g.groupCommit = startGroupCommit(db)
	t.Cleanup(func() {
		if err := errors.Join(g.stop(), db.Close()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return g
}

// gathered runs writes that wait while another one is carried out, the first of
// them first, and returns their errors.
func (g *groupTest) gathered(n int, write func(ctx context.Context, tx *sql.Tx, i int) error) []error {
	gate := make(chan struct{})
	go g.write(g.Context(), func(context.Context, *sql.Tx) error { <-gate; return nil })
	synctest.Wait()
	errs := make([]error, n)
	for i := range n {
		go func() {
			errs[i] = g.write(g.Context(), func(ctx context.Context, tx *sql.Tx) error { return write(ctx, tx, i) })
		}()
		synctest.Wait()
	}
	g.commits = 0
	close(gate)
	synctest.Wait()
	return errs
}

func (g *groupTest) insert(ctx context.Context, tx *sql.Tx, n int) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO written VALUES ($1)", n)
	return err
}

// written are the rows that are there.
func (g *groupTest) written() (n int) {
	g.Helper()
	err := g.write(g.Context(), func(ctx context.Context, tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM written").Scan(&n)
	})
	if err != nil {
		g.Errorf("count what was written: %v", err)
	}
	return n
}

func TestGroupCommitWritesAllThatWaitInOneTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroupTest(t)
		for i, err := range g.gathered(maxGroup, g.insert) {
			if err != nil {
				t.Errorf("write %d: %v", i, err)
			}
		}
		// The first ends alone; it began before the others came.
		if got := g.written(); got != maxGroup || g.commits > 3 {
			t.Errorf("got %d rows in %d transactions, want %d in at most 3, the counting one included", got, g.commits, maxGroup)
		}
	})
}

func TestGroupCommitKeepsTheNeighboursOfAWriteThatFails(t *testing.T) {
	wrong := errors.New("wrong")
	for name, fail := range map[string]func(context.Context, *sql.Tx) error{
		"of its own": func(context.Context, *sql.Tx) error { return wrong },
		"in the database": func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO written VALUES (0)")
			return errors.Join(err, wrong)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGroupTest(t)
				errs := g.gathered(3, func(ctx context.Context, tx *sql.Tx, i int) error {
					err := g.insert(ctx, tx, i)
					if i == 1 {
						err = errors.Join(err, fail(ctx, tx))
					}
					return err
				})
				if errs[0] != nil || !errors.Is(errs[1], wrong) || errs[2] != nil {
					t.Errorf("got errors %v, want only the second", errs)
				}
				if got := g.written(); got != 2 {
					t.Errorf("got %d rows, want the neighbours' 2", got)
				}
			})
		})
	}
}

func TestGroupCommitAcknowledgesNothingOfATransactionThatSQLiteEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroupTest(t)
		broken := errors.New("broken")
		errs := g.gathered(3, func(ctx context.Context, tx *sql.Tx, i int) error {
			if i != 1 {
				return g.insert(ctx, tx, i)
			}
			// What SQLite does itself when the disk fails.
			_, err := tx.ExecContext(ctx, "ROLLBACK")
			return errors.Join(err, broken)
		})
		if !errors.Is(errs[0], ErrBusy) || !errors.Is(errs[1], broken) || !errors.Is(errs[2], ErrBusy) {
			t.Errorf("got errors %v, want ErrBusy for the neighbours", errs)
		}
		if got := g.written(); got != 0 {
			t.Errorf("got %d rows, want none", got)
		}
		if err := g.write(t.Context(), func(ctx context.Context, tx *sql.Tx) error { return g.insert(ctx, tx, 7) }); err != nil {
			t.Errorf("the next write: %v", err)
		}
	})
}

func TestGroupCommitDoesNotBeginAWriteThatNobodyWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroupTest(t)
		ctx, cancel := context.WithCancel(t.Context())
		gate := make(chan struct{})
		go g.write(t.Context(), func(context.Context, *sql.Tx) error { <-gate; return nil })
		synctest.Wait()
		var err error
		go func() {
			err = g.write(ctx, func(ctx context.Context, tx *sql.Tx) error { return g.insert(ctx, tx, 1) })
		}()
		synctest.Wait()
		cancel()
		close(gate)
		synctest.Wait()
		if got := g.written(); !errors.Is(err, context.Canceled) || got != 0 {
			t.Errorf("got error %v and %d rows, want context.Canceled and none", err, got)
		}
	})
}
