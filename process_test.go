package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// asProgram makes the test binary behave as sidejob itself, so that tests can start
// real processes, and kill them, without building first.
const asProgram = "SIDEJOB_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	code := m.Run()
	throwAwayCluster().stop()
	os.Exit(code)
}

// process is a sidejob that runs as a program of its own.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *lineLog
	err  *lineLog
	done chan struct{}
}

// startProcess runs sidejob with these arguments, in a folder, with a clean
// environment but for env.
func startProcess(t *testing.T, dir string, env []string, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(exe, args...), out: newLineLog(), err: newLineLog(), done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Env = append([]string{asProgram + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start sidejob %s: %v", strings.Join(args, " "), err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // its state says how it ended
		p.out.end()
		p.err.end()
	}()
	t.Cleanup(p.kill)
	return p
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}

// exit waits for the process to end by itself and gives its exit code.
func (p *process) exit(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		p.kill()
		p.t.Fatalf("it still runs after %s; stderr: %s", within, p.err.text())
	}
	return p.cmd.ProcessState.ExitCode()
}

// lineLog keeps what a process prints, and lets a reader wait for a line.
type lineLog struct {
	mu    sync.Mutex
	all   bytes.Buffer
	grown chan struct{}
	ended bool
}

func newLineLog() *lineLog { return &lineLog{grown: make(chan struct{})} }

// Write implements io.Writer.
func (l *lineLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Write(b)
	close(l.grown)
	l.grown = make(chan struct{})
	return len(b), nil
}

func (l *lineLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *lineLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// waitFor gives the first line that holds the text.
func (l *lineLog) waitFor(ctx context.Context, part string) (string, error) {
	for {
		l.mu.Lock()
		text, grown, ended := l.all.String(), l.grown, l.ended
		l.mu.Unlock()
		lines := bufio.NewScanner(strings.NewReader(text))
		for lines.Scan() {
			if strings.Contains(lines.Text(), part) {
				return lines.Text(), nil
			}
		}
		if ended {
			return "", fmt.Errorf("it ended without saying %q: %s", part, text)
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return "", fmt.Errorf("it has not said %q: %s", part, text)
		}
	}
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

const processSecret = "process-test-secret"

// startEmulatorProcess runs sidejob emulator until the test ends.
func startEmulatorProcess(t *testing.T, webhookURL, tasks string, more ...string) (base string) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"emulator", "--emulator-listen", freeAddress(t)}
	if webhookURL != "" {
		args = append(args, "--emulator-webhook-url", webhookURL)
	}
	if tasks != "" {
		path := dir + "/tasks.json"
		if err := os.WriteFile(path, []byte(tasks), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--emulator-tasks", path)
	}
	p := startProcess(t, dir, []string{"TRIGGER_WEBHOOK_SECRET=" + processSecret}, append(args, more...)...)
	if _, err := p.out.waitFor(t.Context(), "Trigger.dev emulator"); err != nil {
		t.Fatalf("the emulator does not start: %v %s", err, p.err.text())
	}
	return "http://" + args[2]
}

// caller is a host app that calls sidejob.
type hostApp struct {
	base   string
	client *http.Client
}

// do makes a call. An error says that no whole answer came.
func (h hostApp) do(method, path, body string, header ...string) (status int, answer []byte, err error) {
	r, err := http.NewRequest(method, h.base+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "Bearer process-token")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := h.client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}
