package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
)

// signs are what a database tells of those who use it.
type signs struct {
	clock   time.Time        // the database's; zero where it has none of its own
	leader  Leader           // of a shared one
	strange int64            // internal jobs that somebody works on without a lease
	example int64            // one of them
	open    map[string]int64 // unfinished runs, by the id of their environment
}

// openToLook opens a database for reading alone. It makes nothing and holds no lock, so
// a server may run beside it.
func openToLook(address string) (*sqlStore, error) {
	if !isPostgres(address) {
		db, err := openExisting(address)
		if err != nil {
			return nil, err
		}
		return &sqlStore{db: db, dialect: sqliteDialect(), shut: db.Close}, nil
	}
	c := newPostgresConfig(address, slog.New(slog.DiscardHandler))
	config, _, err := c.connection()
	if err != nil {
		return nil, err
	}
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(1)
	return &sqlStore{db: db, dialect: c.dialect(nil), shut: db.Close}, nil
}

// signs reads them. Each is one short statement off an index.
func (s *sqlStore) signs(ctx context.Context, at time.Time) (found signs, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	if s.dialect.shared {
		if err := s.db.QueryRowContext(ctx, "SELECT clock_timestamp()").Scan(&found.clock); err != nil {
			return found, fmt.Errorf("read the database's clock: %w", err)
		}
		if found.leader, err = leaderOf(ctx, s.db); err != nil {
			return found, err
		}
	}
	if found.strange, found.example, err = s.strangers(ctx, at); err != nil {
		return found, err
	}
	found.open, err = s.environments(ctx)
	return found, err
}

// recently is how far back strangers are looked for among what has ended.
const recently = time.Hour

// strangers counts the internal jobs that somebody began without a lease, or ended: each
// try under a lease counts in attempt.
func (s *sqlStore) strangers(ctx context.Context, at time.Time) (n, example int64, err error) {
	err = s.db.QueryRowContext(ctx, `
		SELECT COUNT(*), COALESCE(MAX(id), 0) FROM (
			SELECT id FROM worker_jobs
			WHERE finished IS NULL AND executor = 'internal' AND lease_token IS NULL AND started IS NOT NULL AND attempt = 0
			UNION ALL
			SELECT id FROM worker_jobs
			WHERE created_at > $1 AND finished IS NOT NULL AND executor = 'internal' AND success = TRUE AND attempt = 0) AS strange`,
		s.dialect.time(at.Add(-recently))).Scan(&n, &example)
	if err != nil {
		return 0, 0, fmt.Errorf("look for workers without leases: %w", err)
	}
	return n, example, nil
}

// environments counts the unfinished runs by the environment in which they are.
func (s *sqlStore) environments(ctx context.Context) (map[string]int64, error) {
	rows, err := s.db.QueryContext(ctx, `
		SELECT trigger_environment, COUNT(*) FROM worker_jobs
		WHERE finished IS NULL AND trigger_run_id IS NOT NULL AND trigger_environment IS NOT NULL
		GROUP BY trigger_environment`)
	if err != nil {
		return nil, fmt.Errorf("count runs by environment: %w", err)
	}
	defer rows.Close()
	counted := map[string]int64{}
	for rows.Next() {
		var id string
		var n int64
		if err := rows.Scan(&id, &n); err != nil {
			return nil, fmt.Errorf("count runs by environment: %w", err)
		}
		counted[id] = n
	}
	return counted, rows.Err()
}
