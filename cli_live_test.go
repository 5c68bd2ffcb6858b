package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sidejob/internal/job"
)

// screen is a terminal that has no end below: rows of characters, a cursor, and the
// few escape sequences that the board uses. It wraps at its width. What it does not
// know fails the test.
type screen struct {
	t      *testing.T
	mu     sync.Mutex
	width  int
	rows   [][]rune
	row    int
	column int
	writes int
	paints int
}

func newScreen(t *testing.T, width int) *screen {
	return &screen{t: t, width: width, rows: [][]rune{nil}}
}

func (s *screen) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	for rest := string(text); rest != ""; {
		rest = s.take(rest)
	}
	return len(text), nil
}

func (s *screen) columns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.width
}

// take obeys the first character or sequence and returns the rest.
func (s *screen) take(text string) string {
	if sequence, ok := strings.CutPrefix(text, "\x1b["); ok {
		end := strings.IndexFunc(sequence, func(r rune) bool { return r >= '@' })
		s.obey(sequence[:end], sequence[end])
		return sequence[end+1:]
	}
	r, size := utf8.DecodeRuneInString(text)
	switch {
	case r == '\r':
		s.column = 0
	case r == '\n':
		s.column = 0
		s.down()
	case r < ' ':
		s.t.Errorf("got the control character %q on the terminal", r)
	default:
		s.put(r)
	}
	return text[size:]
}

func (s *screen) obey(n string, what byte) {
	count, _ := strconv.Atoi(n)
	switch what {
	case 'A':
		if s.row -= count; s.row < 0 {
			s.t.Errorf("got the cursor %d rows above the top", -s.row)
			s.row = 0
		}
	case 'K':
		s.rows[s.row] = s.rows[s.row][:min(s.column, len(s.rows[s.row]))]
	case 'J':
		s.rows[s.row] = s.rows[s.row][:min(s.column, len(s.rows[s.row]))]
		s.rows = s.rows[:s.row+1]
	case 'm':
		s.paints++
	default:
		s.t.Errorf("got the sequence ESC[%s%c, which the screen does not know", n, what)
	}
}

func (s *screen) put(r rune) {
	if s.column >= s.width {
		s.column = 0
		s.down()
	}
	for len(s.rows[s.row]) <= s.column {
		s.rows[s.row] = append(s.rows[s.row], ' ')
	}
	s.rows[s.row][s.column] = r
	s.column++
	for range columnsOf(r) - 1 {
		s.column++
	}
}

func (s *screen) down() {
	s.row++
	if s.row == len(s.rows) {
		s.rows = append(s.rows, nil)
	}
}

// resize makes the window narrower; the terminal breaks its lines anew.
func (s *screen) resize(width int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rows [][]rune
	for i, row := range s.rows {
		if i == s.row {
			s.row = len(rows)
		}
		for ; len(row) > width; row = row[width:] {
			rows = append(rows, row[:width])
		}
		rows = append(rows, row)
	}
	s.rows, s.width = rows, width
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for _, row := range s.rows {
		lines = append(lines, strings.TrimRight(string(row), " "))
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}

func (s *screen) want(want ...string) {
	s.t.Helper()
	if d := cmp.Diff(strings.Join(want, "\n"), s.text()); d != "" {
		s.t.Errorf("screen (-want +got):\n%s", d)
	}
}

// onBoard runs a test with simulated time, a screen, and a board on it.
func onBoard(t *testing.T, width int, test func(s *screen, b *liveBoard, at time.Time)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newScreen(t, width)
		b := newLiveBoard(s, s.columns, false)
		defer b.close()
		test(s, b, time.Now())
	})
}

func boardJob(id int64, at time.Time) job.Job {
	return job.Job{ID: id, Type: "mail", Tag: fmt.Sprintf("t%d", id), Executor: job.Trigger, TriggerStatus: job.Pending, Created: at, Due: at, Updated: at}
}

func running(j job.Job, at time.Time) job.Job {
	j.TriggerStatus, j.RunID, j.Started, j.Updated = job.Executing, "run_1", at, at
	return j
}

func endedAs(j job.Job, status job.Status, result string, at time.Time) job.Job {
	success := status == job.Completed
	j.TriggerStatus, j.Finished, j.Updated, j.Success, j.Result = status, at, at, &success, []byte(result)
	return j
}

func TestBoardFollowsAJob(t *testing.T) {
	onBoard(t, 80, func(s *screen, b *liveBoard, at time.Time) {
		fmt.Fprintln(b, "listening")
		j := boardJob(1, at)
		b.update(j, at)
		s.want("listening", "○ PENDING        0s  1  mail  t1")

		time.Sleep(2*time.Second + 1)
		synctest.Wait()
		s.want("listening", "○ PENDING        2s  1  mail  t1")

		j = running(j, time.Now())
		b.update(j, time.Now())
		s.want("listening", "● EXECUTING      0s  1  mail  t1  run_1")

		fmt.Fprintln(b, "a log line")
		s.want("listening", "a log line", "● EXECUTING      0s  1  mail  t1  run_1")

		time.Sleep(3 * time.Second)
		j = endedAs(j, job.Completed, `"ok"`, time.Now())
		b.update(j, time.Now())
		fmt.Fprintln(b, "another")
		s.want("listening", "a log line", "✓ COMPLETED    3.0s  1  mail  t1  run_1", "another")
	})
}

