package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

func updateFlag() *bool {
	return flag.Bool("update", false, "write golden files and the generated parts of the README")
}

var update = updateFlag()

func readREADME(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// generated holds the part of the README between <!-- name --> and <!-- /name --> to
// what a program says.
func generated(t *testing.T, name, want string) {
	t.Helper()
	text := readREADME(t)
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->"
	head, rest, ok := strings.Cut(text, begin)
	got, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("the README has no part %q", name)
	}
	want = "\n" + strings.TrimSpace(want) + "\n\n"
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("the README's part %q is not what the program says; run: go test -run README -update .\ngot:\n%s\nwant:\n%s", name, got, want)
	}
	if err := os.WriteFile("README.md", []byte(head+begin+want+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestREADMEShowsTheTransitions(t *testing.T) {
	table, err := os.ReadFile("testdata/transitions.txt")
	if err != nil {
		t.Fatal(err)
	}
	generated(t, "transitions", string(table))
}

func TestREADMEListsEveryFlag(t *testing.T) {
	parser, err := kong.New(&commands{}, kong.Name("sidejob"), kong.Writers(io.Discard, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	of := map[string][]string{}
	var order []string
	for _, node := range parser.Model.Children {
		if !slices.Contains([]string{"serve", "dev", "emulator"}, node.Name) {
			continue
		}
		for _, f := range node.Flags {
			if f.Name == "help" || f.Hidden {
				continue
			}
			if _, seen := rows[f.Name]; !seen {
				order = append(order, f.Name)
			}
			of[f.Name] = append(of[f.Name], node.Name)
			rows[f.Name] = fmt.Sprintf("| `--%s` | %s | %s | %%s | %s |\n", shownName(f), orDash(strings.Join(f.Envs, " ")), orDash(f.Default), f.Help)
		}
	}
	var b strings.Builder
	b.WriteString("| flag | environment | default | of | meaning |\n|---|---|---|---|---|\n")
	for _, name := range order {
		fmt.Fprintf(&b, rows[name], strings.Join(of[name], ", "))
	}
	generated(t, "flags", b.String())
}

func shownName(f *kong.Flag) string {
	if f.Tag.Negatable != "" {
		return "[no-]" + f.Name
	}
	return f.Name
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return "`" + s + "`"
}

func TestREADMEBeginsWithACommand(t *testing.T) {
	lines := strings.Split(readREADME(t), "\n")
	for n, line := range lines[:12] {
		if line == "go run . dev" {
			t.Logf("line %d", n+1)
			return
		}
	}
	t.Errorf("no command in the first 12 lines: %q", lines[:12])
}

// TestREADMECommandsAreReal parses every command line of the README with the
// program's own parser, and sends every curl to a server.
func TestREADMECommandsAreReal(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(readREADME(t), -1)
	w := newWorld(t)
	shell := &readmeShell{world: w}
	commandsSeen := 0
	for _, block := range blocks {
		for _, line := range strings.Split(strings.ReplaceAll(block[1], "\\\n", ""), "\n") {
			words := shellWords(line)
			switch {
			case len(words) > 2 && words[0] == "go" && words[1] == "run":
				parses(t, words[3:])
				commandsSeen++
			case len(words) > 0 && words[0] == "sidejob":
				parses(t, words[1:])
				commandsSeen++
			case len(words) > 0 && words[0] == "curl":
				shell.curl(words)
				commandsSeen++
			}
		}
	}
	if commandsSeen < 6 {
		t.Errorf("found %d commands in the README, want at least 6", commandsSeen)
	}
}

func parses(t *testing.T, args []string) {
	t.Helper()
	parser, err := kong.New(&commands{}, kong.Name("sidejob"), kong.Writers(io.Discard, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Errorf("sidejob %s: %v", strings.Join(args, " "), err)
	}
}

// readmeShell is who pastes the README's curls, and fills in ID and TOKEN from what the
// last ones answered.
type readmeShell struct {
	*world
	id, token string
}

func (s *readmeShell) curl(words []string) {
	s.t.Helper()
	var path, body string
	fill := strings.NewReplacer("/ID/", "/"+s.id+"/", "TOKEN", s.token)
	for i, word := range words {
		if at, ok := strings.CutPrefix(word, "http://127.0.0.1:7766"); ok {
			path = fill.Replace(at)
		}
		if word == "-d" {
			body = fill.Replace(words[i+1])
		}
	}
	r := s.call("POST", path, body)
	if r.status != 200 && r.status != 201 {
		s.t.Errorf("%s: %d %s", strings.Join(words, " "), r.status, r.body)
		return
	}
	var got struct {
		Jobs []struct {
			ID         int64
			LeaseToken string
		}
	}
	if r.into(s.t, &got); len(got.Jobs) > 0 {
		s.id, s.token = fmt.Sprint(got.Jobs[0].ID), got.Jobs[0].LeaseToken
	}
}

// TestREADMEShowsNightsOnWhichClocksChange runs the commands that it shows, and holds it to
// what they print.
func TestREADMEShowsNightsOnWhichClocksChange(t *testing.T) {
	var b strings.Builder
	for _, line := range []string{
		"sidejob schedule preview '30 2 * * *' --timezone America/New_York --from 2026-03-07T00:00:00Z --count 3",
		"sidejob schedule preview '0 */2 * * *' --timezone Europe/Berlin --from 2026-10-24T21:00:00Z --count 4",
	} {
		words := shellWords(line)
		var out, errs strings.Builder
		std := streams{out: &out, err: &errs, env: func(string) string { return "" }}
		if code := run(t.Context(), words[1:], std); code != 0 {
			t.Fatalf("%s: exit code %d, %s", line, code, errs.String())
		}
		text := regexp.MustCompile(`(?m) +$`).ReplaceAllString(out.String(), "")
		fmt.Fprintf(&b, "```sh\n%s\n```\n\n```\n%s```\n\n", line, text)
	}
	generated(t, "preview", b.String())
}

// shellWords splits a line as a shell would: blanks, and single quotes.
func shellWords(line string) (words []string) {
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			words = append(words, part)
			continue
		}
		words = append(words, strings.Fields(part)...)
	}
	return words
}
