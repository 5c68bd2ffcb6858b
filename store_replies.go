package main

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Reserve is documented at Store. A reservation left behind by another process, or by
// a request that is over, is taken over; what that one had made by then is in the
// reply's JobIDs.
func (s *sqlStore) Reserve(ctx context.Context, r Reservation) (reply Reply, err error) {
	err = s.commit(ctx, func(ctx context.Context, tx *sql.Tx) error {
		reply, err = s.reserve(ctx, tx, r)
		return err
	})
	return reply, err
}

func (s *sqlStore) reserve(ctx context.Context, tx *sql.Tx, r Reservation) (reply Reply, err error) {
	if s.dialect.lockTag != "" {
		if _, err := tx.ExecContext(ctx, s.dialect.lockTag, string(r.Key)); err != nil {
			return reply, fmt.Errorf("lock idempotency key: %w", err)
		}
	}
	var digest, owner string
	var at time.Time
	var status sql.NullInt64
	var jobIDs, headers sql.NullString
	err = tx.QueryRowContext(ctx, `
		SELECT digest, owner, at, job_ids, status, headers, body FROM replies WHERE scope = $1`+s.dialect.forUpdate,
		string(r.Key)).Scan(&digest, &owner, s.dialect.timeColumn(&at), &jobIDs, &status, &headers, &reply.Body)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && at.Before(r.At.Add(-replyLife)):
		_, err = tx.ExecContext(ctx, `
			INSERT INTO replies (scope, digest, owner, at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (scope) DO UPDATE SET digest = excluded.digest, owner = excluded.owner, at = excluded.at,
				job_ids = NULL, status = NULL, headers = NULL, body = NULL`,
			string(r.Key), r.Digest, r.Owner, s.dialect.time(r.At))
		return Reply{}, err
	case err != nil:
		return reply, fmt.Errorf("read idempotency key: %w", err)
	case digest != r.Digest:
		return reply, ErrReplyMismatch
	case !status.Valid && owner == r.Owner && !r.Over:
		return reply, ErrReplyUnderWay
	}
	if !status.Valid && owner != r.Owner {
		if lives, err := s.ownerLives(ctx, tx, owner); err != nil || lives {
			return reply, cmp.Or(err, ErrReplyUnderWay)
		}
	}
	if jobIDs.Valid {
		err = json.Unmarshal([]byte(jobIDs.String), &reply.JobIDs)
	}
	if headers.Valid {
		err = errors.Join(err, json.Unmarshal([]byte(headers.String), &reply.Headers))
	}
	if err != nil || status.Valid {
		reply.Status = int(status.Int64)
		return reply, err
	}
	_, err = tx.ExecContext(ctx, "UPDATE replies SET owner = $1 WHERE scope = $2", r.Owner, string(r.Key))
	return reply, err
}

// Keep is documented at Store.
func (s *sqlStore) Keep(ctx context.Context, request Keyed, reply Reply) error {
	headers, err := json.Marshal(reply.Headers)
	if err != nil {
		return fmt.Errorf("keep reply: %w", err)
	}
	return s.commit(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if reply.Status == 0 {
			return giveBack(ctx, tx, request)
		}
		_, err := tx.ExecContext(ctx, "UPDATE replies SET status = $1, headers = $2, body = $3 WHERE scope = $4 AND owner = $5",
			reply.Status, string(headers), reply.Body, string(request.Key), request.Owner)
		return err
	})
}

// giveBack frees a key whose request was not answered. Where it has made jobs, the
// next one with the key gets those.
func giveBack(ctx context.Context, tx *sql.Tx, r Keyed) error {
	_, err := tx.ExecContext(ctx, "DELETE FROM replies WHERE scope = $1 AND owner = $2 AND status IS NULL AND job_ids IS NULL", string(r.Key), r.Owner)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE replies SET owner = '' WHERE scope = $1 AND owner = $2 AND status IS NULL", string(r.Key), r.Owner)
	return err
}

// noteJobs writes the jobs that a request has made beside its idempotency key. A
// process that was frozen for long may find its request taken over by another: that
// one makes the jobs then.
func (c *changeset) noteJobs(ctx context.Context, r Keyed, ids []int64) error {
	if r.Key == "" {
		return nil
	}
	text, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	done, err := c.tx.ExecContext(ctx, "UPDATE replies SET job_ids = $1 WHERE scope = $2 AND owner = $3", string(text), string(r.Key), r.Owner)
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return cmp.Or(err, ErrReplyUnderWay)
	}
	return nil
}
