package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// failpoint kills the process, as a power cut would, the nth time it comes to a
// named edge between commit, send, reply and store. selftest sets it; nil never
// strikes.
type failpoint struct {
	name string
	left atomic.Int64
}

// failpointNames are the edges there are.
func failpointNames() []string {
	return []string{"schedule.committed", "submit.held", "submit.answered", "submit.stored", "cancel.answered", "webhook.committed"}
}

// readFailpoint reads NAME or NAME:N; nothing is no failpoint.
func readFailpoint(text string) (*failpoint, error) {
	if text == "" {
		return nil, nil
	}
	name, count, counted := strings.Cut(text, ":")
	n := 1
	if counted {
		var err error
		if n, err = strconv.Atoi(count); err != nil || n < 1 {
			return nil, fmt.Errorf("failpoint %q: want NAME or NAME:N", text)
		}
	}
	f := &failpoint{name: name}
	f.left.Store(int64(n))
	return f, nil
}

// at does not come back when it strikes.
func (f *failpoint) at(name string) {
	if f == nil || f.name != name || f.left.Add(-1) != 0 {
		return
	}
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill() // nobody is left to hear of an error
	}
	select {}
}
