package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// provingRun is a run as the emulator tells programs that check of it.
type provingRun struct {
	ID, Task, Status string
	IdempotencyKey   string
	Tags             []string
	Output           json.RawMessage
	AttemptCount     int
}

// verdict is what the comparison found, promise by promise.
type verdict struct {
	promises []clause
	jobs     int
	runs     int
	cancels  int
	kills    int
	seed     uint64
}

// clause is one line of the verdict.
type clause struct {
	name    string
	checked int
	broken  []string
}

func (p *clause) hold(ok bool, format string, args ...any) {
	p.checked++
	if !ok {
		p.broken = append(p.broken, fmt.Sprintf(format, args...))
	}
}

// setFaults makes the emulator misbehave; none mends it.
func (w *proving) setFaults(ctx context.Context, faults ...map[string]any) error {
	if faults == nil {
		faults = []map[string]any{}
	}
	body, err := json.Marshal(faults)
	if err != nil {
		return err
	}
	_, err = w.ask(ctx, http.MethodPut, "/emulator/faults", body)
	return err
}

// ask calls the emulator's own controls.
func (w *proving) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	base := strings.TrimPrefix(w.env[1], "TRIGGER_API_URL=")
	r, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask the emulator: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("ask the emulator: %s %s: %d %s", method, path, res.StatusCode, answer)
	}
	return answer, err
}

// judge compares every acknowledged job with its row, and every row with its run.
func (w *proving) judge(ctx context.Context) (verdict, error) {
	answer, err := w.ask(ctx, http.MethodGet, "/emulator/runs", nil)
	if err != nil {
		return verdict{}, err
	}
	var truth struct{ Runs []provingRun }
	if err := json.Unmarshal(answer, &truth); err != nil {
		return verdict{}, fmt.Errorf("read the emulator's runs: %w", err)
	}
	rows, err := w.host.rows(ctx)
	if err != nil {
		return verdict{}, err
	}
	v := verdict{jobs: len(w.host.jobs), runs: len(truth.Runs), cancels: len(w.host.canceled)}
	v.promises = []clause{
		w.host.keptAll(rows), onceEach(rows, truth.Runs), w.host.neverChanged(rows), sameAsTruth(rows, truth.Runs),
		w.host.canceledStay(rows), w.host.sane(), w.silentLogs(),
	}
	return v, nil
}

// rows reads every acknowledged job. One that is gone is no error here.
func (h *provingHost) rows(ctx context.Context) (map[int64]provingRow, error) {
	rows := map[int64]provingRow{}
	for id := range h.jobs {
		row, err := h.read(ctx, id)
		if errors.Is(err, errNoRow) {
			continue
		}
		if err != nil {
			return nil, err
		}
		rows[id] = row
	}
	return rows, nil
}

func (h *provingHost) keptAll(rows map[int64]provingRow) clause {
	p := clause{name: "I1  no acknowledged job is lost"}
	for id, j := range h.jobs {
		row, ok := rows[id]
		p.hold(ok && row.Tag == j.tag && row.TriggerTaskID == j.task, "job %d (%s) is %+v", id, j.tag, row)
	}
	return p
}

func onceEach(rows map[int64]provingRow, runs []provingRun) clause {
	p := clause{name: "I2  at most one run per job"}
	of := map[int64][]string{}
	for _, run := range runs {
		id := rowTag(run.Tags)
		of[id] = append(of[id], run.ID)
	}
	for id, ids := range of {
		p.hold(len(ids) == 1, "job %d has runs %v", id, ids)
	}
	return p
}

func (h *provingHost) neverChanged(rows map[int64]provingRow) clause {
	p := clause{name: "I3  a confirmed end never changes"}
	for id, was := range h.finals {
		is := rows[id]
		same := is.Status == was.Status && is.Finished == was.Finished && bytes.Equal(is.Result, was.Result)
		p.hold(same, "job %d was %+v and is %+v", id, was, is)
	}
	return p
}

func sameAsTruth(rows map[int64]provingRow, runs []provingRun) clause {
	p := clause{name: "I4  every row says what Trigger.dev says"}
	byID := map[string]provingRun{}
	for _, run := range runs {
		byID[run.ID] = run
		row, ok := rows[rowTag(run.Tags)]
		p.hold(ok && row.TriggerRunID == run.ID, "run %s has no row of its own: %+v", run.ID, row)
	}
	for id, row := range rows {
		run, has := byID[row.TriggerRunID]
		switch {
		case row.TriggerRunID == "":
			p.hold(row.Status == "CANCELED", "job %d has no run and is %s", id, row.Status)
		default:
			same := has && run.Status == row.TriggerRawStatus && (run.Status != "COMPLETED" || sameJSON(run.Output, row.Result))
			p.hold(same, "job %d is %+v; Trigger.dev says %+v", id, row, run)
		}
	}
	return p
}

// sameJSON compares an output with a result; no output is a result of null.
func sameJSON(output, result json.RawMessage) bool {
	if len(output) == 0 {
		output = json.RawMessage("null")
	}
	var a, b bytes.Buffer
	return json.Compact(&a, output) == nil && json.Compact(&b, result) == nil && bytes.Equal(a.Bytes(), b.Bytes())
}

func (h *provingHost) canceledStay(rows map[int64]provingRow) clause {
	p := clause{name: "I7  what was canceled has ended"}
	for id := range h.canceled {
		row := rows[id]
		p.hold(row.Success != nil, "job %d was canceled and is %s", id, row.Status)
	}
	return p
}

// sane collects answers that no server may give, whatever happens to it.
func (h *provingHost) sane() clause {
	return clause{name: "    every answer is one of the contract", checked: len(h.jobs) + len(h.canceled), broken: h.wrong}
}

// silentLogs looks for secrets and payloads in all that the server has logged.
func (w *proving) silentLogs() clause {
	p := clause{name: "I9  no secret and no payload in any log"}
	text, err := os.ReadFile(w.logs)
	p.hold(err == nil, "read the log: %v", err)
	for _, secret := range []string{provingKey, provingToken, provingSecret, provingPayload} {
		p.hold(!bytes.Contains(text, []byte(secret)), "the log holds %q", secret)
	}
	return p
}

func (v verdict) broken() bool {
	return slices.ContainsFunc(v.promises, func(p clause) bool { return len(p.broken) > 0 })
}

// print writes the table, and of each broken promise the first cases.
func (v verdict) print(to io.Writer) {
	fmt.Fprintf(to, "%d kills, %d jobs acknowledged, %d cancels acknowledged, %d runs, seed %d\n\n", v.kills, v.jobs, v.cancels, v.runs, v.seed)
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "promise\tchecked\tbroken\t")
	for _, p := range v.promises {
		fmt.Fprintf(table, "%s\t%d\t%d\t\n", p.name, p.checked, len(p.broken))
	}
	_ = table.Flush() // to a terminal or a pipe: whoever left misses it
	for _, p := range v.promises {
		for _, one := range p.broken[:min(len(p.broken), 5)] {
			fmt.Fprintf(to, "\n%s: %s\n", strings.TrimSpace(p.name), one)
		}
	}
}

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
