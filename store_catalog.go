package main

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
)

//go:embed schema_postgres.sql
var postgresSchema string

// postgresVersion is of schema_postgres.sql, kept in the table meta.
const postgresVersion = 2

// schemaStatement is one statement of schema_postgres.sql.
type schemaStatement struct {
	text   string // without the semicolon
	kind   string // SCHEMA, TABLE, INDEX, FUNCTION or TRIGGER
	name   string
	host   bool   // it is about worker_jobs, not about a table of sidejob's own
	unique bool   // an index
	on     string // the columns of an index
	method string // of an index that is no B-tree
	where  string // its condition
}

// schemaStatements reads the schema as it is made where sidejob's own tables stand in
// the schema of that name.
func schemaStatements(schema string) []schemaStatement {
	var all []schemaStatement
	text := ""
	for line := range strings.Lines(schemaText(schema)) {
		if text == "" && (strings.HasPrefix(line, "--") || strings.TrimSpace(line) == "") {
			continue
		}
		text += line
		whole, ended := strings.CutSuffix(text, ";\n")
		if !ended || strings.Count(text, "$$")%2 == 1 {
			continue
		}
		all = append(all, readStatement(whole, schema))
		text = ""
	}
	return all
}

func schemaText(schema string) string {
	return strings.NewReplacer("sidejob.", schema+".", "EXISTS sidejob;", "EXISTS "+schema+";", "'sidejob'", "'"+schema+"'").Replace(postgresSchema)
}

func readStatement(text, schema string) schemaStatement {
	head, unique := strings.CutPrefix(strings.TrimPrefix(text, "CREATE "), "UNIQUE ")
	kind, rest, _ := strings.Cut(head, " ")
	name, rest, _ := strings.Cut(strings.TrimPrefix(rest, "IF NOT EXISTS "), " ")
	s := schemaStatement{text: text, unique: unique, kind: kind, name: strings.TrimSuffix(name, "()")}
	s.host = s.name == "worker_jobs" || strings.Contains(text, " ON worker_jobs")
	if s.kind != "INDEX" {
		return s
	}
	// ON table [USING method] (columns) [WHERE condition]
	on, where, _ := strings.Cut(strings.Join(strings.Fields(rest), " "), " WHERE ")
	table, on, _ := strings.Cut(strings.TrimSuffix(on, ")"), " (")
	_, s.method, _ = strings.Cut(table, " USING ")
	s.on, s.where = on, where
	if !s.host {
		s.name = schema + "." + s.name
	}
	return s
}

// schemaColumn is a column of worker_jobs as schema_postgres.sql has it.
type schemaColumn struct {
	name, kind string
	definition string // what follows the name, without its CHECK
	host       bool   // one of the nineteen that every host's table has
	notNull    bool
}

// schemaColumns are those of worker_jobs, in order.
func schemaColumns() []schemaColumn {
	_, body, _ := strings.Cut(postgresSchema, "CREATE TABLE worker_jobs (\n")
	body, _, _ = strings.Cut(body, "\n);")
	var all []schemaColumn
	host := true
	for line := range strings.SplitSeq(body, "\n") {
		line = strings.TrimSuffix(strings.TrimSpace(line), ",")
		if line == "" || strings.HasPrefix(line, "--") || strings.HasPrefix(line, "CHECK ") {
			continue
		}
		name, definition, _ := strings.Cut(line, " ")
		definition, _, _ = strings.Cut(definition, " CHECK ")
		definition = strings.TrimSpace(definition)
		kind, _, _ := strings.Cut(definition, " ")
		all = append(all, schemaColumn{
			name: name, kind: kind, definition: definition, host: host,
			notNull: strings.Contains(definition, "NOT NULL") || strings.Contains(definition, "PRIMARY KEY"),
		})
		host = host && name != "updated_at"
	}
	return all
}

// heldColumn is a column as the catalog describes it.
type heldColumn struct {
	kind       string // the name of its type in the catalog, such as int4
	shown      string // its type as people write it
	notNull    bool
	hasDefault bool
}

// fits says why a column that is there cannot be what sidejob needs, "" when it can.
// The host's own may be narrower: ids and delays of 32 bits, times without a zone.
func (c schemaColumn) fits(is heldColumn) string {
	accepted := map[string]string{
		"bigint": "int8", "integer": "int4 int8", "text": "text varchar", "boolean": "bool", "json": "json jsonb", "timestamptz": "timestamptz timestamp",
	}[c.kind]
	if c.host && c.kind == "bigint" {
		accepted = "int8 int4"
	}
	for kind := range strings.FieldsSeq(accepted) {
		if kind == is.kind {
			return ""
		}
	}
	return fmt.Sprintf("column %s is %s; it must be %s", c.name, is.shown, c.kind)
}

// hostTable is a worker_jobs as it is.
type hostTable struct {
	name    string // as SQL names it, with its schema
	plain   bool   // a table, not a view and not a partitioned one
	columns map[string]heldColumn
}

// readTable reads the worker_jobs that the connection finds; its name is empty where
// there is none.
func readTable(ctx context.Context, q queryer) (t hostTable, err error) {
	rows, err := q.QueryContext(ctx, `
		SELECT format('%I.%I', n.nspname, c.relname), c.relkind = 'r', a.attname, t.typname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef OR a.attidentity <> ''
		FROM pg_class c
		JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		JOIN pg_type t ON t.oid = a.atttypid
		WHERE c.oid = to_regclass('worker_jobs')`)
	if err != nil {
		return t, fmt.Errorf("read the columns of worker_jobs: %w", err)
	}
	defer rows.Close()
	t.columns = map[string]heldColumn{}
	for rows.Next() {
		var name string
		var c heldColumn
		if err := rows.Scan(&t.name, &t.plain, &name, &c.kind, &c.shown, &c.notNull, &c.hasDefault); err != nil {
			return t, fmt.Errorf("read the columns of worker_jobs: %w", err)
		}
		t.columns[name] = c
	}
	return t, rows.Err()
}

// lacks are the columns that have to be added, those beside narrow delays at the end.
func (t hostTable) lacks() []schemaColumn {
	var missing []schemaColumn
	for _, c := range schemaColumns() {
		if _, ok := t.columns[c.name]; !ok {
			missing = append(missing, c)
		}
	}
	narrow := dialect{host: t.differs()}
	for _, name := range narrow.wideNames() {
		if _, ok := t.columns[name]; !ok {
			missing = append(missing, schemaColumn{name: name, kind: "bigint", definition: "bigint"})
		}
	}
	return missing
}

// differs tells of the columns that take less than sidejob's own would.
func (t hostTable) differs() map[string]hostColumn {
	narrower := map[string]hostColumn{}
	for _, c := range schemaColumns() {
		is, ok := t.columns[c.name]
		d := hostColumn{int4: c.kind == "bigint" && is.kind == "int4", notNull: is.notNull && !c.notNull}
		if ok && d != (hostColumn{}) {
			narrower[c.name] = d
		}
	}
	return narrower
}
