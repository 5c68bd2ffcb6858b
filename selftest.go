package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// selftestCommand proves on this machine that sidejob keeps its promises: it starts
// an emulator and a server as processes on a temporary database, lets a host app
// work, makes everything fail, kills the server again and again, and compares what
// was acknowledged with what is there.
type selftestCommand struct {
	Kills   int           `default:"20" help:"How often the server is killed."`
	Minutes float64       `default:"0" help:"Go on killing for at least so long."`
	Seed    uint64        `default:"0" help:"Repeat the random choices of an earlier test; 0 takes new ones."`
	Settle  time.Duration `default:"2m" help:"How long the jobs may take to settle at the end."`
	Keep    bool          `help:"Keep the temporary folder."`
}

// Run implements sidejob selftest.
func (c selftestCommand) Run(ctx context.Context, std streams) (err error) {
	if c.Kills < 0 || c.Minutes < 0 {
		return usage(errors.New("--kills and --minutes are not negative"))
	}
	if c.Seed == 0 {
		c.Seed = rand.Uint64N(1_000_000) + 1
	}
	dir, err := os.MkdirTemp("", "sidejob-selftest-")
	if err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	if !c.Keep {
		defer os.RemoveAll(dir)
	}
	std.note("seed %d, folder %s", c.Seed, dir)
	w, err := newProving(ctx, dir, c.Seed)
	if err != nil {
		return err
	}
	defer w.stop()
	p := newProgress(std, c.Kills)
	rounds, err := w.prove(ctx, c, p.show)
	p.end()
	if err != nil {
		return err
	}
	verdict, err := w.judge(ctx)
	if err != nil {
		return err
	}
	verdict.kills, verdict.seed = rounds, c.Seed
	verdict.print(std.out)
	if verdict.broken() {
		return fmt.Errorf("promises were broken; repeat with --seed %d --kills %d --keep", c.Seed, c.Kills)
	}
	return nil
}

// proving is one test under way.
type proving struct {
	dir    string
	random *rand.Rand
	truth  *child // the emulator
	server *child
	host   *provingHost
	env    []string
	logs   string // of all lives of the server
}

const (
	provingKey     = "tr_dev_selftest"
	provingToken   = "selftest-token-5d0c"
	provingSecret  = "selftest-webhook-secret-91f7"
	provingPayload = "selftest-payload-c0ffee"
)

// provingTasks are what the emulator is to do.
const provingTasks = `{
	"quick":  {"durationMs": 50, "output": "` + provingPayload + `"},
	"falsy":  {"durationMs": 50, "output": 0},
	"slow":   {"durationMs": 1500, "output": {"n": 1}},
	"flaky":  {"durationMs": 50, "failAttempts": 1, "output": true},
	"bad":    {"durationMs": 100, "status": "FAILED", "error": {"message": "no"}},
	"crash":  {"durationMs": 100, "status": "CRASHED"},
	"time":   {"durationMs": 100, "status": "TIMED_OUT"}
}`

// newProving starts the emulator and the first server.
func newProving(ctx context.Context, dir string, seed uint64) (*proving, error) {
	w := &proving{dir: dir, random: rand.New(rand.NewPCG(seed, seed)), logs: filepath.Join(dir, "server.log")}
	tasks := filepath.Join(dir, "tasks.json")
	if err := os.WriteFile(tasks, []byte(provingTasks), 0o600); err != nil {
		return nil, err
	}
	address, err := unusedAddress()
	if err != nil {
		return nil, err
	}
	truth, err := unusedAddress()
	if err != nil {
		return nil, err
	}
	w.truth, err = startChild(ctx, filepath.Join(dir, "emulator.log"), []string{"TRIGGER_WEBHOOK_SECRET=" + provingSecret},
		"http://"+truth+"/healthcheck", "emulator", "--emulator-listen", truth, "--emulator-tasks", tasks,
		"--emulator-webhook-url", "http://"+address+webhookPath)
	if err != nil {
		return nil, fmt.Errorf("start the emulator: %w", err)
	}
	w.env = []string{
		"TRIGGER_SECRET_KEY=" + provingKey, "TRIGGER_API_URL=http://" + truth, "TRIGGER_WEBHOOK_SECRET=" + provingSecret,
		"SIDEJOB_TOKEN=" + provingToken, "SIDEJOB_SYNC_INTERVAL=10s", "LOG_LEVEL=debug", "LOG_FORMAT=json",
	}
	w.host = newProvingHost("http://"+address, seed)
	return w, w.start(ctx, "")
}

// start begins a life of the server, which ends at the failpoint if one is named.
func (w *proving) start(ctx context.Context, point string) (err error) {
	env := w.env
	if point != "" {
		env = append(append([]string{}, w.env...), "SIDEJOB_FAILPOINT="+point)
	}
	w.server, err = startChild(ctx, w.logs, env, w.host.base+"/livez",
		"serve", "--listen", w.host.base[len("http://"):], "--database", filepath.Join(w.dir, "selftest.db"))
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	return nil
}

