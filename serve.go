package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"sidejob/internal/triggerdev"
)

// config is everything a server is made from, read and checked.
type config struct {
	database   string
	pool       pool // of PostgreSQL
	registry   registry
	hosts      []string // names of the private listener, beside loopback
	syncEvery  time.Duration
	drain      time.Duration
	workers    int // for the built-in types
	triggerOn  bool
	triggerURL string
	runsURL    string // where a run is shown, before its id; "" when nobody knows
	key        func() string
	secrets    webhookSecrets
	tokenFile  string // "": no token is needed
	token      string // instead of the file's
	transport  http.RoundTripper
	failpoint  *failpoint
}

// server is a running sidejob.
type server struct {
	cfg   config
	log   *slog.Logger
	store Store

	api        *api
	outbox     *outbox
	poller     *poller
	lookout    *lookout
	reconciler *reconciler
	follower   *follower
	clockwork  *clockwork
	workers    *workers
	leadership *leadership
	private    http.Handler
	public     http.Handler

	draining, stopped context.Context
	drain, stop       context.CancelFunc
	work              sync.WaitGroup // goroutines of the rooms
	sent              chan struct{}  // closed when the last send is over
	left              chan struct{}  // closed when the other sidejobs know that this one leaves
	listeners         []*http.Server
	serving           sync.WaitGroup
}

// newServer opens the database and puts the rooms together. Nothing runs before
// start, and all that may fail is done by then.
func newServer(ctx context.Context, cfg config, log *slog.Logger) (*server, error) {
	store, err := openStore(ctx, cfg.database, cfg.pool, now(), category(log, "store"))
	if err != nil {
		return nil, err
	}
	s := &server{cfg: cfg, log: log, store: store, sent: make(chan struct{}), left: make(chan struct{})}
	s.draining, s.drain = context.WithCancel(context.Background())
	s.stopped, s.stop = context.WithCancel(context.Background())
	if err = s.assemble(); err == nil {
		err = errors.Join(s.store.Attend(ctx, s.api.owner), s.workers.order(ctx), s.lookout.remember(ctx))
	}
	if err != nil {
		s.drain()
		s.stop()
		return nil, errors.Join(err, store.Close())
	}
	return s, nil
}

// openStore opens the database that the address names.
func openStore(ctx context.Context, address string, p pool, at time.Time, log *slog.Logger) (Store, error) {
	if isPostgres(address) {
		c := newPostgresConfig(address, log)
		c.pool = p.or(c.pool)
		return openPostgres(ctx, c)
	}
	return openSQLite(ctx, strings.TrimPrefix(address, "sqlite:"), at)
}

