package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sidejob/internal/job"
)

// Claim is documented at Store. Each row is locked, and Next decides about each.
func (s *sqlStore) Claim(ctx context.Context, c Claim) (jobs []job.Job, err error) {
	err = s.change(ctx, func(ctx context.Context, set *changeset) error {
		jobs, err = set.claim(ctx, c)
		return err
	})
	return jobs, err
}

func (c *changeset) claim(ctx context.Context, want Claim) ([]job.Job, error) {
	if want.ID != 0 {
		return c.claimNamed(ctx, want)
	}
	jobs, refused := []job.Job{}, map[int64]bool{}
	for len(jobs) < want.Limit {
		rest := want.Limit - len(jobs)
		found, err := c.claimable(ctx, want, rest+len(refused))
		found = slices.DeleteFunc(found, func(j job.Job) bool { return refused[j.ID] })
		if err != nil || len(found) == 0 {
			return jobs, err
		}
		for _, j := range found[:min(rest, len(found))] {
			j, err := c.claimOne(ctx, j, want)
			if errors.Is(err, job.ErrRefused) {
				refused[j.ID] = true // such as one that skips: its time has passed
				continue
			}
			if err != nil {
				return nil, err
			}
			jobs = append(jobs, j)
		}
	}
	return jobs, nil
}

func (c *changeset) claimNamed(ctx context.Context, want Claim) ([]job.Job, error) {
	j, err := c.get(ctx, c.tx, want.ID, c.dialect.forUpdate)
	if err != nil {
		return nil, err
	}
	if j, err = c.claimOne(ctx, j, want); err != nil {
		return nil, err
	}
	return []job.Job{j}, nil
}

// claimOne gives the row a token of its own. A recurring one is first told what the
// time is, should it have missed its own.
func (c *changeset) claimOne(ctx context.Context, j job.Job, want Claim) (job.Job, error) {
	if j.Recurs() {
		if _, err := c.apply(ctx, j.ID, job.Event{Kind: job.Missed, At: want.At, Source: "clock"}); err != nil {
			return j, err
		}
	}
	lease := want.Lease
	lease.Token = fmt.Sprintf("%s.%d", want.Lease.Token, j.ID)
	step, err := c.apply(ctx, j.ID, job.Event{Kind: job.Claim, At: want.At, Source: "worker", Lease: lease})
	return step.Job, err
}

// claimable are the rows that may be claimed, soonest due first, then by id. They are
// read type by type, each off an index that begins with it.
func (c *changeset) claimable(ctx context.Context, want Claim, limit int) (jobs []job.Job, err error) {
	const ripe = free + " AND due <= $1 AND next_try_at <= $1"
	at := c.dialect.time(want.At)
	order := fmt.Sprintf(" ORDER BY due, id LIMIT %d", limit) + c.dialect.skipLocked
	if len(want.Types) == 0 {
		not, args := notTypes(want.NotTypes, []any{at})
		return c.selectJobs(ctx, c.tx, "WHERE "+ripe+not+order, args...)
	}
	for _, kind := range want.Types {
		found, err := c.selectJobs(ctx, c.tx, "WHERE "+ripe+" AND type = $2"+order, at, kind)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, found...)
	}
	slices.SortFunc(jobs, func(a, b job.Job) int {
		if n := a.Due.Compare(b.Due); n != 0 {
			return n
		}
		return int(a.ID - b.ID)
	})
	return jobs[:min(limit, len(jobs))], nil
}

// free selects the rows that nobody holds, in the words of their indexes.
const free = `finished IS NULL AND executor = 'internal' AND lease_token IS NULL AND cancel_requested = FALSE AND paused = FALSE`

// notTypes leaves types out.
func notTypes(types []string, args []any) (condition string, all []any) {
	var text strings.Builder
	for _, t := range types {
		args = append(args, t)
		fmt.Fprintf(&text, " AND type <> $%d", len(args))
	}
	return text.String(), args
}

// NextClaimable is documented at Store. Like claimable it reads type by type.
func (s *sqlStore) NextClaimable(ctx context.Context, c Claim) (next time.Time, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	not, args := notTypes(c.NotTypes, []any{s.dialect.time(c.At)})
	types := []string{not}
	if len(c.Types) > 0 {
		types, args = nil, args[:1]
		for _, t := range c.Types {
			args = append(args, t)
			types = append(types, fmt.Sprintf(" AND type = $%d", len(args)))
		}
	}
	var times []string
	for _, of := range types {
		times = append(times,
			"SELECT MIN(due) AS at FROM worker_jobs WHERE "+free+" AND due > $1"+of,
			"SELECT MIN(next_try_at) FROM worker_jobs WHERE "+free+" AND next_try_at > $1"+of)
	}
	err = s.db.QueryRowContext(ctx, "SELECT MIN(at) FROM ("+strings.Join(times, " UNION ALL ")+") AS later", args...).Scan(s.dialect.momentColumn(&next))
	if err != nil {
		return next, fmt.Errorf("read when the next job may be claimed: %w", err)
	}
	return next, nil
}

// Leases is documented at Store.
func (s *sqlStore) Leases(ctx context.Context, at time.Time, token string) (held int64, until time.Time, err error) {
	ctx, done := s.reading(ctx, &err)
	defer done()
	err = s.db.QueryRowContext(ctx, `
		SELECT COUNT(*), MAX(lease_expires_at) FROM worker_jobs
		WHERE finished IS NULL AND executor = 'internal' AND lease_token IS NOT NULL AND lease_expires_at > $1
		  AND lease_token LIKE CAST($2 AS text) || '%'`, s.dialect.time(at), token).
		Scan(&held, s.dialect.timeColumn(&until))
	if err != nil {
		return 0, until, fmt.Errorf("count leases: %w", err)
	}
	return held, until, nil
}
