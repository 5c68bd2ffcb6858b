package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"sidejob/internal/emulator"
	"sidejob/internal/job/cron"
)

// emulatorFlags are those of emulator and dev.
type emulatorFlags struct {
	EmulatorListen string `env:"SIDEJOB_EMULATOR_LISTEN" default:"127.0.0.1:7767" help:"Where the Trigger.dev emulator answers."`
	EmulatorTasks  string `env:"SIDEJOB_EMULATOR_TASKS" placeholder:"FILE" help:"Tasks beside the built-in ones, a JSON file."`
	EmulatorURL    string `name:"emulator-webhook-url" env:"SIDEJOB_EMULATOR_WEBHOOK_URL" placeholder:"URL" help:"Where the emulator posts signed events."`
	RateLimit      int    `name:"emulator-rate-limit" env:"SIDEJOB_EMULATOR_RATE_LIMIT" default:"0" help:"Requests an environment may make at once; a third comes back every 10 s. 0: 750, as the real server; -1: no limit."`
	EmulatorStrict bool   `env:"SIDEJOB_EMULATOR_STRICT" help:"Let runs of unknown tasks wait, as the real server does."`
}

func (f emulatorFlags) config(log *slog.Logger) (emulator.Config, error) {
	cfg := emulator.Config{
		Strict: f.EmulatorStrict, RateLimit: f.RateLimit, RateRefill: f.RateLimit / 3, WebhookURL: f.EmulatorURL, Log: category(log, "emulator"), NextRun: nextRun,
	}
	if f.EmulatorTasks == "" {
		return cfg, nil
	}
	file, err := os.Open(f.EmulatorTasks)
	if err != nil {
		return cfg, usage(fmt.Errorf("--emulator-tasks: %w", err))
	}
	defer file.Close()
	if cfg.Tasks, err = emulator.ReadTasks(file); err != nil {
		return cfg, usage(fmt.Errorf("--emulator-tasks: %s: %w", f.EmulatorTasks, err))
	}
	return cfg, nil
}

func nextRun(expression, timezone string, after time.Time) (time.Time, error) {
	s, err := cron.Parse(expression, timezone)
	if err != nil {
		return time.Time{}, err
	}
	return s.Next(after), nil
}

// emulatorCommand is sidejob emulator.
type emulatorCommand struct {
	emulatorFlags `embed:""`
	State         string `env:"SIDEJOB_EMULATOR_STATE" placeholder:"FILE" help:"Keep runs in this file; without it, in memory."`
	logFlags      `embed:""`
}

// Run implements sidejob emulator.
func (c emulatorCommand) Run(ctx context.Context, std streams) error {
	log := c.logger(std.err, isTerminal(std.err), wantsColor(std.env))
	cfg, err := c.config(log)
	if err != nil {
		return err
	}
	if cfg.WebhookSecret, err = environment(std.env).secret("TRIGGER_WEBHOOK_SECRET"); err != nil {
		return usage(err)
	}
	cfg.StatePath = c.State
	l, err := listen(c.EmulatorListen, "--emulator-listen")
	if err != nil {
		return err
	}
	stop, err := startEmulator(l, cfg)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	fmt.Fprintf(std.out, "Trigger.dev emulator: %s\nIt takes any key such as tr_dev_local; set TRIGGER_API_URL to this address.\n", addressOf(l))
	<-ctx.Done()
	return stop()
}

// startEmulator serves the emulator on l until stop is called.
func startEmulator(l net.Listener, cfg emulator.Config) (stop func() error, err error) {
	e, err := emulator.New(cfg)
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: e, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	return func() error {
		err := errors.Join(srv.Close(), e.Close())
		<-served
		return err
	}, nil
}

// devCommand is sidejob dev.
type devCommand struct {
	serveFlags    `embed:""`
	emulatorFlags `embed:""`
}

const devKey = "tr_dev_emulator"

