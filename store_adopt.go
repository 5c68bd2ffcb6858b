package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// adoption adds to a host's worker_jobs what sidejob needs and the table lacks. It
// renames, rewrites and drops nothing of the host's, and holds no statement of the host
// up for longer than lockWait. Every step can be repeated; one that is done is not
// planned again.
type adoption struct {
	postgresConfig
	conn     *sql.Conn
	shut     func() error
	lockWait time.Duration // for the table, before a step makes way for others
	rest     time.Duration // between two tries
	tries    int
}

// adoptStep is one statement of a plan.
type adoptStep struct {
	Why   string `json:"why"`
	SQL   string `json:"sql"`
	lacks string // what it adds, in a few words
	locks bool   // it needs the host's table for itself, for a moment
}

// survey is a database as an adoption finds it.
type survey struct {
	foundSchema
	table    hostTable
	indexes  map[string]heldIndex
	own      []string // names of triggers on the table, and of what stands in sidejob's schema
	problems []string // why the table cannot be adopted
}

type heldIndex struct {
	on            string // its columns
	unique, valid bool
}

// openAdoption connects with a session of its own: building an index may take long.
func openAdoption(ctx context.Context, c postgresConfig) (*adoption, error) {
	config, _, err := c.connection()
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["statement_timeout"] = "0"
	db := stdlib.OpenDB(*config)
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), db.Close())
	}
	shut := func() error { return errors.Join(conn.Close(), db.Close()) }
	return &adoption{c, conn, shut, time.Second, time.Second, 10}, nil
}

// survey reads what is there and what is in the way. It changes nothing.
func (a *adoption) survey(ctx context.Context) (s survey, err error) {
	if s.foundSchema, err = a.find(ctx, a.conn); err != nil {
		return s, fmt.Errorf("read the schema: %w", err)
	}
	if s.table, err = readTable(ctx, a.conn); err != nil || s.table.name == "" {
		return s, err
	}
	if s.version != 0 && s.version != postgresVersion {
		s.problems = append(s.problems, fmt.Sprintf("the database has schema %d, this sidejob knows %d: use the sidejob that made it", s.version, postgresVersion))
	}
	if err := a.readIndexes(ctx, &s); err != nil {
		return s, fmt.Errorf("read the indexes of worker_jobs: %w", err)
	}
	if err := a.readOwn(ctx, &s); err != nil {
		return s, fmt.Errorf("read what stands in schema %s: %w", a.schema, err)
	}
	if s.judgeColumns(); len(s.problems) > 0 {
		return s, nil
	}
	return s, errors.Join(a.judgeNulls(ctx, &s), a.judgeIndexes(ctx, &s))
}

func (a *adoption) readIndexes(ctx context.Context, s *survey) error {
	rows, err := a.conn.QueryContext(ctx, `
		SELECT c.relname, i.indisunique, i.indisvalid,
			(SELECT string_agg(pg_get_indexdef(c.oid, k, true), ', ' ORDER BY k) FROM generate_series(1, i.indnkeyatts) AS k)
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		WHERE i.indrelid = to_regclass('worker_jobs')`)
	if err != nil {
		return err
	}
	defer rows.Close()
	s.indexes = map[string]heldIndex{}
	for rows.Next() {
		var name string
		var i heldIndex
		if err := rows.Scan(&name, &i.unique, &i.valid, &i.on); err != nil {
			return err
		}
		s.indexes[name] = i
	}
	return rows.Err()
}

func (a *adoption) readOwn(ctx context.Context, s *survey) error {
	rows, err := a.conn.QueryContext(ctx, `
		SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass('worker_jobs') AND NOT tgisinternal
		UNION ALL
		SELECT nspname FROM pg_namespace WHERE nspname = $1
		UNION ALL
		SELECT nspname || '.' || relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = $1
		UNION ALL
		SELECT nspname || '.' || proname FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = $1`, a.schema)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		s.own = append(s.own, name)
	}
	return rows.Err()
}

