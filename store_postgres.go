package main

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// isPostgres tells whether an address is PostgreSQL's.
func isPostgres(address string) bool {
	return strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://")
}

// postgresConfig says how sidejob uses the host's PostgreSQL.
type postgresConfig struct {
	url    string
	schema string // of sidejob's own tables, and the channel they notify
	pool
	log *slog.Logger
}

// pool says how much of the database is asked for at once, and how long.
type pool struct {
	conns   int           // open at once, beside the one that listens
	timeout time.Duration // of a statement
	deaf    bool          // hears nothing of what others write, and looks for it now and then
}

// or fills in what is not said.
func (p pool) or(other pool) pool {
	return pool{conns: cmp.Or(p.conns, other.conns), timeout: cmp.Or(p.timeout, other.timeout), deaf: p.deaf}
}

// patience is how long a call may take in all, waiting for a free connection included.
// The database itself ends the statement first, if it can be reached.
func (p pool) patience() time.Duration { return p.timeout + p.timeout/3 }

func newPostgresConfig(url string, log *slog.Logger) postgresConfig {
	return postgresConfig{url: url, schema: "sidejob", pool: pool{conns: 10, timeout: 15 * time.Second}, log: log}
}

// openPostgres connects to the host's database and makes sidejob's tables in one that
// has none. A worker_jobs that sidejob did not make is refused and left as it is.
func openPostgres(ctx context.Context, c postgresConfig) (*sqlStore, error) {
	config, host, err := c.connection()
	if err != nil {
		return nil, err
	}
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(c.conns)
	db.SetMaxIdleConns(c.conns)
	db.SetConnMaxIdleTime(time.Minute)
	theirs, err := c.prepare(ctx, db, host)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	d := c.dialect(theirs)
	s := &sqlStore{db: db, dialect: d, write: postgresWriter{db, d}.write, hub: newHub()}
	listening, stop := context.WithCancel(context.Background())
	var hears sync.WaitGroup
	if !c.deaf {
		hears.Go(func() { listener{config, c.schema, s.hub, c.log}.run(listening) })
	}
	s.shut = sync.OnceValue(func() error {
		stop()
		hears.Wait()
		return db.Close()
	})
	if s.installation, err = s.nameInstallation(ctx); err != nil {
		return nil, errors.Join(err, s.shut())
	}
	return s, nil
}

func (c postgresConfig) dialect(host map[string]hostColumn) dialect {
	return dialect{
		shared:    true,
		forUpdate: " FOR UPDATE", skipLocked: " FOR UPDATE SKIP LOCKED",
		lockTag:  "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
		hasLabel: "labels::jsonb @> jsonb_build_array(CAST(%s AS text))",
		time:     func(t time.Time) any { return t.UTC() },
		busy:     postgresBusy,
		patience: c.patience(),
		host:     host,
	}
}

// frozenAfter is how long a transaction may wait for its next statement. Nothing waits
// within one here, so its process is frozen or its machine gone; what it has locked, the
// lead for instance, is then free again before its lead is over.
const frozenAfter = 5 * time.Second

// connection reads the URL. Every connection finds sidejob's tables before the
// host's, for which host is the search path, and gives up on what takes too long.
func (c postgresConfig) connection() (config *pgx.ConnConfig, host string, err error) {
	config, err = pgx.ParseConfig(c.url)
	if err != nil {
		return nil, "", usage(fmt.Errorf("DATABASE_URL: %w", err)) // it shows no password
	}
	set := config.RuntimeParams
	if host = set["search_path"]; host == "" {
		host = `"$user", public`
	}
	set["search_path"] = c.schema + ", " + host
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	for name, value := range map[string]string{
		"application_name": "sidejob", "statement_timeout": ms(c.timeout), "idle_in_transaction_session_timeout": ms(frozenAfter),
	} {
		if set[name] == "" {
			set[name] = value
		}
	}
	set["TimeZone"] = "UTC" // a host's times may be without a zone
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	return config, host, nil
}

// prepare makes the schema in a database that has neither it nor a worker_jobs, and
// says how an adopted one differs. Two sidejobs that start at once take turns.
func (c postgresConfig) prepare(ctx context.Context, db *sql.DB, host string) (map[string]hostColumn, error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	defer tx.Rollback()
	if _, err = tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", "schema "+c.schema); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	found, err := c.find(ctx, tx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("open database: %w", err)
	case found.ours:
		return c.check(ctx, tx, found)
	case found.theirs:
		return nil, usage(errors.New("the database has a worker_jobs that sidejob did not make; it was left as it is: see what would be added with sidejob db adopt"))
	}
	text := fmt.Sprintf("SET LOCAL search_path = %s; %s; INSERT INTO %s.meta (key, value) VALUES ('schema', '%d');",
		host, schemaText(c.schema), c.schema, postgresVersion)
	if _, err := tx.ExecContext(ctx, text); err != nil {
		return nil, fmt.Errorf("make the tables: %w", err)
	}
	return nil, tx.Commit()
}

// foundSchema is what a database holds. The version is 0 where an adoption was begun and
// not finished.
type foundSchema struct {
	ours, theirs, adopted bool
	version               int
}

