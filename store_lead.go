package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Alone is documented at Store.
func (s *sqlStore) Alone() bool { return !s.dialect.shared }

// Lead is documented at Store. Where one sidejob has the database to itself it leads,
// always in the first term. The clock is the database's: those of several machines
// differ.
func (s *sqlStore) Lead(ctx context.Context, owner string, life time.Duration) (term int64, err error) {
	if !s.dialect.shared {
		return 1, nil
	}
	seconds := life.Seconds()
	err = s.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `
			INSERT INTO lead (owner, term, expires_at) VALUES ($1, 1, now() + make_interval(secs => $2))
			ON CONFLICT (one) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at,
				term = lead.term + CASE WHEN lead.owner = excluded.owner AND lead.expires_at > now() THEN 0 ELSE 1 END
			WHERE lead.owner = excluded.owner OR lead.expires_at <= now()
			RETURNING term`, owner, seconds).Scan(&term)
		if errors.Is(err, sql.ErrNoRows) {
			term = 0
			return nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ask for the lead: %w", s.busyOr(err))
	}
	return term, nil
}

// Leader is documented at Store.
func (s *sqlStore) Leader(ctx context.Context) (l Leader, err error) {
	if !s.dialect.shared {
		return Leader{Term: 1, Instances: 1}, nil
	}
	ctx, done := s.reading(ctx, &err)
	defer done()
	return leaderOf(ctx, s.db)
}

func leaderOf(ctx context.Context, q queryer) (l Leader, err error) {
	err = q.QueryRowContext(ctx, `
		SELECT COALESCE(MAX(owner), ''), COALESCE(MAX(term), 0),
			(SELECT COUNT(*) FROM instances WHERE seen_at > now() - make_interval(secs => $1))
		FROM lead WHERE expires_at > now()`, aliveWithin.Seconds()).Scan(&l.Owner, &l.Term, &l.Instances)
	if err != nil {
		return Leader{}, fmt.Errorf("read who leads: %w", err)
	}
	return l, nil
}

// Resign is documented at Store.
func (s *sqlStore) Resign(ctx context.Context, owner string) error {
	return s.sharing(ctx, "give up the lead", owner, "UPDATE lead SET expires_at = now() WHERE owner = $1")
}

// Attend is documented at Store. It forgets who has not been seen for a day.
func (s *sqlStore) Attend(ctx context.Context, owner string) error {
	return s.sharing(ctx, "say that this sidejob lives", owner,
		"INSERT INTO instances (id, seen_at) VALUES ($1, now()) ON CONFLICT (id) DO UPDATE SET seen_at = now()",
		"DELETE FROM instances WHERE seen_at < now() - interval '1 day' AND id <> $1")
}

// Leave is documented at Store.
func (s *sqlStore) Leave(ctx context.Context, owner string) error {
	return s.sharing(ctx, "say that this sidejob leaves", owner, "DELETE FROM instances WHERE id = $1")
}

// sharing writes what matters only where several processes share the database.
func (s *sqlStore) sharing(ctx context.Context, what, owner string, statements ...string) error {
	if !s.dialect.shared {
		return nil
	}
	err := s.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, text := range statements {
			if _, err := tx.ExecContext(ctx, text, owner); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, s.busyOr(err))
	}
	return nil
}

// Others is documented at Store.
func (s *sqlStore) Others(ctx context.Context, owner string) (others bool, err error) {
	if !s.dialect.shared {
		return false, nil
	}
	ctx, done := s.reading(ctx, &err)
	defer done()
	err = s.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM instances WHERE id <> $1 AND seen_at > now() - make_interval(secs => $2))",
		owner, aliveWithin.Seconds()).Scan(&others)
	if err != nil {
		return false, fmt.Errorf("see who else uses the database: %w", err)
	}
	return others, nil
}

// checkTerm refuses a write that belongs to a term which is over. The row is held
// until the commit, so that nobody takes over in between.
func (s *sqlStore) checkTerm(ctx context.Context, tx *sql.Tx) error {
	term, bound := termOf(ctx)
	if !bound || !s.dialect.shared {
		return nil
	}
	var is int64
	err := tx.QueryRowContext(ctx, "SELECT term FROM lead FOR SHARE").Scan(&is)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("read the term: %w", err)
	}
	if is != term {
		return ErrNotLeading
	}
	return nil
}

// aliveWithin is how long an instance that has not been seen counts as alive.
const aliveWithin = 15 * time.Second

// ownerLives tells whether the process that began a request may still be at it.
func (s *sqlStore) ownerLives(ctx context.Context, tx *sql.Tx, owner string) (lives bool, err error) {
	if !s.dialect.shared || owner == "" {
		return false, nil
	}
	err = tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM instances WHERE id = $1 AND seen_at > now() - make_interval(secs => $2))",
		owner, aliveWithin.Seconds()).Scan(&lives)
	return lives, err
}
