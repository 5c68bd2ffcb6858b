package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
)

// dbCommands are sidejob db.
type dbCommands struct {
	Init   dbInit   `cmd:"" help:"Make the schema in an empty database."`
	Check  dbCheck  `cmd:"" help:"Say what the database is and what it lacks. Exit code 1 when something is wrong."`
	Adopt  dbAdopt  `cmd:"" help:"Show what a host's worker_jobs on PostgreSQL lacks, as SQL; with --yes, add it."`
	Backup dbBackup `cmd:"" help:"Copy a SQLite database, also while a server runs."`
}

// databaseFlags say which database.
type databaseFlags struct {
	Database string `env:"DATABASE_URL" default:"sidejob.db" placeholder:"PATH" help:"The database: PATH, sqlite:PATH or postgres://…. DATABASE_URL_FILE names a file that holds it."`
}

// address is the path of a SQLite file, or the URL of a PostgreSQL.
func (f databaseFlags) address(std streams) (address string, postgres bool, err error) {
	if address, err = environment(std.env).database(f.Database); err != nil {
		return "", false, usage(err)
	}
	return strings.TrimPrefix(address, "sqlite:"), isPostgres(address), nil
}

// dbReport is what sidejob db check says.
type dbReport struct {
	Engine string   `json:"engine"`
	Schema int      `json:"schema"` // 0: none
	Table  string   `json:"table"`  // own, adopted, foreign or none
	Wrong  []string `json:"wrong"`
}

func (r dbReport) print(f printFlags, std streams) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return f.print(std, body, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "%s, schema %d, worker_jobs: %s\n", r.Engine, r.Schema, r.Table)
		for _, what := range r.Wrong {
			_, err = fmt.Fprintln(out, "- "+printable(what))
		}
		return err
	})
}

// look reads what is there and changes nothing.
func (f databaseFlags) look(ctx context.Context, std streams) (dbReport, error) {
	address, postgres, err := f.address(std)
	if err != nil {
		return dbReport{}, err
	}
	if !postgres {
		return lookAtSQLite(ctx, address)
	}
	a, err := openAdoption(ctx, newPostgresConfig(address, slog.New(slog.DiscardHandler)))
	if err != nil {
		return dbReport{}, err
	}
	defer a.shut()
	s, err := a.survey(ctx)
	if err != nil {
		return dbReport{}, err
	}
	return postgresReport(a, s), nil
}

func postgresReport(a *adoption, s survey) dbReport {
	r := dbReport{Engine: "PostgreSQL", Schema: s.version, Table: "own", Wrong: s.problems}
	switch {
	case s.table.name == "":
		r.Table, r.Wrong = "none", []string{"there is no schema: sidejob db init or sidejob serve makes it"}
		return r
	case !s.ours:
		r.Table, r.Wrong = "foreign", append(r.Wrong, "sidejob did not make it: see what would be added with sidejob db adopt")
		return r
	case s.adopted || s.version == 0:
		r.Table = "adopted"
	}
	for _, step := range a.plan(s) {
		r.Wrong = append(r.Wrong, "lacks "+step.lacks+": sidejob db adopt --yes adds it")
	}
	return r
}

func lookAtSQLite(ctx context.Context, path string) (dbReport, error) {
	r := dbReport{Engine: "SQLite", Table: "none"}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		r.Wrong = []string{"there is no " + path + ": sidejob db init or sidejob serve makes it"}
		return r, nil
	}
	if err := checkSQLiteFile(path); err != nil {
		r.Table, r.Wrong = "foreign", []string{err.Error()}
		return r, nil
	}
	version, wrong, err := inspectSQLite(ctx, path)
	if err != nil {
		return r, err
	}
	r.Schema, r.Wrong = version, wrong
	if version > 0 {
		r.Table = "own"
	}
	return r, nil
}

type dbInit struct {
	databaseFlags `embed:""`
}

