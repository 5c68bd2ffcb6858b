package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// provingPostgres is a database of its own on a PostgreSQL server.
type provingPostgres struct {
	admin *sql.DB  // the database that the user has named
	url   *url.URL // of the throw-away one
	own   string   // its name, in lower-case letters and digits
}

// makeProvingPostgres makes a database of a random name on the server at the address.
func makeProvingPostgres(ctx context.Context, address string) (*provingPostgres, error) {
	if !isPostgres(address) {
		return nil, usage(errors.New("--database: is no postgres://… address; without it selftest takes a SQLite file of its own"))
	}
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, usage(fmt.Errorf("--database: %w", err)) // it shows no password
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, usage(errors.New("--database: is no URL")) // the error would show all of it
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	d := &provingPostgres{admin: stdlib.OpenDB(*config), own: "sidejob_selftest_" + strings.ToLower(rand.Text()[:10])}
	d.url = inDatabase(u, d.own)
	// What somebody has put into template1 is none of ours.
	if err := d.do(ctx, "CREATE DATABASE %s TEMPLATE template0", d.own); err != nil {
		return nil, errors.Join(noDatabase(err, config.User), d.admin.Close())
	}
	return d, nil
}

// inDatabase is the address of another database of the same server.
func inDatabase(u *url.URL, name string) *url.URL {
	other, query := *u, u.Query()
	query.Del("dbname") // it would win
	query.Del("database")
	other.Path, other.RawPath, other.RawQuery = "/"+name, "", query.Encode()
	return &other
}

// noDatabase says why there is no database to prove anything on.
func noDatabase(err error, role string) error {
	var e *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case errors.As(err, &e) && e.Code == "42501":
		return usage(fmt.Errorf("--database: the role %s may not make databases: give it CREATEDB, or name another role", role))
	case e != nil && (e.Code[:2] == "28" || e.Code == "3D000"): // who it is, and where, is refused
		return usage(fmt.Errorf("--database: %w", err))
	case errors.As(err, &connect):
		return exitf(exitUnreachable, "--database: %w", err)
	}
	return fmt.Errorf("make a database for the test: %w", err)
}

// do carries out a statement about databases, whose names it quotes.
func (d *provingPostgres) do(ctx context.Context, statement string, names ...any) error {
	for n, name := range names {
		names[n] = pgx.Identifier{name.(string)}.Sanitize()
	}
	_, err := d.admin.ExecContext(ctx, fmt.Sprintf(statement, names...))
	return err
}

func (d *provingPostgres) address() string { return d.url.String() }
func (d *provingPostgres) engine() string  { return "PostgreSQL" }
func (d *provingPostgres) name() string    { return d.own }
func (d *provingPostgres) copy() string    { return d.own + "_copy" }

func (d *provingPostgres) password() string {
	if _, given := d.url.User.Password(); !given {
		return ""
	}
	_, password, _ := strings.Cut(d.url.User.String(), ":")
	return ":" + password + "@" // alone it may be a word that stands in any log
}

// backup waits until the server that was killed has left.
func (d *provingPostgres) backup(ctx context.Context) error {
	if err := errors.Join(d.cutAll(ctx), d.do(ctx, "CREATE DATABASE %s TEMPLATE %s", d.copy(), d.own)); err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	return nil
}

func (d *provingPostgres) restore(ctx context.Context) (is bool, err error) {
	err = d.admin.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)", d.copy()).Scan(&is)
	if err == nil && is {
		err = errors.Join(d.drop(ctx, d.own), d.do(ctx, "CREATE DATABASE %s TEMPLATE %s", d.own, d.copy()))
	}
	if err != nil {
		return is, fmt.Errorf("restore the database: %w", err)
	}
	return is, nil
}

func (d *provingPostgres) drop(ctx context.Context, name string) error {
	return d.do(ctx, "DROP DATABASE IF EXISTS %s WITH (FORCE)", name)
}

func (d *provingPostgres) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := errors.Join(d.drop(ctx, d.own), d.drop(ctx, d.copy()), d.admin.Close()); err != nil {
		return fmt.Errorf("drop database %s: %w", d.own, err)
	}
	return nil
}

// outlive lets the lead of the dead server run out, and nobody wait for the requests
// that it had begun.
func (d *provingPostgres) outlive(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, d.address())
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `
		UPDATE sidejob.lead SET expires_at = expires_at - interval '1 minute';
		UPDATE sidejob.instances SET seen_at = seen_at - interval '1 minute'`)
	return errors.Join(err, conn.Close(ctx))
}

func (d *provingPostgres) hindrances() []hindrance {
	return []hindrance{
		{name: "connections are cut", begin: d.cut},
		{name: "connections are refused", begin: d.refuse},
	}
}

// cutAll ends every connection to the database.
func (d *provingPostgres) cutAll(ctx context.Context) error {
	_, err := d.admin.ExecContext(ctx, `
		SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = $1 AND usename = current_user AND backend_type = 'client backend'`, d.own)
	return err
}

// cut ends the connections again and again, some in the middle of a request.
func (d *provingPostgres) cut(ctx context.Context, _ *child, random *mathrand.Rand) (lift func() error, err error) {
	cutting, stop := context.WithCancel(ctx)
	own := mathrand.New(mathrand.NewPCG(random.Uint64(), 0))
	done := make(chan error, 1)
	go func() {
		var err error
		for err == nil && cutting.Err() == nil {
			err = d.cutAll(context.WithoutCancel(cutting))
			pause(cutting, time.Duration(own.IntN(30))*time.Millisecond)
		}
		done <- err
	}()
	return func() error {
		stop()
		return <-done
	}, nil
}

// refuse lets nobody connect, and ends the connections that there are.
func (d *provingPostgres) refuse(ctx context.Context, _ *child, _ *mathrand.Rand) (lift func() error, err error) {
	lift = func() error { return d.do(ctx, "ALTER DATABASE %s ALLOW_CONNECTIONS true", d.own) }
	return lift, errors.Join(d.do(ctx, "ALTER DATABASE %s ALLOW_CONNECTIONS false", d.own), d.cutAll(ctx))
}
