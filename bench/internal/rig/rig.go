// Package rig runs sidejob's processes and counts the calls between them.
package rig

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Process is a running sidejob command.
type Process struct {
	cmd *exec.Cmd
	Log *os.File
}

// Start runs the binary and returns when url answers, and how long that took.
func Start(binary, log string, env []string, url string, args ...string) (*Process, time.Duration, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, 0, err
	}
	p := &Process{cmd: exec.Command(binary, args...), Log: f}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	begun := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, 0, err
	}
	for time.Since(begun) < time.Minute {
		if res, err := http.Get(url); err == nil {
			res.Body.Close()
			return p, time.Since(begun), nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	p.Stop()
	return nil, 0, fmt.Errorf("%s does not answer; see %s", args[0], log)
}

// Stop interrupts the process and waits for it.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(os.Interrupt)
	_ = p.cmd.Wait()
}

// RSS is the resident memory in MiB, as Linux tells it; peak is the most it ever was.
func (p *Process) RSS() (now, peak float64) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for _, line := range strings.Split(string(text), "\n") {
		var kb float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f", &kb); err == nil {
			now = kb / 1024
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %f", &kb); err == nil {
			peak = kb / 1024
		}
	}
	return now, peak
}

// Address is a loopback address that nobody listens on.
func Address() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Counter is a proxy before the emulator that counts calls by kind.
type Counter struct {
	mu     sync.Mutex
	counts map[string]int
	proxy  *httputil.ReverseProxy
}

// Count serves a counting proxy of target on address.
func Count(address, target string) (*Counter, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	c := &Counter{counts: map[string]int{}, proxy: httputil.NewSingleHostReverseProxy(u)}
	c.proxy.FlushInterval = -1
	c.proxy.ModifyResponse = func(r *http.Response) error {
		c.add(kind(r.Request))
		if r.StatusCode == http.StatusTooManyRequests {
			c.add("429")
		}
		return nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	go http.Serve(l, c.proxy)
	return c, nil
}

func kind(r *http.Request) string {
	switch {
	case strings.HasPrefix(r.URL.Path, "/realtime/"):
		return "realtime"
	case strings.HasSuffix(r.URL.Path, "/trigger"):
		return "trigger"
	case r.URL.Path == "/api/v1/runs":
		return "list"
	case strings.HasPrefix(r.URL.Path, "/api/v3/runs/"):
		return "retrieve"
	}
	return "other"
}

func (c *Counter) add(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[kind]++
}

// Counts is a copy of what was counted.
func (c *Counter) Counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	copied := map[string]int{}
	for k, v := range c.counts {
		copied[k] = v
	}
	return copied
}

// JSON makes a call and decodes the answer.
func JSON(method, url string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequest(method, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer bench")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %d %.300s", method, url, res.StatusCode, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}
