package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestFailuresInARowAreTwoLinesInTheLog(t *testing.T) {
	var text sharedText
	log := newLogger(&text, slog.LevelInfo, "json", false)
	var s streak
	for _, err := range []error{nil, errors.New("away"), errors.New("away"), errors.New("gone"), nil, nil, errors.New("again")} {
		s.note(log, err, "cannot read")
	}
	var got []string
	for line := range strings.Lines(text.String()) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), `"level":`)
		got = append(got, rest)
	}
	want := []string{
		`"ERROR","msg":"cannot read","err":"away"}`,
		`"INFO","msg":"it works again","what":"cannot read"}`,
		`"ERROR","msg":"cannot read","err":"again"}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