// Run implements sidejob dev: the same server as under serve, before an emulator.
func (c devCommand) Run(ctx context.Context, std streams) error {
	cfg, err := c.serveFlags.config(std.env)
	if err != nil {
		return err
	}
	if len(cfg.secrets) == 0 {
		cfg.secrets = webhookSecrets{"dev-" + uuid.NewString()}
	}
	screen := c.screen(std)
	defer screen.close()
	log := c.logger(screen.logs, isTerminal(std.err), wantsColor(std.env))
	mock, err := c.emulatorFlags.config(log)
	if err != nil {
		return err
	}
	outer, err := listen(c.EmulatorListen, "--emulator-listen")
	if err != nil {
		return err
	}
	defer outer.Close()
	d, err := c.open()
	if err != nil {
		return err
	}
	defer d.close()
	mock.StatePath = "sidejob.db.emulator"
	if !isPostgres(cfg.database) {
		mock.StatePath = strings.TrimPrefix(cfg.database, "sqlite:") + ".emulator"
	}
	mock.WebhookSecret = cfg.secrets[0]
	if mock.WebhookURL == "" {
		mock.WebhookURL, mock.Client = webhookAt(d.private)
	}
	cfg.triggerOn, cfg.triggerURL, cfg.key = true, "http://"+outer.Addr().String(), func() string { return devKey }
	s, err := startServer(ctx, d, cfg, log)
	if err != nil {
		return err
	}
	stopEmulator, err := startEmulator(outer, mock)
	if err != nil {
		return errors.Join(err, s.shutdown())
	}
	if err := c.welcome(std.out, d.private, outer, cfg.database); err != nil {
		return errors.Join(err, s.shutdown(), stopEmulator())
	}
	s.work.Go(func() { screen.follow(s.draining, s.store) })
	<-ctx.Done()
	screen.close()
	return errors.Join(s.shutdown(), stopEmulator())
}

// webhookAt is where events reach our own listener.
func webhookAt(l net.Listener) (url string, client *http.Client) {
	if l.Addr().Network() != "unix" {
		return "http://" + l.Addr().String() + webhookPath, nil
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", l.Addr().String())
	}
	return "http://localhost" + webhookPath, &http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: 5 * time.Second}
}

// welcome says where everything is, and what to paste.
func (c devCommand) welcome(w io.Writer, private, outer net.Listener, database string) error {
	base, curl := addressOf(private), "curl"
	if path, ok := strings.CutPrefix(base, "unix:"); ok {
		base, curl = "http://localhost", "curl --unix-socket "+path
	}
	self := "sidejob"
	if exe, err := os.Executable(); err == nil && strings.Contains(filepath.ToSlash(exe), "/go-build") {
		self = "go run ."
	}
	_, err := fmt.Fprintf(w, `sidejob %[1]s, for development: no account, no key, no token

  Dashboard  %[2]s/
  API        %[2]s/api/jobs       described at %[2]s/docs
  Webhook    %[2]s%[3]s
  Emulator   http://%[4]s       stands in for Trigger.dev
  Database   %[5]s

Schedule a job, in another terminal:

  %[6]s -s %[2]s/api/jobs -H 'content-type: application/json' -d '{"type":"process-large-dataset","executor":"trigger","triggerTaskId":"process-large-dataset","data":{"datasetId":"123"}}'

and read its story, by the id it answers: %[7]s job why 2

`, version(), base, webhookPath, outer.Addr(), database, curl, self)
	return err
}

// devScreen is what a developer watches: a line for each job on a terminal, with the
// log above; elsewhere the log alone.
type devScreen struct {
	board *liveBoard // nil when nobody watches
	logs  io.Writer
}

func (c devCommand) screen(std streams) *devScreen {
	screen, ok := std.out.(*os.File)
	if !ok || !isTerminal(std.out) || !isTerminal(std.err) {
		return &devScreen{logs: std.err}
	}
	board := newLiveBoard(screen, func() int { return terminalWidth(screen) }, wantsColor(std.env))
	return &devScreen{board: board, logs: board}
}

// calm is how long the screen waits for more before it draws.
const calm = 100 * time.Millisecond

// follow shows every job that moves until ctx ends.
func (s *devScreen) follow(ctx context.Context, store Store) {
	if s.board == nil {
		return
	}
	changed, stop := store.Watch(0)
	defer stop()
	shown := now()
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		timer := time.NewTimer(calm)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		shown = s.show(ctx, store, shown)
	}
}

// show draws the newest jobs that have changed since then, and says up to when.
func (s *devScreen) show(ctx context.Context, store Store, since time.Time) time.Time {
	page, err := store.List(ctx, Filter{Limit: 200})
	if err != nil {
		return since
	}
	latest := since
	for _, j := range slices.Backward(page.Jobs) {
		if j.Updated.Before(since) {
			continue
		}
		s.board.update(j, now())
		if j.Updated.After(latest) {
			latest = j.Updated
		}
	}
	return latest
}

func (s *devScreen) close() {
	if s.board != nil {
		s.board.close()
	}
}
