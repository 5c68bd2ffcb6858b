package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"sidejob/internal/triggerdev"
)

// serveFlags are those of serve and dev.
type serveFlags struct {
	Database      string        `env:"DATABASE_URL" default:"sidejob.db" placeholder:"PATH" help:"The database: PATH, sqlite:PATH or postgres://…. DATABASE_URL_FILE names a file that holds it."`
	DatabaseConns int           `env:"SIDEJOB_DATABASE_CONNS" default:"10" help:"PostgreSQL: connections open at once, beside the one that listens."`
	DatabaseLimit time.Duration `name:"database-timeout" env:"SIDEJOB_DATABASE_TIMEOUT" default:"15s" help:"PostgreSQL: how long a statement may take. A caller gets a 503 after a third more at most."`
	Notify        bool          `name:"database-notify" env:"SIDEJOB_DATABASE_NOTIFY" default:"true" negatable:"" help:"Hear of rows that others write at once, on a connection of its own to PostgreSQL. A pooler of transactions, such as PgBouncer, lets nothing be heard: --no-database-notify."`
	Listen        string        `env:"SIDEJOB_LISTEN" default:"127.0.0.1:7766" help:"Private API: host:port or unix:PATH."`
	WebhookListen string        `env:"SIDEJOB_WEBHOOK_LISTEN" placeholder:"HOST:PORT" help:"A second, public listener that serves only the webhook and /livez."`
	AllowedHost   []string      `env:"SIDEJOB_ALLOWED_HOST" placeholder:"NAME" help:"Further names under which the private API may be called."`
	Registry      string        `env:"SIDEJOB_REGISTRY" placeholder:"FILE" help:"The job registry, a JSON file."`
	SyncInterval  time.Duration `env:"SIDEJOB_SYNC_INTERVAL" default:"5m" help:"The slowest polling period."`
	DrainTimeout  time.Duration `env:"SIDEJOB_DRAIN_TIMEOUT" default:"25s" help:"After SIGTERM, how long workers that hold jobs and sends under way are waited for."`
	WorkerCount   string        `env:"WORKER_COUNT" default:"1" help:"Workers for built-in types: a number, or cpus."`
	Failpoint     string        `env:"SIDEJOB_FAILPOINT" hidden:"" help:"For selftest: die there."`
	logFlags      `embed:""`
}

// config reads and checks what serve and dev have in common.
func (f serveFlags) config(env environment) (config, error) {
	reg, err := readRegistry(f.Registry)
	if err != nil {
		return config{}, usage(err)
	}
	if f.SyncInterval < time.Second {
		return config{}, usage(fmt.Errorf("--sync-interval: is %s; it is at least 1s", f.SyncInterval))
	}
	if f.DrainTimeout < 0 {
		return config{}, usage(errors.New("--drain-timeout: is negative"))
	}
	if f.DatabaseConns < 2 {
		return config{}, usage(fmt.Errorf("--database-conns: is %d; it is at least 2", f.DatabaseConns))
	}
	if f.DatabaseLimit < 100*time.Millisecond {
		return config{}, usage(fmt.Errorf("--database-timeout: is %s; it is at least 100ms", f.DatabaseLimit))
	}
	workers, err := f.workers()
	if err != nil {
		return config{}, usage(err)
	}
	database, err := env.database(f.Database)
	if err != nil {
		return config{}, usage(err)
	}
	secrets, err := env.secret("TRIGGER_WEBHOOK_SECRET")
	if err != nil {
		return config{}, usage(err)
	}
	point, err := readFailpoint(f.Failpoint)
	if err != nil {
		return config{}, usage(err)
	}
	return config{
		failpoint: point, database: database, pool: pool{conns: f.DatabaseConns, timeout: f.DatabaseLimit, deaf: !f.Notify}, registry: reg, hosts: f.hosts(), syncEvery: f.SyncInterval, drain: f.DrainTimeout,
		workers: workers,
		secrets: readSecrets(secrets),
	}, nil
}

// workers is how many carry out built-in types.
func (f serveFlags) workers() (int, error) {
	if f.WorkerCount == "cpus" {
		return runtime.NumCPU(), nil
	}
	n, err := strconv.Atoi(f.WorkerCount)
	if err != nil || n < 0 || n > maxWorkers {
		return 0, fmt.Errorf("--worker-count: is %q; it is a number up to %d, or cpus", f.WorkerCount, maxWorkers)
	}
	return n, nil
}

const maxWorkers = 1000

// hosts are the names of the private listener. One that listens everywhere has no
// name of its own.
func (f serveFlags) hosts() []string {
	host, _, err := net.SplitHostPort(f.Listen)
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
		return f.AllowedHost
	}
	return append([]string{host}, f.AllowedHost...)
}

// environment reads what no flag may carry.
type environment func(name string) string