func (s *server) assemble() error {
	owner := instanceName()
	var a *adapter
	var trigger *triggerHealth
	if s.cfg.triggerOn {
		trigger = &triggerHealth{log: category(s.log, "trigger-adapter")}
	}
	h := newHealth(s.store, owner, trigger)
	if s.cfg.triggerOn {
		b := newBreaker(s.cfg.transport, category(s.log, "trigger-adapter"))
		client, err := triggerdev.New(triggerdev.Config{
			BaseURL: s.cfg.triggerURL, Key: s.cfg.key, UserAgent: "sidejob/" + version(), HTTP: &http.Client{Transport: b},
		})
		if err != nil {
			return usage(err)
		}
		a = &adapter{
			client: client, installation: s.store.Installation(), log: category(s.log, "trigger-adapter"),
			health: trigger, breaker: b, unknown: h.unknownStatus,
		}
	}
	h.paused = func() bool { return a != nil && a.breaker.open() }
	tokens, err := s.tokens()
	if err != nil {
		return err
	}
	s.outbox = newOutbox(s.store, a, owner, s.cfg.registry.task, category(s.log, "trigger-adapter"))
	s.poller = newPoller(s.store, a, s.cfg.syncEvery, category(s.log, "trigger-reconcile"))
	s.outbox.submitted, s.outbox.failpoint = s.poller.watch, s.cfg.failpoint
	s.lookout = newLookout(s.store, a, s.outbox, s.poller, category(s.log, "schedule"))
	s.outbox.scheduled, s.outbox.ending = s.lookout.soon, s.lookout.lastLook
	s.reconciler = newReconciler(s.store, a, s.outbox, s.poller, s.lookout, category(s.log, "trigger-reconcile"))
	s.follower = &follower{store: s.store, adapter: a, poller: s.poller, log: category(s.log, "trigger-reconcile")}
	s.clockwork = &clockwork{store: s.store, log: category(s.log, "schedule"), fired: s.outbox.nudge, lost: h.leaseLost}
	s.workers = &workers{store: s.store, desk: newDesk(s.store), log: category(s.log, "worker"), count: s.cfg.workers, do: builtins(s.store), claimed: h.claimed}
	h.runsURL = s.cfg.runsURL
	s.leadership = &leadership{store: s.store, owner: owner, log: category(s.log, "server"), work: s.lead}
	h.reconcile = func() bool { return a == nil || s.reconciler.started.Load() || s.leadership.follows.Load() }
	hook := &webhook{store: s.store, adapter: a, poller: s.poller, lookout: s.lookout, secrets: s.cfg.secrets, log: category(s.log, "trigger-webhook"), failpoint: s.cfg.failpoint}
	s.api = &api{
		store: s.store, desk: s.workers.desk, outbox: s.outbox, reconciler: s.reconciler, registry: s.cfg.registry, health: h,
		triggerOn: s.cfg.triggerOn, token: tokens, hosts: hostSet(s.cfg.hosts), owner: owner,
		draining: s.draining, failpoint: s.cfg.failpoint, log: category(s.log, "api"),
	}
	s.private, s.public = s.api.handler(hook), publicHandler(hook)
	return nil
}

func (s *server) tokens() (tokens, error) {
	switch {
	case s.cfg.token != "":
		return func() []string { return []string{s.cfg.token} }, nil
	case s.cfg.tokenFile == "":
		return nil, nil
	}
	return fileTokens(s.cfg.tokenFile)
}

// instanceName names this process among the sidejobs of a database, and says where it is.
func instanceName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), uuid.NewString()[:8])
}

func hostSet(names []string) allowedHosts {
	set := allowedHosts{}
	for _, name := range names {
		if host, _, err := net.SplitHostPort(name); err == nil {
			name = host
		}
		set[strings.ToLower(strings.Trim(name, "[]"))] = true
	}
	return set
}

// start begins the work behind the API. Reconciling goes on beside it.
func (s *server) start() {
	s.work.Go(func() {
		defer close(s.sent)
		s.outbox.run(s.stopped, s.draining)
	})
	s.work.Go(func() {
		defer close(s.left)
		s.attend(s.draining)
	})
	s.work.Go(func() { s.clockwork.run(s.draining) })
	s.work.Go(func() { s.workers.run(s.draining) })
	if s.cfg.triggerOn {
		s.work.Go(func() { s.poller.run(s.draining) })
		s.work.Go(func() { s.leadership.run(s.draining) })
	}
}