func (w *proving) stop() {
	w.host.stop()
	if w.server != nil {
		w.server.kill()
	}
	if w.truth != nil {
		w.truth.kill()
	}
}

// prove kills the server until it was killed often and long enough, then lets
// everything settle.
func (w *proving) prove(ctx context.Context, c selftestCommand, show func(done int, what string)) (rounds int, err error) {
	w.host.start(ctx, 4)
	until := time.Now().Add(time.Duration(c.Minutes * float64(time.Minute)))
	for ; rounds < c.Kills || time.Now().Before(until); rounds++ {
		if ctx.Err() != nil {
			return rounds, ctx.Err()
		}
		what, err := w.round(ctx)
		if err != nil {
			return rounds, fmt.Errorf("round %d (%s): %w", rounds+1, what, err)
		}
		show(rounds+1, what)
	}
	show(rounds, "settling")
	if err := w.setFaults(ctx); err != nil {
		return rounds, err
	}
	w.server.kill() // its failpoint may strike yet
	if err := w.start(ctx, ""); err != nil {
		return rounds, err
	}
	w.host.stop()
	return rounds, w.host.settle(ctx, c.Settle)
}

// round lets the host use a server that is in some trouble, kills it, and starts the
// next one. The emulator runs on.
func (w *proving) round(ctx context.Context) (what string, err error) {
	trouble := w.troubles()[w.random.IntN(len(w.troubles()))]
	if err := w.setFaults(ctx, trouble.faults...); err != nil {
		return trouble.name, err
	}
	w.host.use(ctx, w.random.IntN(12), time.Duration(w.random.IntN(60))*time.Millisecond, w.server.done)
	if w.random.IntN(6) == 0 {
		return trouble.name + ", SIGTERM", errors.Join(w.server.terminate(ctx), w.start(ctx, ""))
	}
	w.server.kill()
	return trouble.name, w.start(ctx, w.nextFailpoint())
}

// nextFailpoint names where the next life ends, for every third one; the others are
// killed from outside.
func (w *proving) nextFailpoint() string {
	if w.random.IntN(3) > 0 {
		return ""
	}
	names := failpointNames()
	return fmt.Sprintf("%s:%d", names[w.random.IntN(len(names))], 1+w.random.IntN(4))
}

// trouble is what goes wrong at Trigger.dev's side during a round.
type trouble struct {
	name   string
	faults []map[string]any
}

// troubles is the catalogue.
func (w *proving) troubles() []trouble {
	fault := func(path, kind string, more ...any) map[string]any {
		f := map[string]any{"match": map[string]any{"path": path}, "kind": kind, "probability": 0.5}
		for i := 0; i+1 < len(more); i += 2 {
			f[more[i].(string)] = more[i+1]
		}
		return f
	}
	const all, submit, runs, list, realtime = "/api/", "/api/v1/tasks/", "/api/v3/runs/", "/api/v1/runs", "/realtime/"
	return []trouble{
		{"none", nil},
		{"replies are lost after accept", []map[string]any{fault(submit, "dropReply")}},
		{"cancels' replies are lost", []map[string]any{fault("/api/v2/runs/", "dropReply")}},
		{"everything is 500", []map[string]any{fault(all, "status", "status", 500, "probability", 1)}},
		{"502 and 503 now and then", []map[string]any{fault(all, "status", "status", 502), fault(all, "status", "status", 503)}},
		{"rate limited", []map[string]any{fault(all, "status", "status", 429, "delayMs", 500)}},
		{"408", []map[string]any{fault(submit, "status", "status", 408)}},
		{"hanging", []map[string]any{fault(submit, "hang", "probability", 0.2)}},
		{"slow", []map[string]any{fault(all, "delay", "delayMs", 300)}},
		{"connections are reset", []map[string]any{fault(all, "reset")}},
		{"garbage", []map[string]any{fault(all, "garbage")}},
		{"truncated replies", []map[string]any{fault(all, "truncate")}},
		{"redirects", []map[string]any{fault(all, "redirect")}},
		{"the key is refused", []map[string]any{fault(all, "status", "status", 401, "probability", 1)}},
		{"forbidden", []map[string]any{fault(all, "status", "status", 403, "probability", 1)}},
		{"young runs are not found", []map[string]any{fault(runs, "notFound")}},
		{"lists lag", []map[string]any{fault(list, "staleList", "delayMs", 5000, "probability", 1)}},
		{"lists are empty", []map[string]any{fault(list, "emptyList", "probability", 1)}},
		{"no realtime", []map[string]any{fault(realtime, "reset", "probability", 1)}},
	}
}
