package emulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Limits of what runs outside of the emulator.
const (
	outputAtMost = 10 << 20 // bytes
	tailAtMost   = 2 << 10  // bytes of error output
	killAfter    = 2 * time.Second
)

// assignment is what an outside worker needs to know of an attempt. It is a copy:
// the run itself is the lock's.
type assignment struct {
	task    Task
	run     string
	attempt int
	payload json.RawMessage
}

// launch begins a command or call for the run's present attempt. It reports by
// itself; a cancel stops it first.
func (e *Emulator) launch(r *run, task Task) {
	e.plan(r, stepWork, 0)
	if e.closed {
		return
	}
	ctx, cancel := context.WithCancel(e.ctx)
	e.working[r.ID] = cancel
	a := assignment{task: task, run: r.ID, attempt: r.Attempts, payload: r.inlinePayload()}
	e.owned.Go(func() {
		defer cancel()
		output, why := e.perform(ctx, a)
		e.report(r, output, why)
	})
}

func (e *Emulator) perform(ctx context.Context, a assignment) (json.RawMessage, *TaskError) {
	do := e.call
	if a.task.Command != "" {
		do = command
	}
	output, err := do(ctx, a)
	if err != nil {
		return nil, &TaskError{Name: "Error", Message: err.Error()}
	}
	return output, nil
}

// report is the end of an outside worker. When the emulator is closing the run
// stays as it is, so that the next life does the attempt again.
func (e *Emulator) report(r *run, output json.RawMessage, why *TaskError) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	delete(e.working, r.ID)
	e.plan(r, stepNone, 0)
	switch {
	case r.Status == canceled:
		e.stopped(r)
	case why != nil:
		e.failAttempt(r, why)
	default:
		e.succeed(r, output)
	}
	e.changed(r)
}

func (e *Emulator) call(ctx context.Context, a assignment) (json.RawMessage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.task.URL, bytes.NewReader(a.payload))
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", a.task.URL, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("x-emulator-run-id", a.run)
	req.Header.Set("x-emulator-attempt", strconv.Itoa(a.attempt))
	resp, err := e.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, outputAtMost+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the reply of %s: %w", a.task.URL, err)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return nil, fmt.Errorf("%s answered %s", a.task.URL, resp.Status)
	case len(body) > outputAtMost:
		return nil, errors.New("the reply is over 10 MiB")
	case len(bytes.TrimSpace(body)) == 0:
		return nil, nil
	case !json.Valid(body):
		return nil, fmt.Errorf("%s answered with something but JSON", a.task.URL)
	}
	return compactRaw(body), nil
}

func command(ctx context.Context, a assignment) (json.RawMessage, error) {
	out, complaint := &capture{first: outputAtMost + 1}, &capture{last: tailAtMost}
	cmd := exec.CommandContext(ctx, "sh", "-c", a.task.Command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(a.payload), out, complaint
	cmd.Env = append(os.Environ(), "RUN_ID="+a.run, "RUN_ATTEMPT="+strconv.Itoa(a.attempt))
	cmd.WaitDelay = killAfter
	finish := ownGroup(cmd)
	err := cmd.Run()
	finish()
	text := out.text()
	switch {
	case err != nil && complaint.text() != "":
		return nil, errors.New(complaint.text())
	case err != nil:
		return nil, fmt.Errorf("command: %w", err)
	case out.kept.Len() > outputAtMost:
		return nil, errors.New("the command's output is over 10 MiB")
	case text == "":
		return nil, nil
	case json.Valid([]byte(text)):
		return compactRaw([]byte(text)), nil
	}
	return compactJSON(text), nil
}

// capture keeps the first, or if that is 0 the last, so many bytes written to it.
// It does not embed the buffer, whose ReadFrom would go around Write.
type capture struct {
	kept        bytes.Buffer
	first, last int
}

func (c *capture) Write(p []byte) (int, error) {
	if c.first > 0 {
		c.kept.Write(p[:min(len(p), c.first-c.kept.Len())])
		return len(p), nil
	}
	c.kept.Write(p)
	if over := c.kept.Len() - c.last; over > 0 {
		c.kept.Next(over)
	}
	return len(p), nil
}

func (c *capture) text() string { return strings.TrimSpace(c.kept.String()) }
