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
	jobs := []job.Job{}
	for len(jobs) < want.Limit {
		found, err := c.claimable(ctx, want, want.Limit-len(jobs))
		if err != nil || len(found) == 0 {
			return jobs, err
		}
		for _, j := range found {
			j, err := c.claimOne(ctx, j, want)
			if errors.Is(err, job.ErrRefused) {
				continue // it was put off: its time has passed, and it skips
			}
			if err != nil {
				return nil, err
			}
			jobs = append(jobs, j)
		}
	}
	return jobs, nil
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
	if want.ID != 0 {
		return c.selectJobs(ctx, c.tx, "WHERE "+ripe+" AND id = $2"+order, at, want.ID)
	}
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

// NextClaimable is documented at Store.
func (s *sqlStore) NextClaimable(ctx context.Context, c Claim) (next time.Time, err error) {
	args := []any{s.dialect.time(c.At)}
	types, args := notTypes(c.NotTypes, args)
	if len(c.Types) > 0 {
		marks := make([]string, len(c.Types))
		for i, t := range c.Types {
			args = append(args, t)
			marks[i] = fmt.Sprintf("$%d", len(args))
		}
		types = " AND type IN (" + strings.Join(marks, ", ") + ")"
	}
	err = s.db.QueryRowContext(ctx, `
		SELECT MIN(at) FROM (
			SELECT MIN(due) AS at FROM worker_jobs WHERE `+free+` AND due > $1`+types+`
			UNION ALL
			SELECT MIN(next_try_at) FROM worker_jobs WHERE `+free+` AND next_try_at > 0 AND next_try_at > $1`+types+`) AS later`,
		args...).Scan(s.dialect.timeColumn(&next))
	if err != nil {
		return next, fmt.Errorf("read when the next job may be claimed: %w", err)
	}
	return next, nil
}