// Run implements sidejob db init.
func (c dbInit) Run(ctx context.Context, std streams) error {
	before, err := c.look(ctx, std)
	if err != nil {
		return err
	}
	address, _, err := c.address(std)
	if err != nil {
		return err
	}
	store, err := openStore(ctx, address, pool{deaf: true}, now(), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	if err := store.Close(); err != nil {
		return err
	}
	after, err := c.look(ctx, std)
	if err != nil {
		return err
	}
	what := "the schema is there already"
	if before.Schema != after.Schema {
		what = "made the schema"
	}
	_, err = fmt.Fprintf(std.out, "%s: %s (schema %d)\n", after.Engine, what, after.Schema)
	return err
}

type dbCheck struct {
	databaseFlags `embed:""`
	printFlags    `embed:""`
}

// Run implements sidejob db check.
func (c dbCheck) Run(ctx context.Context, std streams) error {
	r, err := c.look(ctx, std)
	if err != nil {
		return err
	}
	if r.Wrong == nil {
		r.Wrong = []string{}
	}
	if err := r.print(c.printFlags, std); err != nil {
		return err
	}
	if len(r.Wrong) > 0 {
		return exitf(exitFailure, "something is wrong with the database")
	}
	return nil
}

type dbAdopt struct {
	databaseFlags `embed:""`
	printFlags    `embed:""`
	Yes           bool `help:"Do what the plan says."`
}

// adoptReport is what sidejob db adopt prints.
type adoptReport struct {
	Table string      `json:"table"`
	Done  bool        `json:"done"`
	Steps []adoptStep `json:"steps"`
}

// Run implements sidejob db adopt.
func (c dbAdopt) Run(ctx context.Context, std streams) error {
	address, postgres, err := c.address(std)
	if err != nil {
		return err
	}
	if !postgres {
		return usage(errors.New("only a table on PostgreSQL can be adopted: set DATABASE_URL or --database to postgres://…"))
	}
	a, err := openAdoption(ctx, newPostgresConfig(address, slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	defer a.shut()
	r, err := c.planned(ctx, a)
	if err != nil {
		return err
	}
	if err := c.show(r, std); err != nil || len(r.Steps) == 0 {
		return err
	}
	if !c.Yes {
		std.note("nothing was changed; sidejob db adopt --yes does it")
		return nil
	}
	return c.carryOut(ctx, a, r.Steps, std)
}

// planned is the plan, or why there can be none.
func (c dbAdopt) planned(ctx context.Context, a *adoption) (adoptReport, error) {
	s, err := a.survey(ctx)
	switch {
	case err != nil:
		return adoptReport{}, err
	case s.table.name == "":
		return adoptReport{}, exitf(exitFailure, "the database has no worker_jobs: there is nothing to adopt, sidejob serve makes a table of its own")
	case len(s.problems) > 0:
		return adoptReport{}, exitf(exitFailure, "%s cannot be adopted as it is, and was left so:\n- %s", s.table.name, strings.Join(s.problems, "\n- "))
	}
	steps := a.plan(s)
	return adoptReport{Table: s.table.name, Done: c.Yes || len(steps) == 0, Steps: steps}, nil
}

func (c dbAdopt) show(r adoptReport, std streams) error {
	if c.Output == "json" && len(r.Steps) == 0 {
		r.Steps = []adoptStep{}
	}
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return c.print(std, body, func(out io.Writer) error {
		if len(r.Steps) == 0 {
			_, err := fmt.Fprintf(out, "%s has all that sidejob needs: nothing is missing\n", r.Table)
			return err
		}
		for _, step := range r.Steps {
			if _, err := fmt.Fprintf(out, "-- %s\n%s;\n\n", step.Why, step.SQL); err != nil {
				return err
			}
		}
		return nil
	})
}

// carryOut does the plan and looks whether it has come true.
func (c dbAdopt) carryOut(ctx context.Context, a *adoption, steps []adoptStep, std streams) error {
	if err := a.carryOut(ctx, steps, std.note); err != nil {
		return err
	}
	r, err := c.planned(ctx, a)
	if err != nil {
		return err
	}
	if len(r.Steps) > 0 {
		return exitf(exitFailure, "%s still lacks %s: repeat the command", r.Table, r.Steps[0].lacks)
	}
	std.note("%s is adopted: sidejob serve takes it from now on", r.Table)
	return nil
}

type dbBackup struct {
	databaseFlags `embed:""`
	File          string `arg:"" help:"Where to write the copy; it must not be there yet."`
}

// Run implements sidejob db backup.
func (c dbBackup) Run(ctx context.Context, std streams) error {
	address, postgres, err := c.address(std)
	if err != nil {
		return err
	}
	if postgres {
		return usage(errors.New("sidejob copies SQLite files only: for PostgreSQL use pg_dump"))
	}
	size, err := backupSQLite(ctx, address, c.File)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s: %d bytes\n", c.File, size)
	return err
}
