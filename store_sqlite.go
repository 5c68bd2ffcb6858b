package main

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed schema.sql
var sqliteSchema string

//go:embed schema_2.sql
var sqliteSchema2 string

const (
	sqliteVersion = 2          // of schema.sql, kept in PRAGMA user_version
	sqliteAppID   = 0x736a6f62 // "sjob", kept in PRAGMA application_id
	// maxGroup bounds how many writes share a transaction, and so how long the
	// first of them waits.
	maxGroup = 256
	// readers beside the one writer.
	readers = 4
)

// openSQLite opens the database file, making it when it is absent, and holds it
// against other sidejobs until Close. A file that is not sidejob's is refused and
// left as it was.
func openSQLite(ctx context.Context, path string, at time.Time) (*sqlStore, error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // one file, one lock, by whatever name
	}
	if err := checkSQLiteFile(path); err != nil {
		return nil, err
	}
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	switch held, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("lock database %s: %w; give sidejob the right to write in its folder, or %s", path, err, nameAnother)
	case !held:
		return nil, fmt.Errorf("database %s is open in another sidejob: stop that one, or %s", path, nameAnother)
	}
	s, err := openLocked(ctx, path, at)
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	shut := s.shut
	s.shut = sync.OnceValue(func() error { return errors.Join(shut(), lock.Unlock()) })
	return s, nil
}

// nameAnother is the way out that every refusal of a file ends with.
const nameAnother = "name another file with --database"

// checkSQLiteFile refuses what cannot be sidejob's database by its first bytes,
// without opening it as one: SQLite would tidy up even what it only reads.
func checkSQLiteFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return fmt.Errorf("database %s: its folder does not exist; make it, or %s", path, nameAnother)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("database %s is not a regular file; %s", path, nameAnother)
	}
	head := make([]byte, 100)
	n, err := io.ReadFull(f, head)
	switch {
	case n == 0 && errors.Is(err, io.EOF):
		return checkWritable(path)
	case err != nil || string(head[:16]) != "SQLite format 3\x00":
		return fmt.Errorf("%s is not a SQLite database; it was left as it is: %s", path, nameAnother)
	}
	// Where these numbers stand: the SQLite file format, 1.3, The Database Header.
	number := func(offset int) int { return int(binary.BigEndian.Uint32(head[offset:])) }
	if err := checkSchema(path, number(40) > 0, number(68), number(60)); err != nil {
		return err
	}
	return checkWritable(path)
}

// checkSchema refuses a schema that sidejob did not make or does not know.
func checkSchema(path string, made bool, appID, version int) error {
	switch {
	case (made || version > 0) && appID != sqliteAppID:
		return fmt.Errorf("%s is a SQLite database that sidejob did not make; it was left as it is: %s", path, nameAnother)
	case version > sqliteVersion:
		return fmt.Errorf("%s was written by a newer sidejob (schema %d, this one knows %d); it was left as it is: run that sidejob, or %s",
			path, version, sqliteVersion, nameAnother)
	case made && version < 1:
		return fmt.Errorf("%s has schema %d, this sidejob needs %d; it was left as it is: %s", path, version, sqliteVersion, nameAnother)
	}
	return nil
}

func checkWritable(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("database %s cannot be written: %w; give sidejob the right to, or %s", path, err, nameAnother)
	}
	return f.Close()
}

func openLocked(ctx context.Context, path string, at time.Time) (*sqlStore, error) {
	if err := prepareSQLite(ctx, path); err != nil {
		return nil, err
	}
	writer, err := sql.Open("sqlite", sqliteDSN(path, "_txlock=immediate"))
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	writer.SetMaxOpenConns(1)
	db, err := sql.Open("sqlite", sqliteDSN(path, "_pragma=query_only(1)"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), writer.Close())
	}
	db.SetMaxOpenConns(readers)
	db.SetMaxIdleConns(readers)
	group := startGroupCommit(writer)
	s := &sqlStore{
		db:      db,
		write:   group.write,
		hub:     newHub(),
		dialect: sqliteDialect(),
		shut:    func() error { return errors.Join(db.Close(), group.stop(), writer.Close()) },
	}
	if s.installation, err = s.nameInstallation(ctx); err != nil {
		return nil, errors.Join(err, s.shut())
	}
	return s, nil
}

func sqliteDialect() dialect {
	return dialect{
		hasLabel: "labels <> '[]' AND EXISTS (SELECT 1 FROM json_each(labels) WHERE value = %s)",
		time:     sqliteTime,
		busy:     sqliteBusy,
	}
}