func TestBoardLeavesNothingOfALongerLine(t *testing.T) {
	onBoard(t, 80, func(s *screen, b *liveBoard, at time.Time) {
		j := boardJob(1, at)
		j.Error = "connection refused"
		b.update(j, at)
		s.want("○ PENDING        0s  1  mail  t1  connection refused")
		j.Error = ""
		b.update(j, at)
		s.want("○ PENDING        0s  1  mail  t1")
	})
}

func TestBoardIsNotSteeredByAJob(t *testing.T) {
	onBoard(t, 80, func(s *screen, b *liveBoard, at time.Time) {
		j := boardJob(1, at)
		j.Type, j.Error = "ma\x1b[2Ail", "two\r\nlines\tmore"
		b.update(j, at)
		s.want("○ PENDING        0s  1  ma\uFFFD[2Ail  t1  two lines more")
	})
}

func TestBoardLastLines(t *testing.T) {
	onBoard(t, 60, func(s *screen, b *liveBoard, at time.Time) {
		b.update(boardJob(1, at), at)
		b.update(boardJob(9, at), at)
		b.update(endedAs(running(boardJob(1, at), at), job.Failed, `{"error":{"message":"smtp\ndown"}}`, at.Add(1500*time.Millisecond)), at)
		b.update(endedAs(boardJob(2, at), job.Canceled, `{"canceled":true,"error":"by ann"}`, at), at)
		s.want(
			"✗ FAILED       1.5s  1  mail  t1  run_1  smtp down",
			"■ CANCELED           2  mail  t2",
			"○ PENDING        0s  9  mail  t9",
		)
	})
}

func TestBoardPrintsAnEndOnce(t *testing.T) {
	onBoard(t, 60, func(s *screen, b *liveBoard, at time.Time) {
		later := at.Add(time.Second)
		open := running(boardJob(1, at), at)
		done := endedAs(open, job.Completed, "1", later)
		b.update(done, later)
		b.update(open, later) // news from before the end
		confirmed := done
		confirmed.Updated = later.Add(time.Second)
		b.update(confirmed, later)
		s.want("✓ COMPLETED    1.0s  1  mail  t1  run_1")

		alive := running(done, later.Add(time.Minute))
		alive.Finished, alive.Success = time.Time{}, nil
		b.update(alive, alive.Updated)
		s.want("✓ COMPLETED    1.0s  1  mail  t1  run_1", "● EXECUTING      0s  1  mail  t1  run_1")
		b.update(endedAs(alive, job.Completed, "1", alive.Updated.Add(time.Second)), at)
		s.want("✓ COMPLETED    1.0s  1  mail  t1  run_1", "✓ COMPLETED    1.0s  1  mail  t1  run_1")
	})
}

func TestBoardIgnoresOlderNews(t *testing.T) {
	onBoard(t, 60, func(s *screen, b *liveBoard, at time.Time) {
		j := boardJob(1, at)
		b.update(running(j, at.Add(time.Second)), at.Add(time.Second))
		b.update(j, at.Add(2*time.Second))
		s.want("● EXECUTING      0s  1  mail  t1  run_1")
	})
}

func TestBoardCountsWhatItDoesNotShow(t *testing.T) {
	onBoard(t, 60, func(s *screen, b *liveBoard, at time.Time) {
		for id := int64(1); id <= 11; id++ {
			b.update(boardJob(id, at), at)
		}
		want := []string{}
		for id := 4; id <= 11; id++ {
			want = append(want, fmt.Sprintf("○ PENDING        0s  %d  mail  t%d", id, id))
		}
		s.want(append(want, "… and 3 more")...)
		for id := int64(1); id <= 9; id++ {
			b.update(endedAs(boardJob(id, at), job.Canceled, "", at), at)
		}
		if got := strings.Count(s.text(), "\n"); got != 10 {
			t.Errorf("got %d line breaks, want 9 ended jobs and 2 open ones:\n%s", got, s.text())
		}
	})
}

