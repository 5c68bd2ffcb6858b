package main

import (
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"sidejob/internal/job"
)

// blocks are the fenced parts of docs/postgresql.md in a language.
func blocks(t *testing.T, language string) (found []string) {
	t.Helper()
	text, err := os.ReadFile("docs/postgresql.md")
	if err != nil {
		t.Fatal(err)
	}
	for rest := string(text); ; {
		_, after, ok := strings.Cut(rest, "```"+language+"\n")
		if !ok {
			return found
		}
		var block string
		block, rest, _ = strings.Cut(after, "```")
		found = append(found, block)
	}
}

// statements are those of a block, without their comments.
func statements(block string) (list []string) {
	for text := range strings.SplitSeq(block, ";") {
		lines := slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return strings.HasPrefix(line, "--") })
		if text := strings.TrimSpace(strings.Join(lines, "\n")); text != "" {
			list = append(list, text)
		}
	}
	return list
}

// drizzle is a table as its schema says it, with what adopting adds to the narrowest.
func drizzle() string {
	var b strings.Builder
	b.WriteString(`export const workerJobs = pgTable("worker_jobs", {` + "\n  // … the columns that you have\n")
	for _, c := range adopted() {
		if !c.host {
			fmt.Fprintf(&b, "  %s: %s,\n", camel(c.name), drizzleColumn(c))
		}
	}
	b.WriteString("}, (t) => [\n  // … the indexes that you have\n")
	for _, i := range schemaStatements("sidejob") {
		if i.kind == "INDEX" && i.host {
			fmt.Fprintf(&b, "  %s,\n", drizzleIndex(i))
		}
	}
	return b.String() + "])\n"
}

func adopted() []schemaColumn {
	wide := dialect{host: map[string]hostColumn{"remove_delay": {int4: true}, "auto_reschedule_on_failure_delay": {int4: true}}}.wideNames()
	all := schemaColumns()
	for _, name := range wide {
		all = append(all, schemaColumn{name: name, kind: "bigint"})
	}
	return all
}

func camel(name string) string {
	parts := strings.Split(name, "_")
	for i, part := range parts[1:] {
		parts[i+1] = strings.ToUpper(part[:1]) + part[1:]
	}
	return strings.Join(parts, "")
}

func drizzleColumn(c schemaColumn) string {
	text := fmt.Sprintf(map[string]string{
		"bigint": `bigint(%q, { mode: "number" })`, "timestamptz": `timestamp(%q, { withTimezone: true })`,
		"text": "text(%q)", "boolean": "boolean(%q)", "integer": "integer(%q)", "json": "json(%q)",
	}[c.kind], c.name)
	if c.notNull {
		text += ".notNull()"
	}
	_, value, ok := strings.Cut(c.definition, " DEFAULT ")
	switch {
	case !ok:
		return text
	case c.kind == "json":
		value = strings.Trim(value, "'")
	case c.kind == "timestamptz":
		value = "sql`" + value + "`"
	default:
		value = strings.ReplaceAll(value, "'", `"`)
	}
	return text + ".default(" + value + ")"
}

func drizzleIndex(i schemaStatement) string {
	made := "index"
	if i.unique {
		made = "uniqueIndex"
	}
	var on []string
	for name := range strings.SplitSeq(i.on, ", ") {
		if strings.Contains(name, "(") {
			on = append(on, "sql`"+name+"`")
			continue
		}
		on = append(on, "t."+camel(name))
	}
	text := fmt.Sprintf("%s(%q).on(%s)", made, i.name, strings.Join(on, ", "))
	if i.method != "" {
		text = fmt.Sprintf("%s(%q).using(%q, %s)", made, i.name, i.method, strings.Join(on, ", "))
	}
	if i.where != "" {
		text += ".where(sql`" + strings.Join(strings.Fields(i.where), " ") + "`)"
	}
	return text
}

func TestTheDocumentedDrizzleSchemaIsWhatAdoptingAdds(t *testing.T) {
	got, want := blocks(t, "ts")[0], drizzle()
	if got != want {
		t.Errorf("docs/postgresql.md, the Drizzle schema:\n got %s\nwant %s", got, want)
	}
	var names []string
	for _, c := range schemaColumns() {
		names = append(names, c.name)
	}
	if !slices.Equal(names, columnNames()) {
		t.Errorf("columns read off the schema:\n got %s\nwant %s", names, columnNames())
	}
}

