package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// floors is the house from the ground up: a room uses only what rooms below it
// declare, and rooms of one floor do not know each other. It reads as the table of
// contents.
func floors() [][]string {
	return [][]string{
		{"clock.go", "hub.go", "turns.go", "logs.go", "listen.go", "token.go", "version.go", "exit.go", "failpoint.go"},
		{"store.go"},         // what a store promises
		{"store_dialect.go"}, // what engines say differently
		{"store_columns.go"}, // a row and a Job
		{"store_sql.go", "store_claim.go", "store_recurring.go", "store_inbox.go", "store_list.go", "store_replies.go", "store_lead.go"}, // one SQL text
		{"store_catalog.go"},                       // a table as PostgreSQL has it
		{"store_sqlite.go", "store_postgres.go"},   // engines
		{"store_adopt.go", "store_sqlite_copy.go"}, // a host's own table; a copy
		{"store_look.go"},                          // what a database tells of its users
		{"trigger_breaker.go"},                     // is it called
		{"trigger_health.go"},                      // does Trigger.dev answer
		{"trigger.go"},                             // a job and a run
		{"trigger_schedule.go"},                    // a recurring job and a schedule
		{"outbox.go", "outbox_restore.go", "outbox_schedule.go", "poller.go"}, // tell, and ask
		{"leader.go"},    // who does what is to be done once
		{"worker.go"},    // take jobs, and carry out the built-in ones
		{"fired.go"},     // what schedules have fired
		{"clockwork.go"}, // what the clock alone brings about
		{"problem.go"},   // an error and a status
		{"metrics.go"},   // how are we
		{"webhook_verify.go", "webhook_event.go"},                      // whose words, and which
		{"webhook_sign.go"},                                            // speak as Trigger.dev would
		{"webhook.go", "realtime.go"},                                  // hear, and compare
		{"reconcile.go", "reconcile_list.go", "reconcile_schedule.go"}, // compare
		{"schedule.go"},                                                // what runs how often
		{"api_job.go"},                                                 // a job as callers see it
		{"registry.go"},                                                // jobs by name
		{"api.go", "api_schedule.go", "api_recurring.go", "api_preview.go", "api_worker.go", "api_list.go", "api_once.go", "api_guard.go", "api_openapi.go"}, // the private listener
		{"serve.go"},               // all of it, started and stopped
		{"cli"},                    // the commands that call a server
		{"selftest_disk_linux.go"}, // a disk to fill
		{"selftest.go", "selftest_database.go", "selftest_sqlite.go", "selftest_postgres.go", "selftest_child.go", "selftest_host.go", "selftest_relay.go", "selftest_forge.go", "selftest_trouble.go", "selftest_judge.go", "selftest_restore.go", "selftest_progress.go"}, // proof by crash
		{"main.go", "main_serve.go", "main_dev.go", "main_db.go", "main_doctor.go", "main_doctor_calls.go", "main_token.go"},                                                                                                                                                // the command line
	}
}

// together are floors whose rooms may use each other.
func together() []string {
	return []string{"store_sql.go", "outbox.go", "reconcile.go", "api.go", "cli", "selftest.go", "main.go"}
}

// room is the name under which a file stands in floors.
func room(file string) string {
	if strings.HasPrefix(file, "cli") {
		return "cli"
	}
	return file
}

func TestRoomsUseOnlyWhatIsBelowThem(t *testing.T) {
	floorOf := map[string]int{}
	mixed := map[int]bool{}
	for n, rooms := range floors() {
		for _, r := range rooms {
			floorOf[r] = n
			mixed[n] = mixed[n] || slices.Contains(together(), r)
		}
	}
	fset, files, info := typeCheck(t)
	for path := range files {
		if _, ok := floorOf[room(path)]; !ok {
			t.Errorf("%s stands on no floor", path)
		}
	}
	for _, use := range slices.SortedFunc(maps.Keys(info.Uses), func(a, b *ast.Ident) int { return int(a.Pos() - b.Pos()) }) {
		obj := info.Uses[use]
		if obj.Pkg() == nil || obj.Pkg().Name() != "main" || !obj.Pos().IsValid() {
			continue
		}
		from, to := fset.Position(use.Pos()), fset.Position(obj.Pos())
		above, below := room(filepath.Base(from.Filename)), room(filepath.Base(to.Filename))
		if above == below || floorOf[below] < floorOf[above] || floorOf[below] == floorOf[above] && mixed[floorOf[above]] {
			continue
		}
		t.Errorf("%s:%d uses %s, which %s declares; that is not below it", above, from.Line, use.Name, below)
	}
}

// typeCheck reads the package as it is built here, tests aside.
func typeCheck(t *testing.T) (*token.FileSet, map[string]*ast.File, *types.Info) {
	t.Helper()
	fset := token.NewFileSet()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	var list []*ast.File
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, "_other.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = f
		list = append(list, f)
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	check := types.Config{Importer: strangers{}, Error: func(error) {}}
	_, _ = check.Check("sidejob", fset, list, info) // the compiler tells what is wrong
	return fset, files, info
}

// strangers imports every package as an empty one: only the package's own names
// count here, and the compiler checks the rest.
type strangers struct{}

// Import implements types.Importer.
func (strangers) Import(path string) (*types.Package, error) {
	p := types.NewPackage(path, filepath.Base(path))
	p.MarkComplete()
	return p, nil
}

// TestPackagesStayApart holds the walls between the folders under internal.
func TestPackagesStayApart(t *testing.T) {
	err := filepath.WalkDir("internal", func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			of := strings.Trim(spec.Path.Value, `"`)
			if strings.HasPrefix(of, "sidejob/") && !strings.HasPrefix(of, "sidejob/internal/job") {
				t.Errorf("%s imports %s; a folder under internal knows internal/job at most", path, of)
			}
			apart := strings.HasPrefix(filepath.ToSlash(path), "internal/job/") && slices.Contains([]string{"database/sql", "net/http", "log/slog", "log"}, of)
			if apart {
				t.Errorf("%s imports %s; the rules know no SQL, no HTTP and no log", path, of)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
