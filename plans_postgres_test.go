package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// planned is a statement that the store sent, and how PostgreSQL carried it out.
type planned struct {
	Text string `json:"Query Text"`
	Plan planNode
}

// planNode is a step of a plan.
type planNode struct {
	Node     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Index    string `json:"Index Name"`
	Hit      int64  `json:"Shared Hit Blocks"`
	Read     int64  `json:"Shared Read Blocks"`
	Plans    []planNode
}

// scans are the steps that read a table or an index, such as "Seq Scan inbox".
func (n planNode) scans() (found []string) {
	if name := n.Index + n.Relation; name != "" && strings.Contains(n.Node, "Scan") {
		if n.Index != "" {
			name = n.Index
		}
		found = append(found, n.Node+" "+name)
	}
	for _, under := range n.Plans {
		found = append(found, under.scans()...)
	}
	return found
}

// explained is a store whose connection has PostgreSQL tell the plan of every statement
// that it carries out: of those very texts with their own values, prepared as ever.
type explained struct {
	*sqlStore
	mu    sync.Mutex
	plans []planned
	wrong error
}

func explain(t *testing.T, store *sqlStore, c postgresConfig) *explained {
	t.Helper()
	for name, value := range map[string]string{
		"session_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0", "auto_explain.log_analyze": "on",
		"auto_explain.log_buffers": "on", "auto_explain.log_format": "json", "auto_explain.log_level": "notice", "auto_explain.log_timing": "off",
	} {
		c.url = withParameter(c.url, name, value)
	}
	config, _, err := c.connection()
	if err != nil {
		t.Fatal(err)
	}
	e := &explained{}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { e.note(n.Message) }
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	told := *store
	told.db, told.write = db, postgresWriter{db, told.dialect}.write
	e.sqlStore = &told
	return e
}

func (e *explained) note(text string) {
	_, text, ok := strings.Cut(text, "plan:\n")
	if !ok {
		return
	}
	var p planned
	err := json.Unmarshal([]byte(text), &p)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.wrong = fmt.Errorf("%w: %s", err, text)
	}
	e.plans = append(e.plans, p)
}

// take are the plans told since the last call.
func (e *explained) take() ([]planned, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	plans := e.plans
	e.plans = nil
	return plans, e.wrong
}

// fillPostgres makes the jobs of a quarter, and the tables beside them. Indexes and
// triggers are away meanwhile, which takes a fifth of the time.
func fillPostgres(t *testing.T, host *sql.DB, schema string, many int) {
	t.Helper()
	exec := func(text string) {
		t.Helper()
		if _, err := host.ExecContext(t.Context(), text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	var after []string
	exec("ALTER TABLE worker_jobs DISABLE TRIGGER ALL")
	for _, st := range schemaStatements(schema) {
		if st.kind == "INDEX" {
			exec("DROP INDEX " + st.name)
			after = append(after, st.text)
		}
	}
	for _, text := range quarterOfJobs(many) {
		exec(text)
	}
	for _, text := range after {
		exec("SET maintenance_work_mem = '256MB'; " + text)
	}
	exec("ALTER TABLE worker_jobs ENABLE TRIGGER ALL")
	exec("VACUUM (ANALYZE)")
}

// plannedAgain is how often each call is made on the one connection: after five times
// PostgreSQL may go over to a plan that knows no values.
const plannedAgain = 7

func TestNoStatementReadsAMillionJobs(t *testing.T) {
	tellAtLeisure(t)
	host, config := throwAwayCluster().freshSchemas(t)
	store, err := openPostgres(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustClose(t, store) })
	begun := time.Now()
	fillPostgres(t, host, config.schema, 1_000_000)
	t.Logf("a million jobs were made in %s: %v", time.Since(begun).Round(time.Second), firstColumn(t, host, `
		SELECT 'jobs ' || pg_size_pretty(pg_table_size('worker_jobs')) || ', indexes ' || pg_size_pretty(pg_indexes_size('worker_jobs'))
			|| ', of them to count by ' || pg_size_pretty(pg_relation_size('worker_jobs_ended'))`))
	e := explain(t, store, config)
	s := storeTest{t, e.sqlStore, host}
	calls := storeCalls(s, now())
	for i, query := range statements(blocks(t, "sql")[len(blocks(t, "sql"))-2]) {
		calls = append(calls, storeCall{name: fmt.Sprint("monitoring statement ", i+1), most: theUnfinished, do: func() error {
			rows, err := e.db.QueryContext(t.Context(), query)
			if err != nil {
				return err
			}
			for rows.Next() {
			}
			return errors.Join(rows.Err(), rows.Close())
		}})
	}
	for _, c := range calls {
		for range plannedAgain {
			if err := c.do(); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		e.judge(t, c)
	}
	scrape(t, store)
}

// judge says which of a call's statements read more than they may.
func (e *explained) judge(t *testing.T, c storeCall) {
	t.Helper()
	plans, err := e.take()
	if err != nil || len(plans) < plannedAgain {
		t.Fatalf("%s: got %d plans, error %v; want one for each statement", c.name, len(plans), err)
	}
	told := map[string]bool{}
	for _, p := range plans {
		scans, blocks := p.Plan.scans(), p.Plan.Hit+p.Plan.Read
		whole := c.most < everything && slices.ContainsFunc(scans, func(scan string) bool { return wholeTable(scan) })
		if text := strings.Join(strings.Fields(p.Text), " "); (whole || blocks > c.most) && !told[text] {
			told[text] = true
			t.Errorf("%s: read %d blocks of at most %d, by %s\n%s", c.name, blocks, c.most, strings.Join(scans, ", "), text)
		}
	}
}

// wholeTable tells of a step that reads a table that grows from end to end.
func wholeTable(scan string) bool {
	table, ok := strings.CutPrefix(scan, "Seq Scan ")
	return ok && slices.Contains([]string{"worker_jobs", "job_events", "inbox", "replies"}, table)
}

// scrape reads the metrics as Prometheus does, every few seconds.
func scrape(t *testing.T, store Store) {
	t.Helper()
	h := newHealth(store, "me", nil)
	fastest := time.Hour
	for range 3 {
		w, begun := httptest.NewRecorder(), time.Now()
		h.metrics(w, httptest.NewRequest("GET", "/metrics", nil))
		fastest = min(fastest, time.Since(begun))
		contains(t, w.Body.String(), `sidejob_jobs{executor="trigger",status="COMPLETED"} 5`)
	}
	t.Logf("/metrics took %s", fastest.Round(time.Millisecond))
	if fastest > 5*time.Second {
		t.Errorf("/metrics took %s, want it to be of no weight", fastest)
	}
}
