package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// cluster is a PostgreSQL for the tests of this process: a throw-away one, made when
// the first test asks for it, or what TEST_DATABASE_URL names.
type cluster struct {
	start   func() (string, error) // once; the URL
	begun   atomic.Bool
	bin     string // where its programs are
	folder  string
	fsync   string // "off" where nothing has to outlive the server
	server  *exec.Cmd
	schemas atomic.Int64
}

// throwAwayCluster is the one cluster there is.
var throwAwayCluster = sync.OnceValue(func() *cluster {
	c := &cluster{fsync: "off"}
	c.start = sync.OnceValues(c.run)
	return c
})

// ownCluster is a cluster of the test's own, which it may stop and start again: what
// was committed is there afterwards.
func ownCluster(t *testing.T) (c *cluster, address string) {
	t.Helper()
	c = &cluster{fsync: "on"}
	c.start = sync.OnceValues(c.launch)
	t.Cleanup(c.stop)
	return c, c.url(t)
}

var errNoPostgres = errors.New("no PostgreSQL here: install it, or set TEST_DATABASE_URL")

// url starts the cluster, or skips the test where there is no PostgreSQL. Under CI
// that is a failure.
func (c *cluster) url(t *testing.T) string {
	t.Helper()
	address, err := c.start()
	if errors.Is(err, errNoPostgres) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	return address
}

func (c *cluster) run() (string, error) {
	if address := os.Getenv("TEST_DATABASE_URL"); address != "" {
		return address, nil
	}
	return c.launch()
}

// program finds one of PostgreSQL's, "" when it is not there. Debian keeps them apart by
// version and has the newest win.
func (c *cluster) program(name string) string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name) // the pattern is right
	if path, err := exec.LookPath(name); err == nil && len(found) == 0 {
		found = append(found, path)
	}
	if len(found) == 0 {
		return ""
	}
	return slices.Max(found)
}

// launch makes a cluster in a folder of its own and waits until it answers on a
// socket there. Root must not run it, so root has the user postgres do so.
func (c *cluster) launch() (_ string, err error) {
	found := c.program("postgres")
	if found == "" {
		return "", errNoPostgres
	}
	c.bin = filepath.Dir(found)
	if c.folder, err = os.MkdirTemp("", "sidejob-postgres-"); err != nil {
		return "", err
	}
	c.begun.Store(true)
	as, err := c.servant()
	if err != nil {
		return "", err
	}
	initdb := exec.Command(filepath.Join(c.bin, "initdb"), "-D", c.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = as, c.folder
	if text, err := initdb.CombinedOutput(); err != nil {
		return "", fmt.Errorf("initdb: %w: %s", err, text)
	}
	return c.boot()
}

func (c *cluster) data() string { return filepath.Join(c.folder, "data") }

// boot runs the server on the data there are.
func (c *cluster) boot() (address string, err error) {
	c.server = exec.Command(filepath.Join(c.bin, "postgres"), "-D", c.data(), "-k", c.folder,
		"-c", "listen_addresses=", "-c", "fsync="+c.fsync, "-c", "max_connections=300", "-c", "shared_buffers=64MB", "-c", "log_min_messages=fatal")
	if c.server.SysProcAttr, err = c.servant(); err != nil {
		return "", err
	}
	c.server.Dir = c.folder
	if err := c.server.Start(); err != nil {
		return "", err
	}
	address = "postgres://postgres@/postgres?host=" + url.QueryEscape(c.folder)
	return address, answersSoon(address)
}

// halt ends the server as a restart does: every connection is broken off, what was
// committed is kept.
func (c *cluster) halt() error {
	if err := c.server.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	return c.server.Wait()
}

// servant is who runs the server.
func (c *cluster) servant() (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL refuses to run as root: %w", err)
	}
	uid, errU := strconv.Atoi(u.Uid)
	gid, errG := strconv.Atoi(u.Gid)
	err = errors.Join(errU, errG, os.Chown(c.folder, uid, gid))
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, err
}

func answersSoon(address string) error {
	for end := time.Now().Add(30 * time.Second); ; {
		conn, err := pgx.Connect(context.Background(), address)
		if err == nil {
			return conn.Close(context.Background())
		}
		if time.Now().After(end) {
			return err
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (c *cluster) stop() {
	if !c.begun.Load() {
		return
	}
	if c.server != nil && c.server.Process != nil {
		_ = c.server.Process.Signal(syscall.SIGQUIT) // at once; nothing is kept
		_ = c.server.Wait()
	}
	_ = os.RemoveAll(c.folder)
}

// freshSchemas makes a schema for the host's tables and names one for sidejob's, so
// that no test meets another.
func (c *cluster) freshSchemas(t *testing.T) (host *sql.DB, config postgresConfig) {
	t.Helper()
	address := c.url(t)
	n := fmt.Sprintf("%d_%d", os.Getpid(), c.schemas.Add(1))
	config = newPostgresConfig(withParameter(address, "search_path", "host_"+n), slog.New(slog.DiscardHandler))
	config.schema = "sidejob_" + n
	parsed, err := pgx.ParseConfig(withParameter(address, "search_path", config.schema+",host_"+n))
	if err != nil {
		t.Fatal(err)
	}
	host = stdlib.OpenDB(*parsed)
	t.Cleanup(func() {
		_, err := host.Exec(fmt.Sprintf("DROP SCHEMA IF EXISTS host_%s, sidejob_%s CASCADE", n, n))
		if err := errors.Join(err, host.Close()); err != nil {
			t.Errorf("clear the database: %v", err)
		}
	})
	if _, err := host.Exec("CREATE SCHEMA host_" + n); err != nil {
		t.Fatal(err)
	}
	return host, config
}

func withParameter(address, name, value string) string {
	mark := "?"
	if strings.Contains(address, "?") {
		mark = "&"
	}
	return address + mark + name + "=" + url.QueryEscape(value)
}

func TestStoreOnPostgreSQL(t *testing.T) { testStore(t, openPostgresForTest) }

func openPostgresForTest(t *testing.T) (Store, *sql.DB) {
	host, config := throwAwayCluster().freshSchemas(t)
	config.conns = 8
	store, err := openPostgres(t.Context(), config)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { mustClose(t, store) })
	return store, host
}
