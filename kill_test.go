package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// killCount is how often the crash test kills the server; more is slower and surer.
func killCount() *int {
	return flag.Int("kills", 15, "how often TestKilledServerLosesNothing kills the server")
}

var kills = killCount()

// TestKilledServerLosesNothing runs sidejob selftest: the server is killed at random
// moments and at failpoints under a mixed load of schedules and cancels, while the
// emulator runs on and misbehaves. Afterwards every acknowledged job is there, none
// has two runs, and every row ends as the emulator says.
func TestKilledServerLosesNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	p := startProcess(t, t.TempDir(), nil, "selftest", "--kills", strconv.Itoa(*kills), "--seed", "7")
	passes(t, p)
}

// TestKilledServerLosesNothingOnPostgreSQL does the same on a database of a server,
// whose password nobody may see.
func TestKilledServerLosesNothingOnPostgreSQL(t *testing.T) {
	t.Parallel()
	provenOnPostgreSQL(t, 10, 3)
}

// TestAHundredKillsOnPostgreSQL takes its time.
func TestAHundredKillsOnPostgreSQL(t *testing.T) {
	tellAtLeisure(t)
	t.Parallel()
	provenOnPostgreSQL(t, 100, 100)
}

func provenOnPostgreSQL(t *testing.T, kills, seed int) {
	t.Helper()
	const password = "kill-test-pa55"
	address := withRole(t, "CREATEDB", password)
	p := startProcess(t, t.TempDir(), nil, "selftest", "--kills", strconv.Itoa(kills), "--seed", strconv.Itoa(seed), "--database", address)
	if runtime.GOOS == "linux" {
		if argv := argumentsOfChild(t, p, "serve"); strings.Contains(argv, password) {
			t.Errorf("the arguments of the server show the password: %q", argv)
		}
	}
	passes(t, p)
	contains(t, p.out.text(), " on PostgreSQL")
	if strings.Contains(p.out.text()+p.err.text(), password) {
		t.Errorf("the password is shown: %s %s", p.out.text(), p.err.text())
	}
	leavesNoDatabase(t, p)
}

// passes waits for a selftest that finds nothing broken, and has tried everything.
func passes(t *testing.T, p *process) {
	t.Helper()
	code := p.exit(10 * time.Minute)
	t.Logf("%s", p.out.text())
	if code != 0 {
		t.Errorf("exit code %d, want 0; stderr: %s", code, p.err.text())
	}
	for line := range strings.Lines(p.out.text()) {
		if words := strings.Fields(line); canFillDisk && strings.Contains(line, "away is said") && words[len(words)-2] == "0" {
			t.Errorf("the database was never away; take another seed")
		}
	}
}

// argumentsOfChild waits until the process has started a sidejob with this command and
// gives its command line.
func argumentsOfChild(t *testing.T, p *process, command string) string {
	t.Helper()
	for !closed(p.done) {
		found, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid)) // the pattern is right
		for _, list := range found {
			children, _ := os.ReadFile(list) // it may have gone
			for _, pid := range strings.Fields(string(children)) {
				argv, _ := os.ReadFile("/proc/" + pid + "/cmdline")
				if strings.Contains(string(argv), "\x00"+command+"\x00") {
					return string(argv)
				}
			}
		}
		<-time.After(time.Millisecond)
	}
	t.Fatalf("it has started no %s; stderr: %s", command, p.err.text())
	return ""
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// leavesNoDatabase looks for those that the selftest has made.
func leavesNoDatabase(t *testing.T, p *process) {
	t.Helper()
	line, err := p.err.waitFor(t.Context(), "seed ")
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(line)
	var left int
	name := words[len(words)-1]
	if !strings.HasPrefix(name, "sidejob_selftest_") {
		t.Errorf("%q names no database of its own", line)
	}
	admin := throwAwayCluster().connect(t, throwAwayCluster().url(t))
	if err := admin.QueryRow("SELECT COUNT(*) FROM pg_database WHERE starts_with(datname, $1)", name).Scan(&left); err != nil || left > 0 {
		t.Errorf("%d databases of %s are left (%v)", left, name, err)
	}
}

func TestASelftestThatFailsLeavesNoDatabase(t *testing.T) {
	p := startProcess(t, t.TempDir(), nil, "selftest", "--kills", "0", "--settle", "1ns", "--database", throwAwayCluster().url(t))
	if code := p.exit(time.Minute); code != exitFailure {
		t.Errorf("exit code %d, want %d; stderr: %s", code, exitFailure, p.err.text())
	}
	leavesNoDatabase(t, p)
}

func TestASelftestTakesNothingFromTheEnvironment(t *testing.T) {
	env := []string{"DATABASE_URL=postgres://u:secret@127.0.0.1:1/production", "SIDEJOB_LISTEN=127.0.0.1:1", "WORKER_COUNT=none"}
	p := startProcess(t, t.TempDir(), env, "selftest", "--kills", "0")
	if code := p.exit(time.Minute); code != exitOK {
		t.Errorf("exit code %d, want 0; stderr: %s", code, p.err.text())
	}
	contains(t, p.out.text(), " on SQLite")
}

func TestSelftestRefusesNonsense(t *testing.T) {
	poor := withRole(t, "NOCREATEDB", "secret")
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"kills that are none", []string{"--kills", "-1"}, exitUsage, []string{"--kills"}},
		{"a file", []string{"--database", "sidejob.db"}, exitUsage, []string{"--database", "postgres://"}},
		{"an address that is empty", []string{"--database", ""}, exitUsage, []string{"--database", "postgres://"}},
		{"an address that is none", []string{"--database", "postgres://u:secret@[::1/d"}, exitUsage, []string{"--database"}},
		{"a server that is away", []string{"--database", "postgres://u:secret@127.0.0.1:1/d"}, exitUnreachable, []string{"--database", "127.0.0.1"}},
		{"a role that may not", []string{"--database", poor}, exitUsage, []string{"--database", "CREATEDB", "kill_test_"}},
		{"a database that is not there", []string{"--database", strings.Replace(poor, "/postgres?", "/none?", 1)}, exitUsage, []string{"--database", "none"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := sidejob(t, nil, append([]string{"selftest"}, c.args...)...)
			if code != c.code || out != "" {
				t.Errorf("exit code %d, want %d; stdout %q", code, c.code, out)
			}
			contains(t, errs, c.says...)
			if strings.Contains(errs, "secret") {
				t.Errorf("the password is shown: %s", errs)
			}
		})
	}
}

// withRole makes a role that may do so much and no more, and gives an address for it
// with a password.
func withRole(t *testing.T, may, password string) (address string) {
	t.Helper()
	admin := throwAwayCluster().connect(t, throwAwayCluster().url(t))
	name := fmt.Sprintf("kill_test_%d_%d", os.Getpid(), throwAwayCluster().schemas.Add(1))
	if _, err := admin.Exec("CREATE ROLE " + name + " LOGIN " + may); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.Exec("DROP ROLE " + name); err != nil {
			t.Errorf("drop the role: %v", err)
		}
	})
	u, err := url.Parse(throwAwayCluster().url(t))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(name, password)
	return u.String()
}
