//go:build unix

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestAReadOnlyPlaceIsRefused starts sidejob as a user who may not write. Where the
// tests run as root, whom no mode stops, that is nobody.
func TestAReadOnlyPlaceIsRefused(t *testing.T) {
	base, err := os.MkdirTemp("", "sidejob-readonly-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = os.Chmod(filepath.Join(base, "place"), 0o755)
		_ = os.RemoveAll(base)
	})
	program, place := filepath.Join(base, "sidejob"), filepath.Join(base, "place")
	copyProgram(t, program)
	if err := os.Mkdir(place, 0o755); err != nil {
		t.Fatal(err)
	}
	store, err := openSQLite(t.Context(), filepath.Join(place, "there.db"), now())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(place, "there.db.lock"))
	for path, mode := range map[string]os.FileMode{base: 0o755, filepath.Join(place, "there.db"): 0o444, place: 0o555} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.ReadFile(filepath.Join(place, "there.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"there.db", "new.db"} {
		cmd := exec.Command(program, "serve", "--no-trigger", "--listen", "127.0.0.1:0", "--database", filepath.Join(place, name))
		cmd.Env = []string{asProgram + "=1", "SIDEJOB_TOKEN=x"}
		cmd.Dir = base
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != exitFailure {
			t.Errorf("%s: exit code %d (%v), want %d; it says %s", name, code, err, exitFailure, out)
		}
		contains(t, string(out), filepath.Join(place, name), "--database")
	}
	after, err := os.ReadFile(filepath.Join(place, "there.db"))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the database was changed (%v)", err)
	}
	if left, err := os.ReadDir(place); err != nil || len(left) != 1 {
		t.Errorf("the folder holds %v (%v), want there.db alone", left, err)
	}
}

// copyProgram puts this program where everybody may run it.
func copyProgram(t *testing.T, to string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