// judgeColumns finds what is missing of the host's own columns, and what has another
// type or does not take what sidejob writes.
func (s *survey) judgeColumns() {
	if !s.table.plain {
		s.problems = append(s.problems, s.table.name+" is a view or partitioned; it must be a table")
	}
	for _, c := range schemaColumns() {
		is, ok := s.table.columns[c.name]
		switch {
		case !ok && c.host:
			s.problems = append(s.problems, fmt.Sprintf("column %s is missing; the host's table must have it, as %s", c.name, c.kind))
		case !ok:
		case c.fits(is) != "":
			s.problems = append(s.problems, c.fits(is))
		case is.notNull && !c.notNull && !slices.Contains([]string{"remove_at", "remove_delay", "auto_reschedule_on_failure_delay"}, c.name):
			s.problems = append(s.problems, fmt.Sprintf("column %s is NOT NULL; it must take NULL", c.name))
		case c.notNull && !c.host && !is.notNull && !is.hasDefault:
			s.problems = append(s.problems, fmt.Sprintf("column %s may be NULL and has no default; it must be %s", c.name, c.definition))
		}
	}
}

// judgeNulls finds rows that hold NULL where sidejob needs a value.
func (a *adoption) judgeNulls(ctx context.Context, s *survey) error {
	for _, c := range schemaColumns() {
		is, ok := s.table.columns[c.name]
		if !ok || !c.notNull || is.notNull {
			continue
		}
		var rows int64
		err := a.conn.QueryRowContext(ctx, fmt.Sprintf("SELECT COUNT(*) FROM %s WHERE %s IS NULL", s.table.name, c.name)).Scan(&rows)
		if err != nil {
			return fmt.Errorf("look for NULL in %s: %w", c.name, err)
		}
		if rows > 0 {
			s.problems = append(s.problems, fmt.Sprintf("column %s is NULL in %d rows; it must be %s", c.name, rows, c.definition))
		}
	}
	return nil
}

// judgeIndexes finds names that are taken by another index of the host's, and rows that a
// unique index would refuse.
func (a *adoption) judgeIndexes(ctx context.Context, s *survey) error {
	for _, i := range schemaStatements(a.schema) {
		if i.kind != "INDEX" || !i.host {
			continue
		}
		is, ok := s.indexes[i.name]
		if ok && s.version == 0 && !i.describes(is) {
			s.problems = append(s.problems, fmt.Sprintf("index %s is there and another than sidejob's, which is on (%s): rename it", i.name, i.on))
		}
		if !i.unique || ok && is.valid || slices.ContainsFunc(s.table.lacks(), func(c schemaColumn) bool { return strings.Contains(i.text, c.name) }) {
			continue
		}
		twins, err := a.twins(ctx, s.table.name, i)
		if err != nil {
			return fmt.Errorf("look for rows that %s would refuse: %w", i.name, err)
		}
		s.problems = append(s.problems, twins...)
	}
	return nil
}

// describes tells whether an index that is there has the columns of the statement. JSON is
// read as jsonb, which a host's column may be.
func (s schemaStatement) describes(is heldIndex) bool {
	plain := strings.NewReplacer("::jsonb", "", "(", "", ")", "")
	return plain.Replace(is.on) == plain.Replace(s.on) && is.unique == s.unique
}

// twins are the values that more than one row has where the index allows one.
func (a *adoption) twins(ctx context.Context, table string, i schemaStatement) (found []string, err error) {
	rows, err := a.conn.QueryContext(ctx, fmt.Sprintf(`
		SELECT concat_ws(', ', %s), string_agg(id::text, ', ' ORDER BY id) FROM %s
		WHERE %s GROUP BY %s HAVING COUNT(*) > 1 ORDER BY 1 LIMIT 5`, i.on, table, i.where, i.on))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var value, ids string
		if err := rows.Scan(&value, &ids); err != nil {
			return nil, err
		}
		found = append(found, fmt.Sprintf("rows %s all have %s = %s, which only one may", ids, i.on, value))
	}
	return found, rows.Err()
}

