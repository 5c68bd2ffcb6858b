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

	"sidejob/internal/job"
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
	engine   string
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
	runs, err := w.runs(ctx, "")
	if err != nil {
		return verdict{}, err
	}
	rows, err := w.host.rows(ctx)
	if err != nil {
		return verdict{}, err
	}
	foundAll, err := w.host.foundAll(ctx, rows)
	if err != nil {
		return verdict{}, err
	}
	v := verdict{jobs: len(w.host.jobs), runs: len(runs), cancels: len(w.host.canceled)}
	v.promises = []clause{
		w.host.keptAll(rows), onceEach(rows, runs), w.host.neverChanged(rows), sameAsTruth(rows, runs),
		w.host.canceledStay(rows), w.relay.disbelieved(rows), foundAll, w.hindered, w.lives, w.host.sane(), w.silentLogs(),
	}
	return v, nil
}

// runs are all that the emulator has.
func (w *proving) runs(ctx context.Context, query string) ([]provingRun, error) {
	answer, err := w.ask(ctx, http.MethodGet, "/emulator/runs?"+query, nil)
	if err != nil {
		return nil, err
	}
	var truth struct{ Runs []provingRun }
	if err := json.Unmarshal(answer, &truth); err != nil {
		return nil, fmt.Errorf("read the emulator's runs: %w", err)
	}
	return truth.Runs, nil
}

// settle waits until no job of Trigger.dev is unfinished, no run is under way, and
// every end is confirmed. sidejob's own recurring job stays open for ever.
func (w *proving) settle(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	w.host.client.Timeout = within
	for {
		var open struct{ Count int }
		err := w.host.get(ctx, "/api/jobs/count?finished=false&executor=trigger", &open)
		if err == nil && open.Count == 0 && w.runsOver(ctx) && w.host.confirmAll(ctx) {
			return nil
		}
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("jobs do not settle within %s: %d are open (%w)", within, open.Count, err)
		}
	}
}

// runsOver tells whether no run can change any more. A row may have ended before its
// run: an event can say so.
func (w *proving) runsOver(ctx context.Context) bool {
	runs, err := w.runs(ctx, "values=false")
	return err == nil && !slices.ContainsFunc(runs, func(r provingRun) bool { return !job.StatusOf(r.Status).Final() })
}

// confirmAll has Trigger.dev asked once more about what an event has closed, at the
// pace of the rate limit, and tells whether that came to an end.
func (h *provingHost) confirmAll(ctx context.Context) bool {
	var report Report
	status, answer, err := h.call(ctx, http.MethodPost, "/api/reconcile", "{}", "")
	return err == nil && status == http.StatusOK && json.Unmarshal(answer, &report) == nil && report.FailedJobs+report.SkippedJobs == 0
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
	saysTruth(&p, rows, byID)
	return p
}

// saysTruth compares each row with the run that it names.
func saysTruth(p *clause, rows map[int64]provingRow, byID map[string]provingRun) {
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

// foundAll reads the histories: Trigger.dev has lost no run, so no job was ever given
// up.
func (h *provingHost) foundAll(ctx context.Context, rows map[int64]provingRow) (clause, error) {
	p := clause{name: "    no run is given up that is there"}
	for id := range rows {
		states, err := h.states(ctx, id)
		if err != nil {
			return p, err
		}
		p.hold(!slices.Contains(states, job.StateOrphaned), "job %d was taken for an orphan: %v", id, states)
	}
	return p, nil
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
	if password := w.database.password(); password != "" {
		p.hold(!bytes.Contains(text, []byte(password)), "the log %s holds the database's password", w.logs)
	}
	return p
}

func (v verdict) broken() bool {
	return slices.ContainsFunc(v.promises, func(p clause) bool { return len(p.broken) > 0 })
}

// print writes the table, and of each broken promise the first cases.
func (v verdict) print(to io.Writer) {
	fmt.Fprintf(to, "%d kills on %s, %d jobs acknowledged, %d cancels acknowledged, %d runs, seed %d\n\n", v.kills, v.engine, v.jobs, v.cancels, v.runs, v.seed)
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
