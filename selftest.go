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
// an emulator and a server as processes on a throw-away database, lets a host app
// work, makes everything fail, kills the server again and again, and compares what
// was acknowledged with what is there.
type selftestCommand struct {
	Kills   int           `default:"20" help:"How often the server is killed."`
	Minutes float64       `default:"0" help:"Go on killing for at least so long."`
	Seed    uint64        `default:"0" help:"Repeat the random choices of an earlier test; 0 takes new ones."`
	Settle  time.Duration `default:"2m" help:"How long the jobs may take to settle at the end."`
	Keep    bool          `help:"Keep the temporary folder and the database."`

	// No environment names it: that of production would be taken for it.
	Database *string `placeholder:"postgres://…" help:"Prove it on this PostgreSQL server, in a database that is made for it and dropped at the end. The role needs CREATEDB. DATABASE_URL is not looked at; leave a password to PGPASSWORD or ~/.pgpass."`
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
	database, err := makeDatabase(ctx, c.Database, dir)
	if err != nil {
		return err
	}
	if !c.Keep {
		defer func() { err = errors.Join(err, database.remove(context.WithoutCancel(ctx))) }()
	}
	std.note("seed %d, folder %s, %s database %s", c.Seed, dir, database.engine(), database.name())
	w, err := newProving(ctx, dir, database, c.Seed)
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
	if err := w.restore(ctx, c.Settle, &verdict); err != nil {
		return err
	}
	verdict.engine, verdict.kills, verdict.seed = database.engine(), rounds, c.Seed
	verdict.print(std.out)
	if verdict.broken() {
		return fmt.Errorf("promises were broken; repeat with --seed %d --kills %d --keep", c.Seed, c.Kills)
	}
	return nil
}

// proving is one test under way.
type proving struct {
	database provingDatabase
	random   *rand.Rand
	truth    *child // the emulator
	server   *child
	host     *provingHost
	relay    *provingRelay // between the emulator and the server's webhook
	env      []string
	logs     string    // of all lives of the server
	deck     []trouble // what is left of the catalogue
	point    string    // the failpoint of the server's life, "" for none
	outlived bool      // the life before this one looks as if it had ended long ago
	hindered clause    // what became of the rounds in which the database was away
	lives    clause    // how the server's lives have ended
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

// newProving starts the emulator, the relay and the first server.
func newProving(ctx context.Context, dir string, database provingDatabase, seed uint64) (w *proving, err error) {
	w = &proving{
		database: database, outlived: true, random: rand.New(rand.NewPCG(seed, seed)), logs: filepath.Join(dir, "server.log"),
		hindered: clause{name: "    a database that is away is said, and lived through"},
		lives:    clause{name: "    the server never ends by itself"},
	}
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
	w.host = newProvingHost("http://"+address, seed)
	if w.relay, err = startRelay(w.host, seed); err != nil {
		return nil, err
	}
	w.truth, err = startChild(ctx, filepath.Join(dir, "emulator.log"), []string{"TRIGGER_WEBHOOK_SECRET=" + provingSecret},
		"http://"+truth+"/healthcheck", "emulator", "--emulator-listen", truth, "--emulator-tasks", tasks,
		"--emulator-webhook-url", w.relay.url)
	if err != nil {
		w.stop()
		return nil, fmt.Errorf("start the emulator: %w", err)
	}
	w.env = []string{
		"TRIGGER_SECRET_KEY=" + provingKey, "TRIGGER_API_URL=http://" + truth, "TRIGGER_WEBHOOK_SECRET=" + provingSecret,
		"SIDEJOB_TOKEN=" + provingToken, "SIDEJOB_SYNC_INTERVAL=10s", "LOG_LEVEL=debug", "LOG_FORMAT=json",
		"DATABASE_URL=" + database.address(), // anybody may read the arguments of a process
	}
	if err := w.start(ctx, ""); err != nil {
		w.stop()
		return nil, err
	}
	return w, nil
}

// start begins a life of the server, which ends at the failpoint if one is named.
func (w *proving) start(ctx context.Context, point string) (err error) {
	w.point = point
	env := w.env
	if point != "" {
		env = append(append([]string{}, w.env...), "SIDEJOB_FAILPOINT="+point)
	}
	w.server, err = startChild(ctx, w.logs, env, w.host.base+"/livez",
		"serve", "--listen", w.host.base[len("http://"):])
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	return nil
}

func (w *proving) stop() {
	w.host.stop()
	w.relay.stop()
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
		what, err := w.round(ctx, rounds == c.Kills/2)
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
	if err := errors.Join(w.database.outlive(ctx), w.start(ctx, "")); err != nil {
		return rounds, err
	}
	w.host.stop()
	w.relay.deliver(ctx)
	return rounds, w.settle(ctx, c.Settle)
}

// round lets the host use a server that is in some trouble, kills it, and starts the
// next one. The emulator runs on. Between two lives the database may be copied aside,
// as a backup would.
func (w *proving) round(ctx context.Context, backup bool) (what string, err error) {
	t := w.nextTrouble()
	if backup {
		t = beforeBackup()
	}
	if err := w.live(ctx, t); err != nil {
		return t.name, err
	}
	point := ""
	if w.random.IntN(6) == 0 {
		t.name += ", SIGTERM"
		err = w.server.terminate(ctx)
	} else {
		w.server.kill()
		point = w.nextFailpoint()
	}
	if backup && err == nil {
		err = w.database.backup(ctx)
	}
	if w.outlived = w.random.IntN(5) > 0; w.outlived && err == nil {
		err = w.database.outlive(ctx)
	}
	return t.name, errors.Join(err, w.start(ctx, point))
}

// live is the life of the server in a trouble.
func (w *proving) live(ctx context.Context, t trouble) error {
	if err := w.setFaults(ctx, t.faults...); err != nil {
		return err
	}
	w.relay.pass(t.events)
	answers, then := t.answers+w.random.IntN(10), t.lasts+time.Duration(w.random.IntN(60))*time.Millisecond
	w.host.use(ctx, answers/2, 0, w.server.done)
	if t.also != nil {
		if err := t.also(ctx); err != nil {
			return err
		}
	}
	w.host.use(ctx, answers-answers/2, then, w.server.done)
	w.lives.hold(w.point != "" || !w.server.dead(), "a life ended by itself (%s); the log is %s", t.name, w.logs)
	return nil
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
