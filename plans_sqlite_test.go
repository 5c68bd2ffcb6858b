package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// overheard is a connector whose connections note the statements that they carry out.
type overheard struct {
	engine driver.Driver
	dsn    string
	mu     sync.Mutex
	texts  map[string]int // and how many values they take
}

// Connect implements driver.Connector.
func (o *overheard) Connect(context.Context) (driver.Conn, error) {
	conn, err := o.engine.Open(o.dsn)
	if err != nil {
		return nil, err
	}
	return &overheardConn{conn.(sqliteConn), o}, nil
}

// Driver implements driver.Connector.
func (o *overheard) Driver() driver.Driver { return o.engine }

func (o *overheard) note(text string, args []driver.NamedValue) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.texts[text] = len(args)
}

// take are the statements noted since the last call.
func (o *overheard) take() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	texts := o.texts
	o.texts = map[string]int{}
	return texts
}

// sqliteConn is what database/sql asks of SQLite's connections.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.QueryerContext
	driver.ExecerContext
}

type overheardConn struct {
	sqliteConn
	by *overheard
}

// QueryContext implements driver.QueryerContext.
func (c *overheardConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	c.by.note(text, args)
	return c.sqliteConn.QueryContext(ctx, text, args)
}

// ExecContext implements driver.ExecerContext.
func (c *overheardConn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	c.by.note(text, args)
	return c.sqliteConn.ExecContext(ctx, text, args)
}

// SQLite keeps no statistics of the rows: its plans are those of any number of jobs.
func TestNoStatementReadsAllOfSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sidejob.db")
	opened := mustOpenSQLite(t, path)
	t.Cleanup(func() { mustClose(t, opened) })
	o := &overheard{engine: opened.db.Driver(), dsn: sqliteDSN(path, "_txlock=immediate"), texts: map[string]int{}}
	db := sql.OpenDB(o)
	t.Cleanup(func() { _ = db.Close() })
	told := *opened
	told.db, told.write = db, postgresWriter{db, told.dialect}.write
	s := storeTest{t, &told, hostConnection(t, path)}
	s.hostExec(`INSERT INTO worker_jobs (id, tag, type) VALUES (300, 'tag-333001', 'work'), (999995, 'claimed', 'work');
		INSERT INTO worker_jobs (id, tag, type, executor, trigger_run_id) VALUES (990002, 'run', 'work', 'trigger', 'run_990002');
		INSERT INTO inbox (event_id, run_id, received_at, matched, event) VALUES ('e', 'run_none', 0, 0, '{"Event":{"Kind":"told"}}')`)
	calls := storeCalls(s, now())
	for i, query := range statements(blocks(t, "sql")[len(blocks(t, "sql"))-1]) {
		calls = append(calls, storeCall{name: fmt.Sprint("monitoring statement ", i+1), most: aPage, do: func() error {
			_, err := db.ExecContext(t.Context(), query)
			return err
		}})
	}
	for _, c := range calls {
		o.take()
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		texts := o.take()
		if len(texts) == 0 {
			t.Errorf("%s: sent no statement", c.name)
		}
		for text, args := range texts {
			plan := planOfSQLite(t, s.host, text, args)
			if !c.walks && slices.ContainsFunc(plan, readsAll) {
				t.Errorf("%s: %s\nis done by %s", c.name, strings.Join(strings.Fields(text), " "), strings.Join(plan, "; "))
			}
		}
	}
}

// readsAll tells of a step that goes through a table that grows, or through an index of
// all its rows.
func readsAll(step string) bool {
	what, scan := strings.CutPrefix(step, "SCAN ")
	table, index, _ := strings.Cut(what, " USING ")
	if !scan || !slices.Contains([]string{"worker_jobs", "job_events", "inbox", "replies"}, table) {
		return false
	}
	_, index, _ = strings.Cut(index, "INDEX ")
	return index == "" || !slices.ContainsFunc(partialIndexes(), func(name string) bool { return name == index })
}

func partialIndexes() (names []string) {
	for _, st := range schemaStatements("sidejob") {
		if st.kind == "INDEX" && st.where != "" {
			names = append(names, strings.TrimPrefix(st.name, "sidejob."))
		}
	}
	return append(names, "worker_jobs_labeled")
}

func planOfSQLite(t *testing.T, host *sql.DB, text string, args int) []string {
	t.Helper()
	if word, _, _ := strings.Cut(strings.TrimSpace(text), " "); !slices.Contains([]string{"SELECT", "UPDATE", "DELETE"}, word) {
		return nil
	}
	rows, err := host.Query("EXPLAIN QUERY PLAN "+text, make([]any, args)...)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, step)
	}
	return plan
}
