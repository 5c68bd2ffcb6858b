package main

import (
	"fmt"
	"strings"
	"time"
)

// progress is a bar on a terminal, and nothing elsewhere.
type progress struct {
	std   streams
	of    int
	on    bool
	begun time.Time
}

func newProgress(std streams, of int) *progress {
	return &progress{std: std, of: of, on: isTerminal(std.err), begun: time.Now()}
}

func (p *progress) show(done int, what string) {
	if !p.on {
		return
	}
	const width = 30
	filled := min(width, width*done/max(p.of, 1))
	fmt.Fprintf(p.std.err, "\r\x1b[K%s%s %d/%d  %s  %s", strings.Repeat("█", filled), strings.Repeat("░", width-filled),
		done, p.of, time.Since(p.begun).Round(time.Second), what)
}

func (p *progress) end() {
	if p.on {
		fmt.Fprint(p.std.err, "\r\x1b[K")
	}
}