// plan is what is still to be done, in order.
func (a *adoption) plan(s survey) (steps []adoptStep) {
	statements := schemaStatements(a.schema)
	for _, st := range statements {
		if !st.host && !slices.Contains(s.own, st.name) {
			what := strings.ToLower(st.kind) + " " + st.name
			steps = append(steps, adoptStep{Why: "Makes sidejob's own " + what + ".", SQL: st.text, lacks: what})
		}
	}
	if missing := s.table.lacks(); len(missing) > 0 {
		steps = append(steps, a.addColumns(s.table.name, missing))
	}
	for _, st := range statements {
		if st.host && st.kind == "INDEX" {
			steps = append(steps, buildIndex(s, st)...)
		}
	}
	for _, st := range statements {
		if st.kind == "TRIGGER" && !slices.Contains(s.own, st.name) {
			steps = append(steps, adoptStep{
				Why: "Has sidejob told at once when the host writes a row.",
				SQL: strings.Replace(st.text, " ON worker_jobs", " ON "+s.table.name, 1), lacks: "trigger " + st.name, locks: true,
			})
		}
	}
	if s.version == 0 {
		steps = append(steps, adoptStep{
			Why: "Notes that the table is adopted; sidejob serve takes it from then on.", lacks: "the note that the adoption is finished",
			SQL: fmt.Sprintf("INSERT INTO %s.meta (key, value) VALUES ('schema', '%d'), ('adopted', 'true')", a.schema, postgresVersion),
		})
	}
	return steps
}

func (a *adoption) addColumns(table string, missing []schemaColumn) adoptStep {
	var clauses, names []string
	for _, c := range missing {
		clauses = append(clauses, fmt.Sprintf("  ADD COLUMN IF NOT EXISTS %s %s", c.name, c.definition))
		names = append(names, c.name)
	}
	return adoptStep{
		Why: fmt.Sprintf("Adds %d columns, each nullable or with a constant default: no row is rewritten, and nobody waits longer than %s.", len(missing), a.lockWait),
		SQL: "ALTER TABLE " + table + "\n" + strings.Join(clauses, ",\n"), lacks: "columns " + strings.Join(names, ", "), locks: true,
	}
}

// buildIndex makes an index while the host goes on writing. What an earlier try has left
// unfinished is of no use and is dropped first, as is one that an older sidejob made of
// other columns.
func buildIndex(s survey, st schemaStatement) (steps []adoptStep) {
	is, ok := s.indexes[st.name]
	if ok && is.valid && st.describes(is) {
		return nil
	}
	if ok {
		schema, _, _ := strings.Cut(s.table.name, ".worker_jobs")
		why, lacks := "Drops what is left of an index that was not finished.", " is not valid"
		if is.valid {
			why, lacks = "Drops an index that an older sidejob made.", " on ("+st.on+")"
		}
		steps = append(steps, adoptStep{
			Why: why, lacks: "index " + st.name + lacks,
			SQL: "DROP INDEX CONCURRENTLY IF EXISTS " + schema + "." + st.name,
		})
	}
	text := strings.Replace(st.text, " ON worker_jobs", " ON "+s.table.name, 1)
	return append(steps, adoptStep{
		Why: "Builds an index while the host goes on reading and writing.", lacks: "index " + st.name,
		SQL: strings.Replace(text, "INDEX ", "INDEX CONCURRENTLY IF NOT EXISTS ", 1),
	})
}

// carryOut does the steps one after the other. note is told of each, before it begins.
func (a *adoption) carryOut(ctx context.Context, steps []adoptStep, note func(format string, args ...any)) error {
	var free bool
	err := a.conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", "adopt "+a.schema).Scan(&free)
	if err != nil {
		return fmt.Errorf("lock the schema: %w", err)
	}
	if !free {
		return errors.New("another sidejob adopts the table now: wait for it")
	}
	for _, step := range steps {
		note("%s", strings.TrimPrefix(step.lacks, "the "))
		if err := a.carryOutOne(ctx, step, note); err != nil {
			return fmt.Errorf("add %s: %w; what was added so far stays, repeat the command to go on", step.lacks, err)
		}
	}
	return nil
}

// carryOutOne gives way to others when it does not get the table in time: whoever
// waits for it makes all wait who come later. An index waits as long as it must, since
// nobody waits for it.
func (a *adoption) carryOutOne(ctx context.Context, step adoptStep, note func(format string, args ...any)) error {
	wait := time.Duration(0)
	if step.locks {
		wait = a.lockWait
	}
	if _, err := a.conn.ExecContext(ctx, fmt.Sprintf("SET lock_timeout = %d", wait.Milliseconds())); err != nil {
		return err
	}
	for try := 1; ; try++ {
		_, err := a.conn.ExecContext(ctx, step.SQL)
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != "55P03" || try == a.tries {
			return err
		}
		note("others hold the table; trying again in %s (%d of %d)", a.rest, try, a.tries)
		pause(ctx, a.rest)
	}
}
