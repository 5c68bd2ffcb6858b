package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// engine does to a database what befalls one from outside.
type engine interface {
	// place names a database that holds nothing yet.
	place(t *testing.T) (address string)
	// crash has end stop a sidejob of which nothing is seen any more, as if it had been
	// killed, and names the database that is left.
	crash(t *testing.T, address string, end func()) (left string)
	// backup makes a copy while sidejob is at work.
	backup(t *testing.T, address string) (copied string)
}

// onEachEngine tells a long story on both. It may have to start PostgreSQL, so no
// bubble is around it yet.
func onEachEngine(t *testing.T, story func(t *testing.T, on worldOption)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		story(t, onEngine(sqliteFiles{}))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		throwAwayCluster().url(t)
		story(t, onEngine(postgresDatabases{throwAwayCluster()}))
	})
}

// onEngine gives a world its database. In a bubble nobody may wait for what PostgreSQL
// tells: the clock would stand still.
func onEngine(e engine) worldOption {
	return func(w *world) { w.engine, w.cfg.database, w.cfg.pool.deaf = e, e.place(w.t), true }
}

// sqliteFiles is SQLite.
type sqliteFiles struct{}

func (sqliteFiles) place(t *testing.T) string { return filepath.Join(t.TempDir(), "sidejob.db") }

// crash copies what stands on disk. The rest of the old life happens to the old file.
func (e sqliteFiles) crash(t *testing.T, address string, end func()) string {
	t.Helper()
	left := e.backup(t, address)
	end()
	return left
}

func (e sqliteFiles) backup(t *testing.T, address string) string {
	t.Helper()
	to := e.place(t)
	copySQLite(t, address, to)
	return to
}

// copySQLite copies a database as it stands.
func copySQLite(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		text, err := os.ReadFile(from + suffix)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(to+suffix, text, 0o600)
		}
		if err != nil {
			t.Fatalf("take the database as it is: %v", err)
		}
	}
}

// postgresDatabases is PostgreSQL, where each world has databases of its own.
//
// A bubble's clock stands still while a statement is under way, and runs ahead while
// PostgreSQL's hardly moves. Terms and the life of instances go by PostgreSQL's: of a
// sidejob that was killed they are ended here, when it is time on the bubble's clock.
type postgresDatabases struct{ *cluster }

func (e postgresDatabases) place(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("sidejob_%d_%d", os.Getpid(), e.schemas.Add(1))
	e.do(t, e.url(t), "CREATE DATABASE "+name)
	t.Cleanup(func() { e.do(t, e.url(t), "DROP DATABASE "+name+" WITH (FORCE)") })
	address, err := url.Parse(e.url(t))
	if err != nil {
		t.Fatal(err)
	}
	address.Path = "/" + name
	return address.String()
}

// do carries statements out and gives what the last of them returns.
func (e postgresDatabases) do(t *testing.T, address string, statements ...string) (returned []string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		t.Errorf("connect to PostgreSQL: %v", err)
		return nil
	}
	defer conn.Close(ctx)
	for _, statement := range statements {
		rows, _ := conn.Query(ctx, statement) // its error is that of the rows
		if returned, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
	return returned
}

// crash cuts sidejob off from its database, as the kernel does to the connections of a
// process that is killed.
func (e postgresDatabases) crash(t *testing.T, address string, end func()) string {
	t.Helper()
	mend := e.cut(t, address)
	end()
	mend()
	for _, dead := range e.do(t, address,
		"UPDATE sidejob.lead SET expires_at = 'infinity' WHERE expires_at > now()",
		"UPDATE sidejob.instances SET seen_at = 'infinity' RETURNING id",
	) {
		time.AfterFunc(leadLife, func() {
			e.do(t, address, "UPDATE sidejob.lead SET expires_at = '-infinity' WHERE owner = '"+dead+"'")
		})
		time.AfterFunc(aliveWithin, func() { e.do(t, address, "DELETE FROM sidejob.instances WHERE id = '"+dead+"'") })
	}
	return address
}

// cut ends all connections to a database, and lets nobody connect until it is mended.
func (e postgresDatabases) cut(t *testing.T, address string) (mend func()) {
	t.Helper()
	name := nameOf(t, address)
	e.do(t, e.url(t),
		"ALTER DATABASE "+name+" ALLOW_CONNECTIONS false",
		"SELECT pg_terminate_backend(pid, 5000)::text FROM pg_stat_activity WHERE datname = '"+name+"'")
	return func() { e.do(t, e.url(t), "ALTER DATABASE "+name+" ALLOW_CONNECTIONS true") }
}

// backup dumps the database and restores the dump beside it. By the time that a copy is
// used, who lived when it was made does so no more.
func (e postgresDatabases) backup(t *testing.T, address string) string {
	t.Helper()
	to := e.place(t)
	var said bytes.Buffer
	dump := exec.Command(e.program("pg_dump"), "--dbname="+address)
	restore := exec.Command(e.program("psql"), "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--dbname="+to)
	dump.Stderr, restore.Stderr = &said, &said
	text, err := dump.Output()
	if err == nil {
		restore.Stdin = bytes.NewReader(text)
		err = restore.Run()
	}
	if err != nil {
		t.Fatalf("copy the database: %v: %s", err, said.String())
	}
	e.do(t, to, "UPDATE sidejob.lead SET expires_at = '-infinity'", "DELETE FROM sidejob.instances")
	return to
}

// nameOf is the name of the database at an address.
func nameOf(t *testing.T, address string) string {
	t.Helper()
	parsed, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Path[1:]
}