// prepareSQLite makes the schema in an empty file, brings an older one up to date and
// refuses every other. Until the version is known it changes nothing.
func prepareSQLite(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?_pragma=busy_timeout(5000)")
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	var version, appID, tables int
	err = errors.Join(
		db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version),
		db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&appID),
		db.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_schema").Scan(&tables))
	if err != nil {
		return fmt.Errorf("read database %s: %w", path, err)
	}
	if err := checkSchema(path, tables > 0, appID, version); err != nil || version == sqliteVersion {
		return err
	}
	text, what := sqliteSchema, "make database"
	if tables > 0 {
		text, what = sqliteSchema2, "bring the schema up to date of database"
	}
	if _, err := db.ExecContext(ctx, "PRAGMA journal_mode = WAL"); err != nil {
		return fmt.Errorf("%s %s: %w", what, path, err)
	}
	_, err = db.ExecContext(ctx, fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA user_version = %d; PRAGMA application_id = %d; COMMIT",
		text, sqliteVersion, sqliteAppID))
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, path, err)
	}
	return nil
}

// sqliteDSN opens path so that a commit survives power loss.
func sqliteDSN(path string, more ...string) string {
	options := append([]string{
		"_pragma=busy_timeout(5000)", "_pragma=synchronous(FULL)", "_pragma=foreign_keys(1)", "_pragma=journal_mode(WAL)",
	}, more...)
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + strings.Join(options, "&")
}

func sqliteTime(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

// sqliteBusy tells the errors of a full disk, a failing device or a foreign lock
// from those of a wrong statement.
func sqliteBusy(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return true
	}
	return false
}

// groupCommit carries out writes one after the other on one connection and commits
// all that wait together: a durable commit costs one flush of the disk, however
// many share it. Each write has a savepoint of its own, so that one that fails
// takes no other with it.
type groupCommit struct {
	db    *sql.DB
	queue chan *groupWrite
	quit  chan struct{}
	done  chan struct{}
}

type groupWrite struct {
	ctx    context.Context
	fn     func(context.Context, *sql.Tx) error
	err    error
	result chan error
}

var errClosed = errors.New("the database is closed")

func startGroupCommit(db *sql.DB) *groupCommit {
	g := &groupCommit{db: db, queue: make(chan *groupWrite, maxGroup), quit: make(chan struct{}), done: make(chan struct{})}
	go g.run()
	return g
}

// write waits for its turn and for the commit. When ctx ends first the write may
// still happen.
func (g *groupCommit) write(ctx context.Context, fn func(context.Context, *sql.Tx) error) error {
	w := &groupWrite{ctx: ctx, fn: fn, result: make(chan error, 1)}
	select {
	case g.queue <- w:
	case <-ctx.Done():
		return ctx.Err()
	case <-g.quit:
		return errClosed
	}
	select {
	case err := <-w.result:
		return err
	case <-g.done:
	}
	select {
	case err := <-w.result: // it was among the last
		return err
	default:
		return errClosed
	}
}

func (g *groupCommit) stop() error {
	close(g.quit)
	<-g.done
	return nil
}

func (g *groupCommit) run() {
	defer close(g.done)
	for {
		select {
		case w := <-g.queue:
			g.commit(g.gather(w))
		case <-g.quit:
			return
		}
	}
}

// gather takes all that waits now, in order.
func (g *groupCommit) gather(first *groupWrite) []*groupWrite {
	group := []*groupWrite{first}
	for len(group) < maxGroup {
		select {
		case w := <-g.queue:
			group = append(group, w)
		default:
			return group
		}
	}
	return group
}

func (g *groupCommit) commit(group []*groupWrite) {
	err := g.transact(group)
	for _, w := range group {
		if w.err == nil {
			w.err = err
		}
		w.result <- w.err
	}
}

// transact runs the group in one transaction. The callers' contexts only decide
// whether a write begins: one that ended midway would end everybody's.
func (g *groupCommit) transact(group []*groupWrite) error {
	ctx := context.Background()
	tx, err := g.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback()
	for _, w := range group {
		if w.err = w.ctx.Err(); w.err != nil {
			continue
		}
		if err := savepoint(ctx, tx, w); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// savepoint runs one write; what it returns is about the transaction, not the
// write.
func savepoint(ctx context.Context, tx *sql.Tx, w *groupWrite) error {
	if _, err := tx.ExecContext(ctx, "SAVEPOINT w"); err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	if w.err = w.fn(ctx, tx); w.err != nil {
		if _, err := tx.ExecContext(ctx, "ROLLBACK TO w"); err != nil {
			// SQLite has ended the transaction itself, as it may when the disk fails.
			return fmt.Errorf("%w: roll back: %w", ErrBusy, err)
		}
	}
	if _, err := tx.ExecContext(ctx, "RELEASE w"); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}
