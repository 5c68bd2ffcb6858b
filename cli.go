package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// streams is what a command reads and writes: data goes to out, all else to err.
// env looks up a variable of the environment and is empty for one that is not set.
type streams struct {
	in       io.Reader
	out, err io.Writer
	env      func(name string) string
}

// note tells people something beside the data.
func (s streams) note(format string, args ...any) {
	fmt.Fprintf(s.err, format+"\n", args...)
}

// exitCode shows an error to the user and says with what the process exits.
func exitCode(std streams, err error) int {
	if err == nil {
		return exitOK
	}
	std.note("sidejob: %s", printable(err.Error()))
	var coded exitError
	if errors.As(err, &coded) {
		return coded.code
	}
	return exitFailure
}

// printFlags say how a command prints.
type printFlags struct {
	Output string `short:"o" enum:"table,json" default:"table" placeholder:"table|json" help:"How to print: a table for people, or the JSON body that the API answers with."`
}

// print writes the API's body as it is, or what table writes.
func (f printFlags) print(std streams, body []byte, table func(io.Writer) error) error {
	var err error
	if f.Output == "json" {
		_, err = fmt.Fprintf(std.out, "%s\n", strings.TrimRight(string(body), "\n"))
	} else {
		err = table(std.out)
	}
	if err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	return nil
}

// printable keeps what others wrote from steering the terminal. Line breaks and
// tabs stay.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, s)
}

// oneLine is s as a single printable line of at most n characters.
func oneLine(s string, n int) string {
	s = printable(strings.Join(strings.Fields(s), " "))
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:n-1]) + "…"
}

// jsonFlag is a JSON value on the command line: literally, as @FILE, or as @- for
// standard input.
type jsonFlag string

// read returns the value. name is the flag's, for the error.
func (f jsonFlag) read(std streams, name string) (json.RawMessage, error) {
	text := []byte(f)
	file, isFile := strings.CutPrefix(string(f), "@")
	var err error
	switch {
	case isFile && file == "-":
		text, err = io.ReadAll(std.in)
	case isFile:
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, exitf(exitUsage, "--%s: %w", name, err)
	}
	if err := json.Unmarshal(text, new(json.RawMessage)); err != nil {
		return nil, exitf(exitUsage, "--%s is not JSON: %w (@FILE names a file, @- standard input)", name, err)
	}
	return text, nil
}
