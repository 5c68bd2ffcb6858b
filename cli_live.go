package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"sidejob/internal/job"
)

// liveBoard owns a terminal: what is written to it scrolls by above, and below it
// stays one line for each open job. A job that ends leaves a last line for good.
// All methods are safe from many goroutines at once; each redraw is one write.
type liveBoard struct {
	out   io.Writer
	width func() int
	color bool
	stop  chan struct{}
	done  chan struct{}

	mu     sync.Mutex
	open   map[int64]job.Job
	ended  endedJobs
	part   []byte // of a line whose end has not come yet
	shown  string // the board as it stands on the terminal
	drawn  []int  // the columns of each of its lines
	at     time.Time
	closed bool
}

const (
	// boardLines is how many jobs have a line; the others are counted.
	boardLines = 8
	// boardTick is how often the ages are brought up to date.
	boardTick = time.Second
	// unknownWidth is the width of a terminal that does not tell.
	unknownWidth = 100
)

// wantsColor tells whether the user's environment allows painting.
func wantsColor(env func(string) string) bool {
	return env("NO_COLOR") == "" && env("TERM") != "dumb"
}

// newLiveBoard begins a board on a terminal. width is asked at every redraw, for
// windows are resized. Without color it moves the cursor but paints nothing. Close
// it when done.
func newLiveBoard(out io.Writer, width func() int, color bool) *liveBoard {
	b := &liveBoard{
		out: out, width: width, color: color,
		stop: make(chan struct{}), done: make(chan struct{}),
		open: map[int64]job.Job{}, ended: newEndedJobs(),
	}
	go b.tick()
	return b
}

// tick lets the ages grow until the board is closed.
func (b *liveBoard) tick() {
	defer close(b.done)
	ticker := time.NewTicker(boardTick)
	defer ticker.Stop()
	for {
		select {
		case at := <-ticker.C:
			b.grow(at)
		case <-b.stop:
			return
		}
	}
}

func (b *liveBoard) grow(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.open) == 0 || b.closed {
		return
	}
	b.at = at
	_ = b.redraw(nil) // a terminal that is gone is noticed by who writes to it
}

// Write shows text above the jobs. The end of a line that is not complete is kept
// until the rest comes.
func (b *liveBoard) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return b.out.Write(text)
	}
	b.part = append(b.part, text...)
	end := bytes.LastIndexByte(b.part, '\n') + 1
	if end == 0 {
		return len(text), nil
	}
	lines := b.part[:end]
	err := b.redraw(lines)
	b.part = append([]byte(nil), b.part[end:]...)
	if err != nil {
		return 0, err
	}
	return len(text), nil
}

// update shows how a job stands now. News that is older than what is shown changes
// nothing.
func (b *liveBoard) update(j job.Job, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.ended.knows(j) || j.Updated.Before(b.open[j.ID].Updated) {
		return
	}
	b.at = at
	if !j.Done() {
		b.ended.forget(j.ID)
		b.open[j.ID] = j
		_ = b.redraw(nil)
		return
	}
	delete(b.open, j.ID)
	b.ended.add(j)
	line := b.fit(lastLine(j))
	_ = b.redraw([]byte(line.text + "\n"))
}

// close leaves the board as it stands; what is written from then on follows below
// it.
func (b *liveBoard) close() {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return
	}
	var rest []byte
	if len(b.part) > 0 {
		rest = append(b.part, '\n')
	}
	_ = b.redraw(rest)
	b.closed = true
	b.mu.Unlock()
	close(b.stop)
	<-b.done
}

// redraw writes the lines that scroll by, if any, and the board below them. A board
// that looks as before is left alone.
func (b *liveBoard) redraw(above []byte) error {
	var board strings.Builder
	var drawn []int
	for _, text := range b.lines() {
		line := b.fit(text)
		board.WriteString(line.text + "\x1b[K\n")
		drawn = append(drawn, line.columns)
	}
	if len(above) == 0 && board.String() == b.shown {
		return nil
	}
	var w bytes.Buffer
	w.WriteString(b.backToTop())
	if len(above) > 0 {
		w.WriteString("\x1b[J")
		w.Write(above)
	}
	w.WriteString(board.String() + "\x1b[J")
	b.shown, b.drawn = board.String(), drawn
	_, err := b.out.Write(w.Bytes())
	return err
}

// backToTop takes the cursor to the first row of what was drawn. A window that has
// become narrower shows a line on several rows.
func (b *liveBoard) backToTop() string {
	rows, width := 0, max(1, b.width())
	for _, columns := range b.drawn {
		rows += max(1, (columns+width-1)/width)
	}
	if rows == 0 {
		return "\r"
	}
	return fmt.Sprintf("\r\x1b[%dA", rows)
}

// lines are those of the board: the newest jobs, the newest at the bottom, and how
// many there are besides.
func (b *liveBoard) lines() []painted {
	var lines []painted
	ids := b.ids()
	for _, id := range ids[max(0, len(ids)-boardLines):] {
		lines = append(lines, openLine(b.open[id], b.at))
	}
	if more := len(ids) - boardLines; more > 0 {
		lines = append(lines, painted{text: fmt.Sprintf("… and %d more", more), paint: paintFaint})
	}
	return lines
}

func (b *liveBoard) ids() []int64 {
	ids := make([]int64, 0, len(b.open))
	for id := range b.open {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// endedJobs remembers which jobs have had their last line, the latest of them. It
// holds when each was written, for an orphan may come back to life.
type endedJobs struct {
	updated map[int64]time.Time
	order   []int64
}

// maxEnded is how many ended jobs are remembered.
const maxEnded = 4096

func newEndedJobs() endedJobs { return endedJobs{updated: map[int64]time.Time{}} }

// knows tells whether the job's last line has been printed, and the job is not open
// again since.
func (e *endedJobs) knows(j job.Job) bool {
	updated, known := e.updated[j.ID]
	return known && (j.Done() || !j.Updated.After(updated))
}

func (e *endedJobs) add(j job.Job) {
	e.updated[j.ID] = j.Updated
	e.order = append(e.order, j.ID)
	if len(e.order) > maxEnded {
		e.forget(e.order[0])
		e.order = e.order[1:]
	}
}

func (e *endedJobs) forget(id int64) { delete(e.updated, id) }

// painted is a line before it is fitted to the terminal. Its mark and the text
// behind it have no escape sequences.
type painted struct {
	mark, text string
	paint      string // of the mark, or of the text where there is no mark
}

// What the terminal is told to paint with.
const (
	paintGreen  = "\x1b[32m"
	paintRed    = "\x1b[31m"
	paintYellow = "\x1b[33m"
	paintCyan   = "\x1b[36m"
	paintFaint  = "\x1b[2m"
	paintOff    = "\x1b[0m"
)

// fitted is a line that fits the terminal, with its escape sequences.
type fitted struct {
	text    string
	columns int
}

// fit cuts a line to one column less than the terminal has, so that no terminal
// wraps it, and paints it.
func (b *liveBoard) fit(p painted) fitted {
	whole := p.text
	if p.mark != "" {
		whole = p.mark + " " + p.text
	}
	whole, columns := cutToColumns(printable(flat(whole)), b.width()-1)
	if !b.color || p.paint == "" {
		return fitted{whole, columns}
	}
	mark, rest := whole, ""
	if p.mark != "" {
		mark, rest, _ = strings.Cut(whole, " ")
		rest = " " + rest
	}
	return fitted{p.paint + mark + paintOff + rest, columns}
}
