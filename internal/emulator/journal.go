package emulator

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
)

// entry is one line of the journal; one of its members is set. Of the lines of one
// run or schedule the last one counts.
type entry struct {
	Run      *run      `json:"run,omitempty"`
	Schedule *schedule `json:"schedule,omitempty"`
	Gone     string    `json:"gone,omitempty"`  // id of a schedule that was deleted
	Shift    *int64    `json:"shift,omitempty"` // how far the clock is ahead
}

// journal is a file of JSON lines that only grows while it is open. A line is one
// write, so a process that is killed leaves at most a torn last line. A nil journal
// keeps nothing.
type journal struct {
	file   *os.File
	size   int64 // of what was written whole
	log    *slog.Logger
	broken bool // the last write failed, and the log has said so
}

func (j *journal) put(line entry) {
	if j == nil {
		return
	}
	raw := append(compactJSON(line), '\n')
	n, err := j.file.Write(raw)
	if err == nil {
		j.size, j.broken = j.size+int64(n), false
		return
	}
	if !j.broken {
		j.log.Error("emulator state cannot be written", "err", err)
	}
	j.broken = true
	// Half a line must not stand before the next one.
	_ = j.file.Truncate(j.size)
	_, _ = j.file.Seek(j.size, io.SeekStart)
}

func (j *journal) close() error {
	if j == nil {
		return nil
	}
	if err := j.file.Close(); err != nil {
		return fmt.Errorf("close emulator state: %w", err)
	}
	return nil
}

// load reads the journal, writes it anew without what no longer counts, and goes on
// with what was unfinished.
func (e *Emulator) load() error {
	if e.cfg.StatePath == "" {
		return nil
	}
	if err := e.readJournal(e.cfg.StatePath); err != nil {
		return fmt.Errorf("read emulator state: %w", err)
	}
	j, err := e.compact(e.cfg.StatePath)
	if err != nil {
		return fmt.Errorf("write emulator state: %w", err)
	}
	e.journal = j
	e.minted = len(e.runs) + len(e.sched)
	for _, r := range e.inOrder() {
		e.index(r)
		e.remember(r)
	}
	slices.SortFunc(e.history, func(a, b change) int { return cmp.Compare(a.seq, b.seq) })
	for _, c := range e.history {
		e.resume(c.run)
	}
	for _, s := range e.sched {
		e.arm(s, e.clock.now())
	}
	return nil
}

func (e *Emulator) readJournal(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewReader(file)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		switch {
		case errors.Is(err, io.EOF): // a line without an end is torn
			return nil
		case err != nil:
			return err
		}
		if err := e.restore(bytes.TrimSpace(line)); err != nil {
			return fmt.Errorf("%s line %d: %w", path, n, err)
		}
	}
}

func (e *Emulator) restore(line []byte) error {
	var read entry
	if err := json.Unmarshal(line, &read); err != nil {
		return err
	}
	switch {
	case read.Run != nil:
		e.runs[read.Run.ID] = read.Run
	case read.Schedule != nil:
		e.sched[read.Schedule.ID] = read.Schedule
	case read.Gone != "":
		delete(e.sched, read.Gone)
	case read.Shift != nil:
		e.clock.shift = *read.Shift
	}
	return nil
}

// inOrder lists runs as they came, so that of two that had one key the later has it.
func (e *Emulator) inOrder() []*run {
	return slices.SortedFunc(maps.Values(e.runs), compareAge)
}

// compact writes what counts beside the file and then puts it in its place, so that
// there is a whole file at every moment.
func (e *Emulator) compact(path string) (*journal, error) {
	file, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	size, err := e.replace(path, file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &journal{file: file, size: size, log: e.log}, nil
}

// replace fills the file and gives it the path, and says how long it has become.
func (e *Emulator) replace(path string, file *os.File) (int64, error) {
	if err := e.writeAll(file); err != nil {
		return 0, err
	}
	if err := file.Sync(); err != nil {
		return 0, err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return 0, err
	}
	return file.Seek(0, io.SeekEnd)
}

func (e *Emulator) writeAll(to io.Writer) error {
	w := bufio.NewWriter(to)
	put := func(line entry) { _, _ = w.Write(append(compactJSON(line), '\n')) } // Flush has the error
	put(entry{Shift: &e.clock.shift})
	for _, s := range e.sched {
		put(entry{Schedule: s})
	}
	for _, r := range e.inOrder() {
		put(entry{Run: r})
	}
	return w.Flush()
}