// What is read off the text of the schema is what PostgreSQL makes of it.
func TestAnAdoptedTableIsAsOneThatSidejobMakes(t *testing.T) {
	_, own := openPostgresForTest(t)
	_, host := openAdoptedForTest(t)
	described := func(db *sql.DB, query string) []string {
		t.Helper()
		rows, err := db.Query(query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var lines []string
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, line)
		}
		return lines
	}
	for what, query := range map[string]string{
		"columns": `SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid))
			FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
			WHERE attrelid = 'worker_jobs'::regclass AND attnum > 19 AND attname NOT LIKE '%delay_ms' ORDER BY attnum`,
		"indexes": `SELECT regexp_replace(pg_get_indexdef(indexrelid), 'ON \S+', 'ON') FROM pg_index
			WHERE indrelid = 'worker_jobs'::regclass ORDER BY indexrelid::regclass::text`,
		"triggers": `SELECT regexp_replace(pg_get_triggerdef(oid), ' (ON|FUNCTION) \S+', '', 'g') FROM pg_trigger
			WHERE tgrelid = 'worker_jobs'::regclass ORDER BY tgname`,
		"own tables": `SELECT concat_ws(' ', c.relname, attname, format_type(atttypid, atttypmod), attnotnull) FROM pg_class c
			JOIN pg_namespace n ON n.oid = relnamespace JOIN pg_attribute ON attrelid = c.oid AND attnum > 0
			WHERE nspname = current_schema() ORDER BY c.relname, attnum`,
	} {
		if got, want := described(host, query), described(own, query); !slices.Equal(got, want) || len(got) < 2 {
			t.Errorf("%s of an adopted table:\n got %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
	}
}

func TestTheDocumentedTransactionSchedulesAJob(t *testing.T) {
	address, host := throwAwayCluster().freshDatabase(t, originalShape(), "CREATE TABLE orders (id int, total int)")
	if code, _, errs := sidejob(t, map[string]string{"DATABASE_URL": address}, "db", "adopt", "--yes"); code != 0 {
		t.Fatalf("adopt: exit code %d: %s", code, errs)
	}
	store, err := openPostgres(t.Context(), newPostgresConfig(address, slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, store)
	s := storeTest{t, store, host}
	texts := blocks(t, "sql")
	s.hostExec(strings.Replace(texts[0], "COMMIT", "ROLLBACK", 1))
	if got := s.list(Filter{}); len(got) != 0 {
		t.Errorf("rolled back: got %d jobs, want none", len(got))
	}
	s.hostExec(texts[0])
	jobs := s.list(Filter{Executor: job.Trigger, Status: job.Pending})
	owed, _, err := store.Owed(t.Context(), now(), 10)
	if err != nil || len(jobs) != 1 || len(owed) != 1 || jobs[0].TriggerTask != "send-receipt" {
		t.Fatalf("committed: got jobs %+v, owed %v, error %v; want one that is owed", jobs, owed, err)
	}
	s.hostExec(texts[1])
	if !s.get(jobs[0].ID).CancelRequested {
		t.Error("canceled: got no cancelRequested, want it set")
	}
}

// monitored are jobs of each kind that the monitoring statements tell apart, and what
// these must find, in their order.
func monitored(s storeTest) [][]int64 {
	s.Helper()
	failed := s.newJob(job.Trigger, "failed")
	failed.Created = now()
	failed = s.place(failed, job.Replace).Job
	s.happen(failed.ID, s.wayTo(job.Trigger, job.StateFailed, "run_failed")...)
	s.jobIn(job.Trigger, job.StateFailed, "failed long ago")
	running := s.jobIn(job.Trigger, job.StateRunning, "running")
	unsent := s.newJob(job.Trigger, "unsent")
	unsent.Created = s.at(1)
	unsent = s.place(unsent, job.Replace).Job
	s.jobInEachStateOf(job.Internal)
	return [][]int64{{unsent.ID, running.ID}, {failed.ID}, {unsent.ID}}
}

func TestTheDocumentedMonitoringStatementsAreServedByIndexes(t *testing.T) {
	texts := blocks(t, "sql")
	for engine, c := range map[string]struct {
		open    func(*testing.T) (Store, *sql.DB)
		block   string
		many    string
		explain string
		scan    string
	}{
		"PostgreSQL":       {openPostgresForTest, texts[len(texts)-2], "FROM generate_series(1, 30000) AS n", "EXPLAIN ", "Seq Scan"},
		"an adopted table": {openAdoptedForTest, texts[len(texts)-2], "FROM generate_series(1, 30000) AS n", "EXPLAIN ", "Seq Scan"},
		"SQLite": {openSQLiteForTest, texts[len(texts)-1], "FROM (WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 30000) SELECT n FROM s)",
			"EXPLAIN QUERY PLAN ", "SCAN worker_jobs\n"},
	} {
		t.Run(engine, func(t *testing.T) {
			store, host := c.open(t)
			s := storeTest{t, store, host}
			want := monitored(s)
			due := map[bool]string{true: "1", false: "'epoch'"}[engine == "SQLite"]
			s.hostExec("INSERT INTO worker_jobs (tag, type, executor, success, finished, created_at) SELECT 'old', 'old', 'internal', n % 5 > 0, " + due + ", " + due + " " + c.many)
			s.hostExec("ANALYZE worker_jobs")
			queries := statements(c.block)
			if len(queries) != 3 {
				t.Fatalf("got %d statements, want 3", len(queries))
			}
			for i, query := range queries {
				if got := firstColumn(t, host, query); !slices.Equal(got, texts64(want[i])) {
					t.Errorf("statement %d: got rows %v, want %v", i+1, got, want[i])
				}
				if plan := strings.Join(firstColumn(t, host, c.explain+query), "\n") + "\n"; strings.Contains(plan, c.scan) {
					t.Errorf("statement %d reads the whole table: %s", i+1, plan)
				}
			}
		})
	}
}

func texts64(ids []int64) (texts []string) {
	for _, id := range ids {
		texts = append(texts, fmt.Sprint(id))
	}
	return texts
}

// firstColumn is the first column of every row; of SQLite's plans it is the last.
func firstColumn(t *testing.T, db *sql.DB, query string) (values []string) {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	cells := make([]any, len(columns))
	for i := range cells {
		cells[i] = new(any)
	}
	for rows.Next() {
		if err := rows.Scan(cells...); err != nil {
			t.Fatal(err)
		}
		at := 0
		if strings.HasPrefix(query, "EXPLAIN QUERY") {
			at = len(cells) - 1
		}
		values = append(values, fmt.Sprint(*cells[at].(*any)))
	}
	return values
}