func (c postgresConfig) find(ctx context.Context, q queryer) (f foundSchema, err error) {
	err = q.QueryRowContext(ctx, "SELECT to_regclass($1) IS NOT NULL, to_regclass('worker_jobs') IS NOT NULL", c.schema+".meta").Scan(&f.ours, &f.theirs)
	if err != nil || !f.ours {
		return f, err
	}
	err = q.QueryRowContext(ctx, fmt.Sprintf(`
		SELECT COALESCE(MAX(CASE key WHEN 'schema' THEN value::integer END), 0), COUNT(CASE key WHEN 'adopted' THEN 1 END) > 0
		FROM %s.meta WHERE key IN ('schema', 'adopted')`, c.schema)).Scan(&f.version, &f.adopted)
	return f, err
}

// check refuses a schema that this sidejob does not know, and a table that lacks
// columns: a host's own migrations may have dropped what they know nothing of.
func (c postgresConfig) check(ctx context.Context, tx *sql.Tx, found foundSchema) (map[string]hostColumn, error) {
	switch found.version {
	case postgresVersion:
	case 0:
		return nil, usage(errors.New("the adoption of worker_jobs was not finished: go on with sidejob db adopt --yes"))
	default:
		return nil, usage(fmt.Errorf("the database has schema %d, this sidejob knows %d: run the sidejob that made it", found.version, postgresVersion))
	}
	table, err := readTable(ctx, tx)
	if err != nil {
		return nil, err
	}
	if table.name == "" {
		return nil, usage(fmt.Errorf("the database has sidejob's own tables in schema %s, but no worker_jobs is found: see the search_path of DATABASE_URL", c.schema))
	}
	if missing := table.lacks(); len(missing) > 0 {
		return nil, usage(fmt.Errorf("%s lacks %d columns, such as %s: add them with sidejob db adopt", table.name, len(missing), missing[0].name))
	}
	return table.differs(), nil
}

// postgresWriter carries out writes, each in a transaction of its own. One that lost
// against another is done again.
type postgresWriter struct {
	db      *sql.DB
	dialect dialect
}

// writeTries is how often a write is begun that others thwart.
const writeTries = 5

func (w postgresWriter) write(ctx context.Context, fn func(context.Context, *sql.Tx) error) error {
	ctx, cancel := w.dialect.bounded(ctx)
	defer cancel()
	for try := 1; ; try++ {
		err := w.once(ctx, fn)
		if err == nil || try == writeTries || !thwarted(err) {
			return misfit(err)
		}
	}
}

func (w postgresWriter) once(ctx context.Context, fn func(context.Context, *sql.Tx) error) error {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback()
	if err := fn(ctx, tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", unsure(err))
	}
	return nil
}

// unsure tells a commit without an answer from one that was refused. A server that is
// shut down may have committed before it says so.
func unsure(err error) error {
	var e *pgconn.PgError
	if errors.As(err, &e) && !lost(e.Code) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnsure, err)
}

// lost tells whether an error code is about the connection or the server, not about what
// was asked of it. Codes: PostgreSQL's appendix A.
func lost(code string) bool {
	switch code[:2] {
	case "08", "57", "58":
		return true
	}
	return false
}

// misfit tells a value that a column cannot hold from other errors. Codes: PostgreSQL's
// appendix A.
func misfit(err error) error {
	var e *pgconn.PgError
	if errors.As(err, &e) && (e.Code == "22003" || e.Code == "22001") {
		return &misfitError{e.Message}
	}
	return err
}

// thwarted tells whether another transaction came in between: a deadlock, or a row
// that both wanted to be the first to insert.
func thwarted(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case "40001", "40P01":
		return true
	case "23505":
		return e.ConstraintName == "worker_jobs_nominal"
	}
	return false
}

// postgresBusy tells a database that is away, full or in somebody else's hands from
// one that refuses a statement. Codes: PostgreSQL's appendix A.
func postgresBusy(err error) bool {
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return true // whatever it says: one that is being restored does not even exist
	}
	var e *pgconn.PgError
	if errors.As(err, &e) {
		switch e.Code[:2] {
		case "40", "53": // lost against others; full
			return true
		}
		return lost(e.Code) || e.Code == "55P03" || e.Code == "25006" || e.Code == "25P03" // a lock in time; a standby; frozen amid a transaction
	}
	var network net.Error
	for _, gone := range []error{ErrUnsure, net.ErrClosed, io.EOF, io.ErrUnexpectedEOF, sql.ErrConnDone, driver.ErrBadConn} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return errors.As(err, &network) || pgconn.SafeToRetry(err)
}

// listener wakes who watches this process's hub when others write rows.
type listener struct {
	config  *pgx.ConnConfig
	channel string
	hub     *hub
	log     *slog.Logger
}

// relisten is the pause before a connection that broke is made again.
const relisten = 2 * time.Second

// run listens until ctx ends. After a break everybody looks for himself: what was
// told meanwhile is lost.
func (l listener) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		l.log.Debug("not told of other writers, looking now and then instead", "err", err)
		pause(ctx, relisten)
	}
}

func (l listener) listen(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, l.config.Copy())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{l.channel}.Sanitize()); err != nil {
		return err
	}
	l.hub.tell([]int64{claimableJobs, timedJobs, owingJobs})
	for {
		told, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		l.hub.tell(toldOf(told.Payload))
	}
}

// toldOf are the job and the topics that a notification is about.
func toldOf(payload string) (watched []int64) {
	topics := map[string]int64{"claimable": claimableJobs, "timed": timedJobs, "owing": owingJobs}
	for _, word := range strings.Fields(payload) {
		if id, err := strconv.ParseInt(word, 10, 64); err == nil {
			watched = append(watched, id)
		}
		if topic, known := topics[word]; known {
			watched = append(watched, topic)
		}
	}
	return watched
}