// secret is the value of NAME, or of the file that NAME_FILE names.
func (e environment) secret(name string) (string, error) {
	value, path := e(name), e(name+"_FILE")
	switch {
	case value != "" && path != "":
		return "", fmt.Errorf("both %s and %s_FILE are set: unset one", name, name)
	case path == "":
		return value, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s_FILE: %w", name, err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

// database is the address of the database: what the flag says, else DATABASE_URL or the
// file that DATABASE_URL_FILE names.
func (e environment) database(flag string) (string, error) {
	address, err := e.secret("DATABASE_URL")
	if address == "" || flag != "sidejob.db" {
		address = flag // the flag beats the file
	}
	return address, err
}

// key gives the Trigger.dev key. One from a file is read again for each request, so
// that a new one is taken up; while the file cannot be read the last one serves.
func (e environment) key() (key func() string, given bool, err error) {
	const name = "TRIGGER_SECRET_KEY"
	first, err := e.secret(name)
	if err != nil {
		return nil, false, err
	}
	var mu sync.Mutex
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		if again, err := e.secret(name); err == nil && again != "" {
			first = again
		}
		return first
	}, first != "", nil
}

// serveCommand is sidejob serve.
type serveCommand struct {
	serveFlags        `embed:""`
	TriggerProjectRef string `env:"TRIGGER_PROJECT_REF" placeholder:"proj_…" help:"For links to the dashboard of Trigger.dev."`
	TriggerAPIURL     string `name:"trigger-api-url" env:"TRIGGER_API_URL" default:"https://api.trigger.dev" help:"A self-hosted Trigger.dev, or an emulator."`
	Trigger           *bool  `env:"TRIGGER_ENABLED" negatable:"" help:"Run jobs on Trigger.dev. Needs TRIGGER_SECRET_KEY."`
}

// Run implements sidejob serve.
func (c serveCommand) Run(ctx context.Context, std streams) error {
	cfg, err := c.config(std.env)
	if err != nil {
		return err
	}
	token, err := environment(std.env).secret("SIDEJOB_TOKEN")
	if err != nil {
		return usage(err)
	}
	cfg.token, cfg.tokenFile = token, tokenFileBeside(cfg.database)
	return serveUntil(ctx, c.serveFlags, cfg, std)
}

// config adds what only serve asks for.
func (c serveCommand) config(env environment) (config, error) {
	cfg, err := c.serveFlags.config(env)
	if err != nil {
		return cfg, err
	}
	key, given, err := env.key()
	if err != nil {
		return cfg, usage(err)
	}
	cfg.key, cfg.triggerURL, cfg.triggerOn, cfg.runsURL = key, c.TriggerAPIURL, given, c.runsURL()
	if c.Trigger != nil {
		cfg.triggerOn = *c.Trigger
	}
	if !given && (c.Trigger == nil || *c.Trigger) {
		return cfg, usage(errors.New("TRIGGER_SECRET_KEY is not set: set it (or TRIGGER_SECRET_KEY_FILE) to run jobs on Trigger.dev, " +
			"or switch that off with --no-trigger. To try sidejob without an account: sidejob dev"))
	}
	return cfg, nil
}

// runsURL is where Trigger.dev shows the runs of the project, "" without its ref.
// The cloud's dashboard has a host of its own; a self-hosted server is its own.
func (c serveCommand) runsURL() string {
	if c.TriggerProjectRef == "" {
		return ""
	}
	base := strings.TrimSuffix(c.TriggerAPIURL, "/")
	if base == triggerdev.DefaultBaseURL {
		base = "https://cloud.trigger.dev"
	}
	return base + "/projects/v3/" + url.PathEscape(c.TriggerProjectRef) + "/runs/"
}

// tokenFileBeside is where the token of a database's server is kept: in the current
// folder, where the database is no file.
func tokenFileBeside(database string) string {
	if isPostgres(database) {
		return "sidejob.token"
	}
	return filepath.Join(filepath.Dir(strings.TrimPrefix(database, "sqlite:")), "sidejob.token")
}

// doors are the listeners of a server.
type doors struct {
	private, public net.Listener // public: nil when there is none
}

// open opens them before anything else is touched: a port that is taken must not
// leave a database behind.
func (f serveFlags) open() (d doors, err error) {
	if d.private, err = listen(f.Listen, "--listen"); err != nil || f.WebhookListen == "" {
		return d, err
	}
	if d.public, err = listen(f.WebhookListen, "--webhook-listen"); err != nil {
		return d, errors.Join(err, d.private.Close())
	}
	return d, nil
}

// close closes what no server has taken over.
func (d doors) close() {
	_ = d.private.Close()
	if d.public != nil {
		_ = d.public.Close()
	}
}

// startServer opens the database and serves on the doors.
func startServer(ctx context.Context, d doors, cfg config, log *slog.Logger) (*server, error) {
	s, err := newServer(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	s.serve(d.private, s.private)
	if d.public != nil {
		s.serve(d.public, s.public)
	}
	s.start()
	return s, nil
}

// serveUntil runs a server until ctx ends, then drains it.
func serveUntil(ctx context.Context, f serveFlags, cfg config, std streams) error {
	log := f.logger(std.err, isTerminal(std.err), wantsColor(std.env))
	d, err := f.open()
	if err != nil {
		return err
	}
	defer d.close()
	s, err := startServer(ctx, d, cfg, log)
	if err != nil {
		return err
	}
	server := category(log, "server")
	server.Info("sidejob serves", "version", version(), "address", addressOf(d.private), "trigger", cfg.triggerOn)
	<-ctx.Done()
	server.Info("draining", "atMost", cfg.drain)
	err = s.shutdown()
	server.Info("stopped")
	return err
}
