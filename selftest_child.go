package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

// child is a process of this same program.
type child struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
}

// startChild runs the program with these arguments and waits until url answers.
// What it logs is added to the file.
func startChild(ctx context.Context, logFile string, env []string, url string, args ...string) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(exe, args...), log: log, done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.Env = append(foreignEnvironment(), env...)
	if err := c.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait() // how it ends is what is tested
		_ = log.Close()
	}()
	return c, c.answers(ctx, url)
}

// foreignEnvironment is this process's own environment without what configures
// sidejob.
func foreignEnvironment() (env []string) {
	for _, line := range os.Environ() {
		name, _, _ := strings.Cut(line, "=")
		ours := strings.HasPrefix(name, "SIDEJOB_") && !strings.HasPrefix(name, "SIDEJOB_TEST_") ||
			strings.HasPrefix(name, "TRIGGER_") || strings.HasPrefix(name, "LOG_") || strings.HasPrefix(name, "DATABASE_URL") ||
			name == "WORKER_COUNT"
		if !ours {
			env = append(env, line)
		}
	}
	return env
}

// answers waits until the child serves. One that ends before, at a failpoint, has
// had its life.
func (c *child) answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(r); err == nil {
			return res.Body.Close()
		}
		select {
		case <-c.done:
			if c.cmd.ProcessState.ExitCode() < 0 { // killed by a signal
				return nil
			}
			return fmt.Errorf("it ended with exit code %d; its log is %s", c.cmd.ProcessState.ExitCode(), c.log.Name())
		case <-ctx.Done():
			c.kill()
			return fmt.Errorf("it does not answer; its log is %s", c.log.Name())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// kill ends the process as a power cut would.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may have ended by itself
	<-c.done
}

// dead tells whether the process has ended.
func (c *child) dead() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// terminate asks the process to drain and waits until it has left in peace.
func (c *child) terminate(ctx context.Context) error {
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		<-c.done // it has ended by itself, at a failpoint
		return nil
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(40 * time.Second):
		c.kill()
		return errors.New("it did not leave within 40 s of an interrupt")
	}
	if code := c.cmd.ProcessState.ExitCode(); code > 0 {
		return fmt.Errorf("it left with exit code %d after an interrupt; its log is %s", code, c.log.Name())
	}
	return nil
}

// unusedAddress is a loopback address that nobody listens on now.
func unusedAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
