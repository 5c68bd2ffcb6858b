package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"github.com/mattn/go-isatty"
)

// newLogger writes to w in the given format, json or text. color is for terminals.
func newLogger(w io.Writer, level slog.Level, format string, color bool) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(categoryHandler{Handler: tint.NewTextHandler(w, &tint.Options{
		Level: level, NoColor: !color, TimeFormat: time.TimeOnly,
	})})
}

// category is the logger of one part of the program.
func category(log *slog.Logger, name string) *slog.Logger { return log.With(categoryKey, name) }

const categoryKey = "category"

// streak tells of failures that follow each other, such as those of a database that is
// away, in two lines: one for the first, one when it works again. It is one goroutine's.
type streak struct{ failing bool }

// note takes the outcome of a try; msg says what cannot be done when it fails.
func (s *streak) note(log *slog.Logger, err error, msg string) {
	switch {
	case err != nil && s.failing:
		log.Debug(msg, "err", err)
	case err != nil:
		log.Error(msg, "err", err)
	case s.failing:
		log.Info("it works again", "what", msg)
	}
	s.failing = err != nil
}

// categoryHandler shows the category in brackets before the message.
type categoryHandler struct {
	slog.Handler
	category string
}

// WithAttrs implements slog.Handler.
func (h categoryHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var rest []slog.Attr
	for _, a := range attrs {
		if a.Key == categoryKey {
			h.category = a.Value.String()
			continue
		}
		rest = append(rest, a)
	}
	if len(rest) > 0 {
		h.Handler = h.Handler.WithAttrs(rest)
	}
	return h
}

// WithGroup implements slog.Handler.
func (h categoryHandler) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}

// Handle implements slog.Handler.
func (h categoryHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.category == "" {
		return h.Handler.Handle(ctx, r)
	}
	shown := slog.NewRecord(r.Time, r.Level, fmt.Sprintf("[%s] %s", h.category, r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		shown.AddAttrs(a)
		return true
	})
	return h.Handler.Handle(ctx, shown)
}

// isTerminal tells whether a person watches the stream.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
