package main

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"sidejob/internal/job"
)

// openLine is a job's line on the board.
func openLine(j job.Job, at time.Time) painted {
	p := painted{mark: "○", paint: paintFaint}
	if j.Status() == job.Executing {
		p = painted{mark: "●", paint: paintCyan}
	}
	status := string(j.Status())
	if j.CancelRequested {
		status, p.paint = "CANCELING", paintYellow
	}
	p.text = fmt.Sprintf("%-9s %7s  %s", status, ageText(j, at), whoText(j))
	if j.Error != "" {
		p.text += "  " + j.Error
		p.paint = paintYellow
	}
	return p
}

// lastLine is what stays of a job that has ended.
func lastLine(j job.Job) painted {
	p := painted{mark: "✗", paint: paintRed}
	switch j.Status() {
	case job.Completed:
		p = painted{mark: "✓", paint: paintGreen}
	case job.Canceled:
		p = painted{mark: "■", paint: paintYellow}
	}
	took := ""
	if !j.Started.IsZero() {
		took = spanText(j.Finished.Sub(j.Started))
	}
	p.text = fmt.Sprintf("%-9s %7s  %s", j.Status(), took, whoText(j))
	if reason := failureText(j.Result); reason != "" && j.Status() == job.Failed {
		p.text += "  " + reason
	}
	return p
}

// whoText names a job: its id, type, tag and run.
func whoText(j job.Job) string {
	text := fmt.Sprintf("%d  %s  %s", j.ID, j.Type, j.Tag)
	if j.RunID != "" {
		text += "  " + j.RunID
	}
	return text
}

// ageText is how long a job has been at what it does, or how far its due time is.
func ageText(j job.Job, at time.Time) string {
	switch {
	case j.Status() == job.Executing && !j.Started.IsZero():
		return boardSpan(at.Sub(j.Started))
	case j.Due.After(at) && j.Due.After(j.Created):
		return "in " + boardSpan(j.Due.Sub(at))
	}
	return boardSpan(at.Sub(j.Created))
}

// boardSpan has no fractions of seconds: they would flutter.
func boardSpan(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%ds", max(0, d/time.Second))
	}
	return spanText(d)
}

// flat makes line breaks and tabs blanks.
func flat(s string) string {
	return strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ", "\t", " ").Replace(s)
}

// cutToColumns cuts s to what fits in n columns and says how many it takes. A cut
// shows as ….
func cutToColumns(s string, n int) (string, int) {
	total := 0
	for _, r := range s {
		total += columnsOf(r)
	}
	if total <= n {
		return s, total
	}
	if n < 1 {
		return "", 0
	}
	kept, columns := "", 0
	for _, r := range s {
		if columns+columnsOf(r) > n-1 {
			break
		}
		kept += string(r)
		columns += columnsOf(r)
	}
	return kept + "…", columns + 1
}

// columnsOf is how many columns a terminal gives a character. Where terminals
// differ it is the larger number, so that a line is rather too short than wrapped.
func columnsOf(r rune) int {
	switch {
	case r == 0xfe0f: // makes an emoji of the character before
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && r <= 0x115f, // Hangul
		r >= 0x231a && r <= 0x23ff,                         // clocks and the like
		r >= 0x2600 && r <= 0x27bf && r != '✓' && r != '✗', // symbols
		r >= 0x2b00 && r <= 0x2bff,                         // symbols
		r >= 0x2e80 && r <= 0xa4cf,                         // CJK, kana, Yi
		r >= 0xac00 && r <= 0xd7a3,                         // Hangul syllables
		r >= 0xf900 && r <= 0xfaff,                         // CJK
		r >= 0xfe30 && r <= 0xfe6f,                         // CJK forms
		r >= 0xff00 && r <= 0xff60,                         // full width
		r >= 0xffe0 && r <= 0xffe6,                         // full width
		r >= 0x1f000 && r <= 0x1faff,                       // emoji
		r >= 0x20000 && r <= 0x3fffd:                       // CJK
		return 2
	}
	return 1
}
