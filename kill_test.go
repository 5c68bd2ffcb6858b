package main

import (
	"flag"
	"strconv"
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
	p := startProcess(t, t.TempDir(), nil, "selftest", "--kills", strconv.Itoa(*kills), "--seed", "7")
	code := p.exit(10 * time.Minute)
	t.Logf("%s", p.out.text())
	if code != 0 {
		t.Errorf("exit code %d, want 0; stderr: %s", code, p.err.text())
	}
}

func TestSelftestRefusesNonsense(t *testing.T) {
	code, _, errs := sidejob(t, nil, "selftest", "--kills", "-1")
	if code != exitUsage {
		t.Errorf("exit code %d, want %d", code, exitUsage)
	}
	contains(t, errs, "--kills")
}