// attend has the other sidejobs on the database know that this one lives, and what it
// holds for nobody any more, until ctx ends; then, that it leaves.
func (s *server) attend(ctx context.Context) {
	if s.store.Alone() {
		return
	}
	for ctx.Err() == nil {
		pause(ctx, attendEvery)
		s.unheard(s.store.Attend(ctx, s.api.owner))
		s.api.giveBackMissed(ctx)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	s.unheard(s.store.Leave(last, s.api.owner))
}

func (s *server) unheard(err error) {
	if err != nil {
		s.log.Debug("the other sidejobs do not hear of this one", "category", "server", "err", err)
	}
}

// attendEvery is well below aliveWithin.
const attendEvery = 3 * time.Second

// lead does what one sidejob of those on a database does, until ctx ends.
func (s *server) lead(ctx context.Context) {
	stop, err := startPeriodics(ctx, periodics(s.reconciler, s.cfg.syncEvery, category(s.log, "schedule")))
	if err != nil {
		s.log.Error("cannot start periodic work", "category", "schedule", "err", err)
		return
	}
	var all sync.WaitGroup
	all.Go(func() { s.follower.run(ctx) })
	all.Go(func() { s.lookout.run(ctx) })
	all.Go(func() { s.firstReconcile(ctx) })
	<-ctx.Done()
	if err := stop(); err != nil {
		s.log.Error("periodic work did not stop in peace", "category", "schedule", "err", err)
	}
	all.Wait()
}

// firstReconcile is repeated while the database is away: runs that another sidejob
// watched until it died are known to nobody else before.
func (s *server) firstReconcile(ctx context.Context) {
	for {
		_, err := s.reconciler.reconcile(ctx, sweepOptions{})
		if err != nil && ctx.Err() == nil {
			s.log.Error("first reconciliation failed", "category", "trigger-reconcile", "err", err)
		}
		if !errors.Is(err, ErrBusy) || ctx.Err() != nil {
			break
		}
		pause(ctx, attendEvery)
	}
	s.reconciler.started.Store(true)
}

// serve answers on a listener until shutdown.
func (s *server) serve(l net.Listener, handler http.Handler) {
	srv := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(category(s.log, "server").Handler(), slog.LevelDebug),
	}
	s.listeners = append(s.listeners, srv)
	s.serving.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("listener failed", "category", "server", "address", l.Addr(), "err", err)
		}
	})
}

// shutdown ends the server in the reverse order of its start: nothing new is begun,
// long polls end, the API goes on while sends are under way or workers hold jobs, at
// most for the drain timeout, and the database is closed last.
func (s *server) shutdown() error {
	deadline, cancel := context.WithTimeout(context.Background(), s.cfg.drain)
	defer cancel()
	s.drain()
	var errs []error
	select {
	case <-s.sent:
	case <-deadline.Done():
		s.log.Warn("sends under way were cut off; they are settled at the next start", "category", "server")
	}
	s.awaitLeases(deadline)
	for _, srv := range s.listeners {
		if err := srv.Shutdown(deadline); err != nil {
			errs = append(errs, srv.Close())
		}
	}
	s.stop()
	s.work.Wait()
	s.serving.Wait()
	return errors.Join(append(errs, s.store.Close())...)
}

// awaitLeases waits until no worker holds a job that this sidejob has handed out, and
// where no other one is left to hear of them, until none holds any. A lease that has
// run out is lost at the next start.
func (s *server) awaitLeases(deadline context.Context) {
	log := category(s.log, "server")
	select {
	case <-s.left:
	case <-deadline.Done():
	}
	changed, stop := s.store.Watch(everyJob)
	defer stop()
	for {
		held, until, err := s.leasesToAwait(context.WithoutCancel(deadline))
		switch {
		case err != nil:
			log.Error("cannot see whether workers hold jobs", "err", err)
			return
		case held == 0:
			return
		case deadline.Err() != nil:
			log.Warn("workers still hold jobs; what they say of them is for the next start to hear", "leases", held)
			return
		}
		waitUntil(deadline, until, changed)
	}
}

func (s *server) leasesToAwait(ctx context.Context) (held int64, until time.Time, err error) {
	others, err := s.store.Others(ctx, s.api.owner)
	if err != nil {
		return 0, until, err
	}
	if others {
		return s.store.Leases(ctx, now(), s.api.owner+".")
	}
	return s.store.Leases(ctx, now(), "")
}

// addressOf is a server's address as people type it.
func addressOf(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix:" + l.Addr().String()
	}
	return fmt.Sprintf("http://%s", l.Addr())
}