func TestBoardFitsTheTerminal(t *testing.T) {
	t.Run("and cuts what is too long", func(t *testing.T) {
		onBoard(t, 34, func(s *screen, b *liveBoard, at time.Time) {
			j := boardJob(1, at)
			j.Tag = "報告-\x1b[2J\n-tag"
			b.update(j, at)
			fmt.Fprintln(b, "log line of exactly thirty-four ch")
			fmt.Fprintln(b, "log line that is longer than the whole terminal")
			s.want("log line of exactly thirty-four ch", "log line that is longer than the w", "hole terminal",
				"○ PENDING        0s  1  mail  報 …")
		})
	})
	t.Run("also one that has become narrow", func(t *testing.T) {
		onBoard(t, 60, func(s *screen, b *liveBoard, at time.Time) {
			fmt.Fprintln(b, "first")
			b.update(running(boardJob(1, at), at), at)
			b.update(running(boardJob(2, at), at), at)
			s.resize(30)
			fmt.Fprintln(b, "second")
			s.want("first", "second", "● EXECUTING      0s  1  mail…", "● EXECUTING      0s  2  mail…")
		})
	})
	t.Run("that has become narrow, where nothing is written above", func(t *testing.T) {
		onBoard(t, 60, func(s *screen, b *liveBoard, at time.Time) {
			b.update(running(boardJob(1, at), at), at)
			b.update(running(boardJob(2, at), at), at)
			s.resize(30)
			b.update(running(boardJob(2, at), at), at)
			s.want("● EXECUTING      0s  1  mail…", "● EXECUTING      0s  2  mail…")
		})
	})
	t.Run("even one without columns", func(t *testing.T) {
		b := newLiveBoard(io.Discard, func() int { return 0 }, true)
		defer b.close()
		b.update(boardJob(1, now()), now())
		fmt.Fprintln(b, "log")
	})
}

func TestBoardKeepsALineTogether(t *testing.T) {
	onBoard(t, 60, func(s *screen, b *liveBoard, at time.Time) {
		b.update(boardJob(1, at), at)
		fmt.Fprint(b, "half a ")
		s.want("○ PENDING        0s  1  mail  t1")
		fmt.Fprint(b, "line\nand the next")
		s.want("half a line", "○ PENDING        0s  1  mail  t1")
		b.close()
		s.want("half a line", "and the next", "○ PENDING        0s  1  mail  t1")
		fmt.Fprintln(b, "after the end")
		b.update(boardJob(2, at), at)
		s.want("half a line", "and the next", "○ PENDING        0s  1  mail  t1", "after the end")
	})
}

func TestBoardRedrawsInOneWrite(t *testing.T) {
	onBoard(t, 60, func(s *screen, b *liveBoard, at time.Time) {
		b.update(boardJob(1, at), at)
		b.update(endedAs(boardJob(2, at), job.Canceled, "", at), at)
		fmt.Fprintln(b, "log")
		if s.writes != 3 {
			t.Errorf("got %d writes, want one for each of 3 redraws", s.writes)
		}
		b.update(boardJob(1, at), at)
		fmt.Fprint(b, "half a line")
		if s.writes != 3 {
			t.Errorf("got %d writes, want none where nothing looks different", s.writes)
		}
	})
}

func TestBoardPaintsOnlyInColor(t *testing.T) {
	for _, color := range []bool{true, false} {
		var text bytes.Buffer
		b := newLiveBoard(&text, func() int { return 80 }, color)
		b.update(running(boardJob(1, now()), now()), now())
		b.update(endedAs(boardJob(2, now()), job.Failed, `{}`, now()), now())
		b.close()
		if got := strings.Contains(text.String(), "\x1b[36m●\x1b[0m EXEC") && strings.Contains(text.String(), "\x1b[31m✗\x1b[0m FAILED"); got != color {
			t.Errorf("got %q with color %t", text.String(), color)
		}
		if got := strings.Contains(text.String(), "m"+"●"); got != color {
			t.Errorf("got %q with color %t", text.String(), color)
		}
	}
	env := func(name, value string) func(string) string {
		return func(asked string) string {
			if asked == name {
				return value
			}
			return ""
		}
	}
	if !wantsColor(env("", "")) || wantsColor(env("NO_COLOR", "1")) || wantsColor(env("TERM", "dumb")) {
		t.Error("got color where NO_COLOR or a dumb terminal forbids it, or none where nothing does")
	}
}

func TestTheWidthOfWhatIsNoTerminal(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got := terminalWidth(file); got != unknownWidth {
		t.Errorf("got %d columns, want %d", got, unknownWidth)
	}
}

func TestBoardIsSafeFromManyGoroutines(t *testing.T) {
	s := newScreen(t, 80)
	b := newLiveBoard(s, s.columns, false)
	log := slog.New(slog.NewTextHandler(b, nil))
	var all sync.WaitGroup
	for worker := range int64(4) {
		all.Go(func() {
			for id := worker * 100; id < worker*100+25; id++ {
				b.update(boardJob(id, now()), now())
				log.Info("seen", "job", id)
				b.update(endedAs(boardJob(id, now()), job.Canceled, "", now()), now())
			}
		})
	}
	all.Wait()
	b.close()
	b.close()
	got := s.text()
	if logs, ends := strings.Count(got, "msg=seen"), strings.Count(got, "■ CANCELED"); logs != 100 || ends != 100 {
		t.Errorf("got %d log lines and %d ends, want 100 of each:\n%s", logs, ends, got)
	}
	if strings.Contains(got, "PENDING") {
		t.Errorf("got a job left on the board:\n%s", got)
	}
}
